//! HTTP requests through the real routes, in this process, without a login and with one: whatever is asked for, the
//! answer is a well-formed one, a mistake of the client's is not one of the server's, nothing panics, and nobody is let
//! in without a token.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use uptally::clock::Clock;
use uptally::daemon::{Daemon, Settings};
use uptally::db::{Database, Parameters};
use uptally::http::{Access, ActivityLimits, Api, Events, Tokens, router};
use uptally::live::{self, Live};
use uptally::report::{
    Archive, AsOf, Connect, Coverage, Limits, Registry, RenderError, Rendered, ReportRequest, Source,
};
use uptally::time::Timestamp;
use url::form_urlencoded;
use uuid::Uuid;

/// A fleet of nothing, over a database that is away: what is well asked for is answered with 503, all else is not.
struct Nothing;

impl Source for Nothing {
    fn render(&self, _: Option<Timestamp>, _: ReportRequest) -> BoxFuture<'_, Result<Rendered, RenderError>> {
        Box::pin(async { Err(RenderError::Failed("nothing is here".to_owned())) })
    }

    fn coverage(&self) -> Option<Coverage> {
        Some(Coverage {
            earliest: Timestamp::MIN,
            latest: Timestamp::MAX,
            newest: None,
            first_day: None,
        })
    }

    fn readiness(&self) -> Result<(), String> {
        Ok(())
    }
}

/// What the guarded edge takes. Clients may use them in as many ways as they find.
const READ: &str = "read-0123456789012345678901234567";
const TRIGGER: &str = "trigger-0123456789012345678901234";
const WRITE: &str = "write-012345678901234567890123456";

struct Edges {
    runtime: tokio::runtime::Runtime,
    /// Without a login.
    open: Router,
    guarded: Router,
    _csvs: tempfile::TempDir,
}

thread_local! {
    static EDGES: Edges = Edges::open();
}

impl Edges {
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().expect("a runtime");
        let csvs = tempfile::tempdir().expect("a directory for the archive");
        let archive = csvs.path().to_str().expect("a path of text");
        let tokens = Tokens {
            read: vec![READ.parse().expect("a token")],
            trigger: vec![TRIGGER.parse().expect("a token")],
            write: vec![WRITE.parse().expect("a token")],
        };
        let nowhere: Parameters = "host=/nowhere user=nobody".parse().expect("parameters");
        let nowhere = Database::new(nowhere, Duration::from_secs(1), Duration::from_secs(1)).expect("a database");
        // A daemon that never starts.
        let (_, handle) = Daemon::new(nowhere.clone(), Clock::System, Settings::default());
        let edge = |address: &str, tokens| {
            let address = address.parse().expect("an address");
            let away: Connect = Arc::new(|| Box::pin(async { Err("it is away".into()) }));
            let archive = Archive::open(archive).expect("an archive");
            router(Api {
                live: Live::new(
                    nowhere.clone(),
                    handle.clone(),
                    Clock::System,
                    live::Settings::default(),
                ),
                // The stream would not end.
                events: Events::new(&Clock::System, 0),
                activity: ActivityLimits::default(),
                registry: Registry::new(Arc::new(Nothing), archive, away, Limits::default()),
                defaults: ReportRequest::default(),
                access: Access::new(address, tokens, Vec::new()).expect("a safe address"),
                metrics_text: Arc::new(|| "figures 1\n".to_owned()),
            })
        };
        Edges {
            runtime,
            open: edge("127.0.0.1:1", Tokens::default()),
            guarded: edge("0.0.0.0:1", tokens),
            _csvs: csvs,
        }
    }

    fn ask(&self, router: &Router, request: Request<Body>) -> Answer {
        let service = TowerToHyperService::new(router.clone());
        self.runtime.block_on(async {
            let answer = service.call(request).await.expect("an answer, whatever was asked");
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes().to_vec();
            Answer {
                status: parts.status,
                headers: parts.headers,
                body,
            }
        })
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// The bytes are `METHOD TARGET`, lines `name: value`, an empty line, and a body.
pub fn run(bytes: &[u8]) {
    let Some((request, again)) = request(bytes).zip(request(bytes)) else {
        return;
    };
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let (granted, needed) = (granted(request.headers()), needed(&method, uri.path()));
    EDGES.with(|edges| {
        check(bytes, &method, &uri, &edges.ask(&edges.open, request));
        let answer = edges.ask(&edges.guarded, again);
        check(bytes, &method, &uri, &answer);
        let turned_away = [400, 401, 403].contains(&answer.status.as_u16());
        let let_in = needed.is_none_or(|needed| granted.contains(&needed));
        assert!(turned_away || let_in, "{method} {uri}: {}", answer.status);
    });
}

fn has(sent: &[u8], word: &str) -> bool {
    sent.windows(word.len()).any(|part| part == word.as_bytes())
}

fn check(sent: &[u8], method: &Method, uri: &Uri, answer: &Answer) {
    let Answer { status, headers, body } = answer;
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().expect("text"));
    assert_eq!(header("x-content-type-options"), "nosniff");
    if status.is_server_error() {
        let away = *status == StatusCode::SERVICE_UNAVAILABLE && is_well_asked(method, uri);
        assert!(away, "{status} for {method} {uri}: {}", String::from_utf8_lossy(body));
    }
    if status.is_client_error() || status.is_server_error() {
        // Who asks for pages is told on one.
        let page = header("content-type") == "text/html; charset=utf-8" && has(sent, "text/html");
        if !page {
            assert_eq!(header("content-type"), "application/problem+json");
            if method != Method::HEAD {
                check_problem(*status, body);
            }
        }
        // What the database said stays inside. A refusal may repeat what was sent, and that may be the same words.
        let repeats = status.is_client_error() && has(sent, "away");
        let says = String::from_utf8_lossy(body);
        assert!(
            repeats || !says.contains("it is away"),
            "{status} for {method} {uri}: {says}"
        );
    } else {
        assert!(status.is_success(), "{status} for {method} {uri}");
        let needs_no_database = ["/healthz", "/readyz", "/metrics", "/openapi.json"].contains(&uri.path())
            || uri.path().starts_with("/docs/api")
            || uri.path().starts_with("/assets/");
        assert!(needs_no_database, "{status} for {method} {uri}");
    }
}

