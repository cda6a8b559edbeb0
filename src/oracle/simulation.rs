//! The reference has a reference: every second of a window is looked at on its own. An instant is
//! open or not by the weekday and time that the store's clock shows, with no way from local time
//! back to UTC, so these windows keep away from days on which the clock changes.
#![allow(clippy::unwrap_used, reason = "a property that fails has nothing better to do")]

use chrono::{Datelike, Timelike};
use chrono_tz::Tz;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::*;
use crate::time::SECOND_US;

const ZONES: &[Tz] = &[
    Tz::America__Chicago,
    Tz::America__Sao_Paulo,
    Tz::America__Phoenix,
    Tz::America__St_Johns,
    Tz::Asia__Beirut,
    Tz::Asia__Kolkata,
    Tz::Asia__Kathmandu,
    Tz::Australia__Lord_Howe,
    Tz::Pacific__Apia,
    Tz::Pacific__Chatham,
    Tz::Africa__Casablanca,
    Tz::UTC,
];

/// A runner of `cases` cases that prints its seed; `PROPTEST_RNG_SEED` replays one.
fn runner(cases: u32) -> TestRunner {
    let given = std::env::var("PROPTEST_RNG_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |text| text.parse().unwrap());
    println!("replay with PROPTEST_RNG_SEED={seed}");
    TestRunner::new(Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    })
}

/// A store whose rows are all on whole seconds, and a window in which its clock does not change.
fn history() -> impl Strategy<Value = (RawStore, Span)> {
    let second_of_day = prop_oneof![
        select(vec![0, 1, 32_400, 43_200, 86_339, 86_340, 86_370, 86_399, 86_400]),
        (0..=96_i64).prop_map(|quarter| quarter * 900),
        0..=86_400_i64,
    ];
    let interval = (0..7_u8, second_of_day.clone(), second_of_day).prop_map(|(day, start, end)| RawInterval {
        day,
        start_us: start * SECOND_US,
        end_us: end * SECOND_US,
    });
    let status = prop_oneof![Just(Status::Active), Just(Status::Inactive)];
    // Observations from three days before the window's start to three days after it.
    let seen = btree_map(-3 * 86_400..3 * 86_400_i64, status, 0..12);
    // Closures from two days before the window's start to two days after it, in whole minutes of its length.
    let closed = vec((-2 * 1_440..2 * 1_440_i64, 1..2_000_i64, 0..60_i64), 0..4);
    let first = "2019-06-01T00:00:00Z".parse::<Timestamp>().unwrap();
    let start = (0..5 * 365 * 86_400_i64).prop_map(move |s| first.plus(s * SECOND_US));
    let length = 0..=30 * 3_600_i64;
    (select(ZONES), vec(interval, 0..10), closed, seen, start, length)
        .prop_map(|(zone, hours, closed, seen, start, length)| {
            let seen = seen.into_iter();
            let observations = seen.map(|(s, status)| (start.plus(s * SECOND_US), status));
            let ahead_s = start.to_chrono().with_timezone(&zone).offset().fix().local_minus_utc();
            let shown = start.micros() + i64::from(ahead_s) * SECOND_US;
            let closures = closed.into_iter().map(|(from, minutes, seconds)| {
                let from_us = (shown.div_euclid(MINUTE_US) + from) * MINUTE_US;
                RawClosure {
                    from_us,
                    to_us: from_us + minutes * MINUTE_US - seconds * SECOND_US,
                }
            });
            let store = RawStore {
                id: "s".to_owned(),
                zone,
                hours,
                closures: closures.collect(),
                observations: observations.rev().collect(),
            };
            (store, Span::new(start, start.plus(length * SECOND_US)))
        })
        .prop_filter("the clock changes", |(store, window)| {
            let shown = |days: i64| {
                let at = window.start.plus(days * DAY_US).to_chrono();
                at.with_timezone(&store.zone).offset().fix()
            };
            (-2..=3).all(|days| shown(days) == shown(0))
        })
}

