//! Cases computed by hand from the model, on days on which no clock changes.
#![allow(clippy::unwrap_used, reason = "the texts below are constants of the tests")]

use chrono_tz::America::Chicago;
use chrono_tz::Asia::{Kathmandu, Kolkata};
use chrono_tz::Australia::Lord_Howe;
use chrono_tz::Tz;

use super::*;
use crate::time::SECOND_US;

/// The instant of an RFC 3339 text without its seconds and zone: `2023-01-23T16:14`, in UTC.
pub(super) fn at(text: &str) -> Timestamp {
    format!("{text}:00Z").parse().unwrap()
}

pub(super) fn span(start: &str, end: &str) -> Span {
    Span::new(at(start), at(end))
}

/// A row of opening hours; the times as `HH:MM` or `HH:MM:SS`.
pub(super) fn row(day: u8, start: &str, end: &str) -> RawInterval {
    let us = |text: &str| {
        let mut parts = text.split(':').map(|part| part.parse::<i64>().unwrap());
        let mut next = || parts.next().unwrap_or(0);
        (next() * 3600 + next() * 60 + next()) * SECOND_US
    };
    RawInterval {
        day,
        start_us: us(start),
        end_us: us(end),
    }
}

/// A row of closures; the wall times as `2023-01-23T16:14`.
pub(super) fn closure(from: &str, to: &str) -> RawClosure {
    RawClosure {
        from_us: at(from).micros(),
        to_us: at(to).micros(),
    }
}

fn store(id: &str, zone: Tz, hours: &[RawInterval], seen: &[(&str, Status)]) -> RawStore {
    RawStore {
        id: id.to_owned(),
        zone,
        hours: hours.to_vec(),
        closures: Vec::new(),
        observations: seen.iter().map(|&(t, status)| (at(t), status)).collect(),
    }
}

/// Openings in Chicago (UTC-6) in the week of Monday 2023-01-23.
fn chicago(hours: &[RawInterval]) -> Vec<Span> {
    openings(Chicago, hours, &[], span("2023-01-23T06:00", "2023-01-30T06:00"))
}

#[test]
fn closures_win_over_hours_and_over_always_open() {
    let week = span("2023-01-23T06:00", "2023-01-30T06:00");
    let hours = [
        row(0, "09:00", "15:00"),
        row(1, "09:00", "15:00"),
        row(3, "22:00", "02:00"),
    ];
    let closures = [
        closure("2023-01-26T23:00", "2023-01-27T01:00"),
        closure("2023-01-23T12:00", "2023-01-23T13:00"),
        closure("2023-01-23T11:00", "2023-01-23T12:30"),
        closure("2023-01-24T00:00", "2023-01-24T23:59"),
    ];
    assert_eq!(
        openings(Chicago, &hours, &closures, week),
        [
            span("2023-01-23T15:00", "2023-01-23T17:00"),
            span("2023-01-23T19:00", "2023-01-23T21:00"),
            span("2023-01-27T04:00", "2023-01-27T05:00"),
            span("2023-01-27T07:00", "2023-01-27T08:00"),
        ]
    );
    assert_eq!(
        openings(Chicago, &[], &closures, week),
        [
            span("2023-01-23T06:00", "2023-01-23T17:00"),
            span("2023-01-23T19:00", "2023-01-24T06:00"),
            span("2023-01-25T06:00", "2023-01-27T05:00"),
            span("2023-01-27T07:00", "2023-01-30T06:00"),
        ]
    );
    // Around the whole window, and far from it.
    let around = [closure("2023-01-01T00:00", "2023-03-01T00:00")];
    assert_eq!(openings(Chicago, &hours, &around, week), []);
    let elsewhere = [
        closure("2000-01-01T00:00", "2023-01-23T00:00"),
        closure("2023-01-30T00:00", "2099-12-31T23:59"),
    ];
    assert_eq!(openings(Chicago, &[], &elsewhere, week), [week]);
}

