//! The rollup: every store's downtime by cell, kept current as observations arrive in any order.
//!
//! Pure: rows go in, dirty cells come out; who reads and writes Postgres is elsewhere. One owner
//! mutates it; readers hold a [`Snapshot`].
//!
//! What is kept of a store is its *timeline* (the newest observations) and the microseconds of downtime
//! inside opening hours of every cell that has any. Uptime is not kept: it is opening time minus
//! downtime, and opening time depends on the schedule alone. Cells after the last observation's are
//! not kept either: the last status holds, so they follow from the schedule, and neither a silent store
//! nor an hour boundary costs a write.
//!
//! Terms: a row is *late* when it lies before what memory knows of the store ([`Timeline`]); then the
//! stretch it touches is read back from raw ([`ReadBack`], [`Rollup::splice`]).

mod book;
mod days;
mod dirty;
mod ids;
mod leaves;
mod observed;
mod restore;
mod snapshot;
mod state;
mod stretches;
mod timeline;

pub use days::{DaySums, changed_stores, days_in, first_date_at, last_date_at, start_everywhere};
pub use dirty::{CellChange, ClearedStretch, Dirty, NewSchedule, OpenDay, StoreRow};
pub use ids::StoreIndex;
pub use observed::ObservedWindows;
pub use snapshot::{Plan, Snapshot, StoreView, Sums};
pub use state::DownCell;
pub use stretches::{OpenDown, StoreNames};
pub use timeline::{RECENT_MAX, Timeline};

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use self::book::ScheduleBook;
use self::days::Days;
use self::ids::Ids;
use self::leaves::Leaves;
use self::state::StoreState;
use self::timeline::Observed;
use crate::schedule::{DEFAULT_ZONE, Grid, Schedule, WeeklyHours};
use crate::store::Status;
use crate::time::{DAY_US, HOUR_US, Span, Timestamp};
use crate::window::WINDOW_REACH_US;

/// Dense number of a store: its place in every array here, and its key in `uptally.rollup_store`.
pub type StoreNo = u32;

/// How far ahead of now an observation may be dated and still count at once. Later ones are held until
/// their time comes, so that a poller with a wrong clock cannot move the fleet into the future.
pub const FUTURE_MAX_US: i64 = HOUR_US;

/// An observation that counts although every clock says that it is dated further ahead than this was let in by a clock that
/// ran ahead. One that is less far ahead moves nothing for good: memory keeps a day more than windows reach.
pub const AHEAD_MAX_US: i64 = FUTURE_MAX_US + DAY_US;

/// How long before the newest observation cells stay in memory: the reach of a report's windows.
pub const MEMORY_US: i64 = WINDOW_REACH_US + DAY_US;

/// Rows whose stores are fetched from main memory together: about as many as a processor has fetches under way.
const ROWS_TOGETHER: usize = 32;

/// One row of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Observation {
    /// When the store was polled.
    pub at: Timestamp,
    /// What was found.
    pub status: Status,
}

/// A stretch of one store's timeline that must be read from raw and given to [`Rollup::splice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadBack {
    /// The store.
    pub store: StoreNo,
    /// First instant that changed.
    pub from: Timestamp,
    /// Last instant that changed.
    pub to: Timestamp,
    /// Read from here; and the latest observation before it.
    pub read_from: Timestamp,
    /// Whether the whole rest of the timeline is needed: the stretch reaches what memory holds of it.
    /// Otherwise the observations up to one hour past the first one after `to` are enough.
    pub to_the_end: bool,
}

/// What is kept of one store, to be looked at.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// Number of its schedule.
    pub schedule: u32,
    /// Its grid.
    pub grid: Grid,
    /// Newest observation.
    pub last: Option<Observation>,
    cells: &'a [DownCell],
}

impl Kept<'_> {
    /// Downtime of a cell in microseconds, of those that memory keeps.
    pub fn down_us(&self, cell: i32) -> u32 {
        let found = self.cells.binary_search_by_key(&cell, |c| c.cell);
        found.ok().and_then(|i| self.cells.get(i)).map_or(0, |c| c.down_us)
    }
}

