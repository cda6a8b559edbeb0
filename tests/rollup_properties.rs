//! The rollup against the oracle, over generated histories.
//!
//! Each case is a small fleet and a random run of what can happen to it: rows in any order, in any
//! batches, twice, late, dated in the future, corrected, deleted; hours and zones changed; flushes,
//! restarts from what was flushed, time passing. After every few steps the report of a random instant must be
//! the oracle's byte for byte, and the flushed cells must be the oracle's to the microsecond.
//!
//! `SEED=n cargo test --test rollup_properties` repeats a run from a seed, `CASES=n` sets how many.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may")]

use std::collections::BTreeMap;

use chrono_tz::Tz;
use uptally::oracle::{self, RawInterval, RawStore};
use uptally::report::csv;
use uptally::rollup::{Dirty, Limits, Observation, ReadBack, Rollup, StoreNo, StoreRow};
use uptally::schedule::{DEFAULT_ZONE, Interval, Schedule};
use uptally::store::Status;
use uptally::time::{DAY_US, HOUR_US, MINUTE_US, SECOND_US, Span, Timestamp};
use uptally::window::{ClosedTime, Windows};

const ZONES: [Tz; 14] = [
    Tz::America__Chicago,
    Tz::America__New_York,
    Tz::America__Phoenix,
    Tz::Asia__Beirut,
    Tz::Asia__Kolkata,
    Tz::Asia__Kathmandu,
    Tz::Australia__Lord_Howe,
    Tz::Pacific__Apia,
    Tz::Africa__Casablanca,
    Tz::America__Sao_Paulo,
    Tz::America__Havana,
    Tz::America__Caracas,
    Tz::Pacific__Chatham,
    Tz::Atlantic__Azores,
];

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

#[derive(Default)]
struct RawTables {
    stores: BTreeMap<String, RawRows>,
}

#[derive(Clone)]
struct RawRows {
    zone: Tz,
    hours: Vec<RawInterval>,
    observations: BTreeMap<Timestamp, Status>,
}

/// What the ledger would hold: every flush applied in the order that `Dirty` documents.
#[derive(Default)]
struct Shelf {
    schedules: BTreeMap<u32, Schedule>,
    open: BTreeMap<(u32, Timestamp), Vec<i64>>,
    stores: BTreeMap<StoreNo, StoreRow>,
    cells: BTreeMap<(StoreNo, Timestamp), u32>,
    covers_from: Option<Timestamp>,
    truncated: bool,
    newest: Option<Timestamp>,
}

