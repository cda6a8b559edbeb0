//! Processes and sessions that are killed under load.

use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use uptally::clock::Clock;

use super::support::check::{no_drift, verify_is_clean};
use super::support::reporter::Reporter;
use super::support::resources::Resources;
use super::support::serve::Serve;
use super::support::writers::Writers;
use super::support::{TestDatabase, seed, state_dir};
use super::{SETTINGS, count, first_life, url};

const WRITERS: u64 = 8;
/// For a machine that has other things to do as well; the aim is 5 s, and `make chaos-figures` prints what it takes.
const READY_MAX: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_killed_while_it_makes_reports_drifts_by_nothing() {
    let server = TestDatabase::start_alone(&SETTINGS).await;
    let (seed, end, state) = (seed(), Clock::System.now(), state_dir());
    let (mut rng, url) = (Rng::with_seed(seed), url(server.connection()));
    first_life(&server, state.path(), end).await;
    let writers = Writers::start_wild(server.connection(), WRITERS, seed, end);
    let mut fetched = 0;
    for _ in 0..count(3) {
        let mut serve = Serve::spawn(state.path(), Some(&url));
        serve.wait_until_ready();
        let reporter = Reporter::start(serve.address());
        tokio::time::sleep(Duration::from_millis(rng.u64(0..500))).await;
        serve.kill();
        fetched += reporter.stop().await;
        verify_is_clean(&server.database(), end).await;
    }
    println!("{fetched} reports");
    writers.stop().await;
    let mut serve = Serve::spawn(state.path(), Some(&url));
    no_drift(server.connection(), &mut serve, end).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_ended_five_times_a_second_are_opened_again_with_growing_pauses() {
    let server = TestDatabase::start_alone(&SETTINGS).await;
    let (seed, end, state) = (seed(), Clock::System.now(), state_dir());
    let writers = Writers::start_wild(server.connection(), WRITERS, seed, end);
    let mut serve = Serve::spawn(state.path(), Some(&url(server.connection())));
    serve.wait_until_ready();
    let (told, client) = (serve.log().len(), server.connect().await);
    let (began, rounds) = (Instant::now(), count(10));
    let mut ended = 0;
    for _ in 0..rounds {
        let sql = "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE application_name LIKE 'uptally%') AS ended";
        ended += client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let restarts = serve.log()[told..]
        .iter()
        .filter(|line| line.contains("not following"))
        .count();
    println!("{ended} sessions ended in {seconds:.1} s; {restarts} restarts told");
    assert!(ended > 0);
    // Five times a second without pauses; they double from 0.1 s.
    assert!(
        restarts <= 6 + usize::try_from(rounds / 50).unwrap(),
        "{restarts} restarts in {seconds} s"
    );
    writers.stop().await;
    no_drift(server.connection(), &mut serve, end).await;
}

/// Whatever of the server is killed, the postmaster or one of its backends, all sessions are lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_under_writers_and_reports_loses_nothing() {
    let server = TestDatabase::start_alone(&SETTINGS).await;
    let (seed, end, state) = (seed(), Clock::System.now(), state_dir());
    let mut rng = Rng::with_seed(seed);
    let writers = Writers::start_wild(server.connection(), WRITERS, seed, end);
    let mut serve = Serve::spawn(state.path(), Some(&url(server.connection())));
    serve.wait_until_ready();
    let resources = Resources::of(serve.pid());
    let reporter = Reporter::start(serve.address());
    for kill in 0..count(2) {
        tokio::time::sleep(Duration::from_millis(rng.u64(100..700))).await;
        if kill % 2 == 0 {
            server.crash().await;
        } else {
            kill_a_backend(&server).await;
        }
        let took = serve.wait_until_ready_within(READY_MAX);
        println!("ready {took:?} after Postgres was");
    }
    println!("{} reports", reporter.stop().await);
    writers.stop().await;
    no_drift(server.connection(), &mut serve, end).await;
    if let (Some(before), Some(after)) = (resources, Resources::of(serve.pid())) {
        println!("{before:?}, then {after:?}");
        assert!(
            after.descriptors <= before.descriptors + 4,
            "descriptors: {before:?}, then {after:?}"
        );
        // A tenth, and what the allocator keeps of the largest report.
        assert!(
            after.rss_kib <= before.rss_kib * 11 / 10 + 8 * 1024,
            "memory: {before:?}, then {after:?}"
        );
    }
}

/// The server then ends all others and recovers. Returns when it answers.
async fn kill_a_backend(server: &TestDatabase) {
    let client = server.connect().await;
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'uptally follower'";
    let pid: i32 = match client.query_opt(sql, &[]).await.unwrap() {
        Some(row) => row.get(0),
        None => client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0),
    };
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    server.wait_until_back().await;
}
