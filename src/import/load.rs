//! Chunks to tables, in one transaction.
//!
//! The fast way for activity is COPY straight into the table. It cannot say ON CONFLICT, so a chunk runs
//! under a savepoint: if a row of it exists already, the chunk goes through a temporary table instead, and
//! so do the chunks after it until one meets no existing row.

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use super::chunk::Chunk;
use super::produce::Suspects;
use super::{ImportError, TableSummary};

/// Bytes of a chunk sent at a time, so that Postgres works on the first while the last is on its way.
const COPY_MESSAGE_BYTES: usize = 64 * 1024;

/// A table that is filled by way of a temporary one.
struct StagingSql {
    create: &'static str,
    truncate: &'static str,
    copy: &'static str,
    /// Moves the rows on; returns how many are new and how many were corrected.
    ///
    /// The subquery is an index lookup per row whatever the statistics say, and keeps rows that are as they should be
    /// out of ON CONFLICT, which would lock and so rewrite them. What is left for ON CONFLICT: rows to correct,
    /// and rows that others insert meanwhile. `xmax` is 0 in a row that was inserted, and the lock in one that was updated.
    apply: &'static str,
}

/// The statement that moves rows on from a table or whatever else has them.
macro_rules! apply_activity {
    ($rows:literal) => {
        concat!(
            "WITH applied AS (
              INSERT INTO public.store_activity AS a (store_id, timestamp_utc, status)
              SELECT i.store_id, i.timestamp_utc, i.status FROM ",
            $rows,
            " AS i
              WHERE i.status IS DISTINCT FROM (SELECT b.status FROM public.store_activity AS b
                WHERE b.store_id = i.store_id AND b.timestamp_utc = i.timestamp_utc)
              ON CONFLICT (store_id, timestamp_utc) DO UPDATE SET status = excluded.status
              WHERE a.status IS DISTINCT FROM excluded.status
              RETURNING a.xmax = 0 AS is_new)
            SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM applied"
        )
    };
}

/// The same for rows that come with the statement: ids, instants, statuses. Each key must be there once. No temporary table,
/// which would be entries in the catalog for each of many small bodies.
pub(super) const POSTED: &str = apply_activity!(
    "(SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[]) AS u (store_id, timestamp_utc, status))"
);

const ACTIVITY: StagingSql = StagingSql {
    create: "CREATE TEMPORARY TABLE uptally_import_activity \
             (store_id text NOT NULL, timestamp_utc timestamptz NOT NULL, status text NOT NULL) ON COMMIT DROP",
    truncate: "TRUNCATE pg_temp.uptally_import_activity",
    copy: "COPY pg_temp.uptally_import_activity (store_id, timestamp_utc, status) FROM STDIN (FORMAT binary)",
    apply: apply_activity!("pg_temp.uptally_import_activity"),
};

const TIMEZONES: StagingSql = StagingSql {
    create: "CREATE TEMPORARY TABLE uptally_import_timezones \
             (store_id text NOT NULL, timezone_str text NOT NULL) ON COMMIT DROP",
    truncate: "TRUNCATE pg_temp.uptally_import_timezones",
    copy: "COPY pg_temp.uptally_import_timezones (store_id, timezone_str) FROM STDIN (FORMAT binary)",
    apply: "WITH applied AS (
              INSERT INTO public.store_timezones AS t (store_id, timezone_str)
              SELECT i.store_id, i.timezone_str FROM pg_temp.uptally_import_timezones AS i
              WHERE i.timezone_str IS DISTINCT FROM (SELECT b.timezone_str FROM public.store_timezones AS b
                WHERE b.store_id = i.store_id)
              ON CONFLICT (store_id) DO UPDATE SET timezone_str = excluded.timezone_str
              WHERE t.timezone_str IS DISTINCT FROM excluded.timezone_str
              RETURNING t.xmax = 0 AS is_new)
            SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM applied",
};

