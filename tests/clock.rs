//! A machine whose clock jumps: what is in the rollup stays, and reports are of the database's time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::check::{reports_are_right, verify_is_clean};
use support::daemon::Following;
use support::fixture::{NOW, fill};
use support::{TestDatabase, within};
use tokio_postgres::Client;
use uptally::clock::Clock;
use uptally::daemon::Settings;
use uptally::report::{Archive, Limits, Registry, ReportRequest, Source};
use uptally::time::{HOUR_US, MINUTE_US, SECOND_US, Timestamp};
use uptally::window::{ClosedTime, Windows};

fn quick() -> Settings {
    Settings {
        flush_interval: Duration::from_millis(20),
        check_interval: Duration::from_millis(100),
        ..Settings::default()
    }
}

async fn cells(client: &Client) -> String {
    let sql = "SELECT string_agg(d::text, ' ' ORDER BY d.store_no, d.cell_start) FROM uptally.rollup_down d
               WHERE d.cell_start < '2023-11-08 10:00+00'";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_changes_no_bucket() {
    let server = TestDatabase::start().await;
    let (database, client) = (server.database(), server.connect().await);
    let (clock, hand) = Clock::standing(NOW);
    fill(&client, 10).await;
    // Held until half an hour from now: it counts from an hour before its time.
    client
        .batch_execute("INSERT INTO public.store_activity VALUES ('howe', '2023-11-08 13:47+00', 'inactive')")
        .await
        .unwrap();
    let daemon = Following::start(&database, &clock, quick()).await;
    let as_of = NOW.plus(-5 * MINUTE_US);
    let request = ReportRequest {
        windows: Windows::Rolling,
        closed: ClosedTime::Excluded,
        ..ReportRequest::default()
    };
    let report = async || daemon.handle.render(Some(as_of), request).await.unwrap().csv;
    let (before, mut seen) = (report().await, NOW);
    within(Duration::from_secs(5), "the first flush is done", async || {
        client
            .query_one("SELECT count(*) > 0 FROM uptally.rollup_down", &[])
            .await
            .unwrap()
            .get(0)
    })
    .await;
    let past = cells(&client).await;
    for now in [NOW.plus(-HOUR_US), NOW.plus(HOUR_US), NOW.plus(-HOUR_US), NOW] {
        hand.set(now);
        seen = seen.max(now);
        // Something to read and to flush, of a store that the report has, in a cell of its own.
        client
            .batch_execute("UPDATE public.store_activity SET status = status WHERE store_id = 'chicago'")
            .await
            .unwrap();
        assert_eq!(report().await, before, "with a clock at {now}");
        reports_are_right(&daemon.handle, &client, seen, as_of).await;
        // Built anew under a clock that was put back, all the same.
        client
            .batch_execute("VACUUM FULL public.store_timezones")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(report().await, before, "rebuilt with a clock at {now}");
        reports_are_right(&daemon.handle, &client, seen, as_of).await;
    }
    daemon.stop().await;
    assert_eq!(cells(&client).await, past);
    verify_is_clean(&database, seen).await;
}

