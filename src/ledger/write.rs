//! One flush: dirty rows and checkpoint in one transaction.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Transaction};

use super::{Flush, FlushError, Identity, Ledger, layout};
use crate::audit::Difference;
use crate::db::{Session, Statements};
use crate::failpoint;
use crate::feed::Cursor;
use crate::rollup::{CellChange, ClearedStretch, Dirty, NewSchedule, OpenDay, StoreRow};
use crate::time::{DAY_US, Timestamp};

/// Rows that one statement takes.
const ROWS_PER_STATEMENT: usize = 50_000;

impl Ledger {
    /// Writes a flush. Fails as a whole, and may be tried again as a whole. Returns what the audit found.
    pub async fn flush(&mut self, flush: &Flush) -> Result<Vec<Difference>, FlushError> {
        failpoint::hit("flush.taken")?;
        self.make_months(&flush.dirty).await?;
        let (epoch, identity) = (self.epoch, self.identity);
        let Session { client, statements, .. } = &mut self.session;
        let writer = Writer {
            transaction: client.transaction().await?,
            statements,
        };
        let t = &writer;
        failpoint::hit("flush.begun")?;
        if let Some(wiring) = &flush.replace {
            t.execute("UPDATE uptally.checkpoint SET wiring = $1", &[wiring])
                .await?;
            // TRUNCATE is quicker, and would keep everybody who reads waiting until the commit.
            t.transaction
                .batch_execute(
                    "DELETE FROM uptally.rollup_day; DELETE FROM uptally.rollup_down; DELETE FROM uptally.rollup_store;
                     DELETE FROM uptally.rollup_open; DELETE FROM uptally.rollup_schedule",
                )
                .await?;
        }
        let dirty = &flush.dirty;
        write_schedules(t, &dirty.schedules).await?;
        write_open_days(t, &dirty.open_days).await?;
        remove_stores(t, dirty).await?;
        clear_cells(t, &dirty.cleared).await?;
        write_stores(t, &dirty.stores).await?;
        write_cells(t, &dirty.cells).await?;
        super::days::write(t, dirty).await?;
        if let Some(bound) = flush.drop_before {
            drop_before(t, bound).await?;
        }
        failpoint::hit("flush.rows_written")?;
        // Consumed: nobody needs what every transaction before the cursor left here.
        t.execute(
            "DELETE FROM uptally.invalidation WHERE change_xid < $1::text::xid8",
            &[&flush.cursor.xmin().to_string()],
        )
        .await?;
        if !write_checkpoint(t, epoch, &identity, &flush.cursor, dirty).await? {
            return Err(FlushError::Fenced);
        }
        let found = match &flush.audit {
            Some(sample) => {
                let mut found = sample.against_tables(&writer.transaction, dirty.covers_from).await?;
                let days = super::day_differences(writer.client(), Some(number(sample.store()))).await?;
                found.extend(days.into_iter().map(Difference::from));
                found
            }
            None => Vec::new(),
        };
        failpoint::hit("flush.before_commit")?;
        writer.transaction.commit().await?;
        failpoint::hit("flush.committed")?;
        if flush.drop_before.is_some() {
            self.months.clear();
        }
        Ok(found)
    }

    /// Partitions must exist before the transaction that fills them, or it would hold their locks.
    async fn make_months(&mut self, dirty: &Dirty) -> Result<(), FlushError> {
        // Half a month is short enough to hit every month, and nothing is asked twice.
        const STEP_US: i64 = 15 * DAY_US;
        let steps: std::collections::BTreeSet<i64> = dirty
            .cells
            .iter()
            .map(|cell| cell.cell_start.micros().div_euclid(STEP_US))
            .collect();
        for &step in steps.difference(&self.months) {
            for at in [step * STEP_US, (step + 1) * STEP_US - 1] {
                let at = Timestamp::from_micros(at);
                self.session
                    .client
                    .execute("SELECT uptally.ensure_rollup_month($1)", &[&at])
                    .await?;
            }
        }
        self.months.extend(steps);
        Ok(())
    }
}

/// The transaction of a flush.
pub(super) struct Writer<'a> {
    transaction: Transaction<'a>,
    statements: &'a Statements,
}

impl Writer<'_> {
    /// Where statements go that are not worth preparing.
    pub(super) fn client(&self) -> &Client {
        self.transaction.client()
    }

    /// Executes a statement that was prepared at its first use; returns the number of rows.
    pub(super) async fn execute(
        &self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, FlushError> {
        let statement = self.statements.get(&self.transaction, sql).await?;
        Ok(self.transaction.execute(&statement, parameters).await?)
    }
}

