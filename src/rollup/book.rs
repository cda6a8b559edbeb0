//! The schedules in use, each once, with their openings resolved around the present.
//!
//! A schedule with closures is kept beside its *base*, the same one without them: it is open like its base but for the
//! days with a closure. So it shares the base's openings as long as none is near, and of opening time only those days are
//! kept of its own. A closure of one store thus costs a little, not a schedule's worth.

use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::dirty::{Dirty, NewSchedule, OpenDay};
use crate::schedule::{Closures, DEFAULT_ZONE, Grid, Openings, Schedule, WeeklyHours, Zone};
use crate::time::{DAY_US, Span, Timestamp};
use crate::window::WINDOW_REACH_US;

/// How far ahead of the newest observation openings are resolved: so long they are not resolved again.
const AHEAD_US: i64 = 9 * DAY_US;
/// How long a stretch is resolved at once for rows from elsewhere in history.
const HISTORY_US: i64 = 35 * DAY_US;

/// What a report needs to know of a schedule.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub schedule: Arc<Schedule>,
    /// Its openings around the newest observation: all schedules are resolved over the same stretch.
    pub openings: Arc<Openings>,
    /// Place of its zone in [`Schedules::zones`].
    pub zone: u32,
}

/// All schedules by number, and the zones that they are in.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    pub all: Vec<Resolved>,
    pub zones: Vec<Zone>,
}

/// Every distinct schedule under a number.
#[derive(Debug, Default)]
pub(super) struct ScheduleBook {
    numbers: FxHashMap<Arc<Schedule>, u32>,
    entries: Vec<Entry>,
    resolved_around: Option<Timestamp>,
    snapshot: Option<Arc<Schedules>>,
}

#[derive(Debug)]
struct Entry {
    schedule: Arc<Schedule>,
    grid: Grid,
    always_open: bool,
    /// Of a schedule with closures, the same without them; its number is lower.
    base: Option<u32>,
    /// Stores that have this schedule, or one of which it is the base.
    stores: u32,
    /// Openings around the newest observation, shared with snapshots.
    current: Arc<Openings>,
    /// Openings somewhere else in history: rows of a backfill come in long runs.
    history: Openings,
    /// Whether the ledger has it.
    written: bool,
    /// First cells of the first and the last day of opening time that the ledger has; of a schedule with closures, it
    /// has the days in between on which it differs from its base.
    open_days: Option<(i32, i32)>,
}

impl Entry {
    /// A schedule with what is resolved of it.
    fn new(schedule: Arc<Schedule>, base: Option<u32>, current: Arc<Openings>, written: bool) -> Self {
        Entry {
            grid: schedule.zone().grid(),
            always_open: schedule.is_always_open(),
            base,
            history: Openings::new(&schedule, NOTHING),
            current,
            schedule,
            stores: 0,
            written,
            open_days: None,
        }
    }
}

const NOTHING: Span = Span {
    start: Timestamp::MIN,
    end: Timestamp::MIN,
};

/// A schedule's openings over a stretch; those of its base, if there is no closure in it.
fn resolve(entries: &[Entry], schedule: &Schedule, base: Option<u32>, covers: Span) -> Arc<Openings> {
    match base.and_then(|base| entries.get(base as usize)) {
        Some(base) if !schedule.closes_within(covers) => Arc::clone(&base.current),
        _ => Arc::new(Openings::new(schedule, covers)),
    }
}

/// The same schedule without closures, of one that has some.
fn base_of(schedule: &Schedule) -> Option<Schedule> {
    (!schedule.closures().is_empty()).then(|| schedule.with_closures(Closures::default()))
}

fn around_span(newest: Timestamp) -> Span {
    Span::new(newest.plus(-WINDOW_REACH_US - 2 * DAY_US), newest.plus(AHEAD_US))
}

