"""The same report by Uptally and by what one would pick instead: DuckDB, ClickHouse (chdb) and Postgres alone.

    make bench-peers       # a generated fleet of 13,559 stores, 8 days of hourly polls
    make bench-peers PEERS="--stores 100000 --rounds 3"
    make bench-peers PEERS="--activity a.csv --hours h.csv --timezones z.csv"

Same rows, same machine, one run. Rolling windows, as of the newest observation, closed time counted as uptime. First
every number of every peer's CSV is compared with Uptally's (the peers divide in floating point, so 0.01 of difference
passes, and is counted); then the timings are interleaved in rounds, so that what else the machine does hits all alike.

Uptally is timed as its users meet it: from sending POST /trigger_report to the last byte of the CSV over HTTP, polled
for on one connection, with the report's row in Postgres and its file written and kept. A peer is timed from the
question to the CSV file on disk (not synced).

What favours the peers:
- loading, sorting by store and time, indexes, statistics: none of it is timed;
- the raw rows come to them checked, deduplicated and typed, as they lie in Uptally's table;
- the opening hours come to them cleaned: 23:59 made the end of the day, wraps past midnight split, overlaps merged,
  stores without hours given seven full days, stores without a zone the default one;
- they are told the instant of the report, they keep nothing of the report, they run alone;
- DuckDB has the store ids as an ENUM, which it compares as numbers; Postgres has an index of the inactive rows alone.
What favours Uptally: it did its work as the rows came in, which is the point of it. What that costs is measured by
the benches of writers and of scale.

All three peers follow one plan, each in its own dialect: where the windows of each zone end; each inactive row and the
row of the same store after it; the opening hours of the local days that such a stretch touches; what of it lies inside
them, summed by window. The plan holds for every zone, also those off the full hour. On days on which a zone changes its
clock, databases resolve wall times that do not exist or exist twice in ways of their own, which the comparison shows.
"""

import argparse
import csv
import importlib
import os
import statistics
import time

from harness import (
    TARGET,
    Daemon,
    Failure,
    Postgres,
    Scratch,
    machine,
    machine_line,
    median_and_range,
    run_script,
    say,
    table,
    uptally,
    write_json,
)

REPORT = "as_of=latest&windows=rolling&closed=uptime"
COLUMNS = [f"{what}_last_{window}" for what in ("uptime", "downtime") for window in ("hour", "day", "week")]
HOUR_US = 3_600_000_000


# ---- the peers -------------------------------------------------------------------------------------------------
#
# Each has the tables status (store_id, ts, inactive), hours (store_id, day, opens, closes; day 0 is Monday, seconds
# after local midnight) and stores (store_id, tz). `{now}` is the instant of the report in microseconds.
#
# Clock hours of a zone begin at :00 of its standard time. Standard time is the smaller of the offsets in January and in
# July: only the part of an hour in it matters, and it differs between the two in Lord Howe only.


