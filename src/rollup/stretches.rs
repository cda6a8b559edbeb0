//! Opening time and downtime of stretches that are not the windows of a report: a store's buckets one after the other, and
//! the hours of the whole fleet.

use super::snapshot::{Snapshot, StoreView};
use super::state::DownCell;
use super::{Observation, StoreNo};
use crate::schedule::{Grid, Openings, Schedule};
use crate::store::Status;
use crate::time::{HOUR_US, Span, Timestamp};

/// Opening time of some stretch, and the part of it that was down. Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenDown {
    /// Opening time.
    pub open_us: i64,
    /// Time of it in which the last observation said inactive.
    pub down_us: i64,
}

impl OpenDown {
    /// Time of it in which the last observation said active, or there was none yet.
    pub fn up_us(self) -> i64 {
        self.open_us - self.down_us
    }
}

impl StoreView<'_> {
    /// Its schedule.
    pub fn schedule(&self) -> Option<&Schedule> {
        let resolved = self.schedules.all.get(self.state.schedule as usize)?;
        Some(&resolved.schedule)
    }

    /// From when on downtime follows from the last status; None if that status is active, or none was seen.
    pub(super) fn silent_down_from(&self, grid: Grid) -> Option<Timestamp> {
        match self.last() {
            Some(Observation {
                at,
                status: Status::Inactive,
            }) => Some(grid.cell_end_after(at)),
            _ => None,
        }
    }

    /// The stretches between edges, which ascend, lie on the store's grid and within what memory holds.
    pub fn between(&self, edges: &[Timestamp]) -> Vec<OpenDown> {
        let mut sums = vec![OpenDown::default(); edges.len().saturating_sub(1)];
        let (Some(schedule), Some((&first, &last))) = (self.schedule(), edges.first().zip(edges.last())) else {
            return sums;
        };
        let grid = schedule.zone().grid();
        // The stretch that holds an instant.
        let place = |at: Timestamp| edges.partition_point(|&edge| edge <= at).checked_sub(1);
        for &DownCell { cell, down_us } in self.cells_in(grid.cell_of(first), grid.cell_of(last)) {
            if let Some(sum) = place(grid.cell_start(cell)).and_then(|i| sums.get_mut(i)) {
                sum.down_us += i64::from(down_us);
            }
        }
        let silent_from = self.silent_down_from(grid).unwrap_or(Timestamp::MAX);
        let openings = Openings::new(schedule, Span::new(first, last));
        for opening in openings.within(Span::new(first, last)) {
            let mut at = opening.start;
            while let Some((i, end)) = place(at).and_then(|i| Some((i, *edges.get(i + 1)?)))
                && let Some(sum) = sums.get_mut(i)
            {
                let part = Span::new(at, end.min(opening.end));
                sum.open_us += part.len_us();
                sum.down_us += Span::new(part.start.max(silent_from), part.end).len_us();
                at = part.end;
                if at >= opening.end {
                    break;
                }
            }
        }
        sums
    }

    /// The cells with downtime from `first` to before `end`.
    pub(super) fn cells_in(&self, first: i32, end: i32) -> &[DownCell] {
        let from = self.cells.partition_point(|c| c.cell < first);
        let to = self.cells.partition_point(|c| c.cell < end);
        self.cells.get(from..to).unwrap_or_default()
    }
}

/// What a schedule adds to each UTC hour.
struct HourlyOpenings {
    grid: Grid,
    /// The first cell that begins in the first hour.
    first: i32,
    /// Opening time by cell.
    open_us: Vec<i64>,
}

