//! The task that owns the rollup: starts it, follows the feed, lets time pass, flushes, drains.
//!
//! One task mutates the rollup and nobody else; whoever wants to read sends a request and gets a
//! [`Point`], a snapshot and the cursor it is of. Between two batches the answer is the present; while a large
//! batch is applied it is the point before that batch, so that no report ever sees half of one.
//!
//! Losing the database session throws memory away: it is loaded again from the ledger, whose rows and cursor
//! belong together. That one rule covers crashes of the server, promotions and restores.

mod attend;
mod days;
mod extended;
mod figures;
mod flusher;
mod follow;
mod handle;
mod lead;
mod point;
mod pulse;
mod settings;

pub use figures::{FeedState, collect as collect_metrics, describe_metrics};
pub use handle::{Handle, Status};
pub use point::{Point, PointError, point};
pub use pulse::Pulse;
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
    /// What the feed hangs on is broken; says what.
    #[error("{0}")]
    Wiring(String),
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
    pulse: Pulse,
    /// The processes of the server that served the sessions of the last life.
    left: Vec<Backend>,
}

impl Daemon {
    /// A daemon that has not started, and the handle by which others ask it.
    pub fn new(database: Database, clock: Clock, settings: Settings) -> (Daemon, Handle) {
        let (request, requests) = mpsc::channel(REQUESTS_MAX);
        let (status, watched) = watch::channel(Status::starting());
        let pulse = Pulse::new();
        let handle = Handle::new(
            database.clone(),
            clock.clone(),
            settings,
            request,
            watched,
            pulse.clone(),
        );
        let daemon = Daemon {
            database,
            clock,
            settings,
            requests,
            status,
            pulse,
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
            // On the heap: a life is large, and there is one at a time.
            let Err(error) = Box::pin(self.live_once(&mut shutdown, &mut backoff)).await else {
                return Ok(());
            };
            let pause = match &error {
                DaemonError::Db(error) => error.retry_after().unwrap_or(backoff.min(error.retry_within())),
                DaemonError::Wiring(_) => backoff,
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
            let state = FeedState::after(&error);
            self.status
                .send_modify(|status| status.stopped(state, &error.to_string()));
            tokio::select! {
                () = self.pulse.during(tokio::time::sleep(pause)) => {}
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
        let start = Following::start(&self.database, &self.clock, self.settings, &self.status, &mut self.left);
        let mut following = tokio::select! {
            following = self.pulse.during(start) => following?,
            () = asked(shutdown) => return Ok(()),
        };
        let began = Instant::now();
        let lost = following.lost();
        let mut outside = Outside {
            requests: &mut self.requests,
            asked: None,
            shutdown,
            pulse: &self.pulse,
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
