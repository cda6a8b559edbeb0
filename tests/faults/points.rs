//! Killed, and failing, at every step of the work: the fail points of `src/failpoint.rs`.
//!
//! A point that is never reached fails the test: it would prove nothing.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;
use uptally::clock::Clock;
use uptally::failpoint::POINTS;
use uptally::ledger::ask_for_rebuild;
use uptally::time::DAY_US;

use super::support::check::{no_drift, verify_is_clean};
use super::support::reporter::Reporter;
use super::support::serve::Serve;
use super::support::writers::Writers;
use super::support::{TestDatabase, seed, state_dir, within};
use super::{SETTINGS, count, first_life, url};

const WRITERS: u64 = 4;
/// A point is reached within this time.
const REACHED_MAX: Duration = Duration::from_secs(15);

/// Kills the daemon at each point whose name begins so, `COUNT` times each.
async fn killed_at(group: &str) {
    let server = TestDatabase::start_alone(&SETTINGS).await;
    let (seed, end, state) = (seed(), Clock::System.now(), state_dir());
    let (mut rng, url) = (Rng::with_seed(seed), url(server.connection()));
    first_life(&server, state.path(), end).await;
    let mut writers = Some(Writers::start_wild(server.connection(), WRITERS, seed, end));
    for point in POINTS.into_iter().filter(|point| point.starts_with(group)) {
        for _ in 0..count(1) {
            // Once in a life, or, on a slow disk, twice a minute; the others come again and again.
            let once = ["start.", "stop.", "flush."]
                .iter()
                .any(|group| point.starts_with(group));
            let plan = format!("{point}=kill@{}", if once { 1 } else { rng.u8(1..4) });
            if point == "sleep.granted" {
                // Under steady writers nobody falls asleep.
                writers.take().unwrap().stop().await;
            }
            let mut serve = Serve::spawn_with(state.path(), Some(&url), &[("UPTALLY_FAILPOINTS", &plan)]);
            // At its start it may be dead before it has said where it listens.
            let reporter = (!point.starts_with("start.")).then(|| Reporter::start(serve.address()));
            if point.starts_with("stop.") {
                serve.wait_until_ready();
                serve.signal(Signal::TERM);
            }
            let began = Instant::now();
            let status = loop {
                if let Some(status) = serve.ended() {
                    break status;
                }
                assert!(
                    began.elapsed() < REACHED_MAX,
                    "{plan} was never reached:\n{}",
                    serve.log().join("\n")
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            assert_eq!(status.signal(), Some(9), "{plan}: {status}");
            if let Some(reporter) = reporter {
                reporter.stop().await;
            }
            verify_is_clean(&server.database(), end).await;
            println!("{plan}: reached after {:?}", began.elapsed());
            writers.get_or_insert_with(|| Writers::start_wild(server.connection(), WRITERS, seed, end));
        }
    }
    writers.take().unwrap().stop().await;
    let mut serve = Serve::spawn(state.path(), Some(&url));
    no_drift(server.connection(), &mut serve, end).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_starting_sleeping_and_stopping() {
    for group in ["start.", "sleep.", "stop."] {
        killed_at(group).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_reading() {
    killed_at("read.").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_a_flush() {
    killed_at("flush.").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_a_report() {
    killed_at("report.").await;
}

#[test]
fn every_fail_point_is_in_one_of_the_groups() {
    let groups = ["start.", "sleep.", "stop.", "read.", "flush.", "report."];
    let lost = POINTS
        .iter()
        .find(|point| !groups.iter().any(|group| point.starts_with(group)));
    assert_eq!(lost, None);
}

/// A step that fails ends the session, and the next one begins at the checkpoint.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_fail_are_taken_again() {
    let server = TestDatabase::start_alone(&SETTINGS).await;
    let (seed, end, state) = (seed(), Clock::System.now(), state_dir());
    let mut rng = Rng::with_seed(seed);
    // Where nothing can fail, an error is a panic.
    let cannot_fail = ["report.recorded", "report.announced", "report.ended", "stop.last_flush"];
    let mut points: Vec<&str> = POINTS
        .into_iter()
        .filter(|point| !cannot_fail.contains(point))
        .collect();
    rng.shuffle(&mut points);
    // Each failure makes the pause before the next life longer, so not all of them in one run.
    let plan: Vec<String> = points
        .iter()
        .take(5)
        .map(|point| {
            let once = point.starts_with("start.") || point.starts_with("flush.");
            format!("{point}=error@{}", if once { 1 } else { rng.u8(1..6) })
        })
        .collect();
    let plan = plan.join(",");
    println!("{plan}");
    let writers = Writers::start_wild(server.connection(), WRITERS, seed, end);
    let url = url(server.connection());
    let mut serve = Serve::spawn_with(state.path(), Some(&url), &[("UPTALLY_FAILPOINTS", &plan)]);
    let reporter = Reporter::start(serve.address());
    tokio::time::sleep(Duration::from_millis(2500)).await;
    reporter.stop().await;
    writers.stop().await;
    no_drift(server.connection(), &mut serve, end).await;
    // Not every new life is told: the log keeps to a line a second. The figure counts them all.
    let figures = serve.request("GET", "/metrics").1;
    let restarts = figures
        .lines()
        .find_map(|line| line.strip_prefix("uptally_feed_restarts_total "));
    let restarts: usize = restarts.map_or(0, |count| count.parse().unwrap());
    let log = serve.log();
    let reports = log.iter().filter(|line| line.contains("fail point report.")).count();
    println!("{restarts} new lives, {reports} failures of reports told");
    assert!(restarts + reports >= 2, "hardly any failures:\n{}", log.join("\n"));
}

/// After a rebuild the tables are written anew, all in one transaction that may take long: what is read meanwhile is what was
/// there before, and nobody waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_go_on_while_the_tables_are_replaced() {
    let server = TestDatabase::start_alone(&SETTINGS).await;
    let (seed, end, state) = (seed(), Clock::System.now(), state_dir());
    first_life(&server, state.path(), end).await;
    let writers = Writers::start_wild(server.connection(), WRITERS, seed, end);
    tokio::time::sleep(Duration::from_millis(500)).await;
    writers.stop().await;
    let (client, url) = (server.connect().await, url(server.connection()));
    // Everything is flushed, so that the only flush that can stand is the one after the rebuild.
    let mut serve = Serve::spawn(state.path(), Some(&url));
    serve.wait_until_ready();
    serve.signal(Signal::TERM);
    assert_eq!(serve.exit_code(Duration::from_secs(10)), Some(0));
    let stalled = [("UPTALLY_FAILPOINTS", "flush.rows_written=sleep:12000")];
    let mut serve = Serve::spawn_with(state.path(), Some(&url), &stalled);
    serve.wait_until_ready();
    ask_for_rebuild(&client).await.unwrap();
    let flush = async || -> Option<String> {
        // Between two statements it rests for less.
        let sql = "SELECT xact_start::text FROM pg_stat_activity WHERE application_name = 'uptally ledger'
                   AND state = 'idle in transaction' AND clock_timestamp() - state_change > interval '300 ms'";
        client.query_opt(sql, &[]).await.unwrap().map(|row| row.get(0))
    };
    let mut begun = None;
    within(REACHED_MAX, "the flush stands", async || {
        begun = flush().await;
        begun.is_some()
    })
    .await;
    let (from, to) = (
        end.plus(-3 * DAY_US).to_chrono().date_naive(),
        end.to_chrono().date_naive(),
    );
    for query in [
        format!("from={from}&to={to}"),
        "columns=extended".to_owned(),
        "windows=rolling".to_owned(),
    ] {
        serve.try_report_by(&query).unwrap();
        assert_eq!(flush().await, begun, "{query}: the flush still stands");
    }
    serve.signal(Signal::KILL);
    drop(serve);
    let mut serve = Serve::spawn(state.path(), Some(&url));
    no_drift(server.connection(), &mut serve, end).await;
}
