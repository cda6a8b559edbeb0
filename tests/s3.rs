//! Reports in a bucket, against a server that speaks S3 over HTTP on loopback: `make test-s3` starts one and says where.
//! Without `TEST_S3_ENDPOINT` nothing is tested, and that is said.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use support::check::verify_is_clean;
use support::raw::raw_stores;
use support::serve::{Serve, http, try_http_with};
use support::{TestDatabase, fixture, state_dir, within};
use uptally::oracle::report_csv;
use uptally::rollup::FUTURE_MAX_US;
use uptally::window::{ClosedTime, Windows};

const KEY: &str = "key-of-the-tests";

/// Address of the server; None: there is none.
fn server() -> Option<String> {
    let endpoint = std::env::var("TEST_S3_ENDPOINT").ok();
    if endpoint.is_none() {
        println!("not tested: TEST_S3_ENDPOINT names no server, see make test-s3");
    }
    endpoint.and_then(|endpoint| endpoint.strip_prefix("http://").map(str::to_owned))
}

/// A daemon whose reports go to a bucket at an address.
fn serve(dir: &std::path::Path, database: &TestDatabase, address: &str, bucket: &str) -> Serve {
    let (endpoint, url) = (format!("http://{address}"), format!("s3://{bucket}/reports/of/tests"));
    let variables = [
        ("AWS_ENDPOINT", &*endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", KEY),
        ("UPTALLY__REPORT__OUTPUT_URL", &*url),
    ];
    let mut serve = Serve::spawn_with(dir, Some(database.url()), &variables);
    serve.wait_until_ready();
    serve
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_are_in_the_bucket_and_are_read_from_there() {
    let Some(address) = server() else { return };
    assert_eq!(http(&address, "PUT", "/uptally").0, 200, "the bucket is made");
    let (database, dir) = (TestDatabase::start().await, state_dir());
    let client = database.connect().await;
    fixture::fill(&client, 3).await;
    let mut daemon = serve(dir.path(), &database, &address, "uptally");
    let stores = raw_stores(&client, fixture::NOW.plus(FUTURE_MAX_US)).await;
    let expected = report_csv(&stores, fixture::NOW, Windows::Calendar, ClosedTime::Uptime);
    assert_eq!(daemon.report(fixture::NOW), expected);
    daemon.try_report_by("columns=extended&format=json").unwrap();
    let reports: serde_json::Value = serde_json::from_str(&daemon.request("GET", "/api/v1/reports").1).unwrap();
    let id = reports["reports"][1]["report_id"].as_str().unwrap();
    // The server asks who it is, and believes it.
    let me = "Authorization: AWS test:anything\r\n";
    let object = format!("/uptally/reports/of/tests/{id}.csv");
    let (status, _, found) = try_http_with(&address, "GET", &object, me).unwrap();
    assert_eq!((status, found), (200, expected.clone()), "the object");
    // Another life has nothing but the bucket.
    daemon.kill();
    let mut daemon = serve(dir.path(), &database, &address, "uptally");
    let path = format!("/get_report?report_id={id}");
    assert_eq!(daemon.request("GET", &path), (200, expected.clone()));
    let (status, head, part) = try_http_with(daemon.address(), "GET", &path, "Range: bytes=5-20\r\n").unwrap();
    assert_eq!((status, part.as_str()), (206, &expected[5..21]), "{head}");
    // Somebody removes the object.
    assert_eq!(try_http_with(&address, "DELETE", &object, me).unwrap().0, 204);
    assert_eq!(daemon.request("GET", &path).0, 410);
}

/// Reports fail with their reason, rows are followed, and the next daemon has a bucket again.
async fn is_survived(address: &str, bucket: &str, reason: &str) {
    let (database, dir) = (TestDatabase::start().await, state_dir());
    let client = database.connect().await;
    fixture::fill(&client, 3).await;
    let mut daemon = serve(dir.path(), &database, address, bucket);
    let (status, triggered) = daemon.request("POST", "/trigger_report?as_of=latest");
    assert_eq!(status, 202, "{triggered}");
    let triggered: serde_json::Value = serde_json::from_str(&triggered).unwrap();
    let path = format!("/get_report?report_id={}", triggered["report_id"].as_str().unwrap());
    let (began, mut rows) = (Instant::now(), 0);
    let failure = loop {
        // A row comes, and is followed.
        let newest = fixture::NOW.plus(rows);
        rows += 1;
        let insert = "INSERT INTO public.store_activity VALUES ('chicago', $1, 'active')";
        client.execute(insert, &[&newest.plus(1)]).await.unwrap();
        within(Duration::from_secs(5), "it is followed", async || {
            let (status, fleet) = daemon.request("GET", "/api/v1/stores/chicago");
            status == 200 && fleet.contains(&newest.plus(1).to_string())
        })
        .await;
        assert!(
            began.elapsed() < Duration::from_secs(100),
            "the report goes on for ever"
        );
        match daemon.request("GET", &path) {
            (202, _) => tokio::time::sleep(Duration::from_millis(100)).await,
            (500, failure) => break failure,
            other => panic!("{other:?}"),
        }
    };
    println!("{bucket} at {address}: failed after {:?}: {failure}", began.elapsed());
    assert!(failure.contains(reason), "{failure}");
    assert!(!failure.contains(bucket), "{failure}");
    let log = daemon.log().join("\n");
    assert!(log.contains("a report could not be archived"), "{log}");
    assert!(!log.contains(KEY) && !log.contains("panicked"), "{log}");
    daemon.kill();
    verify_is_clean(&database.database(), fixture::NOW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_does_not_exist_fails_reports_and_nothing_else() {
    let Some(address) = server() else { return };
    is_survived(&address, "nowhere", "there is no such bucket").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_down_or_silent_fails_reports_and_nothing_else() {
    if server().is_none() {
        return;
    }
    // Nobody listens any more.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    is_survived(&free.to_string(), "bucket-of-tests", "no answer").await;
    // Connections are taken, and nothing is ever said.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    is_survived(
        &silent.local_addr().unwrap().to_string(),
        "bucket-of-tests",
        "no answer",
    )
    .await;
}