async fn write_schedules(t: &Writer<'_>, schedules: &[NewSchedule]) -> Result<(), FlushError> {
    for rows in schedules.chunks(ROWS_PER_STATEMENT) {
        let numbers: Vec<i32> = rows.iter().map(|s| number(s.number)).collect();
        let zones: Vec<&str> = rows.iter().map(|s| s.schedule.zone().name()).collect();
        let hours: Vec<String> = rows.iter().map(|s| s.schedule.hours().to_string()).collect();
        let closures: Vec<String> = rows.iter().map(|s| s.schedule.closures().to_string()).collect();
        let bases: Vec<i32> = rows.iter().map(|s| number(s.base)).collect();
        let per_hour: Vec<i16> = rows
            .iter()
            .map(|s| i16::from(s.schedule.zone().grid().cells_per_hour()))
            .collect();
        t.execute(
            "INSERT INTO uptally.rollup_schedule
                 (schedule_no, timezone_str, weekly_hours, cells_per_hour, closures, base_no)
             SELECT * FROM unnest($1::int[], $2::text[], $3::text[], $4::smallint[], $5::text[], $6::int[])
             ON CONFLICT (schedule_no) DO UPDATE
             SET timezone_str = excluded.timezone_str, weekly_hours = excluded.weekly_hours,
                 cells_per_hour = excluded.cells_per_hour, closures = excluded.closures, base_no = excluded.base_no",
            &[&numbers, &zones, &hours, &per_hour, &closures, &bases],
        )
        .await?;
    }
    Ok(())
}

async fn write_open_days(t: &Writer<'_>, days: &[OpenDay]) -> Result<(), FlushError> {
    for rows in days.chunks(ROWS_PER_STATEMENT) {
        let numbers: Vec<i32> = rows.iter().map(|d| number(d.schedule)).collect();
        let starts: Vec<Timestamp> = rows.iter().map(|d| d.day_start).collect();
        // There are no arrays of arrays of different lengths: each day travels as its text.
        let open: Vec<String> = rows.iter().map(|d| array_text(&d.open_us)).collect();
        t.execute(
            "INSERT INTO uptally.rollup_open (schedule_no, day_start, open_us)
             SELECT d.n, d.s, d.o::bigint[] FROM unnest($1::int[], $2::timestamptz[], $3::text[]) AS d (n, s, o)
             ON CONFLICT (schedule_no, day_start) DO UPDATE SET open_us = excluded.open_us",
            &[&numbers, &starts, &open],
        )
        .await?;
    }
    Ok(())
}

async fn remove_stores(t: &Writer<'_>, dirty: &Dirty) -> Result<(), FlushError> {
    if dirty.removed.is_empty() {
        return Ok(());
    }
    let numbers: Vec<i32> = dirty.removed.iter().map(|&s| number(s)).collect();
    t.execute("DELETE FROM uptally.rollup_down WHERE store_no = ANY ($1)", &[&numbers])
        .await?;
    t.execute("DELETE FROM uptally.rollup_day WHERE store_no = ANY ($1)", &[&numbers])
        .await?;
    t.execute(
        "DELETE FROM uptally.rollup_store WHERE store_no = ANY ($1)",
        &[&numbers],
    )
    .await?;
    Ok(())
}

async fn clear_cells(t: &Writer<'_>, cleared: &[ClearedStretch]) -> Result<(), FlushError> {
    for rows in cleared.chunks(ROWS_PER_STATEMENT) {
        let stores: Vec<i32> = rows.iter().map(|c| number(c.store)).collect();
        let from: Vec<Timestamp> = rows
            .iter()
            .map(|c| c.stretch.map_or(Timestamp::MIN, |s| s.start))
            .collect();
        let to: Vec<Timestamp> = rows
            .iter()
            .map(|c| c.stretch.map_or(Timestamp::MAX, |s| s.end))
            .collect();
        t.execute(
            "DELETE FROM uptally.rollup_down d
             USING unnest($1::int[], $2::timestamptz[], $3::timestamptz[]) AS c (store_no, f, t)
             WHERE d.store_no = c.store_no AND d.cell_start >= c.f AND d.cell_start < c.t",
            &[&stores, &from, &to],
        )
        .await?;
    }
    Ok(())
}

