//! The file of a report: whole, in part, smaller, or not at all because the client has it.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use uuid::Uuid;

use super::encode::encoded;
use super::negotiate::{Coding, Selected, select};
use super::problem::Problem;
use super::{Api, RunningAnswer};
use crate::report::{Found, Opened, ReportFile};

/// What is answered to whoever asks for a report's file.
pub(super) async fn send(api: &Api, id: Uuid, method: &Method, asked: &HeaderMap) -> Result<Response, Problem> {
    let file = match api.registry.find(id).await? {
        Found::Complete(file) => file,
        Found::Running => {
            let later = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
            let body = Json(RunningAnswer { status: "Running" });
            return Ok((StatusCode::ACCEPTED, later, body).into_response());
        }
        Found::Unknown => return Err(unknown(id)),
        Found::Failed { reason } => {
            let (status, kind) = (StatusCode::INTERNAL_SERVER_ERROR, "report-failed");
            return Err(Problem::new(status, kind, "Report failed", reason));
        }
    };
    let is_get = method == Method::GET;
    let selected = select(asked, is_get, &file.entity_tag, file.bytes);
    let (part, coding) = match selected {
        Selected::Whole(coding) => (None, coding),
        Selected::Part { first, last } => (Some(first..last + 1), Coding::Identity),
        Selected::NotModified(coding) => {
            let headers = headers_of(&file, coding)?;
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        Selected::OutOfRange => return Err(out_of_range(file.bytes)),
        Selected::PreconditionFailed => {
            let (status, kind) = (StatusCode::PRECONDITION_FAILED, "another-file");
            let detail = "the file is not one of those that If-Match names";
            return Err(Problem::new(status, kind, "Another file", detail));
        }
    };
    let mut headers = headers_of(&file, coding)?;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.format.media_type()));
    let name = format!("attachment; filename=\"uptally-report-{id}.{}\"", file.format.as_str());
    headers.insert(header::CONTENT_DISPOSITION, text(name)?);
    let mut status = StatusCode::OK;
    if coding == Coding::Identity {
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::CONTENT_LENGTH, file.bytes.into());
    }
    if let Some(part) = &part {
        status = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {}-{}/{}", part.start, part.end - 1, file.bytes);
        headers.insert(header::CONTENT_RANGE, text(range)?);
        headers.insert(header::CONTENT_LENGTH, (part.end - part.start).into());
    }
    if !is_get {
        // It is left to whoever fetches it, but must be there.
        return match api.registry.fault(&file).await? {
            None => Ok((status, headers, Body::empty()).into_response()),
            Some(reason) => Err(gone(reason)),
        };
    }
    let stored = match api.registry.open(&file, part).await? {
        Opened::File(stored) => stored,
        Opened::Gone { reason } => return Err(gone(reason)),
    };
    let body = encoded(stored.stream, coding).map_err(|error| internal(&error))?;
    // The client sees a body that breaks off; why, the log says.
    let body = body.inspect(|piece| {
        if let Err(error) = piece {
            tracing::error!(error = error as &dyn std::error::Error, "a report's file broke off");
        }
    });
    Ok((status, headers, Body::from_stream(body)).into_response())
}

/// What is so of a file in a form, whatever is sent of it.
fn headers_of(file: &ReportFile, coding: Coding) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, text(coding.entity_tag(&file.entity_tag))?);
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    // It may be kept, by whoever asked for it, and asked about.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Some(name) = coding.name() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    Ok(headers)
}

fn out_of_range(bytes: u64) -> Problem {
    let (status, kind) = (StatusCode::RANGE_NOT_SATISFIABLE, "range-not-there");
    let detail = format!("expected a range within the {bytes} bytes of the file");
    let problem = Problem::new(status, kind, "Range not there", detail);
    problem.header(header::CONTENT_RANGE, format!("bytes */{bytes}"))
}

fn gone(reason: &str) -> Problem {
    let (status, kind) = (StatusCode::GONE, "report-gone");
    Problem::new(status, kind, "Report gone", reason)
}

/// No report has this id.
pub(super) fn unknown(id: Uuid) -> Problem {
    let detail = format!("no report has the id {id}");
    Problem::new(StatusCode::NOT_FOUND, "unknown-report", "Unknown report", detail)
}

fn text(value: String) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(value).map_err(|error| internal(&error))
}

fn internal(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::error!(error, "a report's file cannot be sent");
    Problem::plain(StatusCode::INTERNAL_SERVER_ERROR, "an internal error")
}
