-- What the change feed hung on when the rollup was built (db::wiring): one line for each table, trigger and function.
-- Null: not known, so that the rollup is built anew once after the upgrade.
ALTER TABLE uptally.checkpoint ADD COLUMN wiring text[];