class DuckDb:
    name = "DuckDB"
    package = "duckdb"

    SQL = """
WITH zone AS (
    SELECT tz,
        epoch_us(timezone(tz, make_timestamptz({now}))) - {now} AS offset_us,
        least(epoch_us(timezone(tz, TIMESTAMPTZ '{year}-01-01 00:00:00+00') - TIMESTAMP '{year}-01-01 00:00:00'),
              epoch_us(timezone(tz, TIMESTAMPTZ '{year}-07-01 00:00:00+00') - TIMESTAMP '{year}-07-01 00:00:00')
        ) AS standard_us,
        ({now} + standard_us) // 3600000000 * 3600000000 - standard_us AS window_end
    FROM (SELECT DISTINCT tz FROM stores)),
-- Every wall time that opens or closes a store, on every day that matters, as an instant.
edge AS (
    SELECT tz, day, second, epoch_us(timezone(tz, make_timestamp(day * 86400000000 + second * 1000000))) AS at
    FROM (SELECT DISTINCT tz, unnest([opens, closes]) AS second FROM hours JOIN stores USING (store_id)),
         (SELECT unnest(range({now} // 86400000000 - 9, {now} // 86400000000 + 3)) AS day)),
outage AS (
    SELECT store_id, epoch_us(ts) AS since, coalesce(epoch_us(next_ts), {now}) AS until
    FROM (SELECT store_id, ts, inactive, lead(ts) OVER (PARTITION BY store_id ORDER BY ts) AS next_ts FROM status)
    WHERE inactive),
inside AS (
    SELECT store_id, tz, offset_us, window_end,
        greatest(since, window_end - 168 * 3600000000) AS since, least(until, window_end) AS until
    FROM outage JOIN stores USING (store_id) JOIN zone USING (tz)
    WHERE since < window_end AND until > window_end - 168 * 3600000000),
-- With room for a clock that was changed since: a day too many adds nothing.
by_day AS (
    SELECT *, unnest(range((since + offset_us - 10800000000) // 86400000000,
                           (until + offset_us + 10800000000) // 86400000000 + 1)) AS day
    FROM inside),
piece AS (
    SELECT o.store_id, window_end, greatest(since, a.at) AS since, least(until, z.at) AS until
    FROM by_day o
    JOIN hours h ON h.store_id = o.store_id AND h.day = (o.day + 3) % 7
    JOIN edge a ON a.tz = o.tz AND a.day = o.day AND a.second = h.opens
    JOIN edge z ON z.tz = o.tz AND z.day = o.day AND z.second = h.closes),
downtime AS (
    SELECT store_id,
        sum(greatest(0, until - greatest(since, window_end - 3600000000))) AS hour_us,
        sum(greatest(0, until - greatest(since, window_end - 86400000000))) AS day_us,
        sum(until - since) AS week_us
    FROM piece WHERE since < until GROUP BY store_id)
SELECT store_id,
    round((3600000000 - coalesce(hour_us, 0)) / 6e7, 2) AS uptime_last_hour,
    round((86400000000 - coalesce(day_us, 0)) / 36e8, 2) AS uptime_last_day,
    round((604800000000 - coalesce(week_us, 0)) / 36e8, 2) AS uptime_last_week,
    round(coalesce(hour_us, 0) / 6e7, 2) AS downtime_last_hour,
    round(coalesce(day_us, 0) / 36e8, 2) AS downtime_last_day,
    round(coalesce(week_us, 0) / 36e8, 2) AS downtime_last_week
FROM stores LEFT JOIN downtime USING (store_id) ORDER BY store_id"""

    def __init__(self, data):
        import duckdb

        self.version = duckdb.__version__
        self._db = duckdb.connect()
        read = lambda name, types: f"read_csv('{data.path(name)}', header = true, columns = {types})"
        stores = read("stores.csv", {"store_id": "VARCHAR", "tz": "VARCHAR"})
        hours = read("hours.csv", {"store_id": "VARCHAR", "day": "BIGINT", "opens": "BIGINT", "closes": "BIGINT"})
        status = read("status.csv", {"store_id": "VARCHAR", "ts": "TIMESTAMPTZ", "inactive": "BOOLEAN"})
        for statement in (
            "SET TimeZone = 'UTC'",
            f"SET threads = {os.cpu_count()}",
            f"CREATE TYPE store AS ENUM (SELECT store_id FROM {stores} ORDER BY store_id)",
            f"CREATE TABLE stores AS SELECT store_id::store AS store_id, tz FROM {stores} ORDER BY store_id",
            f"CREATE TABLE hours AS SELECT store_id::store AS store_id, day, opens, closes FROM {hours} ORDER BY ALL",
            f"CREATE TABLE status AS SELECT store_id::store AS store_id, ts, inactive FROM {status} ORDER BY ALL",
        ):
            self._db.execute(statement)
        self._sql = self.SQL.format(now=data.now_us, year=data.year)

    def report(self, path):
        self._db.execute(f"COPY ({self._sql}) TO '{path}' (FORMAT csv, HEADER)")


