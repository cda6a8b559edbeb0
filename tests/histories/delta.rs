//! What changed in the input tables since some point, applied as the feed applies it (`Reading::apply`).

use std::collections::{BTreeMap, BTreeSet};

use uptally::rollup::{Observation, ReadBack, Rollup, StoreNo};
use uptally::time::Timestamp;

use super::RawTables;

/// Keys only: what they stand for is read from the tables when it is applied, as by a snapshot delta.
#[derive(Default, Debug)]
pub struct Delta {
    /// Rows that came or changed.
    pub rows: BTreeSet<(String, Timestamp)>,
    stretches: BTreeMap<String, (Timestamp, Timestamp)>,
    rescheduled: BTreeSet<String>,
    /// The rollup is to be built from the raw rows.
    pub everything: bool,
}

impl Delta {
    /// Rows of a store went away, these being the first and the last.
    pub fn gone(&mut self, id: &str, from: Timestamp, to: Timestamp) {
        let stretch = self.stretches.entry(id.to_owned()).or_insert((from, to));
        *stretch = (stretch.0.min(from), stretch.1.max(to));
    }

    /// A store's hours, closures or zone changed.
    pub fn rescheduled(&mut self, id: &str) {
        self.rescheduled.insert(id.to_owned());
    }

    /// Takes a later delta in.
    pub fn absorb(&mut self, later: Delta) {
        self.rows.extend(later.rows);
        self.rescheduled.extend(later.rescheduled);
        self.everything |= later.everything;
        for (id, (from, to)) in later.stretches {
            self.gone(&id, from, to);
        }
    }

    /// Brings a rollup that has everything before this delta to the tables as they are.
    /// `due`: what the rollup's clock asks for.
    pub fn apply(&self, due: Vec<ReadBack>, raw: &RawTables, rollup: &mut Rollup, chunk_rows: usize) {
        let mut rows = Vec::new();
        for (id, at) in &self.rows {
            let status = raw.stores.get(id).and_then(|store| store.observations.get(at));
            rows.extend(status.map(|&status| (rollup.intern(id), Observation { at: *at, status })));
        }
        rows.sort_unstable();
        let mut read_backs = due;
        for chunk in rows.chunks_mut(chunk_rows) {
            read_backs.extend(rollup.apply(chunk));
        }
        for id in self.stretches.keys().chain(&self.rescheduled) {
            if let Some(store) = rollup.find(id).filter(|_| !raw.stores.contains_key(id)) {
                rollup.remove(store);
            }
        }
        for (id, &(from, to)) in &self.stretches {
            if raw.stores.contains_key(id) && !self.rescheduled.contains(id) {
                let store = rollup.intern(id);
                read_backs.extend(rollup.read_back(store, from, to));
            }
        }
        for id in &self.rescheduled {
            if let Some(store) = raw.stores.get(id) {
                let number = rollup.intern(id);
                rollup.reschedule(number, &raw.schedule(store), &store.all());
            }
        }
        let read_backs = merged(read_backs, rollup);
        raw.serve(rollup, read_backs);
    }
}

/// One read-back for each store.
fn merged(read_backs: Vec<ReadBack>, rollup: &Rollup) -> Vec<ReadBack> {
    let mut by_store: BTreeMap<StoreNo, (Timestamp, Timestamp)> = BTreeMap::new();
    for ReadBack { store, from, to, .. } in read_backs {
        let stretch = by_store.entry(store).or_insert((from, to));
        *stretch = (stretch.0.min(from), stretch.1.max(to));
    }
    by_store
        .into_iter()
        .filter_map(|(store, (from, to))| rollup.read_back(store, from, to))
        .collect()
}
