//! Records to typed rows. A value of these types has passed every check that the tables make.
//!
//! Units: times of day are microseconds after local midnight, wall times are microseconds since 1970-01-01 00:00 of the
//! same clock.

use chrono::NaiveDate;
use chrono_tz::Tz;

use super::record::{BadField, Record};
use crate::schedule::Closure;
use crate::store::{Status, check_store_id};
use crate::time::{DAY_US, HOUR_US, MINUTE_US, SECOND_US, Timestamp};

/// One observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivityRow<'a> {
    /// A text that [`check_store_id`] accepts.
    pub store_id: &'a str,
    /// When.
    pub at: Timestamp,
    /// What was found.
    pub status: Status,
}

/// One interval of a store's weekly opening hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoursRow<'a> {
    /// A text that [`check_store_id`] accepts.
    pub store_id: &'a str,
    /// 0 (Monday) to 6 (Sunday).
    pub day: u8,
    /// Local start, `0..DAY_US`.
    pub start_us: i64,
    /// Local end, `0..=DAY_US`; at or before `start_us` it is the next day's.
    pub end_us: i64,
}

/// Longest reason of a closure in bytes.
pub const REASON_BYTES_MAX: usize = 200;

/// A stretch of wall time in which a store is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosureRow<'a> {
    /// A text that [`check_store_id`] accepts; [`EVERY_STORE`](crate::store::EVERY_STORE) is every store.
    pub store_id: &'a str,
    /// Wall time of the first closed moment.
    pub from_us: i64,
    /// Wall time of the first moment after it; with `from_us` it is a [`Closure`].
    pub to_us: i64,
    /// At most [`REASON_BYTES_MAX`] bytes without control characters; may be empty.
    pub reason: &'a str,
}

/// The time zone of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimezoneRow<'a> {
    /// A text that [`check_store_id`] accepts.
    pub store_id: &'a str,
    /// The zone; its name is one of `uptally.time_zone`.
    pub zone: Tz,
}

impl<'a> ActivityRow<'a> {
    /// Reads a record of [`super::Table::Activity`].
    ///
    /// # Errors
    /// The first field that is not right.
    pub fn parse(record: &Record<'a>) -> Result<Self, BadField> {
        let [store_id, status, at, _] = record.fields;
        Self::of(store_id, status, at)
    }

    /// Reads the texts of its columns, in the order of [`super::Table::columns`].
    ///
    /// # Errors
    /// The first that is not right.
    pub fn of(store_id: &'a str, status: &str, at: &str) -> Result<Self, BadField> {
        Ok(ActivityRow {
            store_id: parse_store_id(store_id)?,
            status: status.parse().map_err(|_| bad(1, "active or inactive"))?,
            at: at.parse().map_err(|error| bad_with(2, &error))?,
        })
    }
}

impl<'a> HoursRow<'a> {
    /// Reads a record of [`super::Table::Hours`].
    ///
    /// # Errors
    /// The first field that is not right.
    pub fn parse(record: &Record<'a>) -> Result<Self, BadField> {
        const START: &str = "a time from 00:00 to before 24:00, such as 09:30 or 09:30:00";
        const END: &str = "a time from 00:00 to 24:00, such as 21:30 or 21:30:00";
        let [store_id, day, start, end] = record.fields;
        let store_id = parse_store_id(store_id)?;
        let day = match day.as_bytes() {
            [digit @ b'0'..=b'6'] => digit - b'0',
            _ => return Err(bad(1, "a day from 0 (Monday) to 6 (Sunday)")),
        };
        let start_us = parse_time_of_day(start).filter(|&us| us < DAY_US);
        Ok(HoursRow {
            store_id,
            day,
            start_us: start_us.ok_or_else(|| bad(2, START))?,
            end_us: parse_time_of_day(end).ok_or_else(|| bad(3, END))?,
        })
    }
}

