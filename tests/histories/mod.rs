//! Generated histories: a small fleet, a random run of what can happen to it, and the rollup held against the oracle.
//!
//! Rows come in any order, late, twice, dated in the future, corrected, deleted; hours and zones change; stores close
//! for a while, one or all; stores go.
//! The rollup learns of it as the daemon's does: by deltas that cover one change or many, in pieces of any size. It is
//! flushed, restored from what was flushed last (as after kill -9: what came since comes again), and built anew. A
//! report of a random instant must be the oracle's byte for byte, and the flushed cells the oracle's to the microsecond.
//!
//! Who chooses is a [`Dice`]: a seed (`tests/rollup_properties.rs`) or a fuzzer's bytes (`fuzz/src/histories.rs`).

mod check;
mod delta;
pub mod dice;
mod raw;
mod shelf;

use uptally::rollup::{Limits, Rollup};
use uptally::store::Status;
use uptally::time::{DAY_US, HOUR_US, MINUTE_US, Timestamp};

use delta::Delta;
use dice::Dice;
use raw::{RawRows, RawTables};
use shelf::Shelf;

/// Around these, something about local time is unusual in at least one of the zones.
const ANCHORS: [&str; 9] = [
    "2023-01-25T18:00:00Z",
    "2023-03-12T08:00:00Z", // Chicago forward
    "2023-11-05T07:00:00Z", // Chicago and Havana back
    "2022-03-26T22:00:00Z", // Beirut's missing midnight
    "2023-04-01T15:00:00Z", // Lord Howe and Chatham back
    "2011-12-30T10:00:00Z", // Apia's missing day
    "2018-11-04T03:00:00Z", // Sao Paulo's missing midnight
    "2023-03-19T02:00:00Z", // Casablanca, Ramadan
    "2016-05-01T07:00:00Z", // Caracas moves by half an hour for good
];

/// What a history was checked by.
#[derive(Debug, Default, Clone, Copy)]
pub struct Checks {
    /// Reports compared.
    pub reports: u64,
    /// Those of them that were of an instant before what memory holds.
    pub from_the_shelf: u64,
    /// Flushes after which every cell was compared.
    pub flushes: u64,
    /// Restarts from an earlier flush.
    pub restarts: u64,
    /// Closures that came, changed or went, of one store or of all.
    pub closures: u64,
}

impl Checks {
    /// Counts those of another history in.
    pub fn add(&mut self, other: Checks) {
        self.reports += other.reports;
        self.from_the_shelf += other.from_the_shelf;
        self.flushes += other.flushes;
        self.restarts += other.restarts;
        self.closures += other.closures;
    }
}

/// A history under way.
pub struct History<D> {
    dice: D,
    now: Timestamp,
    limits: Limits,
    raw: RawTables,
    rollup: Rollup,
    shelf: Shelf,
    /// What the rollup has not read yet.
    unread: Delta,
    /// What it has read since the last flush.
    unflushed: Delta,
    /// The next flush replaces all that is on the shelf.
    replace: bool,
    checks: Checks,
    /// Print what happens: `TRACE=1`.
    trace: bool,
}

/// Runs a history of so many steps, or until the dice are spent. A report is compared after every fourth step,
/// and everything at the end.
pub fn run(dice: impl Dice, steps: u32) -> Checks {
    let mut history = History::new(dice);
    for step in 0..steps {
        history.step();
        if step % 4 == 3 {
            history.check_report();
        }
        if history.dice.is_spent() {
            break;
        }
    }
    history.check_report();
    history.check_flush();
    history.checks
}

impl<D: Dice> History<D> {
    fn new(mut dice: D) -> Self {
        let now: Timestamp = dice.pick(&ANCHORS).parse().unwrap();
        let now = now.plus(dice.within(-3..4) * DAY_US + dice.within(0..DAY_US));
        let limits = Limits {
            retention_us: *dice.pick(&[400, 30]) * DAY_US,
            ..Limits::default()
        };
        History {
            dice,
            now,
            limits,
            raw: RawTables::default(),
            rollup: Rollup::new(limits, now),
            shelf: Shelf::default(),
            unread: Delta::default(),
            unflushed: Delta::default(),
            replace: false,
            checks: Checks::default(),
            trace: std::env::var_os("TRACE").is_some(),
        }
    }

    fn step(&mut self) {
        let kind = self.dice.below(23);
        if self.trace {
            let (now, newest, covers) = (self.now, self.rollup.newest(), self.rollup.covers_from());
            println!("step {kind}, now {now}, newest {newest:?}, covers from {covers:?}");
        }
        match kind {
            0..=6 => self.insert_rows(),
            7..=9 => self.live_rows(),
            10 | 11 => self.delete_rows(),
            12 | 13 => self.change_schedule(),
            14 => self.remove_store(),
            15 => self.flush(),
            16 => self.check_flush(),
            17 => self.restart(),
            18 => self.rebuild(),
            19 | 20 => self.change_closures(),
            21 => self.change_closures_of_all(),
            _ => self.pass_time(),
        }
        if self.dice.one_in(2) {
            self.read();
        }
    }

    /// An id of the fleet; new ones appear until there are six.
    fn any_store(&mut self) -> String {
        let formula = if self.dice.one_in(2) { "=" } else { "" };
        let id = format!("{formula}store-{}", self.dice.below(3));
        if !self.raw.stores.contains_key(&id) {
            self.raw.stores.insert(id.clone(), RawRows::default());
            if self.dice.one_in(2) {
                self.unread.rescheduled(&id);
            } else {
                // Nothing tells of it but a row.
                let at = self.any_instant();
                self.insert(&id, at);
            }
        }
        id
    }

