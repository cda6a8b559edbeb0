//! Bucket updates in memory on one core, and what a snapshot costs the writer.
//!
//! Targets: 5 million rows/s in order at 13,559 stores; a snapshot in microseconds whatever the number of
//! stores. What is to be flushed is collected, as in the daemon; turning it into rows is not in the time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

mod support;

use std::cell::{LazyCell, RefCell};
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use support::{Live, Row};
use uptally::rollup::{Observation, ReadBack, Rollup};
use uptally::schedule::{DEFAULT_ZONE, Schedule, WeeklyHours};
use uptally::store::Status;
use uptally::time::HOUR_US;

/// Days of history, by number of stores: so that setting up takes seconds.
fn days(stores: u32) -> u32 {
    match stores {
        0..50_000 => 8,
        50_000..500_000 => 3,
        _ => 1,
    }
}

fn main() {
    let mut criterion = support::criterion();
    for stores in support::sizes() {
        let fleet = support::fleet(stores, days(stores));
        let live = LazyCell::new(|| RefCell::new(Live::started(&fleet)));
        in_order(&mut criterion, stores, &live);
        snapshot(&mut criterion, stores, &live);
        boundary(&mut criterion, stores, &live);
    }
    late_in_memory(&mut criterion);
    late_beyond_memory(&mut criterion);
    criterion.final_summary();
}

/// A fleet that is set up when the first bench that is asked for needs it.
type Shared<'a, F> = LazyCell<RefCell<Live<'a>>, F>;

/// Rows in order of time, so that stores come at random. Targets: 5 million rows/s at 13,559 stores, 1.5 million at
/// 1,000,000. Batches of 1,000 are a live feed; 10,000 is an hour of 13,559 stores, 50,000 what the feed applies at a
/// time at most.
fn in_order<'a, F: FnOnce() -> RefCell<Live<'a>>>(criterion: &mut Criterion, stores: u32, live: &Shared<'a, F>) {
    let mut group = criterion.benchmark_group("rollup/in_order");
    group.sampling_mode(SamplingMode::Flat);
    for batch in [1_000, 10_000, 50_000] {
        group.throughput(Throughput::Elements(50_000));
        group.bench_function(BenchmarkId::new(stores.to_string(), batch), |b| {
            let mut live = live.borrow_mut();
            b.iter_custom(|iterations| {
                let runs = (0..iterations).map(|_| {
                    let mut rows = live.next_rows(50_000);
                    let started = Instant::now();
                    for batch in rows.chunks_mut(batch) {
                        assert!(live.rollup.apply(batch).is_empty());
                    }
                    started.elapsed()
                });
                runs.sum()
            });
        });
    }
    group.finish();
}

/// One row in five arrives two hours late: it goes in between rows that memory holds. No target of its own;
/// the ratio to rows in order is what lateness costs.
fn late_in_memory(criterion: &mut Criterion) {
    const LATE: usize = 2_000;
    const STORES: u32 = 13_559;
    let (stores, fleet) = (STORES, support::fleet(STORES, days(STORES)));
    let mut group = criterion.benchmark_group("rollup/late_in_memory");
    group.throughput(Throughput::Elements(LATE as u64));
    group.bench_function(stores.to_string(), |b| {
        let mut live = Live::started(&fleet);
        let mut hour = 0;
        // An hour of rows but for the late ones. Each store is late in every fourth hour, so that newer rows
        // of it are there before.
        let mut next_hour = |live: &mut Live<'_>| -> Vec<Row> {
            hour += 1;
            let rows = live.next_rows(9_600).into_iter();
            let (mut late, mut on_time): (Vec<_>, Vec<_>) = rows.partition(|row| (row.0 + hour) % 4 == 0);
            on_time.extend(late.drain(LATE..));
            live.rollup.apply(&mut on_time);
            late
        };
        let mut held_back = VecDeque::from([next_hour(&mut live), next_hour(&mut live)]);
        b.iter_custom(|iterations| {
            let runs = (0..iterations).map(|_| {
                held_back.push_back(next_hour(&mut live));
                let mut late = held_back.pop_front().unwrap();
                let started = Instant::now();
                assert!(live.rollup.apply(&mut late).is_empty());
                started.elapsed()
            });
            runs.sum()
        });
    });
    group.finish();
}

