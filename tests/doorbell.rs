//! The doorbell: no wake-up is lost, and writers do not ring while the follower is awake anyway.
//!
//! The follower's poll interval is an hour here, so that a lost bell shows as a test that waits in vain.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::{Duration, Instant};

use support::TestDatabase;
use support::daemon::{Following, is_asleep};
use support::fixture::{NOW, fill};
use support::hunt::hunt;
use support::within;
use tokio_postgres::Client;
use uptally::clock::Clock;
use uptally::daemon::Settings;
use uptally::db::Session;

const INSERT: &str = "INSERT INTO public.store_activity VALUES ($1, $2, 'inactive')";
const PATIENCE: Duration = Duration::from_secs(3);
const HUNT: Duration = Duration::from_secs(4);

fn settings() -> Settings {
    Settings {
        poll_interval: Duration::from_hours(1),
        ..Settings::default()
    }
}

/// A session that listens as the daemon does.
async fn listener(server: &TestDatabase) -> Session {
    let session = server.database().connect("listening test").await.unwrap();
    session.client.batch_execute("LISTEN uptally").await.unwrap();
    session
}

/// Whether it rang since the last call. What was sent before this statement arrives before its answer.
async fn rang(listener: &Session) -> bool {
    listener.client.simple_query("SELECT 1").await.unwrap();
    tokio::time::timeout(Duration::from_millis(1), listener.notified.notified())
        .await
        .is_ok()
}

async fn sleeps(client: &Client) {
    within(PATIENCE, "the follower sleeps", async || is_asleep(client).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost() {
    let server = TestDatabase::start().await;
    let began = Instant::now();
    let hunt = hunt(&server, support::seed(), 0, |_| began.elapsed() < HUNT).await;
    println!("{hunt:?}");
    assert!(hunt.rounds >= 100, "only {} rounds: too slow to be a hunt", hunt.rounds);
}

#[tokio::test]
async fn it_rings_once_when_asleep_and_not_under_a_steady_stream() {
    let server = TestDatabase::start().await;
    let client = server.connect().await;
    let daemon = Following::start(&server.database(), &Clock::standing(NOW).0, settings()).await;
    // From here on: a daemon that starts rings once itself, to find out whether it is heard.
    let bell = listener(&server).await;
    sleeps(&client).await;
    assert!(!rang(&bell).await);
    client.execute(INSERT, &[&"0", &NOW]).await.unwrap();
    within(PATIENCE, "the first is seen", async || daemon.stores_seen() == 1).await;
    assert!(rang(&bell).await);

    for n in 1..=100 {
        client.execute(INSERT, &[&n.to_string(), &NOW]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!rang(&bell).await, "row {n} rang though the follower was awake");
    }
    within(PATIENCE, "all are seen", async || daemon.stores_seen() == 101).await;

    sleeps(&client).await;
    assert!(!rang(&bell).await);
    client.execute(INSERT, &[&"last", &NOW]).await.unwrap();
    let committed = Instant::now();
    within(PATIENCE, "the last is seen", async || daemon.stores_seen() == 102).await;
    println!("seen {:?} after its commit", committed.elapsed());
    assert!(rang(&bell).await);
    daemon.stop().await;
}

#[tokio::test]
async fn a_statement_of_no_rows_writes_nothing_and_leaves_the_follower_asleep() {
    let server = TestDatabase::start().await;
    let mut client = server.connect().await;
    let other = server.connect().await;
    fill(&client, 2).await;
    let daemon = Following::start(&server.database(), &Clock::standing(NOW).0, settings()).await;
    let bell = listener(&server).await;
    for sql in [
        "UPDATE public.store_activity SET status = 'active' WHERE store_id = 'nobody'",
        "UPDATE public.store_activity SET store_id = 'somebody' WHERE false",
        "DELETE FROM public.store_activity WHERE store_id = 'nobody'",
        "INSERT INTO public.store_activity SELECT 'a', now(), 'active' WHERE false",
        "UPDATE public.store_business_hours SET day = 1 WHERE false",
        "DELETE FROM public.store_business_hours WHERE false",
        "INSERT INTO public.store_business_hours SELECT 'a', 1, '08:00', '09:00' WHERE false",
        "INSERT INTO public.store_business_hours VALUES ('hours only', 0, '09:00', '17:00') ON CONFLICT DO NOTHING",
        "INSERT INTO public.store_closures SELECT 'a', now(), now() WHERE false",
        "UPDATE public.store_closures SET reason = 'holiday' WHERE false",
        "DELETE FROM public.store_closures WHERE false",
        "UPDATE public.store_timezones SET timezone_str = 'Asia/Kolkata' WHERE false",
        "DELETE FROM public.store_timezones WHERE false",
        "INSERT INTO public.store_timezones VALUES ('howe', 'Asia/Kolkata') ON CONFLICT DO NOTHING",
        "INSERT INTO public.store_activity SELECT store_id, timestamp_utc, 'active' FROM public.store_activity ON CONFLICT DO NOTHING",
    ] {
        sleeps(&other).await;
        let transaction = client.transaction().await.unwrap();
        transaction.execute(sql, &[]).await.unwrap();
        let wrote = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL, (SELECT count(*) FROM uptally.invalidation
                     WHERE change_xid = pg_current_xact_id_if_assigned())";
        let row = transaction.query_one(wrote, &[]).await.unwrap();
        transaction.commit().await.unwrap();
        // To make a row that then conflicts, its default is computed, and that is the transaction's number.
        let may_write = sql.contains("INTO public.store_activity SELECT store_id");
        assert!(may_write || !row.get::<_, bool>(0), "{sql} wrote");
        assert_eq!(row.get::<_, i64>(1), 0, "{sql} invalidated");
        // Whether a row came is not asked for status rows: that would cost every statement more than a needless bell
        // costs the few that insert or update nothing while the follower sleeps.
        let may_ring =
            sql.starts_with("INSERT INTO public.store_activity") || sql.starts_with("UPDATE public.store_activity");
        let rang = rang(&bell).await;
        assert!(may_ring || !rang, "{sql} rang");
    }
    daemon.stop().await;
}
