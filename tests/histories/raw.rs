//! The input tables of a generated history, and what reading them answers.

use std::collections::BTreeMap;

use chrono_tz::Tz;
use uptally::oracle::{RawInterval, RawStore};
use uptally::rollup::{Observation, ReadBack, Rollup};
use uptally::schedule::{DEFAULT_ZONE, Interval, Schedule};
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
}

/// One store's rows.
#[derive(Clone)]
pub struct RawRows {
    pub zone: Tz,
    pub hours: Vec<RawInterval>,
    pub observations: BTreeMap<Timestamp, Status>,
}

impl Default for RawRows {
    fn default() -> Self {
        RawRows {
            zone: DEFAULT_ZONE,
            hours: Vec::new(),
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

    pub fn schedule(&self) -> Schedule {
        let intervals = self
            .hours
            .iter()
            .map(|h| Interval::new(h.day, h.start_us, h.end_us).unwrap());
        Schedule::new(self.zone, intervals.collect())
    }

    /// All observations in order.
    pub fn all(&self) -> Vec<Observation> {
        let rows = self.observations.iter();
        rows.map(|(&at, &status)| Observation { at, status }).collect()
    }
}

impl RawTables {
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

fn any_clock(dice: &mut impl Dice) -> i64 {
    match dice.below(4) {
        0 => dice.within(0..24) * HOUR_US,
        1 => dice.within(0..48) * HOUR_US / 2,
        2 => dice.within(0..24 * 60) * MINUTE_US,
        _ => dice.within(0..24 * 3600) * SECOND_US,
    }
}
