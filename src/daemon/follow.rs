//! One session of following: from load or rebuild to shutdown or the loss of the database.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{DaemonError, Point, Request, Settings, Status, asked};
use crate::clock::Clock;
use crate::db::{Database, DbError, Session};
use crate::failpoint;
use crate::feed::doorbell::{Doorbell, Sleep, Wake};
use crate::feed::{self, Cursor, Reading, Scope};
use crate::ledger::{Flush, FlushError, Ledger, Loaded};
use crate::rollup::Rollup;

/// A batch of more rows than this is applied in pieces, with requests answered in between.
const SMALL_BATCH_ROWS: usize = 20_000;

/// A request waits so long for a read that is under way: the read may have begun before what whoever asks has just
/// written, and the next one sees it. Later it gets the point before the read.
const READ_PATIENCE: Duration = Duration::from_millis(100);

/// While rows stream in, looking for them takes at most this part of the time, so that writers on the same machine
/// keep the rest: a look that took 1 ms is followed by a pause of 10.
const READ_PAUSE_FACTOR: u32 = 10;
/// But rows are never left lying for longer than this.
const READ_PAUSE_MAX: Duration = Duration::from_millis(20);

/// Pauses while a writer that did not ring is still in flight: short, because one long transaction must
/// not cost the others their freshness, and growing, because it may be long.
const REFUSED_PAUSE_MIN: Duration = Duration::from_millis(5);
const REFUSED_PAUSE_MAX: Duration = Duration::from_millis(50);

/// How often the listening session is asked whether it lives, and how long it may take to answer.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);
const HEARTBEAT_PATIENCE: Duration = Duration::from_secs(5);

/// A flush takes at most this part of the time, however slow it is: after one of 300 ms the next waits for
/// fifty times as long, up to the maximum. Writers on the same disk pay for it; readers of the tables only see an older point.
const FLUSH_PAUSE_FACTOR: u32 = 50;
/// But the tables are never older than this, and what a restart reads again is bounded.
const FLUSH_PAUSE_MAX: Duration = Duration::from_secs(30);

/// The state of one session.
pub(super) struct Following<'a> {
    clock: &'a Clock,
    settings: Settings,
    status: &'a watch::Sender<Status>,
    rollup: Rollup,
    /// The point that the rollup is at.
    cursor: Cursor,
    reader: Session,
    doorbell: Doorbell,
    flusher: Flusher,
    heartbeat_due: Instant,
    /// The last look found rows, so the next one probably will.
    streaming: bool,
}

/// The ledger, at rest or flushing in a task of its own.
struct Flusher {
    ledger: Option<Ledger>,
    flushing: Option<JoinHandle<(Ledger, Result<(), FlushError>)>>,
    /// The next flush replaces everything.
    replace: bool,
    started: Instant,
    due: Instant,
}

/// Why a pause ended.
enum Woken {
    Rested,
    Rung,
    Shutdown,
}

impl<'a> Following<'a> {
    /// Takes the lead, raises the epoch, and loads or rebuilds.
    pub async fn start(
        database: &Database,
        clock: &'a Clock,
        settings: Settings,
        status: &'a watch::Sender<Status>,
    ) -> Result<Self, DaemonError> {
        let began = Instant::now();
        database.migrate_if_needed().await?;
        let doorbell = lead(database, settings, status).await?;
        failpoint::hit("start.leading")?;
        let ledger = Ledger::open(database).await?;
        failpoint::hit("start.epoch_raised")?;
        let mut reader = database.connect("uptally follower").await?;
        // Loading and rebuilding take as long as they take.
        reader
            .client
            .batch_execute("SET statement_timeout = 0")
            .await
            .map_err(DbError::from)?;
        let reading = Reading::start(&mut reader, Scope::InputsAndRollup).await?;
        let now = clock.now();
        let (rollup, cursor, replace) = match Loaded::load(&reading, settings.limits, now).await? {
            Ok(Loaded { rollup, cursor }) => (rollup, cursor, false),
            Err(reason) => {
                tracing::info!(reason, "the rollup is built from the raw rows");
                status.send_modify(|status| status.stopped("building the rollup from the raw rows"));
                let rollup = reading
                    .rebuild(settings.limits, now, settings.batch_rows_max, || ())
                    .await?;
                (rollup, reading.cursor().clone(), true)
            }
        };
        drop(reading);
        failpoint::hit("start.loaded")?;
        tracing::info!(
            stores = rollup.stores(),
            epoch = ledger.epoch(),
            rebuilt = replace,
            took = ?began.elapsed(),
            "the rollup is in memory"
        );
        Ok(Following {
            clock,
            settings,
            status,
            rollup,
            cursor,
            reader,
            doorbell,
            flusher: Flusher::new(ledger, replace),
            heartbeat_due: Instant::now() + HEARTBEAT_EVERY,
            streaming: false,
        })
    }