impl Shelf {
    fn apply(&mut self, dirty: &Dirty) {
        for new in &dirty.schedules {
            self.schedules.insert(new.number, (*new.schedule).clone());
        }
        for day in &dirty.open_days {
            let twice = self.open.insert((day.schedule, day.day_start), day.open_us.clone());
            assert!(twice.is_none(), "a day of opening time is written once");
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

    fn restore(&self, limits: Limits, now: Timestamp, raw: &RawTables) -> Rollup {
        let mut rollup = Rollup::new(limits, now);
        let from = rollup.restore_bounds(self.covers_from, self.truncated, self.newest);
        for (&number, schedule) in &self.schedules {
            rollup.restore_schedule(number, schedule);
            let days = self.open.range((number, Timestamp::MIN)..=(number, Timestamp::MAX));
            let (mut first, mut last) = (None, None);
            for (&(_, day), _) in days {
                first = first.or(Some(day));
                last = Some(day);
            }
            if let (Some(first), Some(last)) = (first, last) {
                rollup.restore_open_days(number, first, last);
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
        let due = rollup.set_now(now);
        serve(&mut rollup, raw, due);
        rollup
    }
}

fn serve(rollup: &mut Rollup, raw: &RawTables, read_backs: Vec<ReadBack>) {
    for read_back in read_backs {
        let rows = &raw.stores[rollup.id(read_back.store).unwrap()].observations;
        let before = rows.range(..read_back.read_from).next_back();
        let until = if read_back.to_the_end {
            Timestamp::MAX
        } else {
            let next = rows.range(read_back.to.plus(1)..).next();
            next.map_or(Timestamp::MAX, |(at, _)| at.plus(HOUR_US))
        };
        let observations: Vec<_> = before
            .into_iter()
            .chain(rows.range(read_back.read_from..until))
            .map(|(&at, &status)| Observation { at, status })
            .collect();
        rollup.splice(read_back, &observations);
    }
}

fn schedule_of(rows: &RawRows) -> Schedule {
    let intervals = rows
        .hours
        .iter()
        .map(|h| Interval::new(h.day, h.start_us, h.end_us).unwrap());
    Schedule::new(rows.zone, intervals.collect())
}

fn random_hours(rng: &mut fastrand::Rng) -> Vec<RawInterval> {
    if rng.f32() < 0.15 {
        return Vec::new();
    }
    let clock = |rng: &mut fastrand::Rng| match rng.u8(..4) {
        0 => rng.i64(0..24) * HOUR_US,
        1 => rng.i64(0..48) * HOUR_US / 2,
        2 => rng.i64(0..24 * 60) * MINUTE_US,
        _ => rng.i64(0..24 * 3600) * SECOND_US,
    };
    let end = |rng: &mut fastrand::Rng| match rng.u8(..5) {
        0 => DAY_US - MINUTE_US,
        1 => DAY_US - SECOND_US,
        2 => DAY_US,
        _ => clock(rng),
    };
    (0..rng.usize(1..12))
        .map(|_| RawInterval {
            day: rng.u8(0..7),
            start_us: clock(rng),
            end_us: end(rng),
        })
        .collect()
}

fn random_status(rng: &mut fastrand::Rng) -> Status {
    if rng.f32() < 0.4 {
        Status::Inactive
    } else {
        Status::Active
    }
}

struct World {
    rng: fastrand::Rng,
    raw: RawTables,
    shelf: Shelf,
    rollup: Rollup,
    limits: Limits,
    now: Timestamp,
    reports: u32,
    before_memory: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let now: Timestamp = rng.choice(ANCHORS).unwrap().parse().unwrap();
        let now = now.plus(rng.i64(-3..4) * DAY_US + rng.i64(0..DAY_US));
        let retention_us = if rng.bool() { 400 * DAY_US } else { 30 * DAY_US };
        let limits = Limits {
            retention_us,
            ..Limits::default()
        };
        World {
            raw: RawTables::default(),
            shelf: Shelf::default(),
            rollup: Rollup::new(limits, now),
            limits,
            now,
            reports: 0,
            before_memory: 0,
            rng,
        }
    }

    /// An id of the fleet; new ones appear until there are six.
    fn any_store(&mut self) -> (String, StoreNo) {
        let id = format!("{}store-{}", if self.rng.bool() { "" } else { "=" }, self.rng.u8(0..3));
        if !self.raw.stores.contains_key(&id) {
            let rows = RawRows {
                zone: DEFAULT_ZONE,
                hours: Vec::new(),
                observations: BTreeMap::new(),
            };
            self.raw.stores.insert(id.clone(), rows);
        }
        let store = self.rollup.intern(&id);
        (id, store)
    }

    fn any_instant(&mut self) -> Timestamp {
        let rng = &mut self.rng;
        let back = match rng.u8(..10) {
            0 => rng.i64(0..60 * DAY_US),
            1 => rng.i64(-3 * HOUR_US..0),
            2 | 3 => rng.i64(0..16 * DAY_US),
            4 => rng.i64(0..40) * HOUR_US, // often the same instant, often a cell's edge
            _ => rng.i64(0..3 * DAY_US),
        };
        self.now.plus(-back)
    }

    fn step(&mut self) {
        let kind = self.rng.u8(..20);
        if std::env::var_os("TRACE").is_some() {
            println!(
                "{kind:2} now {} newest {:?} {:?}",
                self.now,
                self.rollup.newest(),
                self.rollup.covers_from()
            );
        }
        match kind {
            0..=8 => self.insert_rows(),
            9 | 10 => self.live_rows(),
            11 => self.delete_rows(),
            12 | 13 => self.change_schedule(),
            14 => self.remove_store(),
            15 | 16 => self.flush(),
            17 => self.restart(),
            _ => self.pass_time(),
        }
    }

    fn apply(&mut self, mut batch: Vec<(StoreNo, Observation)>) {
        self.rng.shuffle(&mut batch);
        // Sometimes a row comes twice, in one batch or the next.
        if let Some(&again) = batch.first() {
            batch.push(again);
        }
        let held_while_writing = self.rng.bool().then(|| self.rollup.snapshot());
        let late = self.rollup.apply(&mut batch);
        serve(&mut self.rollup, &self.raw, late);
        drop(held_while_writing);
    }

    fn insert_rows(&mut self) {
        let mut batch = BTreeMap::new();
        for _ in 0..self.rng.usize(1..30) {
            let (id, store) = self.any_store();
            let at = self.any_instant();
            let status = random_status(&mut self.rng);
            self.raw.stores.get_mut(&id).unwrap().observations.insert(at, status);
            batch.insert((store, at), status);
        }
        self.apply(
            batch
                .into_iter()
                .map(|((store, at), status)| (store, Observation { at, status }))
                .collect(),
        );
    }

    /// What a poller does: a run of rows in order, each near the last.
    fn live_rows(&mut self) {
        let (id, store) = self.any_store();
        let rows = &mut self.raw.stores.get_mut(&id).unwrap().observations;
        let mut batch = Vec::new();
        let mut at = self.now.plus(-self.rng.i64(0..2 * DAY_US));
        while at < self.now {
            let status = random_status(&mut self.rng);
            rows.insert(at, status);
            batch.push((store, Observation { at, status }));
            at = at.plus(self.rng.i64(MINUTE_US..3 * HOUR_US));
        }
        self.apply(batch);
    }

    fn delete_rows(&mut self) {
        let (id, store) = self.any_store();
        let (a, b) = (self.any_instant(), self.any_instant());
        let rows = &mut self.raw.stores.get_mut(&id).unwrap().observations;
        let gone: Vec<_> = rows.range(a.min(b)..=a.max(b)).map(|(&at, _)| at).collect();
        for at in &gone {
            rows.remove(at);
        }
        if let (Some(&from), Some(&to)) = (gone.first(), gone.last()) {
            let read_back = self.rollup.read_back(store, from, to).unwrap();
            serve(&mut self.rollup, &self.raw, vec![read_back]);
        }
    }

    fn change_schedule(&mut self) {
        let (id, store) = self.any_store();
        let hours = random_hours(&mut self.rng);
        let rows = self.raw.stores.get_mut(&id).unwrap();
        rows.zone = *self.rng.choice(&ZONES).unwrap();
        rows.hours = hours;
        if self.rng.u8(..4) == 0 {
            rows.observations.pop_last(); // gone in the same delta
        }
        let all: Vec<_> = rows
            .observations
            .iter()
            .map(|(&at, &status)| Observation { at, status })
            .collect();
        self.rollup.reschedule(store, &schedule_of(&self.raw.stores[&id]), &all);
    }

    fn remove_store(&mut self) {
        let (id, store) = self.any_store();
        self.raw.stores.remove(&id);
        self.rollup.remove(store);
    }

    fn flush(&mut self) {
        let bound = self.rollup.prune();
        let dirty = self.rollup.take_dirty();
        self.shelf.apply(&dirty);
        if let Some(bound) = bound {
            self.shelf.cells.retain(|&(_, at), _| at >= bound);
        }
        self.check_cells();
    }

    /// As after kill -9: memory is gone, the shelf is where the last flush left it, the delta comes again.
    fn restart(&mut self) {
        if self.rng.bool() {
            self.flush(); // else what came after the last flush is read again from raw
            self.rollup = self.shelf.restore(self.limits, self.now, &self.raw);
        }
    }

    fn pass_time(&mut self) {
        let span = if self.rng.bool() { 2 * HOUR_US } else { 3 * DAY_US };
        self.now = self.now.plus(self.rng.i64(0..span));
        let due = self.rollup.set_now(self.now);
        serve(&mut self.rollup, &self.raw, due);
    }

    /// The rows that are counted at this moment: not those dated in the future.
    fn counted(&self) -> Vec<RawStore> {
        let limit = self.now.plus(uptally::rollup::FUTURE_MAX_US);
        self.raw
            .stores
            .iter()
            .map(|(id, rows)| RawStore {
                id: id.clone(),
                zone: rows.zone,
                hours: rows.hours.clone(),
                observations: rows
                    .observations
                    .range(..limit)
                    .map(|(&at, &status)| (at, status))
                    .collect(),
            })
            .collect()
    }

    fn check_report(&mut self) {
        let snapshot = self.rollup.snapshot();
        let stores = self.counted();
        let newest = stores.iter().flat_map(|s| &s.observations).map(|&(at, _)| at).max();
        assert_eq!(snapshot.newest(), newest, "newest");
        let back = self
            .rng
            .i64(0..self.rng.clone().choice([HOUR_US, DAY_US, 20 * DAY_US]).unwrap());
        let as_of = match self.rng.u8(..3) {
            0 => newest.unwrap_or(self.now),
            1 => self.now,
            _ => self.now.plus(-back),
        };
        let windows = if self.rng.bool() {
            Windows::Calendar
        } else {
            Windows::Rolling
        };
        let closed = if self.rng.bool() {
            ClosedTime::Uptime
        } else {
            ClosedTime::Excluded
        };
        if as_of < snapshot.earliest_as_of() {
            return;
        }
        let Ok(report) = csv::render(&snapshot, as_of, windows, closed) else {
            // Before what memory holds; only a deletion of the newest rows brings `latest` there.
            self.before_memory += 1;
            return;
        };
        self.reports += 1;
        let report = String::from_utf8(report.to_vec()).unwrap();
        let expected = oracle::report_csv(&stores, as_of, windows, closed);
        if report != expected {
            for (a, b) in report.lines().zip(expected.lines()).filter(|(a, b)| a != b) {
                println!("as of {as_of} {windows} {closed}\n  report {a}\n  oracle {b}");
            }
            panic!("the report differs from the oracle's");
        }
    }

    fn check_cells(&self) {
        let stores = self.counted();
        assert_eq!(self.shelf.stores.len(), stores.len(), "stores in the ledger");
        let (Some(from), Some(newest)) = (self.shelf.covers_from, self.shelf.newest) else {
            return;
        };
        for (row, store) in self
            .shelf
            .stores
            .values()
            .map(|row| (row, stores.iter().find(|s| s.id == row.id).unwrap()))
        {
            let schedule = &self.shelf.schedules[&row.schedule];
            let grid = schedule.zone().grid();
            let phase_us = oracle::grid_phase_us(store.zone);
            for (at, open_us, down_us) in oracle::cells(store, grid.cell_us(), phase_us, Span::new(from, newest)) {
                let cell = grid.cell_of(at);
                let day = grid.cell_start(grid.block_first(cell));
                let open =
                    &self.shelf.open[&(row.schedule, day)][usize::try_from(cell - grid.block_first(cell)).unwrap()];
                assert_eq!(*open, open_us, "opening time of {} at {at}", store.id);
                let kept = self.shelf.cells.get(&(row.store, at)).copied().unwrap_or(0);
                let down = match (row.settled_to, row.last) {
                    (Some(settled_to), Some(last)) if at >= settled_to => {
                        assert_eq!(
                            kept, 0,
                            "nothing is kept past the last observation: {} {at} {row:?}",
                            store.id
                        );
                        if last.status == Status::Inactive { *open } else { 0 }
                    }
                    _ => i64::from(kept),
                };
                assert_eq!(down, down_us, "downtime of {} at {at}", store.id);
            }
        }
    }
}

/// Prints how to repeat a case that fails.
struct Repeat(u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "repeat with: SEED={} CASES=1 cargo test --test rollup_properties",
                self.0
            );
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn any_history_gives_the_oracles_numbers() {
    let first = number("SEED", fastrand::u64(..1 << 40));
    let cases = number("CASES", 60);
    println!("SEED={first} CASES={cases}");
    let (mut reports, mut before_memory) = (0, 0);
    for seed in first..first + cases {
        let _repeat = Repeat(seed);
        let mut world = World::new(seed);
        for step in 0..40 {
            world.step();
            if step % 4 == 3 {
                world.check_report();
            }
        }
        world.flush();
        reports += world.reports;
        before_memory += world.before_memory;
    }
    println!("{reports} reports compared, {before_memory} before what memory holds");
    assert!(reports > 2 * before_memory, "most reports are of what memory holds");
}
