//! An immutable view of the rollup at one point of the change stream, and the sums of a report.

use std::ops::Range;
use std::sync::Arc;

use super::book::Resolved;
use super::ids::IdSnapshot;
use super::state::{Leaf, STORES_PER_LEAF, StoreState};
use super::{Observation, StoreNo};
use crate::schedule::{Openings, Schedule};
use crate::store::Status;
use crate::time::{Span, Timestamp};
use crate::window::{WINDOW_REACH_US, WindowSpans, Windows};

/// All stores at one point. Cheap to clone, never changes, blocks nobody.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(super) ids: IdSnapshot,
    pub(super) leaves: Vec<Arc<Leaf>>,
    pub(super) schedules: Arc<Vec<Resolved>>,
    pub(super) newest: Option<Timestamp>,
    pub(super) memory_from: Timestamp,
    pub(super) earliest_as_of: Timestamp,
}

/// One store in a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct StoreView<'a> {
    /// Its id.
    pub id: &'a str,
    state: &'a StoreState,
}

/// Opening time and cells of one schedule's windows: hour, day, week.
#[derive(Debug)]
pub struct WindowPlan {
    /// Lengths in microseconds.
    pub length_us: [i64; 3],
    /// Opening time in microseconds.
    pub open_us: [i64; 3],
    cells: [Range<i32>; 3],
    spans: [Span; 3],
    openings: Arc<Openings>,
    schedule: Arc<Schedule>,
}

impl Snapshot {
    /// Number of stores.
    pub fn len(&self) -> usize {
        self.ids.sorted.len()
    }

    /// Whether there are no stores.
    pub fn is_empty(&self) -> bool {
        self.ids.sorted.is_empty()
    }

    /// The latest observation that is counted.
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// See [`super::Rollup::earliest_as_of`].
    pub fn earliest_as_of(&self) -> Timestamp {
        self.earliest_as_of
    }

    /// Whether the windows of a report as of this instant lie within what memory holds.
    pub fn reaches(&self, as_of: Timestamp) -> bool {
        as_of.plus(-WINDOW_REACH_US) >= self.memory_from
    }

    /// All stores in the bytewise order of their ids.
    pub fn stores(&self) -> impl ExactSizeIterator<Item = StoreView<'_>> {
        self.ids.sorted.iter().map(|&store| StoreView {
            id: self
                .ids
                .names
                .get(store as usize)
                .and_then(Option::as_deref)
                .unwrap_or_default(),
            state: self.state(store),
        })
    }

    /// The windows of every schedule as of an instant, by the number of the schedule.
    pub fn plan(&self, as_of: Timestamp, windows: Windows) -> Vec<WindowPlan> {
        self.schedules
            .iter()
            .map(|(schedule, openings)| WindowPlan::new(schedule, openings, as_of, windows))
            .collect()
    }

    fn state(&self, store: StoreNo) -> &StoreState {
        static VACANT: std::sync::LazyLock<StoreState> = std::sync::LazyLock::new(|| StoreState::new(0));
        let leaf = self.leaves.get(store as usize / STORES_PER_LEAF);
        leaf.and_then(|leaf| leaf.store(store)).unwrap_or(&VACANT)
    }
}

impl WindowPlan {
    fn new(schedule: &Arc<Schedule>, openings: &Arc<Openings>, as_of: Timestamp, windows: Windows) -> Self {
        let zone = schedule.zone();
        let grid = zone.grid();
        let windows = WindowSpans::new(zone, as_of, windows);
        let reach = windows.reach();
        // Far from the newest observation (a data set that stands still, as of now) nothing is resolved.
        let openings = if openings.knows(reach) {
            Arc::clone(openings)
        } else {
            Arc::new(Openings::new(schedule, reach))
        };
        let spans = windows.all();
        WindowPlan {
            length_us: spans.map(Span::len_us),
            open_us: spans.map(|span| openings.open_us(span)),
            cells: spans.map(|span| grid.cell_of(span.start)..grid.cell_of(span.end)),
            spans,
            openings,
            schedule: Arc::clone(schedule),
        }
    }
}

impl StoreView<'_> {
    /// Number of the store's schedule: the index of its plan.
    pub fn schedule(&self) -> usize {
        self.state.schedule as usize
    }

    /// The newest observation.
    pub fn last(&self) -> Option<Observation> {
        self.state.timeline.last()
    }

    /// Downtime inside opening hours in each window, in microseconds.
    pub fn down_us(&self, plan: &WindowPlan) -> [i64; 3] {
        let mut down_us = plan.cells.clone().map(|cells| self.state.kept_down_us(cells));
        if let Some(Observation {
            at,
            status: Status::Inactive,
        }) = self.last()
        {
            let settled_to = plan.schedule.zone().grid().cell_end_after(at);
            for (down_us, span) in down_us.iter_mut().zip(plan.spans) {
                let rest = Span::new(span.start.max(settled_to), span.end);
                if !rest.is_empty() {
                    *down_us += plan.openings.open_us(rest);
                }
            }
        }
        down_us
    }
}
