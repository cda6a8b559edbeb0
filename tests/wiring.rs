//! What the change feed hangs on: whoever touches a table, a trigger or a function, nothing stale is served as fresh.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::Duration;

use support::check::{reports_are_right, verify_is_clean};
use support::daemon::Following;
use support::fixture::{NOW, fill};
use support::{TestDatabase, within};
use uptally::clock::Clock;
use uptally::daemon::Settings;
use uptally::db::Session;
use uptally::db::wiring::Wiring;
use uptally::report::Source;
use uptally::rollup::Limits;
use uptally::verify::verify;

const PATIENCE: Duration = Duration::from_secs(5);

/// Rows that go while nobody tells: with all our triggers off this is what the feed cannot see.
const UNSEEN: &str = "DELETE FROM public.store_activity WHERE store_id = 'chicago' AND timestamp_utc > '2023-11-07';
    INSERT INTO public.store_activity VALUES ('howe', '2023-11-08 12:00+00', 'inactive', '3')";

fn quick() -> Settings {
    Settings {
        check_interval: Duration::from_millis(100),
        flush_interval: Duration::from_millis(20),
        ..Settings::default()
    }
}

async fn wiring(session: &Session) -> Wiring {
    Wiring::read(&session.client, &session.statements).await.unwrap()
}

/// The marks in the checkpoint are those of the present: a rollup that was built over them is in the tables.
async fn rebuilt(session: &Session) {
    within(PATIENCE, "a rollup over the present wiring is flushed", async || {
        let sql = "SELECT wiring FROM uptally.checkpoint";
        let row = session.client.query_one(sql, &[]).await.unwrap();
        let marks: Option<Vec<String>> = row.get(0);
        let touched = wiring(session).await.touched_since(&marks.unwrap_or_default());
        touched.is_empty()
    })
    .await;
}

