//! What all stores do at one instant: each one's state and the sums of its windows, how many are in which state, and the
//! stores in the order of whatever is asked for.
//!
//! Pure: a snapshot and an instant go in. Made at once for all stores, since counts and orders need them all; a million
//! stores take 48 bytes each for as long as the overview is held.

mod order;

pub use order::{Listed, Query, Sort};

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::rollup::{Observation, OpenDown, Snapshot, StoreNames, StoreView, Sums};
use crate::schedule::{Schedule, Zone};
use crate::store::Status;
use crate::time::Timestamp;
use crate::window::{ClosedTime, ParseChoiceError, Windows};

/// What a store does at an instant: the first of these that applies, in this order: outside hours, silent, offline, online.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Open, and the last observation says active.
    Online,
    /// Open, and the last observation says inactive.
    Offline,
    /// Closed by its schedule.
    OutsideHours,
    /// Open, and not observed for too long, or never.
    Silent,
}

impl State {
    /// All of them.
    pub const ALL: [State; 4] = [State::Online, State::Offline, State::OutsideHours, State::Silent];

    /// The state of a store at `as_of`.
    pub fn of(is_open: bool, last: Option<Observation>, as_of: Timestamp, silent_after_us: i64) -> Self {
        match last {
            _ if !is_open => State::OutsideHours,
            Some(last) if as_of.since(last.at) <= silent_after_us => match last.status {
                Status::Active => State::Online,
                Status::Inactive => State::Offline,
            },
            _ => State::Silent,
        }
    }

    /// The word in queries and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Online => "online",
            State::Offline => "offline",
            State::OutsideHours => "outside_hours",
            State::Silent => "silent",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = ParseChoiceError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let known = State::ALL.into_iter().find(|state| state.as_str() == word);
        known.ok_or(ParseChoiceError("online, offline, outside_hours or silent"))
    }
}

/// How many stores are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct Counts {
    /// Open and active.
    pub online: u64,
    /// Open and inactive.
    pub offline: u64,
    /// Closed by their schedule.
    pub outside_hours: u64,
    /// Open and not observed for too long.
    pub silent: u64,
}

impl Counts {
    fn count(&mut self, state: State) {
        let count = match state {
            State::Online => &mut self.online,
            State::Offline => &mut self.offline,
            State::OutsideHours => &mut self.outside_hours,
            State::Silent => &mut self.silent,
        };
        *count += 1;
    }
}

/// What an overview is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The instant.
    pub as_of: Timestamp,
    /// Which windows are summed over.
    pub windows: Windows,
    /// A store that was not observed for longer is silent. Microseconds.
    pub silent_after_us: i64,
}

/// All stores at an instant.
#[derive(Debug)]
pub struct Overview {
    asked: Asked,
    snapshot: Snapshot,
    /// By place in the order of the ids, as the sums.
    states: Vec<State>,
    sums: Vec<Sums>,
    counts: Counts,
    totals: [OpenDown; 3],
}

/// One store of an overview.
#[derive(Debug, Clone, Copy)]
pub struct StoreNow<'a> {
    /// Its id.
    pub id: &'a str,
    /// What it does.
    pub state: State,
    /// Its time zone; None if the snapshot has no schedule for it, which does not happen.
    pub zone: Option<Zone>,
    /// Its newest observation.
    pub last: Option<Observation>,
    /// Hour, day, week.
    pub windows: [OpenDown; 3],
}

/// Who was in which state, without the numbers.
#[derive(Debug, Clone)]
pub struct States {
    names: StoreNames,
    states: Vec<State>,
}

/// A store whose state is another than before; None: it was not there, or is not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// Its id.
    pub id: &'a str,
    /// The state before.
    pub from: Option<State>,
    /// The state now.
    pub to: Option<State>,
}

impl Overview {
    /// Makes the overview. Blocking: about 100 ns for each store. `asked.as_of` must be in the snapshot's reach.
    pub fn new(snapshot: Snapshot, asked: Asked) -> Self {
        let plan = snapshot.plan(asked.as_of, asked.windows);
        let mut states = Vec::with_capacity(snapshot.len());
        let mut all = Vec::with_capacity(snapshot.len());
        let mut counts = Counts::default();
        let mut totals = [OpenDown::default(); 3];
        for store in snapshot.stores() {
            let state = State::of(store.is_open(&plan), store.last(), asked.as_of, asked.silent_after_us);
            // None only with the plan of another snapshot.
            let sums = store.sums(&plan, ClosedTime::Excluded).unwrap_or(Sums {
                down_us: [0; 3],
                whole_us: [0; 3],
            });
            for (total, window) in totals.iter_mut().zip(open_down(sums)) {
                total.open_us += window.open_us;
                total.down_us += window.down_us;
            }
            counts.count(state);
            states.push(state);
            all.push(sums);
        }
        Overview {
            asked,
            snapshot,
            states,
            sums: all,
            counts,
            totals,
        }
    }

    /// What it is of.
    pub fn asked(&self) -> Asked {
        self.asked
    }

    /// The point that it is of.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// How many stores are in each state.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The sums over all stores: hour, day, week.
    pub fn totals(&self) -> [OpenDown; 3] {
        self.totals
    }

    /// Who is in which state.
    pub fn states(&self) -> States {
        States {
            names: self.snapshot.names(),
            states: self.states.clone(),
        }
    }

    /// The store at a place in the order of the ids.
    pub fn store(&self, place: usize) -> Option<StoreNow<'_>> {
        let store: StoreView<'_> = self.snapshot.stores_in(place..place + 1).next()?;
        Some(StoreNow {
            id: store.id,
            state: *self.states.get(place)?,
            zone: store.schedule().map(Schedule::zone),
            last: store.last(),
            windows: open_down(*self.sums.get(place)?),
        })
    }
}

impl States {
    /// What is another way than `before`, by id.
    pub fn since<'a>(&'a self, before: &'a States) -> Vec<Change<'a>> {
        let stores = |states: &'a States| states.names.all().zip(states.states.iter().copied());
        let mut changes = Vec::new();
        if self.names.are(&before.names) {
            let both = stores(self).zip(before.states.iter().copied());
            changes.extend(
                both.filter(|((_, to), from)| to != from)
                    .map(|((id, to), from)| Change {
                        id,
                        from: Some(from),
                        to: Some(to),
                    }),
            );
            return changes;
        }
        let (mut old, mut new) = (stores(before).peekable(), stores(self).peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return changes,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((old, _)), Some((new, _))) => old.cmp(new),
            };
            let gone = if order.is_le() { old.next() } else { None };
            let come = if order.is_ge() { new.next() } else { None };
            let (from, to) = (gone.map(|(_, state)| state), come.map(|(_, state)| state));
            if let Some((id, _)) = gone.or(come)
                && from != to
            {
                changes.push(Change { id, from, to });
            }
        }
    }
}

fn open_down(sums: Sums) -> [OpenDown; 3] {
    let [hour, day, week] = sums.down_us;
    let [open_hour, open_day, open_week] = sums.whole_us;
    [(open_hour, hour), (open_day, day), (open_week, week)].map(|(open_us, down_us)| OpenDown { open_us, down_us })
}

#[cfg(test)]
mod tests;
