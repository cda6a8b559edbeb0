//! `uptally verify`: everything recomputed from raw by the oracle, and compared with the rollup.
//!
//! All is read in one REPEATABLE READ transaction: the rollup rows, what is new since their checkpoint, and the raw
//! rows. So it may run beside a busy daemon: the rollup is brought to the transaction's own point in memory, as a
//! restart would do it, and must then be what the raw rows of that point say. Nothing is written.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::{Difference, kept_down_us, observed, raw_schedules};
use crate::daemon::PointError;
use crate::db::{Database, DbError};
use crate::feed::{Reading, Scope};
use crate::ledger::{self, Loaded, Unusable};
use crate::oracle::{self, RawStore};
use crate::rollup::{FUTURE_MAX_US, Limits, Rollup};
use crate::time::{Span, Timestamp};

/// Differences that are kept to be shown; all are counted.
pub const DIFFERENCES_SHOWN_MAX: usize = 100;

/// Stores that are recomputed at a time.
const STORES_PER_BATCH: usize = 500;

/// What a verification found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Stores that were recomputed.
    pub stores: usize,
    /// Cells that were compared.
    pub cells: usize,
    /// Raw rows that were read.
    pub rows: usize,
    /// The first differences.
    pub differences: Vec<Difference>,
    /// All differences.
    pub difference_count: usize,
}

impl Verdict {
    fn differs(&mut self, difference: Difference) {
        self.difference_count += 1;
        if self.differences.len() < DIFFERENCES_SHOWN_MAX {
            self.differences.push(difference);
        }
    }
}

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No tables, or the database failed.
    #[error(transparent)]
    Point(#[from] PointError),
    /// There is no rollup that could be compared.
    #[error("there is no rollup to compare: {0}; start the daemon or run `uptally rebuild`")]
    NoRollup(Unusable),
}

impl From<DbError> for VerifyError {
    fn from(error: DbError) -> Self {
        VerifyError::Point(error.into())
    }
}

/// Recomputes and compares.
pub async fn verify(
    database: &Database,
    limits: Limits,
    now: Timestamp,
    batch_rows_max: usize,
) -> Result<Verdict, VerifyError> {
    let mut session = database.connect("uptally verify").await?;
    if !Database::is_migrated(&session.client).await? {
        return Err(PointError::NotMigrated.into());
    }
    session
        .client
        .batch_execute("SET statement_timeout = 0")
        .await
        .map_err(DbError::from)?;
    let reading = Reading::start(&mut session, Scope::InputsAndRollup).await?;
    let limits = Limits {
        track_dirty: false,
        keep_from: Some(Timestamp::MIN),
        ..limits
    };
    let loaded = Loaded::load_untrusted(&reading, limits, now).await?;
    let Loaded { mut rollup, cursor } = loaded.map_err(VerifyError::NoRollup)?;
    let mut open = OpenTable::read(&reading).await?;
    let mut days = ledger::day_differences(reading.transaction(), None).await?;
    let rebuilt = reading
        .catch_up(&cursor, &mut rollup, limits, now, batch_rows_max)
        .await?;
    if rebuilt {
        // The next flush replaces the tables; the schedules of what was built have other numbers.
        open = OpenTable::default();
        days.clear();
    }
    let mut verdict = Verdict::default();
    let ids = all_stores(&reading).await?;
    let extra = rollup
        .ids()
        .filter(|id| !ids.contains(*id))
        .map(str::to_owned)
        .collect::<Vec<_>>();
    for store_id in extra {
        verdict.differs(Difference {
            store_id,
            cell_start: None,
            what: "store",
            expected: "in none of the tables".to_owned(),
            found: "in the rollup".to_owned(),
        });
    }
    for day in days {
        verdict.differs(day.into());
    }
    let ids: Vec<String> = ids.into_iter().collect();
    for ids in ids.chunks(STORES_PER_BATCH) {
        for store in raw_stores(&reading, ids, now).await? {
            compare(&store, &rollup, &open, &mut verdict);
        }
    }
    Ok(verdict)
}

