//! Weekly opening hours in local wall time, in canonical form.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::Weekday;

use crate::time::{DAY_US, MINUTE_US};

/// One opening: a weekday, and from when to when in microseconds of wall time since that day's 00:00.
///
/// Invariant: `day < 7`, `0 <= start_us < 24 h`, `start_us < end_us <= start_us + 24 h`. An end of
/// exactly 24 h is the end of the day; a later one is a wall time of the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    /// 0 = Monday to 6 = Sunday.
    pub day: u8,
    /// Opening, microseconds of wall time.
    pub start_us: i64,
    /// Closing, microseconds of wall time.
    pub end_us: i64,
}

impl Interval {
    /// An interval as it stands in a row of `store_business_hours`. An end of 23:59 or later means the
    /// end of the day (31 % of the real rows close so; the minute is a spelling, not a closing);
    /// `start >= end` wraps past midnight, and equal ends are 24 hours. None if out of range.
    pub fn new(day: u8, start_us: i64, end_us: i64) -> Option<Self> {
        if day > 6 || !(0..DAY_US).contains(&start_us) || !(0..=DAY_US).contains(&end_us) {
            return None;
        }
        let end_us = if end_us >= DAY_US - MINUTE_US { DAY_US } else { end_us };
        let end_us = if start_us >= end_us { end_us + DAY_US } else { end_us };
        Some(Interval { day, start_us, end_us })
    }
}

/// The opening hours of a week: sorted and without repetition, so that equal hours compare equal.
///
/// Without any interval the store is always open; with some, a weekday without one is closed. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct WeeklyHours {
    intervals: Arc<[Interval]>,
}

impl WeeklyHours {
    /// The hours of a store that has no rows.
    pub fn always_open() -> Self {
        WeeklyHours::default()
    }

    /// Whether there are no rows.
    pub fn is_always_open(&self) -> bool {
        self.intervals.is_empty()
    }

    /// All intervals, by weekday and start.
    pub fn all(&self) -> &[Interval] {
        &self.intervals
    }

    /// The intervals that begin on a weekday, by their start.
    pub fn of_day(&self, weekday: Weekday) -> impl Iterator<Item = &Interval> {
        let day = u8::try_from(weekday.num_days_from_monday()).unwrap_or(u8::MAX);
        self.intervals.iter().filter(move |interval| interval.day == day)
    }
}

impl FromIterator<Interval> for WeeklyHours {
    fn from_iter<I: IntoIterator<Item = Interval>>(intervals: I) -> Self {
        let mut intervals: Vec<_> = intervals.into_iter().collect();
        intervals.sort_unstable();
        intervals.dedup();
        WeeklyHours {
            intervals: intervals.into(),
        }
    }
}

/// `day start end` in microseconds, separated by semicolons: the form kept in `uptally.rollup_schedule`.
impl fmt::Display for WeeklyHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Interval { day, start_us, end_us }) in self.intervals.iter().enumerate() {
            let separator = if i == 0 { "" } else { ";" };
            write!(f, "{separator}{day} {start_us} {end_us}")?;
        }
        Ok(())
    }
}

/// The text is not the canonical form of weekly hours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected weekly hours as `day start_us end_us;…`, found `{0}`")]
pub struct ParseHoursError(String);

impl FromStr for WeeklyHours {
    type Err = ParseHoursError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let interval = |part: &str| -> Option<Interval> {
            let mut numbers = part.split(' ');
            let day = numbers.next()?.parse().ok()?;
            let start_us = numbers.next()?.parse().ok()?;
            let end_us = numbers.next()?.parse().ok()?;
            let kept = Interval { day, start_us, end_us };
            let valid = day < 7 && (0..DAY_US).contains(&start_us) && start_us < end_us && end_us <= start_us + DAY_US;
            (valid && numbers.next().is_none()).then_some(kept)
        };
        if text.is_empty() {
            return Ok(WeeklyHours::always_open());
        }
        text.split(';')
            .map(|part| interval(part).ok_or_else(|| ParseHoursError(text.to_owned())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_canonical() {
        let h = |hours: i64| hours * 60 * MINUTE_US;
        assert_eq!(Interval::new(0, h(10), h(9)).unwrap().end_us, h(33));
        assert_eq!(Interval::new(0, 0, 0).unwrap().end_us, DAY_US);
        assert_eq!(Interval::new(0, h(10), h(10)).unwrap().end_us, h(34));
        assert_eq!(Interval::new(0, h(10), DAY_US - MINUTE_US).unwrap().end_us, DAY_US);
        // The spelling rule comes first: 23:59:30 to 23:59 is the day's last half minute.
        assert_eq!(
            Interval::new(0, DAY_US - MINUTE_US / 2, DAY_US - MINUTE_US)
                .unwrap()
                .end_us,
            DAY_US
        );
        assert_eq!(Interval::new(7, 0, 1), None);
        assert_eq!(Interval::new(0, DAY_US, 1), None);
        assert_eq!(Interval::new(0, -1, 1), None);
    }

    #[test]
    fn the_kept_form_reads_back() {
        let hours: WeeklyHours = [(3, 0, 0), (0, 5, 4), (0, 5, 4)]
            .iter()
            .filter_map(|&(day, start, end)| Interval::new(day, start, end))
            .collect();
        assert_eq!(hours.to_string().parse(), Ok(hours));
        assert_eq!(String::new().parse(), Ok(WeeklyHours::always_open()));
        for text in [";", "0 1", "7 1 2", "0 2 1", "0 1 2 3", "0 1 999999999999"] {
            assert!(text.parse::<WeeklyHours>().is_err(), "{text}");
        }
    }
}
