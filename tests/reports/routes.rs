//! The routes without a socket: status codes, headers and problems.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tempfile::tempdir;
use uptally::clock::Clock;
use uptally::http::{Access, ActivityLimits, Api, Events, Tokens, router};
use uptally::report::{AsOf, Connect, Limits, ReportRequest};
use uptally::time::HOUR_US;
use uptally::window::{ClosedTime, Windows};

use super::fake::{Behaviour, FakeSource, LATEST, OPEN, csv_of, limits, registry};
use super::support::{TestDatabase, live_of_nobody};

const UNKNOWN: &str = "/get_report?report_id=6a2f41a3-c54c-fce8-32d2-0324e1c32e22";

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks that this is a problem of this status and kind; returns its detail.
    fn problem(&self, status: u16, kind: &str) -> String {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{body}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.header("x-content-type-options"), "nosniff");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string());
        assert!(problem["type"].as_str().unwrap().ends_with(kind), "{body}");
        problem["detail"].as_str().unwrap().to_owned()
    }
}

async fn send(router: &Router, method: &str, uri: &str) -> Answer {
    send_body(router, method, uri, Body::empty()).await
}

async fn send_body(router: &Router, method: &str, uri: &str, body: Body) -> Answer {
    let request = Request::builder().method(method).uri(uri).header("host", "localhost");
    answer(router, request.body(body).unwrap()).await
}

async fn answer(router: &Router, request: Request<Body>) -> Answer {
    let service = TowerToHyperService::new(router.clone());
    let (parts, body) = service.call(request).await.unwrap().into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: to_bytes(body, usize::MAX).await.unwrap().to_vec(),
    }
}

fn app(source: &Arc<FakeSource>, csvs: &Path, connect: Connect, limits: Limits) -> Router {
    router(Api {
        registry: registry(source, csvs, connect, limits),
        live: live_of_nobody(),
        events: Events::new(&Clock::System, 1),
        activity: ActivityLimits::default(),
        defaults: ReportRequest::default(),
        access: loopback(),
        metrics_text: Arc::new(|| "figures 1\n".to_owned()),
    })
}

fn loopback() -> Access {
    Access::new("127.0.0.1:1".parse().unwrap(), Tokens::default(), Vec::new()).unwrap()
}

fn no_database() -> Connect {
    Arc::new(|| Box::pin(async { Err("postgres://user:secret@host is away".into()) }))
}

