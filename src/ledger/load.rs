//! Reading the rollup back: at start, for a report without a daemon, for `verify`.

use chrono::NaiveDate;
use chrono_tz::Tz;
use futures_util::{TryStreamExt, pin_mut};

use super::{Identity, layout};
use crate::db::DbError;
use crate::db::wiring::Wiring;
use crate::feed::{Cursor, Reading};
use crate::rollup::{AHEAD_MAX_US, Limits, Observation, Rollup, StoreNo};
use crate::schedule::{Closures, Schedule, WeeklyHours};
use crate::store::Status;
use crate::time::Timestamp;

/// How far the tables are.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The point; None: never built.
    pub cursor: Option<Cursor>,
    /// See [`layout`].
    pub layout: String,
    /// The database that the rows were made in; None: never built.
    pub identity: Option<Identity>,
    /// First instant with cells.
    pub covers_from: Option<Timestamp>,
    /// Latest observation that is counted.
    pub newest: Option<Timestamp>,
    /// Whether earlier cells were dropped.
    pub truncated: bool,
    /// The last day that has running sums.
    pub summed_to: Option<NaiveDate>,
    /// See [`DaySums::revision`](crate::rollup::DaySums::revision).
    pub revision: i64,
    /// When it was read, by the database's clock.
    pub read_at: Timestamp,
    /// Marks of the wiring that the rows were made over, see [`Wiring::marks`]; None: not known.
    pub wiring: Option<Vec<String>>,
}

impl Checkpoint {
    /// Reads the checkpoint row.
    pub async fn read(reading: &Reading<'_>) -> Result<Self, DbError> {
        let row = reading
            .transaction()
            .query_one(
                "SELECT cursor::text, layout, system_identifier, database_oid, activity_oid, timeline, covers_from,
                        newest, truncated, wiring, pg_catalog.clock_timestamp(), summed_to::text, revision
                 FROM uptally.checkpoint",
                &[],
            )
            .await?;
        let cursor: Option<&str> = row.try_get(0)?;
        let cursor = cursor.map(str::parse).transpose();
        let identity = match (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?) {
            (Some(system_identifier), Some(database_oid), Some(activity_oid), Some(timeline)) => Some(Identity {
                system_identifier,
                database_oid,
                activity_oid,
                timeline,
            }),
            _ => None,
        };
        Ok(Checkpoint {
            cursor: cursor.map_err(|_| DbError::Unexpected("uptally.checkpoint has a cursor that is none".into()))?,
            layout: row.try_get(1)?,
            identity,
            covers_from: row.try_get(6)?,
            newest: row.try_get(7)?,
            truncated: row.try_get(8)?,
            wiring: row.try_get(9)?,
            read_at: row.try_get(10)?,
            summed_to: super::days::date(row.try_get(11)?),
            revision: row.try_get(12)?,
        })
    }

    /// The cursor, if the rows may be continued from it; else why they must be made anew.
    fn usable(
        &self,
        identity: &Identity,
        wiring: Option<&Wiring>,
        reading: &Reading<'_>,
        now: Timestamp,
    ) -> Result<&Cursor, Unusable> {
        let Some(cursor) = &self.cursor else {
            return Err(Unusable::NoneYet);
        };
        if self.layout != layout() {
            return Err(Unusable::Layout);
        }
        if !self.identity.is_some_and(|made_in| made_in.continues(identity)) {
            return Err(Unusable::Identity);
        }
        if cursor.xmax() > reading.cursor().xmax() {
            return Err(Unusable::Future);
        }
        // By both clocks: one alone may be behind.
        if self.newest >= Some(now.max(self.read_at).plus(AHEAD_MAX_US)) {
            return Err(Unusable::Ahead);
        }
        let made_over = self.wiring.as_deref().unwrap_or_default();
        let touched = wiring.map_or_else(Vec::new, |wiring| wiring.touched_since(made_over));
        if !touched.is_empty() {
            return Err(Unusable::Touched(touched.join(", ")));
        }
        Ok(cursor)
    }
}

/// Why the rows cannot be used, and must be made anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Never built.
    #[error("there is none yet")]
    NoneYet,
    /// See [`layout`].
    #[error("it was made by another version, or with other time zone data")]
    Layout,
    /// See [`Identity::continues`].
    #[error("it was made in another database, or store_activity was made anew")]
    Identity,
    /// Its transactions have not happened here.
    #[error("its cursor lies in the future: the database was restored")]
    Future,
    /// Observations count whose time has not come, by both clocks.
    #[error("it counts observations of the future: a clock ran ahead")]
    Ahead,
    /// Names what was touched.
    #[error("these were touched since it was made, and rows may have come unseen: {0}")]
    Touched(String),
    /// Somebody else wrote into our tables.
    #[error("it has a schedule that cannot be read")]
    Schedule,
}

/// A rollup as the tables have it.
#[derive(Debug)]
pub struct Loaded {
    /// The rollup, at `cursor`.
    pub rollup: Rollup,
    /// The point.
    pub cursor: Cursor,
}

impl Loaded {
    /// Loads the rollup. `Err` inside: it cannot be used. Rows of the future whose time has come meanwhile are
    /// held still: they are read with the first delta, for which the clock is set.
    pub async fn load(
        reading: &Reading<'_>,
        limits: Limits,
        now: Timestamp,
    ) -> Result<Result<Loaded, Unusable>, DbError> {
        let wiring = reading.wiring().await?;
        Self::load_over(Some(&wiring), reading, limits, now).await
    }