#[test]
fn the_worked_example() {
    let monday = [row(0, "09:00", "12:00")];
    let seen = [
        ("2023-01-23T17:15", Status::Inactive),
        ("2023-01-23T16:14", Status::Active),
    ];
    let since_sunday = [("2023-01-23T02:00", Status::Inactive)];
    let stores = [
        store("b", Chicago, &monday, &since_sunday),
        store("a", Chicago, &monday, &seen),
    ];
    let lines = |windows, closed| {
        let csv = report_csv(&stores, at("2023-01-23T18:03"), windows, closed);
        csv.lines().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        lines(Windows::Calendar, ClosedTime::Uptime),
        "a,15.00,24.00,168.00,45.00,0.00,0.00 b,0.00,24.00,168.00,60.00,0.00,0.00"
    );
    assert_eq!(
        lines(Windows::Calendar, ClosedTime::Excluded),
        "a,15.00,0.00,3.00,45.00,0.00,0.00 b,0.00,0.00,3.00,60.00,0.00,0.00"
    );
    assert_eq!(
        lines(Windows::Rolling, ClosedTime::Uptime),
        "a,15.00,23.25,167.25,45.00,0.75,0.75 b,0.00,21.00,165.00,60.00,3.00,3.00"
    );
    assert_eq!(
        lines(Windows::Rolling, ClosedTime::Excluded),
        "a,15.00,2.25,2.25,45.00,0.75,0.75 b,0.00,0.00,0.00,60.00,3.00,3.00"
    );
}

#[test]
fn a_store_without_hours_never_closes() {
    let within = span("2023-01-23T06:00", "2023-01-30T06:00");
    assert_eq!(openings(Chicago, &[], &[], within), [within]);
    let empty = span("2023-01-23T06:00", "2023-01-23T06:00");
    assert_eq!(openings(Chicago, &[], &[], empty), []);
}

#[test]
fn a_weekday_without_rows_is_closed() {
    assert_eq!(
        chicago(&[row(1, "09:00", "12:00")]),
        [span("2023-01-24T15:00", "2023-01-24T18:00")]
    );
}

#[test]
fn overnight_hours_reach_into_the_next_day() {
    assert_eq!(
        chicago(&[row(4, "22:00", "02:00")]),
        [span("2023-01-28T04:00", "2023-01-28T08:00")]
    );
    // Sunday night: into the Monday at the window's start, and cut off at its end.
    assert_eq!(
        chicago(&[row(6, "22:00", "02:00")]),
        [
            span("2023-01-23T06:00", "2023-01-23T08:00"),
            span("2023-01-30T04:00", "2023-01-30T06:00"),
        ]
    );
}

#[test]
fn split_touching_and_overlapping_hours_are_a_union() {
    let hours = [
        row(0, "15:00", "16:00"),
        row(0, "11:00", "13:00"),
        row(0, "08:00", "10:00"),
        row(0, "10:00", "12:00"),
        row(0, "11:00", "11:30"),
    ];
    assert_eq!(
        chicago(&hours),
        [
            span("2023-01-23T14:00", "2023-01-23T19:00"),
            span("2023-01-23T21:00", "2023-01-23T22:00"),
        ]
    );
}

#[test]
fn an_end_in_the_last_minute_is_the_end_of_the_day() {
    for end in ["23:59", "23:59:30", "23:59:59", "24:00", "00:00"] {
        assert_eq!(
            chicago(&[row(0, "20:00", end), row(1, "00:00", "02:00")]),
            [span("2023-01-24T02:00", "2023-01-24T08:00")],
            "{end}"
        );
    }
    let before = chicago(&[row(0, "20:00", "23:58:59")]);
    let end = at("2023-01-24T05:58").plus(59 * SECOND_US);
    assert_eq!(before, [Span::new(at("2023-01-24T02:00"), end)]);
}

