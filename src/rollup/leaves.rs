//! All stores' states, in leaves that snapshots share until one of their stores changes.
//!
//! A tree of two levels behind [`Arc`]: whoever holds a clone of the [`Leaves`] keeps what was there, and the writer
//! copies only the leaf that it changes, and the branch on the way. The cells of a leaf's stores lie in one list:
//! a report walks them from front to back, and copying a leaf is two copies of memory instead of one for each store.

use std::ops::Range;
use std::sync::Arc;

use super::StoreNo;
use super::state::{DownCell, StoreState, shifted};

/// Stores per leaf. A first write while a snapshot is held copies a leaf, 10 to 20 kB; a new cell moves half of the
/// leaf's cells on average, 3 to 5 kB.
const STORES_PER_LEAF: usize = 32;

/// Leaves per branch. A snapshot clones one pointer per branch: 245 for a million stores.
const LEAVES_PER_BRANCH: usize = 128;

const STORES_PER_BRANCH: usize = STORES_PER_LEAF * LEAVES_PER_BRANCH;

/// States by number of the store. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaves {
    branches: Vec<Arc<Branch>>,
}

#[derive(Debug, Clone, Default)]
struct Branch {
    leaves: Vec<Arc<Leaf>>,
}

/// A block of stores and their cells.
///
/// Invariant: `ends` has an entry per store and never descends; a store's cells end there and begin where those of
/// the store before it end. They ascend, hold no zero, nothing past the cell of the last observation, and every cell
/// with downtime from `known_from` on up to there.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaf {
    stores: Vec<StoreState>,
    ends: Vec<u32>,
    cells: Vec<DownCell>,
}

impl Leaves {
    /// The leaf that holds a store.
    pub fn of(&self, store: StoreNo) -> Option<&Leaf> {
        let branch = self.branches.get(store as usize / STORES_PER_BRANCH)?;
        Some(branch.leaves.get(leaf_of(store))?)
    }

    /// The same, to change it.
    pub fn of_mut(&mut self, store: StoreNo) -> Option<&mut Leaf> {
        let branch = self.branches.get_mut(store as usize / STORES_PER_BRANCH)?;
        Some(Arc::make_mut(Arc::make_mut(branch).leaves.get_mut(leaf_of(store))?))
    }

    /// All states, by number of the store.
    pub fn stores(&self) -> impl Iterator<Item = &StoreState> {
        let leaves = self.branches.iter().flat_map(|branch| &branch.leaves);
        leaves.flat_map(|leaf| &leaf.stores)
    }

    /// Puts a store in its place, without cells; places before it that are empty get a vacant state.
    pub fn place(&mut self, store: StoreNo, state: StoreState) {
        while self.branches.len() <= store as usize / STORES_PER_BRANCH {
            self.branches.push(Arc::default());
        }
        let Some(branch) = self.branches.get_mut(store as usize / STORES_PER_BRANCH) else {
            return;
        };
        let leaves = &mut Arc::make_mut(branch).leaves;
        while leaves.len() <= leaf_of(store) {
            leaves.push(Arc::default());
        }
        if let Some(leaf) = leaves.get_mut(leaf_of(store)) {
            Arc::make_mut(leaf).place(store, state);
        }
    }
}

fn leaf_of(store: StoreNo) -> usize {
    store as usize % STORES_PER_BRANCH / STORES_PER_LEAF
}

fn slot_of(store: StoreNo) -> usize {
    store as usize % STORES_PER_LEAF
}

impl Leaf {
    pub fn store(&self, store: StoreNo) -> Option<&StoreState> {
        self.stores.get(slot_of(store))
    }

    pub fn store_mut(&mut self, store: StoreNo) -> Option<&mut StoreState> {
        self.stores.get_mut(slot_of(store))
    }

    fn place(&mut self, store: StoreNo, state: StoreState) {
        let slot = slot_of(store);
        while self.stores.len() <= slot {
            self.stores.push(StoreState::new(0));
            self.ends.push(u32::try_from(self.cells.len()).unwrap_or(u32::MAX));
        }
        self.replace(slot, self.range(slot), std::iter::empty());
        if let Some(place) = self.stores.get_mut(slot) {
            *place = state;
        }
    }

    /// Downtime of a store, by cell.
    pub fn cells(&self, store: StoreNo) -> &[DownCell] {
        self.cells.get(self.range(slot_of(store))).unwrap_or_default()
    }

    /// Adds to (or takes from) a cell; returns its new downtime.
    pub fn change_cell(&mut self, store: StoreNo, cell: i32, delta_us: i64) -> u32 {
        let own = self.cells(store);
        let place = match own.last() {
            Some(last) if last.cell < cell => own.len(),
            _ => own.partition_point(|c| c.cell < cell),
        };
        let slot = slot_of(store);
        let place = self.range(slot).start + place;
        let found = place < self.range(slot).end && self.cells.get(place).is_some_and(|c| c.cell == cell);
        if !found {
            let down_us = shifted(0, delta_us);
            if down_us > 0 {
                self.cells.insert(place, DownCell { cell, down_us });
                self.shift(slot, 1);
            }
            return down_us;
        }
        let Some(found) = self.cells.get_mut(place) else {
            return 0;
        };
        found.down_us = shifted(found.down_us, delta_us);
        let down_us = found.down_us;
        if down_us == 0 {
            self.cells.remove(place);
            self.shift(slot, -1);
        }
        down_us
    }

