//! One store's hours as pictures: the bar of a week and the map of hours by days, each with its table.
//!
//! A cell shows its downtime as a bar from below and as a colour. What was closed is empty; an hour that was open and in
//! which nothing was observed is crossed out, since its status is only carried forward.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{NaiveDate, NaiveDateTime, Timelike};
use maud::{Markup, html};

use super::show;
use crate::http::v1::stores::StoreBucket;

/// Hours of the bar.
const WEEK_HOURS: usize = 168;
/// Height of one day's row of the map, in pixels.
const ROW: usize = 18;

/// A cell of a picture. The two hours of a wall time that a clock shows twice are one cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cell {
    open_us: i64,
    down_us: i64,
    observations: u64,
}

impl Cell {
    fn of(bucket: &StoreBucket) -> Self {
        Cell {
            open_us: bucket.sum.open_us,
            down_us: bucket.sum.down_us,
            observations: bucket.observations,
        }
    }

    fn add(&mut self, other: Cell) {
        self.open_us += other.open_us;
        self.down_us += other.down_us;
        self.observations += other.observations;
    }

    fn is_unobserved(self) -> bool {
        self.open_us > 0 && self.observations == 0
    }

    /// Downtime over opening time.
    #[expect(clippy::cast_precision_loss, reason = "it is drawn")]
    fn down(self) -> f64 {
        if self.open_us > 0 {
            self.down_us as f64 / self.open_us as f64
        } else {
            0.0
        }
    }

    /// As a table and the readout say it.
    fn words(self) -> String {
        if self.open_us <= 0 {
            return "closed".to_owned();
        }
        let seen = match self.observations {
            0 => "not observed".to_owned(),
            1 => "1 observation".to_owned(),
            n => format!("{n} observations"),
        };
        format!(
            "{} down of {} open, {seen}",
            show::duration(self.down_us),
            show::duration(self.open_us)
        )
    }

    /// As a narrow column of the table says it: percent up, and a mark if that is carried forward.
    fn short(self) -> String {
        if self.open_us <= 0 {
            return show::NONE.to_owned();
        }
        let mark = if self.is_unobserved() { "*" } else { "" };
        format!("{:.0}{mark}", ((1.0 - self.down()) * 100.0).floor())
    }
}

/// The last week as one bar of hours, and its days as a table.
pub(super) fn week(hours: &[StoreBucket], days: &[StoreBucket]) -> Markup {
    let hours = hours.get(hours.len().saturating_sub(WEEK_HOURS)..).unwrap_or_default();
    let cells = hours.iter().enumerate().map(|(i, bucket)| (i, 0, Cell::of(bucket)));
    let starts = hours.iter().enumerate().filter(|(_, bucket)| local(bucket).hour() == 0);
    html! {
        figure .heat {
            svg .week width="100%" height="64" role="img" aria-label=(label(hours, "Last 7 days")) data-live="week" {
                svg width="100%" height="44" viewBox={ "0 0 " (hours.len().max(1)) " 1" } preserveAspectRatio="none" { (paths(cells)) }
                @for (i, bucket) in starts {
                    line .grid x1={ (place(i, hours.len())) "%" } x2={ (place(i, hours.len())) "%" } y1="0" y2="64" {}
                    @if i + 12 <= hours.len() {
                        text .axis x={ (place(i, hours.len())) "%" } dx="4" y="59" { (local(bucket).format("%a %d")) }
                    }
                }
            }
            details {
                summary { "Table" }
                div .scroll tabindex="0" role="region" aria-label="Uptime by day" { table .dense {
                    thead { tr {
                        th scope="col" { "Day" } th scope="col" .num { "Uptime" } th scope="col" .num { "Open" }
                        th scope="col" .num { "Down" } th scope="col" .num { "Observations" }
                    } }
                    tbody data-live="week-table" { @for day in days { tr {
                        th scope="row" { (show::day(local(day).date())) }
                        td .num { (show::percent((day.sum.open_us > 0).then_some(1.0 - Cell::of(day).down()))) }
                        td .num { (show::duration(day.sum.open_us)) }
                        td .num { (show::duration(day.sum.down_us)) }
                        td .num { (show::count(day.observations)) }
                    } } }
                } }
            }
        }
    }
}

