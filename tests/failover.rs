//! Another server under the same name: promoted, restored, copied.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use support::check::{reports_are_right, verify_is_clean};
use support::daemon::Following;
use support::fixture::{NOW, fill};
use support::replica::{ARCHIVES, base_backup, copy_files, dump_and_restore, either_url, fail_over, recover_to};
use support::serve::Serve;
use support::{TestDatabase, postmaster, state_dir, within};
use tokio_postgres::Client;
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

/// Reports of which the row, the end, or both did not come over: all end, though nobody asks for another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature failpoints")]
async fn reports_that_a_failover_interrupts_end() {
    let first = TestDatabase::start_alone(&[]).await;
    fill(&first.connect().await, 3).await;
    let mut second = base_backup(&first, true).await;
    let (state, url) = (state_dir(), either_url(&first, &second));
    // One after the other, each with a pause between its row and its file.
    let slow = [("UPTALLY_FAILPOINTS", "report.rendered=sleep:3000")];
    let mut serve = Serve::spawn_with(state.path(), Some(&url), &slow);
    serve.wait_until_ready();
    let trigger = |serve: &mut Serve, as_of: &str| {
        let (status, body) = serve.request("POST", &format!("/trigger_report?as_of={as_of}"));
        assert_eq!(status, 202, "{body}");
        body.split('"').nth(3).unwrap().to_owned()
    };
    let states = async |client: &Client| -> Vec<(String, String)> {
        let rows = client
            .query("SELECT report_id::text, state FROM public.reports", &[])
            .await;
        rows.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let is = |states: &[(String, String)], id: &String, state: &str| states.contains(&(id.clone(), state.to_owned()));
    let (client, replica) = (first.connect().await, second.connect().await);
    // Neither can end before its row has come over: each row is held as soon as it is there.
    let hold = "SELECT FROM public.reports FOR UPDATE";
    client.batch_execute("BEGIN").await.unwrap();
    let ended = trigger(&mut serve, "2023-11-08T12:00:00Z");
    client.batch_execute(hold).await.unwrap();
    let waiting = trigger(&mut serve, "2023-11-07T12:00:00Z");
    client.batch_execute(hold).await.unwrap();
    within(PATIENCE, "their rows have come over", async || {
        let found = states(&replica).await;
        is(&found, &ended, "running") && is(&found, &waiting, "running")
    })
    .await;
    second.down();
    client.batch_execute("COMMIT").await.unwrap();
    let lost = trigger(&mut serve, "2023-11-06T12:00:00Z");
    within(PATIENCE, "the first has ended", async || {
        is(&states(&client).await, &ended, "complete")
    })
    .await;
    kill_process(postmaster(first.server_dir()), Signal::KILL).unwrap();
    drop(first);
    second.up();
    let client = second.connect().await;
    assert!(is(&states(&client).await, &ended, "running"), "its end came over");
    client.batch_execute("SELECT pg_promote()").await.unwrap();
    serve.wait_until_ready_within(Duration::from_secs(20));
    let both = [
        (ended.clone(), "complete".to_owned()),
        (waiting.clone(), "complete".to_owned()),
    ];
    within(PATIENCE, "both rows say how they ended", async || {
        let mut found = states(&client).await;
        found.sort_by_key(|(id, _)| *id != ended);
        found == both
    })
    .await;
    let status = |serve: &mut Serve, id: &str| serve.request("GET", &format!("/get_report?report_id={id}")).0;
    within(PATIENCE, "the lost one is complete", async || {
        status(&mut serve, &lost) == 200
    })
    .await;
    serve.kill();
    let mut serve = Serve::spawn(state.path(), Some(&url));
    serve.wait_until_ready();
    let found = [&ended, &waiting, &lost].map(|id| status(&mut serve, id));
    assert_eq!(
        found,
        [200, 200, 404],
        "who knows it only from the lost rows does not know it"
    );
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

/// Recovery to a point in time, by name and by transaction: the log of a server is replayed up to a moment that the daemon's
/// cursor was past. What came later is no more, and its transactions' numbers are used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_to_a_point_in_time_goes_on_from_there() {
    let server = TestDatabase::start_alone(&ARCHIVES).await;
    let (client, clock) = (server.connect().await, Clock::standing(NOW).0);
    fill(&client, 10).await;
    let daemon = Following::start(&server.database(), &clock, quick()).await;
    let copies = [copy_files(&server, false).await, copy_files(&server, false).await];
    client
        .batch_execute("DELETE FROM public.store_activity WHERE store_id = 'beirut' AND timestamp_utc > '2023-11-06'")
        .await
        .unwrap();
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    client
        .batch_execute("SELECT pg_create_restore_point('before')")
        .await
        .unwrap();
    let sql = "INSERT INTO public.store_activity VALUES ('kept', '2023-11-08 11:00+00', 'inactive')
               RETURNING change_xid::text";
    let xid: String = client.query_one(sql, &[]).await.unwrap().get(0);
    // The phantoms: followed, flushed, and gone with the recovery.
    client
        .batch_execute(
            "INSERT INTO public.store_activity VALUES ('phantom', '2023-11-08 11:00+00', 'inactive');
             UPDATE public.store_activity SET status = 'inactive' WHERE store_id = 'chicago'",
        )
        .await
        .unwrap();
    burn(&client, 200).await;
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.stop().await;
    let sql = "SELECT cursor::text FROM uptally.checkpoint";
    let later: String = client.query_one(sql, &[]).await.unwrap().get(0);
    let sql = "SELECT pg_walfile_name(pg_switch_wal())";
    let last: String = client.query_one(sql, &[]).await.unwrap().get(0);
    within(PATIENCE, "the log is archived", async || {
        let sql = "SELECT coalesce(last_archived_wal >= $1, false) FROM pg_stat_archiver";
        client.query_one(sql, &[&last]).await.unwrap().get(0)
    })
    .await;
    let targets = [
        ("recovery_target_name", "before"),
        ("recovery_target_xid", xid.as_str()),
    ];
    for ((copy, target), kept) in copies.into_iter().zip(targets).zip([0, 1]) {
        let recovered = recover_to(copy, &server, target).await;
        let client = recovered.connect().await;
        let sql = "SELECT count(*) FILTER (WHERE store_id = 'kept'), count(*) FILTER (WHERE store_id = 'phantom')
                   FROM public.store_activity";
        let row = client.query_one(sql, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (kept, 0), "{target:?}");
        let daemon = Following::start(&recovered.database(), &clock, quick()).await;
        reports_are_right(&daemon.handle, &client, NOW, NOW).await;
        let rows = "INSERT INTO public.store_activity VALUES ($1, '2023-11-08 11:00+00', 'inactive')";
        client.execute(rows, &[&"new"]).await.unwrap();
        reports_are_right(&daemon.handle, &client, NOW, NOW).await;
        daemon.stop().await;
        verify_is_clean(&recovered.database(), NOW).await;
        // Somebody puts the ledger of later back: its cursor says that transactions were seen that are still to come.
        let sql = "UPDATE uptally.checkpoint SET cursor = $1::text::pg_snapshot";
        client.execute(sql, &[&later]).await.unwrap();
        client.execute(rows, &[&"newer"]).await.unwrap();
        let daemon = Following::start(&recovered.database(), &clock, quick()).await;
        client.execute(rows, &[&"newest"]).await.unwrap();
        reports_are_right(&daemon.handle, &client, NOW, NOW).await;
        daemon.stop().await;
        verify_is_clean(&recovered.database(), NOW).await;
    }
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
