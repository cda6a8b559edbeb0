//! Closures in local wall time, in canonical form.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Side, Zone, union};
use crate::time::{DAY_US, MINUTE_US, Span, Timestamp};

/// A stretch of wall time in which a store is closed, whatever its hours say. Microseconds that a clock on the store's
/// wall shows since 1970-01-01 00:00 of that same clock.
///
/// Invariant: 2000-01-01 00:00 `<= from_us < to_us <=` 2100-01-01 00:00, and the end is not in a day's last minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Closure {
    /// The first moment that is closed.
    pub from_us: i64,
    /// The first moment that is not.
    pub to_us: i64,
}

impl Closure {
    /// A closure as it stands in a row of `store_closures`. As in opening hours, an end of 23:59 or later spells the end
    /// of the day. None if out of range, or if it ends before it begins.
    pub fn new(from_us: i64, to_us: i64) -> Option<Self> {
        const FIRST_US: i64 = Timestamp::MIN.micros();
        const END_US: i64 = Timestamp::MAX.micros();
        if from_us < FIRST_US || to_us > END_US || from_us >= to_us {
            return None;
        }
        let left_us = DAY_US - to_us.rem_euclid(DAY_US);
        let to_us = if left_us <= MINUTE_US { to_us + left_us } else { to_us };
        Some(Closure { from_us, to_us })
    }
}

/// The closures of a store: sorted, and united where they touch or overlap, so that equal ones compare equal.
/// Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Closures {
    spans: Arc<[Closure]>,
}

impl Closures {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = Closure> + '_ {
        self.spans.iter().copied()
    }

    /// The closed stretches that overlap `within`, clipped to it: sorted, disjoint and not touching.
    pub(super) fn closed(&self, zone: Zone, within: Span) -> Vec<Span> {
        // No clock is two days away from UTC.
        let (from_us, to_us) = (within.start.micros() - 2 * DAY_US, within.end.micros() + 2 * DAY_US);
        let first = self.spans.partition_point(|closure| closure.to_us <= from_us);
        let near = self.spans.iter().skip(first).take_while(|c| c.from_us < to_us);
        let pieces = near.map(|closure| {
            let start = zone.at_wall(closure.from_us, Side::Opening);
            let end = zone.at_wall(closure.to_us, Side::Closing);
            Span::new(start, end).intersect(within)
        });
        // Apart on the wall, two may still meet where its clock shows an hour twice.
        union(pieces.filter(|piece| !piece.is_empty()).collect())
    }
}

impl FromIterator<Closure> for Closures {
    fn from_iter<I: IntoIterator<Item = Closure>>(closures: I) -> Self {
        let mut closures: Vec<_> = closures.into_iter().collect();
        closures.sort_unstable();
        let mut spans: Vec<Closure> = Vec::with_capacity(closures.len());
        for closure in closures {
            match spans.last_mut() {
                Some(last) if closure.from_us <= last.to_us => last.to_us = last.to_us.max(closure.to_us),
                _ => spans.push(closure),
            }
        }
        Closures { spans: spans.into() }
    }
}

/// `from to` in microseconds, separated by semicolons: the form kept in `uptally.rollup_schedule`.
impl fmt::Display for Closures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Closure { from_us, to_us }) in self.spans.iter().enumerate() {
            let separator = if i == 0 { "" } else { ";" };
            write!(f, "{separator}{from_us} {to_us}")?;
        }
        Ok(())
    }
}

/// The text is not the canonical form of closures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected closures as `from_us to_us;…`, found `{0}`")]
pub struct ParseClosuresError(String);

