//! Reports that say how well stores were observed, which the rollup does not keep: made in one transaction of their own, in
//! which the ledger, what is new since then, and the raw rows are all of the same point. docs/decisions has why.

use std::time::Instant;

use super::Handle;
use super::handle::{covered, render_away};
use super::point::load_or_rebuild;
use crate::db::DbError;
use crate::feed::{Reading, Scope};
use crate::report::{RenderError, Rendered, ReportRequest, csv, stage};
use crate::rollup::{Limits, ObservedWindows, Plan, Snapshot, StoreView};
use crate::time::{Span, Timestamp};
use crate::window::WINDOW_REACH_US;

impl From<DbError> for RenderError {
    fn from(error: DbError) -> Self {
        RenderError::Failed(error.to_string())
    }
}

impl Handle {
    /// Renders with extended columns.
    pub(super) async fn render_extended(
        &self,
        as_of: Option<Timestamp>,
        request: ReportRequest,
    ) -> Result<Rendered, RenderError> {
        // Whoever stands by, or has lost the database, makes no reports, though it could read.
        self.status().following.map_err(RenderError::NotLoaded)?;
        let began = Instant::now();
        let now = self.clock.now();
        let mut session = self.database.connect("uptally report").await?;
        let unlimited = session.client.batch_execute("SET statement_timeout = 0").await;
        unlimited.map_err(DbError::from)?;
        let reading = Reading::start(&mut session, Scope::InputsAndRollup).await?;
        let limits = Limits {
            keep_from: as_of.map(|as_of| as_of.plus(-WINDOW_REACH_US)),
            track_dirty: false,
            ..self.settings.limits
        };
        let mut rollup = load_or_rebuild(&reading, limits, now, self.settings.batch_rows_max).await?;
        let snapshot = rollup.snapshot();
        let as_of = as_of.or(snapshot.newest()).unwrap_or(now);
        covered(&snapshot, as_of, now)?;
        let plan = snapshot.plan(as_of, request.windows);
        let valid_us = i64::try_from(self.settings.silent_after.as_micros()).unwrap_or(i64::MAX);
        let observed = observed(&reading, &snapshot, &plan, as_of, valid_us).await?;
        let cursor = reading.finish();
        stage("point", began);
        let stores = u64::try_from(snapshot.len()).unwrap_or(u64::MAX);
        let ready = Instant::now();
        let csv = render_away(move || csv::render_as(&snapshot, as_of, request, Some(observed))).await?;
        stage("render", ready);
        Ok(Rendered {
            csv,
            as_of,
            cursors: vec![cursor.to_string()],
            stores,
        })
    }
}

/// How well each store of a snapshot was observed, by its place in the order of the ids. The snapshot must be of the
/// reading's point.
async fn observed(
    reading: &Reading<'_>,
    snapshot: &Snapshot,
    plan: &Plan,
    as_of: Timestamp,
    valid_us: i64,
) -> Result<Vec<ObservedWindows>, DbError> {
    // At the instant itself too.
    let end = as_of.plus(1);
    let first = plan.first().plus(-valid_us).max(Timestamp::MIN);
    let mut all = Vec::with_capacity(snapshot.len());
    let mut stores = snapshot.stores().peekable();
    let without = |store: StoreView<'_>| store.observed(plan, &[], valid_us).unwrap_or_default();
    reading
        .by_store(Span::new(first, end), |id, observations| {
            // Both are in the bytewise order of the ids.
            while let Some(store) = stores.next_if(|store| store.id <= id) {
                all.push(if store.id == id {
                    store.observed(plan, observations, valid_us).unwrap_or_default()
                } else {
                    without(store)
                });
            }
        })
        .await?;
    all.extend(stores.map(without));
    // Not observed in the stretch, but before it.
    let mut places = Vec::new();
    let mut ids = Vec::new();
    for (place, (store, observed)) in snapshot.stores().zip(&mut all).enumerate() {
        match store.last() {
            Some(last) if last.at < end => observed.last = Some(last.at),
            Some(_) if observed.last.is_none() => {
                places.push(place);
                ids.push(store.id.to_owned());
            }
            _ => {}
        }
    }
    let mut found = |n: usize, at: Timestamp| {
        if let Some(observed) = places.get(n).and_then(|&place| all.get_mut(place)) {
            observed.last = Some(at);
        }
    };
    reading.latest_before(&ids, end, &mut found).await?;
    Ok(all)
}