#[tokio::test]
async fn a_report_from_trigger_to_download() {
    let (database, csvs) = (TestDatabase::start().await, tempdir().unwrap());
    let source = FakeSource::new(0);
    let app = app(&source, csvs.path(), database.connector(), limits());
    let uri = "/trigger_report?as_of=latest&windows=rolling&closed=excluded";
    let triggered = send_body(&app, "POST", uri, Body::from(" {}\n")).await;
    assert_eq!(triggered.status, StatusCode::ACCEPTED);
    let id = triggered.json()["report_id"].as_str().unwrap().to_owned();
    let location = triggered.header("location").to_owned();
    assert_eq!(location, format!("/get_report?report_id={id}"));

    let running = send(&app, "GET", &location).await;
    assert_eq!(running.status, StatusCode::ACCEPTED);
    assert_eq!(running.body, br#"{"status":"Running"}"#);
    assert_eq!(running.header("retry-after"), "1");

    source.gate.add_permits(1);
    let mut complete = send(&app, "GET", &location).await;
    for _ in 0..200 {
        if complete.status == StatusCode::OK {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        complete = send(&app, "GET", &location).await;
    }
    let csv = csv_of(LATEST, Windows::Rolling, ClosedTime::Excluded);
    assert_eq!(complete.body, csv);
    let head = send(&app, "HEAD", &location).await;
    assert!(head.body.is_empty());
    for answer in [&complete, &head] {
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("content-length"), csv.len().to_string());
        assert_eq!(
            answer.header("content-disposition"),
            format!("attachment; filename=\"uptally-report-{id}.csv\"")
        );
    }

    std::fs::write(csvs.path().join(format!("{id}.csv")), "half").unwrap();
    let gone = send(&app, "GET", &location).await;
    gone.problem(410, "report-gone");
    send(&app, "GET", UNKNOWN).await.problem(404, "unknown-report");
}

#[tokio::test]
async fn a_failed_report_says_why_and_a_full_queue_says_when() {
    let (database, csvs) = (TestDatabase::start().await, tempdir().unwrap());
    let source = FakeSource::with(1, Behaviour::Panic);
    let tight = Limits {
        queue_max: 1,
        ..limits()
    };
    let app = app(&source, csvs.path(), database.connector(), tight);
    let triggered = send(&app, "POST", "/trigger_report").await;
    let location = triggered.header("location").to_owned();
    let mut failed = send(&app, "GET", &location).await;
    for _ in 0..200 {
        if failed.status != StatusCode::ACCEPTED {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        failed = send(&app, "GET", &location).await;
    }
    assert!(failed.problem(500, "report-failed").contains("internal error"));

    // The first report's row may still be on its way; its place is then free a moment later.
    let mut answers = Vec::new();
    for number in 0..4 {
        // Each another one: the same would be shared.
        let as_of = AsOf::At(LATEST.plus(-number));
        answers.push(send(&app, "POST", &format!("/trigger_report?as_of={as_of}")).await);
    }
    let busy = answers.pop().unwrap();
    busy.problem(429, "too-busy");
    assert_eq!(busy.header("retry-after"), "1");
}

#[tokio::test]
async fn parameters_are_read_strictly() {
    let csvs = tempdir().unwrap();
    let app = app(&FakeSource::new(OPEN), csvs.path(), no_database(), limits());
    let long = "x".repeat(5000);
    for (query, named, accepted) in [
        ("as_off=now", "as_off", "as_of, windows, closed, format, columns"),
        ("format=xml", "format", "csv or json"),
        ("columns=all", "columns", "default or extended"),
        ("as_of=yesterday", "as_of", "now, latest or an RFC 3339"),
        ("as_of=1970-01-01T00:00:00Z", "as_of", "2000-01-01"),
        ("as_of=now&as_of=latest", "as_of", "once"),
        ("windows=weekly", "windows", "calendar or rolling"),
        ("closed=", "closed", "uptime or excluded"),
        (&format!("windows={long}"), "windows", "xxx…"),
    ] {
        let answer = send(&app, "POST", &format!("/trigger_report?{query}")).await;
        let detail = answer.problem(400, "bad-parameter");
        assert!(detail.contains(named), "{detail}");
        assert!(detail.contains(accepted), "{detail}");
        assert!(detail.len() < 300, "{detail}");
    }
    for query in [
        "",
        "?report_id=",
        "?report_id=..%2F..%2Fetc%2Fpasswd",
        "?report_id=6a2f41a3-c54c-fce8-32d2-0324e1c32e22%00",
        "?id=6a2f41a3-c54c-fce8-32d2-0324e1c32e22",
    ] {
        let answer = send(&app, "GET", &format!("/get_report{query}")).await;
        assert!(answer.problem(400, "bad-parameter").contains("report_id"), "{query}");
    }
}

#[tokio::test]
async fn instants_that_are_not_covered_name_the_earliest() {
    let csvs = tempdir().unwrap();
    let source = FakeSource::new(OPEN);
    let app = app(&source, csvs.path(), no_database(), limits());
    let early = LATEST.plus(-401 * HOUR_US);
    let uri = format!("/trigger_report?as_of={}", AsOf::At(early));
    let detail = send(&app, "POST", &uri).await.problem(422, "as-of-not-covered");
    let earliest = LATEST.plus(-400 * HOUR_US).to_string();
    assert!(detail.contains(&earliest), "{detail}");
    assert!(detail.contains("as_of"), "{detail}");

    *source.coverage.lock().unwrap() = None;
    let answer = send(&app, "POST", "/trigger_report").await;
    assert!(answer.problem(503, "not-ready").contains("reading the rollups"));
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn without_a_database_the_process_is_alive_and_says_no_secrets() {
    let csvs = tempdir().unwrap();
    let source = FakeSource::new(OPEN);
    let app = app(&source, csvs.path(), no_database(), limits());
    for (method, uri) in [("POST", "/trigger_report"), ("GET", UNKNOWN)] {
        let answer = send(&app, method, uri).await;
        let detail = answer.problem(503, "database-away");
        assert!(!detail.contains("secret"));
        assert_eq!(answer.header("retry-after"), "2");
    }
    let alive = send(&app, "GET", "/healthz").await;
    assert_eq!((alive.status, &*alive.body), (StatusCode::OK, &b"ok\n"[..]));
    let ready = send(&app, "GET", "/readyz").await;
    assert_eq!(ready.status, StatusCode::OK);
    let metrics = send(&app, "GET", "/metrics").await;
    assert_eq!(metrics.body, b"figures 1\n");
    *source.coverage.lock().unwrap() = None;
    let unready = send(&app, "GET", "/readyz").await;
    assert_eq!(unready.problem(503, "not-ready"), "reading the rollups");
}

#[tokio::test]
async fn wrong_routes_methods_and_bodies_are_problems() {
    let csvs = tempdir().unwrap();
    let app = app(&FakeSource::new(OPEN), csvs.path(), no_database(), limits());
    let lost = send(&app, "GET", "/csvs/../../etc/passwd").await;
    lost.problem(404, "about:blank");
    for (method, uri, allow) in [
        ("GET", "/trigger_report", "POST"),
        ("POST", "/get_report", "GET,HEAD"),
        ("DELETE", "/healthz", "GET,HEAD"),
    ] {
        let answer = send(&app, method, uri).await;
        answer.problem(405, "about:blank");
        assert_eq!(answer.header("allow"), allow, "{uri}");
    }
    let big = Body::from(vec![b'x'; 5000]);
    let answer = send_body(&app, "POST", "/trigger_report", big).await;
    answer.problem(413, "about:blank");
    let options = Body::from("as_of=latest");
    let answer = send_body(&app, "POST", "/trigger_report", options).await;
    assert!(answer.problem(400, "bad-body").contains("query"));
}

#[tokio::test]
async fn without_the_right_token_nothing_is_told() {
    const READ: &str = "r-0123456789012345678901234567890";
    let csvs = tempdir().unwrap();
    let source = FakeSource::new(OPEN);
    let tokens = Tokens {
        read: vec![READ.parse().unwrap()],
        ..Tokens::default()
    };
    let app = router(Api {
        registry: registry(&source, csvs.path(), no_database(), limits()),
        live: live_of_nobody(),
        events: Events::new(&Clock::System, 1),
        activity: ActivityLimits::default(),
        defaults: ReportRequest::default(),
        access: Access::new("0.0.0.0:1".parse().unwrap(), tokens, Vec::new()).unwrap(),
        metrics_text: Arc::new(|| "figures 1\n".to_owned()),
    });
    let ask = async |method, uri, token: &str| {
        let request = Request::builder().method(method).uri(uri).header("host", "x");
        let request = request.header("authorization", token).body(Body::empty()).unwrap();
        answer(&app, request).await
    };
    let read = format!("Bearer {READ}");
    let nobody = ask("GET", "/metrics", "").await;
    nobody.problem(401, "no-token");
    assert_eq!(nobody.header("www-authenticate"), "Bearer realm=\"uptally\"");
    let wrong = ask("GET", "/metrics", "Bearer x").await;
    wrong.problem(401, "no-token");
    assert!(wrong.header("www-authenticate").ends_with("error=\"invalid_token\""));
    assert_eq!(ask("GET", "/metrics", &read).await.body, b"figures 1\n");
    let reader = ask("POST", "/trigger_report", &read).await;
    reader.problem(403, "scope-too-small");
    assert!(reader.header("www-authenticate").contains("insufficient_scope"));
    assert_eq!(ask("GET", "/healthz", "").await.status, StatusCode::OK);
    assert_eq!(ask("GET", "/readyz", "").await.status, StatusCode::OK);
    // Spelt otherwise, a path reaches no route, whatever scope it seems to need.
    for path in [
        "/trigger_repor%74",
        "//trigger_report",
        "/./trigger_report",
        "/trigger_report/",
    ] {
        assert_eq!(ask("POST", path, &read).await.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(ask("POST", path, "").await.status, StatusCode::UNAUTHORIZED, "{path}");
    }

    *source.coverage.lock().unwrap() = None;
    let stranger = ask("GET", "/readyz", "").await.problem(503, "not-ready");
    assert!(!stranger.contains("reading"), "{stranger}");
    let known = ask("GET", "/readyz", &read).await.problem(503, "not-ready");
    assert_eq!(known, "reading the rollups");
}

#[tokio::test]
async fn a_connection_is_not_used_again_after_a_chunked_body() {
    let csvs = tempdir().unwrap();
    let app = app(&FakeSource::new(OPEN), csvs.path(), no_database(), limits());
    let request = Request::post("/trigger_report").header("host", "localhost");
    let request = request.header("transfer-encoding", "chunked").body(Body::from("{}"));
    let chunked = answer(&app, request.unwrap()).await;
    assert_eq!(chunked.header("connection"), "close");
    assert_eq!(send(&app, "GET", "/healthz").await.header("connection"), "");
}

#[tokio::test]
async fn a_panic_is_a_problem() {
    let csvs = tempdir().unwrap();
    let app = router(Api {
        registry: registry(&FakeSource::new(OPEN), csvs.path(), no_database(), limits()),
        live: live_of_nobody(),
        events: Events::new(&Clock::System, 1),
        activity: ActivityLimits::default(),
        defaults: ReportRequest::default(),
        access: loopback(),
        metrics_text: Arc::new(|| panic!("told to")),
    });
    let answer = send(&app, "GET", "/metrics").await;
    assert_eq!(answer.problem(500, "about:blank"), "an internal error");
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let csvs = tempdir().unwrap();
    let app = app(&FakeSource::new(OPEN), csvs.path(), no_database(), limits());
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let figures = recorder.handle();
    // For this thread, which is the one that the test's runtime runs on.
    let _installed = metrics::set_default_local_recorder(&recorder);
    uptally::http::describe_metrics();
    uptally::report::describe_metrics();
    send(&app, "GET", "/healthz").await;
    send(&app, "GET", "/a").await;
    send(&app, "GET", "/b").await;
    let text = figures.render();
    for line in [
        "uptally_http_requests_total{route=\"/healthz\",status=\"200\"} 1",
        "uptally_http_requests_total{route=\"other\",status=\"404\"} 2",
    ] {
        assert!(text.contains(line), "{text}");
    }
}
