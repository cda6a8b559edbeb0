-- Downtime by local day, for reports over any stretch of days. A running sum, so that a stretch is the difference of two
-- values however long it is: down_us is what uptally.rollup_down has of a store before the first instant of that day in
-- its zone, counted from some instant before everything that the rollup covers. Where a store has no row for a day, it
-- is 0. Days after checkpoint.summed_to have no rows: memory has their cells.
CREATE TABLE uptally.rollup_day (
    day      date    NOT NULL,
    store_no integer NOT NULL,
    down_us  bigint  NOT NULL,
    PRIMARY KEY (day, store_no),
    CONSTRAINT down_is_some CHECK (down_us > 0)
);

ALTER TABLE uptally.checkpoint
    ADD COLUMN summed_to date,                          -- the last day that has sums; null: none yet
    ADD COLUMN revision   bigint NOT NULL DEFAULT 0;     -- changes with every change of what lies before memory

-- The sums of the days after first_day up to last_day, from the cells, on top of the sums of first_day. Of some stores, or
-- of all where stores is null. names, days and starts: when each of these days, and first_day, begins in each zone, since
-- the daemon's time zone data are not the server's.
CREATE FUNCTION uptally.day_sums(
    names text[], days date[], starts timestamptz[], first_day date, last_day date, stores integer[]
) RETURNS TABLE (day date, store_no integer, down_us bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH zone AS MATERIALIZED (
        SELECT z.name, array_agg(z.start ORDER BY z.day) AS starts
        FROM unnest(names, days, starts) AS z (name, day, start)
        WHERE z.day BETWEEN first_day AND last_day
        GROUP BY z.name
    ), store AS MATERIALIZED (
        SELECT s.store_no, z.starts
        FROM uptally.rollup_store s
        JOIN uptally.rollup_schedule g USING (schedule_no)
        JOIN zone z ON z.name = g.timezone_str
        WHERE stores IS NULL OR s.store_no = ANY (stores)
    ), by_day AS MATERIALIZED (
        SELECT d.store_no, width_bucket(d.cell_start, s.starts) AS n, sum(d.down_us)::bigint AS down_us
        FROM store s JOIN uptally.rollup_down d USING (store_no)
        WHERE d.cell_start >= (SELECT min(z.start) FROM unnest(starts) AS z (start))
          AND d.cell_start < (SELECT max(z.start) FROM unnest(starts) AS z (start))
          AND d.cell_start >= s.starts[1] AND d.cell_start < s.starts[cardinality(s.starts)]
          AND (stores IS NULL OR d.store_no = ANY (stores))
        GROUP BY 1, 2
    )
    SELECT t.day, t.store_no, t.down_us
    FROM (
        SELECT first_day + n.n AS day, s.store_no,
               (coalesce(b.down_us, 0) + coalesce(sum(d.down_us) OVER (PARTITION BY s.store_no ORDER BY n.n), 0))::bigint AS down_us
        FROM store s
        CROSS JOIN generate_series(1, last_day - first_day) AS n (n)
        LEFT JOIN by_day d ON d.store_no = s.store_no AND d.n = n.n
        LEFT JOIN uptally.rollup_day b ON b.day = first_day AND b.store_no = s.store_no
    ) t
    WHERE t.down_us > 0
$$;

REVOKE EXECUTE ON FUNCTION uptally.day_sums(text[], date[], timestamptz[], date, date, integer[]) FROM PUBLIC;

-- Reports over a stretch of days.
ALTER TABLE public.reports
    ADD COLUMN from_day date,
    ADD COLUMN to_day   date,
    ADD CONSTRAINT days_are_some CHECK (from_day < to_day),
    ADD CONSTRAINT days_are_both_or_neither CHECK ((from_day IS NULL) = (to_day IS NULL));
