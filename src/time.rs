//! Instants and half-open spans of UTC time, in whole microseconds.
//!
//! Pure: nothing here reads a clock. All arithmetic is on integers; the only place where a
//! number of time units becomes a decimal is the report's last formatting step.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};

/// Microseconds in a second.
pub const SECOND_US: i64 = 1_000_000;
/// Microseconds in a minute.
pub const MINUTE_US: i64 = 60 * SECOND_US;
/// Microseconds in an hour.
pub const HOUR_US: i64 = 60 * MINUTE_US;
/// Microseconds in 24 hours.
pub const DAY_US: i64 = 24 * HOUR_US;

/// An instant: microseconds since 1970-01-01T00:00:00Z.
///
/// Invariant: within [`Timestamp::MIN`]`..`[`Timestamp::MAX`]. The bounds are those of the table
/// `store_activity` (a CHECK there says the same): a poller whose clock is that wrong is refused
/// rather than believed, and arithmetic on accepted instants cannot overflow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 2000-01-01T00:00:00Z, the first instant that is accepted.
    pub const MIN: Timestamp = Timestamp(946_684_800 * SECOND_US);
    /// 2100-01-01T00:00:00Z, the first instant that is not accepted any more.
    pub const MAX: Timestamp = Timestamp(4_102_444_800 * SECOND_US);

    /// The instant `micros` microseconds after 1970-01-01T00:00:00Z.
    pub const fn from_micros(micros: i64) -> Self {
        Timestamp(micros)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whether the instant lies in the range that the tables accept.
    pub fn is_in_range(self) -> bool {
        (Timestamp::MIN..Timestamp::MAX).contains(&self)
    }

    /// The instant `micros` later (earlier if negative).
    #[must_use]
    pub const fn plus(self, micros: i64) -> Self {
        Timestamp(self.0 + micros)
    }

    /// Microseconds from `earlier` to `self`; negative if `self` is the earlier one.
    pub const fn since(self, earlier: Timestamp) -> i64 {
        self.0 - earlier.0
    }

    /// The same instant as a chrono value; saturates at chrono's own range.
    pub fn to_chrono(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// The instant of a chrono value, truncated to microseconds.
    pub fn from_chrono(at: DateTime<Utc>) -> Self {
        Timestamp(at.timestamp_micros())
    }
}

/// RFC 3339 in UTC, with as many fraction digits as are needed (0, 3 or 6).
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_chrono().to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

/// As it is displayed.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseTimestampError {
    /// Not of an accepted form.
    #[error("expected a time such as 2023-01-22 12:09:39.388884 UTC or 2023-01-22T12:09:39Z")]
    Form,
    /// A real instant, but outside `Timestamp::MIN..Timestamp::MAX`.
    #[error("expected a time from 2000-01-01 to before 2100-01-01")]
    Range,
}

/// Reads `2023-01-22 12:09:39.388884 UTC` (fraction of up to six digits optional, the zone word may be
/// `UTC`, `Z` or an offset) and RFC 3339. A text without a zone is refused: guessing one would shift
/// the numbers by hours.
impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = parse_utc_form(text.as_bytes())
            .or_else(|| parse_any_offset(text))
            .ok_or(ParseTimestampError::Form)?;
        if at.is_in_range() {
            Ok(at)
        } else {
            Err(ParseTimestampError::Range)
        }
    }
}

/// Days from 0001-01-01, which chrono counts as day 1, to 1970-01-01.
const DAYS_TO_1970: i64 = 719_163;

/// The status feed's own form, without allocation: an import parses millions of these.
fn parse_utc_form(text: &[u8]) -> Option<Timestamp> {
    let (head, rest) = text.split_at_checked(19)?;
    let (
        &[
            y0,
            y1,
            y2,
            y3,
            b'-',
            m0,
            m1,
            b'-',
            d0,
            d1,
            sep,
            h0,
            h1,
            b':',
            i0,
            i1,
            b':',
            s0,
            s1,
        ],
        b' ' | b'T',
    ) = (<&[u8; 19]>::try_from(head).ok()?, head.get(10)?)
    else {
        return None;
    };
    debug_assert!(sep == b' ' || sep == b'T');
    let two = |a: u8, b: u8| Some(digit(a)? * 10 + digit(b)?);
    let year = two(y0, y1)? * 100 + two(y2, y3)?;
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, two(m0, m1)?, two(d0, d1)?)?;
    let (hour, minute, second) = (two(h0, h1)?, two(i0, i1)?, two(s0, s1)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (micros, zone) = match rest {
        [b'.', fraction @ ..] => {
            let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 || digits > 6 {
                return None;
            }
            let (number, zone) = fraction.split_at_checked(digits)?;
            let value = number
                .iter()
                .try_fold(0_i64, |n, &b| Some(n * 10 + i64::from(digit(b)?)))?;
            (value * 10_i64.pow(6 - u32::try_from(digits).ok()?), zone)
        }
        zone => (0, zone),
    };
    if !matches!(zone, b" UTC" | b"UTC" | b"Z" | b"+00" | b"+00:00" | b" +00:00") {
        return None;
    }
    let days = i64::from(date.num_days_from_ce()) - DAYS_TO_1970;
    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    Some(Timestamp(days * DAY_US + seconds * SECOND_US + micros))
}

