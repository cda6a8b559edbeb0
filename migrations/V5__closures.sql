-- Closures: time in which a store is closed whatever its hours say. In the wall time of the store's own zone, like
-- hours: a holiday is a local day. Half-open; closed_to is the first moment that is not closed any more. The store '*'
-- is every store, each in its own zone.
CREATE TABLE public.store_closures (
    store_id    text      NOT NULL,
    closed_from timestamp NOT NULL,
    closed_to   timestamp NOT NULL,
    reason      text      NOT NULL DEFAULT '',
    PRIMARY KEY (store_id, closed_from, closed_to),
    CONSTRAINT store_id_is_short_printable_text
        CHECK (octet_length(store_id) BETWEEN 1 AND 200 AND store_id !~ '[\u0001-\u001f\u007f-\u009f]'),
    -- They refuse infinity as well.
    CONSTRAINT closed_from_2000_to_2100
        CHECK (closed_from >= '2000-01-01 00:00:00' AND closed_to <= '2100-01-01 00:00:00'),
    CONSTRAINT closed_from_is_before_closed_to CHECK (closed_from < closed_to),
    CONSTRAINT reason_is_short_printable_text
        CHECK (octet_length(reason) <= 200 AND reason !~ '[\u0001-\u001f\u007f-\u009f]')
);

-- The triggers of hours and zones serve closures too. There '*' is every store, which in a note is null.
CREATE OR REPLACE FUNCTION uptally.schedule_inserted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO uptally.invalidation (store_id) SELECT DISTINCT nullif(f.store_id, '*') FROM fresh f;
    IF FOUND THEN
        PERFORM uptally.ring_doorbell();
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION uptally.schedule_updated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO uptally.invalidation (store_id)
    SELECT nullif(f.store_id, '*') FROM fresh f UNION SELECT nullif(g.store_id, '*') FROM gone g;
    IF FOUND THEN
        PERFORM uptally.ring_doorbell();
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION uptally.schedule_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO uptally.invalidation (store_id) SELECT DISTINCT nullif(g.store_id, '*') FROM gone g;
    IF FOUND THEN
        PERFORM uptally.ring_doorbell();
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER uptally_inserted AFTER INSERT ON public.store_closures
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_inserted();
CREATE TRIGGER uptally_updated AFTER UPDATE ON public.store_closures
    REFERENCING OLD TABLE AS gone NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_updated();
CREATE TRIGGER uptally_deleted AFTER DELETE ON public.store_closures
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_deleted();
CREATE TRIGGER uptally_truncated AFTER TRUNCATE ON public.store_closures
    FOR EACH STATEMENT EXECUTE FUNCTION uptally.input_truncated();
ALTER TABLE public.store_closures
    ENABLE ALWAYS TRIGGER uptally_inserted, ENABLE ALWAYS TRIGGER uptally_updated,
    ENABLE ALWAYS TRIGGER uptally_deleted, ENABLE ALWAYS TRIGGER uptally_truncated;

-- A schedule is a time zone, weekly hours and closures. One with closures names the same one without them as its base,
-- and in rollup_open has the days on which it differs from it; on all others it is open like its base.
ALTER TABLE uptally.rollup_schedule
    ADD COLUMN closures text NOT NULL DEFAULT '',       -- canonical form of schedule::Closures
    ADD COLUMN base_no integer REFERENCES uptally.rollup_schedule;
UPDATE uptally.rollup_schedule SET base_no = schedule_no;
ALTER TABLE uptally.rollup_schedule
    ALTER COLUMN base_no SET NOT NULL,
    ADD CONSTRAINT closures_are_upon_a_base CHECK ((base_no = schedule_no) = (closures = ''));

-- As before, with the days that are a schedule's own in place of its base's.
CREATE OR REPLACE VIEW uptally.store_cell AS
SELECT s.store_id, g.cells_per_hour, c.cell_start, c.open_us,
       -- After settled_to nothing was observed: the last status holds for the whole of a cell.
       CASE WHEN c.cell_start >= s.settled_to
            THEN CASE s.last_status WHEN 'inactive' THEN c.open_us ELSE 0 END
            ELSE coalesce(d.down_us, 0) END AS down_us
FROM uptally.rollup_store s
JOIN uptally.rollup_schedule g USING (schedule_no)
JOIN uptally.rollup_open r ON r.schedule_no = g.base_no
LEFT JOIN uptally.rollup_open own
    ON own.schedule_no = g.schedule_no AND own.day_start = r.day_start AND g.schedule_no <> g.base_no
CROSS JOIN LATERAL (
    SELECT r.day_start + (u.n - 1) * (interval '1 hour' / g.cells_per_hour) AS cell_start, u.open_us
    FROM pg_catalog.unnest(coalesce(own.open_us, r.open_us)) WITH ORDINALITY AS u (open_us, n)) c
LEFT JOIN uptally.rollup_down d ON d.store_no = s.store_no AND d.cell_start = c.cell_start
WHERE c.cell_start >= (SELECT k.covers_from FROM uptally.checkpoint k)
  AND c.cell_start + interval '1 hour' / g.cells_per_hour <= (SELECT k.newest FROM uptally.checkpoint k);

CREATE OR REPLACE VIEW public.store_uptime_hourly AS
SELECT c.store_id, c.cell_start AS hour_start, c.open_us - c.down_us AS up_us, c.down_us
FROM uptally.store_cell c
WHERE c.cells_per_hour = 1
UNION ALL
-- Two half-hour cells make an hour. The daemon's grid begins each day with a whole hour, so the first half is
-- the odd one of the pair; an hour that is only half over is left out.
SELECT c.store_id, min(c.cell_start), sum(c.open_us - c.down_us)::bigint, sum(c.down_us)::bigint
FROM (
    SELECT h.*, pg_catalog.date_bin('1 hour', h.cell_start, o.day_start) AS hour_start
    FROM uptally.store_cell h
    JOIN uptally.rollup_store s USING (store_id)
    JOIN uptally.rollup_schedule g USING (schedule_no)
    CROSS JOIN LATERAL (
        SELECT r.day_start FROM uptally.rollup_open r WHERE r.schedule_no = g.base_no ORDER BY r.day_start LIMIT 1) o
    WHERE h.cells_per_hour = 2) c
GROUP BY c.store_id, c.hour_start
HAVING count(*) = 2;
