//! Stretches of local days, however long: what the ledger has summed up of them, and the rest from memory.
//!
//! The ledger keeps a running sum of each store's kept downtime at the first instant of each local day, up to a day that
//! lies well within what memory holds (`summed_to`). So downtime between two days is the difference of two sums, or one
//! difference and what memory has after it; and the rollup needs to know only whether something changed before that day
//! that the ledger does not have yet: then its *revision* is another.

use chrono::NaiveDate;
use rustc_hash::FxHashMap;

use super::{Dirty, OpenDown, Rollup, Snapshot, StoreNo, StoreView};
use crate::schedule::{Clocks, OpenTime, Zone};
use crate::time::{DAY_US, HOUR_US, Span, Timestamp};
use crate::window::DateRange;

/// The sums end so long before the newest observation: later than memory begins by a week, so that the newest observation
/// may jump by that without anything missing in between.
const SUMMED_BEFORE_US: i64 = super::MEMORY_US - 8 * DAY_US;

/// No clock of this century is further behind UTC, or ahead of it.
const BEHIND_MAX_US: i64 = 12 * HOUR_US;
const AHEAD_MAX_US: i64 = 14 * HOUR_US;

/// A local date that no zone has left behind yet at an instant.
pub fn first_date_at(at: Timestamp) -> NaiveDate {
    at.plus(-BEHIND_MAX_US).to_chrono().date_naive()
}

/// A local date that no zone goes beyond at an instant.
pub fn last_date_at(at: Timestamp) -> NaiveDate {
    at.plus(AHEAD_MAX_US).to_chrono().date_naive()
}

/// When the first zone begins a day.
pub fn start_everywhere(day: NaiveDate) -> Timestamp {
    midnight_utc(day).plus(-AHEAD_MAX_US)
}

/// When the last zone begins a day.
fn last_start(day: NaiveDate) -> Timestamp {
    midnight_utc(day).plus(BEHIND_MAX_US)
}

fn midnight_utc(day: NaiveDate) -> Timestamp {
    Timestamp::from_chrono(day.and_time(chrono::NaiveTime::MIN).and_utc())
}

/// How far the ledger's sums are, and the state of what they are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Days {
    /// The last day that has sums, once everything that was taken for a flush is there.
    summed_to: Option<NaiveDate>,
    revision: i64,
}

impl Days {
    /// Of a rollup that is new: no other one has the same revision, whatever the ledger has.
    pub fn new() -> Self {
        Days {
            summed_to: None,
            revision: fastrand::i64(0..i64::MAX / 2),
        }
    }

    /// See [`DaySums::revision`].
    pub fn revision(self) -> i64 {
        self.revision
    }

    /// Something changed from an instant on.
    pub fn changed_from(&mut self, at: Timestamp) {
        if self.summed_to.is_some_and(|day| at < last_start(day)) {
            self.revision += 1;
        }
    }
}

impl Rollup {
    /// Takes over how far the ledger's sums are.
    pub fn restore_days(&mut self, summed_to: Option<NaiveDate>, revision: i64) {
        self.days = Days { summed_to, revision };
    }

    /// Says how far the sums are to be after a flush.
    pub(super) fn take_days(&mut self, dirty: &mut Dirty) {
        dirty.had_summed_to = self.days.summed_to;
        if let (Some(from), Some(newest)) = (self.covers_from, self.newest) {
            let wanted = newest.plus(-SUMMED_BEFORE_US).to_chrono().date_naive();
            if wanted > first_date_at(from) {
                self.days.summed_to = self.days.summed_to.max(Some(wanted));
            }
        }
        dirty.summed_to = self.days.summed_to;
        dirty.revision = self.days.revision;
    }

    /// The first day that can be reported; None: every day, since nothing was observed.
    pub fn first_day(&self) -> Option<NaiveDate> {
        let from = self.covers_from?;
        Some(if self.truncated {
            // The first one that is whole everywhere.
            last_date_at(from) + chrono::Days::new(1)
        } else {
            first_date_at(from)
        })
    }
}

/// The ledger's sums at the two ends of what is asked of it, by number of the store; 0 past the end.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct DaySums {
    /// The later end: the day before which the sums count.
    pub to: NaiveDate,
    /// The state of what they are made from.
    pub revision: i64,
    /// At the earlier end.
    pub at_from: Vec<i64>,
    /// At the later end.
    pub at_to: Vec<i64>,
}

impl DaySums {
    fn down_us(&self, store: StoreNo) -> i64 {
        let at = |sums: &[i64]| sums.get(store as usize).copied().unwrap_or(0);
        at(&self.at_to) - at(&self.at_from)
    }
}