#[test]
fn the_last_minute_counts_before_the_wrap() {
    let half_a_minute = chicago(&[row(0, "23:59:30", "23:59")]);
    let start = at("2023-01-24T05:59").plus(30 * SECOND_US);
    assert_eq!(half_a_minute, [Span::new(start, at("2023-01-24T06:00"))]);
}

#[test]
fn a_start_equal_to_the_end_is_a_full_day() {
    assert_eq!(
        chicago(&[row(0, "09:00", "09:00")]),
        [span("2023-01-23T15:00", "2023-01-24T15:00")]
    );
    assert_eq!(
        chicago(&[row(0, "00:00", "00:00")]),
        [span("2023-01-23T06:00", "2023-01-24T06:00")]
    );
}

#[test]
fn the_last_observation_is_carried_forward() {
    let within = span("2023-01-23T06:00", "2023-01-24T06:00");
    let (up, down) = (Status::Active, Status::Inactive);
    assert_eq!(inactive(&[], within), []);
    let seen = [
        (at("2023-01-23T10:00"), up),
        (at("2023-01-23T08:00"), down),
        (at("2023-01-23T09:00"), down),
        (at("2023-01-22T00:00"), down),
        (at("2023-01-22T01:00"), up),
        (at("2023-01-24T03:00"), down),
        (at("2023-01-25T00:00"), up),
    ];
    assert_eq!(
        inactive(&seen, within),
        [
            span("2023-01-23T08:00", "2023-01-23T10:00"),
            span("2023-01-24T03:00", "2023-01-24T06:00"),
        ]
    );
    assert_eq!(inactive(&[(at("2023-01-01T00:00"), down)], within), [within]);
}

#[test]
fn the_windows_of_an_instant() {
    // Wednesday 2023-01-25 12:13 in Chicago.
    let calendar = windows(Chicago, at("2023-01-25T18:13"), Windows::Calendar);
    assert_eq!(
        calendar,
        [
            span("2023-01-25T17:00", "2023-01-25T18:00"),
            span("2023-01-24T06:00", "2023-01-25T06:00"),
            span("2023-01-16T06:00", "2023-01-23T06:00"),
        ]
    );
    let rolling = windows(Chicago, at("2023-01-25T18:13"), Windows::Rolling);
    assert_eq!(
        rolling,
        [
            span("2023-01-25T17:00", "2023-01-25T18:00"),
            span("2023-01-24T18:00", "2023-01-25T18:00"),
            span("2023-01-18T18:00", "2023-01-25T18:00"),
        ]
    );
    // On the full hour the hour before it is complete; on Monday the week before ended at midnight.
    let on_monday = windows(Chicago, at("2023-01-23T06:00"), Windows::Calendar);
    assert_eq!(
        on_monday,
        [
            span("2023-01-23T05:00", "2023-01-23T06:00"),
            span("2023-01-22T06:00", "2023-01-23T06:00"),
            span("2023-01-16T06:00", "2023-01-23T06:00"),
        ]
    );
}

#[test]
fn hours_begin_where_the_stores_own_clock_shows_them() {
    // 09:03 in Kathmandu, UTC+5:45.
    let [hour, ..] = windows(Kathmandu, at("2023-01-25T03:18"), Windows::Rolling);
    assert_eq!(hour, span("2023-01-25T02:15", "2023-01-25T03:15"));
    let [hour, ..] = windows(Kolkata, at("2023-01-25T03:33"), Windows::Rolling);
    assert_eq!(hour, span("2023-01-25T02:30", "2023-01-25T03:30"));
    // Lord Howe is at UTC+11 in January, but its standard time is UTC+10:30.
    let [hour, ..] = windows(Lord_Howe, at("2023-01-10T00:00"), Windows::Rolling);
    assert_eq!(hour, span("2023-01-09T22:30", "2023-01-09T23:30"));
    assert_eq!(grid_phase_us(Chicago), 0);
    assert_eq!(grid_phase_us(Kathmandu), 15 * MINUTE_US);
    assert_eq!(grid_phase_us(Lord_Howe), 30 * MINUTE_US);
}