/// Years ahead for a moment, the clock lets in a row that a poller dated so: the whole fleet's newest is then decades away,
/// and every cell is dropped for its age. Once the clock is right again, so is everything, with a restart in between or
/// without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_ran_ahead_for_a_moment_leaves_nothing_behind() {
    const FAR: Timestamp = Timestamp::from_micros(3_800_000_000_000_000);
    let server = TestDatabase::start().await;
    let (database, client) = (server.database(), server.connect().await);
    fill(&client, 10).await;
    let sql = "INSERT INTO public.store_activity VALUES ('stray', $1, 'inactive')";
    client.execute(sql, &[&FAR]).await.unwrap();
    let newest_in_tables = async || -> Option<Timestamp> {
        let sql = "SELECT newest FROM uptally.checkpoint";
        client.query_one(sql, &[]).await.unwrap().get(0)
    };
    for restarts in [false, true] {
        let (clock, hand) = Clock::standing(NOW);
        let mut daemon = Following::start(&database, &clock, quick()).await;
        hand.set(FAR);
        within(Duration::from_secs(5), "it is led astray", async || {
            daemon.handle.status().newest == Some(FAR) && newest_in_tables().await == Some(FAR)
        })
        .await;
        let lost = daemon.handle.render(Some(NOW), ReportRequest::default()).await;
        assert!(lost.is_err(), "nothing was led astray");
        if restarts {
            daemon.kill().await;
            hand.set(NOW);
            daemon = Following::start(&database, &clock, quick()).await;
        }
        hand.set(NOW);
        within(Duration::from_secs(5), "it is back", async || {
            daemon.handle.status().newest < Some(NOW) && newest_in_tables().await < Some(NOW)
        })
        .await;
        reports_are_right(&daemon.handle, &client, NOW, NOW).await;
        daemon.stop().await;
        verify_is_clean(&database, NOW).await;
    }
}

/// The clock has let in a row that was held, and before it could be read the daemon is told to stop: the tables must not say
/// that there is nothing to wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_due_outlives_a_stop_before_it_is_read() {
    let server = TestDatabase::start().await;
    let (database, client, locker) = (server.database(), server.connect().await, server.connect().await);
    let (clock, hand) = Clock::standing(NOW);
    fill(&client, 3).await;
    client
        .batch_execute("INSERT INTO public.store_activity VALUES ('howe', '2023-11-08 15:00+00', 'inactive')")
        .await
        .unwrap();
    let seldom = Settings {
        flush_interval: Duration::from_hours(1),
        ..Settings::default()
    };
    let daemon = Following::start(&database, &clock, seldom).await;
    within(Duration::from_secs(5), "the first flush is done", async || {
        let sql = "SELECT newest IS NOT NULL FROM uptally.checkpoint";
        client.query_one(sql, &[]).await.unwrap().get(0)
    })
    .await;
    // Something of the same store to be flushed last.
    client
        .batch_execute("INSERT INTO public.store_activity VALUES ('howe', '2023-11-08 12:10+00', 'active')")
        .await
        .unwrap();
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    locker
        .batch_execute("BEGIN; LOCK TABLE public.store_activity IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let later = NOW.plus(3 * HOUR_US);
    hand.set(later);
    within(Duration::from_secs(5), "the follower waits for the table", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'uptally follower'
                   AND datname = current_database() AND wait_event_type = 'Lock'";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    daemon.stop().await;
    locker.batch_execute("COMMIT").await.unwrap();
    verify_is_clean(&database, later).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_are_of_the_databases_time() {
    let server = TestDatabase::start().await;
    let (database, client) = (server.database(), server.connect().await);
    for skew_us in [-HOUR_US, HOUR_US] {
        let (clock, _hand) = Clock::standing(Clock::System.now().plus(skew_us));
        let daemon = Following::start(&database, &clock, quick()).await;
        let files = tempfile::tempdir().unwrap();
        let archive = Archive::open(files.path().to_str().unwrap()).unwrap();
        let source = Arc::new(daemon.handle.clone());
        let registry = Registry::new(source, archive, server.connector(), Limits::default());
        let triggered = registry.trigger(ReportRequest::default()).await.unwrap();
        let now: Timestamp = client.query_one("SELECT clock_timestamp()", &[]).await.unwrap().get(0);
        let ago_us = now.since(triggered.as_of.unwrap());
        assert!(
            (0..10 * SECOND_US).contains(&ago_us),
            "{ago_us} us with a skew of {skew_us}"
        );
        within(Duration::from_secs(5), "the report is complete", async || {
            client
                .query_one("SELECT bool_and(state = 'complete') FROM public.reports", &[])
                .await
                .unwrap()
                .get(0)
        })
        .await;
        daemon.stop().await;
    }
}