impl Snapshot {
    /// The first day that can be reported, see [`Rollup::first_day`].
    pub fn first_day(&self) -> Option<NaiveDate> {
        self.first_day
    }

    /// Whether memory alone has all of these days.
    pub fn holds(&self, days: DateRange) -> bool {
        start_everywhere(days.from()) >= self.memory_from
    }

    /// Whether these sums, and what memory has of the days after them, make one whole of one point.
    pub fn continues(&self, sums: &DaySums, days: DateRange) -> bool {
        let is_whole = sums.to == days.to() || start_everywhere(sums.to) >= self.memory_from;
        is_whole && self.revision == sums.revision
    }

    /// Every store's opening time and downtime in a stretch of local days, up to the last full clock hour before `as_of`,
    /// in the order of the ids. `sums`: of the ledger, from the first of the days on; None if memory holds all.
    pub fn days(&self, days: DateRange, as_of: Timestamp, sums: Option<&DaySums>) -> Vec<OpenDown> {
        let zones = &self.schedules.zones;
        let zones: Vec<ZoneDays> = zones
            .iter()
            .map(|&zone| ZoneDays::new(zone, days, as_of, sums))
            .collect();
        let mut open: Vec<Option<(OpenTime<'_>, i64)>> = self.schedules.all.iter().map(|_| None).collect();
        let places = self.ids.sorted.iter().zip(self.stores());
        places
            .map(|(&number, store)| {
                let schedule = store.state.schedule as usize;
                let resolved = self.schedules.all.get(schedule);
                let zone = resolved.and_then(|resolved| zones.get(resolved.zone as usize));
                let (Some(resolved), Some(zone), Some(known)) = (resolved, zone, open.get_mut(schedule)) else {
                    return OpenDown::default();
                };
                let (open, open_us) = known.get_or_insert_with(|| {
                    let open = OpenTime::new(&resolved.schedule);
                    let open_us = open.within(&zone.clocks, zone.stretch);
                    (open, open_us)
                });
                let summed_us = sums.map_or(0, |sums| sums.down_us(number));
                OpenDown {
                    open_us: *open_us,
                    down_us: summed_us + store.down_from_memory(zone, open),
                }
            })
            .collect()
    }
}

/// Local days in a zone, up to the last full clock hour before `as_of`.
pub fn days_in(zone: Zone, days: DateRange, as_of: Timestamp) -> Span {
    let end = zone.day_start(days.to()).min(zone.grid().hour_start(as_of));
    Span::new(zone.day_start(days.from()), end)
}

/// A stretch of days in one zone.
struct ZoneDays {
    stretch: Span,
    /// What the sums have not.
    rest: Span,
    clocks: Clocks,
}

impl ZoneDays {
    fn new(zone: Zone, days: DateRange, as_of: Timestamp, sums: Option<&DaySums>) -> Self {
        let stretch = days_in(zone, days, as_of);
        let summed_to = sums.map_or(stretch.start, |sums| zone.day_start(sums.to));
        ZoneDays {
            stretch,
            rest: Span::new(summed_to, stretch.end),
            clocks: Clocks::new(zone, stretch),
        }
    }
}

impl StoreView<'_> {
    fn down_from_memory(&self, zone: &ZoneDays, open: &OpenTime<'_>) -> i64 {
        let grid = zone.clocks.zone().grid();
        let rest = self.cells_in(grid.cell_of(zone.rest.start), grid.cell_of(zone.rest.end));
        let kept_us: i64 = rest.iter().map(|cell| i64::from(cell.down_us)).sum();
        // The silence after the last observation is kept nowhere.
        let silent_from = self.silent_down_from(grid).unwrap_or(Timestamp::MAX);
        let silent = Span::new(zone.stretch.start.max(silent_from), zone.stretch.end);
        kept_us + open.within(&zone.clocks, silent)
    }
}

/// Stores whose sums change with a flush, each with the first instant that changed.
pub fn changed_stores(dirty: &Dirty) -> FxHashMap<StoreNo, Timestamp> {
    let mut changed = FxHashMap::default();
    let Some(day) = dirty.had_summed_to else { return changed };
    let cleared = dirty.cleared.iter().map(|cleared| {
        let from = cleared.stretch.map_or(Timestamp::MIN, |stretch| stretch.start);
        (cleared.store, from)
    });
    let written = dirty.cells.iter().map(|cell| (cell.store, cell.cell_start));
    for (store, at) in cleared.chain(written).filter(|&(_, at)| at < last_start(day)) {
        let first: &mut Timestamp = changed.entry(store).or_insert(at);
        *first = at.min(*first);
    }
    changed
}
