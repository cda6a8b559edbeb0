-- The tables that pollers and people write to live in public; what the daemon keeps for itself lives in
-- schema uptally. Every name is schema-qualified: nothing depends on a session's search_path.

-- ---------------------------------------------------------------------------------------------------------
-- Inputs
-- ---------------------------------------------------------------------------------------------------------

-- A store id is 1 to 200 bytes of text without control characters, the same rule as store::check_store_id. The rule is
-- repeated as a CHECK instead of a domain: many drivers do not know how to send a domain.

-- One observation per store and instant. change_xid is the change feed's own: the transaction that wrote this
-- version of the row. Writers leave it out.
CREATE TABLE public.store_activity (
    store_id      text NOT NULL,
    timestamp_utc timestamptz      NOT NULL,
    status        text             NOT NULL,
    change_xid    xid8             NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    PRIMARY KEY (store_id, timestamp_utc),
    CONSTRAINT store_id_is_short_printable_text
        CHECK (octet_length(store_id) BETWEEN 1 AND 200 AND store_id !~ '[\u0001-\u001f\u007f-\u009f]'),
    CONSTRAINT status_is_active_or_inactive CHECK (status IN ('active', 'inactive')),
    -- The range of time::Timestamp; it refuses infinity as well.
    CONSTRAINT timestamp_utc_is_from_2000_to_2100
        CHECK (timestamp_utc >= '2000-01-01 00:00:00+00' AND timestamp_utc < '2100-01-01 00:00:00+00')
);
CREATE INDEX store_activity_change_xid ON public.store_activity (change_xid);

-- Opening hours in the store's local time; day 0 is Monday. start >= end wraps past midnight.
CREATE TABLE public.store_business_hours (
    store_id         text NOT NULL,
    day              smallint         NOT NULL,
    start_time_local time             NOT NULL,
    end_time_local   time             NOT NULL,
    PRIMARY KEY (store_id, day, start_time_local, end_time_local),
    CONSTRAINT store_id_is_short_printable_text
        CHECK (octet_length(store_id) BETWEEN 1 AND 200 AND store_id !~ '[\u0001-\u001f\u007f-\u009f]'),
    CONSTRAINT day_is_0_monday_to_6_sunday CHECK (day BETWEEN 0 AND 6),
    CONSTRAINT start_is_before_24_00 CHECK (start_time_local < '24:00:00')
);

-- The time zones that the daemon knows; filled by it, so that the database refuses what the daemon could not
-- resolve.
CREATE TABLE uptally.time_zone (
    name text PRIMARY KEY
);

CREATE TABLE public.store_timezones (
    store_id     text PRIMARY KEY,
    timezone_str text NOT NULL REFERENCES uptally.time_zone (name),
    CONSTRAINT store_id_is_short_printable_text
        CHECK (octet_length(store_id) BETWEEN 1 AND 200 AND store_id !~ '[\u0001-\u001f\u007f-\u009f]')
);

-- ---------------------------------------------------------------------------------------------------------
-- Reports
-- ---------------------------------------------------------------------------------------------------------

CREATE TABLE public.reports (
    report_id       uuid        PRIMARY KEY,
    state           text        NOT NULL DEFAULT 'running',
    requested_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    as_of_requested text        NOT NULL,           -- now | latest | RFC 3339
    windows         text        NOT NULL,
    closed          text        NOT NULL,
    as_of           timestamptz,                    -- fixed once; null only while a 'latest' report runs
    cursors         text[],                         -- the point of the change stream, one per database
    stores          bigint,
    csv_bytes       bigint,
    duration_us     bigint,
    finished_at     timestamptz,
    failure         text,
    CONSTRAINT state_is_known CHECK (state IN ('running', 'complete', 'failed')),
    CONSTRAINT windows_is_known CHECK (windows IN ('calendar', 'rolling')),
    CONSTRAINT closed_is_known CHECK (closed IN ('uptime', 'excluded')),
    CONSTRAINT complete_says_of_what CHECK (state <> 'complete'
        OR (as_of IS NOT NULL AND cursors IS NOT NULL AND stores IS NOT NULL AND csv_bytes IS NOT NULL AND finished_at IS NOT NULL)),
    CONSTRAINT failed_says_why CHECK ((state = 'failed') = (failure IS NOT NULL))
);
CREATE INDEX reports_running ON public.reports (requested_at) WHERE state = 'running';

