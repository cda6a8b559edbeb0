//! Prepared transactions: they count once, when they are committed, whatever dies in between.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use uptally::clock::Clock;
use uptally::daemon::Settings;
use uptally::feed::doorbell::Wake;

use super::support::check::{reports_are_right, verify_is_clean};
use super::support::daemon::{Following, is_asleep};
use super::support::fixture::{NOW, fill};
use super::support::hunt::hunt;
use super::support::{TestDatabase, seed, within};
use super::{SETTINGS, count, quick};

const PATIENCE: Duration = Duration::from_secs(8);

async fn prepare(client: &Client, store: &str) -> Result<(), tokio_postgres::Error> {
    let sql = format!(
        "BEGIN; INSERT INTO public.store_activity VALUES ('{store}', '2023-11-08 11:00+00', 'inactive');
         DELETE FROM public.store_activity WHERE store_id = 'beirut' AND timestamp_utc > '2023-11-08';
         PREPARE TRANSACTION '{store}'"
    );
    client.batch_execute(&sql).await
}

#[tokio::test]
async fn a_prepared_transaction_counts_once_whatever_is_killed_before_its_commit() {
    let server = TestDatabase::start_alone(&SETTINGS).await;
    let (database, clock, client) = (server.database(), Clock::standing(NOW).0, server.connect().await);
    fill(&client, 3).await;
    let polling = Settings {
        wake: Wake::Poll,
        poll_interval: Duration::from_millis(50),
        ..quick()
    };
    let daemon = Following::start(&database, &clock, polling).await;
    let before = daemon.stores_seen();
    prepare(&client, "prepared").await.unwrap();
    client
        .batch_execute("INSERT INTO public.store_activity VALUES ('later', '2023-11-08 11:00+00', 'inactive')")
        .await
        .unwrap();
    within(PATIENCE, "the later one is seen", async || {
        daemon.stores_seen() == before + 1
    })
    .await;
    daemon.kill().await;
    let mut daemon = Following::start(&database, &clock, polling).await;
    server.crash().await;
    within(PATIENCE, "it follows again", async || daemon.handle.following().await).await;
    let client = server.connect().await;
    assert_eq!(daemon.stores_seen(), before + 1, "not yet");
    client.batch_execute("COMMIT PREPARED 'prepared'").await.unwrap();
    within(PATIENCE, "it is seen", async || daemon.stores_seen() == before + 2).await;
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.stop().await;
    verify_is_clean(&database, NOW).await;
}

#[tokio::test]
async fn prepare_is_refused_only_while_a_notifying_follower_sleeps() {
    let server = TestDatabase::start_alone(&SETTINGS).await;
    let (database, client) = (server.database(), server.connect().await);
    fill(&client, 3).await;
    let settings = Settings {
        poll_interval: Duration::from_hours(1),
        ..quick()
    };
    let daemon = Following::start(&database, &Clock::standing(NOW).0, settings).await;
    let before = daemon.stores_seen();
    within(PATIENCE, "the follower sleeps", async || is_asleep(&client).await).await;
    let refused = prepare(&client, "asleep").await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED), "{refused:?}");
    client.batch_execute("ROLLBACK").await.unwrap();

    // Awake, it is prepared, and keeps the follower from sleeping until it is committed.
    client
        .batch_execute("INSERT INTO public.store_activity VALUES ('awake', '2023-11-08 11:00+00', 'inactive')")
        .await
        .unwrap();
    within(PATIENCE, "it is awake", async || daemon.stores_seen() == before + 1).await;
    prepare(&client, "prepared").await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!is_asleep(&client).await);
    client.batch_execute("COMMIT PREPARED 'prepared'").await.unwrap();
    within(PATIENCE, "it is seen", async || daemon.stores_seen() == before + 2).await;
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.stop().await;
}

/// The hunt of `tests/doorbell.rs`, with prepared transactions, and with listening sessions that are ended in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost_when_the_listening_session_is_ended() {
    let server = TestDatabase::start_alone(&SETTINGS).await;
    let rounds_max = count(80);
    let hunt = hunt(&server, seed(), 25, |rounds| rounds < rounds_max).await;
    println!("{hunt:?}");
    assert!(hunt.ended > 0, "no session was ended");
}
