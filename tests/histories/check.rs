//! The checks: reports and flushed cells against the oracle.

use uptally::oracle;
use uptally::report::csv;
use uptally::rollup::{FUTURE_MAX_US, Limits, Rollup, Snapshot};
use uptally::store::Status;
use uptally::time::{DAY_US, HOUR_US, Span, Timestamp};
use uptally::window::{ClosedTime, WINDOW_REACH_US, Windows};

use super::History;
use super::dice::Dice;

/// The rolling report as of a snapshot's newest observation; None if there is none.
pub fn render(snapshot: &Snapshot) -> Option<csv::Csv> {
    csv::render(snapshot, snapshot.newest()?, Windows::Rolling, ClosedTime::Excluded).ok()
}

impl<D: Dice> History<D> {
    /// The rows that are counted now: not those dated in the future.
    fn counted(&self) -> Vec<oracle::RawStore> {
        self.raw.before(self.now.plus(FUTURE_MAX_US))
    }

    /// Compares the report of a random instant.
    pub fn check_report(&mut self) {
        self.read();
        let snapshot = self.rollup.snapshot();
        let stores = self.counted();
        let newest = stores.iter().flat_map(|s| &s.observations).map(|&(at, _)| at).max();
        assert_eq!(snapshot.newest(), newest, "newest");
        let as_of = self.any_as_of(newest);
        let windows = *self.dice.pick(&[Windows::Calendar, Windows::Rolling]);
        let closed = *self.dice.pick(&[ClosedTime::Uptime, ClosedTime::Excluded]);
        if as_of < snapshot.earliest_as_of() {
            return;
        }
        let report = if let Ok(report) = csv::render(&snapshot, as_of, windows, closed) {
            report
        } else {
            // Before what memory holds. A flush in between may move the shelf's retention on.
            if self.dice.one_in(3) {
                self.flush();
            }
            let past = self.past(as_of.plus(-WINDOW_REACH_US)).snapshot();
            if as_of < past.earliest_as_of() {
                return;
            }
            self.checks.from_the_shelf += 1;
            csv::render(&past, as_of, windows, closed).unwrap()
        };
        self.checks.reports += 1;
        let report = String::from_utf8(report.to_vec()).unwrap();
        let expected = oracle::report_csv(&stores, as_of, windows, closed);
        let differing: Vec<_> = report.lines().zip(expected.lines()).filter(|(a, b)| a != b).collect();
        assert!(
            report == expected,
            "as of {as_of} {windows} {closed}: the report and the oracle's differ in {differing:#?}"
        );
    }

    /// A rollup of its own that holds more of the past: the shelf, and what was read since the last flush. From the raw
    /// rows, if that is too much for a delta.
    fn past(&self, keep_from: Timestamp) -> Rollup {
        let limits = Limits {
            track_dirty: false,
            keep_from: Some(keep_from),
            ..self.limits
        };
        if self.replace {
            return self.built(limits, usize::MAX);
        }
        let mut past = self.shelf.restore(limits, self.now, self.raw.default_schedule());
        let due = past.set_now(self.now);
        self.unflushed.apply(due, &self.raw, &mut past, usize::MAX);
        past
    }

    fn any_as_of(&mut self, newest: Option<Timestamp>) -> Timestamp {
        match self.dice.below(3) {
            0 => newest.unwrap_or(self.now),
            1 => self.now,
            _ => {
                let back = *self.dice.pick(&[HOUR_US, DAY_US, 20 * DAY_US]);
                self.now.plus(-self.dice.within(0..back))
            }
        }
    }

    /// Flushes, and compares every store and cell of the shelf.
    pub fn check_flush(&mut self) {
        self.read();
        self.flush();
        self.checks.flushes += 1;
        let stores = self.counted();
        assert_eq!(self.shelf.stores.len(), stores.len(), "stores in the ledger");
        let (Some(from), Some(newest)) = (self.shelf.covers_from, self.shelf.newest) else {
            assert!(self.shelf.cells.is_empty(), "no cells without observations");
            return;
        };
        for row in self.shelf.stores.values() {
            let store = stores.iter().find(|s| s.id == row.id).unwrap();
            let schedule = &self.shelf.schedules[&row.schedule];
            let grid = schedule.zone().grid();
            let phase_us = oracle::grid_phase_us(store.zone);
            for (at, open_us, down_us) in oracle::cells(store, grid.cell_us(), phase_us, Span::new(from, newest)) {
                let cell = grid.cell_of(at);
                let first = grid.block_first(cell);
                let open = self.shelf.open_us(row.schedule, grid.cell_start(first));
                let open = open[usize::try_from(cell - first).unwrap()];
                assert_eq!(open, open_us, "opening time of {} at {at}", store.id);
                let kept = self.shelf.cells.get(&(row.store, at)).copied().unwrap_or(0);
                let down = match (row.settled_to, row.last) {
                    (Some(settled_to), Some(last)) if at >= settled_to => {
                        assert_eq!(kept, 0, "kept past the last observation: {} {at} {row:?}", store.id);
                        if last.status == Status::Inactive { open } else { 0 }
                    }
                    _ => i64::from(kept),
                };
                assert_eq!(down, down_us, "downtime of {} at {at}", store.id);
            }
        }
    }
}
