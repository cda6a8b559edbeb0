//! Query strings, read strictly: a parameter that is unknown, given twice or not understood is an
//! error that names it. A misspelt option that is ignored would be a wrong report.
//!
//! What a request takes is a list of [`Param`], by which it is read and documented.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::http::{StatusCode, Uri};
use chrono::NaiveDate;
use serde_json::{Value, json};
use url::form_urlencoded;
use uuid::Uuid;

use super::problem::Problem;
use crate::report::ReportRequest;
use crate::text::quoted;
use crate::window::{DateRange, DateRangeError};

/// Characters of a refused value that are repeated to the client.
const ECHO_CHARS_MAX: usize = 64;

/// A parameter of a query string.
#[derive(Debug, Clone, Copy)]
pub(super) struct Param {
    pub(super) name: &'static str,
    /// What it says, in a sentence.
    pub(super) what: &'static str,
    /// The schema of its value.
    pub(super) schema: fn() -> Value,
    pub(super) required: bool,
}

impl Param {
    /// One that may be left out.
    pub(super) const fn new(name: &'static str, what: &'static str, schema: fn() -> Value) -> Self {
        Param {
            name,
            what,
            schema,
            required: false,
        }
    }

    /// One that may not.
    pub(super) const fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

/// The largest number of a parameter that has no other bound: what every JSON library still counts by one.
pub(super) const NUMBER_MAX: usize = (1 << 53) - 1;

/// The schema of an instant that the tables accept.
pub(super) fn instant() -> Value {
    json!({"type": "string", "format": "date-time", "pattern": "^20[0-9]{2}-"})
}

/// Which windows.
pub(super) const WINDOWS: Param = Param::new(
    "windows",
    "What day and week mean: calendar (the last full local ones) or rolling (the last 24 and 168 complete hours).",
    || json!({"type": "string", "enum": ["calendar", "rolling"]}),
);

/// What `/trigger_report` takes.
pub(super) const REPORT: &[Param] = &[
    Param::new(
        "as_of",
        "The instant that the windows count back from: now, latest (the newest observation) or an RFC 3339 instant.",
        || json!({"anyOf": [{"type": "string", "enum": ["now", "latest"]}, instant()]}),
    ),
    WINDOWS,
    Param::new(
        "closed",
        "What time outside opening hours counts as.",
        || json!({"type": "string", "enum": ["uptime", "excluded"]}),
    ),
    FORMAT,
    COLUMNS,
    Param::new(
        "from",
        "A report over days in place of the windows: the first day, each store's own. With to; without windows, closed and columns.",
        date,
    ),
    Param::new("to", "The first day that does not belong to it any more.", date),
];

/// The schema of a day that the tables accept.
pub(super) fn date() -> Value {
    json!({"type": "string", "format": "date", "pattern": "^(20[0-9]{2}|2100)-"})
}

/// What kind of file a report is, and what is in it.
const FORMAT: Param = Param::new(
    "format",
    "What kind of file it is.",
    || json!({"type": "string", "enum": ["csv", "json"], "default": "csv"}),
);
const COLUMNS: Param = Param::new(
    "columns",
    "default: uptime and downtime. extended: how well each store was observed, too.",
    || json!({"type": "string", "enum": ["default", "extended"], "default": "default"}),
);

/// What `/get_report` takes.
pub(super) const REPORT_ID: &[Param] = &[Param::new(
    "report_id",
    "The id that the trigger returned.",
    || json!({"type": "string", "format": "uuid"}),
)
.required()];

/// The options of a report; those not given are `defaults`.
pub(super) fn report_request(uri: &Uri, defaults: ReportRequest) -> Result<ReportRequest, Problem> {
    let given = Given::read(uri, REPORT)?;
    let days = days(&given)?;
    if let (Some(_), Some(other)) = (
        days,
        ["windows", "closed", "columns"]
            .into_iter()
            .find(|name| given.text(name).is_some()),
    ) {
        return Err(bad(format!(
            "expected no query parameter {other} beside from and to: a report over days has columns of its own"
        )));
    }
    Ok(ReportRequest {
        as_of: given.parsed("as_of")?.unwrap_or(defaults.as_of),
        windows: given.parsed("windows")?.unwrap_or(defaults.windows),
        closed: given.parsed("closed")?.unwrap_or(defaults.closed),
        format: given.parsed("format")?.unwrap_or(defaults.format),
        columns: given.parsed("columns")?.unwrap_or(defaults.columns),
        days,
    })
}

/// The days from `from` to `to`, if they are given.
pub(super) fn days(given: &Given) -> Result<Option<DateRange>, Problem> {
    let day = |name| -> Result<Option<NaiveDate>, Problem> {
        let Some(text) = given.text(name) else { return Ok(None) };
        // Other spellings parse as well.
        let date = text.parse::<NaiveDate>().ok().filter(|date| date.to_string() == text);
        date.map(Some)
            .ok_or_else(|| bad_value(name, "expected a date such as 2026-10-01", text))
    };
    match (day("from")?, day("to")?) {
        (None, None) => Ok(None),
        (Some(from), Some(to)) => {
            let days = DateRange::new(from, to);
            days.map(Some).map_err(|error| {
                let is_from = matches!(error, DateRangeError::Range { day } if day == from);
                let name = if is_from { "from" } else { "to" };
                bad_value(name, &error.to_string(), given.text(name).unwrap_or_default())
            })
        }
        (from, _) => {
            let (there, missing) = if from.is_some() { ("from", "to") } else { ("to", "from") };
            Err(bad(format!(
                "expected the query parameter {missing} beside {there}, found none"
            )))
        }
    }
}

/// The `report_id` of `/get_report`.
pub(super) fn report_id(uri: &Uri) -> Result<Uuid, Problem> {
    match Given::read(uri, REPORT_ID)?.text("report_id") {
        Some(value) => Uuid::try_parse(value)
            .map_err(|_| bad_value("report_id", "expected the UUID that the trigger returned", value)),
        None => Err(bad("expected the query parameter report_id, found none")),
    }
}

/// The parameters of a request, each one that it takes and there once.
pub(super) struct Given(Vec<(String, String)>);

impl Given {
    pub(super) fn read(uri: &Uri, accepted: &[Param]) -> Result<Self, Problem> {
        let mut found: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if !accepted.iter().any(|param| param.name == name) {
                return Err(not_accepted(accepted, &name));
            }
            if found.iter().any(|(earlier, _)| *earlier == name) {
                return Err(bad(format!("expected query parameter {name} once, found it twice")));
            }
            found.push((name.into_owned(), value.into_owned()));
        }
        Ok(Given(found))
    }