/// One store's cells against the oracle's.
fn compare(store: &RawStore, rollup: &Rollup, open: &OpenTable, verdict: &mut Verdict) {
    verdict.stores += 1;
    verdict.rows += store.observations.len();
    let mut differs = |cell_start, what, expected: String, found: String| {
        verdict.differs(Difference {
            store_id: store.id.clone(),
            cell_start,
            what,
            expected,
            found,
        });
    };
    let Some(kept) = rollup.kept(&store.id) else {
        differs(None, "store", "in the rollup".to_owned(), "nothing".to_owned());
        return;
    };
    let last = store.observations.iter().max_by_key(|(at, _)| *at).copied();
    let kept_last = kept.last.map(|o| (o.at, o.status));
    if last != kept_last {
        differs(None, "last observation", format!("{last:?}"), format!("{kept_last:?}"));
        return;
    }
    let (Some(from), Some(newest)) = (rollup.covers_from().0, rollup.newest()) else {
        return;
    };
    let grid = kept.grid;
    let phase_us = oracle::grid_phase_us(store.zone);
    let cells = oracle::cells(store, grid.cell_us(), phase_us, Span::new(from, newest));
    let mut compared = 0;
    for (at, open_us, down_us) in cells {
        compared += 1;
        let found = kept_down_us(&kept, at, open_us);
        if found != down_us {
            differs(Some(at), "downtime in us", down_us.to_string(), found.to_string());
        }
        match open.open_us(
            kept.schedule,
            grid.cell_start(grid.block_first(grid.cell_of(at))),
            at,
            grid.cell_us(),
        ) {
            Some(found) if found != open_us => {
                differs(Some(at), "opening time in us", open_us.to_string(), found.to_string());
            }
            _ => {}
        }
    }
    verdict.cells += compared;
}

/// `uptally.rollup_open`. Days that are missing are those that the next flush writes.
#[derive(Default)]
struct OpenTable {
    days: BTreeMap<(u32, Timestamp), Vec<i64>>,
    /// The schedule whose days hold where one has none of its own, of those that a store has in the tables: their own
    /// days are complete up to `newest`.
    bases: BTreeMap<u32, u32>,
    newest: Option<Timestamp>,
}

impl OpenTable {
    async fn read(reading: &Reading<'_>) -> Result<Self, DbError> {
        let number = |number: i32| u32::try_from(number).unwrap_or(u32::MAX);
        let mut table = OpenTable::default();
        let sql = "SELECT schedule_no, day_start, open_us FROM uptally.rollup_open";
        for row in reading.transaction().query(sql, &[]).await? {
            let day = (number(row.try_get(0)?), row.try_get(1)?);
            table.days.insert(day, row.try_get(2)?);
        }
        let sql = "SELECT DISTINCT schedule_no, g.base_no FROM uptally.rollup_store
                   JOIN uptally.rollup_schedule g USING (schedule_no)";
        for row in reading.transaction().query(sql, &[]).await? {
            table.bases.insert(number(row.try_get(0)?), number(row.try_get(1)?));
        }
        let sql = "SELECT newest FROM uptally.checkpoint";
        table.newest = reading.transaction().query_one(sql, &[]).await?.try_get(0)?;
        Ok(table)
    }

    fn open_us(&self, schedule: u32, day: Timestamp, cell_start: Timestamp, cell_us: i64) -> Option<i64> {
        let index = usize::try_from(cell_start.since(day) / cell_us).ok()?;
        let own = self.days.get(&(schedule, day));
        let base = self.bases.get(&schedule).filter(|_| Some(day) <= self.newest);
        let of_base = || self.days.get(&(*base?, day));
        own.or_else(of_base)?.get(index).copied()
    }
}

async fn all_stores(reading: &Reading<'_>) -> Result<BTreeSet<String>, DbError> {
    let sql = "SELECT store_id FROM public.store_timezones
               UNION SELECT store_id FROM public.store_business_hours
               UNION SELECT store_id FROM public.store_closures WHERE store_id <> '*'
               UNION SELECT DISTINCT store_id FROM public.store_activity";
    let rows = reading.transaction().query(sql, &[]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Stores as the raw tables have them, with all observations that count.
async fn raw_stores(reading: &Reading<'_>, ids: &[String], now: Timestamp) -> Result<Vec<RawStore>, DbError> {
    let mut stores = raw_schedules(reading, ids).await?;
    let limit = now.plus(FUTURE_MAX_US);
    let sql = "SELECT store_id, timestamp_utc, status FROM public.store_activity
               WHERE store_id = ANY ($1) AND timestamp_utc < $2";
    for row in reading.transaction().query(sql, &[&ids, &limit]).await? {
        if let Some(store) = stores.get_mut(row.try_get::<_, &str>(0)?) {
            store.observations.push(observed(&row, 1)?);
        }
    }
    Ok(stores.into_values().collect())
}
