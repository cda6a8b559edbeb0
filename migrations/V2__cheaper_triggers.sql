-- Writers of status rows pay for the change feed with every statement, so nothing is called for them that need not be:
-- the WHEN of a trigger is evaluated by the executor itself, and the functions behind it run only to ring or to announce
-- what is rare. No transition tables either: they would copy every row of every INSERT and upsert.

-- Wakes the daemon. Called only where its key could not be shared, which means that it sleeps.
CREATE FUNCTION uptally.ring() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('uptally', '');
    RETURN NULL;
END $$;

-- Announces a row that the feed cannot see by its change_xid: one that came with the stamp of another transaction
-- (a copied-in change_xid), or the key that an UPDATE moved a row away from.
CREATE FUNCTION uptally.activity_row_announced() RETURNS trigger
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

-- As before, without a setting to put in place and take back for each row.
CREATE OR REPLACE FUNCTION uptally.activity_restamp() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.change_xid := pg_catalog.pg_current_xact_id();
    RETURN NEW;
END $$;

DROP TRIGGER uptally_inserted ON public.store_activity;
DROP TRIGGER uptally_updated ON public.store_activity;
DROP FUNCTION uptally.activity_inserted();
DROP FUNCTION uptally.activity_updated();

-- The doorbell; the key is that of feed::doorbell, and uptally.ring_doorbell has it too.
CREATE TRIGGER uptally_inserted AFTER INSERT ON public.store_activity FOR EACH STATEMENT
    WHEN (NOT pg_catalog.pg_try_advisory_xact_lock_shared(8461811447271043954))
    EXECUTE FUNCTION uptally.ring();
CREATE TRIGGER uptally_updated AFTER UPDATE ON public.store_activity FOR EACH STATEMENT
    WHEN (NOT pg_catalog.pg_try_advisory_xact_lock_shared(8461811447271043954))
    EXECUTE FUNCTION uptally.ring();
CREATE TRIGGER uptally_foreign AFTER INSERT ON public.store_activity FOR EACH ROW
    WHEN (NEW.change_xid <> pg_catalog.pg_current_xact_id())
    EXECUTE FUNCTION uptally.activity_row_announced();
CREATE TRIGGER uptally_moved AFTER UPDATE ON public.store_activity FOR EACH ROW
    WHEN (OLD.store_id <> NEW.store_id OR OLD.timestamp_utc <> NEW.timestamp_utc)
    EXECUTE FUNCTION uptally.activity_row_announced();
ALTER TABLE public.store_activity
    ENABLE ALWAYS TRIGGER uptally_inserted, ENABLE ALWAYS TRIGGER uptally_updated,
    ENABLE ALWAYS TRIGGER uptally_foreign, ENABLE ALWAYS TRIGGER uptally_moved;
