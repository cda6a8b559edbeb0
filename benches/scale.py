"""What a store costs, by the number of stores: import, rebuild, restart, memory, disk, flush, reports.

    make bench-scale                                   # 13,559 and 100,000 stores, a week of hourly polls
    make bench-scale SIZES="13559 100000 1000000:1"    # and a million with one day of polls
    make bench-scale SIZES="2000 --rounds 1"
    make bench-scale SIZES="--draw"                    # table and plot from the results that are there

Each size gets a fleet by `uptally generate` and a Postgres of its own (fsync on, settings of the private one), both
gone at the end. What is compared is interleaved in rounds and given as a ratio within one run:

- import: `uptally import` of the status file, beside psql COPY of the same file into a table of the same columns, keys,
  indexes and checks without triggers; the tables are emptied before each;
- rebuild: `uptally serve` on a database without rollup, from the start of the process to `/readyz` 200, beside
  `COPY store_activity TO STDOUT (FORMAT binary)` to /dev/null, after a VACUUM and with warm caches for both;
- restart: the same with the rollup in place, after an orderly end;
- flush: writing the whole rollup after a rebuild, by the daemon's own figure;
- memory: resident, after the rebuild is flushed and after a restart; and the peak of the rebuild;
- disk: all tables and indexes of the rollup, per store and day of polls;
- report: from sending the trigger to the last byte of the CSV; idle, and while rows come in, which makes the writer
  copy what a snapshot still holds. Calendar windows, as of the newest observation.

Results are kept in target/scale, one file for each size, so that sizes may be run one by one; the table and
docs/scale.svg are made from all that are there.
"""

import argparse
import glob
import json
import math
import os
import random
import re
import shutil
import subprocess
import threading
import time
from statistics import median
from xml.sax.saxutils import escape

from harness import (
    ROOT,
    TARGET,
    Daemon,
    Failure,
    Postgres,
    Scratch,
    environment,
    machine,
    machine_line,
    median_and_range,
    quantile,
    run_script,
    say,
    table,
    uptally,
    write_json,
)

DAYS = {1_000_000: 1}  # a week of a million stores would be 119 million rows
DAYS_ELSE = 7
ROWS_PER_ROUND_MAX = 5_000_000  # a larger import is measured once
RESTARTS = 5
REPORTS = (20, 300)  # at least and at most, and otherwise for as long as this
REPORTS_S = 10.0
LIVE_ROWS_PER_S = 1000
LIVE_BATCH = 100
REPORT = "as_of=latest&windows=calendar&closed=uptime"