-- ---------------------------------------------------------------------------------------------------------
-- Rollup. up = open - down, and open depends on the schedule alone: it is kept once per schedule, and of the
-- stores only the cells with downtime are kept.
-- ---------------------------------------------------------------------------------------------------------

-- A distinct pair of time zone and weekly hours.
CREATE TABLE uptally.rollup_schedule (
    schedule_no    integer  PRIMARY KEY,
    timezone_str   text     NOT NULL,
    weekly_hours   text     NOT NULL,               -- canonical form of schedule::WeeklyHours; '' is always open
    cells_per_hour smallint NOT NULL,
    CONSTRAINT cells_are_hours_or_halves CHECK (cells_per_hour IN (1, 2))
    -- No unique key on zone and hours: a week of short slots is longer than an index takes.
);

-- Opening time of a schedule: microseconds by cell, for the 24 hours from day_start on.
CREATE TABLE uptally.rollup_open (
    schedule_no integer     NOT NULL REFERENCES uptally.rollup_schedule,
    day_start   timestamptz NOT NULL,
    open_us     bigint[]    NOT NULL,
    PRIMARY KEY (schedule_no, day_start),
    CONSTRAINT cells_fill_a_day CHECK (cardinality(open_us) IN (24, 48)),
    CONSTRAINT open_fits_the_cell CHECK (0 <= ALL (open_us) AND 3600000000 >= ALL (open_us))
);

CREATE TABLE uptally.rollup_store (
    store_no         integer          PRIMARY KEY,
    store_id         text NOT NULL UNIQUE,
    schedule_no      integer          NOT NULL REFERENCES uptally.rollup_schedule,
    last_observed_at timestamptz,
    last_status      text,
    settled_to       timestamptz,                   -- end of the last observation's cell; later cells follow from last_status
    held_from        timestamptz,                   -- first observation that is dated in the future and waits
    CONSTRAINT last_status_is_active_or_inactive CHECK (last_status IN ('active', 'inactive')),
    CONSTRAINT observed_or_not CHECK ((last_observed_at IS NULL) = (last_status IS NULL)
                                  AND (last_observed_at IS NULL) = (settled_to IS NULL))
) WITH (fillfactor = 70);                           -- an update of a store stays on its page (HOT)

-- Downtime of a store inside opening hours: microseconds by cell, cells without any left out. By month, so that
-- retention drops a table.
CREATE TABLE uptally.rollup_down (
    store_no   integer     NOT NULL,
    cell_start timestamptz NOT NULL,
    down_us    bigint      NOT NULL,
    PRIMARY KEY (store_no, cell_start),
    CONSTRAINT down_fits_the_cell CHECK (down_us > 0 AND down_us <= 3600000000)
) PARTITION BY RANGE (cell_start);

