//! Building a rollup from nothing but the raw tables.

use super::{APPLY_ROWS, Delta, Reading, STORES_PER_QUERY};
use crate::db::DbError;
use crate::rollup::{Limits, Rollup};
use crate::time::Timestamp;

impl Reading<'_> {
    /// The rollup of everything that this reading sees.
    ///
    /// Up to `batch_rows_max` rows are read in whatever order they lie and sorted in memory (16 bytes a
    /// row); a larger table is read in order, which the server then sorts.
    pub async fn rebuild(
        &self,
        limits: Limits,
        now: Timestamp,
        batch_rows_max: usize,
        mut pause: impl FnMut(),
    ) -> Result<Rollup, DbError> {
        let mut rollup = Rollup::new(limits, now);
        let mut schedules: Vec<_> = self.schedules(None).await?.into_iter().collect();
        // In the order of the ids, reports later walk the arrays from front to back.
        schedules.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for (id, schedule) in &schedules {
            rollup.enroll(id, schedule);
        }
        let estimate = self
            .transaction
            .query_one(
                "SELECT greatest(c.reltuples, 0)::float8 FROM pg_catalog.pg_class c WHERE c.oid = 'public.store_activity'::regclass",
                &[],
            )
            .await?
            .try_get::<_, f64>(0)?;
        #[expect(clippy::cast_precision_loss, reason = "an estimate against a bound")]
        let in_order = estimate > batch_rows_max as f64;
        let order = if in_order {
            "true ORDER BY store_id, timestamp_utc"
        } else {
            "true"
        };
        self.stream_all(order, batch_rows_max, &mut rollup, &mut pause).await?;
        Ok(rollup)
    }

    async fn stream_all(
        &self,
        order: &str,
        batch_rows_max: usize,
        rollup: &mut Rollup,
        pause: &mut impl FnMut(),
    ) -> Result<(), DbError> {
        use futures_util::{TryStreamExt, pin_mut};
        let sql = format!("SELECT store_id, timestamp_utc, status FROM public.store_activity WHERE {order}");
        let rows = self.transaction.query_raw(&sql, std::iter::empty::<i32>()).await?;
        pin_mut!(rows);
        let mut batch = Vec::new();
        let mut read_backs = Vec::new();
        loop {
            let row = rows.try_next().await?;
            let done = row.is_none();
            if let Some(row) = row {
                let observation = super::observation(row.try_get(1)?, row.try_get(2)?);
                batch.push((rollup.intern(row.try_get(0)?), observation));
            }
            if done || batch.len() >= batch_rows_max {
                batch.sort_unstable();
                for chunk in batch.chunks_mut(APPLY_ROWS) {
                    read_backs.extend(rollup.apply(chunk));
                    pause();
                }
                batch.clear();
            }
            if done {
                break;
            }
        }
        let read_backs = super::merged(read_backs, rollup);
        for read_backs in read_backs.chunks(STORES_PER_QUERY) {
            self.read_back(read_backs, rollup).await?;
            pause();
        }
        Ok(())
    }

    /// Moves a rollup from `old` to the point of this reading; builds it anew where that is needed.
    pub async fn catch_up(
        &self,
        old: &super::Cursor,
        rollup: &mut Rollup,
        limits: Limits,
        now: Timestamp,
        batch_rows_max: usize,
    ) -> Result<(), DbError> {
        let delta: Delta = self.delta(old, &rollup.index()).await?;
        if delta.wants_rebuild() {
            *rollup = self.rebuild(limits, now, batch_rows_max, || ()).await?;
            return Ok(());
        }
        self.apply(delta, rollup, || ()).await
    }
}
