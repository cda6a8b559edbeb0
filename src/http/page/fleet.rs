//! The first page: how the fleet is now, how it was, and which stores are worst.

use maud::{Markup, html};

use super::frame::{self, STATES};
use super::{chart, list, show};
use crate::http::v1::Window;
use crate::http::v1::fleet::{Fleet, History};
use crate::http::v1::stores::StoreList;
use crate::overview::{Counts, State};

/// Rows that the ticker has. It always has them, so that nothing moves when changes come.
const TICKER_ROWS: usize = 12;

/// What the page shows.
pub(super) struct View<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) history: &'a History,
    pub(super) worst: &'a StoreList,
    /// The line is over a week, not a day.
    pub(super) week: bool,
}

pub(super) fn main(view: &View) -> Markup {
    let fleet = view.fleet;
    html! {
        h1 .hidden { "Fleet" }
        (frame::feed_line(&fleet.now))
        (now(fleet))
        div .columns {
            section aria-labelledby="uptime" {
                div .heading {
                    h2 #uptime { "Uptime" }
                    nav .switch aria-label="Span of the line" {
                        a href="/" aria-current=[(!view.week).then_some("true")] { "24 hours" }
                        a href="/?span=7d" aria-current=[view.week.then_some("true")] { "7 days" }
                    }
                }
                (windows(fleet))
                (chart::history(&view.history.points))
            }
            (ticker())
        }
        section aria-labelledby="worst" {
            div .heading {
                h2 #worst { "Worst stores of the last 24 hours" }
                (list::reorder())
                a href="/stores" { "All " (show::count(fleet.now.stores)) " stores" }
            }
            (list::table(&view.worst.stores, view.worst.as_of, None))
        }
    }
}

/// The counts, and the share of open stores that are online.
fn now(fleet: &Fleet) -> Markup {
    let now = &fleet.now;
    let counts = &now.counts;
    html! {
        section .now aria-label="Now" {
            div .hero {
                p .figure .num data-uptime-now { (show::percent(now.uptime_now)) }
                p .under { "of the stores that are open and heard of are online" }
            }
            ul .counts {
                @for state in STATES {
                    li { a .count href={ "/stores?state=" (state.as_str()) } data-state=(state.as_str()) {
                        span .state data-state=(state.as_str()) { (frame::shape(state)) (frame::words(state)) }
                        span .figure .num data-count=(state.as_str()) { (show::count(of(counts, state))) }
                        span .under { (meaning(state, now.silent_after_us)) }
                    } }
                }
            }
            (shares(counts))
        }
    }
}

/// The counts as one bar. The counts above are its table.
fn shares(counts: &Counts) -> Markup {
    let total = STATES.iter().map(|&state| of(counts, state)).sum::<u64>().max(1);
    let mut before = 0;
    html! {
        svg .shares width="100%" height="8" role="img" aria-label="Shares of the four states" {
            @for state in STATES {
                @let share = of(counts, state);
                rect data-share=(state.as_str()) x={ (percent_of(before, total)) "%" } width={ (percent_of(share, total)) "%" } height="8" {}
                @let () = before += share;
            }
        }
    }
}

fn windows(fleet: &Fleet) -> Markup {
    let windows = &fleet.windows;
    let rows = [
        ("Last hour", &windows.last_hour),
        ("Last 24 hours", &windows.last_day),
        ("Last 7 days", &windows.last_week),
    ];
    html! {
        dl .windows data-live="windows" {
            @for (name, sum) in rows {
                div { dt { (name) } dd .num { (show::percent(sum.uptime)) span .under { (down(sum)) } } }
            }
        }
    }
}

fn down(sum: &Window) -> String {
    format!("{} down", show::duration(sum.down_us))
}

fn ticker() -> Markup {
    html! {
        section .ticker aria-labelledby="changes" {
            div .heading {
                h2 #changes { "State changes" }
                span .under .num data-ticker-rate {}
            }
            p .unscripted { "Changes are shown as they come where JavaScript runs." }
            ol .slots .scripted data-ticker {
                @for _ in 0..TICKER_ROWS { li {} }
            }
        }
    }
}

fn meaning(state: State, silent_after_us: i64) -> String {
    match state {
        State::Online => "open, and active when last polled".to_owned(),
        State::Offline => "open, and inactive when last polled".to_owned(),
        State::Silent => format!("open, but not polled for {}", show::duration(silent_after_us)),
        State::OutsideHours => "closed by their own hours".to_owned(),
    }
}

fn of(counts: &Counts, state: State) -> u64 {
    match state {
        State::Online => counts.online,
        State::Offline => counts.offline,
        State::Silent => counts.silent,
        State::OutsideHours => counts.outside_hours,
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is drawn")]
fn percent_of(part: u64, whole: u64) -> String {
    format!("{:.3}", part as f64 / whole as f64 * 100.0)
}
