//! Reports: the form that triggers one, the history, and the page of one report.

use maud::{Markup, html};

use super::link::Link;
use super::show;
use crate::http::v1::reports::ReportAnswer;
use crate::report::ReportState;
use crate::time::Timestamp;

/// A choice and its words.
type Choice = (&'static str, &'static str);

/// Parameters of a trigger with their choices, the default first: name, what the form calls it, choices with words.
const CHOICES: [(&str, &str, &[Choice]); 2] = [
    (
        "windows",
        "Windows",
        &[
            ("calendar", "calendar: local days and weeks"),
            ("rolling", "rolling: the last whole hours"),
        ],
    ),
    (
        "closed",
        "Closed time",
        &[("uptime", "counts as up"), ("excluded", "is left out")],
    ),
];

/// What the page of all reports shows.
pub(super) struct View<'a> {
    pub(super) reports: &'a [ReportAnswer],
    /// The address of the older ones, if there are any.
    pub(super) older: Option<String>,
    /// What the form holds: the parameters of a trigger.
    pub(super) chosen: &'a Link,
    /// Why the last trigger was refused.
    pub(super) refused: Option<&'a str>,
    pub(super) caller: &'a Caller,
}

/// What a line for the shell has to know of the server.
pub(super) struct Caller {
    /// As the browser called us: `http://` and the host.
    pub(super) origin: String,
    /// Requests need a token.
    pub(super) token: bool,
}

pub(super) fn main(view: &View) -> Markup {
    html! {
        h1 { "Reports" }
        section .panel aria-labelledby="make" {
            h2 #make { "Make a report" }
            @if let Some(reason) = view.refused {
                p .problem role="alert" { strong { "Refused. " } (reason) }
            }
            (form(view.chosen))
            (curl("curl-trigger", "The same from a shell", &trigger_line(view.caller, view.chosen)))
        }
        section aria-labelledby="history" {
            div .heading { h2 #history { "History" } @if let Some(older) = &view.older { a href=(older) { "Older" } } }
            (history(view.reports))
        }
    }
}

fn form(chosen: &Link) -> Markup {
    let as_of = chosen.get("as_of");
    html! {
        form .filters method="post" action="/reports" data-report-form {
            label .wide { span { "As of" }
                input type="text" name="as_of" value=(as_of) placeholder="now, latest or 2026-11-25T09:00:00Z"
                    list="instants" maxlength="64" autocomplete="off" spellcheck="false";
                datalist #instants { option value="now" {} option value="latest" {} }
            }
            @for (name, words, choices) in CHOICES {
                label { span { (words) }
                    select name=(name) {
                        @for (value, words) in choices {
                            option value=(value) selected[chosen.get(name) == *value] { (words) }
                        }
                    }
                }
            }
            button .main type="submit" { "Make report" }
        }
    }
}

fn history(reports: &[ReportAnswer]) -> Markup {
    html! {
        @if reports.is_empty() {
            p .empty { "No report has been made yet." }
        } @else {
            div .scroll tabindex="0" role="region" aria-label="Reports" data-live="reports" {
                table .reports {
                    thead { tr {
                        th scope="col" { "State" } th scope="col" { "Requested" } th scope="col" { "As of" }
                        th scope="col" { "Options" } th scope="col" .num { "Stores" } th scope="col" .num { "Size" }
                        th scope="col" .num { "Took" } th scope="col" { "File" }
                    } }
                    tbody { @for report in reports { tr {
                        td .c-state { (state(report)) }
                        th scope="row" .c-store { a href={ "/reports/" (report.report_id) } { (show::utc(report.requested_at)) } }
                        td { (instant(report.as_of)) }
                        td { (options(report)) }
                        td .num { (optional(report.stores.map(show::count))) }
                        td .num { (optional(report.bytes.map(show::bytes))) }
                        td .num { (optional(report.duration_us.map(milliseconds))) }
                        td { @if report.state == ReportState::Complete { a href=(report.file) download { "Download" } } }
                    } } }
                }
            }
        }
    }
}

/// The page of one report.
pub(super) fn one(report: &ReportAnswer, caller: &Caller) -> Markup {
    let file = format!("{}{}", caller.origin, report.file);
    html! {
        p .crumbs { a href="/reports" { "Reports" } }
        h1 { "Report" }
        div data-live="report" {
            p .state-line {
                (state(report))
                span { @match report.state {
                    ReportState::Running => "This page follows it.",
                    ReportState::Complete => a .main href=(report.file) download { "Download" },
                    ReportState::Failed => (report.failure.as_deref().unwrap_or("no reason was recorded")),
                } }
            }
            dl .pairs {
                div { dt { "Id" } dd .id { (report.report_id) } }
                div { dt { "Requested" } dd .num { (show::utc(report.requested_at)) } }
                div { dt { "As of" } dd .num { (instant(report.as_of)) } }
                div { dt { "Options" } dd { (options(report)) } }
                div { dt { "Stores" } dd .num { (optional(report.stores.map(show::count))) } }
                div { dt { "Size" } dd .num { (optional(report.bytes.map(show::bytes))) } }
                div { dt { "Took" } dd .num { (optional(report.duration_us.map(milliseconds))) } }
            }
        }
        (curl("curl-file", "Download from a shell", &format!("curl -fOJ {}'{file}'", header(caller))))
    }
}

/// A line to copy.
fn curl(id: &str, name: &str, line: &str) -> Markup {
    html! {
        div .shell {
            span .under #{ (id) "-name" } { (name) }
            code #(id) tabindex="0" role="region" aria-labelledby={ (id) "-name" } { (line) }
            button .quiet .scripted type="button" data-copy={ "#" (id) } { "Copy" }
        }
    }
}

/// The values are words and instants that were understood, which the shell takes as they are.
fn trigger_line(caller: &Caller, chosen: &Link) -> String {
    let url = chosen.to(&format!("{}/api/v1/reports", caller.origin));
    format!("curl -fsS -X POST {}'{}'", header(caller), url.replace('\'', "%27"))
}

fn header(caller: &Caller) -> &'static str {
    if caller.token {
        "-H \"Authorization: Bearer $UPTALLY_TOKEN\" "
    } else {
        ""
    }
}

fn state(report: &ReportAnswer) -> Markup {
    let (shape, words) = match report.state {
        ReportState::Running => ("silent", "running"),
        ReportState::Complete => ("feed-good", "complete"),
        ReportState::Failed => ("offline", "failed"),
    };
    html! {
        span .state data-state=(words) {
            svg .icon aria-hidden="true" { use href={ "#" (shape) } {} }
            (words)
        }
    }
}

fn options(report: &ReportAnswer) -> String {
    [&*report.windows, &*report.closed, &*report.format, &*report.columns].join(", ")
}

fn instant(at: Option<Timestamp>) -> String {
    optional(at.map(show::utc))
}

fn optional(shown: Option<String>) -> String {
    shown.unwrap_or_else(|| show::NONE.to_owned())
}

fn milliseconds(us: u64) -> String {
    format!("{}.{} ms", us / 1_000, us % 1_000 / 100)
}
