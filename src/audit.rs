//! The rollup held against the raw rows: by samples while the daemon follows, and as a whole by `uptally verify`.
//!
//! What is expected comes from the oracle, which shares no code with what it checks. A [`Sample`] is one store's cells
//! over some days; it is compared with memory at the point of the reading that took it, and with the tables inside the
//! flush of the same point. So nobody has to stand still for it, and the two comparisons are exact.
//!
//! Bounded: a sample is of one store, a week and 2,000 rows at most, however long its history is.

use std::collections::BTreeMap;
use std::fmt;

use chrono_tz::Tz;
use tokio_postgres::Transaction;

use crate::db::{DbError, LocalTime, WallTime};
use crate::feed::Reading;
use crate::ledger::DayDifference;
use crate::oracle::{self, RawClosure, RawInterval, RawStore};
use crate::rollup::{Kept, Rollup, StoreNo};
use crate::schedule::DEFAULT_ZONE;
use crate::store::{EVERY_STORE, Status};
use crate::time::{DAY_US, Span, Timestamp};

/// The longest stretch of a sample.
const STRETCH_US: i64 = 7 * DAY_US;

/// The most rows of a sample; of a store that was polled more often, the stretch is shorter.
const ROWS_MAX: i64 = 2_000;

/// Numbers tried until one is of a store. Those of removed stores are not used again before the next start.
const PICKS_MAX: u32 = 20;

/// One thing that is not what the raw rows say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The store.
    pub store_id: String,
    /// Start of the cell; None for what is not of a cell.
    pub cell_start: Option<Timestamp>,
    /// What differs.
    pub what: &'static str,
    /// As the raw rows have it.
    pub expected: String,
    /// As the rollup has it.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store_id.escape_debug())?;
        if let Some(at) = self.cell_start {
            write!(f, " {at}")?;
        }
        write!(f, " {}: expected {}, found {}", self.what, self.expected, self.found)
    }
}

impl From<DayDifference> for Difference {
    fn from(day: DayDifference) -> Self {
        Difference {
            store_id: day.store_id,
            cell_start: None,
            what: "rollup_day in us",
            expected: format!("{} at {}", day.expected, day.day),
            found: day.found.to_string(),
        }
    }
}

/// Start of a cell, opening time and downtime in it, in microseconds.
pub type Cell = (Timestamp, i64, i64);

/// A store's cells over some stretch as the raw rows say they are.
#[derive(Debug, Clone)]
pub struct Sample {
    store: StoreNo,
    store_id: String,
    /// The last observation that counts.
    last: Option<(Timestamp, Status)>,
    /// Where its cell ends: downtime after it is not kept.
    settled_to: Option<Timestamp>,
    cells: Vec<Cell>,
    cell_us: i64,
}

impl Sample {
    /// Takes a sample of a random store, over a random stretch of what the rollup covers; every second time over the
    /// newest. The rollup must be at the point of the reading. None: nothing was found to sample.
    pub async fn take(reading: &Reading<'_>, rollup: &Rollup) -> Result<Option<Self>, DbError> {
        let picked = (0..PICKS_MAX).find_map(|_| {
            let store = fastrand::u32(0..rollup.numbers().max(1));
            Some((store, rollup.id(store)?.to_owned()))
        });
        let (Some((store, id)), (Some(from), _), Some(newest)) = (picked, rollup.covers_from(), rollup.newest()) else {
            return Ok(None);
        };
        let latest_start = newest.plus(-STRETCH_US).max(from);
        let start = if fastrand::bool() {
            latest_start
        } else {
            from.plus(fastrand::i64(0..=latest_start.since(from)))
        };
        let stretch = Span::new(start, start.plus(STRETCH_US).min(newest));
        let mut raw = raw_schedules(reading, std::slice::from_ref(&id)).await?;
        let (Some(mut raw), Some(kept)) = (raw.remove(&id), rollup.kept(&id)) else {
            return Ok(None);
        };
        let last = last_before(reading, &id, rollup.future_limit()).await?;
        let stretch = observations(reading, &mut raw, stretch).await?;
        let grid = kept.grid;
        Ok(Some(Sample {
            store,
            last,
            settled_to: last.map(|(at, _)| grid.cell_end_after(at)),
            cells: oracle::cells(&raw, grid.cell_us(), oracle::grid_phase_us(raw.zone), stretch),
            cell_us: grid.cell_us(),
            store_id: id,
        }))
    }

    /// The number of its store.
    pub fn store(&self) -> StoreNo {
        self.store
    }

    /// Number of cells.
    pub fn cells(&self) -> usize {
        self.cells.len()
    }

