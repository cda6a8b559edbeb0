//! Notifications that do not come: the daemon looks for rows by itself, says so, and listens again when it can.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::Duration;

use support::check::{reports_are_right, verify_is_clean};
use support::daemon::{Following, is_asleep};
use support::fixture::{NOW, fill};
use support::proxy::{Proxy, Weather};
use support::serve::Serve;
use support::{TestDatabase, database, state_dir, within};
use tokio_postgres::Client;
use uptally::clock::Clock;
use uptally::daemon::Settings;

const PATIENCE: Duration = Duration::from_secs(8);

fn quick() -> Settings {
    Settings {
        poll_interval: Duration::from_millis(200),
        check_interval: Duration::from_millis(500),
        flush_interval: Duration::from_millis(20),
        ..Settings::default()
    }
}

/// It never waits for a bell, and rows of a new store are found all the same.
async fn polls(daemon: &Following, client: &Client, store: &str) {
    for _ in 0..300 {
        assert!(!is_asleep(client).await, "it waits for a bell that it cannot hear");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let before = daemon.stores_seen();
    let insert = format!("INSERT INTO public.store_activity VALUES ('{store}', '2023-11-08 11:00+00', 'inactive')");
    client.batch_execute(&insert).await.unwrap();
    within(PATIENCE, "it is found by polling", async || {
        daemon.stores_seen() > before
    })
    .await;
    reports_are_right(&daemon.handle, client, NOW, NOW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_notifications_it_polls_until_they_come_again() {
    let server = TestDatabase::start().await;
    let (client, clock) = (server.connect().await, Clock::standing(NOW).0);
    fill(&client, 3).await;
    let proxy = Proxy::start(server.connection()).await;
    proxy.set(Weather::Deaf);
    let daemon = Following::start(&database(&proxy.connection()), &clock, quick()).await;
    polls(&daemon, &client, "new").await;
    proxy.set(Weather::Clear);
    within(PATIENCE, "it sleeps", async || is_asleep(&client).await).await;
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.stop().await;
    verify_is_clean(&server.database(), NOW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature failpoints")]
async fn a_listen_that_fails_makes_it_poll() {
    let (server, state) = (TestDatabase::start().await, state_dir());
    let plan = [("UPTALLY_FAILPOINTS", "start.listening=error")];
    let mut serve = Serve::spawn_with(state.path(), Some(server.url()), &plan);
    serve.wait_until_ready();
    let figures = serve.request("GET", "/metrics").1;
    assert!(figures.contains("\nuptally_feed_polls_only 1\n"), "{figures}");
    let log = serve.log().join("\n");
    assert!(
        log.contains("fail point start.listening") && log.contains("found by polling alone"),
        "{log}"
    );
}

/// Somebody in another database listens, and then does nothing but keep his transaction open: the queue, which is one for
/// the whole server, cannot be cleared. When it is full every NOTIFY fails, and with it the statement of the writer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_fills_up_is_left_alone() {
    const PAGES: i32 = 1000;
    let server = TestDatabase::start_alone(&[]).await;
    let (client, clock) = (server.connect().await, Clock::standing(NOW).0);
    fill(&client, 3).await;
    let settings = Settings {
        // Half of what the test fills: a thousand of a million pages.
        queue_usage_max: 0.0005,
        ..quick()
    };
    let daemon = Following::start(&server.database(), &clock, settings).await;
    within(PATIENCE, "it sleeps", async || is_asleep(&client).await).await;
    let [stuck, loud] = [server.connect_to("postgres").await, server.connect_to("postgres").await];
    stuck.batch_execute("LISTEN news").await.unwrap();
    stuck.batch_execute("BEGIN; SELECT 1").await.unwrap();
    loud.execute(
        "SELECT pg_notify('news', repeat('x', 7900) || n) FROM generate_series(1, $1) n",
        &[&PAGES],
    )
    .await
    .unwrap();
    let usage = async || -> f64 {
        let sql = "SELECT pg_notification_queue_usage()";
        client.query_one(sql, &[]).await.unwrap().get(0)
    };
    println!("the queue is {:.3} % full", usage().await * 100.0);
    assert!(usage().await > settings.queue_usage_max);
    tokio::time::sleep(2 * settings.check_interval).await;
    within(PATIENCE, "it is awake", async || !is_asleep(&client).await).await;
    polls(&daemon, &client, "new").await;
    stuck.batch_execute("COMMIT").await.unwrap();
    within(PATIENCE, "it sleeps again", async || is_asleep(&client).await).await;
    assert!(usage().await < settings.queue_usage_max);
    daemon.stop().await;
    verify_is_clean(&server.database(), NOW).await;
}
