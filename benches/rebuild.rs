//! A rollup from raw rows in memory: eight days of 13,559 stores, 1.85 million rows in no order.
//!
//! The target, at most 4 times a binary COPY of the table, is of the whole with Postgres; this is the
//! part of it that is ours. `numbered` sorts and applies, `named` looks every row's store up by its id first.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

mod support;

use std::time::Duration;

use criterion::{BatchSize, SamplingMode, Throughput};
use support::{Live, Row};
use uptally::fleet::Poll;
use uptally::rollup::{Observation, Rollup};

/// As the feed does it.
const APPLY_ROWS: usize = 50_000;

fn main() {
    let mut criterion = support::criterion();
    let fleet = support::fleet(13_559, 8);
    let mut polls: Vec<Poll> = fleet.backfill().collect();
    fastrand::Rng::with_seed(1).shuffle(&mut polls);
    let mut group = criterion.benchmark_group("rebuild");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Elements(polls.len() as u64));
    group.bench_function("numbered", |b| {
        let live = Live::idle(&fleet);
        let rows: Vec<Row> = polls.iter().map(|&poll| live.row(poll)).collect();
        b.iter_batched(
            || (Live::idle(&fleet).rollup, rows.clone()),
            |(mut rollup, mut rows)| {
                sort_and_apply(&mut rollup, &mut rows);
                (rollup, rows)
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("named", |b| {
        let stores = fleet.stores();
        b.iter_batched(
            || Live::idle(&fleet).rollup,
            |mut rollup| {
                let row = |poll: &Poll| {
                    let id = &stores[poll.store as usize].store_id;
                    let (at, status) = (poll.at, poll.status);
                    (rollup.intern(id), Observation { at, status })
                };
                let mut rows: Vec<Row> = polls.iter().map(row).collect();
                sort_and_apply(&mut rollup, &mut rows);
                (rollup, rows)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    criterion.final_summary();
}

fn sort_and_apply(rollup: &mut Rollup, rows: &mut [Row]) {
    rows.sort_unstable();
    for chunk in rows.chunks_mut(APPLY_ROWS) {
        assert!(rollup.apply(chunk).is_empty());
    }
}