/// How the rollup bounds itself.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Cells older than this before the newest observation are neither made nor kept.
    pub retention_us: i64,
    /// Whether to collect what a flush to Postgres needs; off where nothing is flushed.
    pub track_dirty: bool,
    /// Keep cells in memory from this instant on, instead of [`MEMORY_US`] before the newest observation:
    /// for a report as of an instant in the past.
    pub keep_from: Option<Timestamp>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            retention_us: 400 * DAY_US,
            track_dirty: true,
            keep_from: None,
        }
    }
}

/// All stores' timelines and downtime.
#[derive(Debug)]
pub struct Rollup {
    limits: Limits,
    ids: Ids,
    book: ScheduleBook,
    /// Of a store of which nothing but observations is known.
    default_schedule: Arc<Schedule>,
    leaves: Leaves,
    /// Latest observation that is counted; `as_of=latest`.
    newest: Option<Timestamp>,
    /// The newest observation went away; the newest that is left is not known yet.
    newest_stale: bool,
    /// First instant for which cells are made.
    covers_from: Option<Timestamp>,
    /// Whether cells before `covers_from` were dropped or never made because of retention.
    truncated: bool,
    /// First instant of which memory holds every store's cells. Never moves back.
    memory_from: Timestamp,
    /// The first observation of each store that is dated after `now + FUTURE_MAX_US`. When its time comes, the
    /// store is read back from there: a poller with a wrong clock costs one entry, however many rows it writes.
    held: FxHashMap<StoreNo, Timestamp>,
    /// The same by time.
    held_by_time: BTreeSet<(Timestamp, StoreNo)>,
    now: Timestamp,
    days: Days,
    dirty: Dirty,
}

impl Rollup {
    /// A rollup without stores, as of a wall-clock instant.
    pub fn new(limits: Limits, now: Timestamp) -> Self {
        Rollup {
            limits,
            ids: Ids::default(),
            book: ScheduleBook::default(),
            default_schedule: Arc::new(Schedule::new(DEFAULT_ZONE, WeeklyHours::always_open())),
            leaves: Leaves::default(),
            newest: None,
            newest_stale: false,
            covers_from: None,
            truncated: false,
            memory_from: limits.keep_from.unwrap_or(Timestamp::MIN),
            held: FxHashMap::default(),
            held_by_time: BTreeSet::new(),
            now,
            days: Days::new(),
            dirty: Dirty::default(),
        }
    }

    /// Number of stores.
    pub fn stores(&self) -> usize {
        self.ids.len()
    }

    /// Latest observation that is counted.
    pub fn newest(&self) -> Option<Timestamp> {
        if !self.newest_stale {
            return self.newest;
        }
        let stores = self.leaves.stores();
        stores
            .filter_map(|state| state.timeline.last())
            .map(|last| last.at)
            .max()
    }

    /// Looks for the newest observation that is left, after the newest went away. A walk over all stores, so
    /// once for a batch.
    fn refresh_newest(&mut self) {
        if self.newest_stale {
            self.newest = self.newest();
            self.newest_stale = false;
        }
    }

    /// Stores with observations that wait for their time to come.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// First instant for which cells are kept, and whether earlier ones were dropped.
    pub fn covers_from(&self) -> (Option<Timestamp>, bool) {
        (self.covers_from, self.truncated)
    }

    /// The earliest instant that a report may be as of: before it, windows would reach into what
    /// retention dropped. Without observations every instant will do.
    pub fn earliest_as_of(&self) -> Timestamp {
        match self.covers_from {
            None => Timestamp::MIN,
            Some(from) if self.truncated => from.plus(WINDOW_REACH_US),
            Some(from) => from,
        }
    }

    /// Every store's number is below this; some numbers may be of no store.
    pub fn numbers(&self) -> StoreNo {
        self.ids.numbers()
    }

    /// First instant of which memory holds every store's cells.
    pub fn memory_from(&self) -> Timestamp {
        self.memory_from
    }

    /// Numbers by id; a clone stays current.
    pub fn index(&self) -> StoreIndex {
        self.ids.index().clone()
    }

    /// Whether a flush would write anything.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The number of a store, if it is known.
    pub fn find(&self, id: &str) -> Option<StoreNo> {
        self.ids.find(id)
    }

