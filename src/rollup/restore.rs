//! Taking a rollup over from where it is kept: bounds first, then schedules, stores, cells.

use super::state::{DownCell, StoreState};
use super::{Observation, Rollup, StoreNo, Timeline};
use crate::schedule::Schedule;
use crate::time::Timestamp;

impl Rollup {
    /// Takes over a schedule under the number it has in the ledger. They come in the order of their numbers. False: it
    /// has closures, and the same one without them has not come before it.
    #[must_use]
    pub fn restore_schedule(&mut self, number: u32, schedule: &Schedule) -> bool {
        self.book.restore(number, schedule)
    }

    /// Takes over days of opening time as already written, so that they are not written again. Only of schedules
    /// without closures.
    pub fn restore_open_days(&mut self, number: u32, first: Timestamp, last: Timestamp) {
        self.book.restore_open_days(number, first, last);
    }

    /// Takes over a store under the number it has in the ledger.
    pub fn restore_store(
        &mut self,
        store: StoreNo,
        id: &str,
        schedule: u32,
        last: Option<Observation>,
        held_from: Option<Timestamp>,
    ) {
        self.ids.restore(store, id);
        let mut state = StoreState::new(schedule);
        // The cell that memory begins in the middle of is not restored.
        let grid = self.book.grid(schedule);
        state.known_from = grid.cell_of(self.memory_from.plus(grid.cell_us() - 1));
        if let Some(at) = held_from {
            self.hold(store, at);
        }
        if let Some(last) = last {
            state.timeline = Timeline::from_newest(&[last], false);
        }
        self.leaves.place(store, state);
        match self.covers_from.zip(self.newest) {
            Some((from, newest)) => self.book.restore_store(schedule, from, newest),
            None => self.book.retain(schedule),
        }
    }

    /// Takes over a cell. Cells of a store must come in order of time.
    pub fn restore_cell(&mut self, store: StoreNo, cell_start: Timestamp, down_us: u32) {
        let Some(state) = self.state(store) else { return };
        let cell = self.book.grid(state.schedule).cell_of(cell_start);
        if let Some(leaf) = self.leaves.of_mut(store) {
            leaf.push_cell(store, DownCell { cell, down_us });
        }
    }

    /// Takes over the bounds; comes first. Returns the instant from which cells are wanted in memory.
    pub fn restore_bounds(
        &mut self,
        covers_from: Option<Timestamp>,
        truncated: bool,
        newest: Option<Timestamp>,
    ) -> Timestamp {
        self.covers_from = covers_from;
        self.truncated = truncated;
        self.count_newest(newest);
        self.memory_from
    }
}
