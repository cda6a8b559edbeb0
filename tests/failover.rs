//! Another server under the same name: promoted, restored, copied.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::{Duration, Instant};

use support::check::{reports_are_right, verify_is_clean};
use support::daemon::Following;
use support::fixture::{NOW, fill};
use support::replica::{base_backup, dump_and_restore, fail_over};
use support::{TestDatabase, within};
use uptally::clock::Clock;
use uptally::daemon::Settings;
use uptally::report::Source;

const PATIENCE: Duration = Duration::from_secs(9);

fn quick() -> Settings {
    Settings {
        flush_interval: Duration::from_millis(20),
        ..Settings::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_server_is_followed_and_rows_that_it_lost_are_gone() {
    fail_over(support::seed(), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_failover_loses_nothing() {
    fail_over(support::seed(), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_recovery_is_refused_until_it_is_promoted() {
    let primary = TestDatabase::start_alone(&[]).await;
    fill(&primary.connect().await, 3).await;
    let replica = base_backup(&primary, true).await;
    let clock = Clock::standing(NOW).0;
    let daemon = Following::launch(&replica.database(), &clock, quick());
    within(PATIENCE, "it is refused", async || {
        daemon
            .handle
            .readiness()
            .is_err_and(|told| told.contains("the database is in recovery"))
    })
    .await;
    let client = replica.connect().await;
    client.batch_execute("SELECT pg_promote()").await.unwrap();
    let began = Instant::now();
    within(PATIENCE, "it follows", async || daemon.handle.readiness().is_ok()).await;
    println!("followed {:?} after the promotion", began.elapsed());
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.stop().await;
    verify_is_clean(&replica.database(), NOW).await;
}

/// The backup is of a moment at which the tables of the rollup were behind, and has its own history since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_goes_on_from_what_it_has() {
    let server = TestDatabase::start_alone(&[]).await;
    let (client, clock) = (server.connect().await, Clock::standing(NOW).0);
    fill(&client, 10).await;
    let daemon = Following::start(&server.database(), &clock, quick()).await;
    let restored = base_backup(&server, false).await;
    client
        .batch_execute("DELETE FROM public.store_activity WHERE timestamp_utc > '2023-11-06'")
        .await
        .unwrap();
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.stop().await;
    let client = restored.connect().await;
    client
        .batch_execute("INSERT INTO public.store_activity VALUES ('howe', '2023-11-08 12:00+00', 'inactive')")
        .await
        .unwrap();
    let daemon = Following::start(&restored.database(), &clock, quick()).await;
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.stop().await;
    verify_is_clean(&restored.database(), NOW).await;
}

/// A dump brings its checkpoint along, and rows with the stamps of transactions that mean something else here: in a
/// new cluster the numbers are smaller, in a busy one larger; a second database of the same cluster has the same identity
/// but for its own number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_in_another_database_is_built_anew_and_its_new_rows_count() {
    let source = TestDatabase::start_alone(&[]).await;
    let (client, clock) = (source.connect().await, Clock::standing(NOW).0);
    fill(&client, 10).await;
    burn(&client, 500).await;
    Following::start(&source.database(), &clock, quick()).await.stop().await;
    let fresh = TestDatabase::start_empty_alone();
    let busy = TestDatabase::start_empty_alone();
    burn(&busy.connect().await, 2_000).await;
    let second = source.another("second").await;
    for target in [fresh, busy, second] {
        dump_and_restore(&source, &target).await;
        let daemon = Following::start(&target.database(), &clock, quick()).await;
        let client = target.connect().await;
        reports_are_right(&daemon.handle, &client, NOW, NOW).await;
        client
            .batch_execute(
                "INSERT INTO public.store_activity VALUES ('howe', '2023-11-08 12:00+00', 'inactive'),
                     ('new', '2023-11-08 11:00+00', 'inactive');
                 DELETE FROM public.store_activity WHERE store_id = 'beirut'",
            )
            .await
            .unwrap();
        reports_are_right(&daemon.handle, &client, NOW, NOW).await;
        daemon.stop().await;
        verify_is_clean(&target.database(), NOW).await;
    }
}

/// Uses up numbers of transactions.
async fn burn(client: &tokio_postgres::Client, count: u32) {
    let sql = format!("DO $$ BEGIN FOR n IN 1..{count} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$");
    client.batch_execute(&sql).await.unwrap();
}
