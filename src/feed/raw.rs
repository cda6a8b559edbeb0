//! Reading stores from the raw tables: stretches of their timelines, their hours, closures and zones.

use chrono_tz::Tz;
use futures_util::{TryStreamExt, pin_mut};
use rustc_hash::FxHashMap;
use tokio_postgres::types::ToSql;

use super::{Reading, observation};
use crate::db::{DbError, LocalTime, WallTime};
use crate::rollup::{Observation, ReadBack, Rollup};
use crate::schedule::{Closure, Closures, DEFAULT_ZONE, Interval, Schedule, WeeklyHours};
use crate::store::EVERY_STORE;
use crate::time::Timestamp;

/// What each read-back asks for: the latest observation before it, and from there on to the end or to
/// one hour past the first observation after it, which covers that observation's cell.
const READ_BACK: &str = "
    SELECT q.n::int, o.timestamp_utc, o.status
    FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::bool[]) WITH ORDINALITY
             AS q (store_id, read_from, changed_to, to_the_end, n)
    CROSS JOIN LATERAL (
        (SELECT a.timestamp_utc, a.status FROM public.store_activity a
         WHERE a.store_id = q.store_id AND a.timestamp_utc < q.read_from
         ORDER BY a.timestamp_utc DESC LIMIT 1)
        UNION ALL
        (SELECT a.timestamp_utc, a.status FROM public.store_activity a
         WHERE a.store_id = q.store_id AND a.timestamp_utc >= q.read_from
           AND a.timestamp_utc < CASE WHEN q.to_the_end THEN 'infinity' ELSE (
               SELECT coalesce(min(b.timestamp_utc) + interval '1 hour', 'infinity') FROM public.store_activity b
               WHERE b.store_id = q.store_id AND b.timestamp_utc > q.changed_to) END)
    ) o
    ORDER BY q.n, o.timestamp_utc";

const OBSERVATIONS: &str = "
    SELECT q.n::int, a.timestamp_utc, a.status
    FROM unnest($1::text[]) WITH ORDINALITY AS q (store_id, n)
    JOIN public.store_activity a ON a.store_id = q.store_id
    ORDER BY q.n, a.timestamp_utc";

/// The schedules of stores, as the tables say.
#[derive(Debug)]
pub struct StoreSchedules {
    /// Of those that have hours, closures or a zone of their own.
    pub known: FxHashMap<String, Schedule>,
    /// Of all others.
    pub default: Schedule,
}