impl ScheduleBook {
    /// The number of a schedule.
    pub fn intern(&mut self, schedule: &Schedule) -> u32 {
        if let Some(&number) = self.numbers.get(schedule) {
            return number;
        }
        let base = base_of(schedule).map(|base| self.intern(&base));
        let number = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.put(number, schedule, base, false);
        number
    }

    /// Takes over a schedule under the number it has in the ledger. They must come in order; false if the base of one
    /// with closures has not come before it.
    #[must_use]
    pub fn restore(&mut self, number: u32, schedule: &Schedule) -> bool {
        let base = base_of(schedule).map(|base| self.numbers.get(&base).copied());
        if base == Some(None) {
            return false;
        }
        let vacant = Arc::new(Schedule::new(DEFAULT_ZONE, WeeklyHours::always_open()));
        while self.entries.len() < number as usize {
            let nothing = Arc::new(Openings::new(&vacant, NOTHING));
            self.entries.push(Entry::new(Arc::clone(&vacant), None, nothing, true));
        }
        self.put(number, schedule, base.flatten(), true);
        true
    }

    fn put(&mut self, number: u32, schedule: &Schedule, base: Option<u32>, written: bool) {
        let schedule = Arc::new(schedule.clone());
        self.numbers.insert(Arc::clone(&schedule), number);
        let covers = self.resolved_around.map_or(NOTHING, around_span);
        let current = resolve(&self.entries, &schedule, base, covers);
        let entry = Entry::new(schedule, base, current, written);
        match self.entries.get_mut(number as usize) {
            Some(slot) => *slot = entry,
            None => self.entries.push(entry),
        }
        self.snapshot = None;
    }

    /// Takes over which days of opening time the ledger has of a schedule without closures.
    pub fn restore_open_days(&mut self, number: u32, first: Timestamp, last: Timestamp) {
        if let Some(entry) = self.entries.get_mut(number as usize) {
            entry.open_days = Some((entry.grid.cell_of(first), entry.grid.cell_of(last)));
        }
    }

    /// One more store has a schedule.
    pub fn retain(&mut self, number: u32) {
        self.count(number, |stores| stores + 1);
    }

    /// One store less has a schedule.
    pub fn release(&mut self, number: u32) {
        self.count(number, |stores| stores.saturating_sub(1));
    }

    fn count(&mut self, number: u32, change: impl Fn(u32) -> u32) {
        let mut counted = Some(number);
        while let Some(entry) = counted.and_then(|number| self.entries.get_mut(number as usize)) {
            entry.stores = change(entry.stores);
            counted = entry.base;
        }
    }

    /// One more store has a schedule in the ledger, which then has the days of it from `from` to that of `to`, and maybe
    /// more: of a schedule with closures that does not show, since most days have no row.
    pub fn restore_store(&mut self, number: u32, from: Timestamp, to: Timestamp) {
        if let Some(entry) = self.entries.get_mut(number as usize)
            && entry.base.is_some()
        {
            let day = |at| entry.grid.block_first(entry.grid.cell_of(at));
            entry.open_days = Some((day(from), day(to)));
        }
        self.retain(number);
    }

    pub fn schedule(&self, number: u32) -> Option<&Arc<Schedule>> {
        self.entries.get(number as usize).map(|entry| &entry.schedule)
    }

    pub fn grid(&self, number: u32) -> Grid {
        let default = || crate::schedule::Zone::of(DEFAULT_ZONE).grid();
        self.entries
            .get(number as usize)
            .map_or_else(default, |entry| entry.grid)
    }

    /// Calls `each` with every cell that has opening time inside `span`, in order, and how much; a cell
    /// that is open in several parts comes several times.
    pub fn for_each_open(&mut self, number: u32, span: Span, mut each: impl FnMut(i32, i64)) {
        let Some(entry) = self.entries.get_mut(number as usize) else {
            return;
        };
        if span.is_empty() {
            return;
        }
        if entry.always_open {
            entry.grid.split(span, each);
            return;
        }
        let openings = if entry.current.knows(span) {
            &*entry.current
        } else {
            if !entry.history.knows(span) {
                let covers = Span::new(span.start.plus(-DAY_US), span.end.max(span.start.plus(HISTORY_US)));
                entry.history = Openings::new(&entry.schedule, covers);
            }
            &entry.history
        };
        for opening in openings.within(span) {
            entry.grid.split(opening, &mut each);
        }
    }

