//! The HTTP edge, and the only place that knows status codes.
//!
//! What is at which path stands in module `routes`, what it answers in its documentation there and in `/openapi.json`. To any
//! request: 400 for a head that is not clear · 401, 403 without a token that allows it · 421, 403 for a foreign host or origin
//! (module `access`) · 503 after 30 s.
//!
//! Every error is a [`Problem`]. HEAD is GET without the body.

mod access;
mod connections;
mod docs;
mod encode;
mod events;
mod file;
mod negotiate;
mod openapi;
mod page;
mod presence;
mod problem;
mod query;
mod routes;
mod seldom;
mod server;
mod stall;
mod v1;

use std::any::Any;
use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use http_body_util::LengthLimitError;
use schemars::JsonSchema;
use serde::Serialize;
use tower_http::catch_panic::CatchPanicLayer;

pub use access::{Access, OpenToAll, ParseTokenError, TOKEN_CHARS_MIN, Token, Tokens};
pub use events::Events;
pub use openapi::description;
pub use problem::Problem;
pub use server::{ServeLimits, serve};
pub use v1::activity::ActivityLimits;

use access::Caller;
use routes::{Asked, Rules};
use seldom::Seldom;

use crate::live::Live;
use crate::report::{FetchError, Registry, ReportRequest, TriggerError};

/// Bytes of a request's body at most. No request needs one.
const BODY_BYTES_MAX: usize = 4 << 10;
/// Longest time for a request's body to arrive.
const BODY_MAX: Duration = Duration::from_secs(10);
/// Longest time from a request's head to the head of its answer. What an answer's body takes is bounded by the client's
/// taking it, not by this: a download that goes on may go on.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// What the routes are made of. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// The reports, and behind them the numbers.
    pub registry: Registry,
    /// What the stores do now.
    pub live: Live,
    /// What happens.
    pub events: Events,
    /// The options of a trigger that does not give its own.
    pub defaults: ReportRequest,
    /// Who is let in.
    pub access: Access,
    /// What a body of observations may be.
    pub activity: ActivityLimits,
    /// The metrics in the Prometheus text format.
    pub metrics_text: Arc<dyn Fn() -> String + Send + Sync>,
}

/// The routes, testable without a socket.
pub fn router(api: Api) -> Router {
    let rules = Arc::new(Rules::new());
    routes::router()
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(REQUEST_MAX, answer_in_time))
        .layer(middleware::from_fn_with_state(
            (api.access.clone(), Arc::clone(&rules)),
            access::admit,
        ))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(&rules), page::show_problems))
        .layer(middleware::from_fn_with_state(rules, observe))
        .with_state(api)
}

/// Names and explains this module's metrics to the installed recorder.
pub fn describe_metrics() {
    use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
    describe_counter!("uptally_http_requests_total", "Requests answered, by route and status");
    describe_histogram!(
        "uptally_http_request_seconds",
        metrics::Unit::Seconds,
        "From the head of a request to the head of its answer, by route"
    );
    describe_gauge!("uptally_http_connections", "Connections that are open");
    describe_counter!(
        "uptally_http_connections_accepted_total",
        "Connections that were served"
    );
    describe_counter!(
        "uptally_http_connections_evicted_total",
        "Connections closed for others, because they kept the server waiting and there was no room"
    );
    gauge!("uptally_http_connections").set(0.0);
    for name in [
        "uptally_http_connections_accepted_total",
        "uptally_http_connections_evicted_total",
    ] {
        counter!(name).increment(0);
    }
}

/// A report that was accepted.
#[derive(Debug, Serialize, JsonSchema)]
struct TriggeredAnswer {
    /// Its name from now on.
    report_id: String,
}

/// A report that is not complete yet.
#[derive(Debug, Serialize, JsonSchema)]
struct RunningAnswer {
    /// Always `Running`.
    status: &'static str,
}

/// When a trigger is refused.
const TRIGGER_PROBLEMS: &[(u16, &str)] = &[
    (
        400,
        "A query parameter is unknown, doubled or not understood, or there is a body.",
    ),
    (408, "The body did not come in time."),
    (413, "The body is too long."),
    (422, "The instant is not covered; the detail names the earliest."),
    (429, "Too many reports wait; Retry-After says when to come again."),
    (
        503,
        "The numbers are not loaded, the database is away, or the service ends.",
    ),
];

