//! The hot loops, each a fixed amount of work, to be run under a tool that counts instructions: counts compare where
//! times are too noisy, and between machines. `make bench-instructions` does that and compares with
//! benches/instructions.txt.
//!
//! The parts are functions of their own and never inlined, so that the tool can count them apart.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

mod support;

use std::hint::black_box;

use support::{Live, Row};
use uptally::report::csv::{Csv, render};
use uptally::rollup::{Dirty, Rollup, Snapshot};
use uptally::time::Timestamp;
use uptally::window::{ClosedTime, Windows};

const STORES: u32 = 2_000;
const ROWS: usize = 20_000;

fn main() {
    let fleet = support::fleet(STORES, 8);
    let mut live = Live::started(&fleet);
    let mut rows = live.next_rows(ROWS);
    count_in_order(&mut live.rollup, &mut rows);
    black_box(count_take_dirty(&mut live.rollup));
    let snapshot = live.rollup.snapshot();
    let as_of = snapshot.newest().unwrap();
    black_box(count_render(&snapshot, as_of));
    let mut rows = live.next_rows(ROWS);
    count_in_order_while_held(&mut live.rollup, &mut rows);
    black_box(snapshot);
}

#[inline(never)]
fn count_in_order(rollup: &mut Rollup, rows: &mut [Row]) {
    for batch in rows.chunks_mut(1_000) {
        assert!(rollup.apply(batch).is_empty());
    }
}

#[inline(never)]
fn count_in_order_while_held(rollup: &mut Rollup, rows: &mut [Row]) {
    for batch in rows.chunks_mut(1_000) {
        assert!(rollup.apply(batch).is_empty());
    }
}

#[inline(never)]
fn count_take_dirty(rollup: &mut Rollup) -> Dirty {
    rollup.take_dirty()
}

#[inline(never)]
fn count_render(snapshot: &Snapshot, as_of: Timestamp) -> Csv {
    render(snapshot, as_of, Windows::Calendar, ClosedTime::Uptime).unwrap()
}
