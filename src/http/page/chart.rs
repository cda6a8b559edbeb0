//! The fleet's uptime hour by hour: a line, and the table behind it.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::show;
use crate::http::v1::fleet::HistoryPoint;
use crate::time::HOUR_US;

/// Where the scale may begin, in percent: the highest that is below all points, so that the line uses the height.
const FLOORS: [f64; 8] = [99.0, 98.0, 95.0, 90.0, 80.0, 60.0, 40.0, 0.0];
/// Height of the drawing in pixels.
const HEIGHT: f64 = 180.0;
/// Pixels above 100 % and below the floor, where the labels are.
const TOP: f64 = 16.0;
const BOTTOM: f64 = 22.0;

/// The drawing with its readout, and the table.
pub(super) fn history(points: &[HistoryPoint]) -> Markup {
    let floor = floor(points);
    html! {
        figure .chart {
            div .plot data-cursor="#history-table" {
                (drawing(points, floor))
            }
            figcaption .readout data-readout {
                "Share of opening time in which stores were active, by UTC hour. The scale begins at " (floor) " %."
            }
            details {
                summary { "Table" }
                div .scroll tabindex="0" role="region" aria-label="Uptime by hour" {
                    table #history-table .dense {
                        thead { tr {
                            th scope="col" { "Hour (UTC)" }
                            th scope="col" .num { "Uptime" }
                            th scope="col" .num { "Up" }
                            th scope="col" .num { "Down" }
                        } }
                        tbody data-live="history-table" {
                            @for point in points {
                                tr {
                                    th scope="row" { time datetime=(point.start) { (show::utc_hour(point.start)) } }
                                    td .num { (show::percent(point.sum.uptime)) }
                                    td .num { (show::duration(point.sum.up_us)) }
                                    td .num { (show::duration(point.sum.down_us)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn drawing(points: &[HistoryPoint], floor: f64) -> Markup {
    let lowest = points.iter().filter_map(|point| point.sum.uptime).reduce(f64::min);
    let label = match lowest {
        Some(lowest) => format!(
            "Uptime of the fleet over {} hours, lowest {}",
            points.len(),
            show::percent(Some(lowest))
        ),
        None => "No opening time in these hours".to_owned(),
    };
    let plot_height = HEIGHT - TOP - BOTTOM;
    html! {
        svg width="100%" height=(HEIGHT) role="img" aria-label=(label) data-live="history" {
            @for (share, percent) in [(0.0, 100.0), (0.5, f64::midpoint(100.0, floor)), (1.0, floor)] {
                @let y = TOP + share * plot_height;
                line .grid x1="0" x2="100%" y1=(y) y2=(y) {}
                text .axis x="0" y=(y - 4.0) { (percent) " %" }
            }
            svg x="0" y=(TOP) width="100%" height=(plot_height) viewBox={ "0 0 " (points.len()) " 100" }
                preserveAspectRatio="none" {
                path .area d=(outline(points, floor, true)) {}
                path .line d=(outline(points, floor, false)) {}
            }
            @for (place, name) in ticks(points) {
                text .axis x={ (place) "%" } y=(HEIGHT - 5.0) text-anchor="middle" { (name) }
            }
        }
    }
}

/// The line through the middles of the hours; it breaks where an hour had no opening time. Closed to the floor for the
/// area below it.
fn outline(points: &[HistoryPoint], floor: f64, closed: bool) -> String {
    let mut path = String::new();
    for run in points
        .iter()
        .enumerate()
        .collect::<Vec<_>>()
        .split(|(_, point)| point.sum.uptime.is_none())
    {
        let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else {
            continue;
        };
        for (i, point) in run {
            let ratio = point.sum.uptime.unwrap_or(1.0);
            let y = (1.0 - ratio) * 1e4 / (100.0 - floor);
            let command = if i == first { 'M' } else { 'L' };
            let _ = write!(path, "{command}{i}.5 {y:.2}");
        }
        if closed {
            let _ = write!(path, "V100H{first}.5Z");
        } else if first == last {
            // A single hour between gaps would be a line of no length.
            path.push_str("h.01");
        }
    }
    path
}

/// Labels below the line and their places in percent of the width: days if there are several, else every six hours.
fn ticks(points: &[HistoryPoint]) -> Vec<(String, String)> {
    let days = points.len() > 48;
    let every = if days { 24 } else { 6 };
    let format = if days { "%a %d" } else { "%H:%M" };
    let width = f64::from(u32::try_from(points.len()).unwrap_or(u32::MAX));
    let places = (0..).map(f64::from).zip(points);
    places
        .filter(|(_, point)| point.start.micros().div_euclid(HOUR_US).rem_euclid(every) == 0)
        .map(|(i, point)| ((i + 0.5) / width * 100.0, point))
        // A label at the very edge would be cut.
        .filter(|(place, _)| (3.0..=97.0).contains(place))
        .map(|(place, point)| {
            (
                format!("{place:.2}"),
                point.start.to_chrono().format(format).to_string(),
            )
        })
        .collect()
}

fn floor(points: &[HistoryPoint]) -> f64 {
    let lowest = points.iter().filter_map(|point| point.sum.uptime).fold(1.0, f64::min) * 100.0;
    FLOORS.into_iter().find(|floor| *floor <= lowest).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "they are what was written, digit by digit")]

    use super::*;
    use crate::http::v1::Window;
    use crate::time::Timestamp;

    fn points(ratios: &[Option<f64>]) -> Vec<HistoryPoint> {
        let start = |i: usize| Timestamp::from_micros(1_674_637_200_000_000).plus(i64::try_from(i).unwrap() * HOUR_US);
        ratios
            .iter()
            .enumerate()
            .map(|(i, &uptime)| HistoryPoint {
                start: start(i),
                sum: Window {
                    open_us: 0,
                    up_us: 0,
                    down_us: 0,
                    uptime,
                },
            })
            .collect()
    }

    #[test]
    fn the_line_breaks_where_nothing_was_open() {
        let points = points(&[Some(1.0), Some(0.9), None, Some(0.95), None]);
        assert_eq!(floor(&points), 90.0);
        assert_eq!(outline(&points, 90.0, false), "M0.5 0.00L1.5 100.00M3.5 50.00h.01");
        assert_eq!(
            outline(&points, 90.0, true),
            "M0.5 0.00L1.5 100.00V100H0.5ZM3.5 50.00V100H3.5Z"
        );
    }

    #[test]
    fn the_scale_begins_below_the_lowest_point() {
        for (lowest, expected) in [(1.0, 99.0), (0.99, 99.0), (0.989, 98.0), (0.5, 40.0), (0.0, 0.0)] {
            assert_eq!(floor(&points(&[Some(1.0), Some(lowest)])), expected, "{lowest}");
        }
        assert_eq!(floor(&[]), 99.0);
    }

    #[test]
    fn a_day_is_labelled_by_hours_and_a_week_by_days() {
        // 09:00 UTC is the first hour.
        let day = ticks(&points(&[Some(1.0); 24]));
        let names: Vec<&str> = day.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["12:00", "18:00", "00:00", "06:00"]);
        let week = ticks(&points(&[Some(1.0); 168]));
        assert_eq!(week.len(), 7);
        assert_eq!(week[0].1, "Thu 26");
    }
}
