//! What the rest of the program sees of the daemon: its status, and points to make reports of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::NaiveDate;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use super::{FeedState, Point, Pulse, Request, Settings};
use crate::clock::Clock;
use crate::db::Database;
use crate::report::csv::{self, BeforeMemory};
use crate::report::{Columns, Coverage, Csv, RenderError, Rendered, ReportRequest, Source, stage};
use crate::rollup::{Limits, Snapshot};
use crate::time::Timestamp;
use crate::window::WINDOW_REACH_US;

/// How long a report waits for the daemon's answer.
const ANSWER_PATIENCE: Duration = Duration::from_mins(1);

/// How the daemon is.
#[derive(Debug, Clone)]
pub struct Status {
    /// Following; else why not.
    pub following: Result<(), String>,
    /// The same as one of a few words.
    pub state: FeedState,
    /// When memory was last known to be the present.
    pub current_at: Option<Instant>,
    /// Latest observation that is counted.
    pub newest: Option<Timestamp>,
    /// See [`crate::rollup::Rollup::earliest_as_of`].
    pub earliest_as_of: Timestamp,
    /// First instant with buckets; None without observations.
    pub covers_from: Option<Timestamp>,
    /// See [`crate::rollup::Rollup::first_day`].
    pub first_day: Option<NaiveDate>,
    /// Number of stores.
    pub stores: usize,
    /// Since when the oldest change in memory waits to be in the tables; None: they have all. Nobody is told of a change
    /// of this alone.
    pub unflushed_since: Option<Instant>,
}

impl Status {
    pub(super) fn starting() -> Self {
        Status {
            following: Err("starting".to_owned()),
            state: FeedState::Starting,
            current_at: None,
            newest: None,
            earliest_as_of: Timestamp::MIN,
            covers_from: None,
            first_day: None,
            stores: 0,
            unflushed_since: None,
        }
    }

    pub(super) fn stopped(&mut self, state: FeedState, reason: &str) {
        self.state = state;
        self.unflushed_since = None;
        self.following = Err(reason.to_owned());
    }
}

/// Asks the daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) database: Database,
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Status>,
    pulse: Pulse,
    draining: Arc<AtomicBool>,
}

impl Handle {
    pub(super) fn new(
        database: Database,
        clock: Clock,
        settings: Settings,
        requests: mpsc::Sender<Request>,
        status: watch::Receiver<Status>,
        pulse: Pulse,
    ) -> Self {
        Handle {
            database,
            clock,
            settings,
            requests,
            status,
            pulse,
            draining: Arc::default(),
        }
    }

    /// From now on not ready: the process is going down.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// How the daemon is right now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Whether the daemon's task gets on.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Tells of every change of the status from now on.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Returns when the daemon follows; false if it has ended.
    pub async fn following(&mut self) -> bool {
        self.status.wait_for(|status| status.following.is_ok()).await.is_ok()
    }

    /// Returns when the daemon does not follow any more, for whatever reason; false if it has ended.
    pub async fn stopped(&mut self) -> bool {
        self.status.wait_for(|status| status.following.is_err()).await.is_ok()
    }

    /// The present. None if the daemon has ended or does not answer.
    pub async fn point(&self) -> Option<Point> {
        let (answer, point) = oneshot::channel();
        self.requests.send(answer).await.ok()?;
        tokio::time::timeout(ANSWER_PATIENCE, point).await.ok()?.ok()
    }

    /// Renders from memory; from the ledger where the windows begin before what memory holds.
    async fn render_point(&self, as_of: Option<Timestamp>, request: ReportRequest) -> Result<Rendered, RenderError> {
        if let Some(days) = request.days {
            return self.render_days(days, as_of, request).await;
        }
        if request.columns == Columns::Extended {
            return self.render_extended(as_of, request).await;
        }
        let not_loaded = || RenderError::NotLoaded("the daemon is not following the database".to_owned());
        let asked = Instant::now();
        let mut point = self.point().await.ok_or_else(not_loaded)?;
        stage("point", asked);
        let now = self.clock.now();
        let as_of = as_of.or(point.snapshot.newest()).unwrap_or(now);
        covered(&point.snapshot, as_of, now)?;
        if !point.snapshot.reaches(as_of) {
            let limits = Limits {
                keep_from: Some(as_of.plus(-WINDOW_REACH_US)),
                ..self.settings.limits
            };
            let past = super::point(&self.database, limits, now, self.settings.batch_rows_max).await;
            point = past.map_err(|error| RenderError::Failed(error.to_string()))?;
            // A flush in between may have moved the ledger's retention on.
            covered(&point.snapshot, as_of, now)?;
        }
        let Point { snapshot, cursor } = point;
        let stores = u64::try_from(snapshot.len()).unwrap_or(u64::MAX);
        let ready = Instant::now();
        let csv = render_away(move || csv::render_as(&snapshot, as_of, request, None)).await?;
        stage("render", ready);
        Ok(Rendered {
            csv,
            as_of,
            cursors: vec![cursor.to_string()],
            stores,
        })
    }
}

/// Renders away from the threads that answer.
pub(super) async fn render_away(
    render: impl FnOnce() -> Result<Csv, BeforeMemory> + Send + 'static,
) -> Result<Csv, RenderError> {
    let rendered = tokio::task::spawn_blocking(render).await;
    rendered
        .map_err(|error| RenderError::Failed(error.to_string()))?
        .map_err(|error| RenderError::Failed(error.to_string()))
}

/// Refuses an instant whose windows reach back before what a snapshot covers.
pub(super) fn covered(snapshot: &Snapshot, as_of: Timestamp, now: Timestamp) -> Result<(), RenderError> {
    let coverage = coverage_of(snapshot, now);
    if as_of < coverage.earliest {
        Err(RenderError::NotCovered { as_of, coverage })
    } else {
        Ok(())
    }
}

fn coverage_of(snapshot: &Snapshot, now: Timestamp) -> Coverage {
    Coverage {
        earliest: snapshot.earliest_as_of(),
        latest: latest(now, snapshot.newest()),
        newest: snapshot.newest(),
        first_day: snapshot.first_day(),
    }
}

/// The latest instant that a report may be as of: nobody knows the future, but what has been observed counts.
fn latest(now: Timestamp, newest: Option<Timestamp>) -> Timestamp {
    newest.map_or(now, |newest| newest.max(now))
}

impl Source for Handle {
    fn render(&self, as_of: Option<Timestamp>, request: ReportRequest) -> BoxFuture<'_, Result<Rendered, RenderError>> {
        Box::pin(self.render_point(as_of, request))
    }

    fn coverage(&self) -> Option<Coverage> {
        let status = self.status.borrow();
        status.following.as_ref().ok()?;
        Some(Coverage {
            earliest: status.earliest_as_of,
            latest: latest(self.clock.now(), status.newest),
            newest: status.newest,
            first_day: status.first_day,
        })
    }

    fn coverage_now(&self) -> BoxFuture<'_, Option<Coverage>> {
        Box::pin(async {
            let point = self.point().await?;
            Some(coverage_of(&point.snapshot, self.clock.now()))
        })
    }

    fn readiness(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("shutting down".to_owned());
        }
        let status = self.status.borrow();
        status.following.clone()?;
        let lag = status.current_at.map_or(Duration::MAX, |at| at.elapsed());
        if lag > self.settings.lag_ready_max {
            return Err(format!(
                "lagging: memory was last known to be the present {:.1} s ago",
                lag.as_secs_f32()
            ));
        }
        Ok(())
    }
}