impl<'a> ClosureRow<'a> {
    /// Reads a record of [`super::Table::Closures`].
    ///
    /// # Errors
    /// The first field that is not right.
    pub fn parse(record: &Record<'a>) -> Result<Self, BadField> {
        const FROM: &str =
            "a local date or time from 2000-01-01 to before 2100-01-01, such as 2026-12-25 or 2026-12-25 14:30";
        const TO: &str = "a local date or time after that of closed_from and up to 2100-01-01; or nothing after a date \
                          there, for that day";
        const REASON: &str = "at most 200 bytes of text without control characters";
        let [store_id, from, to, reason] = record.fields;
        let store_id = parse_store_id(store_id)?;
        let (from_us, is_date) = parse_wall_time(from).ok_or_else(|| bad(1, FROM))?;
        if Closure::new(from_us, Timestamp::MAX.micros()).is_none() {
            return Err(bad(1, FROM));
        }
        let to_us = match parse_wall_time(to) {
            None if to.is_empty() && is_date => Some(from_us + DAY_US),
            read => read.map(|(to_us, _)| to_us),
        };
        let to_us = to_us.filter(|&to_us| Closure::new(from_us, to_us).is_some());
        let to_us = to_us.ok_or_else(|| bad(2, TO))?;
        if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
            return Err(bad(3, REASON));
        }
        Ok(ClosureRow {
            store_id,
            from_us,
            to_us,
            reason,
        })
    }
}

impl<'a> TimezoneRow<'a> {
    /// Reads a record of [`super::Table::Timezones`].
    ///
    /// # Errors
    /// The first field that is not right.
    pub fn parse(record: &Record<'a>) -> Result<Self, BadField> {
        let [store_id, zone, ..] = record.fields;
        Ok(TimezoneRow {
            store_id: parse_store_id(store_id)?,
            zone: zone
                .parse()
                .map_err(|_| bad(1, "an IANA time zone such as America/Chicago"))?,
        })
    }
}

fn parse_store_id(text: &str) -> Result<&str, BadField> {
    check_store_id(text).map(|()| text).map_err(|error| bad_with(0, &error))
}

/// `HH:MM`, `HH:MM:SS` or `HH:MM:SS.ffffff`; 24:00 is the only time of hour 24.
fn parse_time_of_day(text: &str) -> Option<i64> {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) if clock.len() == 8 => (clock, Some(fraction)),
        Some(_) => return None,
        None => (text, None),
    };
    let (h, m, s) = match *clock.as_bytes() {
        [h0, h1, b':', m0, m1] => (two(h0, h1)?, two(m0, m1)?, 0),
        [h0, h1, b':', m0, m1, b':', s0, s1] => (two(h0, h1)?, two(m0, m1)?, two(s0, s1)?),
        _ => return None,
    };
    let us = h * HOUR_US + m * MINUTE_US + s * SECOND_US + parse_fraction(fraction)?;
    (m < 60 && s < 60 && us <= DAY_US).then_some(us)
}

/// `YYYY-MM-DD`, or with a time of day after a blank or a `T`. Returns whether it is a date alone.
fn parse_wall_time(text: &str) -> Option<(i64, bool)> {
    let (date, time) = match text.split_at_checked(10)? {
        (date, "") => (date, None),
        (date, rest) => (date, Some(rest.strip_prefix([' ', 'T'])?)),
    };
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = *date.as_bytes() else {
        return None;
    };
    let year = two(y0, y1)? * 100 + two(y2, y3)?;
    let (month, day) = (u32::try_from(two(m0, m1)?).ok()?, u32::try_from(two(d0, d1)?).ok()?);
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
    let day = date.signed_duration_since(NaiveDate::default()).num_days();
    let of_day_us = time.map_or(Some(0), parse_time_of_day)?;
    Some((day * DAY_US + of_day_us, time.is_none()))
}

/// Microseconds of one to six decimals of a second.
fn parse_fraction(digits: Option<&str>) -> Option<i64> {
    let Some(digits) = digits else { return Some(0) };
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let missing = 6_usize.checked_sub(digits.len()).filter(|_| is_number)?;
    let scale = 10_i64.pow(u32::try_from(missing).ok()?);
    Some(digits.parse::<i64>().ok()? * scale)
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    let is_number = tens.is_ascii_digit() && ones.is_ascii_digit();
    is_number.then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

fn bad(column: usize, expected: &str) -> BadField {
    BadField {
        column,
        expected: expected.to_owned(),
    }
}

/// The errors of the types say "expected ..." themselves; a reject says it once for all.
fn bad_with(column: usize, error: &dyn std::error::Error) -> BadField {
    let text = error.to_string();
    bad(column, text.strip_prefix("expected ").unwrap_or(&text))
}