class ClickHouse:
    name = "ClickHouse"
    package = "chdb"

    # The array of a store's rows, sorted, is quicker than the window function or an ASOF join; an instant and its
    # status are packed into one number, as an array of numbers sorts faster than one of pairs.
    SQL = """
WITH zone AS (
    SELECT tz, peers_offset(intDiv({now}, 1000000), tz) AS offset_s,
        1000000 * least(peers_offset(toUnixTimestamp('{year}-01-01 00:00:00', 'UTC'), tz),
                        peers_offset(toUnixTimestamp('{year}-07-01 00:00:00', 'UTC'), tz)) AS standard_us,
        intDiv({now} + standard_us, 3600000000) * 3600000000 - standard_us AS window_end
    FROM (SELECT DISTINCT tz FROM peers.stores)),
edge AS (
    SELECT tz, day, second, 1000000 * (wall - peers_offset(wall - peers_offset(wall, tz), tz)) AS at
    FROM (
        SELECT tz, second, toInt64(day) * 86400 + second AS wall,
            arrayJoin(range(toUInt32(intDiv({now}, 86400000000) - 9), toUInt32(intDiv({now}, 86400000000) + 3))) AS day
        FROM (SELECT DISTINCT tz, arrayJoin([opens, closes]) AS second
              FROM peers.hours JOIN peers.stores USING (store_id)))),
outage AS (
    SELECT store_id, intDiv(pair.1, 2) AS since, intDiv(pair.2, 2) AS until
    FROM (SELECT store_id, arraySort(groupArray(toUnixTimestamp64Micro(ts) * 2 + inactive)) AS rows
          FROM peers.status GROUP BY store_id)
    ARRAY JOIN arrayFilter(
        p -> p.1 % 2 = 1, arrayZip(rows, arrayPushBack(arrayPopFront(rows), toInt64({now}) * 2))) AS pair),
inside AS (
    SELECT store_id, tz, offset_s, window_end,
        greatest(since, window_end - 168 * 3600000000) AS from_us, least(until, window_end) AS to_us
    FROM outage
    JOIN (SELECT store_id, tz, offset_s, window_end FROM peers.stores JOIN zone USING (tz)) AS s USING (store_id)
    WHERE from_us < to_us),
piece AS (
    SELECT o.store_id AS store_id, window_end, greatest(from_us, a.at) AS since, least(to_us, z.at) AS until
    FROM (
        SELECT *, toUInt8((day + 3) % 7) AS weekday,
            arrayJoin(range(toUInt32(intDiv(intDiv(from_us, 1000000) + offset_s - 10800, 86400)),
                            toUInt32(intDiv(intDiv(to_us, 1000000) + offset_s + 10800, 86400)) + 1)) AS day
        FROM inside) AS o
    JOIN peers.hours AS h ON h.store_id = o.store_id AND h.day = o.weekday
    JOIN edge AS a ON a.tz = o.tz AND a.day = o.day AND a.second = h.opens
    JOIN edge AS z ON z.tz = o.tz AND z.day = o.day AND z.second = h.closes
    WHERE since < until),
downtime AS (
    SELECT store_id,
        sum(greatest(0, until - greatest(since, window_end - 3600000000))) AS hour_us,
        sum(greatest(0, until - greatest(since, window_end - 86400000000))) AS day_us,
        sum(until - since) AS week_us
    FROM piece GROUP BY store_id)
SELECT store_id,
    round((3600000000 - hour_us) / 6e7, 2) AS uptime_last_hour,
    round((86400000000 - day_us) / 36e8, 2) AS uptime_last_day,
    round((604800000000 - week_us) / 36e8, 2) AS uptime_last_week,
    round(hour_us / 6e7, 2) AS downtime_last_hour,
    round(day_us / 36e8, 2) AS downtime_last_day,
    round(week_us / 36e8, 2) AS downtime_last_week
FROM peers.stores LEFT JOIN downtime USING (store_id) ORDER BY store_id
SETTINGS max_threads = {threads}"""

    def __init__(self, data):
        from chdb import session

        self._session = session.Session(data.path("chdb"))
        self.version = self._query("SELECT version()", "TSV").decode().strip()
        file = lambda name, columns: f"file('{data.path(name)}', 'CSVWithNames', '{columns}')"
        for statement in (
            "CREATE DATABASE peers",
            # There is no function that takes a zone from a column except the one that writes a text.
            "CREATE FUNCTION peers_offset AS (t, tz) -> "
            "toInt64(toUnixTimestamp(toString(toDateTime(t, 'UTC'), tz), 'UTC')) - t",
            "CREATE TABLE peers.stores (store_id String, tz LowCardinality(String)) "
            "ENGINE = MergeTree ORDER BY store_id",
            "CREATE TABLE peers.hours (store_id String, day UInt8, opens UInt32, closes UInt32) "
            "ENGINE = MergeTree ORDER BY (store_id, day)",
            "CREATE TABLE peers.status (store_id String, ts DateTime64(6, 'UTC'), inactive Bool) "
            "ENGINE = MergeTree ORDER BY (store_id, ts)",
            f"INSERT INTO peers.stores SELECT * FROM {file('stores.csv', 'store_id String, tz String')}",
            "INSERT INTO peers.hours SELECT * FROM "
            + file("hours.csv", "store_id String, day UInt8, opens UInt32, closes UInt32"),
            "INSERT INTO peers.status SELECT store_id, parseDateTime64BestEffort(ts, 6, 'UTC'), inactive FROM "
            + file("status.csv", "store_id String, ts String, inactive Bool"),
            "OPTIMIZE TABLE peers.status FINAL",
        ):
            self._query(statement)
        self._sql = self.SQL.format(now=data.now_us, year=data.year, threads=os.cpu_count())

    def _query(self, sql, form="CSVWithNames"):
        return self._session.query(sql, form).bytes()

    def report(self, path):
        with open(path, "wb") as file:
            file.write(self._query(self._sql))