impl FromStr for Closures {
    type Err = ParseClosuresError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let closure = |part: &str| -> Option<Closure> {
            let (from_us, to_us) = part.split_once(' ')?;
            let (from_us, to_us) = (from_us.parse().ok()?, to_us.parse().ok()?);
            let kept = Closure { from_us, to_us };
            (Closure::new(from_us, to_us) == Some(kept)).then_some(kept)
        };
        if text.is_empty() {
            return Ok(Closures::default());
        }
        text.split(';')
            .map(|part| closure(part).ok_or_else(|| ParseClosuresError(text.to_owned())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{HOUR_US, SECOND_US};

    /// Microseconds on the wall of a text without a zone.
    fn wall(text: &str) -> i64 {
        format!("{text}:00Z").parse::<Timestamp>().unwrap().micros()
    }

    fn closure(from: &str, to: &str) -> Closure {
        Closure::new(wall(from), wall(to)).unwrap()
    }

    fn closed(zone: &str, from: &str, to: &str) -> Vec<Span> {
        let closures: Closures = [closure(from, to)].into_iter().collect();
        let around = Span::new(at(from).plus(-5 * DAY_US), at(to).plus(5 * DAY_US));
        closures.closed(Zone::of(zone.parse().unwrap()), around)
    }

    fn at(text: &str) -> Timestamp {
        format!("{text}:00Z").parse().unwrap()
    }

    fn span(from: &str, to: &str) -> Span {
        Span::new(at(from), at(to))
    }

    #[test]
    fn rows_become_canonical() {
        let day = closure("2022-12-25T00:00", "2022-12-26T00:00");
        for end in ["2022-12-25T23:59", "2022-12-26T00:00"] {
            assert_eq!(closure("2022-12-25T00:00", end), day);
        }
        let last_second = wall("2022-12-26T00:00") - SECOND_US;
        assert_eq!(Closure::new(day.from_us, last_second), Some(day));
        assert_eq!(
            closure("2022-12-25T00:00", "2022-12-25T23:58").to_us,
            day.to_us - 2 * MINUTE_US
        );
        let united: Closures = [
            closure("2022-12-26T00:00", "2022-12-27T12:00"),
            closure("2022-12-30T00:00", "2022-12-31T00:00"),
            closure("2022-12-25T00:00", "2022-12-25T23:59"),
            closure("2022-12-27T11:00", "2022-12-27T11:30"),
        ]
        .into_iter()
        .collect();
        let found: Vec<_> = united.iter().map(|c| (c.from_us, c.to_us)).collect();
        assert_eq!(
            found,
            [
                (wall("2022-12-25T00:00"), wall("2022-12-27T12:00")),
                (wall("2022-12-30T00:00"), wall("2022-12-31T00:00"))
            ]
        );
        let century = (Timestamp::MIN.micros(), Timestamp::MAX.micros());
        assert!(Closure::new(century.0, century.1).is_some());
        assert_eq!(Closure::new(century.0, century.1 - SECOND_US).unwrap().to_us, century.1);
        for (from_us, to_us) in [
            (century.0 - 1, century.1),
            (century.0, century.1 + 1),
            (century.1, century.1),
        ] {
            assert_eq!(Closure::new(from_us, to_us), None);
        }
    }

    #[test]
    fn the_kept_form_reads_back() {
        let closures: Closures = [
            closure("2022-12-25T00:00", "2022-12-26T00:00"),
            closure("2023-01-01T08:00", "2023-01-01T09:00"),
        ]
        .into_iter()
        .collect();
        assert_eq!(closures.to_string().parse(), Ok(closures));
        assert_eq!("".parse(), Ok(Closures::default()));
        let day = wall("2022-12-25T00:00");
        for text in [
            ";".to_owned(),
            "1".to_owned(),
            "1 2".to_owned(),
            format!("{day} {day}"),
            format!("{day} {} 1", day + HOUR_US),
            format!("{day} {}", day + DAY_US - SECOND_US),
        ] {
            assert!(text.parse::<Closures>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_local_day_is_closed_from_its_first_instant_to_its_last() {
        // 24, 23 and 25 hours; Beirut's day begins at 01:00, Havana's shows its first hour twice.
        for (zone, day, next, from, to) in [
            (
                "Asia/Kathmandu",
                "2022-12-25T00:00",
                "2022-12-26T00:00",
                "2022-12-24T18:15",
                "2022-12-25T18:15",
            ),
            (
                "America/Chicago",
                "2023-03-12T00:00",
                "2023-03-13T00:00",
                "2023-03-12T06:00",
                "2023-03-13T05:00",
            ),
            (
                "America/Chicago",
                "2023-11-05T00:00",
                "2023-11-06T00:00",
                "2023-11-05T05:00",
                "2023-11-06T06:00",
            ),
            (
                "Asia/Beirut",
                "2022-03-27T00:00",
                "2022-03-28T00:00",
                "2022-03-26T22:00",
                "2022-03-27T21:00",
            ),
            (
                "America/Havana",
                "2023-11-05T00:00",
                "2023-11-06T00:00",
                "2023-11-05T04:00",
                "2023-11-06T05:00",
            ),
            // It ends where the next day begins, before the hour that is shown twice.
            (
                "America/Havana",
                "2023-11-04T00:00",
                "2023-11-05T00:00",
                "2023-11-04T04:00",
                "2023-11-05T04:00",
            ),
        ] {
            assert_eq!(closed(zone, day, next), [span(from, to)], "{zone} {day}");
        }
        // Apia's 2011-12-30 did not happen.
        assert_eq!(closed("Pacific/Apia", "2011-12-30T00:00", "2011-12-31T00:00"), []);
    }

    #[test]
    fn gaps_and_folds_are_those_of_hours() {
        // Chicago, 2023-03-12: 02:00 to 03:00 does not exist. 2023-11-05: 01:00 to 02:00 exists twice.
        for (from, to, expected) in [
            (
                "2023-03-12T02:30",
                "2023-03-12T05:00",
                Some(("2023-03-12T08:00", "2023-03-12T10:00")),
            ),
            ("2023-03-12T02:10", "2023-03-12T02:40", None),
            (
                "2023-11-05T01:30",
                "2023-11-05T01:45",
                Some(("2023-11-05T06:30", "2023-11-05T07:45")),
            ),
            (
                "2023-11-05T00:30",
                "2023-11-05T01:00",
                Some(("2023-11-05T05:30", "2023-11-05T07:00")),
            ),
        ] {
            let expected: Vec<Span> = expected.into_iter().map(|(from, to)| span(from, to)).collect();
            assert_eq!(closed("America/Chicago", from, to), expected, "{from}");
        }
        // Apart on the wall, but not in time.
        let two: Closures = [
            closure("2023-11-05T00:30", "2023-11-05T01:20"),
            closure("2023-11-05T01:40", "2023-11-05T03:00"),
        ]
        .into_iter()
        .collect();
        let day = span("2023-11-05T00:00", "2023-11-06T00:00");
        let chicago = Zone::of("America/Chicago".parse().unwrap());
        assert_eq!(two.closed(chicago, day), [span("2023-11-05T05:30", "2023-11-05T09:00")]);
    }
}
