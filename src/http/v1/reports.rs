//! `/api/v1/reports`: triggering, the list, one, and its file.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::http::problem::Problem;
use crate::http::query::{self, Given, Param};
use crate::http::{Api, Asked, database_away, file, refuse_body};
use crate::report::{Report, ReportRequest, ReportState};
use crate::time::Timestamp;

const LIMIT: usize = 20;
const LIMIT_MAX: usize = 100;

/// What the list takes.
pub(in crate::http) const LIST: &[Param] = &[
    Param::new(
        "limit",
        "So many at most.",
        || json!({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT}),
    ),
    Param::new(
        "before",
        "Only those that were triggered before this instant: the last `requested_at` of a page leads to the next one.",
        query::instant,
    ),
];

/// A report.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::http) struct ReportAnswer {
    /// Its name.
    #[schemars(extend("format" = "uuid"))]
    pub(in crate::http) report_id: String,
    /// How far it is.
    pub(in crate::http) state: ReportState,
    /// When it was triggered.
    pub(in crate::http) requested_at: Timestamp,
    /// The instant that its windows count back from; null while a report of the newest observation runs.
    pub(in crate::http) as_of: Option<Timestamp>,
    /// What day and week mean.
    pub(in crate::http) windows: String,
    /// What time outside opening hours counts as.
    pub(in crate::http) closed: String,
    /// What kind of file it is.
    pub(in crate::http) format: String,
    /// Which columns it has.
    pub(in crate::http) columns: String,
    /// The first day of a report over days.
    #[schemars(extend("format" = "date"))]
    pub(in crate::http) from: Option<String>,
    /// The first day that does not belong to it any more.
    #[schemars(extend("format" = "date"))]
    pub(in crate::http) to: Option<String>,
    /// Rows of the file.
    pub(in crate::http) stores: Option<u64>,
    /// Length of the file.
    pub(in crate::http) bytes: Option<u64>,
    /// How long making it took.
    pub(in crate::http) duration_us: Option<u64>,
    /// When it ended.
    pub(in crate::http) finished_at: Option<Timestamp>,
    /// Why it failed, if it did.
    pub(in crate::http) failure: Option<String>,
    /// The job that it was made for; null: somebody asked for it.
    pub(in crate::http) job: Option<String>,
    /// The instant at which it was due.
    pub(in crate::http) due_at: Option<Timestamp>,
    /// When its file was removed, because the job keeps no more or none as old.
    pub(in crate::http) removed_at: Option<Timestamp>,
    /// Where its file is, once it is complete.
    pub(in crate::http) file: String,
}

/// Reports, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::http) struct ReportList {
    /// Those of this page.
    pub(in crate::http) reports: Vec<ReportAnswer>,
}

impl From<Report> for ReportAnswer {
    fn from(report: Report) -> Self {
        ReportAnswer {
            report_id: report.report_id.to_string(),
            file: format!("/api/v1/reports/{}/file", report.report_id),
            state: report.state,
            requested_at: report.requested_at,
            as_of: report.as_of,
            windows: report.windows,
            closed: report.closed,
            format: report.format,
            columns: report.columns,
            from: report.days.map(|(from, _)| from.to_string()),
            to: report.days.map(|(_, to)| to.to_string()),
            stores: report.stores,
            bytes: report.bytes,
            duration_us: report.duration_us,
            finished_at: report.finished_at,
            failure: report.failure,
            due_at: report.due.as_ref().map(|(_, at)| *at),
            job: report.due.map(|(job, _)| job),
            removed_at: report.removed_at,
        }
    }
}

/// Triggers a report.
pub(in crate::http) async fn trigger(api: &Api, request: ReportRequest) -> Result<ReportAnswer, Problem> {
    let triggered = api.registry.trigger(request).await?;
    report(api, triggered.report_id).await
}

/// A report as its row says it.
pub(in crate::http) async fn report(api: &Api, id: Uuid) -> Result<ReportAnswer, Problem> {
    let found = api.registry.report(id).await.map_err(|error| database_away(&error))?;
    found.map(ReportAnswer::from).ok_or_else(|| file::unknown(id))
}

/// The newest reports of those that were triggered before an instant.
pub(in crate::http) async fn reports(
    api: &Api,
    limit: usize,
    before: Option<Timestamp>,
) -> Result<ReportList, Problem> {
    let before = before.unwrap_or(Timestamp::MAX);
    let found = api
        .registry
        .newest(before, u32::try_from(limit).unwrap_or(u32::MAX))
        .await;
    let found = found.map_err(|error| database_away(&error))?;
    Ok(ReportList {
        reports: found.into_iter().map(ReportAnswer::from).collect(),
    })
}

/// What the list is asked for with.
pub(in crate::http) fn list_query(uri: &Uri) -> Result<(usize, Option<Timestamp>), Problem> {
    let given = Given::read(uri, LIST)?;
    let limit = given.number("limit", 1..=LIMIT_MAX)?.unwrap_or(LIMIT);
    Ok((limit, given.parsed("before")?))
}

pub(in crate::http) async fn post_report(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let options = query::report_request(request.uri(), api.defaults)?;
    refuse_body(request).await?;
    let report = trigger(&api, options).await?;
    let location = format!("/api/v1/reports/{}", report.report_id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(report)).into_response())
}

pub(in crate::http) async fn get_reports(api: Api, asked: Asked) -> Result<ReportList, Problem> {
    let (limit, before) = list_query(&asked.uri)?;
    reports(&api, limit, before).await
}

pub(in crate::http) async fn get_report(api: Api, asked: Asked) -> Result<ReportAnswer, Problem> {
    Given::read(&asked.uri, &[])?;
    report(&api, id_of(&asked)?).await
}

pub(in crate::http) async fn get_file(
    State(api): State<Api>,
    method: Method,
    headers: HeaderMap,
    asked: Asked,
) -> Result<Response, Problem> {
    Given::read(&asked.uri, &[])?;
    file::send(&api, id_of(&asked)?, &method, &headers).await
}

/// The report that a path names.
pub(in crate::http) fn id_of(asked: &Asked) -> Result<Uuid, Problem> {
    let text = asked.id()?;
    // No other spelling of a UUID is at this path.
    let id = Uuid::try_parse(text).ok().filter(|id| id.to_string() == text);
    id.ok_or_else(|| {
        let detail = "no report has such an id: expected a UUID as the trigger returned it";
        Problem::new(StatusCode::NOT_FOUND, "unknown-report", "Unknown report", detail)
    })
}
