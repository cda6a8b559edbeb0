//! What all pages share: head, navigation, the line that says how fresh the numbers are, and the shapes of the states.

use maud::{DOCTYPE, Markup, html};

use super::assets;
use super::show;
use crate::http::v1::fleet::FleetNow;
use crate::overview::State;
use crate::time::{MINUTE_US, Timestamp};

/// Which part of the page is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Fleet,
    Stores,
    Reports,
    /// A page that is none of them, such as an error.
    None,
}

const PARTS: [(Part, &str, &str); 3] = [
    (Part::Fleet, "/", "Fleet"),
    (Part::Stores, "/stores", "Stores"),
    (Part::Reports, "/reports", "Reports"),
];

/// Every state in the order of the fleet's counts.
pub(super) const STATES: [State; 4] = [State::Online, State::Offline, State::Silent, State::OutsideHours];

/// A whole document.
pub(super) struct Frame<'a> {
    pub(super) title: &'a str,
    pub(super) part: Part,
    /// When the numbers are of; None where there are none.
    pub(super) as_of: Option<Timestamp>,
    /// The browser asks again after so long.
    pub(super) again_after_s: Option<u32>,
}

impl Frame<'_> {
    pub(super) fn around(&self, main: &Markup) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) " · Uptally" }
                    link rel="icon" href=(assets::path("icon.svg")) type="image/svg+xml";
                    link rel="stylesheet" href=(assets::path("app.css"));
                    script type="module" src=(assets::path("app.js")) {}
                    @if let Some(seconds) = self.again_after_s {
                        meta http-equiv="refresh" content=(seconds);
                    }
                }
                body {
                    a .skip href="#main" { "Skip to content" }
                    (sprite())
                    header .top {
                        a .brand href="/" { (mark()) "Uptally" }
                        nav aria-label="Main" {
                            @for (part, path, name) in PARTS {
                                a href=(path) aria-current=[(part == self.part).then_some("page")] { (name) }
                            }
                            a href="/docs/api" { "API" }
                        }
                        @if let Some(as_of) = self.as_of {
                            div .pulse {
                                span .pulse-word data-pulse { "As of" }
                                time .num data-clock datetime=(as_of) { (show::utc_clock(as_of)) } " UTC"
                                button .quiet .scripted type="button" data-pause aria-pressed="false" { "Pause" }
                            }
                        }
                    }
                    main #main tabindex="-1" { (main) }
                    p .hidden role="status" data-announce {}
                }
            }
        }
    }
}

/// The line under the title that tells a dead poller or feed from stores that are down.
pub(super) fn feed_line(now: &FleetNow) -> Markup {
    let feed = &now.feed;
    let quiet_us = now.newest.map(|newest| now.as_of.since(newest));
    let (kind, word, text) = if !feed.ready {
        let reason = feed.reason.as_deref().unwrap_or("it does not say why");
        ("bad", "Not following", format!("the numbers stand still: {reason}"))
    } else if let Some(quiet_us) = quiet_us
        && quiet_us >= now.silent_after_us
    {
        let text = format!(
            "no poll of any store has come for {}: the pollers are down, or what writes their rows",
            show::duration(quiet_us)
        );
        ("odd", "No observations", text)
    } else if let Some(quiet_us) = quiet_us
        && quiet_us >= 5 * MINUTE_US
    {
        (
            "good",
            "Following",
            format!("last observation {} ago", show::duration(quiet_us)),
        )
    } else if now.newest.is_some() {
        ("good", "Following", "observations are coming in".to_owned())
    } else {
        ("odd", "No observations", "nothing has been observed yet".to_owned())
    };
    html! {
        p .feed .{ "feed-" (kind) } data-live="feed" {
            svg .icon aria-hidden="true" { use href={ "#feed-" (kind) } {} }
            strong { (word) } span { (text) }
        }
    }
}

/// The words of a state on the page.
pub(super) fn words(state: State) -> &'static str {
    match state {
        State::Online => "online",
        State::Offline => "offline in hours",
        State::OutsideHours => "outside hours",
        State::Silent => "silent",
    }
}

/// A state as colour, shape and word.
pub(super) fn badge(state: State) -> Markup {
    html! {
        span .state data-state=(state.as_str()) { (shape(state)) (words(state)) }
    }
}

/// The shape of a state, for beside its word.
pub(super) fn shape(state: State) -> Markup {
    html! { svg .icon aria-hidden="true" { use href={ "#" (state.as_str()) } {} } }
}

fn mark() -> Markup {
    html! {
        svg .mark viewBox="0 0 16 16" aria-hidden="true" {
            path d="M1 9h3v5H1zM6.500 5h3v9h-3zM12 2h3v12h-3z" {}
        }
    }
}

/// The shapes, once for each document: those of another file would be fetched late.
fn sprite() -> Markup {
    html! {
        svg .sprite aria-hidden="true" {
            symbol #online viewBox="0 0 16 16" { circle cx="8" cy="8" r="5.500" {} }
            symbol #offline viewBox="0 0 16 16" {
                path fill-rule="evenodd" d="M2 2h12v12H2zM4.600 5.900L6.700 8l-2.100 2.100 1.300 1.300L8 9.300l2.100 2.100 1.300-1.300L9.300 8l2.100-2.100-1.300-1.300L8 6.700 5.900 4.600z" {}
            }
            symbol #silent viewBox="0 0 16 16" {
                path fill-rule="evenodd" d="M8 1.500L15.200 14H.8zM8 4.900L3.600 12.400h8.800z" {}
            }
            symbol #outside_hours viewBox="0 0 16 16" { path d="M6.200 2.200a6 6 0 1 0 7.600 7.600 5 5 0 0 1-7.600-7.600z" {} }
            symbol #feed-good viewBox="0 0 16 16" { path d="M6.300 12.800L1.800 8.300l1.500-1.500 3 3 6.400-6.400 1.500 1.500z" {} }
            symbol #feed-odd viewBox="0 0 16 16" {
                path fill-rule="evenodd" d="M8 1.200L15.500 14H.5zM7.200 6v4h1.600V6zm0 5v1.600h1.600V11z" {}
            }
            symbol #feed-bad viewBox="0 0 16 16" {
                path fill-rule="evenodd" d="M5 1h6l4 4v6l-4 4H5l-4-4V5zm2.200 3v5h1.600V4zm0 6v1.600h1.600V10z" {}
            }
        }
    }
}
