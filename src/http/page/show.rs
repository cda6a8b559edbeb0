//! Numbers and instants as a person reads them. Shapes only; nothing is computed here.

use chrono::{NaiveDate, TimeZone};
use chrono_tz::Tz;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::time::{DAY_US, HOUR_US, MINUTE_US, SECOND_US, Timestamp};

/// What a path segment or a query value may hold as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What is shown where there is no value.
pub(super) const NONE: &str = "–";

/// `13559` as `13,559`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A ratio as a percentage of two decimals, cut off: 100.00 % is said of the whole only.
pub(super) fn percent(ratio: Option<f64>) -> String {
    // The small addition undoes what binary fractions take: 0.29 * 10,000 is 2,899.999….
    ratio.map_or_else(
        || NONE.to_owned(),
        |ratio| format!("{:.2} %", (ratio * 1e4 + 1e-6).floor() / 100.0),
    )
}

/// A stretch of time in hours and minutes, or in seconds: `2 h 5 min`, `2 h`, `45 s`, `0 min`.
pub(super) fn duration(us: i64) -> String {
    match us {
        ..=0 => "0 min".to_owned(),
        us if us < MINUTE_US => format!("{} s", (us / SECOND_US).max(1)),
        us if us < HOUR_US => format!("{} min", us / MINUTE_US),
        us if us % HOUR_US < MINUTE_US => format!("{} h", us / HOUR_US),
        us => format!("{} h {} min", us / HOUR_US, us % HOUR_US / MINUTE_US),
    }
}

/// How long ago `at` was: `12 s ago`, `3 h ago`, `2 d ago`.
pub(super) fn age(at: Timestamp, as_of: Timestamp) -> String {
    match as_of.since(at) {
        ..=SECOND_US => "just now".to_owned(),
        us if us < MINUTE_US => format!("{} s ago", us / SECOND_US),
        us if us < HOUR_US => format!("{} min ago", us / MINUTE_US),
        us if us < 2 * DAY_US => format!("{} h ago", us / HOUR_US),
        us => format!("{} d ago", us / DAY_US),
    }
}

/// How far ahead `at` is: `in 3 h 10 min`, `in 2 d`.
pub(super) fn ahead(at: Timestamp, as_of: Timestamp) -> String {
    match at.since(as_of) {
        ..MINUTE_US => "within a minute".to_owned(),
        us if us < 2 * DAY_US => format!("in {}", duration(us)),
        us => format!("in {} d", us / DAY_US),
    }
}

/// `2026-11-26 04:12:33 UTC`.
pub(super) fn utc(at: Timestamp) -> String {
    at.to_chrono().format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `04:12:33`, in UTC.
pub(super) fn utc_clock(at: Timestamp) -> String {
    at.to_chrono().format("%H:%M:%S").to_string()
}

/// `Thu 26 Nov 13:00`, in UTC.
pub(super) fn utc_hour(at: Timestamp) -> String {
    at.to_chrono().format("%a %d %b %H:%M").to_string()
}

/// `Thu 26 Nov 13:05:00`, by the wall clock of a zone.
pub(super) fn wall(tz: Tz, at: Timestamp) -> String {
    let local = tz.from_utc_datetime(&at.to_chrono().naive_utc());
    local.format("%a %d %b %H:%M:%S").to_string()
}

/// `Thu 26 Nov`.
pub(super) fn day(date: NaiveDate) -> String {
    date.format("%a %d %b").to_string()
}

/// `1.2 MB`; bytes below a thousand as they are.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(super) fn bytes(number: u64) -> String {
    let value = number as f64;
    match number {
        ..1_000 => format!("{number} B"),
        1_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        _ => format!("{:.1} MB", value / 1e6),
    }
}

/// A text for a path segment or a query value.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// The path of a store's page.
pub(super) fn store_path(store_id: &str) -> String {
    format!("/stores/{}", encoded(store_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_never_rounded_up_to_the_whole() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(13_559), "13,559");
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!(percent(None), "–");
        assert_eq!(percent(Some(1.0)), "100.00 %");
        assert_eq!(percent(Some(0.999_999)), "99.99 %");
        assert_eq!(percent(Some(0.29)), "29.00 %");
        assert_eq!(percent(Some(0.0)), "0.00 %");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_234_567), "1.2 MB");
    }

    #[test]
    fn stretches_of_time_have_two_units_at_most() {
        assert_eq!(duration(0), "0 min");
        assert_eq!(duration(1), "1 s");
        assert_eq!(duration(59 * SECOND_US), "59 s");
        assert_eq!(duration(59 * MINUTE_US + 59 * SECOND_US), "59 min");
        assert_eq!(duration(125 * MINUTE_US), "2 h 5 min");
        assert_eq!(duration(168 * HOUR_US), "168 h");
        let now = Timestamp::from_micros(1_674_637_380_000_000);
        assert_eq!(age(now.plus(5 * SECOND_US), now), "just now");
        assert_eq!(age(now.plus(-5 * SECOND_US), now), "5 s ago");
        assert_eq!(age(now.plus(-47 * HOUR_US), now), "47 h ago");
        assert_eq!(age(now.plus(-49 * HOUR_US), now), "2 d ago");
        assert_eq!(ahead(now, now), "within a minute");
        assert_eq!(ahead(now.plus(90 * MINUTE_US), now), "in 1 h 30 min");
    }

    #[test]
    fn any_id_makes_one_path_segment() {
        assert_eq!(store_path("a-b_c.d~9"), "/stores/a-b_c.d~9");
        assert_eq!(store_path("a/b?c#d\"e<f>%"), "/stores/a%2Fb%3Fc%23d%22e%3Cf%3E%25");
        assert_eq!(store_path("é"), "/stores/%C3%A9");
    }
}
