//! Building a rollup from nothing but the raw tables.

use futures_util::{TryStreamExt, pin_mut};

use super::copy::{Malformed, RowSplitter};
use super::{APPLY_ROWS, Delta, Reading, STORES_PER_QUERY};
use crate::db::DbError;
use crate::rollup::{Limits, Observation, Rollup, StoreNo};
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
                "SELECT CASE WHEN c.reltuples < 0 THEN pg_catalog.pg_relation_size(c.oid) / 80 ELSE c.reltuples END::float8 FROM pg_catalog.pg_class c WHERE c.oid = 'public.store_activity'::regclass",
                &[],
            )
            .await?
            .try_get::<_, f64>(0)?;
        #[expect(clippy::cast_precision_loss, reason = "an estimate against a bound")]
        let in_order = estimate > batch_rows_max as f64;
        let order = if in_order {
            "ORDER BY store_id, timestamp_utc"
        } else {
            ""
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
        let sql = format!(
            "COPY (SELECT store_id, timestamp_utc, status = 'inactive' FROM public.store_activity {order})
             TO STDOUT (FORMAT binary)"
        );
        let messages = self.transaction.copy_out(&sql).await?;
        pin_mut!(messages);
        let mut rows = RowSplitter::default();
        let mut batch = Vec::new();
        let mut read_backs = Vec::new();
        let mut apply = |batch: &mut Vec<(StoreNo, Observation)>, rollup: &mut Rollup| {
            batch.sort_unstable();
            for chunk in batch.chunks_mut(APPLY_ROWS) {
                read_backs.extend(rollup.apply(chunk));
                pause();
            }
            batch.clear();
        };
        while let Some(message) = messages.try_next().await? {
            rows.push(message, |id, observation| batch.push((rollup.intern(id), observation)))
                .map_err(|Malformed| DbError::Unexpected("COPY sent something else than rows".to_owned()))?;
            if batch.len() >= batch_rows_max {
                apply(&mut batch, rollup);
            }
        }
        apply(&mut batch, rollup);
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
