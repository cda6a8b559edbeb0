//! Store ids as dense numbers, and their bytewise order.

use std::sync::Arc;

use dashmap::DashMap;

use super::StoreNo;

/// Numbers by id, shared: looked up by whoever reads rows while the owner goes on.
#[derive(Debug, Clone, Default)]
pub struct StoreIndex(Arc<DashMap<Arc<str>, StoreNo>>);

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

/// Ids and numbers of all stores. Numbers are not used again while the process lives.
#[derive(Debug, Default)]
pub(super) struct Ids {
    index: StoreIndex,
    names: Arc<Vec<Option<Arc<str>>>>,
    /// Numbers in the bytewise order of their ids, but for those in `unsorted`.
    sorted: Arc<Vec<StoreNo>>,
    unsorted: Vec<StoreNo>,
    /// Numbers of removed stores are still in `sorted` or `unsorted`.
    removed: bool,
}

/// Names by number, and the numbers in the order of the names.
#[derive(Debug, Clone)]
pub(super) struct IdSnapshot {
    pub names: Arc<Vec<Option<Arc<str>>>>,
    pub sorted: Arc<Vec<StoreNo>>,
}

impl Ids {
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn index(&self) -> &StoreIndex {
        &self.index
    }

    pub fn find(&self, id: &str) -> Option<StoreNo> {
        self.index.find(id)
    }

    /// All ids, by number.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.names.iter().filter_map(Option::as_deref)
    }

    pub fn id(&self, store: StoreNo) -> Option<&str> {
        self.names.get(store as usize)?.as_deref()
    }

    /// Gives a new id the next number.
    pub fn add(&mut self, id: &str) -> StoreNo {
        let store = StoreNo::try_from(self.names.len()).unwrap_or(StoreNo::MAX);
        self.restore(store, id);
        store
    }

    /// Gives a new id a number of the caller's.
    pub fn restore(&mut self, store: StoreNo, id: &str) {
        let name: Arc<str> = id.into();
        let names = Arc::make_mut(&mut self.names);
        if names.len() <= store as usize {
            names.resize(store as usize + 1, None);
        }
        if let Some(slot) = names.get_mut(store as usize) {
            *slot = Some(Arc::clone(&name));
        }
        self.index.0.insert(name, store);
        self.unsorted.push(store);
    }

    pub fn remove(&mut self, store: StoreNo) {
        let Some(slot) = Arc::make_mut(&mut self.names).get_mut(store as usize) else {
            return;
        };
        if let Some(name) = slot.take() {
            self.index.0.remove(&name);
        }
        self.removed = true;
    }

    /// Sorts the new ids in and hands out the tables.
    pub fn snapshot(&mut self) -> IdSnapshot {
        if std::mem::take(&mut self.removed) {
            let names = &self.names;
            let is_there = |store: &StoreNo| names.get(*store as usize).is_some_and(Option::is_some);
            Arc::make_mut(&mut self.sorted).retain(is_there);
            self.unsorted.retain(is_there);
        }
        if !self.unsorted.is_empty() {
            let names = &self.names;
            let name = |store: &StoreNo| {
                names
                    .get(*store as usize)
                    .and_then(Option::as_deref)
                    .unwrap_or_default()
            };
            let sorted = Arc::make_mut(&mut self.sorted);
            sorted.append(&mut self.unsorted);
            // The sort finds the sorted run at the front and merges the rest into it.
            sorted.sort_by(|a, b| name(a).cmp(name(b)));
        }
        IdSnapshot {
            names: Arc::clone(&self.names),
            sorted: Arc::clone(&self.sorted),
        }
    }
}