/// Everything else: RFC 3339 with another offset, fractions past the microsecond (truncated).
fn parse_any_offset(text: &str) -> Option<Timestamp> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(Timestamp::from_chrono(at.to_utc()));
    }
    if let Ok(at) = DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z") {
        return Some(Timestamp::from_chrono(at.to_utc()));
    }
    let naive = text.strip_suffix(" UTC")?;
    let at = NaiveDateTime::parse_from_str(naive, "%Y-%m-%d %H:%M:%S%.f").ok()?;
    Some(Timestamp::from_chrono(at.and_utc()))
}

fn digit(byte: u8) -> Option<u32> {
    byte.is_ascii_digit().then(|| u32::from(byte - b'0'))
}

/// A half-open stretch of time, `start` included, `end` not.
///
/// Invariant: `start <= end`; [`Span::new`] makes an inverted pair empty at `start`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First instant of the stretch.
    pub start: Timestamp,
    /// First instant after the stretch.
    pub end: Timestamp,
}

impl Span {
    /// The stretch from `start` to before `end`; empty if `end` is not after `start`.
    pub fn new(start: Timestamp, end: Timestamp) -> Self {
        Span {
            start,
            end: end.max(start),
        }
    }

    /// Length in microseconds.
    pub const fn len_us(self) -> i64 {
        self.end.since(self.start)
    }

    /// Whether the stretch holds no instant.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The common part of two stretches; empty if they have none.
    #[must_use]
    pub fn intersect(self, other: Span) -> Span {
        Span::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// Whether `at` lies in the stretch.
    pub fn contains(self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_of_the_feed() {
        let expected = Timestamp(1_674_389_379_388_884);
        for text in [
            "2023-01-22 12:09:39.388884 UTC",
            "2023-01-22 12:09:39.388884+00",
            "2023-01-22T12:09:39.388884Z",
            "2023-01-22T12:09:39.388884+00:00",
            "2023-01-22T14:09:39.388884+02:00",
            "2023-01-22 06:09:39.388884-06",
            "2023-01-22T12:09:39.388884999Z",
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        assert_eq!("2023-01-22 12:09:39 UTC".parse(), Ok(Timestamp(1_674_389_379_000_000)));
        assert_eq!(
            "2023-01-22 12:09:39.5 UTC".parse(),
            Ok(Timestamp(1_674_389_379_500_000))
        );
    }

    #[test]
    fn refuses_what_is_not_an_instant() {
        for text in [
            "",
            "now",
            "2023-01-22",
            "2023-01-22 12:09:39",
            "2023-02-30 12:09:39 UTC",
            "2023-01-22 24:00:00 UTC",
            "2023-01-22 12:60:00 UTC",
            "2023-01-22 12:09:39. UTC",
            "2023-01-22 12:09:39 PST",
            "infinity",
            "２０２３-01-22 12:09:39 UTC",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(ParseTimestampError::Form), "{text}");
        }
        for text in ["1999-12-31 23:59:59 UTC", "2100-01-01T00:00:00Z"] {
            assert_eq!(text.parse::<Timestamp>(), Err(ParseTimestampError::Range), "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for micros in [1_674_389_379_388_884, 1_674_389_379_000_000, 946_684_800_000_001] {
            let at = Timestamp(micros);
            assert_eq!(at.to_string().parse(), Ok(at));
        }
    }

    #[test]
    fn spans_are_half_open() {
        let t = Timestamp::from_micros;
        let a = Span::new(t(10), t(20));
        assert!(a.contains(t(10)) && !a.contains(t(20)));
        assert_eq!(a.intersect(Span::new(t(15), t(30))), Span::new(t(15), t(20)));
        assert!(a.intersect(Span::new(t(20), t(30))).is_empty());
        assert!(Span::new(t(5), t(1)).is_empty());
    }
}
