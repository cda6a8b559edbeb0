//! The HTTP edge, and the only place that knows status codes.
//!
//! | request | answers |
//! |---|---|
//! | `POST /trigger_report` | 202 `{"report_id"}` · 400 bad parameter · 422 instant not covered · 429 queue full · 503 not loaded, or no database |
//! | `GET /get_report` | 200 CSV · 202 `{"status":"Running"}` · 400 bad id · 404 unknown id · 410 file gone · 500 report failed, or archive unreadable · 503 no database |
//! | `GET /healthz` | 200 while the process lives; touches nothing |
//! | `GET /readyz` | 200 · 503 with the reason |
//! | `GET /metrics` | 200 text |
//!
//! And to any of them: 400 for a head that is not clear · 401, 403 without a token that allows it · 421, 403 for a foreign
//! host or origin (module `access`) · 503 after 30 s.
//!
//! Every error is a [`Problem`]. HEAD is GET without the body.

mod access;
mod connections;
mod presence;
mod problem;
mod query;
mod seldom;
mod server;
mod stall;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde_json::json;
use tower_http::catch_panic::CatchPanicLayer;

pub use access::{Access, OpenToAll, ParseTokenError, TOKEN_CHARS_MIN, Token, Tokens};
pub use problem::Problem;
pub use server::{ServeLimits, serve};

use access::Caller;
use seldom::Seldom;

use crate::report::{FetchError, Fetched, Registry, ReportRequest, TableError, TriggerError};

/// Bytes of a request's body at most. No request needs one.
const BODY_BYTES_MAX: usize = 4 << 10;
/// Longest time for a request's body to arrive.
const BODY_MAX: Duration = Duration::from_secs(10);
/// Longest time from a request's head to the head of its answer. What an answer's body takes is bounded by the client's
/// taking it, not by this: a download that goes on may go on.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// What the routes need. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// The reports, and behind them the numbers.
    pub registry: Registry,
    /// The options of a trigger that does not give its own.
    pub defaults: ReportRequest,
    /// Who is let in.
    pub access: Access,
    /// The metrics in the Prometheus text format.
    pub metrics_text: Arc<dyn Fn() -> String + Send + Sync>,
}

/// The routes, testable without a socket.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/trigger_report", post(trigger_report))
        .route("/get_report", get(get_report))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(REQUEST_MAX, answer_in_time))
        .layer(middleware::from_fn_with_state(api.access.clone(), access::admit))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(observe))
        .with_state(api)
}

/// Names and explains this module's metrics to the installed recorder.
pub fn describe_metrics() {
    metrics::describe_counter!("uptally_http_requests_total", "Requests answered, by route and status");
    metrics::describe_counter!(
        "uptally_http_connections_evicted_total",
        "Connections closed for others, because they kept the server waiting and there was no room"
    );
}

async fn trigger_report(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let options = query::report_request(request.uri(), api.defaults)?;
    refuse_body(request).await?;
    let triggered = api.registry.trigger(options).await?;
    let id = triggered.report_id;
    let location = format!("/get_report?report_id={id}");
    let body = axum::Json(json!({ "report_id": id.to_string() }));
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], body).into_response())
}

async fn get_report(State(api): State<Api>, method: Method, uri: Uri) -> Result<Response, Problem> {
    let id = query::report_id(&uri)?;
    let stored = match api.registry.fetch(id).await? {
        Fetched::Complete(stored) => stored,
        Fetched::Running => {
            let body = axum::Json(json!({ "status": "Running" }));
            let later = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
            return Ok((StatusCode::ACCEPTED, later, body).into_response());
        }
        Fetched::Unknown => {
            let detail = format!("no report has the id {id}");
            let (status, kind) = (StatusCode::NOT_FOUND, "unknown-report");
            return Err(Problem::new(status, kind, "Unknown report", detail));
        }
        Fetched::Failed { reason } => {
            let (status, kind) = (StatusCode::INTERNAL_SERVER_ERROR, "report-failed");
            return Err(Problem::new(status, kind, "Report failed", reason));
        }
        Fetched::Gone { reason } => {
            let (status, kind) = (StatusCode::GONE, "report-gone");
            return Err(Problem::new(status, kind, "Report gone", reason));
        }
    };
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/csv; charset=utf-8"),
        ),
        (
            header::CONTENT_DISPOSITION,
            attachment(&format!("uptally-report-{id}.csv"))?,
        ),
        (header::CONTENT_LENGTH, stored.csv_bytes.into()),
    ];
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from_stream(stored.stream)
    };
    Ok((headers, body).into_response())
}

/// Open to anybody, because probes and load balancers have no token. The reason may name parts of the database, so that
/// strangers are told none.
async fn readyz(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Result<&'static str, Problem> {
    match api.registry.source().readiness() {
        Ok(()) => Ok("ready\n"),
        Err(reason) if caller.known => Err(not_ready(reason)),
        Err(_) => Err(not_ready("a request with a token is told the reason".to_owned())),
    }
}

async fn metrics_text(State(api): State<Api>) -> impl IntoResponse {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], (api.metrics_text)())
}

async fn no_such_route(uri: Uri) -> Problem {
    let detail = if uri.path().len() <= 128 {
        format!("nothing is at {}", uri.path())
    } else {
        "nothing is at this path".to_owned()
    };
    Problem::plain(StatusCode::NOT_FOUND, detail)
}

