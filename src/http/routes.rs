//! The one table of routes: what is at which path, who may ask for it, and what the documentation says of it.
//!
//! The router, the rule of who is let in, the labels of the metrics and `/openapi.json` are made from it, and the schema of
//! an answer is that of the type that its handler returns: none of them can say something else than what is so.

use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json, Router};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::access::Scope;
use super::problem::Problem;
use super::query::{self, Param};
use super::v1::{activity, fleet, reports, stores};
use super::{Api, docs, events, get_report, metrics_text, openapi, page, readyz, trigger_report};

/// One method of one path.
pub(super) struct Route {
    /// The path; `{name}` stands for one part of it.
    pub(super) path: &'static str,
    /// GET is HEAD too.
    pub(super) method: Method,
    pub(super) rule: Rule,
    handler: MethodRouter<Api>,
    /// None: not for programs.
    pub(super) doc: Option<Doc>,
}

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// The scope that is needed; none: anybody may ask.
    pub(super) scope: Option<Scope>,
    /// Whether people open it in a browser, which is then told how to log in by itself.
    pub(super) for_browsers: bool,
}

impl Rule {
    /// Of paths where nothing is.
    pub(super) const ELSEWHERE: Rule = Rule {
        scope: Some(Scope::Read),
        for_browsers: false,
    };
}

/// What the documentation says of a route.
pub(super) struct Doc {
    /// A name for programs.
    pub(super) id: &'static str,
    /// A line.
    pub(super) summary: &'static str,
    pub(super) query: &'static [Param],
    /// What the part of the path says, and its schema.
    pub(super) in_path: Option<InPath>,
    /// Media types of the body, and what it is.
    pub(super) body: &'static [(&'static str, &'static str)],
    pub(super) answers: Vec<Answer>,
    /// Statuses of problems, beside those that every route has, and when they come.
    pub(super) problems: &'static [(u16, &'static str)],
}

/// A part of the path that differs.
#[derive(Debug, Clone, Copy)]
pub(super) struct InPath {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) schema: fn() -> serde_json::Value,
}

/// An answer that is no problem.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) what: &'static str,
    /// Empty: there is no body.
    pub(super) media_type: &'static str,
    /// The schema of its body; none for a text.
    pub(super) schema: Option<fn(&mut SchemaGenerator) -> Schema>,
}

/// What a handler gets of a request.
pub(super) struct Asked {
    pub(super) uri: Uri,
    in_path: Option<String>,
}

impl Asked {
    /// The part of the path that names something.
    pub(super) fn id(&self) -> Result<&str, Problem> {
        let none = || Problem::plain(StatusCode::NOT_FOUND, "nothing is at this path");
        self.in_path.as_deref().ok_or_else(none)
    }
}

impl FromRequest<Api> for Asked {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let uri = request.uri().clone();
        // Refused only where it is no text.
        let in_path = Option::<Path<String>>::from_request(request, api).await;
        let in_path = in_path.map_err(|_| Problem::plain(StatusCode::BAD_REQUEST, "expected a path of UTF-8 text"))?;
        Ok(Asked {
            uri,
            in_path: in_path.map(|Path(part)| part),
        })
    }
}

impl Route {
    fn new(method: Method, path: &'static str, handler: MethodRouter<Api>) -> Self {
        Route {
            path,
            method,
            rule: Rule::ELSEWHERE,
            handler,
            doc: None,
        }
    }

    /// A GET that answers 200 with what `handler` returns as JSON.
    fn json<T, F>(
        path: &'static str,
        doc: Doc,
        handler: impl Fn(Api, Asked) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        T: Serialize + JsonSchema,
        F: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        let handler = async move |State(api): State<Api>, asked: Asked| {
            let fresh = [(header::CACHE_CONTROL, "no-store")];
            handler(api, asked).await.map(|answer| (fresh, Json(answer)))
        };
        Route::new(Method::GET, path, get(handler)).documented(doc.json::<T>(200, "The answer."))
    }