-- Makes the partition for the month of an instant. A runtime role that may call this need not create tables.
CREATE FUNCTION uptally.ensure_rollup_month(at timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    month date := date_trunc('month', at AT TIME ZONE 'UTC')::date;
    partition text := format('rollup_down_%s', to_char(month, 'YYYY_MM'));
BEGIN
    EXECUTE format(
        'CREATE TABLE IF NOT EXISTS uptally.%I PARTITION OF uptally.rollup_down FOR VALUES FROM (%L) TO (%L)',
        partition, month || ' 00:00:00+00', (month + interval '1 month')::date || ' 00:00:00+00');
END $$;

-- Drops the partitions that end at or before an instant.
CREATE FUNCTION uptally.drop_rollup_months_before(at timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT c.relname FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'uptally.rollup_down'::regclass
          AND to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month' <= at AT TIME ZONE 'UTC'
    LOOP
        EXECUTE format('DROP TABLE uptally.%I', name);
    END LOOP;
END $$;

-- They run with the owner's rights, so they are for the daemon's role alone.
REVOKE EXECUTE ON FUNCTION uptally.ensure_rollup_month(timestamptz), uptally.drop_rollup_months_before(timestamptz) FROM PUBLIC;

-- How far the rollup is: one row, written in the same transaction as the rollup rows it speaks of.
CREATE TABLE uptally.checkpoint (
    only_row          boolean     PRIMARY KEY DEFAULT true,
    epoch             bigint      NOT NULL DEFAULT 0,  -- of the daemon that may write; see ledger
    cursor            pg_snapshot,                     -- null: never built
    layout            text        NOT NULL DEFAULT '', -- layout and time zone data that the rows were made with
    system_identifier bigint,
    database_oid      oid,
    activity_oid      oid,
    timeline          integer,
    covers_from       timestamptz,                     -- first instant with rollup rows; null: no observations
    newest            timestamptz,                     -- latest observation that is counted
    truncated         boolean     NOT NULL DEFAULT false, -- rows before covers_from were dropped by retention
    written_at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CONSTRAINT one_row CHECK (only_row)
);
INSERT INTO uptally.checkpoint DEFAULT VALUES;

-- Opening time and downtime of every store and cell that is over, up to the latest observation of the fleet.
CREATE VIEW uptally.store_cell AS
SELECT s.store_id, g.cells_per_hour, c.cell_start, c.open_us,
       -- After settled_to nothing was observed: the last status holds for the whole of a cell.
       CASE WHEN c.cell_start >= s.settled_to
            THEN CASE s.last_status WHEN 'inactive' THEN c.open_us ELSE 0 END
            ELSE coalesce(d.down_us, 0) END AS down_us
FROM uptally.rollup_store s
JOIN uptally.rollup_schedule g USING (schedule_no)
JOIN uptally.rollup_open r USING (schedule_no)
CROSS JOIN LATERAL (
    SELECT r.day_start + (u.n - 1) * (interval '1 hour' / g.cells_per_hour) AS cell_start, u.open_us
    FROM pg_catalog.unnest(r.open_us) WITH ORDINALITY AS u (open_us, n)) c
LEFT JOIN uptally.rollup_down d ON d.store_no = s.store_no AND d.cell_start = c.cell_start
WHERE c.cell_start >= (SELECT k.covers_from FROM uptally.checkpoint k)
  AND c.cell_start + interval '1 hour' / g.cells_per_hour <= (SELECT k.newest FROM uptally.checkpoint k);

-- Hourly rows per store, for SQL: the store's own clock hours that are over, up to the latest observation of the
-- fleet. up_us + down_us is the opening time of the hour.
CREATE VIEW public.store_uptime_hourly AS
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
    CROSS JOIN LATERAL (
        SELECT r.day_start FROM uptally.rollup_open r WHERE r.schedule_no = s.schedule_no ORDER BY r.day_start LIMIT 1) o
    WHERE h.cells_per_hour = 2) c
GROUP BY c.store_id, c.hour_start
HAVING count(*) = 2;

-- ---------------------------------------------------------------------------------------------------------
-- Change feed
-- ---------------------------------------------------------------------------------------------------------

-- What cannot be seen as a row with a new change_xid: rows that went away or changed their key, and changes of
-- hours and time zones. The daemon recomputes these stores from raw, then deletes the rows.
CREATE TABLE uptally.invalidation (
    store_id   text,                                -- null: all stores
    from_utc   timestamptz,                         -- null: hours or time zone, so the whole history
    to_utc     timestamptz,                         -- included
    change_xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    CONSTRAINT stretch_or_all CHECK ((from_utc IS NULL) = (to_utc IS NULL) AND (store_id IS NOT NULL OR from_utc IS NULL))
);
CREATE INDEX invalidation_change_xid ON uptally.invalidation (change_xid);

-- The doorbell: notify only while the daemon sleeps. It holds the advisory key exclusively exactly then, so
-- failing to share it means that somebody must be woken. See feed::doorbell for why no wake-up is lost.
CREATE FUNCTION uptally.ring_doorbell() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_catalog.pg_try_advisory_xact_lock_shared(8461811447271043954) THEN
        PERFORM pg_catalog.pg_notify('uptally', '');
    END IF;
END $$;

CREATE FUNCTION uptally.activity_inserted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM fresh) THEN
        RETURN NULL;
    END IF;
    -- A copied-in change_xid would hide the row from the feed: announce such rows the other way.
    INSERT INTO uptally.invalidation (store_id, from_utc, to_utc)
    SELECT f.store_id, min(f.timestamp_utc), max(f.timestamp_utc)
    FROM fresh f WHERE f.change_xid <> pg_current_xact_id() GROUP BY f.store_id;
    IF NOT pg_try_advisory_xact_lock_shared(8461811447271043954) THEN
        PERFORM pg_notify('uptally', '');
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION uptally.activity_restamp() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.change_xid := pg_current_xact_id();
    RETURN NEW;
END $$;

CREATE FUNCTION uptally.activity_updated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM fresh) THEN
        RETURN NULL;
    END IF;
    INSERT INTO uptally.invalidation (store_id, from_utc, to_utc)
    SELECT g.store_id, min(g.timestamp_utc), max(g.timestamp_utc)
    FROM (SELECT store_id, timestamp_utc FROM gone EXCEPT SELECT store_id, timestamp_utc FROM fresh) g
    GROUP BY g.store_id;
    PERFORM uptally.ring_doorbell();
    RETURN NULL;
