//! Store ids as dense numbers, and their bytewise order.

use std::sync::Arc;

use dashmap::DashMap;
use foldhash::fast::RandomState;

use super::StoreNo;

/// Numbers by id, shared: looked up by whoever reads rows while the owner goes on.
#[derive(Debug, Clone, Default)]
pub struct StoreIndex(Arc<DashMap<Arc<str>, StoreNo, RandomState>>);

impl StoreIndex {
    /// Number of stores.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no stores.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of a store, if it is known.
    pub fn find(&self, id: &str) -> Option<StoreNo> {
        self.0.get(id).map(|number| *number)
    }
}

/// Names per chunk of [`Names`]: what is copied when a store appears while a snapshot is held.
const NAMES_PER_CHUNK: usize = 1024;

/// So many new stores are sorted in one by one; more are sorted all together.
const ONE_BY_ONE_MAX: usize = 64;

/// Ids and numbers of all stores. Numbers are not used again while the process lives.
#[derive(Debug, Default)]
pub(super) struct Ids {
    index: StoreIndex,
    names: Names,
    /// Numbers in the bytewise order of their ids, but for those in `unsorted`.
    sorted: Arc<Vec<StoreNo>>,
    unsorted: Vec<StoreNo>,
    /// Numbers of removed stores are still in `sorted` or `unsorted`.
    removed: bool,
}

/// Ids by number, in chunks that snapshots share. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    chunks: Vec<Arc<Vec<Option<Arc<str>>>>>,
    /// Numbers given so far.
    len: usize,
}

/// Names by number, and the numbers in the order of the names.
#[derive(Debug, Clone)]
pub(super) struct IdSnapshot {
    pub names: Names,
    pub sorted: Arc<Vec<StoreNo>>,
}

impl Names {
    pub fn get(&self, store: StoreNo) -> Option<&str> {
        let chunk = self.chunks.get(store as usize / NAMES_PER_CHUNK)?;
        chunk.get(store as usize % NAMES_PER_CHUNK)?.as_deref()
    }

    /// Puts a name, or nothing, in the place of a number; returns what was there.
    fn set(&mut self, store: StoreNo, name: Option<Arc<str>>) -> Option<Arc<str>> {
        let (chunk, place) = (store as usize / NAMES_PER_CHUNK, store as usize % NAMES_PER_CHUNK);
        while self.chunks.len() <= chunk {
            self.chunks.push(Arc::default());
        }
        self.len = self.len.max(store as usize + 1);
        let names = Arc::make_mut(self.chunks.get_mut(chunk)?);
        if names.len() <= place {
            names.resize(place + 1, None);
        }
        std::mem::replace(names.get_mut(place)?, name)
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        let names = self.chunks.iter().flat_map(|chunk| chunk.iter());
        names.filter_map(Option::as_deref)
    }
}

impl Ids {
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Numbers given so far.
    pub fn numbers(&self) -> StoreNo {
        StoreNo::try_from(self.names.len).unwrap_or(StoreNo::MAX)
    }

    pub fn index(&self) -> &StoreIndex {
        &self.index
    }

    pub fn find(&self, id: &str) -> Option<StoreNo> {
        self.index.find(id)
    }

    /// All ids, by number.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.names.all()
    }

    pub fn id(&self, store: StoreNo) -> Option<&str> {
        self.names.get(store)
    }

    /// Gives a new id the next number.
    pub fn add(&mut self, id: &str) -> StoreNo {
        let store = self.numbers();
        self.restore(store, id);
        store
    }

    /// Gives a new id a number of the caller's.
    pub fn restore(&mut self, store: StoreNo, id: &str) {
        let name: Arc<str> = id.into();
        self.names.set(store, Some(Arc::clone(&name)));
        self.index.0.insert(name, store);
        self.unsorted.push(store);
    }

    pub fn remove(&mut self, store: StoreNo) {
        if let Some(name) = self.names.set(store, None) {
            self.index.0.remove(&name);
        }
        self.removed = true;
    }

    /// Sorts the new ids in and hands out the tables.
    pub fn snapshot(&mut self) -> IdSnapshot {
        let names = &self.names;
        let name = |store: &StoreNo| names.get(*store).unwrap_or_default();
        if std::mem::take(&mut self.removed) {
            let is_there = |store: &StoreNo| names.get(*store).is_some();
            Arc::make_mut(&mut self.sorted).retain(is_there);
            self.unsorted.retain(is_there);
        }
        if !self.unsorted.is_empty() {
            let sorted = Arc::make_mut(&mut self.sorted);
            if self.unsorted.len() <= ONE_BY_ONE_MAX {
                for store in self.unsorted.drain(..) {
                    let place = sorted.partition_point(|other| name(other) < name(&store));
                    sorted.insert(place, store);
                }
            } else {
                sorted.append(&mut self.unsorted);
                // The sort finds the sorted run at the front and merges the rest into it.
                sorted.sort_by(|a, b| name(a).cmp(name(b)));
            }
        }
        IdSnapshot {
            names: self.names.clone(),
            sorted: Arc::clone(&self.sorted),
        }
    }
}