/// A request as far as the HTTP library lets one through; None if it does not. With a host, if it does not say one.
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
    let mut request = request.body(Body::from(body)).ok()?;
    let host = HeaderValue::from_static("localhost");
    request.headers_mut().entry("host").or_insert(host);
    Some(request)
}

/// What a request may be let in for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scope {
    Read,
    Trigger,
    Write,
}

/// What the request's one token allows.
fn granted(headers: &HeaderMap) -> &'static [Scope] {
    let all: Vec<_> = headers.get_all("authorization").iter().collect();
    let [value] = all[..] else { return &[] };
    let Some((scheme, rest)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
        return &[];
    };
    let token = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => rest.trim().to_owned(),
        "basic" => {
            let decoded = BASE64_STANDARD.decode(rest.trim()).unwrap_or_default();
            let decoded = String::from_utf8(decoded).unwrap_or_default();
            decoded
                .split_once(':')
                .map_or_else(String::new, |(_, password)| password.to_owned())
        }
        _ => return &[],
    };
    match token.as_str() {
        READ => &[Scope::Read],
        TRIGGER => &[Scope::Read, Scope::Trigger],
        WRITE => &[Scope::Write],
        _ => &[],
    }
}

/// What a request needs.
fn needed(method: &Method, path: &str) -> Option<Scope> {
    match (method, path) {
        (&Method::GET | &Method::HEAD, "/healthz" | "/readyz") => None,
        (&Method::POST, "/trigger_report" | "/api/v1/reports") => Some(Scope::Trigger),
        (&Method::POST, "/api/v1/activity") => Some(Scope::Write),
        _ => Some(Scope::Read),
    }
}

/// Whether a request is one that only the missing database keeps from being answered.
fn is_well_asked(method: &Method, uri: &Uri) -> bool {
    let query: Vec<_> = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).collect();
    let all = |understood: fn(&str, &str) -> bool| query.iter().all(|(name, value)| understood(name, value));
    match (method, uri.path()) {
        (&Method::POST, "/trigger_report" | "/api/v1/reports") => all(|name, value| match name {
            "as_of" => value.parse::<AsOf>().is_ok(),
            "windows" => ["calendar", "rolling"].contains(&value),
            "closed" => ["uptime", "excluded"].contains(&value),
            "format" => ["csv", "json"].contains(&value),
            "columns" => ["default", "extended"].contains(&value),
            // Whatever chrono takes for a date, and more than is one: what is refused says so.
            "from" | "to" => value.len() == 10,
            _ => false,
        }),
        (&Method::GET | &Method::HEAD, "/get_report") => {
            query.len() == 1 && all(|name, value| name == "report_id" && Uuid::try_parse(value).is_ok())
        }
        (&Method::POST, "/api/v1/activity") => query.is_empty(),
        (&Method::GET | &Method::HEAD, "/api/v1/fleet") => {
            all(|name, value| name == "windows" && ["calendar", "rolling"].contains(&value))
        }
        // A page looks at its query, and at what its form sent, when there is something to show.
        (&Method::GET | &Method::HEAD, "/" | "/stores" | "/reports") | (&Method::POST, "/reports") => true,
        (&Method::GET | &Method::HEAD, path) => ["/api/v1/", "/stores/", "/reports/"]
            .iter()
            .any(|begin| path.starts_with(begin)),
        _ => false,
    }
}

/// A problem says what its status says, and repeats little of what was sent.
fn check_problem(status: StatusCode, body: &[u8]) {
    let problem: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(problem["status"], status.as_u16());
    for field in ["type", "title", "detail"] {
        let text = problem[field].as_str().expect("a text");
        assert!(!text.is_empty() && text.chars().count() < 1_024, "{problem}");
    }
}