    /// What memory has otherwise.
    pub fn against_memory(&self, rollup: &Rollup) -> Vec<Difference> {
        let mut differences = Vec::new();
        let Some(kept) = rollup.kept(&self.store_id) else {
            return differences;
        };
        let kept_last = kept.last.map(|o| (o.at, o.status));
        if kept_last != self.last {
            differences.push(self.differs(
                None,
                "last observation in memory",
                &format!("{:?}", self.last),
                &format!("{kept_last:?}"),
            ));
            return differences;
        }
        for &(at, open_us, down_us) in self.cells.iter().filter(|cell| cell.0 >= rollup.memory_from()) {
            let found = kept_down_us(&kept, at, open_us);
            if found != down_us {
                differences.push(self.differs(
                    Some(at),
                    "downtime in memory in us",
                    &down_us.to_string(),
                    &found.to_string(),
                ));
            }
        }
        differences
    }

    /// What the tables have otherwise, as a transaction sees them that has brought them to the sample's point.
    /// `covers_from`: cells before it may be gone.
    pub async fn against_tables(
        &self,
        transaction: &Transaction<'_>,
        covers_from: Option<Timestamp>,
    ) -> Result<Vec<Difference>, DbError> {
        let mut differences = Vec::new();
        let number = i32::try_from(self.store).unwrap_or(i32::MAX);
        let row = transaction
            .query_opt(
                "SELECT last_observed_at, last_status, settled_to FROM uptally.rollup_store
                 WHERE store_no = $1 AND store_id = $2",
                &[&number, &self.store_id],
            )
            .await?;
        let (last, status) = (
            self.last.map(|(at, _)| at),
            self.last.map(|(_, status)| status.as_str()),
        );
        let expected = format!("{last:?} {status:?} {:?}", self.settled_to);
        let found = match row {
            None => "no row".to_owned(),
            Some(row) => {
                let (last, status): (Option<Timestamp>, Option<&str>) = (row.try_get(0)?, row.try_get(1)?);
                format!("{last:?} {status:?} {:?}", row.try_get::<_, Option<Timestamp>>(2)?)
            }
        };
        if found != expected {
            differences.push(self.differs(None, "row of rollup_store", &expected, &found));
        }
        let (Some((first, ..)), Some((end, ..))) = (self.cells.first(), self.cells.last()) else {
            return Ok(differences);
        };
        let (mut down, open) = (
            self.down_rows(transaction, number, *first, *end).await?,
            self.open_rows(transaction, number, *first, *end).await?,
        );
        let covered = self.cells.iter().filter(|cell| Some(cell.0) >= covers_from);
        for &(at, open_us, down_us) in covered {
            // After the last observation's cell nothing is kept.
            let kept_us = if Some(at) < self.settled_to { down_us } else { 0 };
            let found = down.remove(&at).unwrap_or(0);
            if found != kept_us {
                differences.push(self.differs(Some(at), "rollup_down in us", &kept_us.to_string(), &found.to_string()));
            }
            if let Some(&found) = open.get(&at)
                && found != open_us
            {
                differences.push(self.differs(Some(at), OPENING_TIME, &open_us.to_string(), &found.to_string()));
            }
        }
        // What is left is of no cell of this store.
        down.retain(|at, _| Some(*at) >= covers_from);
        for (at, found) in down {
            differences.push(self.differs(Some(at), "rollup_down in us", "no such cell", &found.to_string()));
        }
        Ok(differences)
    }