/// Hours across, days down, the newest day first.
pub(super) fn map(hours: &[StoreBucket]) -> Markup {
    let mut days: BTreeMap<NaiveDate, BTreeMap<u32, Cell>> = BTreeMap::new();
    for bucket in hours {
        let at = local(bucket);
        let cell = days.entry(at.date()).or_default().entry(at.hour()).or_default();
        cell.add(Cell::of(bucket));
    }
    let height = days.len() * ROW;
    let rows = || days.iter().rev().enumerate();
    let cells = rows().flat_map(|(y, (_, row))| row.iter().map(move |(&hour, &cell)| (hour as usize, y, cell)));
    html! {
        figure .heat {
            div .map {
                svg .days width="76" height=(height + 20) aria-hidden="true" data-live="heat-days" {
                    @for (y, (day, _)) in rows() { text .axis x="0" y=(20 + y * ROW + 13) { (show::day(*day)) } }
                }
                div .plot data-cursor="#heat-table" data-cursor-top="20" {
                    svg width="100%" height=(height + 20) role="img" aria-label=(label(hours, "Hours by days")) data-live="heat" {
                        @for hour in (0..24).step_by(3) {
                            text .axis x={ (place(hour, 24)) "%" } y="13" { (format!("{hour:02}")) }
                        }
                        svg y="20" width="100%" height=(height) viewBox={ "0 0 24 " (days.len().max(1)) }
                            preserveAspectRatio="none" { (paths(cells)) }
                    }
                }
            }
            figcaption {
                span .readout data-readout { "Hours are those of the store's own clock." }
                (legend())
            }
            details {
                summary { "Table" }
                div .scroll tabindex="0" role="region" aria-label="Uptime by hour and day" {
                    table #heat-table .dense {
                        caption { "Percent of opening time up; * not observed, carried forward; – closed" }
                        thead { tr { th scope="col" { "Day" } @for hour in 0..24 { th scope="col" .num { (format!("{hour:02}")) } } } }
                        tbody data-live="heat-table" { @for (_, (day, row)) in rows() { tr {
                            th scope="row" { (show::day(*day)) }
                            @for hour in 0..24 { (column(row.get(&hour))) }
                        } } }
                    }
                }
            }
        }
    }
}

fn column(cell: Option<&Cell>) -> Markup {
    html! {
        @match cell {
            Some(cell) if cell.open_us > 0 => td .num title=(cell.words()) { (cell.short()) },
            Some(_) => td .num { (show::NONE) },
            None => td {},
        }
    }
}

fn legend() -> Markup {
    let key = |class: &str, path: &str, words: &str| {
        html! { li { svg width="18" height="14" viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true" {
            @if class != "closed" { path .up d="M.03.06h.94v.88H.03z" {} } @else { path .closed d="M.03.06h.94v.88H.03z" {} }
            path .{ (class) } d=(path) {}
        } (words) } }
    };
    html! {
        ul .legend {
            (key("up", "", "up"))
            (key("some", "M.03.6h.94v.34H.03z", "down for a part"))
            (key("most", "M.03.06h.94v.88H.03z", "down"))
            (key("unseen", "M.1.9L.9.1", "not observed"))
            (key("closed", "", "closed"))
        }
    }
}

