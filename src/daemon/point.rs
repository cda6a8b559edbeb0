//! A point of the change stream to make a report of, and how to get one without a daemon.

use crate::db::{Database, DbError};
use crate::feed::{Cursor, Reading, Scope};
use crate::ledger::Loaded;
use crate::rollup::{Limits, Rollup, Snapshot};
use crate::time::Timestamp;

/// A snapshot and where in the change stream it is.
#[derive(Debug, Clone)]
pub struct Point {
    /// All stores.
    pub snapshot: Snapshot,
    /// The point that they are of.
    pub cursor: Cursor,
}

/// Why there is no point.
#[derive(Debug, thiserror::Error)]
pub enum PointError {
    /// No tables, or those of another version.
    #[error("the database has no tables of this version of uptally; run `uptally migrate` (or `uptally import`) first")]
    NotMigrated,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The present of a database, read beside whatever daemon may be running: the ledger's rows brought up to
/// date in memory, or everything from raw where there are none. Writes nothing.
pub async fn point(
    database: &Database,
    limits: Limits,
    now: Timestamp,
    batch_rows_max: usize,
) -> Result<Point, PointError> {
    let mut session = database.connect("uptally report").await?;
    if !Database::is_migrated(&session.client).await? {
        return Err(PointError::NotMigrated);
    }
    session
        .client
        .batch_execute("SET statement_timeout = 0")
        .await
        .map_err(DbError::from)?;
    let reading = Reading::start(&mut session, Scope::InputsAndRollup).await?;
    let limits = Limits {
        track_dirty: false,
        ..limits
    };
    let mut rollup = load_or_rebuild(&reading, limits, now, batch_rows_max).await?;
    let snapshot = rollup.snapshot();
    let cursor = reading.finish();
    Ok(Point { snapshot, cursor })
}

pub(super) async fn load_or_rebuild(
    reading: &Reading<'_>,
    limits: Limits,
    now: Timestamp,
    batch_rows_max: usize,
) -> Result<Rollup, DbError> {
    match Loaded::load(reading, limits, now).await? {
        Ok(Loaded { mut rollup, cursor }) => {
            reading
                .catch_up(&cursor, &mut rollup, limits, now, batch_rows_max)
                .await?;
            Ok(rollup)
        }
        Err(_) => reading.rebuild(limits, now, batch_rows_max, || ()).await,
    }
}
