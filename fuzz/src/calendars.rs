//! Time zones, weekly hours and closures: any of them, mostly around a change of the zone's clock, against the oracle.

use chrono::{Offset, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};
use uptally::oracle::{self, RawClosure, RawInterval, RawStore};
use uptally::schedule::{Closure, Closures, Interval, Openings, Schedule, WeeklyHours, Zone};
use uptally::time::{DAY_US, HOUR_US, MINUTE_US, SECOND_US, Span, Timestamp};
use uptally::window::{WindowSpans, Windows};

use super::machine::dice::{Bytes, Dice};

/// Lets the bytes choose a zone, an instant, a stretch, hours and closures. Takes them for a zone's name, and for hours
/// and closures as they are kept, too.
pub fn run(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(hours) = text.parse::<WeeklyHours>() {
            assert_eq!(hours.to_string().parse(), Ok(hours));
        }
        if let Ok(closures) = text.parse::<Closures>() {
            assert_eq!(closures.to_string().parse(), Ok(closures));
        }
        if let Ok(zone) = text.parse::<Tz>() {
            assert_eq!(zone.name(), text);
        }
    }
    let mut dice = Bytes(bytes);
    let zone = *dice.pick(&TZ_VARIANTS);
    let at = any_instant(&mut dice, zone);
    let start = at.plus(-dice.within(0..5 * DAY_US));
    let span = Span::new(start, start.plus(dice.within(0..12 * DAY_US)));
    let store = RawStore {
        id: "s".to_owned(),
        zone,
        hours: any_hours(&mut dice),
        closures: any_closures(&mut dice, at),
        observations: Vec::new(),
    };
    let intervals = store.hours.iter();
    let intervals = intervals.map(|h| Interval::new(h.day, h.start_us, h.end_us).expect("an interval"));
    let closures = store.closures.iter();
    let closures = closures.map(|c| Closure::new(c.from_us, c.to_us).expect("a closure"));
    let schedule = Schedule::new(zone, intervals.collect()).with_closures(closures.collect());
    assert_eq!(schedule.hours().to_string().parse().as_ref(), Ok(schedule.hours()));
    assert_eq!(
        schedule.closures().to_string().parse().as_ref(),
        Ok(schedule.closures())
    );
    check_openings(&schedule, &store, span, at);
    check_cells(&schedule, &store, at);
    check_windows(schedule.zone(), zone, at);
}

/// An instant of the accepted years; mostly one near the zone's next change of offset, if there is one in the year after.
fn any_instant(dice: &mut impl Dice, zone: Tz) -> Timestamp {
    let offset = |at: Timestamp| zone.offset_from_utc_datetime(&at.to_chrono().naive_utc()).fix();
    let any = Timestamp::MIN.plus(dice.within(0..Timestamp::MAX.since(Timestamp::MIN)));
    if dice.one_in(4) {
        return any;
    }
    let weeks = (0..53).map(|week| any.plus(week * 7 * DAY_US));
    let change = weeks.clone().zip(weeks.skip(1)).find(|&(a, b)| offset(a) != offset(b));
    let Some((mut before, mut after)) = change else {
        return any;
    };
    while after.since(before) > SECOND_US {
        let middle = before.plus(after.since(before) / 2);
        if offset(middle) == offset(before) {
            before = middle;
        } else {
            after = middle;
        }
    }
    let reach = *dice.pick(&[2 * HOUR_US, 30 * HOUR_US, 8 * DAY_US]);
    after.plus(dice.within(-reach..reach))
}

fn any_hours(dice: &mut impl Dice) -> Vec<RawInterval> {
    (0..dice.below(12))
        .map(|_| RawInterval {
            day: u8::try_from(dice.below(7)).expect("a weekday"),
            start_us: any_clock(dice).min(DAY_US - 1),
            end_us: any_clock(dice),
        })
        .collect()
}

/// Closures that begin near an instant, or anywhere.
fn any_closures(dice: &mut impl Dice, at: Timestamp) -> Vec<RawClosure> {
    let (first_us, end_us) = (Timestamp::MIN.micros(), Timestamp::MAX.micros());
    (0..dice.below(5))
        .map(|_| {
            let day_us = at.micros().div_euclid(DAY_US) * DAY_US + dice.within(-6..7) * DAY_US;
            let from_us = match dice.below(4) {
                0 => day_us,
                1 => dice.within(first_us..end_us),
                _ => day_us + any_clock(dice),
            };
            let from_us = from_us.clamp(first_us, end_us - 1);
            let to_us = match dice.below(4) {
                0 => from_us + dice.within(1..1000) * DAY_US,
                1 => from_us + dice.within(1..5000) * MINUTE_US,
                _ => day_us + dice.within(0..4) * DAY_US + any_clock(dice),
            };
            RawClosure {
                from_us,
                to_us: to_us.clamp(from_us + 1, end_us),
            }
        })
        .collect()
}

/// A time of day up to 24:00.
fn any_clock(dice: &mut impl Dice) -> i64 {
    match dice.below(4) {
        0 => dice.within(0..25) * HOUR_US,
        1 => dice.within(0..24 * 60 + 1) * MINUTE_US,
        2 => dice.within(0..24 * 3600 + 1) * SECOND_US,
        _ => dice.within(0..DAY_US + 1),
    }
}

fn check_openings(schedule: &Schedule, store: &RawStore, span: Span, at: Timestamp) {
    let expected = oracle::openings(store.zone, &store.hours, &store.closures, span);
    let openings = schedule.openings(span);
    assert_eq!(openings, expected, "{store:?} {span:?}");
    let weekly = schedule.with_closures(Closures::default());
    if !schedule.closes_within(span) {
        assert_eq!(openings, weekly.openings(span), "{store:?} {span:?}");
    }
    let resolved = Openings::new(schedule, span);
    let part = Span::new(at.max(span.start), at.plus(3 * HOUR_US)).intersect(span);
    let within: Vec<Span> = resolved.within(part).collect();
    let expected = oracle::openings(store.zone, &store.hours, &store.closures, part);
    assert_eq!(within, expected, "{store:?} {part:?}");
    assert_eq!(
        resolved.open_us(part),
        expected.iter().map(|span| span.len_us()).sum::<i64>()
    );
}

fn check_cells(schedule: &Schedule, store: &RawStore, at: Timestamp) {
    let grid = schedule.zone().grid();
    let first = grid.block_first(grid.cell_of(at));
    let day = Span::new(grid.cell_start(first), grid.cell_start(first).plus(DAY_US));
    assert!(day.contains(at));
    let phase_us = oracle::grid_phase_us(store.zone);
    let expected: Vec<i64> = oracle::cells(store, grid.cell_us(), phase_us, day)
        .into_iter()
        .map(|(_, open_us, _)| open_us)
        .collect();
    assert_eq!(schedule.open_by_cell(first), expected, "{store:?} {day:?}");
}

fn check_windows(zone: Zone, tz: Tz, at: Timestamp) {
    for windows in [Windows::Calendar, Windows::Rolling] {
        let spans = WindowSpans::new(zone, at, windows).all();
        assert_eq!(spans, oracle::windows(tz, at, windows), "{tz} {at} {windows}");
        let grid = zone.grid();
        for edge in spans.into_iter().flat_map(|span| [span.start, span.end]) {
            assert_eq!(grid.cell_start(grid.cell_of(edge)), edge, "{tz} {at} {windows}");
        }
    }
}