/// The cells as one path for each kind of mark: `(column, row, cell)`.
fn paths(cells: impl Iterator<Item = (usize, usize, Cell)>) -> Markup {
    let [mut up, mut closed, mut some, mut most, mut unseen] = std::array::from_fn(|_| String::new());
    for (x, y, cell) in cells {
        if cell.open_us <= 0 {
            push_bar(&mut closed, x, y, 1.0);
            continue;
        }
        push_bar(&mut up, x, y, 1.0);
        let down = cell.down();
        if down >= 0.5 {
            push_bar(&mut most, x, y, down);
        } else if down > 0.0 {
            // Less than an eighth would not be seen.
            push_bar(&mut some, x, y, down.max(0.125));
        }
        if cell.is_unobserved() {
            let _ = write!(unseen, "M{x}.1 {y}.9l.8-.8");
        }
    }
    html! {
        path .closed d=(closed) {}
        path .up d=(up) {}
        path .some d=(some) {}
        path .most d=(most) {}
        path .unseen d=(unseen) {}
    }
}

/// A bar of `share` of the cell's height, from below.
fn push_bar(path: &mut String, x: usize, y: usize, share: f64) {
    let height = 0.88 * share;
    let _ = if (height - 0.88).abs() < 1e-9 {
        write!(path, "M{x}.03 {y}.06h.94v.88h-.94z")
    } else {
        write!(path, "M{x}.03 {y}.94h.94v-{height:.2}h-.94z")
    };
}

/// What a picture shows, in a sentence.
fn label(hours: &[StoreBucket], what: &str) -> String {
    let mut all = Cell::default();
    let mut unobserved = 0_usize;
    for cell in hours.iter().map(Cell::of) {
        all.add(cell);
        unobserved += usize::from(cell.is_unobserved());
    }
    format!(
        "{what}: {} down of {} open; {unobserved} open hours not observed",
        show::duration(all.down_us),
        show::duration(all.open_us)
    )
}

/// Where the store's clock stands when a bucket begins. The API writes it, so that it can be read.
fn local(bucket: &StoreBucket) -> NaiveDateTime {
    NaiveDateTime::parse_from_str(&bucket.local, "%Y-%m-%dT%H:%M").unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "it is drawn")]
fn place(i: usize, of: usize) -> String {
    format!("{:.2}", i as f64 / of.max(1) as f64 * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{HOUR_US, MINUTE_US};

    fn cell(open_us: i64, down_us: i64, observations: u64) -> Cell {
        Cell {
            open_us,
            down_us,
            observations,
        }
    }

    #[test]
    fn closed_down_and_unobserved_are_told_apart() {
        assert_eq!(cell(0, 0, 3).short(), "–");
        assert_eq!(cell(0, 0, 3).words(), "closed");
        assert!(!cell(0, 0, 0).is_unobserved());
        assert_eq!(cell(HOUR_US, 0, 1).short(), "100");
        assert_eq!(cell(HOUR_US, 1, 1).short(), "99");
        assert_eq!(cell(HOUR_US, HOUR_US, 0).short(), "0*");
        assert_eq!(
            cell(HOUR_US, 12 * MINUTE_US, 2).words(),
            "12 min down of 1 h open, 2 observations"
        );
        assert_eq!(cell(HOUR_US, 0, 0).words(), "0 min down of 1 h open, not observed");
    }

    #[test]
    fn marks_are_drawn_by_kind() {
        let cells = [
            (0, 0, cell(0, 0, 0)),
            (1, 0, cell(HOUR_US, HOUR_US / 4, 1)),
            (2, 1, cell(HOUR_US, HOUR_US, 0)),
        ];
        let drawn = paths(cells.into_iter()).into_string();
        assert!(drawn.contains(r#"class="closed" d="M0.03 0.06"#), "{drawn}");
        assert!(
            drawn.contains(r#"class="some" d="M1.03 0.94h.94v-0.22h-.94z""#),
            "{drawn}"
        );
        assert!(drawn.contains(r#"class="most" d="M2.03 1.06"#), "{drawn}");
        assert!(drawn.contains(r#"class="unseen" d="M2.1 1.9"#), "{drawn}");
    }
}