class PlainPostgres:
    name = "Postgres"
    package = "psycopg"

    # The index of inactive rows gives the outages, the primary key the row after each: quicker than reading all rows
    # for a window function. Each opening is made an instant where it is needed, which costs less than a join.
    SQL = """
WITH zone AS MATERIALIZED (
    SELECT tz, at AS now, date_bin('1 hour', at, timestamptz '2000-01-01 00:00:00+00' - standard) AS window_end
    FROM (SELECT DISTINCT tz FROM stores) s
    CROSS JOIN (SELECT timestamptz 'epoch' + {now} * interval '1 microsecond' AS at) n
    CROSS JOIN LATERAL (
        SELECT least(timezone(tz, timestamptz '{year}-01-01 00:00:00+00') - timestamp '{year}-01-01 00:00:00',
                     timezone(tz, timestamptz '{year}-07-01 00:00:00+00') - timestamp '{year}-07-01 00:00:00')
               AS standard) l),
outage AS (
    SELECT i.store_id, s.tz, z.window_end,
        greatest(i.ts, z.window_end - interval '168 hours') AS since, least(n.ts, z.window_end) AS until
    FROM status i JOIN stores s USING (store_id) JOIN zone z USING (tz)
    LEFT JOIN LATERAL (
        SELECT n.ts FROM status n WHERE n.store_id = i.store_id AND n.ts > i.ts ORDER BY n.ts LIMIT 1) n ON true
    WHERE i.inactive AND i.ts < z.window_end AND coalesce(n.ts, z.window_end) > z.window_end - interval '168 hours'),
piece AS (
    SELECT o.store_id, window_end,
        greatest(since, timezone(tz, midnight + opens * interval '1 second')) AS since,
        least(until, timezone(tz, midnight + closes * interval '1 second')) AS until
    FROM outage o
    CROSS JOIN LATERAL generate_series(timezone(tz, since)::date::timestamp, timezone(tz, until), '1 day') d (midnight)
    JOIN hours h ON h.store_id = o.store_id AND h.day = extract(isodow FROM midnight)::int - 1),
downtime AS (
    SELECT store_id,
        extract(epoch FROM sum(greatest(until - greatest(since, window_end - interval '1 hour'), '0'))) AS hour_s,
        extract(epoch FROM sum(greatest(until - greatest(since, window_end - interval '24 hours'), '0'))) AS day_s,
        extract(epoch FROM sum(until - since)) AS week_s
    FROM piece WHERE since < until GROUP BY store_id)
SELECT store_id,
    round((3600 - coalesce(hour_s, 0)) / 60, 2) AS uptime_last_hour,
    round((86400 - coalesce(day_s, 0)) / 3600, 2) AS uptime_last_day,
    round((604800 - coalesce(week_s, 0)) / 3600, 2) AS uptime_last_week,
    round(coalesce(hour_s, 0) / 60, 2) AS downtime_last_hour,
    round(coalesce(day_s, 0) / 3600, 2) AS downtime_last_day,
    round(coalesce(week_s, 0) / 3600, 2) AS downtime_last_week
FROM stores LEFT JOIN downtime USING (store_id) ORDER BY store_id"""

    def __init__(self, data):
        import psycopg

        self.version = data.postgres.version
        data.postgres.create("peers")
        for name, columns in (
            ("stores", "store_id text PRIMARY KEY, tz text NOT NULL"),
            (
                "hours",
                "store_id text, day int, opens int, closes int, PRIMARY KEY (store_id, day, opens) INCLUDE (closes)",
            ),
            ("status", "store_id text, ts timestamptz, inactive boolean, PRIMARY KEY (store_id, ts)"),
        ):
            data.postgres.sql(f"CREATE TABLE {name} ({columns})", "peers")
            with open(data.path(f"{name}.csv"), "rb") as rows:
                data.postgres.sql(f"COPY {name} FROM STDIN (FORMAT csv, HEADER)", "peers", stdin=rows)
        data.postgres.sql("CREATE INDEX ON status (store_id, ts) WHERE inactive", "peers")
        data.postgres.sql("VACUUM (FREEZE, ANALYZE)", "peers")
        self._connection = psycopg.connect(data.postgres.dsn("peers"), autocommit=True)
        self._connection.execute("SET work_mem = '256MB'")
        self._connection.execute(f"SET max_parallel_workers_per_gather = {os.cpu_count()}")
        self._sql = self.SQL.format(now=data.now_us, year=data.year)

    def report(self, path):
        with self._connection.cursor() as cursor, open(path, "wb") as file:
            with cursor.copy(f"COPY ({self._sql}) TO STDOUT (FORMAT csv, HEADER)") as rows:
                for block in rows:
                    file.write(block)