END $$;

CREATE FUNCTION uptally.activity_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO uptally.invalidation (store_id, from_utc, to_utc)
    SELECT g.store_id, min(g.timestamp_utc), max(g.timestamp_utc) FROM gone g GROUP BY g.store_id;
    IF FOUND THEN
        PERFORM uptally.ring_doorbell();
    END IF;
    RETURN NULL;
END $$;

-- TRUNCATE of any input table.
CREATE FUNCTION uptally.input_truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO uptally.invalidation (store_id) VALUES (NULL);
    PERFORM uptally.ring_doorbell();
    RETURN NULL;
END $$;

-- Hours and time zones, by statement kind: a trigger function can only name transition tables that exist.
CREATE FUNCTION uptally.schedule_inserted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO uptally.invalidation (store_id) SELECT DISTINCT f.store_id FROM fresh f;
    IF FOUND THEN
        PERFORM uptally.ring_doorbell();
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION uptally.schedule_updated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO uptally.invalidation (store_id) SELECT f.store_id FROM fresh f UNION SELECT g.store_id FROM gone g;
    IF FOUND THEN
        PERFORM uptally.ring_doorbell();
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION uptally.schedule_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO uptally.invalidation (store_id) SELECT DISTINCT g.store_id FROM gone g;
    IF FOUND THEN
        PERFORM uptally.ring_doorbell();
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER uptally_inserted AFTER INSERT ON public.store_activity
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION uptally.activity_inserted();
CREATE TRIGGER uptally_restamp BEFORE UPDATE ON public.store_activity
    FOR EACH ROW EXECUTE FUNCTION uptally.activity_restamp();
CREATE TRIGGER uptally_updated AFTER UPDATE ON public.store_activity
    REFERENCING OLD TABLE AS gone NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION uptally.activity_updated();
CREATE TRIGGER uptally_deleted AFTER DELETE ON public.store_activity
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION uptally.activity_deleted();
CREATE TRIGGER uptally_truncated AFTER TRUNCATE ON public.store_activity
    FOR EACH STATEMENT EXECUTE FUNCTION uptally.input_truncated();

CREATE TRIGGER uptally_inserted AFTER INSERT ON public.store_business_hours
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_inserted();
CREATE TRIGGER uptally_updated AFTER UPDATE ON public.store_business_hours
    REFERENCING OLD TABLE AS gone NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_updated();
CREATE TRIGGER uptally_deleted AFTER DELETE ON public.store_business_hours
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_deleted();
CREATE TRIGGER uptally_truncated AFTER TRUNCATE ON public.store_business_hours
    FOR EACH STATEMENT EXECUTE FUNCTION uptally.input_truncated();

CREATE TRIGGER uptally_inserted AFTER INSERT ON public.store_timezones
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_inserted();
CREATE TRIGGER uptally_updated AFTER UPDATE ON public.store_timezones
    REFERENCING OLD TABLE AS gone NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_updated();
CREATE TRIGGER uptally_deleted AFTER DELETE ON public.store_timezones
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_deleted();
CREATE TRIGGER uptally_truncated AFTER TRUNCATE ON public.store_timezones
    FOR EACH STATEMENT EXECUTE FUNCTION uptally.input_truncated();

-- They fire in sessions with session_replication_role = replica too. Logical replication does not fire statement
-- triggers at all: a subscriber's tables cannot be followed.
ALTER TABLE public.store_activity
    ENABLE ALWAYS TRIGGER uptally_inserted, ENABLE ALWAYS TRIGGER uptally_restamp, ENABLE ALWAYS TRIGGER uptally_updated,
    ENABLE ALWAYS TRIGGER uptally_deleted, ENABLE ALWAYS TRIGGER uptally_truncated;
ALTER TABLE public.store_business_hours
    ENABLE ALWAYS TRIGGER uptally_inserted, ENABLE ALWAYS TRIGGER uptally_updated,
    ENABLE ALWAYS TRIGGER uptally_deleted, ENABLE ALWAYS TRIGGER uptally_truncated;
ALTER TABLE public.store_timezones
    ENABLE ALWAYS TRIGGER uptally_inserted, ENABLE ALWAYS TRIGGER uptally_updated,
    ENABLE ALWAYS TRIGGER uptally_deleted, ENABLE ALWAYS TRIGGER uptally_truncated;
