//! Opening time of long stretches, from the week that repeats between clock changes.

use chrono::Days;

use super::{Closures, Schedule, Zone, without};
use crate::time::{DAY_US, Span, Timestamp};

const WEEK_US: i64 = 7 * DAY_US;

/// 1970-01-01 was a Thursday: what a wall that counts from there is ahead of one that counts from a Monday.
const EPOCH_WEEKDAY_US: i64 = 3 * DAY_US;

/// How far from a clock change wall times are looked up one by one: an opening begins on its own day and ends on the next,
/// and no clock is a day away from UTC.
const NEAR_CHANGE: u8 = 3;

/// How a zone's clocks go over a stretch: where they are steady they need not be asked.
#[derive(Debug)]
pub struct Clocks {
    zone: Zone,
    /// In order, the whole stretch; each with what its clock is ahead of UTC; None: near a change.
    parts: Vec<(Span, Option<i64>)>,
}

impl Clocks {
    /// Those of a zone over a stretch.
    pub fn new(zone: Zone, stretch: Span) -> Self {
        let mut parts: Vec<(Span, Option<i64>)> = Vec::new();
        // One day more at either end: a date may come twice, and the days before clocks go back are longer than their dates.
        let first = zone.local_date(stretch.start) - Days::new(u64::from(NEAR_CHANGE) + 1);
        let known_to = stretch.end.plus((i64::from(NEAR_CHANGE) + 2) * DAY_US);
        let midnights: Vec<(Timestamp, i64)> = first
            .iter_days()
            .map(|day| zone.day_start(day))
            .take_while(|&midnight| midnight < known_to)
            .map(|midnight| (midnight, zone.offset_us(midnight)))
            .collect();
        // No zone changes its clocks and back between two midnights.
        let near = usize::from(NEAR_CHANGE);
        for around in midnights.windows(2 * near + 2) {
            let (Some(&(start, offset_us)), Some(&(end, _))) = (around.get(near), around.get(near + 1)) else {
                break;
            };
            let day = Span::new(start, end).intersect(stretch);
            if day.is_empty() {
                continue;
            }
            let is_steady = around.iter().all(|&(_, other)| other == offset_us);
            let offset_us = Some(offset_us).filter(|_| is_steady);
            match parts.last_mut() {
                Some((part, last)) if *last == offset_us => part.end = day.end,
                _ => parts.push((day, offset_us)),
            }
        }
        debug_assert!(cover(&parts, stretch), "{zone:?} {stretch:?} {parts:?}");
        Clocks { zone, parts }
    }

    /// The zone.
    pub fn zone(&self) -> Zone {
        self.zone
    }
}

/// Whether parts, in order, are the whole of a stretch.
fn cover(parts: &[(Span, Option<i64>)], stretch: Span) -> bool {
    let mut to = stretch.start;
    let touch = parts
        .iter()
        .all(|&(part, _)| std::mem::replace(&mut to, part.end) == part.start);
    stretch.is_empty() || touch && to == stretch.end
}

/// Weekly hours as openings of one week of wall time, united.
#[derive(Debug)]
pub struct OpenTime<'a> {
    schedule: &'a Schedule,
    /// Without the closures.
    weekly: Schedule,
    /// Microseconds since Monday 00:00; sorted, disjoint.
    week: Vec<(i64, i64)>,
}

impl<'a> OpenTime<'a> {
    /// Of a schedule.
    pub fn new(schedule: &'a Schedule) -> Self {
        let mut pieces: Vec<Span> = Vec::new();
        for interval in schedule.hours.all() {
            let start = i64::from(interval.day) * DAY_US + interval.start_us;
            let end = start + interval.end_us - interval.start_us;
            let span = |from: i64, to: i64| Span::new(Timestamp::from_micros(from), Timestamp::from_micros(to));
            pieces.push(span(start, end.min(WEEK_US)));
            if end > WEEK_US {
                pieces.push(span(0, end - WEEK_US));
            }
        }
        let week = if schedule.hours.is_always_open() {
            vec![(0, WEEK_US)]
        } else {
            let united = super::union(pieces).into_iter();
            united.map(|span| (span.start.micros(), span.end.micros())).collect()
        };
        OpenTime {
            schedule,
            weekly: schedule.with_closures(Closures::default()),
            week,
        }
    }

    /// Opening time within a span, which must lie within the stretch of `clocks`, those of the schedule's zone. Microseconds.
    pub fn within(&self, clocks: &Clocks, span: Span) -> i64 {
        if span.is_empty() {
            return 0;
        }
        if self.schedule.closures.is_empty() {
            return self.as_hours_say(clocks, span);
        }
        let closed = self.schedule.closed(span);
        let open = without(&[span], &closed);
        open.iter().map(|&part| self.as_hours_say(clocks, part)).sum()
    }