def main():
    arguments = parse_arguments()
    if not arguments.draw:
        for stores, days in arguments.sizes:
            result = measure(stores, days, arguments.rounds)
            write_json(os.path.join(arguments.out, f"{stores}.json"), result)
    results = sorted(
        (json.load(open(path)) for path in glob.glob(os.path.join(arguments.out, "*.json"))),
        key=lambda result: result["stores"],
    )
    if not results:
        raise Failure(f"no results in {arguments.out}")
    print(markdown(results))
    with open(arguments.svg, "w") as file:
        file.write(plot(results))
    say(f"plot: {os.path.relpath(arguments.svg)}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=size, metavar="STORES[:DAYS]", default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    parser.add_argument("--out", default=os.path.join(TARGET, "scale"), metavar="DIR")
    parser.add_argument("--svg", default=os.path.join(ROOT, "docs", "scale.svg"), metavar="FILE")
    arguments = parser.parse_args()
    arguments.sizes = arguments.sizes or [size("13559"), size("100000")]
    return arguments


def size(text):
    stores, _, days = text.partition(":")
    return int(stores), int(days) if days else DAYS.get(int(stores), DAYS_ELSE)


# ---- measuring -------------------------------------------------------------------------------------------------


def measure(stores, days, rounds):
    with Scratch("bench-scale") as scratch:
        postgres = Postgres(scratch)
        result = {"machine": machine(postgres.version, "bench-scale", "SIZES"), "stores": stores, "days": days}
        fleet = scratch.path("fleet")
        say(f"{stores} stores, {days} days: generating")
        result["generate_s"], said = timed(
            lambda: uptally("generate", "--out", fleet, "--stores", str(stores), "--days", str(days))
        )
        result["rows"] = int(re.search(r"(\d+) rows in \S*store_status.csv", said)[1])
        result["hours_rows"] = int(re.search(r"(\d+) rows in \S*menu_hours.csv", said)[1])
        postgres.create("uptally")
        result |= imports(scratch, postgres, fleet, rounds if result["rows"] <= ROWS_PER_ROUND_MAX else 1)
        shutil.rmtree(fleet)
        result |= rebuilds(scratch, postgres, rounds)
        result |= restarts_and_reports(scratch, postgres)
        return result


def imports(scratch, postgres, fleet, rounds):
    dsn = postgres.dsn()
    status = os.path.join(fleet, "store_status.csv")
    say("importing hours and time zones")
    inputs_s, _ = timed(
        lambda: uptally(
            "import",
            "--hours",
            os.path.join(fleet, "menu_hours.csv"),
            "--timezones",
            os.path.join(fleet, "timezones.csv"),
            dsn=dsn,
            cwd=scratch.dir,
        )
    )
    ours, copies = [], []
    for number in range(rounds):
        say(f"importing the status rows, round {number + 1} of {rounds}")
        postgres.sql(
            "CREATE TABLE IF NOT EXISTS public.beside (LIKE public.store_activity INCLUDING ALL)",
            "TRUNCATE public.beside",
            "TRUNCATE public.store_activity",
            "CHECKPOINT",
            "uptally",
        )
        with open(status, "rb") as file:
            copies.append(
                timed(
                    lambda: postgres.sql(
                        "COPY public.beside (store_id, status, timestamp_utc) FROM STDIN (FORMAT csv, HEADER)",
                        "uptally",
                        stdin=file,
                    )
                )[0]
            )
        postgres.sql("DROP TABLE public.beside", "CHECKPOINT", "uptally")
        ours.append(timed(lambda: uptally("import", "--activity", status, dsn=dsn, cwd=scratch.dir))[0])
    return {"import_inputs_s": inputs_s, "import_s": ours, "import_copy_s": copies}


def rebuilds(scratch, postgres, rounds):
    postgres.sql("VACUUM ANALYZE", "CHECKPOINT", "uptally")
    copy = "COPY public.store_activity TO STDOUT (FORMAT binary)"
    with open(os.devnull, "wb") as nowhere:
        read = lambda: timed(lambda: postgres.sql(copy, "uptally", stdout=nowhere))[0]
        read()
        figures = {
            name: []
            for name in ("copy_s", "rebuild_s", "rebuild_cpu_s", "flush_s", "flush_rows", "rebuild_rss", "rebuild_peak")
        }
        for number in range(rounds):
            say(f"rebuilding, round {number + 1} of {rounds}")
            figures["copy_s"].append(read())
            postgres.sql(
                "UPDATE uptally.checkpoint SET cursor = NULL", "uptally"
            )  # as if there had never been a rollup
            daemon = Daemon(scratch, postgres.dsn())
            figures["rebuild_s"].append(daemon.ready_s)
            figures["rebuild_cpu_s"].append(daemon.cpu_s())
            daemon.wait_for("uptally_ledger_flush_seconds_count", 1)
            figures["flush_s"].append(daemon.figure("uptally_ledger_flush_seconds_sum"))
            figures["flush_rows"].append(daemon.figure("uptally_ledger_flushed_rows_total"))
            rss, peak = daemon.memory()
            figures["rebuild_rss"].append(rss)
            figures["rebuild_peak"].append(peak)
            daemon.stop()
    postgres.sql("VACUUM ANALYZE", "uptally")  # as autovacuum leaves it sooner or later
    figures["disk_bytes"] = int(
        postgres.sql(
            """SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c
           WHERE c.relnamespace = 'uptally'::regnamespace AND c.relname LIKE 'rollup\\_%' AND c.relkind = 'r'""",
            "uptally",
        )
    )
    return figures


def restarts_and_reports(scratch, postgres):
    restarts, memory = [], []
    for number in range(RESTARTS):
        say(f"restarting, {number + 1} of {RESTARTS}")
        daemon = Daemon(scratch, postgres.dsn())
        restarts.append(daemon.ready_s)
        memory.append(daemon.memory())
        if number + 1 < RESTARTS:
            daemon.stop()
    say("reports")
    idle, csv_bytes = reports(scratch, daemon)
    say("reports while rows come in")
    with Writer(postgres) as writer:
        live, _ = reports(scratch, daemon)
    rss_live, _ = daemon.memory()
    daemon.stop()
    return {
        "restart_s": restarts,
        "restart_rss": [rss for rss, _ in memory],
        "restart_peak": [peak for _, peak in memory],
        "report_s": idle,
        "csv_bytes": csv_bytes,
        "report_live_s": live,
        "live_rows": writer.rows,
        "live_s": writer.seconds,
        "live_rss": rss_live,
    }


def reports(scratch, daemon):
    daemon.report(REPORT)  # the first use of connection and statements is not what a report costs
    times, began = [], time.monotonic()
    while len(times) < REPORTS[0] or (len(times) < REPORTS[1] and time.monotonic() - began < REPORTS_S):
        seconds, body = daemon.report(REPORT)
        times.append(seconds)
        for path in glob.glob(scratch.path("csvs", "*")):
            os.remove(path)
    return times, len(body)


class Writer:
    """A session that inserts new rows of random stores, LIVE_ROWS_PER_S of them if Postgres keeps up."""

    def __init__(self, postgres):
        picked = postgres.sql("SELECT store_id FROM public.store_timezones ORDER BY random() LIMIT 10000", "uptally")
        self._ids = picked.split("\n")
        self._newest = postgres.sql("SELECT max(timestamp_utc) FROM public.store_activity", "uptally")
        self._psql = subprocess.Popen(
            [os.path.join(postgres.bindir, "psql"), "-Xq", "-v", "ON_ERROR_STOP=1", postgres.dsn()],
            text=True,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self.rows, self.seconds = 0, 0.0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
        _, error = self._psql.communicate()
        if self._psql.returncode:
            raise Failure(f"rows could not be inserted: {error.strip()}")

    def _write(self):
        rng = random.Random(1)
        began = time.monotonic()
        while not self._ended.wait(max(0.0, began + self.rows / LIVE_ROWS_PER_S - time.monotonic())):
            batch = rng.sample(self._ids, min(LIVE_BATCH, len(self._ids)))
            self.rows += len(batch)
            at = f"timestamptz '{self._newest}' + interval '{self.rows} ms'"
            values = ",".join(f"('{store_id}', {at}, '{rng.choice(('active', 'inactive'))}')" for store_id in batch)
            try:
                print(
                    f"INSERT INTO public.store_activity (store_id, timestamp_utc, status) VALUES {values};",
                    file=self._psql.stdin,
                    flush=True,
                )
            except BrokenPipeError:
                break  # it says why in the end
        self.seconds = time.monotonic() - began


def timed(call):
    began = time.perf_counter()
    value = call()
    return time.perf_counter() - began, value


# ---- telling ---------------------------------------------------------------------------------------------------


def ratios(ours, theirs):
    """Of each round, so that what else the machine did hits both."""
    return [mine / other for mine, other in zip(ours, theirs)]


def milliseconds(times, q):
    return f"{quantile(times, q) * 1e3:.1f}"


def per_store(value, r):
    return value / r["stores"]


# What the table shows of a result.
LINES = [
    ("days of hourly polls", lambda r: r["days"]),
    ("status rows", lambda r: f"{r['rows']:,}"),
    ("import of the status rows, rows/s", lambda r: f"{r['rows'] / median(r['import_s']):,.0f}"),
    ("- as a ratio to psql COPY", lambda r: median_and_range(ratios(r["import_s"], r["import_copy_s"]))),
    ("rebuild: start to ready, s", lambda r: median_and_range(r["rebuild_s"])),
    ("- as a ratio to COPY to /dev/null", lambda r: median_and_range(ratios(r["rebuild_s"], r["copy_s"]))),
    ("- rows/s", lambda r: f"{r['rows'] / median(r['rebuild_s']):,.0f}"),
    (
        "- processor time of the daemon, s",
        lambda r: median_and_range(r["rebuild_cpu_s"]) if r["rebuild_cpu_s"][0] else "not known",
    ),
    ("flush of the whole rollup, s", lambda r: median_and_range(r["flush_s"])),
    ("- rows/s", lambda r: f"{median(r['flush_rows']) / median(r['flush_s']):,.0f}"),
    ("restart: start to ready, s", lambda r: median_and_range(r["restart_s"])),
    ("memory after a rebuild, kB per store", lambda r: f"{per_store(median(r['rebuild_rss']), r) / 1e3:.2f}"),
    ("- after a restart", lambda r: f"{per_store(median(r['restart_rss']), r) / 1e3:.2f}"),
    (
        "- peak of the rebuild",
        lambda r: f"{per_store(median(r['rebuild_peak']), r) / 1e3:.2f}" if r["rebuild_peak"][0] else "not known",
    ),
    ("rollup on disk, bytes per store and day", lambda r: f"{per_store(r['disk_bytes'], r) / r['days']:.0f}"),
    ("report, ms: p50", lambda r: milliseconds(r["report_s"], 0.5)),
    ("- p99", lambda r: milliseconds(r["report_s"], 0.99)),
    ("- CSV, MB", lambda r: f"{r['csv_bytes'] / 1e6:.1f}"),
    ("report while rows come in, ms: p50", lambda r: milliseconds(r["report_live_s"], 0.5)),
    ("- p99", lambda r: milliseconds(r["report_live_s"], 0.99)),
    ("- rows/s that came in", lambda r: f"{r['live_rows'] / r['live_s']:,.0f}"),
    ("- memory then, kB per store", lambda r: f"{per_store(r['live_rss'], r) / 1e3:.2f}"),
]


def markdown(results):
    head = ["stores", *(f"{r['stores']:,}" for r in results)]
    rows = [[label, *(line(r) for r in results)] for label, line in LINES]
    machines = "\n".join(f"- {r['stores']:,} stores: {machine_line(r['machine'])}" for r in results)
    return f"\n{table(head, rows)}\n\nMedians, of more than one round with the range.\n\n{machines}\n"


# ---- drawing ---------------------------------------------------------------------------------------------------

# What the plot shows: name, unit, cost. One panel each, as the units differ; all span the same number of decades, so
# that slopes can be compared: a flat line is a cost that grows with the number of stores and no faster.
PANELS = [
    ("Report", "µs per store", lambda r: quantile(r["report_s"], 0.5) / r["stores"] * 1e6),
    ("Restart", "µs per store", lambda r: median(r["restart_s"]) / r["stores"] * 1e6),
    ("Rebuild", "µs per status row", lambda r: median(r["rebuild_s"]) / r["rows"] * 1e6),
    ("Memory after a rebuild", "kB per store", lambda r: per_store(median(r["rebuild_rss"]), r) / 1e3),
    ("Rollup on disk", "bytes per store and day", lambda r: per_store(r["disk_bytes"], r) / r["days"]),
    ("Import", "µs per status row", lambda r: median(r["import_s"]) / r["rows"] * 1e6),
]
COLUMNS, WIDTH, HEIGHT, GAP = 3, 280, 230, 10
# Inside a panel.
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 44, 48

# A grey and a blue that stand out from white and from black alike; stronger greys where the reader's scheme is known.
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #737b85 }
  .title { font-weight: 600; font-size: 13px }
  .value { font-weight: 600 }
  .grid { stroke: #8b949e; stroke-opacity: .35; stroke-width: 1 }
  .curve { stroke: #2f81f7; stroke-width: 2; fill: none }
  .point { fill: #2f81f7 }
  @media (prefers-color-scheme: light) { text { fill: #57606a } .title, .value { fill: #24292f } }
  @media (prefers-color-scheme: dark) { text { fill: #9198a1 } .title, .value { fill: #e6edf3 } }
"""


def plot(results):
    rows = -(-len(PANELS) // COLUMNS)
    width, height = COLUMNS * (WIDTH + GAP), rows * (HEIGHT + GAP)
    curves = [(name, unit, [(r["stores"], cost(r)) for r in results]) for name, unit, cost in PANELS]
    decades = max(2, *(math.ceil(2 * _decades([y for _, y in curve])) / 2 + 0.5 for _, _, curve in curves))
    description = " ".join(
        f"{name}, {unit}: " + ", ".join(f"{_number(y)} at {x:,} stores" for x, y in curve) + "."
        for name, unit, curve in curves
    )
    place = lambda n: f"translate({n % COLUMNS * (WIDTH + GAP)} {n // COLUMNS * (HEIGHT + GAP)})"
    panels = [f'<g transform="{place(n)}">{_panel(*curve, decades)}</g>' for n, curve in enumerate(curves)]
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {width} {height}" role="img" aria-labelledby="what how">',
        '<title id="what">Cost per store against the number of stores, both axes logarithmic</title>',
        f'<desc id="how">{escape(description)}</desc>',
        f"<style>{STYLE}</style>",
        *panels,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _decades(values):
    return math.log10(max(values) / min(values))


def _panel(name, unit, curve, decades):
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    xs, ys = [math.log10(x) for x, _ in curve], [math.log10(y) for _, y in curve]
    x_low, x_high = min(xs) - 0.15, max(xs) + 0.15
    y_low = (min(ys) + max(ys) - decades) / 2
    at_x = lambda x: left + (x - x_low) / (x_high - x_low) * (right - left)
    at_y = lambda y: bottom - (y - y_low) / decades * (bottom - top)
    parts = [
        f'<text class="title" x="{left}" y="16">{escape(name)}</text>',
        f'<text x="{left}" y="32">{escape(unit)}</text>',
    ]
    for exponent in range(math.floor(y_low), math.ceil(y_low + decades) + 1):
        for mantissa in (1, 2, 5):
            y = exponent + math.log10(mantissa)
            if y_low <= y <= y_low + decades:
                parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at_y(y):.1f}" y2="{at_y(y):.1f}"/>')
                if mantissa == 1 or decades <= 2:
                    tick = _tick(mantissa, exponent)
                    parts.append(f'<text x="{left - 6}" y="{at_y(y) + 4:.1f}" text-anchor="end">{tick}</text>')
    for x, (stores, _) in zip(xs, curve):
        parts.append(f'<line class="grid" x1="{at_x(x):.1f}" x2="{at_x(x):.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text x="{at_x(x):.1f}" y="{bottom + 16}" text-anchor="middle">{stores:,}</text>')
    parts.append(f'<text x="{(left + right) / 2:.0f}" y="{bottom + 34}" text-anchor="middle">stores</text>')
    points = [(at_x(x), at_y(y)) for x, y in zip(xs, ys)]
    parts.append('<polyline class="curve" points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y in points) + '"/>')
    for (x, y), (_, value) in zip(points, curve):
        parts.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        parts.append(f'<text class="value" x="{x:.1f}" y="{y - 9:.1f}" text-anchor="middle">{_number(value)}</text>')
    return "".join(parts)


def _tick(mantissa, exponent):
    return f"{mantissa * 10 ** exponent:,}" if exponent >= 0 else f"{mantissa / 10 ** -exponent:.{-exponent}f}"


def _number(value):
    """Two digits, three from 100 on."""
    digits = max(0, 1 - math.floor(math.log10(value)))
    return f"{value:,.{digits}f}"


if __name__ == "__main__":
    run_script(main)
