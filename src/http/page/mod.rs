//! The pages at `/`: the same answers as the API's, as HTML.
//!
//! Rendered here, so that they work without JavaScript; the scripts keep them up to date and spare whole page loads. All
//! that a page shows follows from its address. A page has at most as many rows as the API's list, never the fleet.

mod assets;
mod chart;
mod fleet;
mod frame;
mod heat;
mod link;
mod list;
mod reports;
mod show;
mod store;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use chrono::Days;
use maud::{Markup, html};
use serde_json::json;

use super::Api;
use super::problem::Problem;
use super::query::{self, Given, Param, bad_value};
use super::routes::{Asked, Rules};
use super::v1::{fleet as fleets, reports as made, stores};
use super::{BODY_BYTES_MAX, BODY_MAX, body_in_time, matched};
use crate::live::Step;
use crate::overview::{Query, Sort};
use crate::report::ReportState;
use crate::schedule::Zone;
use crate::time::Timestamp;
use crate::window::Windows;
use frame::{Frame, Part};
use link::Link;

/// Rows of the first page.
const WORST: usize = 10;
/// Reports of the history on a page.
const REPORTS: usize = 20;
/// Local days of a store's map, today included.
const MAP_DAYS: u64 = 14;
/// Hours of the fleet's line, for a day and for a week.
const DAY_HOURS: usize = 24;
const WEEK_HOURS: usize = 168;

/// Nothing but our own files, and nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What the history of reports takes.
const BEFORE: &[Param] = &[Param::new(
    "before",
    "Only those that were triggered before this instant.",
    || json!({"type": "string", "format": "date-time"}),
)];

/// What the first page takes.
const SPAN: &[Param] = &[Param::new(
    "span",
    "The span of the line.",
    || json!({"type": "string", "enum": ["7d"]}),
)];

pub(super) async fn get_fleet(State(api): State<Api>, asked: Asked) -> Result<Response, Problem> {
    let given = Given::read(&Link::of(&asked.uri).uri("/"), SPAN)?;
    let week = match given.text("span") {
        None => false,
        Some("7d") => true,
        Some(other) => return Err(bad_value("span", "expected 7d", other)),
    };
    let fleet = fleets::fleet(&api, Windows::Rolling).await?;
    let history = fleets::history(&api, if week { WEEK_HOURS } else { DAY_HOURS }).await?;
    let worst = stores::ListQuery {
        windows: Windows::Rolling,
        query: Query {
            state: None,
            part_of_id: None,
            timezone: None,
            sort: Sort::Down(1),
            descending: true,
            limit: WORST,
            offset: 0,
        },
    };
    let worst = stores::stores(&api, worst).await?;
    let main = fleet::main(&fleet::View {
        fleet: &fleet,
        history: &history,
        worst: &worst,
        week,
    });
    Ok(page("Fleet", Part::Fleet, fleet.now.as_of, &main))
}

pub(super) async fn get_stores(State(api): State<Api>, asked: Asked) -> Result<Response, Problem> {
    let link = Link::of(&asked.uri);
    let found = stores::stores(&api, stores::ListQuery::read(&link.uri("/stores"))?).await?;
    Ok(page("Stores", Part::Stores, found.as_of, &list::main(&found, &link)))
}

pub(super) async fn get_store(State(api): State<Api>, asked: Asked) -> Result<Response, Problem> {
    Given::read(&asked.uri, &[])?;
    let id = asked.id()?;
    let one = stores::store(&api, id, Windows::Rolling).await?;
    let (hours, days) = match one.covered_from {
        Some(covered_from) => {
            let map_start = map_start(one.store.timezone, one.as_of).max(covered_from);
            let hours = buckets(&api, id, Some(map_start), Step::Hour).await?;
            (hours, buckets(&api, id, None, Step::Day).await?)
        }
        None => (Vec::new(), Vec::new()),
    };
    let main = store::main(&store::View {
        one: &one,
        hours: &hours,
        days: &days,
    });
    Ok(page(id, Part::Stores, one.as_of, &main))
}

async fn buckets(
    api: &Api,
    id: &str,
    from: Option<Timestamp>,
    step: Step,
) -> Result<Vec<stores::StoreBucket>, Problem> {
    let asked = stores::HoursQuery { from, to: None, step };
    Ok(stores::hours(api, id, asked).await?.buckets)
}

/// The first midnight of a store's map.
fn map_start(timezone: &str, as_of: Timestamp) -> Timestamp {
    let Ok(tz) = timezone.parse() else { return as_of };
    let zone = Zone::of(tz);
    let today = zone.local_date(as_of);
    zone.day_start(today.checked_sub_days(Days::new(MAP_DAYS - 1)).unwrap_or(today))
}

pub(super) async fn get_reports(State(api): State<Api>, headers: HeaderMap, asked: Asked) -> Result<Response, Problem> {
    let link = Link::of(&asked.uri);
    let before = Given::read(&link.uri("/reports"), BEFORE)?.parsed("before")?;
    reports_page(&api, &headers, before, &Link::default(), None).await
}

/// The form's own route: a program posts to the API.
pub(super) async fn post_report(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    Given::read(request.uri(), &[])?;
    let (parts, body) = request.into_parts();
    let body = body_in_time(body, BODY_MAX, BODY_BYTES_MAX).await?;
    let chosen = Link::read(&body);
    let triggered = match query::report_request(&chosen.uri("/reports"), api.defaults) {
        Ok(options) => made::trigger(&api, options).await,
        Err(problem) => Err(problem),
    };
    match triggered {
        Ok(report) => {
            let location = [(header::LOCATION, format!("/reports/{}", report.report_id))];
            Ok((StatusCode::SEE_OTHER, location).into_response())
        }
        Err(problem) => reports_page(&api, &parts.headers, None, &chosen, Some(&problem)).await,
    }
}

