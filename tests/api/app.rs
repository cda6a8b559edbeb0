//! The routes over a daemon that follows a database of the test's own, without a socket.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tempfile::TempDir;
use uptally::clock::Clock;
use uptally::daemon::{Handle, Settings};
use uptally::db::Database;
use uptally::http::{Access, ActivityLimits, Api, Events, Tokens, router};
use uptally::live::{self, Live};
use uptally::report::{self, Archive, Registry, ReportRequest};
use uptally::rollup;
use uptally::time::DAY_US;

use super::support::TestDatabase;
use super::support::daemon::Following;

/// A daemon and the routes to it.
pub struct App {
    daemon: Option<Following>,
    pub handle: Handle,
    pub router: Router,
    pub events: Events,
    _csvs: TempDir,
}

/// What was answered.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl App {
    /// Starts a daemon and waits until it follows.
    pub async fn start(database: &TestDatabase, clock: &Clock, live: live::Settings) -> Self {
        Self::with(&database.database(), database, clock, live).await
    }

    /// The same as another role.
    pub async fn start_as(role: &Database, database: &TestDatabase, clock: &Clock) -> Self {
        Self::with(role, database, clock, live::Settings::default()).await
    }

    async fn with(role: &Database, database: &TestDatabase, clock: &Clock, live: live::Settings) -> Self {
        let settings = Settings {
            flush_interval: Duration::from_millis(20),
            limits: rollup::Limits {
                retention_us: 3_000 * DAY_US,
                ..rollup::Limits::default()
            },
            ..Settings::default()
        };
        let daemon = Following::start(role, clock, settings).await;
        let csvs = tempfile::tempdir().unwrap();
        let archive = Archive::open(csvs.path().to_str().unwrap()).unwrap();
        let source = std::sync::Arc::new(daemon.handle.clone());
        let live = Live::new(role.clone(), daemon.handle.clone(), clock.clone(), live);
        let events = Events::new(clock, 3);
        let registry = Registry::new(source, archive, database.connector(), report::Limits::default());
        events.watch(live.clone(), registry.clone());
        let router = router(Api {
            registry,
            live,
            events: events.clone(),
            activity: ActivityLimits {
                body_bytes_max: 100_000,
                rows_max: 1_000,
            },
            defaults: ReportRequest::default(),
            access: Access::new("127.0.0.1:1".parse().unwrap(), Tokens::default(), Vec::new()).unwrap(),
            metrics_text: std::sync::Arc::new(String::new),
        });
        App {
            handle: daemon.handle.clone(),
            daemon: Some(daemon),
            router,
            events,
            _csvs: csvs,
        }
    }

    /// Ends the daemon in order; the routes stay.
    pub async fn stop(&mut self) {
        self.daemon.take().unwrap().stop().await;
    }

    /// What is answered to a GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// The JSON that is answered to a GET.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
        assert_eq!(answer.headers["content-type"], "application/json", "{path}");
        answer.json()
    }

    /// What is answered to a body of a kind.
    pub async fn post(&self, path: &str, content_type: &str, body: impl Into<Body>) -> Answer {
        let request = Request::post(path).header("content-type", content_type);
        self.ask(request.body(body.into()).unwrap()).await
    }

    /// What is answered; the host is added.
    pub async fn ask(&self, mut request: Request<Body>) -> Answer {
        request.headers_mut().insert("host", "localhost".parse().unwrap());
        let service = TowerToHyperService::new(self.router.clone());
        let (parts, body) = service.call(request).await.unwrap().into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: to_bytes(body, usize::MAX).await.unwrap().to_vec(),
        }
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Checks that this is a problem of this status and kind; returns its detail.
    pub fn problem(&self, status: u16, kind: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert!(problem["type"].as_str().unwrap().ends_with(kind), "{problem}");
        problem["detail"].as_str().unwrap().to_owned()
    }
}
