//! What changed since the last flush.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use chrono::NaiveDate;
use rustc_hash::FxHashMap;

use super::{Observation, StoreNo};
use crate::schedule::{Grid, Schedule};
use crate::time::{Span, Timestamp};

/// One flush: everything the ledger needs to bring its rows to this point.
///
/// Applied in the order of the fields, and every value is absolute: applying a flush twice changes
/// nothing.
#[derive(Debug, Default)]
pub struct Dirty {
    /// Schedules seen for the first time.
    pub schedules: Vec<NewSchedule>,
    /// Days of opening time.
    pub open_days: Vec<OpenDay>,
    /// Stores that no table knows any more; their cells go too.
    pub removed: Vec<StoreNo>,
    /// Stretches whose cells are to be deleted before `cells` are written.
    pub cleared: Vec<ClearedStretch>,
    /// Stores whose row changed.
    pub stores: Vec<StoreRow>,
    /// Cells that changed.
    pub cells: Vec<CellChange>,
    /// See [`super::Rollup::covers_from`].
    pub covers_from: Option<Timestamp>,
    /// See [`super::Rollup::covers_from`].
    pub truncated: bool,
    /// See [`super::Rollup::newest`].
    pub newest: Option<Timestamp>,
    /// The last day with running sums in the ledger before this flush, and after it; see [`super::DaySums`].
    pub had_summed_to: Option<NaiveDate>,
    /// The same after it.
    pub summed_to: Option<NaiveDate>,
    /// See [`super::DaySums::revision`].
    pub revision: i64,
    /// Stores of which anything changed, one bit each: most rows of a feed change no cell.
    marked: Vec<u64>,
    /// What changed of them beside their row.
    pending: FxHashMap<StoreNo, Pending>,
}

/// What changed of one store's cells, while it gathers.
#[derive(Debug, Default)]
struct Pending {
    /// All cells lose their rows first.
    clear_all: bool,
    /// These stretches lose their rows first.
    cleared: Vec<Span>,
    cells: BTreeMap<i32, u32>,
}

/// A schedule under the number that the ledger keeps it by.
#[derive(Debug, Clone)]
pub struct NewSchedule {
    /// Its number.
    pub number: u32,
    /// The number of the same schedule without closures; its own, if it has none.
    pub base: u32,
    /// The schedule.
    pub schedule: Arc<Schedule>,
}

/// Opening time of one schedule for 24 hours. Where there is none of a schedule with closures, it is that of its base.
#[derive(Debug, Clone)]
pub struct OpenDay {
    /// Number of the schedule.
    pub schedule: u32,
    /// First instant of the first cell.
    pub day_start: Timestamp,
    /// Microseconds by cell; 24 or 48 of them.
    pub open_us: Vec<i64>,
}

/// A stretch of a store's cells that loses its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClearedStretch {
    /// The store.
    pub store: StoreNo,
    /// By start of the cell; None: all of them.
    pub stretch: Option<Span>,
}

/// A store's row in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreRow {
    /// Its number.
    pub store: StoreNo,
    /// Its id.
    pub id: String,
    /// Number of its schedule.
    pub schedule: u32,
    /// Newest observation.
    pub last: Option<Observation>,
    /// End of the newest observation's cell.
    pub settled_to: Option<Timestamp>,
    /// First observation that is held because it is dated in the future.
    pub held_from: Option<Timestamp>,
}

/// A cell's downtime; 0 deletes the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellChange {
    /// The store.
    pub store: StoreNo,
    /// First instant of the cell.
    pub cell_start: Timestamp,
    /// Microseconds of downtime.
    pub down_us: u32,
}

impl Dirty {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.marked.is_empty()
            && self.schedules.is_empty()
            && self.open_days.is_empty()
            && self.removed.is_empty()
            && self.cleared.is_empty()
            && self.stores.is_empty()
            && self.cells.is_empty()
    }

    /// Rows of stores and cells that a flush writes.
    pub fn rows(&self) -> usize {
        self.stores.len() + self.cells.len()
    }

    /// A store's row changed. Whoever changes its cells calls this too.
    pub(super) fn mark(&mut self, store: StoreNo) {
        let (word, bit) = (store as usize / 64, store % 64);
        if self.marked.len() <= word {
            self.marked.resize(word + 1, 0);
        }
        if let Some(word) = self.marked.get_mut(word) {
            *word |= 1 << bit;
        }
    }

    fn unmark(&mut self, store: StoreNo) {
        if let Some(word) = self.marked.get_mut(store as usize / 64) {
            *word &= !(1 << (store % 64));
        }
    }

    pub(super) fn put(&mut self, store: StoreNo, cell: i32, down_us: u32) {
        self.pending.entry(store).or_default().cells.insert(cell, down_us);
    }

    pub(super) fn clear(&mut self, store: StoreNo, cells: Range<i32>, stretch: Span) {
        let pending = self.pending.entry(store).or_default();
        let mut after = pending.cells.split_off(&cells.start).split_off(&cells.end);
        pending.cells.append(&mut after);
        if !pending.clear_all {
            pending.cleared.push(stretch);
        }
    }

    pub(super) fn clear_all(&mut self, store: StoreNo) {
        let pending = Pending {
            clear_all: true,
            ..Pending::default()
        };
        self.pending.insert(store, pending);
    }

    pub(super) fn remove(&mut self, store: StoreNo) {
        self.unmark(store);
        self.pending.remove(&store);
        self.removed.push(store);
    }

    /// Turns what gathered into rows, by number of the store: the tables' pages and their indexes are each touched
    /// once. `row` gives a store's row and grid, None if it is gone.
    pub(super) fn resolve(&mut self, row: impl Fn(StoreNo) -> Option<(StoreRow, Grid)>) {
        for (first, mut word) in (0..).step_by(64).zip(std::mem::take(&mut self.marked)) {
            while word != 0 {
                let store: StoreNo = first + word.trailing_zeros();
                word &= word - 1;
                let Some((row, grid)) = row(store) else { continue };
                self.stores.push(row);
                if let Some(pending) = self.pending.remove(&store) {
                    self.resolve_cells(store, pending, grid);
                }
            }
        }
        debug_assert!(self.pending.is_empty(), "cells of stores that are not marked");
    }

    fn resolve_cells(&mut self, store: StoreNo, pending: Pending, grid: Grid) {
        let Pending {
            clear_all,
            cleared,
            cells,
        } = pending;
        let all = clear_all.then_some(None);
        let stretches = all.into_iter().chain(cleared.into_iter().map(Some));
        self.cleared
            .extend(stretches.map(|stretch| ClearedStretch { store, stretch }));
        self.cells.extend(cells.into_iter().map(|(cell, down_us)| CellChange {
            store,
            cell_start: grid.cell_start(cell),
            down_us,
        }));
    }
}
