//! A snapshot to the bytes of a report, beside the floor: plain loops that make the same bytes from arrays.
//!
//! Target: `report/render` takes at most 1.5 times `report/floor_sum` at the same number of stores. The floors
//! run on one core; from 40,000 stores on the report uses all there are.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

mod support;

use std::ops::Range;

use criterion::{BenchmarkId, Throughput};
use support::Live;
use uptally::overview::{Asked, Overview, Query, Sort};
use uptally::report::csv::{HEADER, render};
use uptally::rollup::{Rollup, Snapshot};
use uptally::schedule::Openings;
use uptally::store::Status;
use uptally::time::{HOUR_US, MINUTE_US, Span, Timestamp};
use uptally::window::{ClosedTime, WindowSpans, Windows};

/// So that the calendar week before the fleet's end, a Wednesday, is whole.
const DAYS: u32 = 10;

fn main() {
    let mut criterion = support::criterion();
    let mut group = criterion.benchmark_group("report");
    for stores in support::sizes() {
        let fleet = support::fleet(stores, DAYS);
        let as_of = fleet.options().end;
        let made = std::cell::LazyCell::new(|| {
            let mut rollup = Live::started(&fleet).rollup;
            let snapshot = rollup.snapshot();
            let arrays = Arrays::of(&rollup, &snapshot, as_of);
            let report = render(&snapshot, as_of, Windows::Calendar, ClosedTime::Uptime)
                .unwrap()
                .to_vec();
            assert!(arrays.floor_sum() == report, "the floor makes other bytes");
            assert!(arrays.floor_format() == report, "the floor makes other bytes");
            (snapshot, arrays)
        });
        group.throughput(Throughput::Elements(u64::from(stores)));
        group.bench_function(BenchmarkId::new("render", stores), |b| {
            let snapshot = &made.0;
            b.iter(|| render(snapshot, as_of, Windows::Calendar, ClosedTime::Uptime).unwrap());
        });
        group.bench_function(BenchmarkId::new("floor_sum", stores), |b| {
            let arrays = &made.1;
            b.iter(|| arrays.floor_sum());
        });
        group.bench_function(BenchmarkId::new("floor_format", stores), |b| {
            let arrays = &made.1;
            b.iter(|| arrays.floor_format());
        });
        // What the API makes of the same snapshot: all states and sums, a page of them, the hours of a week.
        let asked = Asked {
            as_of,
            windows: Windows::Rolling,
            silent_after_us: 2 * HOUR_US,
        };
        group.bench_function(BenchmarkId::new("overview", stores), |b| {
            let snapshot = &made.0;
            b.iter(|| Overview::new(snapshot.clone(), asked));
        });
        group.bench_function(BenchmarkId::new("list", stores), |b| {
            let overview = Overview::new(made.0.clone(), asked);
            let worst = Query {
                state: None,
                part_of_id: Some("7".to_owned()),
                timezone: None,
                sort: Sort::Uptime(2),
                descending: false,
                limit: 50,
                offset: 100,
            };
            b.iter(|| overview.list(&worst).total);
        });
        group.bench_function(BenchmarkId::new("history", stores), |b| {
            let snapshot = &made.0;
            b.iter(|| snapshot.utc_hours(as_of, 168));
        });
    }
    group.finish();
    criterion.final_summary();
}

/// What a plain loop would work on: all that decides a report, laid out for it.
struct Arrays {
    /// Ids one after another, in order, and where each ends.
    ids: Vec<u8>,
    id_ends: Vec<usize>,
    /// Downtime in microseconds of every cell, store after store.
    cells: Vec<u32>,
    /// By store: its windows as places in `cells`.
    windows: Vec<[Range<usize>; 3]>,
    /// By store: lengths of the windows in microseconds.
    lengths_us: Vec<[i64; 3]>,
    /// By store: the sums, for the loop that does not sum.
    sums_us: Vec<[i64; 3]>,
}

