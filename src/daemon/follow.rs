//! One session of following: from load or rebuild to shutdown or the loss of the database.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::attend::{Halt, Outside, READ_PATIENCE, answer, attend, working};
use super::flusher::Flusher;
use super::lead::lead;
use super::{DaemonError, FeedState, Point, Settings, Status, asked, figures};
use crate::audit::{Difference, OPENING_TIME, Sample};
use crate::clock::Clock;
use crate::db::wiring::Wiring;
use crate::db::{Backend, Database, DbError, Session};
use crate::failpoint;
use crate::feed::doorbell::{Doorbell, Sleep, Wake};
use crate::feed::{self, Cursor, Reading, Scope};
use crate::ledger::{Ledger, Loaded};
use crate::rollup::{AHEAD_MAX_US, FUTURE_MAX_US, ReadBack, Rollup};
use crate::time::Timestamp;

/// A batch of more rows than this is applied in pieces, with requests answered in between.
const SMALL_BATCH_ROWS: usize = 20_000;

/// While rows stream in, looking for them takes at most this part of the time, so that writers on the same machine
/// keep the rest: a look that took 1 ms is followed by a pause of 10.
const READ_PAUSE_FACTOR: u32 = 10;
/// But rows are never left lying for longer than this.
const READ_PAUSE_MAX: Duration = Duration::from_millis(20);

/// Pauses while a writer that did not ring is still in flight: short, because one long transaction must
/// not cost the others their freshness, and growing, because it may be long.
const REFUSED_PAUSE_MIN: Duration = Duration::from_millis(5);
const REFUSED_PAUSE_MAX: Duration = Duration::from_millis(50);

/// How often figures of the rollup are updated.
const GAUGES_EVERY: Duration = Duration::from_secs(5);

/// A transaction of the follower may pause for so long between two questions, milliseconds: while it applies what it
/// has read. The server ends the session of a daemon that is frozen for longer.
const READ_IDLE_MAX_MS: u32 = 300_000;

/// Differences of one audit that are logged; all are counted.
const DRIFT_LOGGED_MAX: usize = 10;

/// The state of one session.
pub(super) struct Following<'a> {
    clock: &'a Clock,
    settings: Settings,
    status: &'a watch::Sender<Status>,
    rollup: Rollup,
    /// The point that the rollup is at.
    cursor: Cursor,
    reader: Session,
    /// The reader's process at the server.
    reader_backend: Backend,
    doorbell: Doorbell,
    bell_due: Instant,
    flusher: Flusher,
    /// What the feed hangs on, as of a point at or before the cursor.
    wiring: Wiring,
    wiring_due: Instant,
    audit_due: Instant,
    /// What the next flush compares with the tables; of the cursor.
    sample: Option<Sample>,
    /// What drifted, and is to be recomputed with the next read.
    heal: Heal,
    /// What counts by now, and is to be read back with the next read. As long as there is some, memory is not of the cursor.
    due: Vec<ReadBack>,
    gauges_due: Instant,
    /// When the last look began: what it did not find was committed later.
    looked_at: Option<Instant>,
    /// When the bell rang: asleep, what the next look finds was committed just before.
    rung_at: Option<Instant>,
    /// The last look found rows, so the next one probably will.
    streaming: bool,
}

/// What is to be recomputed from raw.
#[derive(Debug, Default)]
struct Heal {
    stores: BTreeSet<String>,
    all: bool,
}

/// Why a pause ended.
enum Woken {
    Rested,
    Rung,
}

