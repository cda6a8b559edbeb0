//! The database goes away, refuses, or changes its mind about the password: the process lives and says so, asks again
//! at a bounded pace, and follows again when it can.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::{Duration, Instant};

use support::check::{reports_are_right, same_report};
use support::daemon::Following;
use support::fixture::{NOW, fill};
use support::raw::raw_stores;
use support::serve::Serve;
use support::tls::hba;
use support::{TestDatabase, database, state_dir, within};
use uptally::clock::Clock;
use uptally::daemon::Settings;
use uptally::oracle::report_csv;
use uptally::window::{ClosedTime, Windows};

/// Alive, and not ready for this reason.
fn lives_but_is_not_ready(serve: &mut Serve, reason: &str) {
    let deadline = Instant::now() + Duration::from_secs(6);
    loop {
        let (status, body) = serve.request("GET", "/readyz");
        if status == 503 && body.contains(reason) {
            break;
        }
        assert!(Instant::now() < deadline, "expected {reason}: {status} {body}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(serve.request("GET", "/healthz").0, 200);
    let (status, body) = serve.request("POST", "/trigger_report");
    assert_eq!(status, 503, "{body}");
}

/// The pauses that the log tells of, in milliseconds.
fn pauses(lines: &[String]) -> Vec<u128> {
    let of = |line: &String| {
        let (_, pause) = line.split_once("retry_in=")?;
        let pause = pause.split(' ').next()?;
        let (number, unit_us) = match pause.strip_suffix("ms") {
            Some(number) => (number, 1_000_f64),
            None => (pause.strip_suffix('s')?, 1_000_000_f64),
        };
        Some(Duration::from_secs_f64(number.parse::<f64>().ok()? * unit_us / 1e6).as_millis())
    };
    lines.iter().filter_map(of).collect()
}

/// Each request that needs the database fails, and the log does not grow with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_meet_no_database_are_told_now_and_then() {
    const ASKED: usize = 100;
    let mut server = TestDatabase::start_alone(&[]).await;
    let state = state_dir();
    let mut serve = Serve::spawn(state.path(), Some(server.url()));
    serve.wait_until_ready();
    server.down();
    lives_but_is_not_ready(&mut serve, "cannot connect to");
    let began = Instant::now();
    for _ in 0..ASKED {
        let unknown = "/get_report?report_id=6a2f41a3-c54c-fce8-32d2-0324e1c32e22";
        assert_eq!(serve.request("GET", unknown).0, 503);
    }
    let log = serve.log();
    let told = log
        .iter()
        .filter(|line| line.contains("a request met a database"))
        .count();
    println!("{told} lines for {ASKED} requests in {:?}", began.elapsed());
    let most = 1 + usize::try_from(began.elapsed().as_secs() / 5).unwrap();
    assert!((1..=most).contains(&told), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_for_a_while() {
    let mut server = TestDatabase::start_alone(&[]).await;
    fill(&server.connect().await, 2).await;
    let state = state_dir();
    let mut serve = Serve::spawn(state.path(), Some(server.url()));
    serve.wait_until_ready();
    let before = serve.log().len();

    server.down();
    let began = Instant::now();
    lives_but_is_not_ready(&mut serve, "cannot connect to");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    lives_but_is_not_ready(&mut serve, "cannot connect to");
    let lines = serve.log().split_off(before);
    let told = lines.iter().filter(|line| line.contains("not following")).count();
    assert!(
        (1..=1 + usize::try_from(began.elapsed().as_secs()).unwrap()).contains(&told),
        "{lines:#?}"
    );
    let longest = pauses(&lines).into_iter().max().unwrap();
    assert!(longest <= 1000, "whether it is back is asked every second: {lines:#?}");

    server.up();
    serve.wait_until_ready();
    let stores = raw_stores(&server.connect().await, NOW).await;
    let expected = report_csv(&stores, NOW, Windows::Calendar, ClosedTime::Uptime);
    same_report(&serve.report(NOW), &expected, "after the server came back");
    serve.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_at_that_port() {
    let state = state_dir();
    // Port 1 is nobody's; 5432 may be somebody's.
    let mut serve = Serve::spawn(state.path(), Some("postgres://ann@127.0.0.1:1/d"));
    lives_but_is_not_ready(&mut serve, "cannot connect to 127.0.0.1:1");
    serve.kill();
}

#[tokio::test]
async fn as_many_connections_as_the_server_allows() {
    let server = TestDatabase::start().await;
    let client = server.connect().await;
    fill(&client, 2).await;
    let role =
        "CREATE ROLE crowded LOGIN CONNECTION LIMIT 1; GRANT ALL ON ALL TABLES IN SCHEMA public, uptally TO crowded;
                GRANT USAGE ON SCHEMA uptally TO crowded; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA uptally TO crowded";
    client.batch_execute(role).await.unwrap();
    let (database, clock) = (server.database_as("crowded"), Clock::standing(NOW).0);
    let mut following = Following::launch(&database, &clock, Settings::default());
    within(Duration::from_secs(4), "it says that there are too many", async || {
        following
            .handle
            .status()
            .following
            .is_err_and(|reason| reason.contains("too many connections for role"))
    })
    .await;
    client
        .batch_execute("ALTER ROLE crowded CONNECTION LIMIT -1")
        .await
        .unwrap();
    let follows = tokio::time::timeout(Duration::from_secs(4), following.handle.following()).await;
    assert!(follows.expect("it follows within 4 s"));
    reports_are_right(&following.handle, &client, NOW, NOW).await;
    following.stop().await;
}

const REFUSED: &str = "password authentication failed for user";

/// A server where role `daemon` needs a password; the connection string lacks it.
async fn server_with_passwords(password: &str) -> (TestDatabase, tokio_postgres::Client) {
    let server = TestDatabase::start_alone(&[("log_connections", "on")]).await;
    let client = server.connect().await;
    fill(&client, 2).await;
    let role = format!("CREATE ROLE daemon SUPERUSER LOGIN PASSWORD '{password}'");
    client.batch_execute(&role).await.unwrap();
    hba(&client, "local all daemon scram-sha-256").await;
    (server, client)
}

/// Changes the password and ends the sessions that are open.
async fn change_password(client: &tokio_postgres::Client, password: &str) {
    let change = format!("ALTER ROLE daemon PASSWORD '{password}'");
    client.batch_execute(&change).await.unwrap();
    // Only when that is committed: who came back before would still get in.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'daemon'";
    client.batch_execute(end).await.unwrap();
}

/// A locked account is worse than a daemon that waits: no part of the process tries again before the pause is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_is_not_tried_again_for_ten_seconds() {
    let (server, client) = server_with_passwords("first").await;
    let url = server.url_as("daemon:first");
    let state = state_dir();
    let mut serve = Serve::spawn(state.path(), Some(&url));
    serve.wait_until_ready();
    let before = serve.log().len();
    change_password(&client, "second").await;
    lives_but_is_not_ready(&mut serve, REFUSED);
    // Whoever asks for a report that is not in memory makes the process look into its table.
    let unknown = "/get_report?report_id=7e57ab1e-0000-4000-8000-000000000000";
    for _ in 0..20 {
        assert_eq!(serve.request("GET", unknown).0, 503);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let log = std::fs::read_to_string(server.server_dir().join("postgres.log")).unwrap();
    assert_eq!(log.matches(REFUSED).count(), 1, "{log}");
    let told = pauses(&serve.log().split_off(before));
    assert!(matches!(told[..], [.., 9_000..=10_000]), "{told:?}");
    serve.kill();
}

#[tokio::test]
async fn after_the_pause_a_right_password_is_taken() {
    let (server, client) = server_with_passwords("first").await;
    let mut connection: tokio_postgres::Config = server.url_as("daemon").parse().unwrap();
    let database = database(connection.password("first")).with_login_pause(Duration::from_millis(700));
    let mut following = Following::start(&database, &Clock::standing(NOW).0, Settings::default()).await;
    change_password(&client, "second").await;
    within(Duration::from_secs(4), "the login is refused", async || {
        following
            .handle
            .status()
            .following
            .is_err_and(|reason| reason.contains(REFUSED))
    })
    .await;
    // Everybody who shares the database waits, without asking the server.
    let error = database.connect("test").await.unwrap_err();
    assert!(error.retry_after().unwrap() <= Duration::from_millis(700), "{error}");
    assert!(error.to_string().contains(REFUSED), "{error}");
    change_password(&client, "first").await;
    let follows = tokio::time::timeout(Duration::from_secs(4), following.handle.following()).await;
    assert!(follows.expect("it follows within 4 s"));
    following.stop().await;
}
