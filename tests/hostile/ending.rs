//! The end, by SIGTERM, while reports are made and clients are slow.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio_postgres::Client;

use super::filled;
use super::support::check::verify_is_clean;
use super::support::fixture::NOW;
use super::support::serve::{Serve, http};
use super::support::{TestDatabase, state_dir, within};

/// Nobody may write to the table of reports until the session commits.
async fn hold_reports(database: &TestDatabase) -> Client {
    let client = database.connect().await;
    let hold = "BEGIN; LOCK TABLE public.reports IN EXCLUSIVE MODE";
    client.batch_execute(hold).await.unwrap();
    client
}

/// A trigger that cannot be recorded yet: status, head, body, once it is answered.
fn trigger(serve: &mut Serve) -> JoinHandle<(u16, String, String)> {
    let address = serve.address().to_owned();
    let asked = std::thread::spawn(move || http(&address, "POST", "/trigger_report?as_of=latest"));
    std::thread::sleep(Duration::from_millis(200));
    assert!(!asked.is_finished(), "the row cannot be written");
    asked
}

/// How the reports are, by state.
async fn states(client: &Client) -> Vec<(String, i64)> {
    let sql = "SELECT state, count(*) FROM public.reports GROUP BY 1 ORDER BY 1";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Rows without end, by a session that goes with the task.
fn write_rows(database: &TestDatabase) -> tokio::task::JoinHandle<()> {
    let connecting = database.url().to_owned();
    tokio::spawn(async move {
        let client = super::support::connect(&connecting.parse().unwrap()).await;
        let insert = "INSERT INTO public.store_activity SELECT 'late ' || $1, '2023-11-08 11:00:00Z'::timestamptz
                      + $1 * interval '1 us', 'inactive'";
        for number in 0_i32.. {
            let number = f64::from(number);
            if client.execute(insert, &[&number]).await.is_err() {
                return;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_in_progress_is_finished_and_readiness_says_no_at_once() {
    let (database, state) = (filled().await, state_dir());
    let writer = write_rows(&database);
    let mut serve = Serve::spawn(state.path(), Some(database.url()));
    serve.wait_until_ready();
    let address = serve.address().to_owned();
    let admin = hold_reports(&database).await;
    let triggered = trigger(&mut serve);
    let began = Instant::now();
    serve.signal(Signal::TERM);
    within(Duration::from_secs(1), "it is not ready any more", async || {
        let (status, _, body) = http(&address, "GET", "/readyz");
        status == 503 && body.contains("shutting down")
    })
    .await;
    let (status, head, body) = http(&address, "POST", "/trigger_report?as_of=now");
    assert_eq!(status, 503, "{body}");
    assert!(head.contains("retry-after"), "{head}");
    assert_eq!(http(&address, "GET", "/healthz").0, 200);
    admin.batch_execute("COMMIT").await.unwrap();
    assert_eq!(triggered.join().unwrap().0, 202);
    assert_eq!(serve.exit_code(Duration::from_secs(10)), Some(0));
    println!("ended {:?} after SIGTERM", began.elapsed());
    writer.abort();
    assert_eq!(states(&admin).await, [("complete".to_owned(), 1)]);
    verify_is_clean(&database.database(), NOW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_and_stuck_reports_do_not_hold_up_the_end() {
    let (database, state) = (filled().await, state_dir());
    let brief = [("UPTALLY__HTTP__DRAIN_TIMEOUT_MS", "700")];
    let mut serve = Serve::spawn_by(&[], state.path(), Some(database.url()), &brief);
    serve.wait_until_ready();
    let mut slow = TcpStream::connect(serve.address()).unwrap();
    let head = b"POST /trigger_report HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nx";
    slow.write_all(head).unwrap();
    let admin = hold_reports(&database).await;
    let stuck = trigger(&mut serve);
    let began = Instant::now();
    serve.signal(Signal::TERM);
    assert_eq!(serve.exit_code(Duration::from_secs(5)), Some(0));
    println!("ended {:?} after SIGTERM, of 700 ms for draining", began.elapsed());
    assert!(began.elapsed() > Duration::from_millis(600), "it had its time");
    let log = serve.log().join("\n");
    assert!(log.contains("some reports are left to the next start"), "{log}");
    // Its connection was cut off.
    assert!(stuck.join().is_err());
    admin.batch_execute("COMMIT").await.unwrap();

    // The next life has nothing that runs and nobody ends, and the same numbers.
    let mut serve = Serve::spawn(state.path(), Some(database.url()));
    serve.wait_until_ready();
    within(Duration::from_secs(5), "no report is left running", async || {
        states(&admin).await.iter().all(|(state, _)| state != "running")
    })
    .await;
    verify_is_clean(&database.database(), NOW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let (database, state) = (filled().await, state_dir());
    let mut serve = Serve::spawn(state.path(), Some(database.url()));
    serve.wait_until_ready();
    let admin = hold_reports(&database).await;
    let stuck = trigger(&mut serve);
    serve.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    serve.signal(Signal::TERM);
    assert_eq!(serve.exit_code(Duration::from_secs(2)), Some(0));
    println!("ended {:?} after the second SIGTERM", began.elapsed());
    assert!(stuck.join().is_err());
    assert!(serve.log().iter().any(|line| line.contains("ended at once")));
    admin.batch_execute("COMMIT").await.unwrap();
    verify_is_clean(&database.database(), NOW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_does_not_hold_up_the_end() {
    let (mut database, state) = (TestDatabase::start_alone(&[]).await, state_dir());
    let mut serve = Serve::spawn(state.path(), Some(database.url()));
    serve.wait_until_ready();
    database.down();
    within(Duration::from_secs(5), "it has noticed", async || {
        serve.request("GET", "/readyz").0 == 503
    })
    .await;
    let began = Instant::now();
    serve.signal(Signal::TERM);
    assert_eq!(serve.exit_code(Duration::from_secs(10)), Some(0));
    println!("ended {:?} after SIGTERM without a database", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_events_end_at_once() {
    let (database, state) = (filled().await, state_dir());
    let mut serve = Serve::spawn(state.path(), Some(database.url()));
    serve.wait_until_ready();
    let mut stream = TcpStream::connect(serve.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    write!(stream, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut read = String::new();
    let mut until = |what: &str, stream: &mut TcpStream| {
        let mut piece = [0; 4096];
        while !read.contains(what) {
            let length = stream.read(&mut piece).unwrap();
            assert!(length > 0, "{read}");
            read.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
    };
    until("event: fleet", &mut stream);
    let insert = "INSERT INTO public.store_activity VALUES ('new here', now(), 'active')";
    database.connect().await.batch_execute(insert).await.unwrap();
    until("\"store_id\":\"new here\",\"from\":null,\"to\":\"online\"", &mut stream);
    let began = Instant::now();
    serve.signal(Signal::TERM);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(serve.exit_code(Duration::from_secs(8)), Some(0));
}

/// Somebody has a table for himself, and the follower waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_does_not_hold_up_the_end() {
    let (database, state) = (filled().await, state_dir());
    let mut serve = Serve::spawn(state.path(), Some(database.url()));
    serve.wait_until_ready();
    let (admin, watcher) = (database.connect().await, database.connect().await);
    admin
        .batch_execute(
            "BEGIN; INSERT INTO public.store_activity VALUES ('last', '2023-11-08 11:00:00Z', 'inactive'); COMMIT;
             BEGIN; LOCK TABLE public.store_activity IN ACCESS EXCLUSIVE MODE",
        )
        .await
        .unwrap();
    // Something to see makes it look.
    watcher
        .batch_execute("INSERT INTO public.store_timezones VALUES ('last', 'Asia/Tokyo')")
        .await
        .unwrap();
    within(Duration::from_secs(5), "the follower waits", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'uptally follower'
                   AND datname = current_database() AND wait_event_type = 'Lock'";
        watcher.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let began = Instant::now();
    serve.signal(Signal::TERM);
    assert_eq!(serve.exit_code(Duration::from_secs(10)), Some(0));
    println!("ended {:?} after SIGTERM with a table locked", began.elapsed());
    let log = serve.log().join("\n");
    assert!(!log.contains("cut off"), "{log}");
    assert!(began.elapsed() < Duration::from_secs(2), "{log}");
    admin.batch_execute("COMMIT").await.unwrap();
    verify_is_clean(&database.database(), NOW).await;
}

/// A server that takes connections and says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_at_the_start_does_not_hold_up_the_end() {
    let (silent, state) = (TcpListener::bind("127.0.0.1:0").unwrap(), state_dir());
    let url = format!("postgresql://uptally@{}/uptally", silent.local_addr().unwrap());
    let mut serve = Serve::spawn(state.path(), Some(&url));
    let (mut connection, _) = silent.accept().unwrap();
    // It has said that it wants to begin.
    connection.read_exact(&mut [0; 8]).unwrap();
    assert_eq!(serve.request("GET", "/readyz").0, 503);
    let began = Instant::now();
    serve.signal(Signal::TERM);
    assert_eq!(serve.exit_code(Duration::from_secs(10)), Some(0));
    println!(
        "ended {:?} after SIGTERM, of a start without an answer",
        began.elapsed()
    );
    assert!(began.elapsed() < Duration::from_secs(2));
}
