//! Query strings, read strictly: a parameter that is unknown, given twice or not understood is an
//! error that names it. A misspelt option that is ignored would be a wrong report.

use axum::http::{StatusCode, Uri};
use url::form_urlencoded;
use uuid::Uuid;

use super::problem::Problem;
use crate::report::ReportRequest;

/// Characters of a refused value that are repeated to the client.
const ECHO_CHARS_MAX: usize = 64;

/// The options of `/trigger_report`; those not given are `defaults`.
pub(super) fn report_request(uri: &Uri, defaults: ReportRequest) -> Result<ReportRequest, Problem> {
    let mut request = defaults;
    for (name, value) in parameters(uri, &["as_of", "windows", "closed"])? {
        let understood = match name.as_str() {
            "as_of" => value.parse().map(|v| request.as_of = v).map_err(text),
            "windows" => value.parse().map(|v| request.windows = v).map_err(text),
            _ => value.parse().map(|v| request.closed = v).map_err(text),
        };
        understood.map_err(|expected| bad_value(&name, &expected, &value))?;
    }
    Ok(request)
}

/// The `report_id` of `/get_report`.
pub(super) fn report_id(uri: &Uri) -> Result<Uuid, Problem> {
    match parameters(uri, &["report_id"])?.pop() {
        Some((name, value)) => {
            Uuid::try_parse(&value).map_err(|_| bad_value(&name, "expected the UUID that the trigger returned", &value))
        }
        None => Err(bad("expected the query parameter report_id, found none")),
    }
}

/// The parameters in their order, each one of `accepted` and there once.
fn parameters(uri: &Uri, accepted: &[&str]) -> Result<Vec<(String, String)>, Problem> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if !accepted.contains(&name.as_ref()) {
            return Err(bad(format!(
                "expected no query parameter but {}, found {:?}",
                accepted.join(", "),
                echo(&name)
            )));
        }
        if found.iter().any(|(earlier, _)| *earlier == name) {
            return Err(bad(format!("expected query parameter {name} once, found it twice")));
        }
        found.push((name.into_owned(), value.into_owned()));
    }
    Ok(found)
}

fn bad_value(name: &str, expected: &str, value: &str) -> Problem {
    let found = echo(value);
    bad(format!("query parameter {name}: {expected}, found {found:?}"))
}

fn bad(detail: impl Into<String>) -> Problem {
    let (status, title) = (StatusCode::BAD_REQUEST, "Bad query parameter");
    Problem::new(status, "bad-parameter", title, detail)
}

fn echo(value: &str) -> String {
    let mut shown: String = value.chars().take(ECHO_CHARS_MAX).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    shown
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