/// A row from 60 observations back, long out of memory: its stretch is recomputed from the raw rows, which
/// lie here in memory. The ratio to rows in order is what an event that late costs beside its query.
fn late_beyond_memory(criterion: &mut Criterion) {
    const LATE: usize = 1_000;
    const STORES: u32 = 13_559;
    let (stores, fleet) = (STORES, support::fleet(STORES, days(STORES)));
    let mut group = criterion.benchmark_group("rollup/late_beyond_memory");
    group.throughput(Throughput::Elements(LATE as u64));
    group.bench_function(stores.to_string(), |b| {
        let Live { mut rollup, .. } = Live::started(&fleet);
        let live = Live::idle(&fleet);
        let mut raw: Vec<Vec<Observation>> = vec![Vec::new(); stores as usize];
        for poll in fleet.backfill() {
            let (store, observation) = live.row(poll);
            raw[store as usize].push(observation);
        }
        let mut rng = fastrand::Rng::with_seed(1);
        b.iter_custom(|iterations| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..iterations {
                let mut numbers = rng.choose_multiple(0..stores, LATE);
                rng.shuffle(&mut numbers);
                let row = |&store: &u32| (store, raw[store as usize][raw[store as usize].len() - 60]);
                let mut late: Vec<Row> = numbers.iter().map(row).collect();
                let started = Instant::now();
                let read_backs = rollup.apply(&mut late);
                assert_eq!(read_backs.len(), LATE);
                for read_back in read_backs {
                    let observations = asked_for(&raw[read_back.store as usize], read_back);
                    rollup.splice(read_back, observations);
                }
                elapsed += started.elapsed();
                rollup.take_dirty();
            }
            elapsed
        });
    });
    group.finish();
}

/// What a read-back asks for, of all rows of a store.
fn asked_for(raw: &[Observation], read_back: ReadBack) -> &[Observation] {
    let from = raw.partition_point(|o| o.at < read_back.read_from).saturating_sub(1);
    let after = raw.partition_point(|o| o.at <= read_back.to);
    let to = raw.get(after).filter(|_| !read_back.to_the_end);
    let to = to.map_or(raw.len(), |next| raw.partition_point(|o| o.at < next.at.plus(HOUR_US)));
    &raw[from..to]
}

/// Target: microseconds for the writer, whatever the number of stores. Three parts: taking one, taking one
/// after a store appeared, and applying a batch of 1,000 rows while one is held (its ratio to
/// `in_order` with that batch is what the copies of shared leaves cost).
fn snapshot<'a, F: FnOnce() -> RefCell<Live<'a>>>(criterion: &mut Criterion, stores: u32, live: &Shared<'a, F>) {
    let mut group = criterion.benchmark_group("rollup/snapshot");
    group.bench_function(BenchmarkId::new("take", stores), |b| {
        let mut live = live.borrow_mut();
        b.iter_with_large_drop(|| live.rollup.snapshot());
    });
    group.bench_function(BenchmarkId::new("apply_1000_while_held", stores), |b| {
        let mut live = live.borrow_mut();
        b.iter_custom(|iterations| {
            let batches = (0..iterations).map(|_| {
                let mut rows = live.next_rows(1_000);
                let held = live.rollup.snapshot();
                let started = Instant::now();
                live.rollup.apply(&mut rows);
                let elapsed = started.elapsed();
                drop(black_box(held));
                elapsed
            });
            batches.sum()
        });
    });
    group.bench_function(BenchmarkId::new("take_after_new_store", stores), |b| {
        let mut live = live.borrow_mut();
        b.iter_custom(|iterations| (0..iterations).map(|_| after_new_store(&mut live.rollup)).sum());
    });
    group.finish();
}

/// Time passes: the first row of a new hour, a snapshot for a report and what a flush takes. Target: 100 ms at a
/// million stores. A new day adds a day of opening time of every schedule to the flush; after nine days the openings
/// of every schedule are resolved anew.
fn boundary<'a, F: FnOnce() -> RefCell<Live<'a>>>(criterion: &mut Criterion, stores: u32, live: &Shared<'a, F>) {
    let mut group = criterion.benchmark_group("rollup/boundary");
    group.sampling_mode(SamplingMode::Flat);
    for (name, step_us) in [
        ("hour", HOUR_US),
        ("day", 24 * HOUR_US),
        ("nine_days", 9 * 24 * HOUR_US),
    ] {
        group.bench_function(BenchmarkId::new(name, stores), |b| {
            let mut live = live.borrow_mut();
            let rollup = &mut live.rollup;
            b.iter_custom(|iterations| {
                let boundaries = (0..iterations).map(|_| {
                    let at = rollup.newest().unwrap().plus(step_us);
                    rollup.set_now(at);
                    let status = Status::Active;
                    let started = Instant::now();
                    rollup.apply(&mut [(0, Observation { at, status })]);
                    let snapshot = rollup.snapshot();
                    let dirty = rollup.take_dirty();
                    let elapsed = started.elapsed();
                    drop(black_box((snapshot, dirty)));
                    elapsed
                });
                boundaries.sum()
            });
        });
    }
    group.finish();
}

/// Time to add a store and take a snapshot while the one before is held.
fn after_new_store(rollup: &mut Rollup) -> Duration {
    let held = rollup.snapshot();
    let id = format!("new-{}", rollup.stores());
    let started = Instant::now();
    rollup.enroll(&id, &Schedule::new(DEFAULT_ZONE, WeeklyHours::always_open()));
    let new = rollup.snapshot();
    let elapsed = started.elapsed();
    drop(black_box((held, new)));
    elapsed
}