    fn documented(mut self, doc: Doc) -> Self {
        self.doc = Some(doc);
        self
    }

    fn needs(mut self, scope: Option<Scope>) -> Self {
        self.rule.scope = scope;
        self
    }

    fn for_browsers(mut self) -> Self {
        self.rule.for_browsers = true;
        self
    }
}

impl Doc {
    const fn new(id: &'static str, summary: &'static str) -> Self {
        Doc {
            id,
            summary,
            query: &[],
            in_path: None,
            body: &[],
            answers: Vec::new(),
            problems: &[],
        }
    }

    fn query(mut self, query: &'static [Param]) -> Self {
        self.query = query;
        self
    }

    fn in_path(mut self, in_path: InPath) -> Self {
        self.in_path = Some(in_path);
        self
    }

    fn body(mut self, body: &'static [(&'static str, &'static str)]) -> Self {
        self.body = body;
        self
    }

    fn json<T: JsonSchema>(mut self, status: u16, what: &'static str) -> Self {
        self.answers.push(Answer {
            status,
            what,
            media_type: "application/json",
            schema: Some(SchemaGenerator::subschema_for::<T>),
        });
        self
    }

    fn text(mut self, status: u16, what: &'static str, media_type: &'static str) -> Self {
        self.answers.push(Answer {
            status,
            what,
            media_type,
            schema: None,
        });
        self
    }

    fn nothing(mut self, status: u16, what: &'static str) -> Self {
        self.answers.push(Answer {
            status,
            what,
            media_type: "",
            schema: None,
        });
        self
    }

    fn problems(mut self, problems: &'static [(u16, &'static str)]) -> Self {
        self.problems = problems;
        self
    }
}

const STORE_ID: InPath = InPath {
    name: "store_id",
    what: "The store's id, percent-encoded.",
    schema: || serde_json::json!({"type": "string", "minLength": 1}),
};

const REPORT_ID: InPath = InPath {
    name: "report_id",
    what: "The id that the trigger returned.",
    schema: || serde_json::json!({"type": "string", "format": "uuid"}),
};

const NOT_READY: (u16, &str) = (503, "The numbers are not loaded, or the database is away.");
const BAD_QUERY: (u16, &str) = (400, "A query parameter is unknown, doubled or not understood.");
const DATABASE_AWAY: (u16, &str) = (503, "The database is away.");
const NO_REPORT: (u16, &str) = (404, "No report has this id.");
const FILE_PROBLEMS: &[(u16, &str)] = &[
    (
        400,
        "The id is missing or malformed, or there is another query parameter.",
    ),
    NO_REPORT,
    (410, "The report's file is gone."),
    (412, "The file is none of those that If-Match names."),
    (416, "The file has no such bytes."),
    (500, "The report failed, or its file cannot be read."),
    DATABASE_AWAY,
];
const NO_STORE: (u16, &str) = (404, "No table knows the store.");

