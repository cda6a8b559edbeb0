//! Building a rollup from nothing but the raw tables.

use futures_util::{TryStreamExt, pin_mut};

use super::copy::{Malformed, RowSplitter};
use super::raw::StoreSchedules;
use super::{APPLY_ROWS, Delta, Reading, STORES_PER_QUERY, is_much_of};
use crate::db::DbError;
use crate::rollup::{Limits, Observation, ReadBack, Rollup, StoreNo};
use crate::time::Timestamp;

/// By store and time. Byte order is the cheapest that a server can sort text by; any would do.
const ORDERED: &str = "
    COPY (SELECT store_id, timestamp_utc, status = 'inactive' FROM public.store_activity
          ORDER BY store_id COLLATE \"C\", timestamp_utc)
    TO STDOUT (FORMAT binary)";

/// As the rows lie.
const AS_THEY_LIE: &str = "
    COPY (SELECT store_id, timestamp_utc, status = 'inactive' FROM public.store_activity)
    TO STDOUT (FORMAT binary)";

impl Reading<'_> {
    /// The rollup of everything that this reading sees.
    ///
    /// Rows are read as they lie, which is about the order in which they came, and sorted in memory `batch_rows_max`
    /// at a time (16 bytes a row). The few that are late for memory after that are read back. If those are many, the
    /// rows lie in no order at all: everything is read again, and the server sorts.
    pub async fn rebuild(
        &self,
        limits: Limits,
        now: Timestamp,
        batch_rows_max: usize,
        mut pause: impl FnMut(),
    ) -> Result<Rollup, DbError> {
        let StoreSchedules { known, default } = self.schedules(None).await?;
        let mut schedules: Vec<_> = known.into_iter().collect();
        // In the order of the ids, reports later walk the arrays from front to back.
        schedules.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let idle = || {
            let mut rollup = Rollup::new(limits, now);
            rollup.set_default_schedule(default.clone());
            for (id, schedule) in &schedules {
                rollup.enroll(id, schedule);
            }
            rollup
        };
        let mut rollup = idle();
        let mut late = self
            .stream_all(AS_THEY_LIE, batch_rows_max, &mut rollup, &mut pause)
            .await?;
        if is_much_of(rollup.stores(), late.len()) {
            tracing::info!(
                stores_late = late.len(),
                "the rows lie in no order: the server sorts them"
            );
            self.transaction.batch_execute("SET LOCAL work_mem = '256MB'").await?;
            rollup = idle();
            late = self
                .stream_all(ORDERED, batch_rows_max, &mut rollup, &mut pause)
                .await?;
        }
        for read_backs in late.chunks(STORES_PER_QUERY) {
            self.read_back(read_backs, &mut rollup).await?;
            pause();
        }
        Ok(rollup)
    }

    /// Applies all rows. Returns what must be read back, once for each store.
    async fn stream_all(
        &self,
        copy: &str,
        batch_rows_max: usize,
        rollup: &mut Rollup,
        pause: &mut impl FnMut(),
    ) -> Result<Vec<ReadBack>, DbError> {
        let messages = self.transaction.copy_out(copy).await?;
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
        Ok(super::merged(read_backs, rollup))
    }

    /// Moves a rollup from `old` to the point of this reading; builds it anew where that is needed, and says whether it was.
    pub async fn catch_up(
        &self,
        old: &super::Cursor,
        rollup: &mut Rollup,
        limits: Limits,
        now: Timestamp,
        batch_rows_max: usize,
    ) -> Result<bool, DbError> {
        let delta: Delta = self.delta(old, &rollup.index()).await?;
        if delta.wants_rebuild() {
            *rollup = self.rebuild(limits, now, batch_rows_max, || ()).await?;
            return Ok(true);
        }
        let due = rollup.set_now(now);
        self.apply(delta, due, rollup, || ()).await?;
        Ok(false)
    }
}