async fn no_such_method(method: Method) -> Problem {
    // A method may be any word, and as long as a head may be.
    let named = Some(method.as_str())
        .filter(|method| method.len() <= 32)
        .unwrap_or("this method");
    let detail = format!("{named} is not for this path; the Allow header says what is");
    Problem::plain(StatusCode::METHOD_NOT_ALLOWED, detail)
}

fn panicked(_panic: Box<dyn Any + Send + 'static>) -> Response {
    // The panic hook has logged what and where.
    Problem::plain(StatusCode::INTERNAL_SERVER_ERROR, "an internal error").into_response()
}

/// Reads a body to its end and refuses one that says something: options in it would be ignored,
/// and the report would be another than the one asked for. `{}` is what some clients send for
/// nothing.
async fn refuse_body(request: Request) -> Result<(), Problem> {
    let body = tokio::time::timeout(BODY_MAX, Bytes::from_request(request, &())).await;
    let body = match body {
        Ok(Ok(body)) => body,
        Ok(Err(rejected)) if rejected.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let detail = format!("expected a body of at most {BODY_BYTES_MAX} bytes");
            return Err(Problem::plain(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        Ok(Err(rejected)) => return Err(Problem::plain(rejected.status(), rejected.body_text())),
        Err(_) => {
            let detail = format!("expected the whole body within {} s", BODY_MAX.as_secs());
            return Err(Problem::plain(StatusCode::REQUEST_TIMEOUT, detail));
        }
    };
    match body.trim_ascii() {
        b"" | b"{}" => Ok(()),
        _ => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "bad-body",
            "Unexpected body",
            "expected no body: as_of, windows and closed go in the query",
        )),
    }
}

fn attachment(file_name: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(format!("attachment; filename=\"{file_name}\""))
        .map_err(|_| Problem::plain(StatusCode::INTERNAL_SERVER_ERROR, "an internal error"))
}

fn not_ready(reason: String) -> Problem {
    let (status, kind) = (StatusCode::SERVICE_UNAVAILABLE, "not-ready");
    Problem::new(status, kind, "Not ready", reason).retry_after(1)
}

/// Requests that met a database that is away, and reports that could not be read: any number may come.
static AWAY: Seldom = Seldom::new();
static UNREADABLE: Seldom = Seldom::new();

fn database_away(error: &TableError) -> Problem {
    if let Some(untold) = AWAY.happened(Instant::now()) {
        let error = error as &dyn std::error::Error;
        tracing::warn!(error, untold, "a request met a database that does not answer");
    }
    let (status, kind) = (StatusCode::SERVICE_UNAVAILABLE, "database-away");
    let detail = "the database cannot be used at the moment";
    Problem::new(status, kind, "Database away", detail).retry_after(2)
}

impl From<TriggerError> for Problem {
    fn from(error: TriggerError) -> Self {
        let detail = error.to_string();
        match error {
            TriggerError::NotLoaded(_) => not_ready(detail),
            TriggerError::NotCovered { .. } => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "as-of-not-covered",
                "Instant not covered",
                format!("query parameter as_of: {detail}"),
            ),
            TriggerError::TooBusy => {
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-busy", "Too many reports", detail).retry_after(1)
            }
            TriggerError::Table(error) => database_away(&error),
            TriggerError::Stopped => Problem::plain(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(2),
        }
    }
}

impl From<FetchError> for Problem {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Table(error) => database_away(&error),
            FetchError::Archive(error) => {
                let (status, kind) = (StatusCode::INTERNAL_SERVER_ERROR, "archive-failed");
                let reason = error.public_reason();
                if let Some(untold) = UNREADABLE.happened(Instant::now()) {
                    tracing::error!(error = &error as &dyn std::error::Error, untold, "unreadable report");
                }
                Problem::new(status, kind, "Archive failed", reason)
            }
        }
    }
}

/// Gives up on a request that is not answered within `answer_max`.
async fn answer_in_time(State(answer_max): State<Duration>, request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(answer_max, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        let detail = format!("no answer was found within {answer_max:?}");
        let problem = Problem::plain(StatusCode::SERVICE_UNAVAILABLE, detail);
        problem.retry_after(2).into_response()
    })
}

/// Counts and logs each request, and forbids guessing at content types.
async fn observe(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (method, route) = (request.method().clone(), route_label(request.uri().path()));
    let chunked = access::is_chunked(&request);
    let mut response = next.run(request).await;
    if chunked {
        response.headers_mut().extend([access::CLOSE]);
    }
    response.headers_mut().insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    let status = response.status().as_u16();
    metrics::counter!("uptally_http_requests_total", "route" => route, "status" => status.to_string()).increment(1);
    tracing::debug!(%method, route, status, elapsed = ?started.elapsed(), "request");
    response
}

/// The known routes by name; all else is one label, so that strangers cannot make up metrics.
fn route_label(path: &str) -> &'static str {
    match path {
        "/trigger_report" => "/trigger_report",
        "/get_report" => "/get_report",
        "/healthz" => "/healthz",
        "/readyz" => "/readyz",
        "/metrics" => "/metrics",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    #[tokio::test]
    async fn a_request_without_an_answer_has_an_end() {
        let hangs: Router = Router::new().route("/", get(async || std::future::pending::<()>().await));
        let limit = middleware::from_fn_with_state(Duration::from_millis(50), answer_in_time);
        let service = TowerToHyperService::new(hangs.layer(limit));
        let answer = service.call(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "2");
    }
}