async fn write_stores(t: &Writer<'_>, stores: &[StoreRow]) -> Result<(), FlushError> {
    for rows in stores.chunks(ROWS_PER_STATEMENT) {
        let numbers: Vec<i32> = rows.iter().map(|s| number(s.store)).collect();
        let ids: Vec<&str> = rows.iter().map(|s| s.id.as_str()).collect();
        let schedules: Vec<i32> = rows.iter().map(|s| number(s.schedule)).collect();
        let last: Vec<Option<Timestamp>> = rows.iter().map(|s| s.last.map(|o| o.at)).collect();
        let status: Vec<Option<&str>> = rows.iter().map(|s| s.last.map(|o| o.status.as_str())).collect();
        let settled: Vec<Option<Timestamp>> = rows.iter().map(|s| s.settled_to).collect();
        let held: Vec<Option<Timestamp>> = rows.iter().map(|s| s.held_from).collect();
        t.execute(
            "INSERT INTO uptally.rollup_store
                 (store_no, store_id, schedule_no, last_observed_at, last_status, settled_to, held_from)
             SELECT * FROM unnest($1::int[], $2::text[], $3::int[], $4::timestamptz[], $5::text[],
                                             $6::timestamptz[], $7::timestamptz[])
             ON CONFLICT (store_no) DO UPDATE
             SET schedule_no = excluded.schedule_no, last_observed_at = excluded.last_observed_at,
                 last_status = excluded.last_status, settled_to = excluded.settled_to, held_from = excluded.held_from",
            &[&numbers, &ids, &schedules, &last, &status, &settled, &held],
        )
        .await?;
    }
    Ok(())
}

async fn write_cells(t: &Writer<'_>, cells: &[CellChange]) -> Result<(), FlushError> {
    for rows in cells.chunks(ROWS_PER_STATEMENT) {
        let stores: Vec<i32> = rows.iter().map(|c| number(c.store)).collect();
        let starts: Vec<Timestamp> = rows.iter().map(|c| c.cell_start).collect();
        let down: Vec<i64> = rows.iter().map(|c| i64::from(c.down_us)).collect();
        if rows.iter().any(|c| c.down_us == 0) {
            t.execute(
                "DELETE FROM uptally.rollup_down d
                 USING unnest($1::int[], $2::timestamptz[], $3::bigint[]) AS c (store_no, s, down_us)
                 WHERE c.down_us = 0 AND d.store_no = c.store_no AND d.cell_start = c.s",
                &[&stores, &starts, &down],
            )
            .await?;
        }
        t.execute(
            "INSERT INTO uptally.rollup_down (store_no, cell_start, down_us)
             SELECT c.store_no, c.s, c.down_us
             FROM unnest($1::int[], $2::timestamptz[], $3::bigint[]) AS c (store_no, s, down_us)
             WHERE c.down_us > 0
             ON CONFLICT (store_no, cell_start) DO UPDATE SET down_us = excluded.down_us",
            &[&stores, &starts, &down],
        )
        .await?;
    }
    Ok(())
}

async fn drop_before(t: &Writer<'_>, bound: Timestamp) -> Result<(), FlushError> {
    t.execute("SELECT uptally.drop_rollup_months_before($1)", &[&bound])
        .await?;
    t.execute("DELETE FROM uptally.rollup_down WHERE cell_start < $1", &[&bound])
        .await?;
    // A day's row is needed as long as any of its cells is.
    t.execute(
        "DELETE FROM uptally.rollup_open WHERE day_start < $1",
        &[&bound.plus(-2 * DAY_US)],
    )
    .await?;
    // The sums of the first day that can be reported are what its downtime is counted from.
    t.execute(
        "DELETE FROM uptally.rollup_day WHERE day < ($1::timestamptz AT TIME ZONE 'UTC')::date - 1",
        &[&bound],
    )
    .await?;
    Ok(())
}

/// False: the epoch is another daemon's.
async fn write_checkpoint(
    t: &Writer<'_>,
    epoch: i64,
    identity: &Identity,
    cursor: &Cursor,
    dirty: &Dirty,
) -> Result<bool, FlushError> {
    let written = t
        .execute(
            "UPDATE uptally.checkpoint
             SET cursor = $2::text::pg_snapshot, layout = $3, system_identifier = $4, database_oid = $5,
                 activity_oid = $6, timeline = $7, covers_from = $8, newest = $9, truncated = $10,
                 summed_to = $11::text::date, revision = $12,
                 written_at = pg_catalog.clock_timestamp()
             WHERE epoch = $1",
            &[
                &epoch,
                &cursor.to_string(),
                &layout(),
                &identity.system_identifier,
                &identity.database_oid,
                &identity.activity_oid,
                &identity.timeline,
                &dirty.covers_from,
                &dirty.newest,
                &dirty.truncated,
                &dirty.summed_to.map(|day| day.to_string()),
                &dirty.revision,
            ],
        )
        .await?;
    Ok(written == 1)
}

/// Numbers of stores and schedules are dense and far from the limit of an `integer`.
pub(super) fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn array_text(values: &[i64]) -> String {
    let mut text = String::with_capacity(values.len() * 11 + 2);
    let mut digits = itoa::Buffer::new();
    text.push('{');
    for (i, &value) in values.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(digits.format(value));
    }
    text.push('}');
    text
}
