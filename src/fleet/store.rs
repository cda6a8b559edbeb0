//! The stores of a made-up fleet: ids, time zones, weekly hours.

use chrono_tz::Tz;
use fastrand::Rng;

use super::FleetOptions;
use super::random::{STREAM_STORE, stream};
#[cfg(doc)]
use crate::import::row::HoursRow;
use crate::time::{HOUR_US, MINUTE_US, SECOND_US};

/// A store of a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetStore {
    /// A 64-bit integer, or (one in four) a UUID.
    pub store_id: String,
    /// None: no row in the table of time zones.
    pub zone: Option<Tz>,
    /// Empty: always open.
    pub hours: Vec<FleetHours>,
}

/// A row of a store's weekly hours, as [`HoursRow`] has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetHours {
    /// 0 (Monday) to 6 (Sunday).
    pub day: u8,
    /// Local start.
    pub start_us: i64,
    /// Local end; at or before `start_us` it is the next day's.
    pub end_us: i64,
}

/// Zones of the real data and their numbers of stores.
const ZONES: [(Tz, u32); 11] = [
    (Tz::America__New_York, 8_191),
    (Tz::America__Los_Angeles, 3_224),
    (Tz::America__Chicago, 1_517),
    (Tz::America__Phoenix, 418),
    (Tz::America__Denver, 127),
    (Tz::America__Detroit, 62),
    (Tz::America__Indiana__Indianapolis, 15),
    (Tz::America__Edmonton, 2),
    (Tz::Asia__Beirut, 1),
    (Tz::America__Boise, 1),
    (Tz::Pacific__Honolulu, 1),
];
/// Zones with rules of their own: offsets of :30 and :45, half-hour clock changes, clocks that change at midnight or around Ramadan.
pub(super) const ODD_ZONES: [Tz; 5] = [
    Tz::Asia__Kolkata,
    Tz::Asia__Kathmandu,
    Tz::Australia__Lord_Howe,
    Tz::America__Sao_Paulo,
    Tz::Africa__Casablanca,
];
/// Smaller fleets have the real zones only.
const ODD_ZONES_STORES_MIN: u32 = 20;
/// One store in so many has no row in the table of time zones.
const NO_ZONE_ONE_IN: u32 = 50;

const WITH_HOURS: f64 = 0.82;

impl FleetStore {
    pub(super) fn generate(options: &FleetOptions, index: u32) -> Self {
        let mut rng = stream(options.seed, STREAM_STORE, u64::from(index), 0);
        FleetStore {
            store_id: store_id(&mut rng, index),
            zone: zone(&mut rng, options.stores, index),
            hours: if rng.f64() < WITH_HOURS {
                weekly_hours(&mut rng)
            } else {
                Vec::new()
            },
        }
    }
}

/// 63 random bits or more: among a million stores two are alike with a chance of one in ten million.
fn store_id(rng: &mut Rng, index: u32) -> String {
    if index % 4 == 3 {
        let bytes = rng.u128(..).to_be_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    } else {
        rng.i64(0..).to_string()
    }
}

fn zone(rng: &mut Rng, stores: u32, index: u32) -> Option<Tz> {
    let total: u32 = ZONES.iter().map(|(_, weight)| weight).sum();
    let mut at = rng.u32(..total); // drawn in any case, so that what follows does not depend on `stores`
    if stores >= ODD_ZONES_STORES_MIN {
        let rounds = 1 + stores / 2_000;
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        if place < ODD_ZONES.len() * rounds as usize {
            return ODD_ZONES.get(place % ODD_ZONES.len()).copied();
        }
    }
    if index % NO_ZONE_ONE_IN == NO_ZONE_ONE_IN / 4 {
        return None;
    }
    for (zone, weight) in ZONES {
        if at < weight {
            return Some(zone);
        }
        at -= weight;
    }
    None
}

/// Rows for one pattern on every open day. The weights give 31 % of rows an end of 23:59, as the real ones have.
fn weekly_hours(rng: &mut Rng) -> Vec<FleetHours> {
    let pattern = day_pattern(rng);
    let days = open_days(rng);
    let on_day = |day| {
        pattern
            .iter()
            .map(move |&(start_us, end_us)| FleetHours { day, start_us, end_us })
    };
    days.into_iter().flat_map(on_day).collect()
}

fn day_pattern(rng: &mut Rng) -> Vec<(i64, i64)> {
    let spelling = if rng.bool() { 59 * SECOND_US } else { 0 };
    let midnight = 23 * HOUR_US + 59 * MINUTE_US + spelling;
    // A time on the half hour.
    let mut half = |from: i64, to: i64| rng.i64(from * 2..=to * 2) * 30 * MINUTE_US;
    let (morning, noon) = (half(6, 11), half(12, 14));
    let (evening, night, small_hours) = (half(18, 23), half(20, 22), half(1, 5));
    match rng.u32(..1_000) {
        0..250 => vec![(0, midnight)], // around the clock, but spelled so
        250..820 => vec![(morning, evening)],
        820..940 => vec![(0, small_hours), (morning, midnight)], // over midnight, in two rows
        940..970 => vec![(morning, noon), (noon + 2 * HOUR_US, evening)], // a break
        970..978 => vec![(morning, noon), (noon, evening)],      // touching
        978..986 => vec![(morning, noon + HOUR_US), (noon, evening)], // overlapping
        986..996 => vec![(night, small_hours)],                  // overnight, in one row
        _ => vec![(morning, morning)],                           // the full 24 hours
    }
}

fn open_days(rng: &mut Rng) -> Vec<u8> {
    match rng.u32(..100) {
        0..81 => (0..7).collect(),
        81..88 => (0..6).collect(), // closed on Sunday
        88..94 => (1..7).collect(), // closed on Monday
        94..98 => (0..5).collect(),
        _ => vec![rng.u8(..7)],
    }
}