    /// Follows until shutdown (Ok) or until the database fails.
    pub async fn run(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<(), DaemonError> {
        let mut awake_until = Instant::now() + self.settings.awake_for;
        let mut refused_pause = REFUSED_PAUSE_MIN;
        loop {
            self.doorbell.wake_up().await?;
            let began = Instant::now();
            let mut rest = self.settings.awake_interval;
            if self.read(requests, self.streaming).await? {
                rest = rest.max((began.elapsed() * READ_PAUSE_FACTOR).min(READ_PAUSE_MAX));
                awake_until = Instant::now() + self.settings.awake_for;
                refused_pause = REFUSED_PAUSE_MIN;
            }
            let woken = if Instant::now() < awake_until {
                self.pause(rest, false, requests, shutdown).await?
            } else if self.doorbell.wake() == Wake::Poll {
                self.pause(self.settings.poll_interval, false, requests, shutdown)
                    .await?
            } else {
                match self.doorbell.fall_asleep().await? {
                    Sleep::Refused => {
                        let woken = self.pause(refused_pause, false, requests, shutdown).await?;
                        refused_pause = (refused_pause * 2).min(REFUSED_PAUSE_MAX);
                        woken
                    }
                    // A writer that did not ring had committed before the key was ours: this read sees it.
                    Sleep::Granted if self.read_before_sleep(requests).await? => Woken::Rung,
                    Sleep::Granted => {
                        metrics::counter!("uptally_feed_sleeps_total").increment(1);
                        refused_pause = REFUSED_PAUSE_MIN;
                        self.pause(self.settings.poll_interval, true, requests, shutdown)
                            .await?
                    }
                }
            };
            match woken {
                Woken::Shutdown => return self.flush_last().await,
                // A bell means rows that the next look finds; those keep us awake, a bell for nothing does not.
                Woken::Rung | Woken::Rested => {}
            }
        }
    }

    /// The look between getting the key and waiting for the bell.
    async fn read_before_sleep(&mut self, requests: &mut mpsc::Receiver<Request>) -> Result<bool, DaemonError> {
        failpoint::hit("sleep.granted")?;
        self.read(requests, false).await
    }

    /// Brings the rollup to the present. True if there was something new. `expected`: something probably is, so that
    /// asking first whether anything changed would only be one question more.
    async fn read(&mut self, requests: &mut mpsc::Receiver<Request>, expected: bool) -> Result<bool, DaemonError> {
        let began = Instant::now();
        let due = self.rollup.set_now(self.clock.now());
        if due.is_empty() && !expected && feed::current(&self.reader.client).await? == self.cursor {
            self.streaming = false;
            self.is_current(began);
            return Ok(false);
        }
        let index = self.rollup.index();
        let (reading, delta) = {
            let (rollup, cursor) = (&mut self.rollup, &self.cursor);
            let looking = Reading::look(&mut self.reader, cursor, &index);
            tokio::pin!(looking);
            // Reading a large delta takes a while and changes nothing: who asks gets the present.
            let patience = tokio::time::sleep_until((began + READ_PATIENCE).into());
            tokio::pin!(patience);
            loop {
                tokio::select! {
                    biased;
                    looked = &mut looking => break looked?,
                    () = &mut patience, if !patience.is_elapsed() => {}
                    Some(request) = requests.recv(), if patience.is_elapsed() => answer(request, || Point { snapshot: rollup.snapshot(), cursor: cursor.clone() }),
                }
            }
        };
        failpoint::hit("read.looked")?;
        let rows = delta.rows();
        let changed = !delta.is_empty();
        // Held while a large batch is applied, so that a request in the middle gets the point before it.
        let large = rows > SMALL_BATCH_ROWS || delta.has_invalidations();
        let before = large.then(|| Point {
            snapshot: self.rollup.snapshot(),
            cursor: self.cursor.clone(),
        });
        let pause = || {
            if let Some(before) = &before
                && began.elapsed() > READ_PATIENCE
            {
                while let Ok(request) = requests.try_recv() {
                    answer(request, || before.clone());
                }
            }
        };
        if delta.wants_rebuild() {
            tracing::info!("much changed at once: the rollup is built from the raw rows");
            let now = self.clock.now();
            self.rollup = reading
                .rebuild(self.settings.limits, now, self.settings.batch_rows_max, pause)
                .await?;
            self.flusher.replace = true;
        } else {
            reading.apply(delta, due, &mut self.rollup, pause).await?;
        }
        failpoint::hit("read.applied")?;
        self.cursor = reading.finish();
        failpoint::hit("read.cursor_moved")?;
        self.streaming = changed;
        self.is_current(began);
        failpoint::hit("read.published")?;
        if changed {
            metrics::counter!("uptally_feed_reads_total").increment(1);
            metrics::counter!("uptally_feed_rows_total").increment(rows as u64);
            metrics::histogram!("uptally_feed_read_seconds").record(began.elapsed());
        }
        Ok(changed)
    }

    /// Memory is the database as it was at `at` or later.
    fn is_current(&self, at: Instant) {
        self.status.send_modify(|status| {
            status.following = Ok(());
            status.current_at = Some(at);
            status.newest = self.rollup.newest();
            status.earliest_as_of = self.rollup.earliest_as_of();
            status.stores = self.rollup.stores();
        });
    }

    /// Lets time pass, answering requests and flushing when it is due.
    async fn pause(
        &mut self,
        length: Duration,
        asleep: bool,
        requests: &mut mpsc::Receiver<Request>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<Woken, DaemonError> {
        self.flusher
            .start_if_due(&mut self.rollup, &self.cursor, self.settings.flush_interval);
        if self.heartbeat_due < Instant::now() {
            self.doorbell.heartbeat(HEARTBEAT_PATIENCE).await?;
            self.heartbeat_due = Instant::now() + HEARTBEAT_EVERY;
            self.gauges();
        }
        let rested = tokio::time::sleep(length);
        tokio::pin!(rested);
        loop {
            tokio::select! {
                biased;
                () = asked(shutdown) => return Ok(Woken::Shutdown),
                Some(request) = requests.recv() => {
                    // What was committed before the question belongs into the answer. Looking does not need us awake:
                    // who writes meanwhile rings, and the bell stays rung.
                    let changed = self.read(requests, true).await?;
                    answer(request, || self.point());
                    if changed {
                        return Ok(Woken::Rung);
                    }
                }
                () = self.doorbell.rung(), if asleep => {
                    if self.doorbell.is_closed() {
                        return Err(DbError::Unexpected("the listening session ended".to_owned()).into());
                    }
                    return Ok(Woken::Rung);
                }
                flushed = self.flusher.finished() => flushed?,
                () = &mut rested => return Ok(Woken::Rested),
            }
        }
    }

    fn point(&mut self) -> Point {
        Point {
            snapshot: self.rollup.snapshot(),
            cursor: self.cursor.clone(),
        }
    }

    fn gauges(&self) {
        #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
        {
            metrics::gauge!("uptally_rollup_stores").set(self.rollup.stores() as f64);
            metrics::gauge!("uptally_rollup_held_observations").set(self.rollup.held() as f64);
        }
    }

    async fn flush_last(&mut self) -> Result<(), DaemonError> {
        self.flusher.wait().await?;
        failpoint::hit("stop.last_flush")?;
        self.flusher.start(&mut self.rollup, &self.cursor);
        self.flusher.wait().await?;
        Ok(())
    }
}

/// Opens the doorbell, and waits a while for another daemon to go.
async fn lead(
    database: &Database,
    settings: Settings,
    status: &watch::Sender<Status>,
) -> Result<Doorbell, DaemonError> {
    let began = Instant::now();
    loop {
        if let Some(doorbell) = Doorbell::open(database, settings.wake).await? {
            return Ok(doorbell);
        }
        status.send_modify(|status| status.stopped("another daemon is active on this database; waiting for it to go"));
        if began.elapsed() > settings.lead_patience {
            return Err(DaemonError::AnotherDaemon);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn answer(request: Request, point: impl FnOnce() -> Point) {
    // Whoever asked may have gone.
    if !request.is_closed() {
        let _ = request.send(point());
    }
}

impl Flusher {
    fn new(ledger: Ledger, replace: bool) -> Self {
        Flusher {
            ledger: Some(ledger),
            flushing: None,
            replace,
            started: Instant::now(),
            due: Instant::now(),
        }
    }

    fn start_if_due(&mut self, rollup: &mut Rollup, cursor: &Cursor, interval: Duration) {
        // Tables that are to be replaced hold nothing of worth: at once.
        if (self.replace || (Instant::now() >= self.due && rollup.is_dirty())) && self.ledger.is_some() {
            self.start(rollup, cursor);
            self.due = self.started + interval;
        }
    }

    fn start(&mut self, rollup: &mut Rollup, cursor: &Cursor) {
        if !self.replace && !rollup.is_dirty() {
            return;
        }
        let Some(mut ledger) = self.ledger.take() else { return };
        self.started = Instant::now();
        let drop_before = rollup.prune();
        let flush = Flush {
            dirty: rollup.take_dirty(),
            cursor: cursor.clone(),
            replace: std::mem::take(&mut self.replace),
            drop_before,
        };
        let rows = flush.dirty.rows();
        self.flushing = Some(tokio::spawn(async move {
            let outcome = ledger.flush(&flush).await;
            metrics::counter!("uptally_ledger_flushed_rows_total").increment(rows as u64);
            (ledger, outcome)
        }));
    }

    /// Returns when the flush that is under way is over; never if there is none.
    async fn finished(&mut self) -> Result<(), DaemonError> {
        match self.flushing.as_mut() {
            None => std::future::pending().await,
            Some(flushing) => {
                let ended = flushing.await;
                self.flushing = None;
                let (ledger, outcome) =
                    ended.map_err(|error| DbError::Unexpected(format!("a flush broke off: {error}")))?;
                self.ledger = Some(ledger);
                outcome?;
                failpoint::hit("flush.known")?;
                let took = self.started.elapsed();
                metrics::histogram!("uptally_ledger_flush_seconds").record(took);
                self.due = self
                    .due
                    .max(Instant::now() + (took * FLUSH_PAUSE_FACTOR).min(FLUSH_PAUSE_MAX));
                Ok(())
            }
        }
    }

    async fn wait(&mut self) -> Result<(), DaemonError> {
        if self.flushing.is_some() {
            self.finished().await?;
        }
        Ok(())
    }
}