async fn trigger_report(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let options = query::report_request(request.uri(), api.defaults)?;
    refuse_body(request).await?;
    let triggered = api.registry.trigger(options).await?;
    let id = triggered.report_id;
    let location = format!("/get_report?report_id={id}");
    let body = Json(TriggeredAnswer {
        report_id: id.to_string(),
    });
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], body).into_response())
}

async fn get_report(State(api): State<Api>, method: Method, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    file::send(&api, query::report_id(&uri)?, &method, &headers).await
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
    let body = body_in_time(request.into_body(), BODY_MAX, BODY_BYTES_MAX).await?;
    match body.trim_ascii() {
        b"" | b"{}" => Ok(()),
        _ => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "bad-body",
            "Unexpected body",
            "expected no body: as_of, windows and the other options go in the query",
        )),
    }
}

/// A body of at most `bytes_max`, which must come within `patience`.
async fn body_in_time(body: Body, patience: Duration, bytes_max: usize) -> Result<Bytes, Problem> {
    match tokio::time::timeout(patience, to_bytes(body, bytes_max)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error))
            if error
                .source()
                .is_some_and(<dyn std::error::Error>::is::<LengthLimitError>) =>
        {
            let detail = format!("expected a body of at most {bytes_max} bytes");
            Err(Problem::plain(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Ok(Err(error)) => Err(Problem::plain(
            StatusCode::BAD_REQUEST,
            format!("expected a whole body: {error}"),
        )),
        Err(_) => {
            let detail = format!("expected the whole body within {} s", patience.as_secs());
            Err(Problem::plain(StatusCode::REQUEST_TIMEOUT, detail))
        }
    }
}

fn not_ready(reason: String) -> Problem {
    let (status, kind) = (StatusCode::SERVICE_UNAVAILABLE, "not-ready");
    Problem::new(status, kind, "Not ready", reason).retry_after(1)
}

/// Requests that met a database that is away, and reports that could not be read: any number may come.
static AWAY: Seldom = Seldom::new();
static UNREADABLE: Seldom = Seldom::new();

fn database_away(error: &(dyn std::error::Error + 'static)) -> Problem {
    if let Some(untold) = AWAY.happened(Instant::now()) {
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
            TriggerError::DaysNotCovered(_) => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "days-not-covered",
                "Days not covered",
                format!("query parameters from and to: {detail}"),
            ),
            TriggerError::TooBusy => {
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-busy", "Too many reports", detail).retry_after(1)
            }
            TriggerError::Table(error) => database_away(&*error),
            TriggerError::Stopped => Problem::plain(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(2),
        }
    }
}

impl From<FetchError> for Problem {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Table(error) => database_away(&error),
            FetchError::Archive { report_id, error } => {
                let (status, kind) = (StatusCode::INTERNAL_SERVER_ERROR, "archive-failed");
                let reason = error.public_reason();
                if let Some(untold) = UNREADABLE.happened(Instant::now()) {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(%report_id, error, untold, "unreadable report");
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

/// Headers of every answer: nobody guesses at content types, and no page of another origin takes it in, as a script or a
/// picture, with a login that the browser sends by itself.
const ALWAYS: [(&str, &str); 2] = [
    ("x-content-type-options", "nosniff"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// Counts and logs each request.
async fn observe(State(rules): State<Arc<Rules>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    // All that is no route is one label, so that strangers cannot make up metrics.
    let route = matched(&request).and_then(|path| rules.known(path)).unwrap_or("other");
    let chunked = access::is_chunked(&request);
    let mut response = next.run(request).await;
    if chunked {
        response.headers_mut().extend([access::CLOSE]);
    }
    for (name, value) in ALWAYS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    let status = response.status().as_u16();
    metrics::counter!("uptally_http_requests_total", "route" => route, "status" => status.to_string()).increment(1);
    metrics::histogram!("uptally_http_request_seconds", "route" => route).record(started.elapsed());
    tracing::debug!(%method, route, status, elapsed = ?started.elapsed(), "request");
    response
}

/// The path of a request's route as it stands in the table.
fn matched(request: &Request) -> Option<&str> {
    request.extensions().get::<MatchedPath>().map(MatchedPath::as_str)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use axum::routing::get;
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
