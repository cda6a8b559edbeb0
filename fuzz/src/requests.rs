//! HTTP requests through the real routes, in this process: whatever is asked for, the answer is a well-formed one, a
//! mistake of the client's is not one of the server's, and nothing panics.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::{Router, http};
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use uptally::http::{Api, router};
use uptally::report::{
    Archive, AsOf, Connect, Coverage, Limits, Registry, RenderError, Rendered, ReportRequest, Source,
};
use uptally::time::Timestamp;
use uptally::window::{ClosedTime, Windows};
use url::form_urlencoded;
use uuid::Uuid;

/// A fleet of nothing, over a database that is away: what is well asked for is answered with 503, all else is not.
struct Nothing;

impl Source for Nothing {
    fn render(&self, _: Option<Timestamp>, _: Windows, _: ClosedTime) -> BoxFuture<'_, Result<Rendered, RenderError>> {
        Box::pin(async { Err(RenderError::Failed("nothing is here".to_owned())) })
    }

    fn coverage(&self) -> Option<Coverage> {
        Some(Coverage {
            earliest: Timestamp::MIN,
            latest: Timestamp::MAX,
        })
    }

    fn readiness(&self) -> Result<(), String> {
        Ok(())
    }
}

struct Edge {
    runtime: tokio::runtime::Runtime,
    router: Router,
    _csvs: tempfile::TempDir,
}

thread_local! {
    static EDGE: Edge = Edge::open();
}

impl Edge {
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().expect("a runtime");
        let csvs = tempfile::tempdir().expect("a directory for the archive");
        let archive = Archive::open(csvs.path().to_str().expect("a path of text")).expect("an archive");
        let away: Connect = Arc::new(|| Box::pin(async { Err("it is away".into()) }));
        let registry = Registry::new(Arc::new(Nothing), archive, away, Limits::default());
        let router = router(Api {
            registry,
            defaults: ReportRequest::default(),
            metrics_text: Arc::new(|| "figures 1\n".to_owned()),
        });
        Edge {
            runtime,
            router,
            _csvs: csvs,
        }
    }

    fn ask(&self, request: Request<Body>) -> (StatusCode, HeaderMap, Vec<u8>) {
        let service = TowerToHyperService::new(self.router.clone());
        self.runtime.block_on(async {
            let answer = service.call(request).await.expect("an answer, whatever was asked");
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            (parts.status, parts.headers, body.to_vec())
        })
    }
}

/// The bytes are `METHOD TARGET`, lines `name: value`, an empty line, and a body.
pub fn run(bytes: &[u8]) {
    let Some(request) = request(bytes) else { return };
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let (status, headers, body) = EDGE.with(|edge| edge.ask(request));
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().expect("text"));
    assert_eq!(header("x-content-type-options"), "nosniff");
    if status.is_server_error() {
        let away = status == StatusCode::SERVICE_UNAVAILABLE && is_well_asked(&method, &uri);
        assert!(away, "{status} for {method} {uri}: {}", String::from_utf8_lossy(&body));
    }
    if status.is_client_error() || status.is_server_error() {
        assert_eq!(header("content-type"), "application/problem+json");
        if method != Method::HEAD {
            check_problem(status, &body);
        }
    } else {
        assert!(status.is_success(), "{status} for {method} {uri}");
        assert!(["/healthz", "/readyz", "/metrics"].contains(&uri.path()));
    }
}

/// A request as far as the HTTP library lets one through; None if it does not.
fn request(bytes: &[u8]) -> Option<Request<Body>> {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let first = lines.next()?;
    let space = first.iter().position(|&byte| byte == b' ')?;
    let mut request = Request::builder().method(&first[..space]).uri(&first[space + 1..]);
    let mut head_bytes = first.len() + 1;
    for line in lines {
        head_bytes += line.len() + 1;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|&byte| byte == b':')?;
        request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
    }
    let body = bytes.get(head_bytes..).unwrap_or_default().to_vec();
    request.body(Body::from(body)).ok()
}

/// Whether a request is one that only the missing database keeps from being answered.
fn is_well_asked(method: &Method, uri: &http::Uri) -> bool {
    let query: Vec<_> = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).collect();
    let all = |understood: fn(&str, &str) -> bool| query.iter().all(|(name, value)| understood(name, value));
    match (method, uri.path()) {
        (&Method::POST, "/trigger_report") => all(|name, value| match name {
            "as_of" => value.parse::<AsOf>().is_ok(),
            "windows" => ["calendar", "rolling"].contains(&value),
            "closed" => ["uptime", "excluded"].contains(&value),
            _ => false,
        }),
        (&Method::GET | &Method::HEAD, "/get_report") => {
            query.len() == 1 && all(|name, value| name == "report_id" && Uuid::try_parse(value).is_ok())
        }
        _ => false,
    }
}

/// A problem says what its status says, and repeats little of what was sent.
fn check_problem(status: StatusCode, body: &[u8]) {
    let problem: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(problem["status"], status.as_u16());
    for field in ["type", "title", "detail"] {
        let text = problem[field].as_str().expect("a text");
        assert!(!text.is_empty() && text.len() < 2_048, "{problem}");
    }
    assert!(!problem["detail"].to_string().contains("it is away"), "{problem}");
}