    /// The id of a store.
    pub fn id(&self, store: StoreNo) -> Option<&str> {
        self.ids.id(store)
    }

    /// The schedule of stores that are new from here on: where not said otherwise, always open in the default zone.
    pub fn set_default_schedule(&mut self, schedule: Schedule) {
        self.default_schedule = Arc::new(schedule);
    }

    /// The number of a store; a new store gets the default schedule.
    pub fn intern(&mut self, id: &str) -> StoreNo {
        if let Some(store) = self.ids.find(id) {
            return store;
        }
        self.enroll(id, &Arc::clone(&self.default_schedule))
    }

    /// Adds a store that is not known yet, without observations.
    pub fn enroll(&mut self, id: &str, schedule: &Schedule) -> StoreNo {
        let schedule = self.book.intern(schedule);
        let store = self.ids.add(id);
        self.leaves.place(store, StoreState::new(schedule));
        self.book.retain(schedule);
        self.mark(store);
        store
    }

    /// Moves the wall clock. Returns what must be read back because the time of held observations has come.
    /// Time going backwards changes nothing.
    pub fn set_now(&mut self, now: Timestamp) -> Vec<ReadBack> {
        self.now = self.now.max(now);
        let limit = self.future_limit();
        let mut due = Vec::new();
        while let Some(&(at, store)) = self.held_by_time.first() {
            if at >= limit {
                break;
            }
            self.release(store);
            due.extend(self.read_back(store, at, limit));
        }
        due
    }

    /// Remembers an observation that is dated in the future.
    fn hold(&mut self, store: StoreNo, at: Timestamp) {
        if self.held.get(&store).is_none_or(|&held| at < held) {
            self.release(store);
            self.held.insert(store, at);
            self.held_by_time.insert((at, store));
        }
    }

    /// Forgets what is held of a store.
    fn release(&mut self, store: StoreNo) {
        if let Some(at) = self.held.remove(&store) {
            self.held_by_time.remove(&(at, store));
        }
    }

    /// Applies rows in any order; sorts them by store and time first. Returns the stretches that must be
    /// read back from raw, at most one per store.
    pub fn apply(&mut self, rows: &mut [(StoreNo, Observation)]) -> Vec<ReadBack> {
        rows.sort_unstable();
        let mut late: Vec<(StoreNo, Timestamp, Timestamp)> = Vec::new();
        for rows in rows.chunks(ROWS_TOGETHER) {
            self.touch(rows);
            for &(store, observation) in rows {
                if !self.observe(store, observation) {
                    match late.last_mut() {
                        Some((last, _, to)) if *last == store => *to = observation.at,
                        _ => late.push((store, observation.at, observation.at)),
                    }
                }
            }
        }
        late.into_iter()
            .filter_map(|(store, from, to)| self.read_back(store, from, to))
            .collect()
    }

    /// What must be read to repair a stretch in which raw rows changed in a way that memory did not see.
    /// None for an unknown store.
    pub fn read_back(&self, store: StoreNo, from: Timestamp, to: Timestamp) -> Option<ReadBack> {
        let state = self.state(store)?;
        let grid = self.book.grid(state.schedule);
        // What changed in the future can touch the last observation that counts: a held one is no substitute for it.
        let from = from.min(self.future_limit().plus(-1));
        let to_the_end = state.timeline.reaches(to);
        let mut read_from = grid.cell_start(grid.cell_of(from));
        if let (Some(last), true) = (state.timeline.last(), to_the_end) {
            // The silence after the last observation is not kept; another one after it makes it part of the past.
            read_from = read_from.min(grid.cell_end_after(last.at));
        }
        Some(ReadBack {
            store,
            from,
            to,
            read_from,
            to_the_end,
        })
    }

