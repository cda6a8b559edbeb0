//! The task that owns the rollup: starts it, follows the feed, lets time pass, flushes, drains.
//!
//! One task mutates the rollup and nobody else; whoever wants to read sends a request and gets a
//! [`Point`], a snapshot and the cursor it is of. Between two batches the answer is the present; while a large
//! batch is applied it is the point before that batch, so that no report ever sees half of one.
//!
//! Losing the database session throws memory away: it is loaded again from the ledger, whose rows and cursor
//! belong together. That one rule covers crashes of the server, promotions and restores.

mod attend;
mod flusher;
mod follow;
mod handle;
mod lead;
mod point;
mod settings;

pub use handle::{Handle, Status};
pub use point::{Point, PointError, point};
pub use settings::{Settings, Standby};

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::db::{Backend, Database, DbError};
use crate::ledger::FlushError;
use attend::Outside;
use follow::Following;

/// Requests for a point that wait at most; a sender waits beyond that.
const REQUESTS_MAX: usize = 64;

/// Pauses between attempts to reach the database.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The log says at most so often that the database cannot be followed, and why; less often while the reason
/// stays the same.
const TOLD_EVERY: Duration = Duration::from_secs(1);
const TOLD_AGAIN_EVERY: Duration = Duration::from_mins(1);

/// Who has followed for so long starts again with the shortest pause. Measured from the end of loading, so that
/// a flush that fails at once does not make a loop of loading.
const STEADY: Duration = Duration::from_secs(1);

/// Why the daemon cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another daemon holds the leader's lock: its name and pid.
    #[error("another uptally daemon is active on this database ({0})")]
    AnotherDaemon(String),
    /// Another daemon has taken over.
    #[error("another uptally daemon has taken over this database")]
    Fenced,
    /// The database failed; worth another try.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<FlushError> for DaemonError {
    fn from(error: FlushError) -> Self {
        match error {
            FlushError::Fenced => DaemonError::Fenced,
            FlushError::Db(error) => DaemonError::Db(error),
        }
    }
}

/// Somebody wants to read.
type Request = oneshot::Sender<Point>;

/// The owner of the rollup of one database.
#[derive(Debug)]
pub struct Daemon {
    database: Database,
    clock: Clock,
    settings: Settings,
    requests: mpsc::Receiver<Request>,
    status: watch::Sender<Status>,
    /// The processes of the server that served the sessions of the last life.
    left: Vec<Backend>,
}

impl Daemon {
    /// A daemon that has not started, and the handle by which others ask it.
    pub fn new(database: Database, clock: Clock, settings: Settings) -> (Daemon, Handle) {
        let (request, requests) = mpsc::channel(REQUESTS_MAX);
        let (status, watched) = watch::channel(Status::starting());
        let handle = Handle::new(database.clone(), clock.clone(), settings, request, watched);
        let daemon = Daemon {
            database,
            clock,
            settings,
            requests,
            status,
            left: Vec::new(),
        };
        (daemon, handle)
    }

    /// Runs until `shutdown` says true; then flushes what is left. Database failures are waited out, and so is another
    /// daemon, unless the settings say otherwise.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Result<(), DaemonError> {
        let mut backoff = BACKOFF_MIN;
        let mut told: Option<(String, Instant)> = None;
        loop {
            let Err(error) = self.live_once(&mut shutdown, &mut backoff).await else {
                return Ok(());
            };
            let pause = match &error {
                DaemonError::Db(error) => error.retry_after().unwrap_or(backoff.min(error.retry_within())),
                _ if self.settings.standby == Standby::Wait => backoff,
                _ => return Err(error),
            };
            let text = error.to_string();
            let is_told = told.as_ref().is_some_and(|(last, at)| {
                // What is followed by a long pause is the last word for a while, so it is told, once.
                let is_last_word = pause >= TOLD_EVERY;
                let every = if *last == text { TOLD_AGAIN_EVERY } else { TOLD_EVERY };
                at.elapsed() < every && (*last == text || !is_last_word)
            });
            if is_told {
                tracing::debug!(%error, retry_in = ?pause, "not following");
            } else {
                tracing::warn!(%error, retry_in = ?pause, "not following");
                told = Some((text, Instant::now()));
            }
            metrics::counter!("uptally_feed_restarts_total").increment(1);
            self.status.send_modify(|status| status.stopped(&error.to_string()));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = asked(&mut shutdown) => return Ok(()),
            }
            // A pause that was cut short is not made up for later.
            backoff = (pause.clamp(BACKOFF_MIN, backoff) * 2).min(BACKOFF_MAX);
        }
    }

    /// From connecting to the end of the session.
    async fn live_once(
        &mut self,
        shutdown: &mut watch::Receiver<bool>,
        backoff: &mut Duration,
    ) -> Result<(), DaemonError> {
        let starting = Following::start(&self.database, &self.clock, self.settings, &self.status, &mut self.left);
        let mut following = tokio::select! {
            following = starting => following?,
            () = asked(shutdown) => return Ok(()),
        };
        let began = Instant::now();
        let lost = following.lost();
        let mut outside = Outside {
            requests: &mut self.requests,
            asked: None,
            shutdown,
        };
        let outcome = tokio::select! {
            biased;
            outcome = following.run(&mut outside) => outcome,
            // Even in the middle of a long read.
            error = lost => Err(error.into()),
        };
        if began.elapsed() > STEADY {
            *backoff = BACKOFF_MIN;
        }
        outcome
    }
}

/// Returns when the daemon is to stop; also if nobody is left who could say so.
async fn asked(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|&stop| stop).await;
}

/// Names and explains this module's metrics to the installed recorder.
pub fn describe_metrics() {
    use metrics::Unit::Seconds;
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("uptally_feed_rows_total", "Rows of store_activity that were applied");
    describe_counter!(
        "uptally_feed_reads_total",
        "Looks at the database that found something new"
    );
    describe_histogram!(
        "uptally_feed_read_seconds",
        Seconds,
        "From the start of such a look to its rows applied"
    );
    describe_counter!("uptally_feed_restarts_total", "Times that following had to start anew");
    describe_counter!(
        "uptally_feed_wiring_changes_total",
        "Times that tables, triggers or functions were found touched and everything was read again"
    );
    describe_gauge!(
        "uptally_feed_polls_only",
        "1 while new rows are found by polling alone, by configuration or because notifications do not work at the moment"
    );
    describe_counter!(
        "uptally_audit_cells_total",
        "Cells that were recomputed from raw and compared"
    );
    describe_counter!(
        "uptally_audit_drift_total",
        "Differences that audits found, each logged and its store recomputed; anything but 0 is worth a report"
    );
    describe_histogram!(
        "uptally_audit_seconds",
        Seconds,
        "Time that the follower spent on an audit"
    );
    describe_counter!("uptally_feed_sleeps_total", "Times that the follower fell asleep");
    describe_gauge!(
        "uptally_feed_lag_seconds",
        Seconds,
        "Time since memory was last known to be the present"
    );
    describe_gauge!("uptally_rollup_stores", "Stores in the rollup");
    describe_gauge!(
        "uptally_rollup_held_observations",
        "Observations dated in the future that wait for their time"
    );
    describe_histogram!(
        "uptally_ledger_flush_seconds",
        Seconds,
        "Duration of a flush to the rollup tables"
    );
    describe_counter!(
        "uptally_ledger_flushed_rows_total",
        "Store and cell rows written by flushes"
    );
}
