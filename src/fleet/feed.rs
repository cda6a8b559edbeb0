//! The polling feed of a made-up fleet: jitter, gaps and outages.

use std::ops::Range;

use fastrand::Rng;

use super::random::{STREAM_OUTAGES, STREAM_POLL, normal, poisson, stream};
use super::{Fleet, FleetOptions};
use crate::store::Status;
use crate::time::{DAY_US, SECOND_US, Span, Timestamp};

/// One observation of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Poll {
    /// When.
    pub at: Timestamp,
    /// Index into [`Fleet::stores`].
    pub store: u32,
    /// What was found.
    pub status: Status,
}

/// Outages come by blocks of this length, as many in each as the real data has.
const OUTAGE_BLOCK_US: i64 = 8 * DAY_US;
const OUTAGES_PER_BLOCK: f64 = 2.2;
/// Of the logarithm of an outage's hours: mean and deviation; then the hours' bounds.
const OUTAGE_LOG_HOURS: (f64, f64) = (1.22, 0.6);
const OUTAGE_HOURS: (f64, f64) = (0.5, 36.0);

/// The polls of one slot after another. A slot is a stretch of `poll_interval_us`, number 0 starts at the
/// fleet's end; a store is polled at most once in it, and never in its last tenth.
pub(super) struct Feed<'a> {
    fleet: &'a Fleet,
    next_slot: i64,
    /// The polls of the slot under way, the next one last.
    polls: Vec<Poll>,
    /// Outages by store that begin in `block` or the ones beside it, and the block.
    outages: Vec<Vec<Span>>,
    block: Option<i64>,
}

impl<'a> Feed<'a> {
    pub(super) fn starting(fleet: &'a Fleet, slot: i64) -> Self {
        Feed {
            fleet,
            next_slot: slot,
            polls: Vec::new(),
            outages: vec![Vec::new(); fleet.stores.len()],
            block: None,
        }
    }

    /// Makes the polls of the next slot.
    fn fill(&mut self) {
        let options = &self.fleet.options;
        let slot = self.next_slot;
        self.next_slot += 1;
        let block = block_of(options, slot);
        let is_new_block = self.block.replace(block) != Some(block);
        for (store, outages) in (0..).zip(&mut self.outages) {
            if is_new_block {
                make_outages(options, store, block, outages);
            }
            self.polls.extend(poll(options, store, slot, outages));
        }
        self.polls.sort_unstable_by(|a, b| b.cmp(a));
    }
}

/// The polls of one store, in time order: the same that [`Feed`] has of it.
pub(super) fn of_store(options: FleetOptions, store: u32, slots: Range<i64>) -> impl Iterator<Item = Poll> {
    let (mut outages, mut block) = (Vec::new(), None);
    slots.filter_map(move |slot| {
        let entered = block_of(&options, slot);
        if block.replace(entered) != Some(entered) {
            make_outages(&options, store, entered, &mut outages);
        }
        poll(&options, store, slot, &outages)
    })
}

/// What the poll of a store in a slot finds; None if it never arrives.
fn poll(options: &FleetOptions, store: u32, slot: i64, outages: &[Span]) -> Option<Poll> {
    let interval_us = options.poll_interval_us;
    let jitter_us = (interval_us / 10 * 9).max(1);
    let mut rng = stream(options.seed, STREAM_POLL, u64::from(store), slot.cast_unsigned());
    let at = options.end.plus(slot * interval_us + rng.i64(0..jitter_us));
    (rng.f64() >= options.missing).then(|| {
        let is_down = outages.iter().any(|outage| outage.contains(at));
        let status = if is_down { Status::Inactive } else { Status::Active };
        Poll { at, store, status }
    })
}

fn block_of(options: &FleetOptions, slot: i64) -> i64 {
    (slot * options.poll_interval_us).div_euclid(OUTAGE_BLOCK_US)
}

/// The outages of a store that matter to the slots that begin in a block.
fn make_outages(options: &FleetOptions, store: u32, block: i64, outages: &mut Vec<Span>) {
    outages.clear();
    // The one before may reach into this one, and a slot may reach into the one after.
    for block in block - 1..=block + 1 {
        let mut rng = stream(options.seed, STREAM_OUTAGES, u64::from(store), block.cast_unsigned());
        let start = options.end.plus(block * OUTAGE_BLOCK_US);
        outages.extend((0..poisson(&mut rng, OUTAGES_PER_BLOCK)).map(|_| outage(&mut rng, start)));
    }
}

impl Iterator for Feed<'_> {
    type Item = Poll;

    fn next(&mut self) -> Option<Poll> {
        if self.outages.is_empty() || self.fleet.options.missing >= 1.0 {
            return None; // no slot will ever hold a poll
        }
        while self.polls.is_empty() {
            self.fill();
        }
        self.polls.pop()
    }
}

/// An outage that begins in the block that begins at `block_start`.
fn outage(rng: &mut Rng, block_start: Timestamp) -> Span {
    let start = block_start.plus(rng.i64(0..OUTAGE_BLOCK_US));
    let (mean, deviation) = OUTAGE_LOG_HOURS;
    let hours = (mean + deviation * normal(rng)).exp();
    let seconds = hours.clamp(OUTAGE_HOURS.0, OUTAGE_HOURS.1) * 3_600.0;
    #[expect(clippy::cast_possible_truncation, reason = "36 hours at most")]
    let seconds = seconds.round() as i64;
    Span::new(start, start.plus(seconds * SECOND_US))
}
