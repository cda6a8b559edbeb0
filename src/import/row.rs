//! Records to typed rows. A value of these types has passed every check that the tables make.
//!
//! Units: times of day are microseconds after local midnight.

use chrono_tz::Tz;

use super::record::{BadField, Record};
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
