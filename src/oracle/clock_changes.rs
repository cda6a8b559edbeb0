//! Cases computed by hand for days on which a clock changes, and the resolution of wall times held
//! against chrono's own.
#![allow(clippy::unwrap_used, reason = "the texts below are constants of the tests")]

use chrono::{DateTime, LocalResult};
use chrono_tz::Africa::Casablanca;
use chrono_tz::America::{Chicago, Havana, Sao_Paulo, St_Johns};
use chrono_tz::Asia::{Beirut, Kathmandu};
use chrono_tz::Australia::Lord_Howe;
use chrono_tz::Pacific::Apia;
use chrono_tz::Tz;

use super::tests::{at, closure, row, span};
use super::*;

/// The one opening that the row makes around `day`, a date; `None` if it makes none.
fn opening(zone: Tz, date: &str, row: RawInterval) -> Option<Span> {
    let noon = at(&format!("{date}T12:00"));
    let around = Span::new(noon.plus(-3 * DAY_US), noon.plus(3 * DAY_US));
    let found = openings(zone, &[row], &[], around);
    assert!(found.len() <= 1, "{found:?}");
    found.first().copied()
}

/// Checks openings of rows on one weekday around one date, all written `HH:MM`; the expected
/// instants are in UTC, `DDTHH:MM` of the date's month.
fn check(zone: Tz, date: &str, cases: &[(u8, &str, &str, &str, &str)]) {
    for &(day, start, end, opens, closes) in cases {
        let month = &date[..8];
        let expected = span(&format!("{month}{opens}"), &format!("{month}{closes}"));
        let found = opening(zone, date, row(day, start, end));
        assert_eq!(found, Some(expected), "{zone} day {day} {start}-{end}");
    }
}

#[test]
fn chicago_springs_forward() {
    // Sunday 2023-03-12: 02:00 becomes 03:00 at 08:00 UTC.
    let cases = [
        (6, "02:30", "05:00", "12T08:00", "12T10:00"),
        (6, "00:00", "02:30", "12T06:00", "12T08:00"),
        (6, "02:00", "03:30", "12T08:00", "12T08:30"),
        (6, "00:00", "03:00", "12T06:00", "12T08:00"),
        (6, "00:00", "23:59", "12T06:00", "13T05:00"),
        (5, "02:30", "02:30", "11T08:30", "12T08:00"),
        (5, "22:00", "02:15", "12T04:00", "12T08:00"),
        (6, "02:30", "02:30", "12T08:00", "13T07:30"),
    ];
    check(Chicago, "2023-03-12", &cases);
    let inside_the_gap = row(6, "02:10", "02:50");
    assert_eq!(opening(Chicago, "2023-03-12", inside_the_gap), None);
}

#[test]
fn chicago_falls_back() {
    // Sunday 2023-11-05: 02:00 becomes 01:00 at 07:00 UTC.
    let cases = [
        (6, "01:30", "05:00", "05T06:30", "05T11:00"),
        (6, "00:00", "01:30", "05T05:00", "05T07:30"),
        (6, "01:10", "01:20", "05T06:10", "05T07:20"),
        (6, "01:00", "02:00", "05T06:00", "05T08:00"),
        (6, "00:00", "01:00", "05T05:00", "05T07:00"),
        (6, "02:00", "03:00", "05T08:00", "05T09:00"),
        (6, "00:00", "23:59", "05T05:00", "06T06:00"),
        (5, "01:30", "01:30", "04T06:30", "05T07:30"),
    ];
    check(Chicago, "2023-11-05", &cases);
    // A window that ends shortly before the change still knows of it: 01:30 closes the second time.
    let hours = [row(6, "00:00", "01:30")];
    let before = span("2023-11-05T00:50", "2023-11-05T06:50");
    let open = span("2023-11-05T05:00", "2023-11-05T06:50");
    assert_eq!(openings(Chicago, &hours, &[], before), [open]);
}