    /// The value of a parameter, if it is given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The same, understood.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        let parse = |value: &str| {
            let parsed = value.parse();
            parsed.map_err(|expected: T::Err| bad_value(name, &expected.to_string(), value))
        };
        self.text(name).map(parse).transpose()
    }

    /// A whole number within a range.
    pub(super) fn number(&self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, Problem> {
        let parse = |value: &str| {
            // "+7" would parse.
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            let number = value.parse().ok().filter(|number| digits && range.contains(number));
            number.ok_or_else(|| {
                let (min, max) = (range.start(), range.end());
                let expected = if *max == NUMBER_MAX {
                    format!("expected a whole number from {min} on")
                } else {
                    format!("expected a whole number from {min} to {max}")
                };
                bad_value(name, &expected, value)
            })
        };
        self.text(name).map(parse).transpose()
    }
}

fn not_accepted(accepted: &[Param], name: &str) -> Problem {
    let names: Vec<&str> = accepted.iter().map(|param| param.name).collect();
    let expected = if names.is_empty() {
        "expected no query parameter".to_owned()
    } else {
        format!("expected no query parameter but {}", names.join(", "))
    };
    bad(format!("{expected}, found {}", quoted(name, ECHO_CHARS_MAX)))
}

pub(super) fn bad_value(name: &str, expected: &str, value: &str) -> Problem {
    let found = quoted(value, ECHO_CHARS_MAX);
    bad(format!("query parameter {name}: {expected}, found {found}"))
}

pub(super) fn bad(detail: impl Into<String>) -> Problem {
    let (status, title) = (StatusCode::BAD_REQUEST, "Bad query parameter");
    Problem::new(status, "bad-parameter", title, detail)
}
