//! The API, version 1: what is asked for over HTTP and what is answered.
//!
//! Each request has a function that takes the [`Api`](super::Api) and what was asked for, and returns the answer as a value:
//! the routes serialize it, pages show it. Instants are RFC 3339 in UTC, durations microseconds; `uptime` is a part of 1
//! with six decimals, and null where there was no opening time.

pub(super) mod activity;
pub(super) mod fleet;
pub(super) mod reports;
pub(super) mod stores;

use std::borrow::Cow;

use axum::http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use super::problem::Problem;
use super::{database_away, not_ready};
use crate::live::LiveError;
use crate::rollup::{Observation, OpenDown};
use crate::store::Status;
use crate::time::Timestamp;

/// Opening time of a stretch, and what was up and down of it.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub(super) struct Window {
    /// Opening time.
    pub(super) open_us: i64,
    /// Time of it in which the store was active.
    pub(super) up_us: i64,
    /// Time of it in which the store was inactive.
    pub(super) down_us: i64,
    /// `up_us` / `open_us`.
    #[schemars(range(min = 0, max = 1))]
    pub(super) uptime: Option<f64>,
}

/// The windows that count back from the instant of an answer.
#[allow(clippy::struct_field_names, reason = "they are those of the answer")]
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub(super) struct WindowSums {
    /// The last full clock hour.
    pub(super) last_hour: Window,
    /// The last day.
    pub(super) last_day: Window,
    /// The last week.
    pub(super) last_week: Window,
}

/// What a poll found, and when.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub(super) struct Observed {
    /// When.
    pub(super) at: Timestamp,
    /// What.
    pub(super) status: Status,
}

impl From<OpenDown> for Window {
    fn from(sum: OpenDown) -> Self {
        Window {
            open_us: sum.open_us,
            up_us: sum.up_us(),
            down_us: sum.down_us,
            uptime: ratio(i128::from(sum.up_us()), i128::from(sum.open_us)),
        }
    }
}

impl From<[OpenDown; 3]> for WindowSums {
    fn from([hour, day, week]: [OpenDown; 3]) -> Self {
        WindowSums {
            last_hour: hour.into(),
            last_day: day.into(),
            last_week: week.into(),
        }
    }
}

impl From<Observation> for Observed {
    fn from(Observation { at, status }: Observation) -> Self {
        Observed { at, status }
    }
}

/// A part of a whole with six decimals, half away from zero; None of nothing. Both at least 0, the part not more than the
/// whole.
pub(super) fn ratio(part: i128, whole: i128) -> Option<f64> {
    let millionths = (whole > 0).then(|| (part * 1_000_000 + whole / 2) / whole)?;
    // At most a million.
    let millionths = u32::try_from(millionths).ok()?;
    Some(f64::from(millionths) / 1e6)
}

impl From<LiveError> for Problem {
    fn from(error: LiveError) -> Self {
        match error {
            LiveError::NotFollowing(reason) => not_ready(reason),
            LiveError::Db(error) => database_away(&error),
            LiveError::BrokeOff => Problem::plain(StatusCode::INTERNAL_SERVER_ERROR, "an internal error"),
        }
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "pattern": "Z$"})
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "they are what was written, digit by digit")]

    use super::*;

    #[test]
    fn a_ratio_has_six_decimals_half_away_from_zero() {
        assert_eq!(ratio(0, 0), None);
        assert_eq!(ratio(0, 7), Some(0.0));
        assert_eq!(ratio(7, 7), Some(1.0));
        assert_eq!(ratio(2, 3), Some(0.666_667));
        assert_eq!(ratio(1, 2_000_000), Some(0.000_001));
        assert_eq!(ratio(1, 2_000_001), Some(0.0));
        // A million stores, a week.
        let whole = 1_000_000 * 168 * 3_600_000_000;
        assert_eq!(ratio(whole - 1, whole), Some(1.0));
    }
}
