//! One store, read from its raw rows in one transaction and computed by the code that keeps the rollup: everything that is
//! said of it is of one point, and it costs the daemon nothing.

use schemars::JsonSchema;
use serde::Serialize;

use crate::db::DbError;
use crate::feed::{Reading, Scope, StoreRows};
use crate::overview::{Asked, Overview, State};
use crate::report::DaysNotCovered;
use crate::rollup::{FUTURE_MAX_US, Observation, OpenDown, days_in};
use crate::schedule::{Schedule, Zone};
use crate::time::{DAY_US, HOUR_US, Span, Timestamp};
use crate::window::{DateRange, ParseChoiceError, WINDOW_REACH_US, Windows};

use super::{Live, LiveError, blocking};

/// Observations that are shown of a store.
const OBSERVATIONS_SHOWN: i64 = 50;

/// Buckets of one answer at most.
pub const BUCKETS_MAX: usize = 10_000;

/// The stretch that is answered where none is asked for.
const STRETCH_US: i64 = 7 * DAY_US;

/// All that is known of one store now.
#[derive(Debug)]
pub struct StoreDetail {
    /// The instant that it is of.
    pub as_of: Timestamp,
    /// Its id.
    pub store_id: String,
    /// What it does.
    pub state: State,
    /// Its zone and hours.
    pub schedule: Schedule,
    /// Its newest observation.
    pub last: Option<Observation>,
    /// Hour, day, week.
    pub windows: [OpenDown; 3],
    /// When it next opens or closes, see [`Schedule::next_change`].
    pub next_change: Option<Timestamp>,
    /// First instant with buckets, of any store; None without observations.
    pub covered_from: Option<Timestamp>,
    /// The newest observations, newest first.
    pub observations: Vec<Observation>,
}

/// How long a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// An hour of the store's clock.
    #[default]
    Hour,
    /// A local day of the store.
    Day,
}

impl Step {
    /// The word in queries and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Step::Hour => "hour",
            Step::Day => "day",
        }
    }
}

impl std::str::FromStr for Step {
    type Err = ParseChoiceError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "hour" => Ok(Step::Hour),
            "day" => Ok(Step::Day),
            _ => Err(ParseChoiceError("hour or day")),
        }
    }
}

/// A store's buckets that overlap a stretch and are over.
#[derive(Debug)]
pub struct Buckets {
    /// The instant at which they are over.
    pub as_of: Timestamp,
    /// The store's zone.
    pub zone: Zone,
    /// From the first bucket's start to the last one's end.
    pub stretch: Span,
    /// Oldest first.
    pub buckets: Vec<Bucket>,
}

/// A store's opening time and downtime over whole local days.
#[derive(Debug)]
pub struct StoreDays {
    /// The instant up to which they count, if they are not over.
    pub as_of: Timestamp,
    /// The store's zone.
    pub zone: Zone,
    /// From the first day's beginning to the last one's end, or to the last full clock hour before `as_of`.
    pub stretch: Span,
    /// What was in it.
    pub sum: OpenDown,
}

/// One bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Its first instant.
    pub start: Timestamp,
    /// What was in it.
    pub sum: OpenDown,
    /// How often the store was observed in it.
    pub observations: u64,
}