#[test]
fn closures_in_gaps_and_folds() {
    // What is closed, seen as what a store that is always open loses.
    let closed = |zone, from: &str, to: &str| {
        let window = Span::new(at(from).plus(-2 * DAY_US), at(to).plus(2 * DAY_US));
        let open = openings(zone, &[], &[closure(from, to)], window);
        match open[..] {
            [before, after] => Some(Span::new(before.end, after.start)),
            _ => None,
        }
    };
    for (zone, from, to, expected) in [
        (
            Chicago,
            "2023-03-12T02:30",
            "2023-03-12T05:00",
            ("2023-03-12T08:00", "2023-03-12T10:00"),
        ),
        (
            Chicago,
            "2023-11-05T01:30",
            "2023-11-05T01:45",
            ("2023-11-05T06:30", "2023-11-05T07:45"),
        ),
        (
            Chicago,
            "2023-11-05T00:00",
            "2023-11-06T00:00",
            ("2023-11-05T05:00", "2023-11-06T06:00"),
        ),
        (
            Beirut,
            "2023-03-26T00:00",
            "2023-03-26T23:59",
            ("2023-03-25T22:00", "2023-03-26T21:00"),
        ),
        (
            Havana,
            "2023-11-04T00:00",
            "2023-11-05T00:00",
            ("2023-11-04T04:00", "2023-11-05T04:00"),
        ),
        (
            Havana,
            "2023-11-04T00:00",
            "2023-11-05T00:30",
            ("2023-11-04T04:00", "2023-11-05T05:30"),
        ),
        (
            Havana,
            "2023-11-05T00:00",
            "2023-11-05T23:59",
            ("2023-11-05T04:00", "2023-11-06T05:00"),
        ),
    ] {
        let expected = span(expected.0, expected.1);
        assert_eq!(closed(zone, from, to), Some(expected), "{zone} {from}");
    }
    assert_eq!(closed(Chicago, "2023-03-12T02:10", "2023-03-12T02:50"), None);
    assert_eq!(closed(Apia, "2011-12-30T00:00", "2011-12-31T00:00"), None);
}

#[test]
fn days_and_weeks_have_the_hours_that_the_clock_gives_them() {
    let lengths = |zone, text| {
        let [_, day, week] = windows(zone, at(text), Windows::Calendar);
        (day.len_us() / HOUR_US, week.len_us() / HOUR_US)
    };
    assert_eq!(lengths(Chicago, "2023-03-13T15:00"), (23, 167));
    assert_eq!(lengths(Chicago, "2023-11-06T15:00"), (25, 169));
    assert_eq!(lengths(Beirut, "2023-03-27T09:00"), (23, 167));
    assert_eq!(lengths(Sao_Paulo, "2018-11-05T15:00"), (23, 167));
    assert_eq!(lengths(Havana, "2023-11-06T15:00"), (25, 169));
    assert_eq!(lengths(Apia, "2012-01-02T00:00"), (24, 144));
    assert_eq!(lengths(Apia, "2012-01-07T22:00"), (24, 144)); // Sunday, two weeks on
    let [_, day, _] = windows(Lord_Howe, at("2023-10-02T00:00"), Windows::Calendar);
    assert_eq!(day.len_us(), 23 * HOUR_US + 30 * MINUTE_US);
    // The rolling day is of elapsed time, whatever the clock did.
    let [_, day, week] = windows(Chicago, at("2023-03-12T15:10"), Windows::Rolling);
    assert_eq!(day, span("2023-03-11T15:00", "2023-03-12T15:00"));
    assert_eq!(week, span("2023-03-05T15:00", "2023-03-12T15:00"));
}

#[test]
fn beirut_skips_midnight() {
    // Sunday 2023-03-26 begins at 01:00, at 22:00 UTC of the day before.
    let cases = [
        (5, "20:00", "23:59", "25T18:00", "25T22:00"),
        (5, "20:00", "00:30", "25T18:00", "25T22:00"),
        (6, "00:00", "02:00", "25T22:00", "25T23:00"),
        (6, "00:30", "02:00", "25T22:00", "25T23:00"),
        (6, "00:00", "00:00", "25T22:00", "26T21:00"),
    ];
    check(Beirut, "2023-03-26", &cases);
    // Saturday 2023-10-28 shows 23:00 to 24:00 twice; 24:00 itself is shown once.
    let cases = [
        (5, "20:00", "23:30", "28T17:00", "28T21:30"),
        (5, "20:00", "23:59", "28T17:00", "28T22:00"),
        (5, "23:30", "00:30", "28T20:30", "28T22:30"),
        (6, "00:00", "01:00", "28T22:00", "28T23:00"),
    ];
    check(Beirut, "2023-10-28", &cases);
}

#[test]
fn sao_paulo_skips_midnight_and_repeats_the_hour_before() {
    let cases = [
        (5, "22:00", "23:59", "04T01:00", "04T03:00"),
        (6, "00:00", "02:00", "04T03:00", "04T04:00"),
    ];
    check(Sao_Paulo, "2018-11-04", &cases);
    let cases = [
        (5, "22:00", "23:59", "18T00:00", "18T03:00"),
        (5, "22:00", "23:30", "18T00:00", "18T02:30"),
        (6, "00:00", "02:00", "18T03:00", "18T05:00"),
    ];
    check(Sao_Paulo, "2018-02-18", &cases);
}

