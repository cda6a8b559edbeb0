//! What the ledger would hold, and a rollup restored from it.

use std::collections::BTreeMap;

use uptally::rollup::{Dirty, Limits, Rollup, StoreNo, StoreRow};
use uptally::schedule::Schedule;
use uptally::time::Timestamp;

/// Every flush applied in the order that `Dirty` documents.
#[derive(Default)]
pub struct Shelf {
    pub schedules: BTreeMap<u32, Schedule>,
    bases: BTreeMap<u32, u32>,
    pub open: BTreeMap<(u32, Timestamp), Vec<i64>>,
    pub stores: BTreeMap<StoreNo, StoreRow>,
    pub cells: BTreeMap<(StoreNo, Timestamp), u32>,
    pub covers_from: Option<Timestamp>,
    pub newest: Option<Timestamp>,
    truncated: bool,
}

impl Shelf {
    pub fn apply(&mut self, dirty: &Dirty) {
        for new in &dirty.schedules {
            self.schedules.insert(new.number, (*new.schedule).clone());
            self.bases.insert(new.number, new.base);
        }
        for day in &dirty.open_days {
            let closures = !self.schedules[&day.schedule].closures().is_empty();
            let twice = self.open.insert((day.schedule, day.day_start), day.open_us.clone());
            // After a restart nobody knows which days the shelf has beyond its own, of a schedule with closures.
            let fits = twice.is_none_or(|was| closures && was == day.open_us);
            assert!(fits, "a day of opening time is written once");
        }
        for &store in &dirty.removed {
            self.stores.remove(&store);
            self.cells.retain(|&(of, _), _| of != store);
        }
        for cleared in &dirty.cleared {
            self.cells.retain(|&(of, at), _| {
                of != cleared.store || cleared.stretch.is_some_and(|stretch| !stretch.contains(at))
            });
        }
        for row in &dirty.stores {
            self.stores.insert(row.store, row.clone());
        }
        for change in &dirty.cells {
            let key = (change.store, change.cell_start);
            if change.down_us == 0 {
                self.cells.remove(&key);
            } else {
                self.cells.insert(key, change.down_us);
            }
        }
        (self.covers_from, self.truncated, self.newest) = (dirty.covers_from, dirty.truncated, dirty.newest);
    }

    pub fn drop_before(&mut self, bound: Timestamp) {
        self.cells.retain(|&(_, at), _| at >= bound);
    }

    /// A schedule's opening time by cell of a day: its own, or that of its base.
    pub fn open_us(&self, schedule: u32, day_start: Timestamp) -> &[i64] {
        let own = self.open.get(&(schedule, day_start));
        own.unwrap_or_else(|| &self.open[&(self.bases[&schedule], day_start)])
    }

    /// The rollup as it was at the last flush. `default`: of stores that are new to it.
    pub fn restore(&self, limits: Limits, now: Timestamp, default: Schedule) -> Rollup {
        let mut rollup = Rollup::new(limits, now);
        rollup.set_default_schedule(default);
        let from = rollup.restore_bounds(self.covers_from, self.truncated, self.newest);
        for (&number, schedule) in &self.schedules {
            assert!(rollup.restore_schedule(number, schedule));
            if !schedule.closures().is_empty() {
                continue;
            }
            let mut days = self
                .open
                .range((number, Timestamp::MIN)..=(number, Timestamp::MAX))
                .map(|(&(_, day), _)| day);
            if let Some(first) = days.next() {
                rollup.restore_open_days(number, first, days.next_back().unwrap_or(first));
            }
        }
        for row in self.stores.values() {
            rollup.restore_store(row.store, &row.id, row.schedule, row.last, row.held_from);
        }
        for (&(store, at), &down_us) in &self.cells {
            if at >= from {
                rollup.restore_cell(store, at, down_us);
            }
        }
        rollup
    }
}