    /// The same even if the wiring was touched and rows may have come unseen: for whoever finds out whether any did.
    pub async fn load_untrusted(
        reading: &Reading<'_>,
        limits: Limits,
        now: Timestamp,
    ) -> Result<Result<Loaded, Unusable>, DbError> {
        Self::load_over(None, reading, limits, now).await
    }

    async fn load_over(
        wiring: Option<&Wiring>,
        reading: &Reading<'_>,
        limits: Limits,
        now: Timestamp,
    ) -> Result<Result<Loaded, Unusable>, DbError> {
        let checkpoint = Checkpoint::read(reading).await?;
        let identity = Identity::read(reading.transaction()).await?;
        if let Some(made_in) = checkpoint.identity
            && made_in.continues(&identity)
            && made_in.timeline != identity.timeline
        {
            tracing::warn!(
                from = made_in.timeline,
                to = identity.timeline,
                "the timeline changed: a server was promoted, or a backup restored; the rollup goes on from what it has"
            );
        }
        let cursor = match checkpoint.usable(&identity, wiring, reading, now) {
            Ok(cursor) => cursor.clone(),
            Err(reason) => return Ok(Err(reason)),
        };
        let mut rollup = Rollup::new(limits, now);
        let cells_from = rollup.restore_bounds(checkpoint.covers_from, checkpoint.truncated, checkpoint.newest);
        rollup.restore_days(checkpoint.summed_to, checkpoint.revision);
        if !load_schedules(reading, &mut rollup).await? {
            return Ok(Err(Unusable::Schedule));
        }
        // It is of the reading's point, not of the checkpoint's; but if it has changed in between, so has everything, and
        // the delta wants all to be built anew.
        rollup.set_default_schedule(reading.default_schedule().await?);
        load_stores(reading, &mut rollup).await?;
        load_cells(reading, cells_from, &mut rollup).await?;
        Ok(Ok(Loaded { rollup, cursor }))
    }
}

/// False: one of them is not readable.
async fn load_schedules(reading: &Reading<'_>, rollup: &mut Rollup) -> Result<bool, DbError> {
    let sql = "SELECT g.schedule_no, g.timezone_str, g.weekly_hours, g.closures, min(o.day_start), max(o.day_start)
               FROM uptally.rollup_schedule g LEFT JOIN uptally.rollup_open o USING (schedule_no)
               GROUP BY g.schedule_no ORDER BY g.schedule_no";
    for row in reading.transaction().query(sql, &[]).await? {
        let (zone, hours, closures): (&str, &str, &str) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let (Ok(zone), Ok(hours), Ok(closures)) = (
            zone.parse::<Tz>(),
            hours.parse::<WeeklyHours>(),
            closures.parse::<Closures>(),
        ) else {
            return Ok(false);
        };
        let schedule = Schedule::new(zone, hours).with_closures(closures);
        let number = unsigned(row.try_get(0)?);
        if !rollup.restore_schedule(number, &schedule) {
            return Ok(false);
        }
        if let (true, Some(first), Some(last)) = (schedule.closures().is_empty(), row.try_get(4)?, row.try_get(5)?) {
            rollup.restore_open_days(number, first, last);
        }
    }
    Ok(true)
}

async fn load_stores(reading: &Reading<'_>, rollup: &mut Rollup) -> Result<(), DbError> {
    let sql = "SELECT store_no, store_id, schedule_no, last_observed_at, last_status, held_from
               FROM uptally.rollup_store ORDER BY store_no";
    let rows = reading.transaction().query_raw(sql, std::iter::empty::<i32>()).await?;
    pin_mut!(rows);
    while let Some(row) = rows.try_next().await? {
        let id: &str = row.try_get(1)?;
        let last = match (row.try_get(3)?, row.try_get::<_, Option<&str>>(4)?) {
            (Some(at), Some(word)) => {
                let inactive = word == Status::Inactive.as_str();
                let status = if inactive { Status::Inactive } else { Status::Active };
                Some(Observation { at, status })
            }
            _ => None,
        };
        let schedule = unsigned(row.try_get(2)?);
        rollup.restore_store(store_no(row.try_get(0)?), id, schedule, last, row.try_get(5)?);
    }
    Ok(())
}

async fn load_cells(reading: &Reading<'_>, from: Timestamp, rollup: &mut Rollup) -> Result<(), DbError> {
    let sql = "SELECT store_no, cell_start, down_us FROM uptally.rollup_down WHERE cell_start >= $1
               ORDER BY store_no, cell_start";
    let rows = reading.transaction().query_raw(sql, [&from]).await?;
    pin_mut!(rows);
    while let Some(row) = rows.try_next().await? {
        // The table's CHECK: at most an hour.
        let down_us = u32::try_from(row.try_get::<_, i64>(2)?).unwrap_or(u32::MAX);
        rollup.restore_cell(store_no(row.try_get(0)?), row.try_get(1)?, down_us);
    }
    Ok(())
}

fn store_no(number: i32) -> StoreNo {
    unsigned(number)
}

/// Numbers in the tables come from ours, which are not negative.
fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}