    fn as_hours_say(&self, clocks: &Clocks, span: Span) -> i64 {
        let first = clocks.parts.partition_point(|(part, _)| part.end <= span.start);
        let parts = clocks
            .parts
            .iter()
            .skip(first)
            .take_while(|(part, _)| part.start < span.end);
        parts
            .map(|&(part, offset_us)| {
                let part = part.intersect(span);
                match offset_us {
                    Some(offset_us) => {
                        let wall = |at: Timestamp| at.micros() + offset_us + EPOCH_WEEKDAY_US;
                        self.since_monday(wall(part.end)) - self.since_monday(wall(part.start))
                    }
                    None => self.weekly.openings(part).iter().map(|opening| opening.len_us()).sum(),
                }
            })
            .sum()
    }

    /// Opening time of a wall that counts from a Monday, up to an instant of it.
    fn since_monday(&self, wall_us: i64) -> i64 {
        let (weeks, rest) = (wall_us.div_euclid(WEEK_US), wall_us.rem_euclid(WEEK_US));
        let mut open_us = 0;
        for &(from, to) in &self.week {
            open_us += weeks * (to - from) + (rest.min(to) - from).max(0);
        }
        open_us
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::schedule::{Closure, Interval, WeeklyHours};
    use crate::time::{HOUR_US, MINUTE_US};

    /// Against all openings of the stretch, one after the other.
    #[test]
    fn every_stretch_of_every_zone_has_the_opening_time_of_its_openings() {
        let seed = fastrand::u64(..);
        let mut rng = Rng::with_seed(seed);
        for tz in chrono_tz::TZ_VARIANTS {
            let minute = |rng: &mut Rng, days: i64| rng.i64(0..days * 1440) * MINUTE_US;
            let interval = |rng: &mut Rng| Interval::new(rng.u8(0..7), minute(rng, 1), minute(rng, 1)).unwrap();
            let hours: WeeklyHours = (0..rng.usize(0..9)).map(|_| interval(&mut rng)).collect();
            let from = Timestamp::MIN.plus(minute(&mut rng, 36_000));
            let length_us = if rng.bool() {
                minute(&mut rng, 3)
            } else {
                minute(&mut rng, 500)
            };
            let span = Span::new(from, from.plus(length_us));
            let closure = |rng: &mut Rng| {
                let start_us = from.micros() + minute(rng, 500) - 10 * DAY_US;
                Closure::new(start_us, start_us + MINUTE_US + minute(rng, 9))
            };
            let closures: Closures = (0..rng.usize(0..4)).filter_map(|_| closure(&mut rng)).collect();
            let schedule = Schedule::new(tz, hours).with_closures(closures);
            // The stretch that is known may be longer, at either end.
            let mut more = || if rng.bool() { 0 } else { minute(&mut rng, 9) };
            let known = Span::new(from.plus(-more()), span.end.plus(more()));
            let clocks = Clocks::new(schedule.zone(), known);
            let expected: i64 = schedule.openings(span).iter().map(|opening| opening.len_us()).sum();
            assert_eq!(
                OpenTime::new(&schedule).within(&clocks, span),
                expected,
                "seed {seed}: {tz} {span:?} {schedule:?}"
            );
        }
    }

    /// Every hour of the days around a change of clocks, known no further than it is asked: once in 400 draws the property
    /// above meets one.
    #[test]
    fn the_hours_around_a_clock_change_are_all_counted() {
        // When clocks went back or forward, or a date was left out.
        let changes = [
            ("America/Chicago", "2026-11-01T07:00:00Z"),
            ("America/Chicago", "2026-03-08T08:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
            ("America/St_Johns", "2006-10-29T02:31:00Z"),
            ("America/Havana", "2026-11-01T05:00:00Z"),
            ("Pacific/Apia", "2011-12-30T10:00:00Z"),
        ];
        for (zone, change) in changes {
            let schedule = Schedule::new(zone.parse().unwrap(), WeeklyHours::always_open());
            let change: Timestamp = change.parse().unwrap();
            for hour in -7 * 24..7 * 24 {
                for length_us in [HOUR_US, DAY_US, 8 * DAY_US] {
                    let end = change.plus(hour * HOUR_US);
                    let span = Span::new(end.plus(-length_us), end);
                    let clocks = Clocks::new(schedule.zone(), span);
                    let found = OpenTime::new(&schedule).within(&clocks, span);
                    assert_eq!(found, length_us, "{zone} {span:?}");
                }
            }
        }
    }
}
