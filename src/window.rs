//! The three windows of a report, and the two choices that a report offers.

use std::fmt;
use std::str::FromStr;

use chrono::{Datelike, NaiveDate};
use schemars::JsonSchema;
use serde::Serialize;

use crate::schedule::{Zone, local_midnight};
use crate::time::{DAY_US, HOUR_US, MINUTE_US, Span, Timestamp};

/// What "last day" and "last week" mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Windows {
    /// The local calendar day before that of `as_of`; the local Monday-to-Sunday week before.
    #[default]
    Calendar,
    /// The last 24 and the last 168 complete clock hours.
    Rolling,
}

/// What closed time counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClosedTime {
    /// Uptime is the window's length minus downtime.
    #[default]
    Uptime,
    /// Uptime is active time inside opening hours.
    Excluded,
}

/// A word is none of those that are accepted; holds those that are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct ParseChoiceError(pub &'static str);

impl Windows {
    /// The word in queries, configuration and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Windows::Calendar => "calendar",
            Windows::Rolling => "rolling",
        }
    }
}

impl FromStr for Windows {
    type Err = ParseChoiceError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "calendar" => Ok(Windows::Calendar),
            "rolling" => Ok(Windows::Rolling),
            _ => Err(ParseChoiceError("calendar or rolling")),
        }
    }
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ClosedTime {
    /// The word in queries, configuration and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            ClosedTime::Uptime => "uptime",
            ClosedTime::Excluded => "excluded",
        }
    }
}

impl FromStr for ClosedTime {
    type Err = ParseChoiceError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "uptime" => Ok(ClosedTime::Uptime),
            "excluded" => Ok(ClosedTime::Excluded),
            _ => Err(ParseChoiceError("uptime or excluded")),
        }
    }
}

impl fmt::Display for ClosedTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whole local days, each of a store's own zone: from the first one up to the last one, which does not belong to them.
///
/// Invariant: `from < to`, and both are of the years 2000 to 2100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DateRange {
    from: NaiveDate,
    to: NaiveDate,
}

/// Why two dates are no [`DateRange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DateRangeError {
    /// There is no day in it.
    #[error("expected a date after {0}, the first day: to is the first day that does not belong to it any more")]
    Empty(NaiveDate),
    /// No table has rows of then.
    #[error("expected a date of the years 2000 to 2100")]
    Range {
        /// The one that is not.
        day: NaiveDate,
    },
}

impl DateRange {
    /// The days from `from` up to and without `to`.
    ///
    /// # Errors
    /// If there are none, or they are out of range.
    pub fn new(from: NaiveDate, to: NaiveDate) -> Result<Self, DateRangeError> {
        for day in [from, to] {
            // The last day of the tables is 2099-12-31.
            if !(2000..=2100).contains(&day.year()) {
                return Err(DateRangeError::Range { day });
            }
        }
        if from < to {
            Ok(DateRange { from, to })
        } else {
            Err(DateRangeError::Empty(from))
        }
    }

    /// The first day.
    pub fn from(self) -> NaiveDate {
        self.from
    }

    /// The first day that does not belong to it any more.
    pub fn to(self) -> NaiveDate {
        self.to
    }
}

/// `2026-10-01 to 2026-11-01`
impl fmt::Display for DateRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

/// Instants in the same stretch of this length, counted from 1970, have the same windows in every zone: windows change
/// where a cell of the zone's grid begins, and zones are ahead of UTC by whole quarters of an hour.
pub const WINDOWS_STEP_US: i64 = 15 * MINUTE_US;

/// How far before `as_of` a window can begin: `as_of` late on a Sunday asks for the Monday 14 days
/// before, and zones change their clocks.
pub const WINDOW_REACH_US: i64 = 15 * DAY_US;

/// The windows of one report in one zone. Every edge lies on the zone's grid of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSpans {
    /// The full clock hour before the one that `as_of` is in.
    pub hour: Span,
    /// See [`Windows`].
    pub day: Span,
    /// See [`Windows`].
    pub week: Span,
}

