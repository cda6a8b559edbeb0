//! `POST /api/v1/activity`: observations from pollers that speak HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_postgres::error::SqlState;

use crate::http::problem::Problem;
use crate::http::query::Given;
use crate::http::{Api, body_in_time, database_away};
use crate::import::{BodyFormat, Posted, PostedError, PostedSummary, Reject};
use crate::live::blocking;

/// Rejected rows that are listed.
const REJECTS_LISTED_MAX: usize = 100;

/// What a body of JSON lines is.
pub(in crate::http) const JSON_LINES: &str = "A JSON object a line with the texts store_id, timestamp_utc (RFC 3339, or 2023-01-22 12:09:39.388884 UTC) and status \
     (active or inactive).";

/// How long a body may take to arrive.
pub(in crate::http) const BODY_MAX: Duration = Duration::from_secs(20);

/// Bodies that are in memory at a time.
const BODIES_MAX: usize = 8;

/// Turns to have a body in memory. Who waits for one sends no more than fits the line.
#[derive(Debug, Clone)]
pub(in crate::http) struct Bodies(Arc<Semaphore>);

impl Default for Bodies {
    fn default() -> Self {
        Bodies(Arc::new(Semaphore::new(BODIES_MAX)))
    }
}

/// What a body may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivityLimits {
    /// Bytes.
    pub body_bytes_max: usize,
    /// Rows.
    pub rows_max: u64,
}

impl Default for ActivityLimits {
    fn default() -> Self {
        ActivityLimits {
            body_bytes_max: 10_000_000,
            rows_max: 100_000,
        }
    }
}

/// What became of the rows of a body.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::http) struct Taken {
    /// Rows, good or bad: the sum of the four that follow.
    read: u64,
    /// Rows that were not there.
    new: u64,
    /// Rows whose status was another one.
    corrected: u64,
    /// Rows that were there already, or that a later one of the body says otherwise.
    unchanged: u64,
    /// Rows that are not right. The others are taken.
    rejected: u64,
    /// The first of those, at most 100.
    rejects: Vec<Rejected>,
}

/// A row that is not right.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::http) struct Rejected {
    /// The line of the body, from 1.
    line: u64,
    /// The field, or `row` if the whole line is at fault.
    field: &'static str,
    /// What was expected, and what was found.
    problem: String,
}

impl From<&Reject> for Rejected {
    fn from(reject: &Reject) -> Self {
        Rejected {
            line: reject.line,
            field: reject.field,
            problem: reject.reason(),
        }
    }
}

pub(in crate::http) async fn post_activity(
    State(api): State<Api>,
    Extension(Bodies(bodies)): Extension<Bodies>,
    request: Request,
) -> Result<Json<Taken>, Problem> {
    Given::read(request.uri(), &[])?;
    let format = format(request.headers())?;
    // Held until the body is written.
    let turn = bodies.acquire().await;
    let _turn = turn.map_err(|_| Problem::plain(StatusCode::SERVICE_UNAVAILABLE, "the service is shutting down"))?;
    let ActivityLimits {
        body_bytes_max,
        rows_max,
    } = api.activity;
    let body = body_in_time(request.into_body(), BODY_MAX, body_bytes_max).await?;
    let parse = move || Posted::parse(&body, format, rows_max, REJECTS_LISTED_MAX);
    let posted = blocking(parse).await?.map_err(|error| refused(&error))?;
    let PostedSummary {
        new,
        corrected,
        unchanged,
    } = write(&api, &posted).await?;
    Ok(Json(Taken {
        read: posted.read,
        new,
        corrected,
        unchanged,
        rejected: posted.rejected,
        rejects: posted.rejects.iter().map(Rejected::from).collect(),
    }))
}

async fn write(api: &Api, posted: &Posted) -> Result<PostedSummary, Problem> {
    let session = api
        .live
        .sessions()
        .lend()
        .await
        .map_err(|error| database_away(&error))?;
    let written = posted.write(&session.client).await;
    match written {
        Ok(summary) => {
            session.give_back();
            Ok(summary)
        }
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            session.give_back();
            let detail = "the daemon's role may not write public.store_activity; `uptally migrate --grant-poller ROLE` \
                          grants it";
            let (status, kind) = (StatusCode::SERVICE_UNAVAILABLE, "writing-not-granted");
            Err(Problem::new(status, kind, "Writing not granted", detail))
        }
        Err(error) => Err(database_away(&error)),
    }
}

/// What the head says that the body is.
fn format(headers: &HeaderMap) -> Result<BodyFormat, Problem> {
    let unsupported = |detail: &str| Problem::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(unsupported("expected a body without Content-Encoding"));
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type
        .and_then(|text| text.split(';').next())
        .unwrap_or_default()
        .trim();
    match essence {
        _ if essence.eq_ignore_ascii_case("application/x-ndjson") => Ok(BodyFormat::JsonLines),
        _ if essence.eq_ignore_ascii_case("text/csv") => Ok(BodyFormat::Csv),
        _ => Err(unsupported(
            "expected Content-Type: application/x-ndjson (a JSON object a line) or text/csv (with a header)",
        )),
    }
}

fn refused(error: &PostedError) -> Problem {
    let detail = error.to_string();
    match error {
        PostedError::TooManyRows(_) => Problem::plain(StatusCode::PAYLOAD_TOO_LARGE, detail),
        PostedError::Header(_) => Problem::new(StatusCode::BAD_REQUEST, "bad-body", "Unreadable body", detail),
    }
}
