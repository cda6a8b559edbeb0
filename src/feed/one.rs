//! One store alone, from its raw rows: what is shown of a single store reaches back as far as is asked for, and says what
//! was observed, so the rows are read anyway.

use futures_util::future::try_join;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::raw::StoreSchedules;
use super::{Reading, observation};
use crate::db::DbError;
use crate::rollup::{Limits, Observation, Rollup};
use crate::schedule::Schedule;
use crate::time::{Span, Timestamp};

/// A stretch, and the latest observation before it.
const STRETCH: &str = "
    (SELECT timestamp_utc, status FROM public.store_activity
     WHERE store_id = $1 AND timestamp_utc < $2 ORDER BY timestamp_utc DESC LIMIT 1)
    UNION ALL
    (SELECT timestamp_utc, status FROM public.store_activity
     WHERE store_id = $1 AND timestamp_utc >= $2 AND timestamp_utc < $3)
    ORDER BY 1";

const NEWEST: &str = "
    SELECT timestamp_utc, status FROM public.store_activity
    WHERE store_id = $1 AND timestamp_utc < $2 ORDER BY timestamp_utc DESC LIMIT $3";

/// What the tables have of one store.
#[derive(Debug)]
pub struct StoreRows {
    /// Its id.
    pub store_id: String,
    /// Its zone, hours and closures.
    pub schedule: Schedule,
    /// The observations of a stretch, and the last one before it, in order of time.
    pub observations: Vec<Observation>,
}

impl StoreRows {
    /// The rollup of this store alone, whose cells are right within the stretch that was read. `now`: observations dated
    /// an hour or more after it do not count.
    pub fn rollup(&self, stretch: Span, now: Timestamp) -> Rollup {
        let limits = Limits {
            // What was asked for is kept, however old.
            retention_us: Timestamp::MAX.since(Timestamp::MIN),
            track_dirty: false,
            keep_from: Some(stretch.start),
        };
        let mut rollup = Rollup::new(limits, now);
        let store = rollup.enroll(&self.store_id, &self.schedule);
        let observations = self.observations.iter();
        let mut rows: Vec<_> = observations.map(|&observation| (store, observation)).collect();
        let late = rollup.apply(&mut rows);
        debug_assert!(late.is_empty(), "in order nothing is late");
        rollup
    }
}

impl Reading<'_> {
    /// A store's schedule. None if no table knows the store.
    pub async fn schedule_of(&self, store_id: &str) -> Result<Option<Schedule>, DbError> {
        let ids = [store_id.to_owned()];
        let (unknown, schedules) = try_join(self.unknown_stores(ids.iter()), self.schedules(Some(&ids))).await?;
        let StoreSchedules { mut known, default } = schedules;
        Ok(unknown.is_empty().then(|| known.remove(store_id).unwrap_or(default)))
    }

    /// A store's observations in a stretch, and the last one before it, in order of time.
    pub async fn observations_of(&self, store_id: &str, stretch: Span) -> Result<Vec<Observation>, DbError> {
        let statement = self.statement(STRETCH).await?;
        let parameters: [&(dyn ToSql + Sync); 3] = [&store_id, &stretch.start, &stretch.end];
        observations(&self.transaction.query(&statement, &parameters).await?)
    }

    /// The newest observations of a store before an instant, newest first.
    pub async fn newest_of(&self, store_id: &str, before: Timestamp, count: i64) -> Result<Vec<Observation>, DbError> {
        let statement = self.statement(NEWEST).await?;
        let parameters: [&(dyn ToSql + Sync); 3] = [&store_id, &before, &count];
        observations(&self.transaction.query(&statement, &parameters).await?)
    }
}

fn observations(rows: &[Row]) -> Result<Vec<Observation>, DbError> {
    let read = |row: &Row| Ok(observation(row.try_get(0)?, row.try_get(1)?));
    rows.iter().map(read).collect()
}