    /// Forgets a store's cells before `from`, once enough of them have gathered to be worth the move.
    pub fn trim(&mut self, store: StoreNo, from: i32, slack: i32) {
        let own = self.cells(store);
        if own.first().is_some_and(|first| first.cell < from.saturating_sub(slack)) {
            let gone = own.partition_point(|c| c.cell < from);
            let start = self.range(slot_of(store)).start;
            self.replace(slot_of(store), start..start + gone, std::iter::empty());
            if let Some(state) = self.store_mut(store) {
                state.known_from = state.known_from.max(from);
            }
        }
    }

    /// Puts other cells in place of those of a range; ones before what is known are left out.
    pub fn replace_cells(&mut self, store: StoreNo, range: Range<i32>, with: &[DownCell]) {
        let own = self.cells(store);
        let from = own.partition_point(|c| c.cell < range.start);
        let to = own.partition_point(|c| c.cell < range.end);
        let start = self.range(slot_of(store)).start;
        let known_from = self.store(store).map_or(i32::MIN, |state| state.known_from);
        let known = with.iter().copied().filter(|c| c.cell >= known_from);
        self.replace(slot_of(store), start + from..start + to, known);
    }

    /// Appends a cell while restoring.
    pub fn push_cell(&mut self, store: StoreNo, cell: DownCell) {
        debug_assert!(self.cells(store).last().is_none_or(|last| last.cell < cell.cell));
        let end = self.range(slot_of(store)).end;
        self.replace(slot_of(store), end..end, std::iter::once(cell));
    }

    /// Where the cells of the store in a slot lie.
    fn range(&self, slot: usize) -> Range<usize> {
        let end = |slot: usize| self.ends.get(slot).map_or(0, |&end| end as usize);
        slot.checked_sub(1).map_or(0, end)..end(slot)
    }

    /// Replaces cells of the store in a slot. `range`: places in the list, within those of the store.
    fn replace(&mut self, slot: usize, range: Range<usize>, with: impl Iterator<Item = DownCell>) {
        let before = self.cells.len();
        self.cells.splice(range, with);
        // A leaf has at most some ten thousand cells: both fit.
        let signed = |len: usize| i32::try_from(len).unwrap_or(i32::MAX);
        self.shift(slot, signed(self.cells.len()) - signed(before));
    }

    /// The cells of the store in a slot became more, or less.
    fn shift(&mut self, slot: usize, by: i32) {
        for end in self.ends.iter_mut().skip(slot) {
            *end = end.saturating_add_signed(by);
        }
    }
}

/// Downtime in ranges of cells that are all kept or follow from the status after the last one, of a store with these
/// cells. The ranges overlap at will; one walk serves all of them, from the back, where a report's windows lie.
pub(super) fn kept_down_us<const N: usize>(cells: &[DownCell], ranges: &[Range<i32>; N]) -> [i64; N] {
    let first = ranges.iter().map(|range| range.start).min().unwrap_or(i32::MAX);
    let mut down_us = [0; N];
    for c in cells.iter().rev().take_while(|c| c.cell >= first) {
        for (down_us, range) in down_us.iter_mut().zip(ranges) {
            // One comparison for both ends: before the start the difference wraps to a large number.
            let inside = c.cell.wrapping_sub(range.start).cast_unsigned() < range.end.abs_diff(range.start);
            *down_us += if inside { i64::from(c.down_us) } else { 0 };
        }
    }
    down_us
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(cell: i32, down_us: u32) -> DownCell {
        DownCell { cell, down_us }
    }

    /// A leaf against one plain list per store, over random changes. The seed is fixed: a failure repeats.
    #[test]
    fn neighbours_do_not_touch_each_others_cells() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut leaves = Leaves::default();
        let mut plain: Vec<Vec<DownCell>> = vec![Vec::new(); 3 * STORES_PER_LEAF];
        for store in (0..plain.len()).rev() {
            leaves.place(u32::try_from(store).unwrap(), StoreState::new(0));
        }
        let mut held = Vec::new();
        for step in 0..20_000 {
            let store = rng.usize(..plain.len());
            let no = u32::try_from(store).unwrap();
            let (own, leaf) = (&mut plain[store], leaves.of_mut(no).unwrap());
            match rng.u8(..8) {
                0 => {
                    leaf.trim(no, 20, 5);
                    if own.first().is_some_and(|c| c.cell < 15) {
                        own.retain(|c| c.cell >= 20);
                        leaf.store_mut(no).unwrap().known_from = i32::MIN;
                    }
                }
                1 => {
                    let with = [cell(10, 1), cell(12, 2)];
                    leaf.replace_cells(no, 10..14, &with);
                    own.retain(|c| !(10..14).contains(&c.cell));
                    own.extend(with);
                }
                2 => {
                    leaves.place(no, StoreState::new(1));
                    own.clear();
                }
                _ => {
                    let at = rng.i32(..40);
                    let old = own.iter().find(|c| c.cell == at).map_or(0, |c| c.down_us);
                    let new = if rng.bool() { 0 } else { rng.u32(..1000) };
                    assert_eq!(leaf.change_cell(no, at, i64::from(new) - i64::from(old)), new);
                    own.retain(|c| c.cell != at);
                    own.extend((new > 0).then_some(cell(at, new)));
                }
            }
            own.sort_by_key(|c| c.cell);
            if step % 1000 == 0 {
                held.push((leaves.clone(), plain.clone()));
            }
        }
        held.push((leaves, plain));
        for (leaves, plain) in held {
            for (no, own) in (0..).zip(&plain) {
                assert_eq!(leaves.of(no).unwrap().cells(no), own, "store {no}");
            }
        }
    }
}