    fn any_instant(&mut self) -> Timestamp {
        let dice = &mut self.dice;
        let back = match dice.below(10) {
            0 => dice.within(0..60 * DAY_US),
            1 => dice.within(-3 * HOUR_US..0),
            2 | 3 => dice.within(0..16 * DAY_US),
            4 => dice.within(0..40) * HOUR_US, // often the same instant, often a cell's edge
            _ => dice.within(0..3 * DAY_US),
        };
        self.now.plus(-back)
    }

    fn any_status(&mut self) -> Status {
        if self.dice.below(5) < 2 {
            Status::Inactive
        } else {
            Status::Active
        }
    }

    fn insert(&mut self, id: &str, at: Timestamp) {
        let status = self.any_status();
        if let Some(store) = self.raw.stores.get_mut(id) {
            store.observations.insert(at, status);
            self.unread.rows.insert((id.to_owned(), at));
        }
    }

    fn insert_rows(&mut self) {
        for _ in 0..self.dice.within(1..16) {
            let id = self.any_store();
            let at = self.any_instant();
            self.insert(&id, at);
        }
    }

    /// What a poller does: a run of rows in order, each near the last.
    fn live_rows(&mut self) {
        let id = self.any_store();
        let mut at = self.now.plus(-self.dice.within(0..2 * DAY_US));
        while at < self.now {
            self.insert(&id, at);
            at = at.plus(self.dice.within(MINUTE_US..4 * HOUR_US));
            if self.dice.is_spent() {
                break;
            }
        }
    }

    fn delete_rows(&mut self) {
        let id = self.any_store();
        let (a, b) = (self.any_instant(), self.any_instant());
        let Some(store) = self.raw.stores.get_mut(&id) else {
            return;
        };
        let gone: Vec<_> = store
            .observations
            .range(a.min(b)..=a.max(b))
            .map(|(&at, _)| at)
            .collect();
        store.observations.retain(|at, _| gone.binary_search(at).is_err());
        if let (Some(&from), Some(&to)) = (gone.first(), gone.last()) {
            self.unread.gone(&id, from, to);
        }
    }

    fn change_schedule(&mut self) {
        let id = self.any_store();
        let Some(store) = self.raw.stores.get_mut(&id) else {
            return;
        };
        store.reschedule(&mut self.dice);
        self.unread.rescheduled(&id);
    }

    fn change_closures(&mut self) {
        let id = self.any_store();
        let Some(store) = self.raw.stores.get_mut(&id) else {
            return;
        };
        store.close(&mut self.dice, self.now);
        self.checks.closures += 1;
        self.unread.rescheduled(&id);
    }

    fn change_closures_of_all(&mut self) {
        self.raw.close_all(&mut self.dice, self.now);
        self.checks.closures += 1;
        self.unread.everything = true;
    }

    fn remove_store(&mut self) {
        let id = self.any_store();
        self.raw.stores.remove(&id);
        self.unread.rescheduled(&id);
    }

    fn pass_time(&mut self) {
        let span = *self.dice.pick(&[2 * HOUR_US, 3 * DAY_US]);
        self.now = self.now.plus(self.dice.within(0..span));
    }

    /// Brings the rollup to the present. A snapshot that is held meanwhile stays as it was.
    fn read(&mut self) {
        let held = self.dice.one_in(4).then(|| {
            let snapshot = self.rollup.snapshot();
            (check::render(&snapshot), snapshot)
        });
        let chunk_rows = *self.dice.pick(&[usize::MAX, 5, 1]);
        let due = self.rollup.set_now(self.now);
        if self.trace {
            println!("  read {due:?} {:?}", self.unread);
        }
        if self.unread.everything {
            self.rebuild();
        } else {
            self.unread.apply(due, &self.raw, &mut self.rollup, chunk_rows);
        }
        let read = std::mem::take(&mut self.unread);
        if self.dice.one_in(4) {
            self.unread.rows.clone_from(&read.rows); // they come twice
        }
        self.unflushed.absorb(read);
        if let Some((before, snapshot)) = held {
            assert_eq!(
                check::render(&snapshot),
                before,
                "a snapshot that is held never changes"
            );
        }
    }

    fn flush(&mut self) {
        let bound = self.rollup.prune();
        let dirty = self.rollup.take_dirty();
        if std::mem::take(&mut self.replace) {
            self.shelf = Shelf::default();
        }
        self.shelf.apply(&dirty);
        if let Some(bound) = bound {
            self.shelf.drop_before(bound);
        }
        self.unflushed = Delta::default();
    }

    /// As after kill -9: memory is gone, the shelf is where the last flush left it, what came since comes again.
    fn restart(&mut self) {
        self.rollup = self.shelf.restore(self.limits, self.now, self.raw.default_schedule());
        self.replace = false;
        let read = std::mem::take(&mut self.unflushed);
        let unread = std::mem::replace(&mut self.unread, read);
        self.unread.absorb(unread);
        self.checks.restarts += 1;
        self.read();
    }

    /// As when much changed at once: from nothing but the raw rows.
    fn rebuild(&mut self) {
        let chunk_rows = *self.dice.pick(&[usize::MAX, 7]);
        self.rollup = self.built(self.limits, chunk_rows);
        self.replace = true;
        self.unflushed.absorb(std::mem::take(&mut self.unread));
    }

    fn built(&self, limits: Limits, chunk_rows: usize) -> Rollup {
        let mut rollup = Rollup::new(limits, self.now);
        rollup.set_default_schedule(self.raw.default_schedule());
        let mut rows = Delta::default();
        for (id, store) in &self.raw.stores {
            rollup.enroll(id, &self.raw.schedule(store));
            rows.rows.extend(store.observations.keys().map(|&at| (id.clone(), at)));
        }
        rows.apply(Vec::new(), &self.raw, &mut rollup, chunk_rows);
        rollup
    }
}