impl<'a> Following<'a> {
    /// Takes the lead, raises the epoch, and loads or rebuilds. `left`: see [`lead`].
    pub async fn start(
        database: &Database,
        clock: &'a Clock,
        settings: Settings,
        status: &'a watch::Sender<Status>,
        left: &mut Vec<Backend>,
    ) -> Result<Self, DaemonError> {
        let began = Instant::now();
        // Whoever stands by changes nothing, not even the schema.
        let doorbell = lead(database, settings, status, left).await?;
        failpoint::hit("start.leading")?;
        database.migrate_if_needed().await?;
        let mut reader = database.connect("uptally follower").await?;
        // Loading and rebuilding take as long as they take.
        reader
            .client
            .batch_execute(&format!(
                "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = {READ_IDLE_MAX_MS}"
            ))
            .await
            .map_err(DbError::from)?;
        let reader_backend = Backend::of(&reader).await?;
        left.push(reader_backend);
        // Asked before the epoch is raised: what cannot be followed is left alone.
        sound(&Reading::start(&mut reader, Scope::Inputs).await?).await?;
        let ledger = Ledger::open(database).await?;
        left.push(ledger.backend());
        failpoint::hit("start.epoch_raised")?;
        let reading = Reading::start(&mut reader, Scope::InputsAndRollup).await?;
        let wiring = sound(&reading).await?;
        let now = clock.now();
        let (rollup, cursor, replace) = match Loaded::load(&reading, settings.limits, now).await? {
            Ok(Loaded { rollup, cursor }) => (rollup, cursor, None),
            Err(reason) => {
                tracing::info!(%reason, "the rollup is built from the raw rows");
                figures::rebuild_begins(figures::label_of(&reason));
                status.send_modify(|status| {
                    status.stopped(FeedState::Rebuilding, "building the rollup from the raw rows");
                });
                let rollup = reading
                    .rebuild(settings.limits, now, settings.batch_rows_max, || ())
                    .await?;
                (rollup, reading.cursor().clone(), Some(wiring.marks().to_vec()))
            }
        };
        drop(reading);
        failpoint::hit("start.loaded")?;
        tracing::info!(
            stores = rollup.stores(),
            epoch = ledger.epoch(),
            rebuilt = replace.is_some(),
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
            reader_backend,
            doorbell,
            bell_due: Instant::now() + settings.check_interval,
            flusher: Flusher::new(ledger, settings.answer_deadline, replace),
            wiring,
            wiring_due: Instant::now() + settings.check_interval,
            audit_due: Instant::now() + settings.audit_interval.unwrap_or_default(),
            sample: None,
            heal: Heal::default(),
            due: Vec::new(),
            gauges_due: Instant::now(),
            looked_at: None,
            rung_at: None,
            streaming: false,
        })
    }

    /// Follows until shutdown (Ok) or until the database fails.
    pub async fn run(&mut self, outside: &mut Outside<'_>) -> Result<(), DaemonError> {
        let Err(halt) = self.follow(outside).await;
        match halt {
            Halt::Shutdown if self.due.is_empty() => self.flush_last().await,
            // What the next start reads again is right; memory is not.
            Halt::Shutdown => Ok(()),
            Halt::Failed(error) => Err(error),
        }
    }

    async fn follow(&mut self, outside: &mut Outside<'_>) -> Result<Infallible, Halt> {
        let mut awake_until = Instant::now() + self.settings.awake_for;
        let mut refused_pause = REFUSED_PAUSE_MIN;
        loop {
            self.doorbell.wake_up().await?;
            let began = Instant::now();
            if self.bell_due <= began {
                self.bell_due = began + self.settings.check_interval;
                let looking = self
                    .doorbell
                    .look_after(&self.reader.client, self.settings.queue_usage_max);
                let point = || point_of(&mut self.rollup, &self.cursor);
                attend(looking, outside, began, self.settings.answer_deadline, point, None).await?;
            }
            let mut rest = self.settings.awake_interval;
            if self.read(outside, self.streaming, false).await? {
                rest = rest.max((began.elapsed() * READ_PAUSE_FACTOR).min(READ_PAUSE_MAX));
                awake_until = Instant::now() + self.settings.awake_for;
                refused_pause = REFUSED_PAUSE_MIN;
            }
            let woken = if Instant::now() < awake_until {
                self.pause(rest, false, outside).await?
            } else if self.doorbell.wake() == Wake::Poll {
                self.pause(self.settings.poll_interval, false, outside).await?
            } else {
                match self.doorbell.fall_asleep().await? {
                    Sleep::Refused => {
                        let woken = self.pause(refused_pause, false, outside).await?;
                        refused_pause = (refused_pause * 2).min(REFUSED_PAUSE_MAX);
                        woken
                    }
                    // A writer that did not ring had committed before the key was ours: this read sees it.
                    Sleep::Granted if self.read_before_sleep(outside).await? => Woken::Rung,
                    Sleep::Granted => {
                        metrics::counter!("uptally_feed_sleeps_total").increment(1);
                        refused_pause = REFUSED_PAUSE_MIN;
                        self.pause(self.settings.poll_interval, true, outside).await?
                    }
                }
            };
            match woken {
                // A bell means rows that the next look finds; those keep us awake, a bell for nothing does not.
                Woken::Rung | Woken::Rested => {}
            }
        }
    }

    /// The look between getting the key and waiting for the bell.
    async fn read_before_sleep(&mut self, outside: &mut Outside<'_>) -> Result<bool, Halt> {
        failpoint::hit("sleep.granted")?;
        self.read(outside, false, false).await
    }

    /// Returns why, when the lead is lost.
    pub fn lost(&self) -> impl Future<Output = DbError> + use<> {
        self.doorbell.lost()
    }

    /// Brings the rollup to the present. True if there was something new. `expected`: something probably is, so that
    /// asking first whether anything changed would only be one question more. `audits`: takes a sample.
    async fn read(&mut self, outside: &mut Outside<'_>, expected: bool, audits: bool) -> Result<bool, Halt> {
        let began = Instant::now();
        self.sample = None;
        let now = self.clock.now();
        self.due.extend(self.rollup.set_now(now));
        let ran_ahead = self.counts_ahead_of_clocks(now, outside, began).await?;
        if ran_ahead {
            tracing::warn!(
                newest = ?self.rollup.newest(),
                %now,
                "observations of the future count: a clock ran ahead; everything is read again"
            );
            self.heal.all = true;
        }
        let checks = self.wiring_due <= began;
        let expected = expected || audits || checks || self.heal.is_wanted() || !self.due.is_empty();
        let index = self.rollup.index();
        if !expected {
            let asking = feed::current(&self.reader.client);
            let point = || point_of(&mut self.rollup, &self.cursor);
            let deadline = self.settings.answer_deadline;
            if attend(asking, outside, began, deadline, point, None).await? == self.cursor {
                self.streaming = false;
                self.is_current(began);
                return Ok(false);
            }
        }
        // Reading a large delta takes a while and changes nothing: who asks gets the present.
        let looking = Reading::look(&mut self.reader, &self.cursor, &index);
        let point = || point_of(&mut self.rollup, &self.cursor);
        // It may take long, and so may a table that somebody has locked.
        let (pulse, deadline) = (outside.pulse, self.settings.answer_deadline);
        let server = (&self.doorbell, self.reader_backend);
        let (reading, mut delta) = attend(looking, outside, began, deadline, point, Some(server)).await?;
        failpoint::hit("read.looked")?;
        let mut touched = Vec::new();
        if checks || delta.wants_rebuild() {
            let wiring = working(sound(&reading), pulse, deadline, server).await?;
            touched = wiring.touched_since(self.wiring.marks());
            if !touched.is_empty() {
                tracing::warn!(
                    touched = touched.join(", "),
                    "what the feed hangs on was touched, and rows may have come unseen: all is read again"
                );
                metrics::counter!("uptally_feed_wiring_changes_total").increment(1);
                delta.want_rebuild();
            }
            self.wiring = wiring;
            self.wiring_due = began + self.settings.check_interval;
        }
        let is_news = !delta.is_empty();
        let (heal, due) = (std::mem::take(&mut self.heal), std::mem::take(&mut self.due));
        let reason = if !touched.is_empty() {
            figures::WIRING
        } else if ran_ahead {
            figures::CLOCK
        } else if heal.all {
            figures::AUDIT
        } else {
            figures::INPUT
        };
        if heal.all {
            delta.want_rebuild();
        }
        heal.stores.into_iter().for_each(|store_id| delta.recompute(store_id));
        let rows = delta.rows();
        let changed = !delta.is_empty();
        // Held while a large batch is applied, so that a request in the middle gets the point before it.
        let large = rows > SMALL_BATCH_ROWS || delta.has_invalidations();
        let before = large.then(|| point_of(&mut self.rollup, &self.cursor));
        let pause = || {
            pulse.beat();
            if let Some(before) = &before
                && began.elapsed() > READ_PATIENCE
            {
                while let Some(request) = outside.asked.take().or_else(|| outside.requests.try_recv().ok()) {
                    answer(request, || before.clone());
                }
            }
        };
        if delta.wants_rebuild() {
            tracing::info!(reason, "the rollup is built from the raw rows");
            figures::rebuild_begins(reason);
            // A clock that was put back moves nothing back, unless it was wrong before.
            let now = if ran_ahead {
                now
            } else {
                self.rollup.future_limit().plus(-FUTURE_MAX_US)
            };
            let rebuild = reading.rebuild(self.settings.limits, now, self.settings.batch_rows_max, pause);
            self.rollup = working(rebuild, pulse, deadline, server).await?;
            self.flusher.replace(self.wiring.marks());
        } else {
            let apply = reading.apply(delta, due, &mut self.rollup, pause);
            working(apply, pulse, deadline, server).await?;
        }
        failpoint::hit("read.applied")?;
        let audit_began = Instant::now();
        let sample = if audits {
            working(Sample::take(&reading, &self.rollup), pulse, deadline, server).await?
        } else {
            None
        };
        self.cursor = reading.finish();
        failpoint::hit("read.cursor_moved")?;
        if let Some(sample) = sample {
            self.audit(sample);
            metrics::histogram!("uptally_audit_seconds").record(audit_began.elapsed());
        }
        self.streaming = changed;
        let committed_after = self.rung_at.or(self.looked_at);
        self.is_current(began);
        failpoint::hit("read.published")?;
        // Of the first look after loading nobody knows what came before.
        if let (true, Some(after)) = (is_news, committed_after) {
            metrics::histogram!("uptally_feed_freshness_seconds").record(after.elapsed());
        }
        if changed {
            metrics::counter!("uptally_feed_reads_total").increment(1);
            metrics::counter!("uptally_feed_rows_total").increment(rows as u64);
            metrics::histogram!("uptally_feed_read_seconds").record(began.elapsed());
        }
        Ok(changed)
    }

    /// Whether an observation counts that is dated in the future by our own clock and by the database's. One clock alone may be
    /// behind.
    async fn counts_ahead_of_clocks(
        &mut self,
        now: Timestamp,
        outside: &mut Outside<'_>,
        began: Instant,
    ) -> Result<bool, Halt> {
        let counts = |rollup: &Rollup, now: Timestamp| rollup.newest() >= Some(now.plus(AHEAD_MAX_US));
        if !counts(&self.rollup, now) {
            return Ok(false);
        }
        let asking = feed::clock(&self.reader.client);
        let point = || point_of(&mut self.rollup, &self.cursor);
        let theirs = attend(asking, outside, began, self.settings.answer_deadline, point, None).await?;
        Ok(counts(&self.rollup, theirs))
    }

    /// Compares a sample of the cursor's point with memory; the next flush, of the same point, compares it with the
    /// tables.
    fn audit(&mut self, sample: Sample) {
        metrics::counter!("uptally_audit_cells_total").increment(sample.cells() as u64);
        let found = sample.against_memory(&self.rollup);
        if found.is_empty() {
            self.sample = Some(sample);
        }
        self.drifted(&found);
    }

    /// Tells of drift, and has the stores recomputed. Where some is, there may be more: the next audit is at once.
    fn drifted(&mut self, found: &[Difference]) {
        if found.is_empty() {
            return;
        }
        metrics::counter!("uptally_audit_drift_total").increment(found.len() as u64);
        for difference in found.iter().take(DRIFT_LOGGED_MAX) {
            tracing::error!(%difference, "drift: the rollup was not what the raw rows say; the store is recomputed");
        }
        for difference in found {
            self.heal.all |= difference.what == OPENING_TIME;
            self.heal.stores.insert(difference.store_id.clone());
        }
        self.audit_due = Instant::now();
    }

    /// Memory is the database as it was at `at` or later.
    fn is_current(&mut self, at: Instant) {
        (self.looked_at, self.rung_at) = (Some(at), None);
        self.status.send_modify(|status| {
            status.following = Ok(());
            status.state = FeedState::Following;
            status.current_at = Some(at);
            status.newest = self.rollup.newest();
            status.earliest_as_of = self.rollup.earliest_as_of();
            status.covers_from = self.rollup.covers_from().0;
            status.first_day = self.rollup.first_day();
            status.stores = self.rollup.stores();
        });
    }

    /// Lets time pass, answering requests and flushing when it is due.
    async fn pause(&mut self, length: Duration, asleep: bool, outside: &mut Outside<'_>) -> Result<Woken, Halt> {
        if self.doorbell.is_closed() {
            return Err(DbError::Unexpected("the listening session ended".to_owned()).into());
        }
        if let Some(interval) = self.settings.audit_interval
            && self.audit_due <= Instant::now()
            && self.flusher.is_free(&self.rollup)
        {
            self.audit_due = Instant::now() + interval;
            self.read(outside, true, true).await?;
        }
        let sample = self.sample.take();
        self.flusher
            .start_if_due(&mut self.rollup, &self.cursor, self.settings.flush_interval, sample);
        self.tell_unflushed();
        if self.gauges_due < Instant::now() {
            self.gauges_due = Instant::now() + GAUGES_EVERY;
            self.gauges();
        }
        let pulse = outside.pulse;
        let rested = pulse.during(tokio::time::sleep(length));
        tokio::pin!(rested);
        loop {
            tokio::select! {
                biased;
                () = asked(outside.shutdown) => return Err(Halt::Shutdown),
                Some(request) = outside.requests.recv() => {
                    // What was committed before the question belongs into the answer. Looking does not need us awake:
                    // who writes meanwhile rings, and the bell stays rung.
                    outside.asked = Some(request);
                    if asleep {
                        // Who wrote has rung, and the bell is on its way.
                        self.rung_at = Some(Instant::now());
                    }
                    let changed = self.read(outside, true, false).await?;
                    if let Some(request) = outside.asked.take() {
                        answer(request, || point_of(&mut self.rollup, &self.cursor));
                    }
                    if changed {
                        return Ok(Woken::Rung);
                    }
                }
                () = self.doorbell.rung(), if asleep => {
                    if self.doorbell.is_closed() {
                        return Err(DbError::Unexpected("the listening session ended".to_owned()).into());
                    }
                    self.rung_at = Some(Instant::now());
                    return Ok(Woken::Rung);
                }
                found = self.flusher.finished(&self.doorbell) => {
                    self.tell_unflushed();
                    self.drifted(&found?);
                }
                () = &mut rested => return Ok(Woken::Rested),
            }
        }
    }

    /// Publishes how long what is not in the tables yet has waited.
    fn tell_unflushed(&self) {
        let since = self.flusher.unflushed_since();
        self.status.send_if_modified(|status| {
            status.unflushed_since = since;
            false
        });
    }

    fn gauges(&self) {
        #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
        {
            metrics::gauge!("uptally_rollup_held_observations").set(self.rollup.held() as f64);
        }
    }

    async fn flush_last(&mut self) -> Result<(), DaemonError> {
        self.flusher.wait(&self.doorbell).await?;
        failpoint::hit("stop.last_flush")?;
        self.flusher.start(&mut self.rollup, &self.cursor, None);
        self.flusher.wait(&self.doorbell).await?;
        Ok(())
    }
}

/// The wiring at the point of a reading, if rows can be followed by it.
async fn sound(reading: &Reading<'_>) -> Result<Wiring, DaemonError> {
    let wiring = reading.wiring().await?;
    match wiring.fault() {
        Some(fault) => Err(DaemonError::Wiring(fault)),
        None => Ok(wiring),
    }
}

impl Heal {
    fn is_wanted(&self) -> bool {
        self.all || !self.stores.is_empty()
    }
}

fn point_of(rollup: &mut Rollup, cursor: &Cursor) -> Point {
    Point {
        snapshot: rollup.snapshot(),
        cursor: cursor.clone(),
    }
}