impl Snapshot {
    /// The last `hours` UTC hours, oldest first, each with its start: the sums over all stores of the cells that begin in
    /// it. The last hour is one of which every cell is over at `as_of`, so that no number of it changes any more with time.
    /// `as_of` must be in reach, and `hours` within a week.
    pub fn utc_hours(&self, as_of: Timestamp, hours: usize) -> Vec<(Timestamp, OpenDown)> {
        let mut users = vec![0_i64; self.schedules.all.len()];
        for store in self.stores() {
            if let Some(count) = users.get_mut(store.state.schedule as usize) {
                *count += 1;
            }
        }
        let used = || self.schedules.all.iter().zip(&users).filter(|(_, users)| **users > 0);
        let offsets = used().map(|(resolved, _)| resolved.schedule.zone().grid().offset_us());
        let over = as_of.plus(-offsets.max().unwrap_or(0));
        let end = over.plus(-over.micros().rem_euclid(HOUR_US));
        let length_us = i64::try_from(hours).unwrap_or(i64::MAX).saturating_mul(HOUR_US);
        let start = end.plus(-length_us);
        let starts = (0..).map(|hour: i64| start.plus(hour * HOUR_US));
        let mut sums: Vec<_> = starts.take(hours).map(|start| (start, OpenDown::default())).collect();
        let schedules = self.schedules.all.iter().zip(&users);
        let schedules: Vec<Option<HourlyOpenings>> = schedules
            .map(|(resolved, users)| {
                (*users > 0).then(|| HourlyOpenings::new(&resolved.schedule, &resolved.openings, start, hours))
            })
            .collect();
        for (schedule, users) in schedules.iter().zip(&users) {
            let Some(schedule) = schedule else { continue };
            for (cell, open_us) in schedule.open_us.iter().enumerate() {
                if let Some((_, sum)) = sums.get_mut(schedule.hour_of(cell)) {
                    sum.open_us += open_us * users;
                }
            }
        }
        for store in self.stores() {
            let Some(Some(schedule)) = schedules.get(store.state.schedule as usize) else {
                continue;
            };
            schedule.add_down(&store, &mut sums);
        }
        sums
    }
}

impl HourlyOpenings {
    fn new(schedule: &Schedule, known: &Openings, start: Timestamp, hours: usize) -> Self {
        let grid = schedule.zone().grid();
        let first = grid.cell_of(start.plus(grid.cell_us() - 1));
        let mut open_us = vec![0; hours * usize::from(grid.cells_per_hour())];
        let end = i32::try_from(open_us.len()).map_or(first, |cells| first.saturating_add(cells));
        let within = Span::new(grid.cell_start(first), grid.cell_start(end));
        let far;
        let openings = if known.knows(within) {
            known
        } else {
            far = Openings::new(schedule, within);
            &far
        };
        for opening in openings.within(within) {
            grid.split(opening, |cell, us| {
                if let Some(sum) = usize::try_from(cell - first).ok().and_then(|i| open_us.get_mut(i)) {
                    *sum += us;
                }
            });
        }
        HourlyOpenings { grid, first, open_us }
    }

    /// The UTC hour, counted from the first, in which the `cell`-th cell begins.
    fn hour_of(&self, cell: usize) -> usize {
        cell / usize::from(self.grid.cells_per_hour())
    }

    fn add_down(&self, store: &StoreView<'_>, sums: &mut [(Timestamp, OpenDown)]) {
        let mut add = |cell: i32, down_us: i64| {
            let place = usize::try_from(cell - self.first).ok().map(|cell| self.hour_of(cell));
            if let Some((_, sum)) = place.and_then(|hour| sums.get_mut(hour)) {
                sum.down_us += down_us;
            }
        };
        let end = i32::try_from(self.open_us.len()).map_or(self.first, |cells| self.first.saturating_add(cells));
        for cell in store.cells_in(self.first, end) {
            add(cell.cell, i64::from(cell.down_us));
        }
        if let Some(from) = store.silent_down_from(self.grid) {
            let from = self.grid.cell_of(from).max(self.first);
            for (cell, open_us) in (self.first..).zip(&self.open_us) {
                if cell >= from {
                    add(cell, *open_us);
                }
            }
        }
    }
}

/// The stores of a snapshot by name alone: what is left when the numbers are not needed any more.
#[derive(Debug, Clone)]
pub struct StoreNames(super::ids::IdSnapshot);

impl Snapshot {
    /// Its names.
    pub fn names(&self) -> StoreNames {
        StoreNames(self.ids.clone())
    }
}

impl StoreNames {
    /// In bytewise order.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &str> {
        let name = |store: &StoreNo| self.0.names.get(*store).unwrap_or_default();
        self.0.sorted.iter().map(name)
    }

    /// Whether they are known to be the same, which costs nothing to ask.
    pub fn are(&self, other: &StoreNames) -> bool {
        std::sync::Arc::ptr_eq(&self.0.sorted, &other.0.sorted)
    }
}
