//! Flushing beside following: the ledger in a task of its own, one flush at a time.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::DaemonError;
use super::attend::is_at_work;
use crate::audit::{Difference, Sample};
use crate::db::{Backend, DbError};
use crate::failpoint;
use crate::feed::Cursor;
use crate::feed::doorbell::Doorbell;
use crate::ledger::{Flush, FlushError, Ledger};
use crate::rollup::Rollup;

/// A flush takes at most this part of the time, however slow it is: after one of 300 ms the next waits for
/// fifty times as long, up to the maximum. Writers on the same disk pay for it; readers of the tables only see an older point.
const FLUSH_PAUSE_FACTOR: u32 = 50;
/// But the tables are never older than this, and what a restart reads again is bounded.
const FLUSH_PAUSE_MAX: Duration = Duration::from_secs(30);

/// The log tells of a flush that takes longer than this, and again after as long.
const LONG_FLUSH: Duration = Duration::from_mins(1);

/// The ledger comes back with what came of the flush.
type Flushed = (Ledger, Result<Vec<Difference>, FlushError>);

/// The ledger, at rest or flushing in a task of its own.
pub(super) struct Flusher {
    ledger: Option<Ledger>,
    /// The process that serves the ledger's session.
    backend: Backend,
    /// See [`super::Settings::answer_deadline`].
    answer_deadline: Duration,
    flushing: Option<JoinHandle<Flushed>>,
    /// When the flush that is under way is looked after, and told of, next.
    look_at: Instant,
    tell_at: Instant,
    /// The next flush replaces everything; see [`Flush::replace`].
    replace: Option<Vec<String>>,
    started: Instant,
    due: Instant,
    /// Since when something waits to be flushed, and what is being flushed has waited.
    dirty_since: Option<Instant>,
    flushing_since: Option<Instant>,
}

impl Flusher {
    /// At rest. `replace`: see [`Flush::replace`].
    pub fn new(ledger: Ledger, answer_deadline: Duration, replace: Option<Vec<String>>) -> Self {
        Flusher {
            backend: ledger.backend(),
            answer_deadline,
            ledger: Some(ledger),
            flushing: None,
            look_at: Instant::now(),
            tell_at: Instant::now(),
            replace,
            started: Instant::now(),
            due: Instant::now(),
            dirty_since: None,
            flushing_since: None,
        }
    }

    /// The next flush throws away what is in the tables.
    pub fn replace(&mut self, marks: &[String]) {
        self.replace = Some(marks.to_vec());
    }

    /// Whether none is under way and the last one is long enough ago; where there is nothing to write, it need not be.
    pub fn is_free(&self, rollup: &Rollup) -> bool {
        self.ledger.is_some() && (Instant::now() >= self.due || !rollup.is_dirty())
    }

    /// Since when the oldest change that is not in the tables waits; None: they have all.
    pub fn unflushed_since(&self) -> Option<Instant> {
        self.flushing_since.or(self.dirty_since)
    }

    /// Starts a flush if there is something to write, or to compare, and the last one is long enough ago. Call it soon
    /// after every change of the rollup.
    pub fn start_if_due(&mut self, rollup: &mut Rollup, cursor: &Cursor, interval: Duration, audit: Option<Sample>) {
        if rollup.is_dirty() {
            self.dirty_since.get_or_insert_with(Instant::now);
        }
        let wanted = rollup.is_dirty() || audit.is_some();
        // Tables that are to be replaced hold nothing of worth: at once.
        if (self.replace.is_some() && self.ledger.is_some()) || (wanted && self.is_free(rollup)) {
            self.start(rollup, cursor, audit);
            self.due = self.started + interval;
        }
    }

    /// Starts a flush if there is something to write or to compare.
    pub fn start(&mut self, rollup: &mut Rollup, cursor: &Cursor, audit: Option<Sample>) {
        if self.replace.is_none() && !rollup.is_dirty() && audit.is_none() {
            return;
        }
        let Some(mut ledger) = self.ledger.take() else { return };
        self.started = Instant::now();
        self.flushing_since = self.dirty_since.take();
        self.look_at = self.started + self.answer_deadline;
        self.tell_at = self.started + LONG_FLUSH;
        let drop_before = rollup.prune();
        let flush = Flush {
            dirty: rollup.take_dirty(),
            cursor: cursor.clone(),
            replace: self.replace.take(),
            drop_before,
            audit,
        };
        let rows = flush.dirty.rows();
        self.flushing = Some(tokio::spawn(async move {
            let outcome = ledger.flush(&flush).await;
            metrics::counter!("uptally_ledger_flushed_rows_total").increment(rows as u64);
            (ledger, outcome)
        }));
    }

    /// Returns when the flush that is under way is over, with what its audit found; never if there is none. An error if the
    /// server is not at work on it any more, which `doorbell` can tell.
    pub async fn finished(&mut self, doorbell: &Doorbell) -> Result<Vec<Difference>, DaemonError> {
        let Some(flushing) = &mut self.flushing else {
            return std::future::pending().await;
        };
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut *flushing => break ended,
                () = tokio::time::sleep_until(self.look_at.into()) => {
                    is_at_work(doorbell, self.backend, self.answer_deadline).await?;
                }
            }
            let now = Instant::now();
            self.look_at = now + self.answer_deadline;
            if self.tell_at < now {
                self.tell_at = now + LONG_FLUSH;
                let (since, server) = (self.started.elapsed(), self.backend);
                tracing::warn!(?since, %server, "a flush takes long: the rollup tables grow old meanwhile");
            }
        };
        self.flushing = None;
        let (ledger, outcome) = ended.map_err(|error| DbError::Unexpected(format!("a flush broke off: {error}")))?;
        self.ledger = Some(ledger);
        let found = outcome?;
        self.flushing_since = None;
        failpoint::hit("flush.known")?;
        let took = self.started.elapsed();
        metrics::histogram!("uptally_ledger_flush_seconds").record(took);
        self.due = self
            .due
            .max(Instant::now() + (took * FLUSH_PAUSE_FACTOR).min(FLUSH_PAUSE_MAX));
        Ok(found)
    }

    /// Waits for the flush that is under way.
    pub async fn wait(&mut self, doorbell: &Doorbell) -> Result<(), DaemonError> {
        if self.flushing.is_some() {
            self.finished(doorbell).await?;
        }
        Ok(())
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        // A flush of a life that is over would only keep its session, and what it has locked.
        if let Some(flushing) = &self.flushing {
            flushing.abort();
        }
    }
}
