//! An immutable view of the rollup at one point of the change stream, and the sums of a report.

use std::ops::Range;
use std::sync::{Arc, LazyLock, OnceLock};

use super::book::{Resolved, Schedules};
use super::ids::IdSnapshot;
use super::leaves::{Leaves, kept_down_us};
use super::state::{DownCell, StoreState};
use super::{Observation, StoreNo};
use crate::schedule::{Grid, Openings, Zone};
use crate::store::Status;
use crate::time::{Span, Timestamp};
use crate::window::{ClosedTime, WINDOW_REACH_US, WindowSpans, Windows};

/// All stores at one point. Cheap to clone, never changes, blocks nobody.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(super) ids: IdSnapshot,
    pub(super) leaves: Leaves,
    pub(super) schedules: Arc<Schedules>,
    pub(super) newest: Option<Timestamp>,
    pub(super) memory_from: Timestamp,
    pub(super) earliest_as_of: Timestamp,
    pub(super) first_day: Option<chrono::NaiveDate>,
    pub(super) revision: i64,
}

/// One store in a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct StoreView<'a> {
    /// Its id.
    pub id: &'a str,
    pub(super) state: &'a StoreState,
    pub(super) cells: &'a [DownCell],
    pub(super) schedules: &'a Schedules,
}

/// The windows of a report (hour, day, week) in every zone that a store is in.
#[derive(Debug)]
pub struct Plan {
    as_of: Timestamp,
    zones: Vec<ZoneWindows>,
    /// Openings by number of the schedule, where those of the snapshot do not reach: far from the newest observation.
    /// Resolved when a store first needs them.
    far: Option<Vec<OnceLock<Openings>>>,
}

/// The windows in one zone.
#[derive(Debug)]
struct ZoneWindows {
    grid: Grid,
    spans: [Span; 3],
    /// From the first instant of any of them to the one that they count back from.
    reach: Span,
    cells: [Range<i32>; 3],
    length_us: [i64; 3],
}

/// The sums of one store over the windows hour, day and week, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// Downtime inside opening hours.
    pub down_us: [i64; 3],
    /// What downtime is a part of: the length of the windows, or the opening time in them.
    pub whole_us: [i64; 3],
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
        self.stores_in(0..self.len())
    }

    /// Those at some places of that order; places past the end are none.
    pub fn stores_in(&self, range: Range<usize>) -> impl ExactSizeIterator<Item = StoreView<'_>> {
        let range = range.start.min(self.len())..range.end.min(self.len());
        self.ids.sorted.get(range).unwrap_or_default().iter().map(|&store| {
            let (state, cells) = self.state(store);
            let id = self.ids.names.get(store);
            StoreView {
                id: id.unwrap_or_default(),
                state,
                cells,
                schedules: &self.schedules,
            }
        })
    }

    /// The windows of a report as of an instant.
    pub fn plan(&self, as_of: Timestamp, windows: Windows) -> Plan {
        let Schedules { all, zones } = &*self.schedules;
        let zones: Vec<_> = zones
            .iter()
            .map(|&zone| ZoneWindows::new(zone, as_of, windows))
            .collect();
        let knows = |resolved: &Resolved| {
            let windows = zones.get(resolved.zone as usize);
            windows.is_some_and(|windows| resolved.openings.knows(windows.reach))
        };
        let far = (!all.iter().all(knows)).then(|| all.iter().map(|_| OnceLock::new()).collect());
        Plan { as_of, zones, far }
    }

    fn state(&self, store: StoreNo) -> (&StoreState, &[DownCell]) {
        static VACANT: LazyLock<StoreState> = LazyLock::new(|| StoreState::new(0));
        let leaf = self.leaves.of(store);
        leaf.and_then(|leaf| Some((leaf.store(store)?, leaf.cells(store))))
            .unwrap_or((&VACANT, &[]))
    }
}

impl Plan {
    /// The first instant of any window of any zone.
    pub fn first(&self) -> Timestamp {
        let starts = self.zones.iter().map(|windows| windows.reach.start);
        starts.min().unwrap_or(self.as_of)
    }

    /// The windows of a store, and its openings over all of them.
    pub(super) fn of<'a>(&'a self, store: &'a StoreView<'_>) -> Option<([Span; 3], &'a Openings)> {
        let resolved = store.schedules.all.get(store.state.schedule as usize)?;
        let windows = self.zones.get(resolved.zone as usize)?;
        Some((windows.spans, self.openings(resolved, store.state.schedule)?))
    }

    /// The openings of a schedule over the reach of the windows.
    fn openings<'a>(&'a self, resolved: &'a Resolved, schedule: u32) -> Option<&'a Openings> {
        let Some(far) = &self.far else {
            return Some(&resolved.openings);
        };
        let windows = self.zones.get(resolved.zone as usize)?;
        let resolve = || Openings::new(&resolved.schedule, windows.reach);
        Some(far.get(schedule as usize)?.get_or_init(resolve))
    }
}

impl ZoneWindows {
    fn new(zone: Zone, as_of: Timestamp, windows: Windows) -> Self {
        let grid = zone.grid();
        let windows = WindowSpans::new(zone, as_of, windows);
        let spans = windows.all();
        ZoneWindows {
            grid,
            spans,
            reach: Span::new(windows.reach().start, as_of.plus(1)),
            cells: spans.map(|span| grid.cell_of(span.start)..grid.cell_of(span.end)),
            length_us: spans.map(Span::len_us),
        }
    }
}

impl StoreView<'_> {
    /// The newest observation.
    pub fn last(&self) -> Option<Observation> {
        self.state.timeline.last()
    }

    /// Whether it is open at the instant of a plan, which must be of the same snapshot.
    pub fn is_open(&self, plan: &Plan) -> bool {
        let resolved = self.schedules.all.get(self.state.schedule as usize);
        let openings = resolved.and_then(|resolved| plan.openings(resolved, self.state.schedule));
        openings.is_some_and(|openings| openings.contains(plan.as_of))
    }

    /// The sums of a report. None only if the plan is another snapshot's.
    pub fn sums(&self, plan: &Plan, closed: ClosedTime) -> Option<Sums> {
        let resolved = self.schedules.all.get(self.state.schedule as usize)?;
        let windows = plan.zones.get(resolved.zone as usize)?;
        // Asked for where needed only: of most stores a report without closed time needs no openings.
        let open_us = |span: Span| {
            let openings = plan.openings(resolved, self.state.schedule);
            openings.map_or(0, |openings| openings.open_us(span))
        };
        let mut down_us = kept_down_us(self.cells, &windows.cells);
        if let Some(Observation {
            at,
            status: Status::Inactive,
        }) = self.last()
        {
            let settled_to = windows.grid.cell_end_after(at);
            for (down_us, span) in down_us.iter_mut().zip(windows.spans) {
                let rest = Span::new(span.start.max(settled_to), span.end);
                if !rest.is_empty() {
                    *down_us += open_us(rest);
                }
            }
        }
        let whole_us = match closed {
            ClosedTime::Uptime => windows.length_us,
            ClosedTime::Excluded => windows.spans.map(open_us),
        };
        Some(Sums { down_us, whole_us })
    }
}
