-- What the change feed hangs on, as it must be now: the functions, then the triggers, one statement after each empty line.
-- `uptally migrate` puts back what is missing or different, and the daemon does not follow as long as something is.
-- Functions are made by the migrations first, which also say why they are as they are. The triggers are in the words of
-- pg_get_triggerdef, so that they can be compared.

CREATE OR REPLACE FUNCTION uptally.ring_doorbell() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_catalog.pg_try_advisory_xact_lock_shared(8461811447271043954) THEN
        PERFORM pg_catalog.pg_notify('uptally', '');
    END IF;
END $$;

CREATE OR REPLACE FUNCTION uptally.activity_restamp() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.change_xid := pg_catalog.pg_current_xact_id();
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION uptally.activity_row_announced() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO uptally.invalidation (store_id, from_utc, to_utc)
        VALUES (NEW.store_id, NEW.timestamp_utc, NEW.timestamp_utc);
    ELSE
        INSERT INTO uptally.invalidation (store_id, from_utc, to_utc)
        VALUES (OLD.store_id, OLD.timestamp_utc, OLD.timestamp_utc);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION uptally.ring() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('uptally', '');
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION uptally.activity_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO uptally.invalidation (store_id, from_utc, to_utc)
    SELECT g.store_id, min(g.timestamp_utc), max(g.timestamp_utc) FROM gone g GROUP BY g.store_id;
    IF FOUND THEN
        PERFORM uptally.ring_doorbell();
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION uptally.input_truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO uptally.invalidation (store_id) VALUES (NULL);
    PERFORM uptally.ring_doorbell();
    RETURN NULL;
END $$;

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

CREATE TRIGGER uptally_deleted AFTER DELETE ON public.store_activity REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION uptally.activity_deleted();

CREATE TRIGGER uptally_foreign AFTER INSERT ON public.store_activity FOR EACH ROW WHEN ((new.change_xid <> pg_current_xact_id())) EXECUTE FUNCTION uptally.activity_row_announced();

CREATE TRIGGER uptally_inserted AFTER INSERT ON public.store_activity FOR EACH STATEMENT WHEN ((NOT pg_try_advisory_xact_lock_shared('8461811447271043954'::bigint))) EXECUTE FUNCTION uptally.ring();

CREATE TRIGGER uptally_moved AFTER UPDATE ON public.store_activity FOR EACH ROW WHEN (((old.store_id <> new.store_id) OR (old.timestamp_utc <> new.timestamp_utc))) EXECUTE FUNCTION uptally.activity_row_announced();

CREATE TRIGGER uptally_restamp BEFORE UPDATE ON public.store_activity FOR EACH ROW EXECUTE FUNCTION uptally.activity_restamp();

CREATE TRIGGER uptally_truncated AFTER TRUNCATE ON public.store_activity FOR EACH STATEMENT EXECUTE FUNCTION uptally.input_truncated();

CREATE TRIGGER uptally_updated AFTER UPDATE ON public.store_activity FOR EACH STATEMENT WHEN ((NOT pg_try_advisory_xact_lock_shared('8461811447271043954'::bigint))) EXECUTE FUNCTION uptally.ring();

CREATE TRIGGER uptally_deleted AFTER DELETE ON public.store_business_hours REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_deleted();

CREATE TRIGGER uptally_inserted AFTER INSERT ON public.store_business_hours REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_inserted();

CREATE TRIGGER uptally_truncated AFTER TRUNCATE ON public.store_business_hours FOR EACH STATEMENT EXECUTE FUNCTION uptally.input_truncated();

CREATE TRIGGER uptally_updated AFTER UPDATE ON public.store_business_hours REFERENCING OLD TABLE AS gone NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_updated();

CREATE TRIGGER uptally_deleted AFTER DELETE ON public.store_closures REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_deleted();

CREATE TRIGGER uptally_inserted AFTER INSERT ON public.store_closures REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_inserted();

CREATE TRIGGER uptally_truncated AFTER TRUNCATE ON public.store_closures FOR EACH STATEMENT EXECUTE FUNCTION uptally.input_truncated();

CREATE TRIGGER uptally_updated AFTER UPDATE ON public.store_closures REFERENCING OLD TABLE AS gone NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_updated();

CREATE TRIGGER uptally_deleted AFTER DELETE ON public.store_timezones REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_deleted();

CREATE TRIGGER uptally_inserted AFTER INSERT ON public.store_timezones REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_inserted();

CREATE TRIGGER uptally_truncated AFTER TRUNCATE ON public.store_timezones FOR EACH STATEMENT EXECUTE FUNCTION uptally.input_truncated();

CREATE TRIGGER uptally_updated AFTER UPDATE ON public.store_timezones REFERENCING OLD TABLE AS gone NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION uptally.schedule_updated();