impl WindowSpans {
    /// The windows of a report as of an instant.
    pub fn new(zone: Zone, as_of: Timestamp, windows: Windows) -> Self {
        let hour_start = zone.grid().hour_start(as_of);
        let hour = Span::new(hour_start.plus(-HOUR_US), hour_start);
        match windows {
            Windows::Rolling => WindowSpans {
                hour,
                day: Span::new(hour_start.plus(-DAY_US), hour_start),
                week: Span::new(hour_start.plus(-7 * DAY_US), hour_start),
            },
            Windows::Calendar => {
                let midnight = |days| local_midnight(zone, as_of, days);
                let monday = -i64::from(zone.local_date(as_of).weekday().num_days_from_monday());
                WindowSpans {
                    hour,
                    day: Span::new(midnight(-1), midnight(0)),
                    week: Span::new(midnight(monday - 7), midnight(monday)),
                }
            }
        }
    }

    /// Hour, day, week.
    pub fn all(self) -> [Span; 3] {
        [self.hour, self.day, self.week]
    }

    /// The stretch from the first to the last instant of any of the windows.
    pub fn reach(self) -> Span {
        let all = self.all();
        let start = all.iter().map(|w| w.start).min().unwrap_or(self.hour.start);
        let end = all.iter().map(|w| w.end).max().unwrap_or(self.hour.end);
        Span::new(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono_tz::Tz;

    fn span(from: &str, to: &str) -> Span {
        Span::new(from.parse().unwrap(), to.parse().unwrap())
    }

    #[test]
    fn windows_end_before_the_hour_day_and_week_of_as_of() {
        // Monday 2023-01-23 09:03 in Chicago.
        let chicago = Zone::of(Tz::America__Chicago);
        let as_of = "2023-01-23T15:03:00Z".parse().unwrap();
        let rolling = WindowSpans::new(chicago, as_of, Windows::Rolling);
        assert_eq!(rolling.hour, span("2023-01-23T14:00:00Z", "2023-01-23T15:00:00Z"));
        assert_eq!(rolling.day, span("2023-01-22T15:00:00Z", "2023-01-23T15:00:00Z"));
        assert_eq!(rolling.week, span("2023-01-16T15:00:00Z", "2023-01-23T15:00:00Z"));
        let calendar = WindowSpans::new(chicago, as_of, Windows::Calendar);
        assert_eq!(calendar.hour, rolling.hour);
        assert_eq!(calendar.day, span("2023-01-22T06:00:00Z", "2023-01-23T06:00:00Z"));
        assert_eq!(calendar.week, span("2023-01-16T06:00:00Z", "2023-01-23T06:00:00Z"));
    }

    #[test]
    fn a_calendar_day_has_23_or_25_hours_where_clocks_change() {
        let chicago = Zone::of(Tz::America__Chicago);
        let day = |as_of: &str| WindowSpans::new(chicago, as_of.parse().unwrap(), Windows::Calendar).day;
        assert_eq!(day("2023-03-13T12:00:00Z").len_us(), 23 * HOUR_US);
        assert_eq!(day("2023-11-06T12:00:00Z").len_us(), 25 * HOUR_US);
    }

    #[test]
    fn windows_stay_the_same_for_a_step() {
        for tz in chrono_tz::TZ_VARIANTS {
            for steps in (0..96 * 366 * 3).step_by(997) {
                let first = Timestamp::from_micros(1_609_459_200_000_000).plus(steps * WINDOWS_STEP_US);
                let last = first.plus(WINDOWS_STEP_US - 1);
                for windows in [Windows::Calendar, Windows::Rolling] {
                    let of = |as_of| WindowSpans::new(Zone::of(tz), as_of, windows);
                    assert_eq!(of(first), of(last), "{tz} {first}");
                }
            }
        }
    }

    #[test]
    fn the_reach_bounds_every_window_of_every_zone() {
        for tz in chrono_tz::TZ_VARIANTS {
            for hours in (0..24 * 400).step_by(31) {
                let as_of = Timestamp::from_micros(1_609_459_200_000_000).plus(hours * HOUR_US);
                let reach = WindowSpans::new(Zone::of(tz), as_of, Windows::Calendar).reach();
                assert!(as_of.since(reach.start) <= WINDOW_REACH_US, "{tz} {as_of}");
                assert!(reach.end <= as_of, "{tz} {as_of}");
            }
        }
    }
}