#[test]
fn cells_are_those_wholly_inside() {
    let seen = [("2023-01-25T03:30", Status::Inactive)];
    let hours = [row(2, "09:30", "12:00")]; // 03:45 to 06:15 UTC
    let store = store("k", Kathmandu, &hours, &seen);
    let within = span("2023-01-25T02:16", "2023-01-25T05:15");
    let phase = grid_phase_us(Kathmandu);
    assert_eq!(
        cells(&store, HOUR_US, phase, within),
        [
            (at("2023-01-25T03:15"), 30 * MINUTE_US, 30 * MINUTE_US),
            (at("2023-01-25T04:15"), HOUR_US, HOUR_US),
        ]
    );
    let quarter = span("2023-01-25T03:30", "2023-01-25T04:00");
    assert_eq!(
        cells(&store, 15 * MINUTE_US, 0, quarter),
        [
            (at("2023-01-25T03:30"), 0, 0),
            (at("2023-01-25T03:45"), 15 * MINUTE_US, 15 * MINUTE_US),
        ]
    );
    let minutes = span("2023-01-25T03:16", "2023-01-25T03:59");
    assert_eq!(cells(&store, HOUR_US, phase, minutes), []);
}

#[test]
fn numbers_have_two_decimals_half_away_from_zero() {
    for (us, unit_us, expected) in [
        (0, MINUTE_US, "0.00"),
        (299_999, MINUTE_US, "0.00"),
        (300_000, MINUTE_US, "0.01"),
        (899_999, MINUTE_US, "0.01"),
        (900_000, MINUTE_US, "0.02"),
        (HOUR_US, MINUTE_US, "60.00"),
        (HOUR_US - 300_000, MINUTE_US, "60.00"),
        (HOUR_US - 300_001, MINUTE_US, "59.99"),
        (17_999_999, HOUR_US, "0.00"),
        (18_000_000, HOUR_US, "0.01"),
        (7 * DAY_US - 18_000_001, HOUR_US, "167.99"),
        (7 * DAY_US, HOUR_US, "168.00"),
    ] {
        assert_eq!(decimal(us, unit_us), expected, "{us}");
    }
}

#[test]
fn an_id_is_never_a_formula_and_stays_one_field() {
    for (id, expected) in [
        ("1481966498820158979", "1481966498820158979"),
        ("=cmd|x", "'=cmd|x"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@x", "'@x"),
        ("\tx", "'\tx"),
        ("\rx", "\"'\rx\""),
        ("a=b", "a=b"),
        ("a,b", "\"a,b\""),
        ("say \"hi\"", "\"say \"\"hi\"\"\""),
        ("=\"1\"", "\"'=\"\"1\"\"\""),
        (" x", " x"),
    ] {
        assert_eq!(csv_id(id), expected, "{id:?}");
    }
}

#[test]
fn rows_come_in_the_byte_order_of_the_ids() {
    let ids = ["b", "a", "10", "9", "Z", "-1", "é"];
    let stores = ids.map(|id| store(id, Chicago, &[], &[]));
    let at = at("2023-01-25T18:13");
    let csv = report_csv(&stores, at, Windows::Calendar, ClosedTime::Uptime);
    let all_up = ",60.00,24.00,168.00,0.00,0.00,0.00\n";
    let rows: Vec<String> = ["'-1", "10", "9", "Z", "a", "b", "é"]
        .iter()
        .map(|id| format!("{id}{all_up}"))
        .collect();
    assert_eq!(
        csv,
        "store_id,uptime_last_hour,uptime_last_day,uptime_last_week,\
         downtime_last_hour,downtime_last_day,downtime_last_week\n"
            .to_owned()
            + &rows.concat()
    );
}