#[test]
fn havana_repeats_midnight() {
    // Sunday 2023-11-05: 01:00 becomes 00:00 at 05:00 UTC. The day began at the first 00:00.
    let cases = [
        (5, "22:00", "23:59", "05T02:00", "05T04:00"),
        (5, "22:00", "00:00", "05T02:00", "05T04:00"),
        (5, "22:00", "00:30", "05T02:00", "05T05:30"),
        (6, "00:00", "02:00", "05T04:00", "05T07:00"),
        (6, "00:00", "23:59", "05T04:00", "06T05:00"),
    ];
    check(Havana, "2023-11-05", &cases);
    let [_, day, _] = windows(Havana, at("2023-11-06T12:00"), Windows::Calendar);
    assert_eq!(day, span("2023-11-05T04:00", "2023-11-06T05:00"));
}

#[test]
fn lord_howe_moves_by_half_an_hour() {
    let cases = [
        (6, "02:10", "04:00", "30T15:30", "30T17:00"),
        (6, "00:00", "02:10", "30T13:30", "30T15:30"),
    ];
    check(Lord_Howe, "2023-09-30", &cases);
    let cases = [
        (6, "01:40", "04:00", "01T14:40", "01T17:30"),
        (6, "00:00", "01:40", "01T13:00", "01T15:10"),
    ];
    check(Lord_Howe, "2023-04-01", &cases);
}

#[test]
fn apia_has_no_friday() {
    // After Thursday 2011-12-29 comes Saturday 2011-12-31, at 10:00 UTC of the 30th.
    let cases = [
        (3, "09:00", "23:59", "29T19:00", "30T10:00"),
        (3, "22:00", "02:00", "30T08:00", "30T10:00"),
        (4, "22:00", "02:00", "30T10:00", "30T12:00"),
        (5, "00:00", "02:00", "30T10:00", "30T12:00"),
        (3, "09:00", "09:00", "29T19:00", "30T10:00"),
    ];
    check(Apia, "2011-12-30", &cases);
    let friday = row(4, "09:00", "17:00");
    assert_eq!(opening(Apia, "2011-12-30", friday), None);
    let [hour, day, week] = windows(Apia, at("2011-12-30T22:05"), Windows::Calendar);
    assert_eq!(hour, span("2011-12-30T21:00", "2011-12-30T22:00"));
    assert_eq!(day, span("2011-12-30T10:00", "2011-12-30T10:00"));
    assert_eq!(week, span("2011-12-19T10:00", "2011-12-26T10:00"));
}

#[test]
fn casablanca_changes_around_ramadan() {
    let cases = [(6, "02:30", "10:00", "19T01:30", "19T10:00")];
    check(Casablanca, "2023-03-19", &cases);
    let cases = [(6, "02:30", "10:00", "23T02:00", "23T09:00")];
    check(Casablanca, "2023-04-23", &cases);
    assert_eq!(grid_phase_us(Casablanca), 0);
}

#[test]
fn wall_times_resolve_as_chrono_says() {
    let changes = [
        (Chicago, "2023-03-12T08:00"),
        (Chicago, "2023-11-05T07:00"),
        (Beirut, "2023-03-25T22:00"),
        (Beirut, "2023-10-28T21:00"),
        (Sao_Paulo, "2018-02-18T02:00"),
        (Sao_Paulo, "2018-11-04T03:00"),
        (Havana, "2023-03-12T05:00"),
        (Havana, "2023-11-05T05:00"),
        (Lord_Howe, "2023-04-01T15:00"),
        (Lord_Howe, "2023-09-30T15:30"),
        (Apia, "2011-12-30T10:00"),
        (Casablanca, "2023-03-19T02:00"),
        (Casablanca, "2023-04-23T02:00"),
        (St_Johns, "2010-03-14T03:31"), // at 00:01
        (St_Johns, "2010-11-07T02:31"),
        (Kathmandu, "2023-01-25T18:15"), // none
    ];
    for (zone, change) in changes {
        let change = at(change);
        let clock = WallClock::around(zone, Span::new(change, change));
        // The wall times of two days either side, every 15 minutes and just before each.
        for quarter in -400_i64..400 {
            for wall in [0, -1].map(|us| change.micros() + quarter * 15 * MINUTE_US + us) {
                let naive = DateTime::from_timestamp_micros(wall).unwrap().naive_utc();
                let opens = clock.first_at_or_after(wall);
                let closes = clock.last_at_or_before(wall);
                let (first, second) = match zone.from_local_datetime(&naive) {
                    LocalResult::Single(only) => (only, only),
                    LocalResult::Ambiguous(first, second) => (first, second),
                    LocalResult::None => {
                        assert_eq!((opens, closes), (change, change), "{zone} {naive}");
                        continue;
                    }
                };
                let first = Timestamp::from_chrono(first.to_utc());
                let second = Timestamp::from_chrono(second.to_utc());
                assert_eq!((opens, closes), (first, second), "{zone} {naive}");
            }
        }
    }
}