PEERS = [DuckDb, ClickHouse, PlainPostgres]


# ---- their data ------------------------------------------------------------------------------------------------


class Data:
    """What the peers load: Uptally's own rows, as CSV files."""

    def __init__(self, scratch, postgres):
        self._scratch, self.postgres = scratch, postgres
        self.now_us = int(
            self._sql("SELECT (extract(epoch FROM max(timestamp_utc)) * 1000000)::bigint FROM public.store_activity")
        )
        self.year = int(self._sql("SELECT extract(year FROM max(timestamp_utc)) FROM public.store_activity"))
        self.rows = int(self._sql("SELECT count(*) FROM public.store_activity"))
        self._export(
            "status.csv",
            "SELECT store_id, timestamp_utc AS ts, status = 'inactive' AS inactive FROM public.store_activity",
        )
        known = " UNION ".join(
            f"SELECT store_id FROM public.store_{name}" for name in ("activity", "business_hours", "timezones")
        )
        self._export(
            "stores.csv",
            f"""
            SELECT store_id, coalesce(timezone_str, 'America/Chicago') AS tz
            FROM ({known}) k LEFT JOIN public.store_timezones USING (store_id)""",
        )
        self._export(
            "raw_hours.csv",
            """
            SELECT store_id, day, extract(epoch FROM start_time_local)::int, extract(epoch FROM end_time_local)::int
            FROM public.store_business_hours ORDER BY store_id""",
        )
        self.stores = self._clean_hours()

    def path(self, name):
        return self._scratch.path(name)

    def _sql(self, sql):
        return self.postgres.sql(sql, "uptally")

    def _export(self, name, select):
        with open(self.path(name), "wb") as file:
            self.postgres.sql(f"COPY ({select}) TO STDOUT (FORMAT csv, HEADER)", "uptally", stdout=file)

    def _clean_hours(self):
        """Writes hours.csv: disjoint intervals within one day, for every store. Returns the number of stores."""
        weeks = {}
        with open(self.path("stores.csv")) as file:
            for store_id, _ in _records(file):
                weeks[store_id] = []
        with open(self.path("raw_hours.csv")) as file:
            for store_id, day, opens, closes in _records(file):
                day, opens, closes = int(day), int(opens), int(closes)
                if closes >= 86_340:  # 23:59 is a way to say midnight
                    closes = 86_400
                if opens < closes:
                    weeks[store_id].append((day, opens, closes))
                else:
                    weeks[store_id] += [(day, opens, 86_400), ((day + 1) % 7, 0, closes)]
        with open(self.path("hours.csv"), "w", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(["store_id", "day", "opens", "closes"])
            for store_id, week in weeks.items():
                for interval in _disjoint(week or [(day, 0, 86_400) for day in range(7)]):
                    out.writerow([store_id, *interval])
        return len(weeks)


def _records(file):
    rows = csv.reader(file)
    next(rows)
    return rows


def _disjoint(week):
    """The union of (day, opens, closes), which must not be empty."""
    merged = []
    for day, opens, closes in sorted(week):
        if opens == closes:
            continue  # what is left of a wrap that ends at midnight
        if merged and merged[-1][0] == day and opens <= merged[-1][2]:
            merged[-1][2] = max(merged[-1][2], closes)
        else:
            merged.append([day, opens, closes])
    return merged


# ---- equal results ---------------------------------------------------------------------------------------------


def numbers(text):
    """Store id to its six numbers, in hundredths."""
    rows = list(csv.reader(text.splitlines()))
    if rows[0] != ["store_id", *COLUMNS]:
        raise Failure(f"expected the columns of a report, found {rows[0]}")
    return {row[0]: [round(float(cell) * 100) for cell in row[1:]] for row in rows[1:]}


def compare(ours, theirs, name):
    """Counts how many numbers are the same, and how many differ by 0.01. More of a difference is a failure."""
    if ours.keys() != theirs.keys():
        raise Failure(f"{name} has other stores: {len(theirs)}, not {len(ours)}")
    exact = close = 0
    wrong = []
    for store_id, row in ours.items():
        for column, mine, other in zip(COLUMNS, row, theirs[store_id]):
            exact += mine == other
            close += abs(mine - other) == 1
            if abs(mine - other) > 1:
                wrong.append(f"{store_id} {column}: {mine / 100} by Uptally, {other / 100} by {name}")
    if wrong:
        raise Failure(
            f"{len(wrong)} of {exact + close + len(wrong)} numbers differ, the first ones: " + "; ".join(wrong[:5])
        )
    return {"numbers": exact + close, "equal": exact, "within_0.01": close}


# ---- the run ---------------------------------------------------------------------------------------------------


def main():
    arguments = parse_arguments()
    with Scratch("bench-peers") as scratch:
        postgres = Postgres(scratch)
        facts = machine(postgres.version, "bench-peers", "PEERS")
        postgres.create("uptally")
        load_uptally(scratch, postgres, arguments)
        data = Data(scratch, postgres)
        say(f"{data.stores} stores, {data.rows} rows; loading the peers")
        daemon = Daemon(scratch, postgres.dsn())
        daemon.wait_for("uptally_ledger_flush_seconds_count", 1)
        peers = load_peers(data, arguments.only)

        ours = numbers(daemon.report(REPORT)[1].decode())
        checks = {}
        for peer in peers:
            peer.report(scratch.path("peer.csv"))
            checks[peer.name] = compare(ours, numbers(open(scratch.path("peer.csv")).read()), peer.name)
            say(f"{peer.name} {peer.version}: {checks[peer.name]}")

        times = {"Uptally": [], **{peer.name: [] for peer in peers}}
        for number in range(arguments.rounds):
            times["Uptally"].append([daemon.report(REPORT)[0] for _ in range(arguments.reports)])
            for peer in peers:
                began = time.perf_counter()
                peer.report(scratch.path("peer.csv"))
                times[peer.name].append([time.perf_counter() - began])
            say(f"round {number + 1} of {arguments.rounds}")
    tell(facts, data, peers, checks, times, arguments)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="With --activity, --hours and --timezones" " all three, that data is used instead of a generated fleet.",
    )
    parser.add_argument("--stores", type=int, default=13_559)
    parser.add_argument("--days", type=int, default=8, help="days of generated polls (default: 8)")
    for name in ("activity", "hours", "timezones"):
        parser.add_argument(f"--{name}", metavar="FILE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--reports", type=int, default=20, help="reports by Uptally in a round (default: 20)")
    parser.add_argument(
        "--only", nargs="+", choices=[peer.name for peer in PEERS], default=[peer.name for peer in PEERS]
    )
    parser.add_argument("--json", metavar="FILE", default=os.path.join(TARGET, "peers", "results.json"))
    arguments = parser.parse_args()
    given = [arguments.activity, arguments.hours, arguments.timezones]
    if any(given) != all(given):
        parser.error("--activity, --hours and --timezones belong together")
    return arguments