#[tokio::test]
async fn the_migrations_make_what_must_be_and_mending_leaves_it_alone() {
    let server = TestDatabase::start().await;
    let database = server.database();
    let session = database.connect("test").await.unwrap();
    let made = wiring(&session).await;
    assert_eq!(made.fault(), None);
    assert_eq!(made.marks().len(), 5 + 9 + 19, "{:?}", made.marks());
    database.migrate().await.unwrap();
    assert_eq!(wiring(&session).await, made);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_touched_is_noticed_and_read_again() {
    let server = TestDatabase::start().await;
    let (database, client) = (server.database(), server.connect().await);
    fill(&client, 20).await;
    let session = database.connect("test").await.unwrap();
    let daemon = Following::start(&database, &Clock::standing(NOW).0, quick()).await;
    rebuilt(&session).await;
    let off_and_on = format!(
        "BEGIN;
         ALTER TABLE public.store_activity DISABLE TRIGGER uptally_deleted, DISABLE TRIGGER uptally_foreign;
         {UNSEEN};
         ALTER TABLE public.store_activity ENABLE ALWAYS TRIGGER uptally_deleted, ENABLE ALWAYS TRIGGER uptally_foreign;
         COMMIT"
    );
    let unstamped =
        "BEGIN; ALTER TABLE public.store_activity ALTER change_xid SET DEFAULT '3', DISABLE TRIGGER uptally_foreign;
         INSERT INTO public.store_activity VALUES ('beirut', '2023-11-08 11:59+00', 'inactive');
         ALTER TABLE public.store_activity ALTER change_xid SET DEFAULT pg_current_xact_id(),
                                           ENABLE ALWAYS TRIGGER uptally_foreign;
         COMMIT";
    let other_function =
        "BEGIN; CREATE TEMP TABLE body AS SELECT pg_get_functiondef('uptally.schedule_deleted'::regproc) d;
         CREATE OR REPLACE FUNCTION uptally.schedule_deleted() RETURNS trigger LANGUAGE plpgsql
             SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NULL; END';
         DELETE FROM public.store_business_hours WHERE store_id = 'kathmandu';
         DO $$ BEGIN EXECUTE (SELECT d FROM body); END $$; COMMIT";
    let by_way_of_a_parent =
        "BEGIN; CREATE TABLE public.whole (LIKE public.store_activity) PARTITION BY LIST (store_id);
         ALTER TABLE public.whole ATTACH PARTITION public.store_activity DEFAULT;
         DELETE FROM public.whole WHERE store_id = 'kathmandu' AND timestamp_utc > '2023-11-08';
         ALTER TABLE public.whole DETACH PARTITION public.store_activity; DROP TABLE public.whole; COMMIT";
    for touch in [
        &off_and_on,
        unstamped,
        other_function,
        by_way_of_a_parent,
        "VACUUM FULL public.store_activity",
        "ALTER TABLE public.store_timezones ALTER timezone_str TYPE text USING timezone_str || ''",
        "TRUNCATE uptally.invalidation",
    ] {
        let before = wiring(&session).await;
        client.batch_execute(touch).await.expect(touch);
        assert_ne!(wiring(&session).await.marks(), before.marks(), "{touch}");
        rebuilt(&session).await;
        reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    }
    daemon.stop().await;
    verify_is_clean(&database, NOW).await;
}

/// What is broken, how it is mended (None: by `uptally migrate`), and what the reason must name.
type Broken = (&'static str, Option<&'static str>, &'static str);

const TRIGGERS: [Broken; 5] = [
    (
        "DROP TRIGGER uptally_deleted ON public.store_activity",
        None,
        "trigger uptally_deleted on public.store_activity is missing",
    ),
    (
        "ALTER TABLE public.store_activity DISABLE TRIGGER ALL",
        None,
        "trigger uptally_moved on public.store_activity is disabled",
    ),
    (
        "ALTER TABLE public.store_business_hours ENABLE TRIGGER uptally_deleted",
        None,
        "trigger uptally_deleted on public.store_business_hours is not enabled ALWAYS",
    ),
    (
        "CREATE OR REPLACE TRIGGER uptally_foreign AFTER INSERT ON public.store_activity FOR EACH ROW
         WHEN (NEW.store_id = 'nobody') EXECUTE FUNCTION uptally.activity_row_announced()",
        None,
        "trigger uptally_foreign on public.store_activity is not as this version made it",
    ),
    (
        "CREATE OR REPLACE FUNCTION uptally.activity_deleted() RETURNS trigger LANGUAGE plpgsql
         SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NULL; END'",
        None,
        "function uptally.activity_deleted is not as this version made it",
    ),
];

const COLUMNS: [Broken; 3] = [
    (
        "ALTER TABLE public.store_activity ALTER change_xid DROP DEFAULT, ALTER change_xid DROP NOT NULL",
        None,
        "public.store_activity has no column change_xid",
    ),
    (
        "DROP INDEX public.store_activity_change_xid",
        None,
        "public.store_activity has no valid index on change_xid",
    ),
    (
        "ALTER TABLE public.store_activity SET UNLOGGED",
        Some("ALTER TABLE public.store_activity SET LOGGED"),
        "public.store_activity is unlogged",
    ),
];

const TABLES: [Broken; 5] = [
    (
        "CREATE TABLE public.child () INHERITS (public.store_activity)",
        Some("DROP TABLE public.child"),
        "public.store_activity inherits, is inherited from or is a partition",
    ),
    (
        "CREATE TABLE public.whole (LIKE public.store_activity) PARTITION BY LIST (store_id);
         ALTER TABLE public.whole ATTACH PARTITION public.store_activity DEFAULT",
        Some("ALTER TABLE public.whole DETACH PARTITION public.store_activity"),
        "public.store_activity inherits, is inherited from or is a partition",
    ),
    // The copy has the columns, their default and the indexes, but no triggers.
    (
        "ALTER TABLE public.store_activity RENAME TO old; DROP TABLE IF EXISTS public.whole;
         CREATE TABLE public.store_activity (LIKE public.old INCLUDING ALL);
         INSERT INTO public.store_activity SELECT * FROM public.old; DROP TABLE public.old",
        None,
        "trigger uptally_restamp on public.store_activity is missing",
    ),
    (
        "ALTER TABLE public.store_activity RENAME TO old;
         CREATE TABLE public.store_activity (LIKE public.old INCLUDING ALL) PARTITION BY LIST (store_id);
         ALTER TABLE public.store_activity ATTACH PARTITION public.old DEFAULT",
        Some(
            "ALTER TABLE public.store_activity DETACH PARTITION public.old; DROP TABLE public.store_activity;
             ALTER TABLE public.old RENAME TO store_activity",
        ),
        "public.store_activity is partitioned, which is not supported",
    ),
    (
        "ALTER TABLE public.store_activity RENAME TO old; CREATE VIEW public.store_activity AS SELECT * FROM public.old",
        Some("DROP VIEW public.store_activity; ALTER TABLE public.old RENAME TO store_activity"),
        "public.store_activity is not a table",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_triggers_are_named_until_they_are_mended() {
    each_is_named_until_it_is_mended(&TRIGGERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_columns_are_named_until_they_are_mended() {
    each_is_named_until_it_is_mended(&COLUMNS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_tables_are_named_until_they_are_mended() {
    each_is_named_until_it_is_mended(&TABLES).await;
}

async fn each_is_named_until_it_is_mended(cases: &[Broken]) {
    let server = TestDatabase::start().await;
    let (database, client) = (server.database(), server.connect().await);
    fill(&client, 20).await;
    let session = database.connect("test").await.unwrap();
    let mut daemon = Following::start(&database, &Clock::standing(NOW).0, quick()).await;
    for &(broken, mended, reason) in cases {
        // Each time from the shortest pause between two attempts.
        tokio::time::sleep(Duration::from_millis(1050)).await;
        client.batch_execute(broken).await.expect(broken);
        within(PATIENCE, reason, async || {
            daemon.handle.readiness().is_err_and(|told| told.contains(reason))
        })
        .await;
        let _ = client.batch_execute(UNSEEN).await;
        match mended {
            Some(mended) => client.batch_execute(mended).await.expect(mended),
            None => database.migrate().await.expect(broken),
        }
        let follows = tokio::time::timeout(PATIENCE, daemon.handle.following()).await;
        assert!(follows.expect(broken));
        rebuilt(&session).await;
        reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    }
    daemon.stop().await;
    verify_is_clean(&database, NOW).await;
}

#[tokio::test]
async fn what_happens_while_no_daemon_runs_is_noticed_at_the_next_start() {
    let server = TestDatabase::start().await;
    let (database, client, clock) = (server.database(), server.connect().await, Clock::standing(NOW).0);
    fill(&client, 20).await;
    Following::start(&database, &clock, quick()).await.stop().await;
    client
        .batch_execute(&format!(
            "ALTER TABLE public.store_activity DISABLE TRIGGER ALL; {UNSEEN};
             ALTER TABLE public.store_activity ENABLE TRIGGER ALL"
        ))
        .await
        .unwrap();
    // What came unseen is drift until then, and no reason for `verify` to refuse.
    let verdict = verify(&database, Limits::default(), NOW, 4_000_000).await.unwrap();
    assert!(verdict.difference_count > 0);
    // As after pg_restore --disable-triggers: all on again, but not ALWAYS.
    let mut daemon = Following::launch(&database, &clock, quick());
    within(PATIENCE, "it does not follow", async || {
        daemon
            .handle
            .readiness()
            .is_err_and(|told| told.contains("not enabled ALWAYS"))
    })
    .await;
    database.migrate().await.unwrap();
    assert!(daemon.handle.following().await);
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.stop().await;
    verify_is_clean(&database, NOW).await;
}

#[tokio::test]
async fn replicas_and_cascades_are_followed() {
    let server = TestDatabase::start().await;
    let (database, client) = (server.database(), server.connect().await);
    fill(&client, 3).await;
    client
        .batch_execute(
            "CREATE TABLE public.shop (id text PRIMARY KEY);
             INSERT INTO public.shop SELECT DISTINCT store_id FROM public.store_activity;
             ALTER TABLE public.store_activity ADD FOREIGN KEY (store_id) REFERENCES public.shop
                 ON DELETE CASCADE ON UPDATE CASCADE",
        )
        .await
        .unwrap();
    let daemon = Following::start(&database, &Clock::standing(NOW).0, quick()).await;
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    for sql in [
        "DELETE FROM public.shop WHERE id = 'beirut'",
        "UPDATE public.shop SET id = 'chicago 2' WHERE id = 'chicago'",
        "BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM public.store_activity WHERE store_id = 'howe';
         INSERT INTO public.store_activity VALUES ('kathmandu', '2023-11-08 11:00+00', 'inactive', '3'); COMMIT",
    ] {
        client.batch_execute(sql).await.expect(sql);
        reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    }
    daemon.stop().await;
    verify_is_clean(&database, NOW).await;
}

#[tokio::test]
async fn rows_that_are_hidden_from_the_role_are_a_fault() {
    let server = TestDatabase::start().await;
    let session = server.database().connect("test").await.unwrap();
    session
        .client
        .batch_execute(
            "CREATE ROLE half_blind; GRANT USAGE ON SCHEMA uptally TO half_blind; ALTER TABLE public.store_timezones ENABLE ROW LEVEL SECURITY; SET ROLE half_blind",
        )
        .await
        .unwrap();
    let fault = wiring(&session).await.fault().unwrap();
    assert!(
        fault.contains("public.store_timezones hides rows from this role"),
        "{fault}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_of_a_logical_replication_is_refused() {
    let server = TestDatabase::start_alone(&[("wal_level", "logical")]).await;
    let (database, client) = (server.database(), server.connect().await);
    fill(&client, 3).await;
    let daemon = Following::start(&database, &Clock::standing(NOW).0, quick()).await;
    client.batch_execute("CREATE DATABASE publisher").await.unwrap();
    let publisher = server.connect_to("publisher").await;
    publisher
        .batch_execute(
            "CREATE TABLE public.store_activity (store_id text, timestamp_utc timestamptz, status text,
                 PRIMARY KEY (store_id, timestamp_utc));
             INSERT INTO public.store_activity VALUES ('published', '2023-11-08 10:00+00', 'inactive');
             CREATE PUBLICATION shops FOR TABLE public.store_activity",
        )
        .await
        .unwrap();
    publisher
        .execute("SELECT pg_create_logical_replication_slot('shops', 'pgoutput')", &[])
        .await
        .unwrap();
    let subscribe = format!(
        "CREATE SUBSCRIPTION shops CONNECTION '{}' PUBLICATION shops WITH (create_slot = false)",
        server.conninfo("publisher")
    );
    client.batch_execute(&subscribe).await.unwrap();
    within(PATIENCE, "it is refused", async || {
        daemon
            .handle
            .readiness()
            .is_err_and(|told| told.contains("written by a subscription"))
    })
    .await;
    let count = async |sql| client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    let published = "SELECT count(*) FROM public.store_activity WHERE store_id = 'published'";
    within(PATIENCE, "the row is copied", async || count(published).await == 1).await;
    publisher
        .batch_execute("DELETE FROM public.store_activity")
        .await
        .unwrap();
    within(PATIENCE, "it goes without a statement trigger", async || {
        count(published).await == 0
    })
    .await;
    client.batch_execute("DROP SUBSCRIPTION shops").await.unwrap();
    within(PATIENCE, "it follows again", async || daemon.handle.readiness().is_ok()).await;
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.stop().await;
    verify_is_clean(&database, NOW).await;
}