    /// Resolves every schedule around the newest observation, unless that is done already.
    pub fn resolve_around(&mut self, newest: Timestamp) {
        let needed = Span::new(newest.plus(-WINDOW_REACH_US - DAY_US), newest.plus(DAY_US));
        let have = self.resolved_around.map(around_span);
        if have.is_some_and(|have| have.start <= needed.start && needed.end <= have.end) {
            return;
        }
        self.resolved_around = Some(newest);
        for number in 0..self.entries.len() {
            let Some((done, [entry, ..])) = self.entries.split_at_mut_checked(number) else {
                break;
            };
            entry.current = resolve(done, &entry.schedule, entry.base, around_span(newest));
        }
        self.snapshot = None;
    }

    /// Schedules and their openings by number.
    pub fn snapshot(&mut self) -> Arc<Schedules> {
        let entries = &self.entries;
        Arc::clone(self.snapshot.get_or_insert_with(|| {
            let mut schedules = Schedules::default();
            let mut places: FxHashMap<Zone, u32> = FxHashMap::default();
            for entry in entries {
                let zones = &mut schedules.zones;
                let zone = *places.entry(entry.schedule.zone()).or_insert_with_key(|&zone| {
                    zones.push(zone);
                    u32::try_from(zones.len() - 1).unwrap_or(u32::MAX)
                });
                schedules.all.push(Resolved {
                    schedule: Arc::clone(&entry.schedule),
                    openings: Arc::clone(&entry.current),
                    zone,
                });
            }
            Arc::new(schedules)
        }))
    }

    /// Adds the schedules that the ledger does not have yet.
    pub fn take_new(&mut self, dirty: &mut Dirty) {
        for (number, entry) in (0..).zip(&mut self.entries) {
            if !entry.written {
                entry.written = true;
                dirty.schedules.push(NewSchedule {
                    number,
                    base: entry.base.unwrap_or(number),
                    schedule: Arc::clone(&entry.schedule),
                });
            }
        }
    }