def load_uptally(scratch, postgres, arguments):
    files = [arguments.activity, arguments.hours, arguments.timezones]
    if not any(files):
        fleet = scratch.path("fleet")
        uptally("generate", "--out", fleet, "--stores", str(arguments.stores), "--days", str(arguments.days))
        files = [os.path.join(fleet, name) for name in ("store_status.csv", "menu_hours.csv", "timezones.csv")]
    files = [os.path.abspath(file) for file in files]
    flags = [part for pair in zip(("--activity", "--hours", "--timezones"), files) for part in pair]
    say(uptally("import", *flags, dsn=postgres.dsn(), cwd=scratch.dir).rstrip())
    postgres.sql("VACUUM ANALYZE", "uptally")


def load_peers(data, names):
    peers = []
    for peer in PEERS:
        if peer.name not in names:
            continue
        try:
            importlib.import_module(peer.package)
        except ImportError as error:
            say(f"without {peer.name}: {error}")
            continue
        peers.append(peer(data))
    return peers


def tell(facts, data, peers, checks, times, arguments):
    rounds = {name: [statistics.median(values) for values in runs] for name, runs in times.items()}
    everything = [value for run in times["Uptally"] for value in run]
    rows = [["Uptally", median_and_range(everything, 1e3, 1), "1", ""]]
    ratios = {}
    for peer in peers:
        ratios[peer.name] = [theirs / ours for theirs, ours in zip(rounds[peer.name], rounds["Uptally"])]
        check = checks[peer.name]
        equal = f"{check['equal']} of {check['numbers']}"
        rows.append(
            [
                f"{peer.name} {peer.version}",
                median_and_range(rounds[peer.name], 1e3, 0),
                median_and_range(ratios[peer.name], 1, 0),
                equal,
            ]
        )
    print(
        f"\n{data.stores} stores, {data.rows} rows, report of rolling windows as of the newest observation; "
        f"{arguments.rounds} rounds of {arguments.reports} reports by Uptally and one by each peer;"
        " median (lowest to highest)\n"
    )
    print(table(["report from", "ms", "times Uptally's, by round", "numbers equal to Uptally's"], rows))
    print(f"\n{machine_line(facts)}")
    write_json(
        arguments.json,
        {
            "machine": facts,
            "stores": data.stores,
            "rows": data.rows,
            "equal": checks,
            "versions": {peer.name: peer.version for peer in peers},
            "seconds": times,
            "ratios": ratios,
        },
    )
    say(f"written to {os.path.relpath(arguments.json)}")


if __name__ == "__main__":
    run_script(main)