impl Reading<'_> {
    /// Of these stores, the ones that no table knows.
    pub(super) async fn unknown_stores(&self, ids: impl Iterator<Item = &String>) -> Result<Vec<String>, DbError> {
        let ids: Vec<&String> = ids.collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = "SELECT q.store_id FROM unnest($1::text[]) AS q (store_id)
                   WHERE NOT EXISTS (SELECT FROM public.store_activity a WHERE a.store_id = q.store_id)
                     AND NOT EXISTS (SELECT FROM public.store_business_hours h WHERE h.store_id = q.store_id)
                     AND NOT EXISTS (SELECT FROM public.store_timezones z WHERE z.store_id = q.store_id)
                     AND NOT EXISTS (SELECT FROM public.store_closures c
                                     WHERE c.store_id = q.store_id AND c.store_id <> '*')";
        let statement = self.statement(sql).await?;
        let rows = self.transaction.query(&statement, &[&ids]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Reads stretches back and splices them in.
    pub(super) async fn read_back(&self, read_backs: &[ReadBack], rollup: &mut Rollup) -> Result<(), DbError> {
        let ids = read_backs
            .iter()
            .map(|r| rollup.id(r.store).unwrap_or_default().to_owned());
        let ids: Vec<String> = ids.collect();
        let from: Vec<Timestamp> = read_backs.iter().map(|r| r.read_from).collect();
        let to: Vec<Timestamp> = read_backs.iter().map(|r| r.to).collect();
        let to_the_end: Vec<bool> = read_backs.iter().map(|r| r.to_the_end).collect();
        let parameters: [&(dyn ToSql + Sync); 4] = [&ids, &from, &to, &to_the_end];
        self.grouped(READ_BACK, &parameters, read_backs, |read_back, observations| {
            rollup.splice(*read_back, observations);
        })
        .await
    }

    /// Reads the hours, closures, zone and whole history of stores and gives them to the rollup.
    pub(super) async fn reschedule(&self, ids: &[String], rollup: &mut Rollup) -> Result<(), DbError> {
        let schedules = self.schedules(Some(ids)).await?;
        self.grouped(OBSERVATIONS, &[&ids], ids, |id, observations| {
            let store = rollup.intern(id);
            let schedule = schedules.known.get(id).unwrap_or(&schedules.default);
            rollup.reschedule(store, schedule, observations);
        })
        .await
    }

    /// Rows `(n, timestamp_utc, status)` of a query, ordered. `each` gets every item of `groups` in turn, the first for
    /// `n` = 1, with its rows; those of one item at a time are in memory: a store's history may be long.
    async fn grouped<T>(
        &self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
        groups: &[T],
        mut each: impl FnMut(&T, &[Observation]),
    ) -> Result<(), DbError> {
        if groups.is_empty() {
            return Ok(());
        }
        let statement = self.statement(sql).await?;
        let rows = self
            .transaction
            .query_raw(&statement, parameters.iter().copied())
            .await?;
        pin_mut!(rows);
        let mut observations = Vec::new();
        let mut number = 1;
        let mut remaining = groups.iter();
        while let Some(row) = rows.try_next().await? {
            let n: i32 = row.try_get(0)?;
            while number < n {
                if let Some(group) = remaining.next() {
                    each(group, &observations);
                }
                observations.clear();
                number += 1;
            }
            observations.push(observation(row.try_get(1)?, row.try_get(2)?));
        }
        for group in remaining {
            each(group, &observations);
            observations.clear();
        }
        Ok(())
    }

    /// The schedules of all stores, or of some.
    pub async fn schedules(&self, only: Option<&[String]>) -> Result<StoreSchedules, DbError> {
        let mut zones = self.zones(only).await?;
        let hours = self.hours(only).await?;
        let mut closures = self.closures(only).await?;
        let everywhere = closures.remove(EVERY_STORE).unwrap_or_default();
        // One list for all stores that have none of their own.
        let for_all: Closures = everywhere.iter().copied().collect();
        let mut closed = |id: &str| match closures.remove(id) {
            Some(own) => own.into_iter().chain(everywhere.iter().copied()).collect(),
            None => for_all.clone(),
        };
        let mut known: FxHashMap<String, Schedule> = FxHashMap::default();
        for (id, intervals) in hours {
            let zone = zones.remove(&id).unwrap_or(DEFAULT_ZONE);
            let schedule = Schedule::new(zone, intervals.into_iter().collect()).with_closures(closed(&id));
            known.insert(id, schedule);
        }
        let always = |zone| Schedule::new(zone, WeeklyHours::always_open());
        for (id, zone) in zones {
            let schedule = always(zone).with_closures(closed(&id));
            known.insert(id, schedule);
        }
        let default = always(DEFAULT_ZONE).with_closures(for_all);
        for (id, own) in closures {
            let all = own.into_iter().chain(everywhere.iter().copied()).collect();
            known.insert(id, default.with_closures(all));
        }
        Ok(StoreSchedules { known, default })
    }

    /// The schedule of stores of which only observations are known.
    pub async fn default_schedule(&self) -> Result<Schedule, DbError> {
        Ok(self.schedules(Some(&[])).await?.default)
    }

    async fn zones(&self, only: Option<&[String]>) -> Result<FxHashMap<String, Tz>, DbError> {
        let mut zones: FxHashMap<String, Tz> = FxHashMap::default();
        let sql =
            "SELECT store_id, timezone_str FROM public.store_timezones WHERE $1::text[] IS NULL OR store_id = ANY ($1)";
        let rows = self.transaction.query_raw(sql, [&only]).await?;
        pin_mut!(rows);
        while let Some(row) = rows.try_next().await? {
            let (id, name): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
            // The foreign key lets only names in that some version of this program knew.
            let zone = name.parse().unwrap_or_else(|_| {
                tracing::warn!(
                    store_id = id,
                    zone = name,
                    "a time zone is not known any more; the default is used"
                );
                DEFAULT_ZONE
            });
            zones.insert(id.to_owned(), zone);
        }
        Ok(zones)
    }

    async fn hours(&self, only: Option<&[String]>) -> Result<FxHashMap<String, Vec<Interval>>, DbError> {
        let mut hours = FxHashMap::default();
        let sql = "SELECT store_id, day, start_time_local, end_time_local FROM public.store_business_hours
                   WHERE $1::text[] IS NULL OR store_id = ANY ($1)";
        let rows = self.transaction.query_raw(sql, [&only]).await?;
        pin_mut!(rows);
        while let Some(row) = rows.try_next().await? {
            let (start, end): (WallTime, WallTime) = (row.try_get(2)?, row.try_get(3)?);
            let day = u8::try_from(row.try_get::<_, i16>(1)?).unwrap_or(u8::MAX);
            // The table's CHECKs say what Interval::new asks for.
            if let Some(interval) = Interval::new(day, start.0, end.0) {
                push(&mut hours, row.try_get(0)?, interval);
            }
        }
        Ok(hours)
    }

    /// Always with those of [`EVERY_STORE`].
    async fn closures(&self, only: Option<&[String]>) -> Result<FxHashMap<String, Vec<Closure>>, DbError> {
        let mut closures = FxHashMap::default();
        let sql = "SELECT store_id, closed_from, closed_to FROM public.store_closures
                   WHERE $1::text[] IS NULL OR store_id = ANY ($1) OR store_id = '*'";
        let rows = self.transaction.query_raw(sql, [&only]).await?;
        pin_mut!(rows);
        while let Some(row) = rows.try_next().await? {
            let (from, to): (LocalTime, LocalTime) = (row.try_get(1)?, row.try_get(2)?);
            // The table's CHECKs say what Closure::new asks for.
            if let Some(closure) = Closure::new(from.0, to.0) {
                push(&mut closures, row.try_get(0)?, closure);
            }
        }
        Ok(closures)
    }
}

/// Adds to a store's list; its id is copied for the first item only.
fn push<T>(lists: &mut FxHashMap<String, Vec<T>>, id: &str, item: T) {
    match lists.get_mut(id) {
        Some(list) => list.push(item),
        None => drop(lists.insert(id.to_owned(), vec![item])),
    }
}
