//! `/api/v1/fleet` and `/api/v1/fleet/history`.

use std::sync::Arc;

use axum::http::Uri;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::{WindowSums, ratio};
use crate::http::problem::Problem;
use crate::http::query::{Given, Param, WINDOWS};
use crate::http::{Api, Asked};
use crate::live::{Feed, HISTORY_HOURS_MAX};
use crate::overview::{Counts, Overview};
use crate::time::Timestamp;
use crate::window::Windows;

/// What `/api/v1/fleet` takes.
pub(in crate::http) const FLEET: &[Param] = &[WINDOWS];

/// What `/api/v1/fleet/history` takes.
pub(in crate::http) const HISTORY: &[Param] = &[Param::new(
    "hours",
    "So many hours, up to a week.",
    || json!({"type": "integer", "minimum": 1, "maximum": HISTORY_HOURS_MAX, "default": HISTORY_HOURS}),
)];

const HISTORY_HOURS: usize = 24;

/// Whether the numbers are the present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(in crate::http) struct FeedAnswer {
    /// Whether the daemon follows and does not lag.
    pub(in crate::http) ready: bool,
    /// If not, why.
    pub(in crate::http) reason: Option<String>,
    /// How long ago memory was last known to be the present; null: never yet.
    pub(in crate::http) lag_us: Option<u64>,
}

/// All stores at an instant, but for their sums.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::http) struct FleetNow {
    /// The instant that the numbers are of.
    pub(in crate::http) as_of: Timestamp,
    /// The newest observation that is counted.
    pub(in crate::http) newest: Option<Timestamp>,
    /// How many stores there are.
    pub(in crate::http) stores: u64,
    /// How many of them do what.
    pub(in crate::http) counts: Counts,
    /// `online` / (`online` + `offline`).
    #[schemars(range(min = 0, max = 1))]
    pub(in crate::http) uptime_now: Option<f64>,
    /// An open store that was not observed for longer is silent.
    pub(in crate::http) silent_after_us: i64,
    /// Whether the numbers are the present.
    pub(in crate::http) feed: FeedAnswer,
}

/// All stores at an instant.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::http) struct Fleet {
    /// What they do.
    #[serde(flatten)]
    pub(in crate::http) now: FleetNow,
    /// Sums over all stores.
    pub(in crate::http) windows: WindowSums,
}

/// One UTC hour of the fleet.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub(in crate::http) struct HistoryPoint {
    /// Its first instant.
    pub(in crate::http) start: Timestamp,
    /// Sums over all stores.
    #[serde(flatten)]
    pub(in crate::http) sum: super::Window,
}

/// The fleet by UTC hours.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::http) struct History {
    /// The instant that they end before.
    pub(in crate::http) as_of: Timestamp,
    /// The length of a point.
    pub(in crate::http) step: HistoryStep,
    /// Oldest first. A store's clock hour counts to the UTC hour in which it begins; the last point is one of which all
    /// clock hours are over.
    pub(in crate::http) points: Vec<HistoryPoint>,
}

/// The length of a point.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum HistoryStep {
    /// An hour.
    Hour,
}

impl From<Feed> for FeedAnswer {
    fn from(feed: Feed) -> Self {
        FeedAnswer {
            ready: feed.fault.is_none(),
            reason: feed.fault,
            lag_us: feed.lag.map(|lag| u64::try_from(lag.as_micros()).unwrap_or(u64::MAX)),
        }
    }
}

impl FleetNow {
    pub(in crate::http) fn of(overview: &Overview, feed: Feed) -> Self {
        let counts = overview.counts();
        let known = i128::from(counts.online) + i128::from(counts.offline);
        FleetNow {
            as_of: overview.asked().as_of,
            newest: overview.snapshot().newest(),
            stores: overview.snapshot().len() as u64,
            counts,
            uptime_now: ratio(counts.online.into(), known),
            silent_after_us: overview.asked().silent_after_us,
            feed: feed.into(),
        }
    }
}

/// All stores at an instant.
pub(in crate::http) async fn fleet(api: &Api, windows: Windows) -> Result<Fleet, Problem> {
    let overview: Arc<Overview> = api.live.overview(windows).await?;
    Ok(Fleet {
        now: FleetNow::of(&overview, api.live.feed()),
        windows: overview.totals().into(),
    })
}

/// The last UTC hours of the fleet.
pub(in crate::http) async fn history(api: &Api, hours: usize) -> Result<History, Problem> {
    let history = api.live.history().await?;
    let skipped = history.hours.len().saturating_sub(hours);
    let points = history.hours.iter().skip(skipped);
    Ok(History {
        as_of: history.as_of,
        step: HistoryStep::Hour,
        points: points
            .map(|&(start, sum)| HistoryPoint { start, sum: sum.into() })
            .collect(),
    })
}

/// The windows of a request that takes nothing else; rolling by default.
pub(in crate::http) fn windows(uri: &Uri) -> Result<Windows, Problem> {
    Ok(Given::read(uri, FLEET)?.parsed("windows")?.unwrap_or(Windows::Rolling))
}

pub(in crate::http) async fn get_fleet(api: Api, asked: Asked) -> Result<Fleet, Problem> {
    fleet(&api, windows(&asked.uri)?).await
}

pub(in crate::http) async fn get_history(api: Api, asked: Asked) -> Result<History, Problem> {
    let hours = Given::read(&asked.uri, HISTORY)?.number("hours", 1..=HISTORY_HOURS_MAX)?;
    history(&api, hours.unwrap_or(HISTORY_HOURS)).await
}