/// Whether the store is open at an instant, by what its clock shows.
fn is_open(store: &RawStore, at: Timestamp) -> bool {
    let local = at.to_chrono().with_timezone(&store.zone);
    let today = local.weekday().num_days_from_monday();
    let now = i64::from(local.num_seconds_from_midnight()) * SECOND_US;
    let open_by = |row: &RawInterval| {
        let day = u32::from(row.day);
        let (is_today, was_yesterday) = (day == today, (day + 1) % 7 == today);
        if row.end_us >= 86_340 * SECOND_US {
            // To midnight; from the midnight after its day on if it starts at 24:00.
            let never_starts_on_its_day = row.start_us == DAY_US;
            (is_today && now >= row.start_us) || (was_yesterday && never_starts_on_its_day)
        } else if row.start_us < row.end_us {
            is_today && row.start_us <= now && now < row.end_us
        } else {
            (is_today && now >= row.start_us) || (was_yesterday && now < row.end_us)
        }
    };
    let shown = local.naive_local().and_utc().timestamp_micros();
    let is_closed = store.closures.iter().any(|closure| {
        let time = closure.to_us.rem_euclid(DAY_US);
        let spelled = if time >= 86_340 * SECOND_US { DAY_US - time } else { 0 };
        closure.from_us <= shown && shown < closure.to_us + spelled
    });
    !is_closed && (store.hours.is_empty() || store.hours.iter().any(open_by))
}

/// Whether the latest observation at or before an instant says inactive.
fn is_down(store: &RawStore, at: Timestamp) -> bool {
    let so_far = store.observations.iter().filter(|&&(seen, _)| seen <= at);
    let latest = so_far.max_by_key(|&&(seen, _)| seen);
    latest.is_some_and(|&(_, status)| status == Status::Inactive)
}

#[test]
fn every_second_of_a_window_agrees() {
    let check = |(store, window): (RawStore, Span)| {
        let (mut up, mut down) = (0, 0);
        let mut at = window.start;
        while at < window.end {
            if is_open(&store, at) {
                *(if is_down(&store, at) { &mut down } else { &mut up }) += SECOND_US;
            }
            at = at.plus(SECOND_US);
        }
        prop_assert_eq!(up_down_us(&store, window), (up, down));
        Ok(())
    };
    runner(160).run(&history(), check).unwrap();
}

#[test]
fn cells_add_up_to_their_window() {
    let check = |(store, window): (RawStore, Span)| {
        let phase = grid_phase_us(store.zone);
        let week = Span::new(window.start, window.start.plus(7 * DAY_US));
        for cell_us in [HOUR_US, 15 * MINUTE_US] {
            let found = cells(&store, cell_us, phase, week);
            for &(start, open_us, down_us) in &found {
                let cell = Span::new(start, start.plus(cell_us));
                prop_assert_eq!(up_down_us(&store, cell), (open_us - down_us, down_us));
            }
            let end = found.last().unwrap().0.plus(cell_us);
            let covered = Span::new(found.first().unwrap().0, end);
            prop_assert!(week.end.since(end) < cell_us);
            prop_assert!(covered.start.since(week.start) < cell_us);
            let open: i64 = found.iter().map(|&(_, open_us, _)| open_us).sum();
            let down: i64 = found.iter().map(|&(_, _, down_us)| down_us).sum();
            prop_assert_eq!(up_down_us(&store, covered), (open - down, down));
        }
        Ok(())
    };
    runner(12).run(&history(), check).unwrap();
}

#[test]
fn the_order_of_rows_changes_nothing() {
    let check = |(store, window): (RawStore, Span)| {
        let mut turned = store.clone();
        turned.observations.reverse();
        turned.hours.reverse();
        turned.hours.extend_from_slice(&store.hours);
        turned.closures.reverse();
        turned.closures.extend_from_slice(&store.closures);
        prop_assert_eq!(up_down_us(&turned, window), up_down_us(&store, window));
        Ok(())
    };
    runner(64).run(&history(), check).unwrap();
}
