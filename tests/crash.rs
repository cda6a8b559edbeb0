//! Whatever dies, whenever: afterwards the rollup is what the raw rows say.
//!
//! `SEED` replays the writers and the moments of the kills as far as the machine's timing allows; `KILLS` says how many.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fastrand::Rng;
use support::check::{reports_are_right, same_report, verify_is_clean};
use support::daemon::{Following, is_flushed_to};
use support::fixture::{NOW, fill};
use support::raw::raw_stores;
use support::serve::Serve;
use support::writers::Writers;
use support::{TestDatabase, state_dir, wait_for_guard, within};
use tokio_postgres::Config;
use uptally::clock::Clock;
use uptally::cluster::{ClusterOptions, PrivateCluster, find_running};
use uptally::daemon::{DaemonError, Settings, Standby};
use uptally::feed::doorbell::{Doorbell, Wake};
use uptally::feed::{Reading, Scope};
use uptally::ledger::{Flush, FlushError, Ledger};
use uptally::oracle::report_csv;
use uptally::rollup::{FUTURE_MAX_US, Limits};
use uptally::time::HOUR_US;
use uptally::window::{ClosedTime, Windows};

const WRITERS: u64 = 16;
/// Writers of the same rows run into deadlocks; finding them should not take most of the test.
const SETTINGS: [(&str, &str); 1] = [("deadlock_timeout", "50ms")];

fn quick() -> Settings {
    Settings {
        flush_interval: Duration::from_millis(20),
        ..Settings::default()
    }
}