    /// Recomputes a stretch from raw. `observations`: what [`ReadBack`] asks for, in order of time.
    pub fn splice(&mut self, stretch: ReadBack, observations: &[Observation]) {
        let ReadBack {
            store,
            from,
            to,
            to_the_end,
            read_from,
        } = stretch;
        let limit = self.future_limit();
        let counted = observations.partition_point(|o| o.at < limit);
        let (counted, future) = observations.split_at_checked(counted).unwrap_or((observations, &[]));
        if to_the_end {
            self.release(store);
            if let Some(first) = future.first() {
                self.hold(store, first.at);
            }
        }
        let Some(state) = self.state(store) else { return };
        let schedule = state.schedule;
        let grid = self.book.grid(schedule);
        let old_end = state.timeline.last().map(|o| grid.cell_end_after(o.at));
        let next = counted.iter().find(|o| o.at > to).filter(|_| !to_the_end);
        let end = if let Some(next) = next {
            grid.cell_end_after(next.at)
        } else {
            let new_end = counted.last().map(|o| grid.cell_end_after(o.at));
            new_end.max(old_end).unwrap_or(read_from).max(grid.cell_end_after(from))
        };
        if let Some(first) = counted.first() {
            self.extend_coverage(first.at);
        }
        // Downtime beyond the last observation's cell is never kept: it follows from the last status.
        let settled = counted.last().map_or(read_from, |o| grid.cell_end_after(o.at)).min(end);
        let mut down: Vec<DownCell> = Vec::new();
        let within = Span::new(read_from.max(self.covers_from.unwrap_or(read_from)), settled);
        for (i, observation) in counted.iter().enumerate() {
            if observation.status == Status::Active {
                continue;
            }
            let until = counted.get(i + 1).map_or(settled, |next| next.at);
            let inactive = Span::new(observation.at, until).intersect(within);
            self.book
                .for_each_open(schedule, inactive, |cell, us| DownCell::add(&mut down, cell, us));
        }
        if to_the_end {
            let complete = counted.first().is_none_or(|first| first.at >= read_from) && counted.len() <= RECENT_MAX;
            let timeline = Timeline::from_newest(counted, complete);
            self.set_timeline(store, timeline);
        }
        // If the timeline ends earlier now, its last silence begins before the stretch.
        let start = if to_the_end && !counted.is_empty() {
            settled.min(read_from)
        } else {
            read_from
        };
        let cells = grid.cell_of(start)..grid.cell_of(end.plus(-1)) + 1;
        if let Some(leaf) = self.leaves.of_mut(store) {
            leaf.replace_cells(store, cells.clone(), &down);
        }
        if self.limits.track_dirty {
            let stretch = Span::new(grid.cell_start(cells.start), grid.cell_start(cells.end));
            self.days.changed_from(stretch.start);
            self.dirty.clear(store, cells, stretch);
            for cell in down {
                self.dirty.put(store, cell.cell, cell.down_us);
            }
        }
        self.mark(store);
    }

    /// Gives a store another schedule and recomputes its whole history from raw. `observations`: all of
    /// the store's, in order of time.
    pub fn reschedule(&mut self, store: StoreNo, schedule: &Schedule, observations: &[Observation]) {
        let schedule = self.book.intern(schedule);
        let Some(state) = self.state(store) else { return };
        let old = state.schedule;
        self.set_timeline(store, Timeline::default());
        self.leaves.place(store, StoreState::new(schedule));
        self.book.retain(schedule);
        self.book.release(old);
        if self.limits.track_dirty {
            self.days.changed_from(Timestamp::MIN);
            self.dirty.clear_all(store);
        }
        let first = observations.first().map_or(self.now, |o| o.at);
        let grid = self.book.grid(schedule);
        let last_counted = observations.iter().rev().find(|o| o.at < self.future_limit());
        let keep_from = self.keep_from(grid, last_counted.map_or(first, |o| o.at));
        if let Some(state) = self.state_mut(store) {
            state.known_from = keep_from;
        }
        let all = ReadBack {
            store,
            from: first,
            to: observations.last().map_or(first, |o| o.at),
            read_from: grid.cell_start(grid.cell_of(first)),
            to_the_end: true,
        };
        self.splice(all, observations);
    }

