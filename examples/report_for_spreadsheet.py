#!/usr/bin/env python3
"""Makes a report over HTTP and writes it as spreadsheets in much of the world want it: `;` between the columns, a decimal
comma, a byte order mark, CRLF.

    python3 examples/report_for_spreadsheet.py http://127.0.0.1:8080 report.csv [--windows rolling] [--closed excluded]

Where the daemon wants a token, it is taken from UPTALLY_TOKEN. Needs nothing but Python's own library, 3.8 or newer.
"""

import argparse
import csv
import io
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request


def ask(url, method="GET"):
    """Status and body. Redirects, refusals and answers that are no success end the program with what was said."""
    token = os.environ.get("UPTALLY_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method, headers=headers), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{url}: {error.status} {error.read().decode(errors='replace')}")
    except urllib.error.URLError as error:
        raise SystemExit(f"{url}: {error.reason}")


def report(server, query):
    """The CSV of a new report."""
    _, triggered = ask(f"{server}/trigger_report?{urllib.parse.urlencode(query)}", "POST")
    report_id = json.loads(triggered)["report_id"]
    while True:
        status, body = ask(f"{server}/get_report?report_id={report_id}")
        if status == 200:
            return body.decode()
        time.sleep(0.2)


def converted(text):
    """The same table in the other spelling. Ids are left as they are: only what is a number gets a comma."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";", lineterminator="\r\n")
    for row in csv.reader(io.StringIO(text)):
        store, *numbers = row
        writer.writerow([store, *(number.replace(".", ",") for number in numbers)])
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server")
    parser.add_argument("output")
    parser.add_argument("--as-of", default="now")
    parser.add_argument("--windows", choices=["calendar", "rolling"], default="calendar")
    parser.add_argument("--closed", choices=["uptime", "excluded"], default="uptime")
    options = parser.parse_args()
    query = {"as_of": options.as_of, "windows": options.windows, "closed": options.closed}
    text = report(options.server.rstrip("/"), query)
    with open(options.output, "w", encoding="utf-8-sig", newline="") as file:
        file.write(converted(text))


if __name__ == "__main__":
    main()
