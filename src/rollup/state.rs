//! What is kept of one store: its schedule, its newest observations, and its downtime by cell.

use super::Timeline;
use crate::time::HOUR_US;

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

/// One store, but for its cells, which lie beside those of its neighbours (`super::leaves::Leaf`).
#[derive(Debug, Clone)]
pub(super) struct StoreState {
    pub schedule: u32,
    /// Cells before this one are not kept in memory.
    pub known_from: i32,
    pub timeline: Timeline,
}

impl StoreState {
    pub fn new(schedule: u32) -> Self {
        StoreState {
            schedule,
            known_from: i32::MIN,
            timeline: Timeline::default(),
        }
    }
}

/// A cell's downtime moved by some microseconds. Leaving the range of a cell would be a mistake of
/// ours: caught in tests; in production bounded, so that the table takes it, and left to `verify` to find.
pub(super) fn shifted(down_us: u32, delta_us: i64) -> u32 {
    let moved = i64::from(down_us) + delta_us;
    debug_assert!((0..=HOUR_US).contains(&moved), "cell of {moved} us");
    u32::try_from(moved.clamp(0, HOUR_US)).unwrap_or(0)
}