/// Closures are only added: a file of next year's says nothing about last year's.
const CLOSURES: StagingSql = StagingSql {
    create: "CREATE TEMPORARY TABLE uptally_import_closures \
             (store_id text NOT NULL, closed_from timestamp NOT NULL, closed_to timestamp NOT NULL, reason text NOT NULL) \
             ON COMMIT DROP",
    truncate: "TRUNCATE pg_temp.uptally_import_closures",
    copy: "COPY pg_temp.uptally_import_closures (store_id, closed_from, closed_to, reason) FROM STDIN (FORMAT binary)",
    apply: "WITH applied AS (
              INSERT INTO public.store_closures AS c (store_id, closed_from, closed_to, reason)
              SELECT i.store_id, i.closed_from, i.closed_to, i.reason FROM pg_temp.uptally_import_closures AS i
              WHERE i.reason IS DISTINCT FROM (SELECT b.reason FROM public.store_closures AS b
                WHERE b.store_id = i.store_id AND b.closed_from = i.closed_from AND b.closed_to = i.closed_to)
              ON CONFLICT (store_id, closed_from, closed_to) DO UPDATE SET reason = excluded.reason
              WHERE c.reason IS DISTINCT FROM excluded.reason
              RETURNING c.xmax = 0 AS is_new)
            SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM applied",
};

const ACTIVITY_COPY: &str = "COPY public.store_activity (store_id, timestamp_utc, status) FROM STDIN (FORMAT binary)";

const HOURS_CREATE: &str = "CREATE TEMPORARY TABLE uptally_import_hours \
    (store_id text NOT NULL, day smallint NOT NULL, start_time_local time NOT NULL, end_time_local time NOT NULL) \
    ON COMMIT DROP";
const HOURS_COPY: &str = "COPY pg_temp.uptally_import_hours (store_id, day, start_time_local, end_time_local) \
    FROM STDIN (FORMAT binary)";
/// Deletes what the file does not say of the stores that it names, except of those in `$1`.
const HOURS_DELETE: &str = "DELETE FROM public.store_business_hours AS h
    WHERE h.store_id IN (SELECT i.store_id FROM pg_temp.uptally_import_hours AS i)
      AND h.store_id <> ALL ($1::text[])
      AND NOT EXISTS (SELECT FROM pg_temp.uptally_import_hours AS i
        WHERE i.store_id = h.store_id AND i.day = h.day
          AND i.start_time_local = h.start_time_local AND i.end_time_local = h.end_time_local)";
/// An ANALYZE that ran beside an import which had not committed leaves statistics of an empty table. Believing them,
/// the planner may loop over both tables (measured: 423 s instead of 0.4 for 86,000 rows); a hash join is right at any size.
const HOURS_PLAN: &str = "ANALYZE pg_temp.uptally_import_hours; SET LOCAL enable_nestloop = off";
const HOURS_PLAN_END: &str = "SET LOCAL enable_nestloop TO DEFAULT";
const HOURS_INSERT: &str = "INSERT INTO public.store_business_hours (store_id, day, start_time_local, end_time_local)
    SELECT DISTINCT i.store_id, i.day, i.start_time_local, i.end_time_local FROM pg_temp.uptally_import_hours AS i
    ON CONFLICT DO NOTHING";

/// The transaction of an import. Dropped without [`Loader::commit`], it leaves nothing.
pub(super) struct Loader<'a> {
    transaction: Transaction<'a>,
    /// Whether the last chunk of activity met rows that exist.
    meets_existing: bool,
    activity: Staging,
    timezones: Staging,
    closures: Staging,
    /// Whether the temporary table for hours exists.
    has_hours: bool,
}

impl<'a> Loader<'a> {
    pub(super) async fn begin(client: &'a mut Client) -> Result<Self, ImportError> {
        Ok(Loader {
            transaction: client.transaction().await?,
            meets_existing: false,
            activity: Staging::of(&ACTIVITY),
            timezones: Staging::of(&TIMEZONES),
            closures: Staging::of(&CLOSURES),
            has_hours: false,
        })
    }

    pub(super) async fn commit(self) -> Result<(), ImportError> {
        Ok(self.transaction.commit().await?)
    }

    pub(super) async fn timezones(&mut self, chunk: Chunk, summary: &mut TableSummary) -> Result<(), ImportError> {
        self.timezones.load_counted(&self.transaction, chunk, summary).await
    }

    pub(super) async fn closures(&mut self, chunk: Chunk, summary: &mut TableSummary) -> Result<(), ImportError> {
        self.closures.load_counted(&self.transaction, chunk, summary).await
    }