    /// Adds the days of opening time from `from` to the day of `to` that the ledger does not have yet,
    /// of every schedule that a store has; of one with closures, those on which it differs from its base.
    pub fn take_open_days(&mut self, from: Timestamp, to: Timestamp, dirty: &mut Dirty) {
        for (number, entry) in (0..).zip(&mut self.entries) {
            if entry.stores == 0 {
                continue;
            }
            let grid = entry.grid;
            let (first, last) = (grid.block_first(grid.cell_of(from)), grid.block_first(grid.cell_of(to)));
            let step = i32::try_from(grid.cells_per_day()).unwrap_or(24);
            let mut add = |days: Range<i32>| {
                for day in days.step_by(step.unsigned_abs() as usize) {
                    let day_start = grid.cell_start(day);
                    let whole = Span::new(day_start, day_start.plus(DAY_US));
                    if entry.base.is_none() || entry.schedule.closes_within(whole) {
                        dirty.open_days.push(OpenDay {
                            schedule: number,
                            day_start,
                            open_us: entry.schedule.open_by_cell(day),
                        });
                    }
                }
            };
            entry.open_days = match entry.open_days {
                // Without a gap, also where the newest observation went back and lies before all that is there.
                Some((have_first, have_last)) if first <= have_last + step => {
                    add(first..have_first);
                    add(have_last + step..last + step);
                    Some((first.min(have_first), last.max(have_last)))
                }
                // Retention has gone past all that is there: nobody asks for the days between.
                _ => {
                    add(first..last + step);
                    Some((first, last))
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use super::*;
    use crate::schedule::Closure;

    const START: Timestamp = Timestamp::from_micros(1_704_067_200_000_000); // 2024-01-01T00:00:00Z

    /// Schedules and days, by their number since 2024, that are handed out when the fleet has cells from one day to
    /// another.
    fn all_days(book: &mut ScheduleBook, from: i64, to: i64) -> Vec<(u32, i64)> {
        let noon = |day: i64| START.plus(day * DAY_US + DAY_US / 2);
        let mut dirty = Dirty::default();
        book.take_open_days(noon(from), noon(to), &mut dirty);
        let number = |day: &OpenDay| (day.schedule, day.day_start.since(START).div_euclid(DAY_US));
        dirty.open_days.iter().map(number).collect()
    }

    fn days(book: &mut ScheduleBook, from: i64, to: i64) -> Vec<i64> {
        let all = all_days(book, from, to).into_iter();
        all.map(|(_, day)| day).collect()
    }

    #[test]
    fn days_of_opening_time_are_handed_out_once_and_without_a_gap() {
        let mut book = ScheduleBook::default();
        let number = book.intern(&Schedule::new(chrono_tz::UTC, WeeklyHours::always_open()));
        book.retain(number);
        assert_eq!(days(&mut book, 10, 11), [10, 11]);
        assert_eq!(days(&mut book, 10, 12), [12]);
        // The rows went away, others came that all lie before them, by more than a day.
        assert_eq!(days(&mut book, 6, 7), [6, 7, 8, 9]);
        assert_eq!(days(&mut book, 6, 13), [13]);
        // Retention moved past everything.
        assert_eq!(days(&mut book, 400, 401), [400, 401]);
        assert_eq!(days(&mut book, 400, 402), [402]);
    }

    #[test]
    fn a_schedule_with_closures_has_what_differs_from_its_base() {
        let open = Schedule::new(chrono_tz::UTC, WeeklyHours::always_open());
        let closure = |day: i64, days: i64| {
            let from_us = START.micros() + day * DAY_US + DAY_US / 3;
            Closure::new(from_us, from_us + days * DAY_US).unwrap()
        };
        let closed = open.with_closures([closure(11, 1), closure(300, 1)].into_iter().collect());
        let mut book = ScheduleBook::default();
        let number = book.intern(&closed);
        assert_eq!((number, book.intern(&open)), (1, 0));
        book.retain(number);
        assert_eq!(
            all_days(&mut book, 10, 13),
            [(0, 10), (0, 11), (0, 12), (0, 13), (1, 11), (1, 12)]
        );
        let mut shares = |day: i64| {
            book.resolve_around(START.plus(day * DAY_US));
            Arc::ptr_eq(&book.entries[0].current, &book.entries[1].current)
        };
        assert_eq!(
            [11, 100, 280, 300, 340].map(&mut shares),
            [false, true, true, false, true]
        );

        // As after a restart: what the ledger has, it has of both up to the newest observation.
        let restored = |of_store: u32| {
            let mut book = ScheduleBook::default();
            assert!(!book.restore(1, &closed), "without its base it is nothing");
            assert!(book.restore(0, &open) && book.restore(1, &closed));
            book.restore_open_days(0, START.plus(10 * DAY_US), START.plus(14 * DAY_US));
            book.restore_store(of_store, START.plus(10 * DAY_US), START.plus(11 * DAY_US));
            book
        };
        assert_eq!(all_days(&mut restored(1), 9, 15), [(0, 9), (0, 15), (1, 12)]);
        // One that no store had is written as a whole when one has it again.
        let mut book = restored(0);
        book.retain(1);
        assert_eq!(all_days(&mut book, 10, 14), [(1, 11), (1, 12)]);
        book.release(1);
        assert_eq!(all_days(&mut book, 10, 15), [(0, 15)]);
        book.release(0);
        assert_eq!(all_days(&mut book, 10, 16), []);
    }
}
