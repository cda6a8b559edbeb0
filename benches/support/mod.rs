//! What the benches share: a made-up fleet, a rollup that knows its stores, and its feed going on.

#![allow(dead_code, reason = "each bench uses a part")]

use std::time::Duration;

use criterion::{Criterion, PlottingBackend};
use uptally::fleet::{Fleet, FleetOptions, FleetStore, Poll};
use uptally::rollup::{Limits, Observation, Rollup, StoreNo};
use uptally::schedule::{DEFAULT_ZONE, Interval, Schedule};

/// A row as [`Rollup::apply`] takes it.
pub type Row = (StoreNo, Observation);

/// Rows that a history is applied in at a time.
const HISTORY_BATCH_ROWS: usize = 50_000;

/// Numbers of stores to measure at: that of the real data, and many. `LARGE=1` in the environment adds a million, which
/// takes some gigabytes and minutes more.
pub fn sizes() -> Vec<u32> {
    let large = std::env::var_os("LARGE").is_some().then_some(1_000_000);
    [13_559, 100_000].into_iter().chain(large).collect()
}

/// Few samples, so that all benches together take about three minutes.
pub fn criterion() -> Criterion {
    Criterion::default()
        .plotting_backend(PlottingBackend::Plotters)
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args()
}

/// A fleet of the real data's shape: hourly polls of which 29 % are missing.
pub fn fleet(stores: u32, days: u32) -> Fleet {
    Fleet::generate(FleetOptions {
        stores,
        days,
        ..FleetOptions::default()
    })
}

/// A fleet under way.
pub struct Live<'a> {
    pub rollup: Rollup,
    /// The fleet's stores, by index, as the rollup numbers them.
    numbers: Vec<StoreNo>,
    feed: Box<dyn Iterator<Item = Poll> + 'a>,
}

impl<'a> Live<'a> {
    /// The fleet's stores without observations, numbered in the order of their ids as after a rebuild.
    pub fn idle(fleet: &'a Fleet) -> Self {
        let mut rollup = Rollup::new(Limits::default(), fleet.options().end);
        let mut stores: Vec<_> = fleet.stores().iter().collect();
        stores.sort_unstable_by_key(|store| &store.store_id);
        for store in stores {
            rollup.enroll(&store.store_id, &schedule(store));
        }
        let number = |store: &FleetStore| rollup.find(&store.store_id).unwrap();
        Live {
            numbers: fleet.stores().iter().map(number).collect(),
            rollup,
            feed: Box::new(fleet.live()),
        }
    }

    /// With the backfill applied and nothing left to flush.
    pub fn started(fleet: &'a Fleet) -> Self {
        let mut live = Live::idle(fleet);
        let mut polls = fleet.backfill();
        loop {
            let polls = polls.by_ref().take(HISTORY_BATCH_ROWS);
            let mut rows: Vec<_> = polls.map(|poll| live.row(poll)).collect();
            if rows.is_empty() {
                break;
            }
            assert!(live.rollup.apply(&mut rows).is_empty());
        }
        live.rollup.take_dirty();
        live
    }

    pub fn row(&self, poll: Poll) -> Row {
        let Poll { at, store, status } = poll;
        (self.numbers[store as usize], Observation { at, status })
    }

    /// The next rows of the feed, in order of time and so in random order of stores. The clock follows;
    /// what was dirty counts as flushed.
    pub fn next_rows(&mut self, count: usize) -> Vec<Row> {
        let polls: Vec<_> = self.feed.by_ref().take(count).collect();
        let now = polls.last().unwrap().at;
        assert!(self.rollup.set_now(now).is_empty());
        self.rollup.take_dirty();
        polls.into_iter().map(|poll| self.row(poll)).collect()
    }
}

fn schedule(store: &FleetStore) -> Schedule {
    let hours = store.hours.iter();
    let hours = hours.map(|h| Interval::new(h.day, h.start_us, h.end_us).unwrap());
    Schedule::new(store.zone.unwrap_or(DEFAULT_ZONE), hours.collect())
}