async fn reports_page(
    api: &Api,
    headers: &HeaderMap,
    before: Option<Timestamp>,
    chosen: &Link,
    refused: Option<&Problem>,
) -> Result<Response, Problem> {
    // One more than is shown tells whether there are older ones.
    let mut list = made::reports(api, REPORTS + 1, before).await?.reports;
    let more = list.len() > REPORTS;
    list.truncate(REPORTS);
    let older = list.last().filter(|_| more);
    let main = reports::main(&reports::View {
        older: older.map(|last| format!("/reports?before={}", last.requested_at)),
        reports: &list,
        chosen,
        refused: refused.map(|problem| problem.detail.as_str()),
        caller: &caller(api, headers),
    });
    let frame = Frame {
        title: "Reports",
        part: Part::Reports,
        as_of: None,
        again_after_s: None,
    };
    let status = refused.map(|problem| StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST));
    let body = Html(frame.around(&main).into_string());
    Ok((status.unwrap_or(StatusCode::OK), page_headers(), body).into_response())
}

pub(super) async fn get_report(State(api): State<Api>, headers: HeaderMap, asked: Asked) -> Result<Response, Problem> {
    Given::read(&asked.uri, &[])?;
    let report = made::report(&api, made::id_of(&asked)?).await?;
    let frame = Frame {
        title: "Report",
        part: Part::Reports,
        as_of: None,
        again_after_s: (report.state == ReportState::Running).then_some(1),
    };
    let body = frame.around(&reports::one(&report, &caller(&api, &headers)));
    Ok((page_headers(), Html(body.into_string())).into_response())
}

fn caller(api: &Api, headers: &HeaderMap) -> reports::Caller {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // What is an authority has no quotes and no spaces: the shell takes it as it is.
    let host = host.filter(|host| {
        host.parse::<Authority>()
            .is_ok_and(|_| !host.contains(['\'', '\\', '$', '`']))
    });
    reports::Caller {
        origin: format!("http://{}", host.unwrap_or("localhost")),
        token: api.access.has_login(),
    }
}

pub(super) async fn get_asset(
    Path((version, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Some(asset) = assets::find(&version, &name) else {
        return Err(Problem::plain(
            StatusCode::NOT_FOUND,
            "no file of the page has this name",
        ));
    };
    let etag = HeaderValue::from_str(&asset.etag)
        .map_err(|_| Problem::plain(StatusCode::INTERNAL_SERVER_ERROR, "an internal error"))?;
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| *known == etag);
    let caching = [
        (header::ETAG, etag),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, max-age=31536000, immutable"),
        ),
    ];
    if known {
        return Ok((StatusCode::NOT_MODIFIED, caching).into_response());
    }
    Ok((caching, [(header::CONTENT_TYPE, asset.content_type)], asset.bytes).into_response())
}

/// Shows a problem as a page to a browser that opened one; the reader of an API gets it as it is.
pub(super) async fn show_problems(State(rules): State<Arc<Rules>>, request: Request, next: Next) -> Response {
    let path = matched(&request);
    let opened = path.is_none() || rules.of(path, request.method()).for_browsers;
    let wants_html = opened
        && request.headers().get(header::ACCEPT).is_some_and(|accept| {
            accept
                .as_bytes()
                .split(|&byte| byte == b',')
                .any(|kind| kind.trim_ascii().starts_with(b"text/html"))
        });
    let response = next.run(request).await;
    match response.extensions().get::<Problem>().cloned() {
        Some(problem) if wants_html => {
            let (mut parts, _) = response.into_parts();
            parts.headers.remove(header::CONTENT_LENGTH);
            parts.headers.extend(page_headers());
            parts.headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/html; charset=utf-8"),
            );
            Response::from_parts(parts, Body::from(problem_page(&problem)))
        }
        _ => response,
    }
}

fn problem_page(problem: &Problem) -> String {
    // What is loading will be there soon.
    let again = problem.status == StatusCode::SERVICE_UNAVAILABLE.as_u16();
    let main = html! {
        h1 { (problem.title) }
        section {
            p .problem role="alert" { (problem.detail) }
            p .under { "Status " (problem.status) "." @if again { " This page tries again by itself." } }
            p { a href="/" { "To the fleet" } }
        }
    };
    let frame = Frame {
        title: problem.title,
        part: Part::None,
        as_of: None,
        again_after_s: again.then_some(2),
    };
    frame.around(&main).into_string()
}

fn page(title: &str, part: Part, as_of: Timestamp, main: &Markup) -> Response {
    let frame = Frame {
        title,
        part,
        as_of: Some(as_of),
        again_after_s: None,
    };
    (page_headers(), Html(frame.around(main).into_string())).into_response()
}

fn page_headers() -> HeaderMap {
    HeaderMap::from_iter(
        [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::CACHE_CONTROL, "private, no-cache"),
            (header::VARY, "accept"),
            // A form's Origin would be null under a stricter one, and ours are refused without.
            (header::REFERRER_POLICY, "same-origin"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        ]
        .map(|(name, value)| (name, HeaderValue::from_static(value))),
    )
}