/// All routes.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::json(
            "/api/v1/fleet",
            Doc::new("fleet", "What all stores do now, and their sums")
                .query(fleet::FLEET)
                .problems(&[BAD_QUERY, NOT_READY]),
            fleet::get_fleet,
        ),
        Route::json(
            "/api/v1/fleet/history",
            Doc::new("fleetHistory", "The last UTC hours of all stores together")
                .query(fleet::HISTORY)
                .problems(&[BAD_QUERY, NOT_READY]),
            fleet::get_history,
        ),
        Route::json(
            "/api/v1/stores",
            Doc::new("stores", "Stores by state, zone or part of their id, in some order")
                .query(stores::LIST)
                .problems(&[BAD_QUERY, NOT_READY]),
            stores::get_stores,
        ),
        Route::json(
            "/api/v1/stores/{store_id}",
            Doc::new("store", "Everything about one store")
                .in_path(STORE_ID)
                .query(fleet::FLEET)
                .problems(&[BAD_QUERY, NO_STORE, NOT_READY]),
            stores::get_store,
        ),
        Route::json(
            "/api/v1/stores/{store_id}/hours",
            Doc::new("storeHours", "A store's buckets by hour or day")
                .in_path(STORE_ID)
                .query(stores::HOURS)
                .problems(&[
                    (400, "A query parameter is unknown, doubled or not understood, or there are more than 10,000 buckets."),
                    NO_STORE,
                    (422, "The stretch begins before the first bucket."),
                    NOT_READY,
                ]),
            stores::get_hours,
        ),
        Route::json(
            "/api/v1/stores/{store_id}/uptime",
            Doc::new("storeUptime", "A store over whole days of its own clock, as many as the rollups cover")
                .in_path(STORE_ID)
                .query(stores::DAYS)
                .problems(&[
                    BAD_QUERY,
                    NO_STORE,
                    (422, "The days are not covered, or lie in the future."),
                    NOT_READY,
                ]),
            stores::get_uptime,
        ),
        Route::new(Method::GET, "/api/v1/events", get(events::get_events)).documented(
            Doc::new("events", "What happens, as it happens")
                .query(events::EVENTS)
                .text(200, events::WHAT, "text/event-stream")
                .problems(&[
                    BAD_QUERY,
                    (503, "As many subscribers as are allowed are there, or the service ends."),
                ]),
        ),
        Route::new(
            Method::POST,
            "/api/v1/activity",
            post(activity::post_activity).layer(Extension(activity::Bodies::default())),
        )
        .needs(Some(Scope::Write))
        .documented(
            Doc::new("postActivity", "Writes observations, all good rows or none; twice is as once")
                .body(&[
                    ("application/x-ndjson", activity::JSON_LINES),
                    ("text/csv", "A header with store_id, timestamp_utc and status, and rows."),
                ])
                .json::<activity::Taken>(200, "The good rows are written, durably; the others are told.")
                .problems(&[
                    (400, "There is a query parameter, or the CSV has no such header."),
                    (408, "The body did not come in time."),
                    (413, "The body has too many bytes or rows."),
                    (415, "The body is of another kind, or encoded."),
                    (503, "The database is away, or the daemon's role may not write."),
                ]),
        ),
        Route::new(Method::POST, "/api/v1/reports", post(reports::post_report))
            .needs(Some(Scope::Trigger))
            .documented(
                Doc::new("postReport", "Triggers a report")
                    .query(query::REPORT)
                    .json::<reports::ReportAnswer>(202, "The report is recorded; the header Location names it.")
                    .problems(super::TRIGGER_PROBLEMS),
            ),
        Route::json(
            "/api/v1/reports",
            Doc::new("reports", "Reports, newest first")
                .query(reports::LIST)
                .problems(&[BAD_QUERY, DATABASE_AWAY]),
            reports::get_reports,
        ),
        Route::json(
            "/api/v1/reports/{report_id}",
            Doc::new("report", "One report")
                .in_path(REPORT_ID)
                .problems(&[BAD_QUERY, NO_REPORT, DATABASE_AWAY]),
            reports::get_report,
        ),
        Route::new(Method::GET, "/api/v1/reports/{report_id}/file", get(reports::get_file))
            .for_browsers()
            .documented(
                Doc::new("reportFile", "The file of a report")
                    .in_path(REPORT_ID)
                    .text(200, "The file; gzip or zstd if the client takes that.", "text/csv")
                    .text(200, "", "application/json")
                    .text(206, "The part of it that the header Range asks for.", "text/csv")
                    .text(206, "", "application/json")
                    .json::<super::RunningAnswer>(202, "The report is not complete yet.")
                    .nothing(304, "The client has it, as the header If-None-Match says.")
                    .problems(FILE_PROBLEMS),
            ),
        Route::new(Method::POST, "/trigger_report", post(trigger_report))
            .needs(Some(Scope::Trigger))
            .documented(
                Doc::new("triggerReport", "Triggers a report")
                    .query(query::REPORT)
                    .json::<super::TriggeredAnswer>(202, "The report is recorded; the header Location names it.")
                    .problems(super::TRIGGER_PROBLEMS),
            ),
        Route::new(Method::GET, "/get_report", get(get_report)).for_browsers().documented(
            Doc::new("getReport", "The file of a report")
                .query(query::REPORT_ID)
                .text(200, "The file; gzip or zstd if the client takes that.", "text/csv")
                    .text(200, "", "application/json")
                .text(206, "The part of it that the header Range asks for.", "text/csv")
                    .text(206, "", "application/json")
                .json::<super::RunningAnswer>(202, "The report is not complete yet.")
                .nothing(304, "The client has it, as the header If-None-Match says.")
                .problems(FILE_PROBLEMS),
        ),
        Route::new(Method::GET, "/healthz", get(async || "ok\n"))
            .needs(None)
            .documented(Doc::new("healthz", "Whether the process lives").text(200, "It does.", "text/plain")),
        Route::new(Method::GET, "/readyz", get(readyz)).needs(None).documented(
            Doc::new("readyz", "Whether the daemon follows and does not lag")
                .text(200, "It does.", "text/plain")
                .problems(&[(503, "It does not; with a token the reason is told.")]),
        ),
        Route::new(Method::GET, "/metrics", get(metrics_text)).documented(
            Doc::new("metrics", "Figures for Prometheus").text(200, "The figures.", "text/plain"),
        ),
        Route::new(Method::GET, "/", get(page::get_fleet)).for_browsers(),
        Route::new(Method::GET, "/stores", get(page::get_stores)).for_browsers(),
        Route::new(Method::GET, "/stores/{store_id}", get(page::get_store)).for_browsers(),
        Route::new(Method::GET, "/reports", get(page::get_reports)).for_browsers(),
        Route::new(Method::POST, "/reports", post(page::post_report))
            .needs(Some(Scope::Trigger))
            .for_browsers(),
        Route::new(Method::GET, "/reports/{report_id}", get(page::get_report)).for_browsers(),
        Route::new(Method::GET, "/assets/{version}/{name}", get(page::get_asset)).for_browsers(),
        Route::new(Method::GET, "/docs/api", get(docs::page)).for_browsers(),
        Route::new(Method::GET, "/docs/api/page.js", get(docs::script)).for_browsers(),
        Route::new(Method::GET, "/docs/api/page.css", get(docs::style)).for_browsers(),
        Route::new(Method::GET, "/openapi.json", get(openapi::document)).documented(
            Doc::new("openapi", "This description").text(200, "OpenAPI 3.1.", "application/json"),
        ),
    ]
}

/// The router of all routes.
pub(super) fn router() -> Router<Api> {
    let routes = routes().into_iter();
    routes.fold(Router::new(), |router, route| router.route(route.path, route.handler))
}

/// Who may ask for what.
#[derive(Debug)]
pub(super) struct Rules(Vec<(&'static str, Method, Rule)>);

impl Rules {
    /// Of all routes.
    pub(super) fn new() -> Self {
        let routes = routes().into_iter();
        Rules(routes.map(|route| (route.path, route.method, route.rule)).collect())
    }

    /// The rule for a request. `path` is the route's as it stands in the table; none if there is no such route.
    pub(super) fn of(&self, path: Option<&str>, method: &Method) -> Rule {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let mut all = self.0.iter();
        let found = all.find(|(known, of, _)| Some(*known) == path && of == method);
        found.map_or(Rule::ELSEWHERE, |(_, _, rule)| *rule)
    }

    /// A path as it stands in the table.
    pub(super) fn known(&self, path: &str) -> Option<&'static str> {
        self.0.iter().map(|(known, _, _)| *known).find(|known| *known == path)
    }
}
