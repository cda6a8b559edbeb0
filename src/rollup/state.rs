//! What is kept of one store, and the leaves that snapshots share.

use std::ops::Range;

use super::{StoreNo, Timeline};
use crate::time::HOUR_US;

/// Stores per leaf. A snapshot clones one pointer per leaf; a write copies a leaf that a snapshot
/// still holds. 64 keep the copy near 20 KB and the pointers of a million stores near 16,000.
pub(super) const STORES_PER_LEAF: usize = 64;

/// Downtime inside opening hours in one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownCell {
    /// Number of the cell on the store's grid.
    pub cell: i32,
    /// Microseconds; more than 0, at most the cell's length.
    pub down_us: u32,
}

impl DownCell {
    /// Adds to the last cell of an ascending list, or appends one.
    pub(super) fn add(cells: &mut Vec<DownCell>, cell: i32, us: i64) {
        match cells.last_mut() {
            Some(last) if last.cell == cell => last.down_us = shifted(last.down_us, us),
            _ => cells.push(DownCell {
                cell,
                down_us: shifted(0, us),
            }),
        }
    }
}

/// One store.
///
/// Invariant: `cells` ascends, holds no zero, nothing past the cell of the last observation, and every
/// cell with downtime from `known_from` on up to there.
#[derive(Debug, Clone)]
pub(super) struct StoreState {
    pub schedule: u32,
    /// Cells before this one are not kept in memory.
    known_from: i32,
    pub timeline: Timeline,
    cells: Vec<DownCell>,
}

impl StoreState {
    pub fn new(schedule: u32) -> Self {
        StoreState {
            schedule,
            known_from: i32::MIN,
            timeline: Timeline::default(),
            cells: Vec::new(),
        }
    }

    pub fn cells(&self) -> &[DownCell] {
        &self.cells
    }

    /// Cells before this one are not kept in memory.
    pub fn known_from(&self) -> i32 {
        self.known_from
    }

    /// Says that nothing before a cell is held.
    pub fn set_known_from(&mut self, cell: i32) {
        self.known_from = cell;
    }

    /// Adds to (or takes from) a cell; returns its new downtime.
    pub fn change_cell(&mut self, cell: i32, delta_us: i64) -> u32 {
        let place = match self.cells.last() {
            Some(last) if last.cell < cell => self.cells.len(),
            _ => self.cells.partition_point(|c| c.cell < cell),
        };
        match self.cells.get_mut(place) {
            Some(found) if found.cell == cell => {
                found.down_us = shifted(found.down_us, delta_us);
                let down_us = found.down_us;
                if down_us == 0 {
                    self.cells.remove(place);
                }
                down_us
            }
            _ => {
                let down_us = shifted(0, delta_us);
                if down_us > 0 {
                    self.cells.insert(place, DownCell { cell, down_us });
                }
                down_us
            }
        }
    }

    /// Forgets cells before `from`, once enough of them have gathered to be worth the move.
    pub fn trim(&mut self, from: i32, slack: i32) {
        if self
            .cells
            .first()
            .is_some_and(|first| first.cell < from.saturating_sub(slack))
        {
            let gone = self.cells.partition_point(|c| c.cell < from);
            self.cells.drain(..gone);
            self.known_from = self.known_from.max(from);
        }
    }

    /// Puts other cells in place of those of a range; ones before what is known are left out.
    pub fn replace_cells(&mut self, range: Range<i32>, with: &[DownCell]) {
        let from = self.cells.partition_point(|c| c.cell < range.start);
        let to = self.cells.partition_point(|c| c.cell < range.end);
        let known_from = self.known_from;
        self.cells
            .splice(from..to, with.iter().copied().filter(|c| c.cell >= known_from));
    }

    /// Appends a cell while restoring.
    pub fn push_cell(&mut self, cell: DownCell) {
        debug_assert!(self.cells.last().is_none_or(|last| last.cell < cell.cell));
        self.cells.push(cell);
    }

    /// Downtime in a range of cells that are all kept or follow from the status after the last one.
    pub fn kept_down_us(&self, range: Range<i32>) -> i64 {
        let from = self.cells.partition_point(|c| c.cell < range.start);
        self.cells
            .iter()
            .skip(from)
            .take_while(|c| c.cell < range.end)
            .map(|c| i64::from(c.down_us))
            .sum()
    }
}

/// A cell's downtime moved by some microseconds. Leaving the range of a cell would be a mistake of
/// ours: caught in tests; in production bounded, so that the table takes it, and left to `verify` to find.
fn shifted(down_us: u32, delta_us: i64) -> u32 {
    let moved = i64::from(down_us) + delta_us;
    debug_assert!((0..=HOUR_US).contains(&moved), "cell of {moved} us");
    u32::try_from(moved.clamp(0, HOUR_US)).unwrap_or(0)
}

/// A block of stores that snapshots share until one of them changes.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaf {
    stores: Vec<StoreState>,
}

impl Leaf {
    pub fn store(&self, store: StoreNo) -> Option<&StoreState> {
        self.stores.get(store as usize % STORES_PER_LEAF)
    }

    pub fn store_mut(&mut self, store: StoreNo) -> Option<&mut StoreState> {
        self.stores.get_mut(store as usize % STORES_PER_LEAF)
    }

    pub fn stores(&self) -> &[StoreState] {
        &self.stores
    }

    /// Puts a store in its place; places before it that are empty get a vacant state.
    pub fn place(&mut self, store: StoreNo, state: StoreState) {
        let place = store as usize % STORES_PER_LEAF;
        while self.stores.len() <= place {
            self.stores.push(StoreState::new(0));
        }
        if let Some(slot) = self.stores.get_mut(place) {
            *slot = state;
        }
    }
}