    /// All ids, in no order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.all()
    }

    /// What is kept of a store.
    pub fn kept(&self, id: &str) -> Option<Kept<'_>> {
        let store = self.find(id)?;
        let state = self.state(store)?;
        Some(Kept {
            schedule: state.schedule,
            grid: self.book.grid(state.schedule),
            last: state.timeline.last(),
            cells: self.leaves.of(store)?.cells(store),
        })
    }

    /// The schedule of a store.
    pub fn schedule(&self, store: StoreNo) -> Option<&Arc<Schedule>> {
        self.book.schedule(self.state(store)?.schedule)
    }

    /// Forgets a store that no table knows any more.
    pub fn remove(&mut self, store: StoreNo) {
        let Some(state) = self.state(store) else { return };
        self.book.release(state.schedule);
        self.release(store);
        self.set_timeline(store, Timeline::default());
        self.leaves.place(store, StoreState::new(0));
        self.ids.remove(store);
        if self.limits.track_dirty {
            self.days.changed_from(Timestamp::MIN);
            self.dirty.remove(store);
        }
    }

    /// An immutable view of this point. Costs a clone of one pointer per 4,096 stores, and later a copy of each
    /// leaf of 32 stores that is written while the view is held.
    pub fn snapshot(&mut self) -> Snapshot {
        self.refresh_newest();
        let around = self.newest.unwrap_or(self.now);
        self.book.resolve_around(around);
        Snapshot {
            ids: self.ids.snapshot(),
            leaves: self.leaves.clone(),
            schedules: self.book.snapshot(),
            newest: self.newest,
            memory_from: self.memory_from,
            earliest_as_of: self.earliest_as_of(),
            first_day: self.first_day(),
            revision: self.days.revision(),
        }
    }

    /// Everything that changed since the last call, for one flush.
    pub fn take_dirty(&mut self) -> Dirty {
        self.refresh_newest();
        let mut dirty = std::mem::take(&mut self.dirty);
        if let (Some(from), Some(newest)) = (self.covers_from, self.newest) {
            self.book.take_open_days(from, newest, &mut dirty);
        }
        self.book.take_new(&mut dirty);
        self.take_days(&mut dirty);
        dirty.resolve(|store| {
            let state = self.state(store)?;
            let grid = self.book.grid(state.schedule);
            let last = state.timeline.last();
            Some((
                StoreRow {
                    store,
                    id: self.ids.id(store)?.to_owned(),
                    schedule: state.schedule,
                    last,
                    settled_to: last.map(|o| grid.cell_end_after(o.at)),
                    held_from: self.held.get(&store).copied(),
                },
                grid,
            ))
        });
        dirty.covers_from = self.covers_from;
        dirty.truncated = self.truncated;
        dirty.newest = self.newest;
        dirty
    }

    /// Moves the retention bound to `retention_us` before the newest observation, by whole days. Returns
    /// the new bound if it moved: cells before it are to be deleted where they are kept.
    pub fn prune(&mut self) -> Option<Timestamp> {
        self.refresh_newest();
        let newest = self.newest?;
        let bound = newest.plus(-self.limits.retention_us);
        let bound = bound.plus(-bound.micros().rem_euclid(DAY_US));
        self.covers_from.filter(|&from| from < bound)?;
        self.covers_from = Some(bound);
        self.truncated = true;
        Some(bound)
    }

    /// Reads a little of what each row is about to change. Nothing waits for what is read, so the processor fetches it
    /// from main memory for all rows at once; row by row, each would wait for the one before.
    fn touch(&self, rows: &[(StoreNo, Observation)]) {
        let mut seen = 0;
        for &(store, _) in rows {
            if let Some(state) = self.leaves.of(store).and_then(|leaf| leaf.store(store)) {
                let grid = self.book.grid(state.schedule);
                seen ^= i64::from(grid.cells_per_hour()) ^ state.timeline.touch();
            }
        }
        black_box(seen);
    }

    // ---- one observation -----------------------------------------------------------------------------

    /// Applies one row. False: it is late and the store must be read back.
    fn observe(&mut self, store: StoreNo, observation: Observation) -> bool {
        if observation.at >= self.future_limit() {
            self.hold(store, observation.at);
            self.mark(store);
            return true;
        }
        self.count_newest(Some(observation.at));
        self.extend_coverage(observation.at);
        let covers_from = self.covers_from.unwrap_or(observation.at);
        let Some(leaf) = self.leaves.of_mut(store) else {
            return true;
        };
        let Some(state) = leaf.store_mut(store) else {
            return true;
        };
        let (book, days, dirty, track) = (&mut self.book, &mut self.days, &mut self.dirty, self.limits.track_dirty);
        let schedule = state.schedule;
        let grid = book.grid(schedule);
        let known_from = state.known_from;
        let Some(Observed { changed, flip, settle }) = state.timeline.insert(observation, grid, known_from) else {
            return false;
        };
        if !changed {
            return true;
        }
        let mut wrote = false;
        let mut write = |cell: i32, delta_us: i64| {
            wrote = true;
            let down_us = leaf.change_cell(store, cell, delta_us);
            if track {
                days.changed_from(grid.cell_start(cell));
                dirty.put(store, cell, down_us);
            }
        };
        let clip = |span: Span| Span::new(span.start.max(covers_from), span.end);
        if let Some(span) = settle {
            book.for_each_open(schedule, clip(span), &mut write);
        }
        if let Some((span, status)) = flip {
            let sign = if status == Status::Inactive { 1 } else { -1 };
            book.for_each_open(schedule, clip(span), |cell, us| write(cell, sign * us));
        }
        // Cells come in by writes alone, so only a write can make them too many; most rows need not touch them at all.
        if wrote {
            let day = i32::try_from(grid.cells_per_day()).unwrap_or(24);
            let from = grid.cell_of(self.memory_from).min(grid.cell_of(observation.at) - day);
            leaf.trim(store, from, 2 * day);
        }
        if track {
            dirty.mark(store);
        }
        true
    }

    /// Observations dated from here on do not count yet.
    pub fn future_limit(&self) -> Timestamp {
        self.now.plus(FUTURE_MAX_US)
    }

    /// First cell that stays in memory of a store that was last observed at `last`: what reports need, and
    /// always the day before its last observation, from which the next one goes on.
    fn keep_from(&self, grid: Grid, last: Timestamp) -> i32 {
        grid.cell_of(self.memory_from.min(last.plus(-DAY_US)))
    }

    /// Counts an observation's instant in.
    fn count_newest(&mut self, at: Option<Timestamp>) {
        if at > self.newest {
            self.newest = at;
            self.newest_stale = false;
            if let (Some(at), None) = (at, self.limits.keep_from) {
                self.memory_from = self.memory_from.max(at.plus(-MEMORY_US));
            }
        }
    }

    /// Lets the coverage begin at the hour before that of an observation, unless retention forbids.
    fn extend_coverage(&mut self, at: Timestamp) {
        // Nearly always, so before anything is computed.
        if self.truncated || self.covers_from.is_some_and(|from| from.plus(2 * HOUR_US) <= at) {
            return;
        }
        // One hour more: cells begin up to 45 minutes before the hour in UTC.
        let hour = at.plus(-at.micros().rem_euclid(HOUR_US) - HOUR_US);
        if self.covers_from.is_some_and(|from| from <= hour) {
            return;
        }
        let newest = self.newest.map_or(at, |newest| newest.max(at));
        let bound = newest.plus(-self.limits.retention_us);
        if hour < bound {
            self.truncated = true;
        }
        let from = hour.max(bound.plus(-bound.micros().rem_euclid(HOUR_US)));
        self.covers_from = Some(self.covers_from.map_or(from, |old| old.min(from)));
    }

    /// Replaces a store's timeline. If the newest observation of all went away with the old one, looks for
    /// the newest that is left.
    fn set_timeline(&mut self, store: StoreNo, timeline: Timeline) {
        let Some(state) = self.state_mut(store) else { return };
        let old = state.timeline.last().map(|o| o.at);
        let new = timeline.last().map(|o| o.at);
        state.timeline = timeline;
        self.newest_stale |= new < old && old == self.newest;
        self.count_newest(new);
    }

    fn state(&self, store: StoreNo) -> Option<&StoreState> {
        self.ids.id(store)?;
        self.leaves.of(store)?.store(store)
    }

    fn state_mut(&mut self, store: StoreNo) -> Option<&mut StoreState> {
        self.leaves.of_mut(store)?.store_mut(store)
    }

    fn mark(&mut self, store: StoreNo) {
        if self.limits.track_dirty {
            self.dirty.mark(store);
        }
    }
}