impl Arrays {
    fn of(rollup: &Rollup, snapshot: &Snapshot, as_of: Timestamp) -> Self {
        let mut arrays = Arrays {
            ids: Vec::new(),
            id_ends: Vec::new(),
            cells: Vec::new(),
            windows: Vec::new(),
            lengths_us: Vec::new(),
            sums_us: Vec::new(),
        };
        for store in snapshot.stores() {
            let kept = rollup.kept(store.id).unwrap();
            let schedule = rollup.schedule(rollup.find(store.id).unwrap()).unwrap();
            let spans = WindowSpans::new(schedule.zone(), as_of, Windows::Calendar);
            let (grid, reach) = (kept.grid, spans.reach());
            let first = grid.cell_of(reach.start);
            let settled = kept.last.map_or(Timestamp::MAX, |last| grid.cell_end_after(last.at));
            let goes_on = kept.last.is_some_and(|last| last.status == Status::Inactive);
            let openings = (goes_on && settled < reach.end).then(|| Openings::new(schedule, reach));
            let base = arrays.cells.len();
            for cell in first..grid.cell_of(reach.end) {
                let span = Span::new(grid.cell_start(cell), grid.cell_start(cell + 1));
                let down_us = match &openings {
                    Some(openings) if settled <= span.start => u32::try_from(openings.open_us(span)).unwrap(),
                    _ => kept.down_us(cell),
                };
                arrays.cells.push(down_us);
            }
            let place = |at| base + usize::try_from(grid.cell_of(at) - first).unwrap();
            let windows = spans.all().map(|span| place(span.start)..place(span.end));
            arrays.ids.extend_from_slice(store.id.as_bytes());
            arrays.id_ends.push(arrays.ids.len());
            arrays.lengths_us.push(spans.all().map(Span::len_us));
            arrays
                .sums_us
                .push(windows.clone().map(|window| sum(&arrays.cells[window])));
            arrays.windows.push(windows);
        }
        arrays
    }

    /// Sums, formats and writes.
    fn floor_sum(&self) -> Vec<u8> {
        self.write(|store| self.windows[store].clone().map(|window| sum(&self.cells[window])))
    }

    /// Formats and writes sums that are there already.
    fn floor_format(&self) -> Vec<u8> {
        self.write(|store| self.sums_us[store])
    }

    fn write(&self, down_us: impl Fn(usize) -> [i64; 3]) -> Vec<u8> {
        let mut csv = Vec::with_capacity(HEADER.len() + 80 * self.id_ends.len());
        csv.extend_from_slice(HEADER.as_bytes());
        let mut id_start = 0;
        for (store, &id_end) in self.id_ends.iter().enumerate() {
            csv.extend_from_slice(&self.ids[id_start..id_end]);
            id_start = id_end;
            let down = down_us(store);
            let length = self.lengths_us[store];
            push(length[0] - down[0], MINUTE_US, &mut csv);
            push(length[1] - down[1], HOUR_US, &mut csv);
            push(length[2] - down[2], HOUR_US, &mut csv);
            push(down[0], MINUTE_US, &mut csv);
            push(down[1], HOUR_US, &mut csv);
            push(down[2], HOUR_US, &mut csv);
            csv.push(b'\n');
        }
        csv
    }
}

fn sum(cells: &[u32]) -> i64 {
    cells.iter().map(|&us| i64::from(us)).sum()
}

/// A comma and two decimals, digit by digit.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "so that the unit is a constant and division a multiplication"
)]
fn push(us: i64, unit_us: i64, csv: &mut Vec<u8>) {
    let mut hundredths = u32::try_from((us * 100 + unit_us / 2) / unit_us).unwrap();
    let mut text = [b'0'; 12];
    let mut start = text.len();
    for place in 0.. {
        if place == 2 {
            start -= 1;
            text[start] = b'.';
        }
        start -= 1;
        text[start] = b'0' + u8::try_from(hundredths % 10).unwrap();
        hundredths /= 10;
        if hundredths == 0 && place >= 2 {
            break;
        }
    }
    start -= 1;
    text[start] = b',';
    csv.extend_from_slice(&text[start..]);
}
