//! The input tables of a generated history, and what reading them answers.

use std::collections::BTreeMap;

use chrono_tz::Tz;
use uptally::oracle::{RawClosure, RawInterval, RawStore};
use uptally::rollup::{Observation, ReadBack, Rollup};
use uptally::schedule::{Closure, DEFAULT_ZONE, Interval, Schedule};
use uptally::store::Status;
use uptally::time::{DAY_US, HOUR_US, MINUTE_US, SECOND_US, Timestamp};

use super::dice::Dice;

const ZONES: [Tz; 14] = [
    Tz::America__Chicago,
    Tz::America__New_York,
    Tz::America__Phoenix,
    Tz::Asia__Beirut,
    Tz::Asia__Kolkata,
    Tz::Asia__Kathmandu,
    Tz::Australia__Lord_Howe,
    Tz::Pacific__Apia,
    Tz::Africa__Casablanca,
    Tz::America__Sao_Paulo,
    Tz::America__Havana,
    Tz::America__Caracas,
    Tz::Pacific__Chatham,
    Tz::Atlantic__Azores,
];

/// All stores that any table knows, by id.
#[derive(Default)]
pub struct RawTables {
    pub stores: BTreeMap<String, RawRows>,
    /// The closures of every store.
    pub everywhere: Vec<RawClosure>,
}

/// One store's rows.
#[derive(Clone)]
pub struct RawRows {
    pub zone: Tz,
    pub hours: Vec<RawInterval>,
    pub closures: Vec<RawClosure>,
    pub observations: BTreeMap<Timestamp, Status>,
}

impl Default for RawRows {
    fn default() -> Self {
        RawRows {
            zone: DEFAULT_ZONE,
            hours: Vec::new(),
            closures: Vec::new(),
            observations: BTreeMap::new(),
        }
    }
}

impl RawRows {
    /// Another zone and other hours.
    pub fn reschedule(&mut self, dice: &mut impl Dice) {
        self.zone = *dice.pick(&ZONES);
        self.hours = any_hours(dice);
    }

    /// Closes for a while, opens again after all, or is closed for longer or shorter than it was. Mostly near `now`.
    pub fn close(&mut self, dice: &mut impl Dice, now: Timestamp) {
        change_closures(&mut self.closures, dice, now);
    }

    /// All observations in order.
    pub fn all(&self) -> Vec<Observation> {
        let rows = self.observations.iter();
        rows.map(|(&at, &status)| Observation { at, status }).collect()
    }
}

impl RawTables {
    pub fn schedule(&self, store: &RawRows) -> Schedule {
        let intervals = store.hours.iter();
        let intervals = intervals.map(|h| Interval::new(h.day, h.start_us, h.end_us).unwrap());
        let closures = store.closures.iter().chain(&self.everywhere);
        let closures = closures.map(|c| Closure::new(c.from_us, c.to_us).unwrap());
        Schedule::new(store.zone, intervals.collect()).with_closures(closures.collect())
    }

    /// Of a store that has nothing but observations.
    pub fn default_schedule(&self) -> Schedule {
        self.schedule(&RawRows::default())
    }

    /// Closes every store for a while, or opens them again.
    pub fn close_all(&mut self, dice: &mut impl Dice, now: Timestamp) {
        change_closures(&mut self.everywhere, dice, now);
    }

    /// Answers read-backs as the query of the feed does.
    pub fn serve(&self, rollup: &mut Rollup, read_backs: Vec<ReadBack>) {
        for read_back in read_backs {
            let id = rollup.id(read_back.store).unwrap();
            let nothing = BTreeMap::new();
            let rows = self.stores.get(id).map_or(&nothing, |store| &store.observations);
            let before = rows.range(..read_back.read_from).next_back();
            let until = if read_back.to_the_end {
                Timestamp::MAX
            } else {
                let next = rows.range(read_back.to.plus(1)..).next();
                next.map_or(Timestamp::MAX, |(at, _)| at.plus(HOUR_US))
            };
            let observations: Vec<_> = before
                .into_iter()
                .chain(rows.range(read_back.read_from..until))
                .map(|(&at, &status)| Observation { at, status })
                .collect();
            rollup.splice(read_back, &observations);
        }
    }

    /// The rows from before `limit`, for the oracle.
    pub fn before(&self, limit: Timestamp) -> Vec<RawStore> {
        let stores = self.stores.iter();
        stores
            .map(|(id, rows)| RawStore {
                id: id.clone(),
                zone: rows.zone,
                hours: rows.hours.clone(),
                closures: rows.closures.iter().chain(&self.everywhere).copied().collect(),
                observations: rows
                    .observations
                    .range(..limit)
                    .map(|(&at, &status)| (at, status))
                    .collect(),
            })
            .collect()
    }
}

fn any_hours(dice: &mut impl Dice) -> Vec<RawInterval> {
    if dice.one_in(7) {
        return Vec::new();
    }
    (0..dice.within(1..12))
        .map(|_| RawInterval {
            day: u8::try_from(dice.below(7)).unwrap(),
            start_us: any_clock(dice),
            end_us: match dice.below(5) {
                0 => DAY_US - MINUTE_US,
                1 => DAY_US - SECOND_US,
                2 => DAY_US,
                _ => any_clock(dice),
            },
        })
        .collect()
}

/// Most closures come, some go or get another end.
fn change_closures(closures: &mut Vec<RawClosure>, dice: &mut impl Dice, now: Timestamp) {
    let place = dice.below(8);
    if let Some(place) = usize::try_from(place).ok().filter(|&place| place < closures.len()) {
        let was = closures.remove(place);
        if dice.one_in(2) {
            return;
        }
        let to_us = was.from_us + any_length(dice);
        closures.push(RawClosure { to_us, ..was });
        return;
    }
    let reach = *dice.pick(&[2 * DAY_US, 20 * DAY_US, 500 * DAY_US]);
    let day_us = now.plus(dice.within(-reach..reach / 4)).micros().div_euclid(DAY_US) * DAY_US;
    let from_us = match dice.below(3) {
        0 => day_us,
        _ => day_us + any_clock(dice),
    };
    let to_us = match dice.below(4) {
        // Whole days, in several spellings.
        0 => day_us + dice.within(1..4) * DAY_US,
        1 => day_us + dice.within(1..4) * DAY_US - MINUTE_US,
        2 => day_us + dice.within(1..4) * DAY_US - SECOND_US,
        _ => from_us + any_length(dice),
    };
    closures.push(RawClosure {
        from_us,
        to_us: to_us.max(from_us + 1),
    });
}

fn any_length(dice: &mut impl Dice) -> i64 {
    match dice.below(3) {
        0 => dice.within(1..48 * 60) * MINUTE_US,
        1 => dice.within(1..6) * HOUR_US,
        _ => dice.within(1..60) * DAY_US,
    }
}

fn any_clock(dice: &mut impl Dice) -> i64 {
    match dice.below(4) {
        0 => dice.within(0..24) * HOUR_US,
        1 => dice.within(0..48) * HOUR_US / 2,
        2 => dice.within(0..24 * 60) * MINUTE_US,
        _ => dice.within(0..24 * 3600) * SECOND_US,
    }
}