/// Why there are no buckets.
#[derive(Debug, thiserror::Error)]
pub enum BucketsError {
    /// The stretch begins before the first bucket that is kept.
    #[error("expected an instant from {earliest} on, found {from}")]
    NotCovered {
        /// What was asked for.
        from: Timestamp,
        /// The first instant with buckets.
        earliest: Timestamp,
    },
    /// The stretch ends before it begins.
    #[error("expected an instant from {from} on, found {to}")]
    Backwards {
        /// Its beginning.
        from: Timestamp,
        /// Its end.
        to: Timestamp,
    },
    /// The days lie outside what is kept, or in the future.
    #[error(transparent)]
    DaysNotCovered(#[from] DaysNotCovered),
    /// The stretch has too many.
    #[error("expected a stretch of at most {BUCKETS_MAX} buckets, found {0}")]
    TooMany(usize),
    /// Nothing can be said of any store.
    #[error(transparent)]
    Live(#[from] LiveError),
}

impl From<DbError> for BucketsError {
    fn from(error: DbError) -> Self {
        BucketsError::Live(error.into())
    }
}

impl Live {
    /// One store now. None if no table knows it.
    pub async fn store(&self, store_id: &str, windows: Windows) -> Result<Option<StoreDetail>, LiveError> {
        let status = self.following()?;
        let asked = Asked {
            as_of: self.present().await?,
            windows,
            silent_after_us: self.settings().silent_after_us(),
        };
        let now = self.0.clock.now();
        // To the last instant of all: observations of the future are not counted, whoever reads them.
        let stretch = Span::new(asked.as_of.plus(-WINDOW_REACH_US), Timestamp::MAX);
        let mut session = self.sessions().lend().await?;
        let reading = Reading::start(&mut session, Scope::Inputs).await?;
        let Some(schedule) = reading.schedule_of(store_id).await? else {
            drop(reading);
            session.give_back();
            return Ok(None);
        };
        let observations = reading.observations_of(store_id, stretch).await?;
        let limit = now.plus(FUTURE_MAX_US);
        let newest = reading.newest_of(store_id, limit, OBSERVATIONS_SHOWN).await?;
        reading.finish();
        session.give_back();
        let rows = StoreRows {
            store_id: store_id.to_owned(),
            schedule,
            observations,
        };
        let detail = move || {
            let overview = Overview::new(rows.rollup(stretch, now).snapshot(), asked);
            let store = overview.store(0)?;
            Some(StoreDetail {
                as_of: asked.as_of,
                store_id: store.id.to_owned(),
                state: store.state,
                last: store.last,
                windows: store.windows,
                next_change: rows.schedule.next_change(asked.as_of),
                covered_from: status.covers_from,
                observations: newest,
                schedule: rows.schedule,
            })
        };
        blocking(detail).await
    }

    /// A store over whole local days. None if no table knows it.
    pub async fn days(&self, store_id: &str, days: DateRange) -> Result<Option<StoreDays>, BucketsError> {
        let status = self.following()?;
        let (as_of, now) = (self.present().await?, self.0.clock.now());
        DaysNotCovered::check(days, status.first_day, as_of)?;
        let mut session = self.sessions().lend().await?;
        let reading = Reading::start(&mut session, Scope::Inputs).await?;
        let Some(schedule) = reading.schedule_of(store_id).await? else {
            drop(reading);
            session.give_back();
            return Ok(None);
        };
        let zone = schedule.zone();
        let stretch = days_in(zone, days, as_of);
        let observations = reading.observations_of(store_id, stretch).await?;
        reading.finish();
        session.give_back();
        let rows = StoreRows {
            store_id: store_id.to_owned(),
            schedule,
            observations,
        };
        let compute = move || {
            let sums = buckets(&rows, stretch, &[stretch.start, stretch.end], now);
            StoreDays {
                as_of,
                zone,
                stretch,
                sum: sums.first().map_or_else(OpenDown::default, |bucket| bucket.sum),
            }
        };
        Ok(Some(blocking(compute).await?))
    }

    /// A store's buckets between two instants; by default of the last seven days. None if no table knows it.
    pub async fn buckets(
        &self,
        store_id: &str,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
        step: Step,
    ) -> Result<Option<Buckets>, BucketsError> {
        let status = self.following()?;
        let as_of = self.present().await?;
        let to = to.unwrap_or(as_of);
        let earliest = status.covers_from.unwrap_or(Timestamp::MIN);
        let from = from.unwrap_or_else(|| to.plus(-STRETCH_US).max(earliest.min(to)));
        if to < from {
            return Err(BucketsError::Backwards { from, to });
        }
        if from < earliest {
            return Err(BucketsError::NotCovered { from, earliest });
        }
        let now = self.0.clock.now();
        let mut session = self.sessions().lend().await?;
        let reading = Reading::start(&mut session, Scope::Inputs).await?;
        let Some(schedule) = reading.schedule_of(store_id).await? else {
            drop(reading);
            session.give_back();
            return Ok(None);
        };
        let zone = schedule.zone();
        let edges = edges(zone, Span::new(from, to.min(as_of)), as_of, step);
        let count = edges.len().saturating_sub(1);
        if count > BUCKETS_MAX {
            drop(reading);
            session.give_back();
            return Err(BucketsError::TooMany(count));
        }
        let (start, end) = edges.first().zip(edges.last()).map_or((from, from), |(a, b)| (*a, *b));
        let stretch = Span::new(start, end);
        let observations = reading.observations_of(store_id, stretch).await?;
        reading.finish();
        session.give_back();
        let rows = StoreRows {
            store_id: store_id.to_owned(),
            schedule,
            observations,
        };
        let compute = move || Buckets {
            as_of,
            zone,
            stretch,
            buckets: buckets(&rows, stretch, &edges, now),
        };
        Ok(Some(blocking(compute).await?))
    }
}

fn buckets(rows: &StoreRows, stretch: Span, edges: &[Timestamp], now: Timestamp) -> Vec<Bucket> {
    let snapshot = rows.rollup(stretch, now).snapshot();
    let sums = snapshot.stores().next().map(|store| store.between(edges));
    let starts = edges.iter().zip(sums.unwrap_or_default());
    let mut buckets: Vec<Bucket> = starts
        .map(|(&start, sum)| Bucket {
            start,
            sum,
            observations: 0,
        })
        .collect();
    for observation in &rows.observations {
        let place = edges.partition_point(|&edge| edge <= observation.at).checked_sub(1);
        if let Some(bucket) = place.and_then(|i| buckets.get_mut(i)) {
            bucket.observations += 1;
        }
    }
    buckets
}

/// The edges of the buckets that overlap a stretch and are over at `as_of`. Fewer than two: there are none.
fn edges(zone: Zone, stretch: Span, as_of: Timestamp, step: Step) -> Vec<Timestamp> {
    let mut edges = Vec::new();
    if stretch.is_empty() {
        return edges;
    }
    let mut add = |edge: Timestamp| {
        if edge <= as_of {
            edges.push(edge);
        }
    };
    match step {
        Step::Hour => {
            let mut edge = zone.grid().hour_start(stretch.start);
            while edge < stretch.end {
                add(edge);
                edge = edge.plus(HOUR_US);
            }
            add(edge);
        }
        Step::Day => {
            let mut date = zone.local_date(stretch.start);
            while zone.day_start(date) < stretch.end
                && let Some(next) = date.succ_opt()
            {
                add(zone.day_start(date));
                date = next;
            }
            add(zone.day_start(date));
        }
    }
    // A day that a zone leaves out has no length.
    edges.dedup();
    edges
}
