//! The observations of all stores in a stretch, store after store: for what the rollup does not keep.

use futures_util::{TryStreamExt, pin_mut};

use super::copy::{Malformed, RowSplitter};
use super::{Reading, STORES_PER_QUERY};
use crate::db::DbError;
use crate::rollup::Observation;
use crate::time::{Span, Timestamp};

/// The latest observation of each store before an instant.
const LATEST_BEFORE: &str = "
    SELECT q.n::int, o.timestamp_utc
    FROM unnest($1::text[]) WITH ORDINALITY AS q (store_id, n)
    CROSS JOIN LATERAL (
        SELECT a.timestamp_utc FROM public.store_activity a
        WHERE a.store_id = q.store_id AND a.timestamp_utc < $2 ORDER BY a.timestamp_utc DESC LIMIT 1) o";

impl Reading<'_> {
    /// Calls `each` with every store that has observations in a stretch and with those, in order of time. Stores come in the
    /// bytewise order of their ids, and one store's observations at a time are in memory.
    pub async fn by_store(&self, stretch: Span, mut each: impl FnMut(&str, &[Observation])) -> Result<(), DbError> {
        // A COPY takes no parameters. Instants are digits.
        let copy = format!(
            "COPY (SELECT store_id, timestamp_utc, status = 'inactive' FROM public.store_activity
                   WHERE timestamp_utc >= '{}' AND timestamp_utc < '{}'
                   ORDER BY store_id COLLATE \"C\", timestamp_utc)
             TO STDOUT (FORMAT binary)",
            stretch.start, stretch.end
        );
        self.transaction.batch_execute("SET LOCAL work_mem = '256MB'").await?;
        let messages = self.transaction.copy_out(copy.as_str()).await?;
        pin_mut!(messages);
        let mut splitter = RowSplitter::default();
        let (mut store, mut observations) = (String::new(), Vec::new());
        while let Some(message) = messages.try_next().await? {
            let pushed = splitter.push(message, |id, observation| {
                if id != store {
                    if !observations.is_empty() {
                        each(&store, &observations);
                    }
                    observations.clear();
                    id.clone_into(&mut store);
                }
                observations.push(observation);
            });
            pushed.map_err(|Malformed| DbError::Unexpected("COPY sent something else than rows".to_owned()))?;
        }
        if !observations.is_empty() {
            each(&store, &observations);
        }
        Ok(())
    }

    /// When each store was last observed before an instant, by its place in `ids`.
    pub async fn latest_before(
        &self,
        ids: &[String],
        before: Timestamp,
        mut each: impl FnMut(usize, Timestamp),
    ) -> Result<(), DbError> {
        let statement = self.statement(LATEST_BEFORE).await?;
        for (chunk, ids) in ids.chunks(STORES_PER_QUERY).enumerate() {
            for row in self.transaction.query(&statement, &[&ids, &before]).await? {
                let n: i32 = row.try_get(0)?;
                let place = usize::try_from(n - 1).unwrap_or(usize::MAX);
                each(chunk * STORES_PER_QUERY + place, row.try_get(1)?);
            }
        }
        Ok(())
    }
}
