//! The page of one store.

use chrono::Weekday;
use chrono_tz::Tz;
use maud::{Markup, html};

use super::{frame, heat, show};
use crate::http::v1::Window;
use crate::http::v1::stores::{OneStore, Store, StoreBucket};
use crate::overview::State;
use crate::schedule::DEFAULT_ZONE;
use crate::time::Timestamp;

/// Observations that are shown.
const OBSERVATIONS: usize = 20;

/// What the page shows.
pub(super) struct View<'a> {
    pub(super) one: &'a OneStore,
    /// Hours, oldest first; whole local days but for the first and the last.
    pub(super) hours: &'a [StoreBucket],
    /// Local days, oldest first.
    pub(super) days: &'a [StoreBucket],
}

pub(super) fn main(view: &View) -> Markup {
    let (one, store) = (view.one, &view.one.store);
    // A zone that is not known is refused long before; the default is for the type.
    let tz: Tz = store.timezone.parse().unwrap_or(DEFAULT_ZONE);
    html! {
        p .crumbs { a href="/stores" { "Stores" } }
        h1 .id data-of-store=(store.store_id) { (store.store_id) }
        div .facts data-live="facts" { (facts(one, tz)) }
        dl .windows data-live="windows" {
            (window("Last hour", &store.windows.last_hour))
            (window("Last 24 hours", &store.windows.last_day))
            (window("Last 7 days", &store.windows.last_week))
        }
        section aria-labelledby="week" {
            h2 #week { "Last 7 days" }
            (heat::week(view.hours, view.days))
        }
        section aria-labelledby="heat" {
            h2 #heat { "Hour by day" }
            (heat::map(view.hours))
        }
        div .thirds {
            section aria-labelledby="hours" { h2 #hours { "Opening hours" } (hours(one)) }
            section aria-labelledby="observations" {
                h2 #observations { "Last observations" }
                (observations(one, tz))
            }
        }
    }
}

fn facts(one: &OneStore, tz: Tz) -> Markup {
    let (store, as_of) = (&one.store, one.as_of);
    html! {
        p .state-line { (frame::badge(store.state)) span { (because(store, as_of)) } }
        dl .pairs {
            div { dt { "Time zone" } dd { (store.timezone) } }
            div { dt { "Time there" } dd .num { (show::wall(tz, as_of)) } }
            div { dt { "Next change" } dd .num {
                @match one.next_change {
                    Some(at) => { (if store.state == State::OutsideHours { "opens " } else { "closes " }) (show::ahead(at, as_of)) },
                    None if one.always_open => "none: always open",
                    None => (show::NONE),
                }
            } }
            div { dt { "Known since" } dd .num {
                @match one.covered_from { Some(at) => (show::utc(at)), None => (show::NONE) }
            } }
        }
    }
}

/// What the state rests on.
fn because(store: &Store, as_of: Timestamp) -> String {
    let Some(seen) = &store.last_observation else {
        return "It has never been polled. Until it is, its time counts as up.".to_owned();
    };
    let (status, age) = (seen.status.as_str(), show::age(seen.at, as_of));
    match store.state {
        State::Silent => format!(
            "The last poll was {age} and found it {status}. That counts on, but whether it is so nobody has looked."
        ),
        _ => format!("Found {status} {age}."),
    }
}

fn window(name: &str, sum: &Window) -> Markup {
    html! {
        div { dt { (name) } dd .num {
            (show::percent(sum.uptime))
            span .under { (show::duration(sum.down_us)) " down of " (show::duration(sum.open_us)) " open" }
        } }
    }
}

fn hours(one: &OneStore) -> Markup {
    html! {
        @if one.always_open {
            p { "Always open." }
        } @else {
            table .dense { tbody {
                @for day in 0..7u8 {
                    @let rows: Vec<_> = one.hours.iter().filter(|row| row.day == day).collect();
                    tr {
                        th scope="row" { (weekday(day)) }
                        td .num {
                            @if rows.is_empty() { span .none { "closed" } }
                            @for (i, row) in rows.iter().enumerate() {
                                @if i > 0 { ", " }
                                (clock(&row.start)) "–" (clock(&row.end))
                            }
                        }
                    }
                }
            } }
        }
    }
}

fn observations(one: &OneStore, tz: Tz) -> Markup {
    html! {
        div data-live="observations" {
            @if one.observations.is_empty() {
                p .none { "None." }
            } @else {
                table .dense {
                    thead { tr { th scope="col" { "At (there)" } th scope="col" .num { "Age" } th scope="col" { "Status" } } }
                    tbody { @for seen in one.observations.iter().take(OBSERVATIONS) { tr {
                        td { time .num datetime=(seen.at) title=(show::utc(seen.at)) { (show::wall(tz, seen.at)) } }
                        td .num { (show::age(seen.at, one.as_of)) }
                        td { span .status data-status=(seen.status.as_str()) { (seen.status.as_str()) } }
                    } } }
                }
            }
        }
    }
}

fn weekday(day: u8) -> String {
    Weekday::try_from(day).map(|day| day.to_string()).unwrap_or_default()
}

/// A wall time without seconds, unless it has some.
fn clock(at: &str) -> &str {
    at.strip_suffix(":00").unwrap_or(at)
}
