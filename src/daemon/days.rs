//! Reports over stretches of local days: the ledger's running sums, and the rest from memory.

use chrono::NaiveDate;

use super::handle::render_away;
use super::{Handle, Point};
use crate::db::DbError;
use crate::failpoint;
use crate::ledger;
use crate::report::{DaysNotCovered, RenderError, Rendered, ReportRequest, render_days};
use crate::rollup::{DaySums, Limits, first_date_at, start_everywhere};
use crate::time::{HOUR_US, Timestamp};
use crate::window::DateRange;

impl Handle {
    /// Renders a report over days.
    pub(super) async fn render_days(
        &self,
        days: DateRange,
        as_of: Option<Timestamp>,
        request: ReportRequest,
    ) -> Result<Rendered, RenderError> {
        // Whoever stands by, or has lost the database, makes no reports, though it could read.
        let status = self.status();
        status.following.map_err(RenderError::NotLoaded)?;
        let not_loaded = || RenderError::NotLoaded("the daemon is not following the database".to_owned());
        let now = self.clock.now();
        // The sums need only go nearly as far as the report, which of the newest observation is known with the point.
        let probably = as_of.or(status.newest).unwrap_or(now);
        let to = days.to().min(summed_to_max(probably));
        // First the sums, then memory: if that has the same revision, nothing has changed before it in between.
        let mut sums = self.day_sums(days.from(), to).await?;
        failpoint::hit("report.summed")?;
        let mut point = self.point().await.ok_or_else(not_loaded)?;
        let known = |point: &Point| as_of.or(point.snapshot.newest()).unwrap_or(now);
        let fits = match &sums {
            Some(sums) => point.snapshot.continues(sums, days) && sums.to <= summed_to_max(known(&point)),
            None => point.snapshot.holds(days),
        };
        if !fits {
            // The ledger lacks what came late, or what memory has dropped: all cells are loaded, which takes its time.
            sums = None;
            let limits = Limits {
                keep_from: Some(start_everywhere(days.from())),
                ..self.settings.limits
            };
            let whole = super::point(&self.database, limits, now, self.settings.batch_rows_max).await;
            point = whole.map_err(|error| RenderError::Failed(error.to_string()))?;
        }
        let as_of = known(&point);
        let Point { snapshot, cursor } = point;
        DaysNotCovered::check(days, snapshot.first_day(), as_of)?;
        let stores = u64::try_from(snapshot.len()).unwrap_or(u64::MAX);
        let csv = render_away(move || {
            let all = snapshot.days(days, as_of, sums.as_ref());
            Ok(render_days(&snapshot, &all, request.format))
        });
        Ok(Rendered {
            csv: csv.await?,
            as_of,
            cursors: vec![cursor.to_string()],
            stores,
        })
    }

    /// The ledger's sums, if it has some.
    async fn day_sums(&self, from: NaiveDate, to: NaiveDate) -> Result<Option<DaySums>, DbError> {
        let mut session = self.database.connect("uptally report").await?;
        let transaction = session.client.build_transaction();
        let transaction = transaction.isolation_level(tokio_postgres::IsolationLevel::RepeatableRead);
        let transaction = transaction.read_only(true).start().await?;
        ledger::read_day_sums(transaction.client(), from, to).await
    }
}

/// The last day whose sums count nothing after an instant: one that had begun everywhere before its full hour.
fn summed_to_max(as_of: Timestamp) -> NaiveDate {
    first_date_at(as_of.plus(-HOUR_US))
}