    async fn down_rows(
        &self,
        transaction: &Transaction<'_>,
        number: i32,
        first: Timestamp,
        last: Timestamp,
    ) -> Result<BTreeMap<Timestamp, i64>, DbError> {
        let sql = "SELECT cell_start, down_us FROM uptally.rollup_down
                   WHERE store_no = $1 AND cell_start BETWEEN $2 AND $3";
        let rows = transaction.query(sql, &[&number, &first, &last]).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Opening time by start of the cell; days without a row are left out.
    async fn open_rows(
        &self,
        transaction: &Transaction<'_>,
        number: i32,
        first: Timestamp,
        last: Timestamp,
    ) -> Result<BTreeMap<Timestamp, i64>, DbError> {
        // The days of the schedule itself come last, in place of its base's.
        let sql = "SELECT o.day_start, o.open_us FROM uptally.rollup_store s
                   JOIN uptally.rollup_schedule g USING (schedule_no)
                   JOIN uptally.rollup_open o ON o.schedule_no IN (g.base_no, g.schedule_no)
                   WHERE s.store_no = $1 AND o.day_start BETWEEN $2 AND $3
                   ORDER BY o.schedule_no = g.schedule_no";
        let rows = transaction.query(sql, &[&number, &first.plus(-DAY_US), &last]).await?;
        let mut cells = BTreeMap::new();
        for row in rows {
            let (mut at, day): (Timestamp, Vec<i64>) = (row.try_get(0)?, row.try_get(1)?);
            for open_us in day {
                cells.insert(at, open_us);
                at = at.plus(self.cell_us);
            }
        }
        Ok(cells)
    }

    fn differs(&self, cell_start: Option<Timestamp>, what: &'static str, expected: &str, found: &str) -> Difference {
        Difference {
            store_id: self.store_id.clone(),
            cell_start,
            what,
            expected: expected.to_owned(),
            found: found.to_owned(),
        }
    }
}

/// [`Difference::what`] where a day's opening time is wrong, which is kept by schedule and not by store.
pub const OPENING_TIME: &str = "rollup_open in us";

/// Downtime of a cell, as memory has it: after the last observation's cell nothing is kept, the last status holds.
pub fn kept_down_us(kept: &Kept<'_>, at: Timestamp, open_us: i64) -> i64 {
    match kept.last {
        Some(last) if at >= kept.grid.cell_end_after(last.at) => match last.status {
            Status::Inactive => open_us,
            Status::Active => 0,
        },
        _ => i64::from(kept.down_us(kept.grid.cell_of(at))),
    }
}

/// Stores with their hours, closures and zones as the raw tables have them, without observations: not by way of the schedules
/// that are to be checked.
pub async fn raw_schedules(reading: &Reading<'_>, ids: &[String]) -> Result<BTreeMap<String, RawStore>, DbError> {
    let mut stores: BTreeMap<String, RawStore> = ids
        .iter()
        .map(|id| {
            let store = RawStore {
                id: id.clone(),
                zone: DEFAULT_ZONE,
                hours: Vec::new(),
                closures: Vec::new(),
                observations: Vec::new(),
            };
            (id.clone(), store)
        })
        .collect();
    let transaction = reading.transaction();
    let sql = "SELECT store_id, timezone_str FROM public.store_timezones WHERE store_id = ANY ($1)";
    for row in transaction.query(sql, &[&ids]).await? {
        if let Some(store) = stores.get_mut(row.try_get::<_, &str>(0)?) {
            store.zone = row.try_get::<_, &str>(1)?.parse::<Tz>().unwrap_or(DEFAULT_ZONE);
        }
    }
    let sql = "SELECT store_id, day, start_time_local, end_time_local FROM public.store_business_hours
               WHERE store_id = ANY ($1)";
    for row in transaction.query(sql, &[&ids]).await? {
        if let Some(store) = stores.get_mut(row.try_get::<_, &str>(0)?) {
            store.hours.push(RawInterval {
                day: u8::try_from(row.try_get::<_, i16>(1)?).unwrap_or(0),
                start_us: row.try_get::<_, WallTime>(2)?.0,
                end_us: row.try_get::<_, WallTime>(3)?.0,
            });
        }
    }
    let sql = "SELECT store_id, closed_from, closed_to FROM public.store_closures
               WHERE store_id = ANY ($1) OR store_id = '*'";
    for row in transaction.query(sql, &[&ids]).await? {
        let id: &str = row.try_get(0)?;
        let closure = RawClosure {
            from_us: row.try_get::<_, LocalTime>(1)?.0,
            to_us: row.try_get::<_, LocalTime>(2)?.0,
        };
        if id == EVERY_STORE {
            for store in stores.values_mut() {
                store.closures.push(closure);
            }
        } else if let Some(store) = stores.get_mut(id) {
            store.closures.push(closure);
        }
    }
    Ok(stores)
}

/// A row of `store_activity` from its column `timestamp_utc` on.
pub fn observed(row: &tokio_postgres::Row, from: usize) -> Result<(Timestamp, Status), DbError> {
    let status = row.try_get::<_, &str>(from + 1)?.parse().unwrap_or(Status::Active);
    Ok((row.try_get(from)?, status))
}

/// A store's last observation before an instant.
async fn last_before(
    reading: &Reading<'_>,
    id: &str,
    before: Timestamp,
) -> Result<Option<(Timestamp, Status)>, DbError> {
    let sql = "SELECT timestamp_utc, status FROM public.store_activity
               WHERE store_id = $1 AND timestamp_utc < $2 ORDER BY timestamp_utc DESC LIMIT 1";
    let row = reading.transaction().query_opt(sql, &[&id, &before]).await?;
    row.map(|row| observed(&row, 0)).transpose()
}

/// Reads the observations that say how a store was in a stretch. Returns the stretch, shorter if it has too many.
async fn observations(reading: &Reading<'_>, store: &mut RawStore, stretch: Span) -> Result<Span, DbError> {
    let before = last_before(reading, &store.id, stretch.start).await?;
    store.observations.extend(before);
    let sql = "SELECT timestamp_utc, status FROM public.store_activity
               WHERE store_id = $1 AND timestamp_utc >= $2 AND timestamp_utc < $3 ORDER BY timestamp_utc LIMIT $4";
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&store.id, &stretch.start, &stretch.end, &ROWS_MAX];
    let rows = reading.transaction().query(sql, &parameters).await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows == ROWS_MAX);
    for row in &rows {
        store.observations.push(observed(row, 0)?);
    }
    let end = store.observations.last().map_or(stretch.end, |&(at, _)| at);
    Ok(if is_full {
        Span::new(stretch.start, end.max(stretch.start))
    } else {
        stretch
    })
}
