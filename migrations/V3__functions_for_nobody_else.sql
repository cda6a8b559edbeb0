-- What triggers call runs without a privilege of its own: whoever fires a trigger need not be allowed to call its
-- function. So nobody but the owner may, and the daemon's role where `uptally migrate --grant-to` says so: a function
-- with the owner's rights must not be put behind a table of somebody else. Later migrations that add a function do
-- the same (a test looks).
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA uptally FROM PUBLIC;

-- On Postgres 14 and in databases that come from there, everybody may create objects in schema public; that is not
-- ours to change for others. Here nothing depends on it: every name in every function, and in every session of ours,
-- is looked up in pg_catalog only or carries its schema.