fn kills(default: u32) -> u32 {
    std::env::var("KILLS").map_or(default, |kills| kills.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_killed_under_concurrent_writers_drifts_by_nothing() {
    let server = TestDatabase::start_alone(&SETTINGS).await;
    let (database, client, state) = (server.database(), server.connect().await, state_dir());
    let (seed, end) = (support::seed(), Clock::System.now());
    let mut rng = Rng::with_seed(seed);
    let writers = Writers::start(&server.url().parse().unwrap(), WRITERS, seed, end);
    for kill in 1..=kills(8) {
        let mut serve = Serve::spawn(state.path(), Some(server.url()));
        // Now in the middle of its start, now while it follows.
        if kill % 2 == 0 {
            serve.wait_until_ready();
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(0..600))).await;
        serve.kill();
        let flushed = client
            .query_one("SELECT cursor::text, epoch FROM uptally.checkpoint", &[])
            .await
            .unwrap();
        let (cursor, epoch): (Option<&str>, i64) = (flushed.get(0), flushed.get(1));
        println!("kill {kill}: flushed to {cursor:?} by daemon {epoch}");
    }
    // While they still write: verify sees one point.
    verify_is_clean(&database, Clock::System.now()).await;
    let mut serve = Serve::spawn(state.path(), Some(server.url()));
    serve.wait_until_ready();
    let tally = writers.stop().await;
    assert!(tally.committed > 100, "hardly any writing: {tally:?}");

    let report = serve.report(end);
    let stores = raw_stores(&client, end.plus(FUTURE_MAX_US)).await;
    let expected = report_csv(&stores, end, Windows::Calendar, ClosedTime::Uptime);
    same_report(&report, &expected, "after the kills");
    serve.kill();
    let verdict = verify_is_clean(&database, Clock::System.now()).await;
    println!("{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_postgres_goes_with_its_killed_daemon_and_loses_nothing() {
    let state = state_dir();
    let seed = support::seed();
    let mut rng = Rng::with_seed(seed);
    let mut writers: Option<Writers> = None;
    for _ in 0..kills(2) {
        let mut serve = Serve::spawn(state.path(), None);
        serve.wait_until_ready();
        writers.get_or_insert_with(|| {
            let connection: Config = find_running(state.path()).unwrap().unwrap();
            Writers::start(&connection, WRITERS, seed, Clock::System.now())
        });
        tokio::time::sleep(Duration::from_millis(rng.u64(100..600))).await;
        serve.kill();
    }
    let tally = writers.unwrap().stop().await;
    assert!(tally.committed > 50, "hardly any writing: {tally:?}");
    wait_for_guard(state.path());
    no_process_names(state.path());

    let options = ClusterOptions {
        guard_program: Some(env!("CARGO_BIN_EXE_uptally").into()),
        ..ClusterOptions::new(state.path())
    };
    let cluster = PrivateCluster::start(options).await.unwrap();
    assert_eq!(cluster.report().took_over, None, "an orphan was left");
    verify_is_clean(&support::database(cluster.connection()), Clock::System.now()).await;
    cluster.stop().await.unwrap();
    no_process_names(state.path());
}

/// Every process of a private Postgres has its state directory among its arguments.
fn no_process_names(state_dir: &Path) {
    let list = Command::new("ps")
        .args(["-axww", "-o", "args="])
        .output()
        .unwrap()
        .stdout;
    let list = String::from_utf8_lossy(&list);
    let left: Vec<&str> = list
        .lines()
        .filter(|line| line.contains(state_dir.to_str().unwrap()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn rows_that_were_not_flushed_are_read_again() {
    let server = TestDatabase::start().await;
    let (database, client, clock) = (server.database(), server.connect().await, Clock::standing(NOW).0);
    fill(&client, 20).await;
    let never = Settings {
        flush_interval: Duration::from_hours(1),
        ..Settings::default()
    };
    let daemon = Following::start(&database, &clock, never).await;
    let newest = "SELECT max(change_xid::text::bigint)::text FROM public.store_activity";
    let first: String = client.query_one(newest, &[]).await.unwrap().get(0);
    within(Duration::from_secs(4), "the first flush is done", async || {
        is_flushed_to(&client, &first).await
    })
    .await;

    client
        .batch_execute(
            "INSERT INTO public.store_activity VALUES ('new', '2023-11-08 11:00+00', 'inactive');
             INSERT INTO public.store_activity VALUES ('howe', '2023-11-08 15:00+00', 'inactive');
             UPDATE public.store_activity SET status = 'inactive' WHERE store_id = 'chicago' AND timestamp_utc > '2023-11-08';
             DELETE FROM public.store_activity WHERE store_id = 'beirut' AND timestamp_utc > '2023-11-07';
             DELETE FROM public.store_business_hours WHERE store_id = 'kathmandu';
             INSERT INTO public.store_closures VALUES ('chicago', '2023-11-07', '2023-11-07 18:30');
             DELETE FROM public.store_timezones WHERE store_id = 'silent'",
        )
        .await
        .unwrap();
    let next: String = client.query_one(newest, &[]).await.unwrap().get(0);
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.kill().await;
    assert!(!is_flushed_to(&client, &next).await);

    let daemon = Following::start(&database, &clock, never).await;
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.stop().await;
    assert!(is_flushed_to(&client, &next).await, "an end in order flushes");
    verify_is_clean(&database, NOW).await;
}

/// After a TRUNCATE the next start builds everything anew; the tables of today, whose schedules have other numbers, are no drift.
#[tokio::test]
async fn verify_knows_when_the_next_start_will_rebuild() {
    let server = TestDatabase::start().await;
    let (database, client, clock) = (server.database(), server.connect().await, Clock::standing(NOW).0);
    fill(&client, 3).await;
    Following::start(&database, &clock, quick()).await.stop().await;
    client
        .batch_execute(
            "TRUNCATE public.store_timezones; DELETE FROM public.store_business_hours WHERE store_id = 'chicago';
             INSERT INTO public.store_business_hours VALUES ('beirut', 2, '10:00', '11:00')",
        )
        .await
        .unwrap();
    verify_is_clean(&database, NOW).await;
}

#[tokio::test]
async fn a_second_daemon_refuses_while_the_first_one_lives() {
    let server = TestDatabase::start().await;
    let (database, clock) = (server.database(), Clock::standing(NOW).0);
    let first = Following::start(&database, &clock, quick()).await;
    assert!(Doorbell::open(&database, Wake::Notify).await.unwrap().is_none());
    let impatient = Settings {
        standby: Standby::Refuse,
        lead_patience: Duration::from_millis(300),
        ..quick()
    };
    let second = Following::launch(&database, &clock, impatient);
    assert!(
        matches!(second.ended().await, Err(DaemonError::AnotherDaemon(leader)) if leader.contains("uptally doorbell, pid"))
    );

    // A patient one takes over as soon as the first has gone.
    let third = Following::launch(&database, &clock, quick());
    tokio::time::sleep(Duration::from_millis(150)).await;
    first.kill().await;
    within(Duration::from_secs(4), "the third follows", async || {
        third.handle.status().following.is_ok()
    })
    .await;
    third.stop().await;
}

/// As when a daemon was frozen for so long that another one took over.
#[tokio::test]
async fn a_fenced_daemon_cannot_write() {
    let server = TestDatabase::start().await;
    let (database, client, clock) = (server.database(), server.connect().await, Clock::standing(NOW).0);
    fill(&client, 3).await;
    let refuse = Settings {
        standby: Standby::Refuse,
        ..quick()
    };
    let fenced = Following::start(&database, &clock, refuse).await;
    let first: String = client
        .query_one("SELECT change_xid::text FROM public.store_activity LIMIT 1", &[])
        .await
        .unwrap()
        .get(0);
    within(Duration::from_secs(4), "the first flush is done", async || {
        is_flushed_to(&client, &first).await
    })
    .await;

    let mut old = Ledger::open(&database).await.unwrap();
    let mut successor = Ledger::open(&database).await.unwrap();
    let tables =
        "SELECT (SELECT cursor::text FROM uptally.checkpoint), (SELECT sum(down_us)::text FROM uptally.rollup_down),
                         (SELECT string_agg(s::text, ' ' ORDER BY s) FROM uptally.rollup_store s)";
    let contents = async || {
        let row = client.query_one(tables, &[]).await.unwrap();
        [0, 1, 2].map(|column| row.get::<_, Option<String>>(column))
    };
    let before = contents().await;
    client
        .batch_execute("INSERT INTO public.store_activity VALUES ('new', '2023-11-08 11:00+00', 'inactive')")
        .await
        .unwrap();
    assert!(matches!(fenced.ended().await, Err(DaemonError::Fenced)));
    assert_eq!(contents().await, before);

    // The same at the ledger: all of a flush is refused, and the successor's is not.
    let mut session = database.connect("test").await.unwrap();
    let reading = Reading::start(&mut session, Scope::Inputs).await.unwrap();
    let mut rollup = reading.rebuild(Limits::default(), NOW, 1_000, || ()).await.unwrap();
    let flush = Flush {
        dirty: rollup.take_dirty(),
        replace: Some(reading.wiring().await.unwrap().marks().to_vec()),
        cursor: reading.finish(),
        drop_before: None,
        audit: None,
    };
    assert!(matches!(old.flush(&flush).await, Err(FlushError::Fenced)));
    assert_eq!(contents().await, before);
    successor.flush(&flush).await.unwrap();
    verify_is_clean(&database, NOW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_outlives_a_crash_of_postgres_and_the_loss_of_its_sessions() {
    let server = TestDatabase::start_alone(&SETTINGS).await;
    let (database, seed, end) = (server.database(), support::seed(), Clock::System.now());
    let mut rng = Rng::with_seed(seed);
    let mut daemon = Following::start(&database, &Clock::System, quick()).await;
    let writers = Writers::start(&server.url().parse().unwrap(), WRITERS, seed, end);
    let follows_again = async |daemon: &mut Following| {
        let follows = tokio::time::timeout(Duration::from_secs(4), daemon.handle.following()).await;
        assert!(follows.expect("it follows again within 4 s"), "the daemon gave up");
    };
    tokio::time::sleep(Duration::from_millis(rng.u64(100..500))).await;
    server.crash().await;
    follows_again(&mut daemon).await;
    let client = server.connect().await;
    // The session that listens, the one that writes, and all at once.
    for name in ["uptally doorbell", "uptally ledger", "uptally%"] {
        // Long enough to count as steady, which makes the next pause the shortest.
        tokio::time::sleep(Duration::from_millis(rng.u64(1050..1200))).await;
        let terminate = "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                         WHERE application_name LIKE $1) AS terminated";
        within(Duration::from_secs(4), name, async || {
            let ended: i64 = client.query_one(terminate, &[&name]).await.unwrap().get(0);
            ended > 0
        })
        .await;
        // It takes a moment to notice.
        tokio::time::sleep(Duration::from_millis(50)).await;
        follows_again(&mut daemon).await;
    }
    writers.stop().await;
    reports_are_right(&daemon.handle, &client, Clock::System.now(), end.plus(-HOUR_US)).await;
    daemon.stop().await;
    verify_is_clean(&database, Clock::System.now()).await;
}