    /// Gathers a chunk of opening hours; [`Loader::hours_end`] puts them into effect.
    pub(super) async fn hours(&mut self, chunk: Chunk) -> Result<(), ImportError> {
        if chunk.rows == 0 {
            return Ok(());
        }
        if !self.has_hours {
            self.transaction.batch_execute(HOURS_CREATE).await?;
            self.has_hours = true;
        }
        copy_in(&self.transaction, HOURS_COPY, chunk.copy).await?;
        Ok(())
    }

    /// Makes the file the truth for the stores that it names; `suspects` only gain rows.
    pub(super) async fn hours_end(
        &mut self,
        suspects: &Suspects,
        summary: &mut TableSummary,
    ) -> Result<(), ImportError> {
        if !self.has_hours {
            return Ok(());
        }
        let stores: Vec<&str> = match suspects {
            Suspects::Stores(stores) => stores.iter().map(String::as_str).collect(),
            Suspects::None | Suspects::Any => Vec::new(),
        };
        if !matches!(suspects, Suspects::Any) {
            self.transaction.batch_execute(HOURS_PLAN).await?;
            summary.deleted += self.transaction.execute(HOURS_DELETE, &[&stores]).await?;
            self.transaction.batch_execute(HOURS_PLAN_END).await?;
        }
        summary.new += self.transaction.execute(HOURS_INSERT, &[]).await?;
        Ok(())
    }

    pub(super) async fn activity(&mut self, chunk: Chunk, summary: &mut TableSummary) -> Result<(), ImportError> {
        if chunk.rows == 0 {
            return Ok(());
        }
        if !self.meets_existing {
            match self.activity_direct(chunk.copy.clone()).await {
                Ok(()) => {
                    summary.new += chunk.rows;
                    return Ok(());
                }
                Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (new, corrected) = self.activity.load(&self.transaction, chunk.copy).await?;
        self.meets_existing = new < chunk.rows;
        summary.new += new;
        summary.corrected += corrected;
        Ok(())
    }

    /// Leaves the transaction usable whether or not it works.
    async fn activity_direct(&mut self, copy: Bytes) -> Result<(), tokio_postgres::Error> {
        let savepoint = self.transaction.savepoint("uptally_import_chunk").await?;
        match copy_in(&savepoint, ACTIVITY_COPY, copy).await {
            Ok(()) => savepoint.commit().await,
            Err(error) => {
                savepoint.rollback().await?;
                Err(error)
            }
        }
    }
}

/// A temporary table that exists from its first chunk to the end of the transaction.
struct Staging {
    sql: &'static StagingSql,
    exists: bool,
}

impl Staging {
    fn of(sql: &'static StagingSql) -> Self {
        Staging { sql, exists: false }
    }

    /// Loads a chunk, and counts what it changed.
    async fn load_counted(
        &mut self,
        transaction: &Transaction<'_>,
        chunk: Chunk,
        summary: &mut TableSummary,
    ) -> Result<(), ImportError> {
        if chunk.rows > 0 {
            let (new, corrected) = self.load(transaction, chunk.copy).await?;
            summary.new += new;
            summary.corrected += corrected;
        }
        Ok(())
    }

    /// Loads a chunk; returns how many rows are new and how many were corrected.
    async fn load(&mut self, transaction: &Transaction<'_>, copy: Bytes) -> Result<(u64, u64), tokio_postgres::Error> {
        let clean = if self.exists {
            self.sql.truncate
        } else {
            self.sql.create
        };
        transaction.batch_execute(clean).await?;
        self.exists = true;
        copy_in(transaction, self.sql.copy, copy).await?;
        let row = transaction.query_one(self.sql.apply, &[]).await?;
        let count = |index| row.try_get::<_, i64>(index).map(i64::unsigned_abs);
        Ok((count(0)?, count(1)?))
    }
}

async fn copy_in(transaction: &Transaction<'_>, statement: &str, mut copy: Bytes) -> Result<(), tokio_postgres::Error> {
    let sink = transaction.copy_in::<_, Bytes>(statement).await?;
    let mut sink = std::pin::pin!(sink);
    while !copy.is_empty() {
        let piece = copy.split_to(copy.len().min(COPY_MESSAGE_BYTES));
        sink.feed(piece).await?;
    }
    sink.finish().await?;
    Ok(())
}
