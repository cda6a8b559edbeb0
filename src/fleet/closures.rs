//! The closures of a made-up fleet: a public holiday, and stores that are closed for some days or hours.

use super::FleetOptions;
use super::random::{STREAM_CLOSURES, stream};
use crate::time::{DAY_US, HOUR_US};

/// One store in so many was closed for a while.
const CLOSED_ONE_IN: u32 = 40;
/// Of those, one in so many for some hours only.
const HOURS_ONE_IN: u32 = 3;

/// A closure of a fleet. Wall times are microseconds since 1970-01-01 00:00 of the store's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetClosure {
    /// Index into [`Fleet::stores`](super::Fleet::stores); None: every store.
    pub store: Option<u32>,
    /// Wall time of the first closed moment.
    pub from_us: i64,
    /// Wall time of the first moment after it.
    pub to_us: i64,
    /// Why.
    pub reason: &'static str,
}

/// All closures: the holiday first, then those of single stores by index. They begin in the fleet's days.
pub(super) fn generate(options: &FleetOptions) -> Vec<FleetClosure> {
    let days = i64::from(options.days);
    let last_day_us = options.end.micros().div_euclid(DAY_US) * DAY_US;
    let holiday_us = last_day_us - days / 2 * DAY_US;
    let holiday = FleetClosure {
        store: None,
        from_us: holiday_us,
        to_us: holiday_us + DAY_US,
        reason: "public holiday",
    };
    let of_store = |store| {
        let mut rng = stream(options.seed, STREAM_CLOSURES, u64::from(store), 0);
        if rng.u32(..CLOSED_ONE_IN) > 0 {
            return None;
        }
        let day_us = last_day_us - rng.i64(0..=days) * DAY_US;
        let (from_us, length_us, reason) = if rng.u32(..HOURS_ONE_IN) == 0 {
            (
                day_us + rng.i64(8..18) * HOUR_US,
                rng.i64(1..5) * HOUR_US,
                "stocktaking",
            )
        } else {
            (day_us, rng.i64(1..5) * DAY_US, "renovation")
        };
        Some(FleetClosure {
            store: Some(store),
            from_us,
            to_us: from_us + length_us,
            reason,
        })
    };
    let holiday = (days > 0).then_some(holiday);
    holiday
        .into_iter()
        .chain((0..options.stores).filter_map(of_store))
        .collect()
}
