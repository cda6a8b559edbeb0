//! The registry: every report's life from the trigger to its end.
//!
//! Memory answers, the table `public.reports` remembers. A report's row is there, durably, before
//! its id is given away; its file is whole before readers are told that it is complete, and on the
//! disk before its row is; and a row that says `running` always has somebody who will end it: the
//! task that runs it, that task's retries while the database is away, or [`Registry::recover`] after
//! a crash of either side. The runs themselves are in module `run`.
//!
//! Whoever asks for what a waiting report was asked for gets that report (module `waiting`).

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tracing::Instrument;
use uuid::Uuid;

use super::archive::{Archive, ArchiveError, StoredReport};
use super::run::{Begin, Early, report_span};
use super::table::{Attempts, Connect, Ending, MadeOf, Recorded, Report, Table, TableError};
use super::waiting::{Place, Told, Waiting};
use super::{Coverage, Csv, DaysNotCovered, Due, Format, ReportRequest, Source, figures, stage, waiting};
use crate::failpoint;
use crate::time::Timestamp;

/// A longer CSV is read from the archive, piece by piece: a slow client must not hold all of it in memory.
const FRESH_BYTES_MAX: u64 = 8 << 20;

/// Endings that are kept for somebody who is slow to hear of them.
const ENDINGS_MAX: usize = 64;

/// All reports. Cheap to clone; the clones are one registry.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

/// What the registry does not go beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Reports rendered and written at the same time; at least 1.
    pub running_max: usize,
    /// Reports waiting for their turn. A trigger beyond them is refused.
    pub queue_max: usize,
    /// Ended reports kept in memory; older ones are answered from the table.
    pub ended_max: usize,
    /// Longest run of one report; past it the report has failed.
    pub run_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            running_max: 1,
            queue_max: 16,
            ended_max: 10_000,
            run_max: Duration::from_mins(5),
        }
    }
}

/// A report that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Triggered {
    /// Its name from now on.
    pub report_id: Uuid,
    /// The instant it is as of; none for `latest`, which is fixed when the report runs.
    pub as_of: Option<Timestamp>,
}

/// Why a report was not accepted. Nothing was recorded (or, after [`TriggerError::Table`], what
/// was recorded will be ended without anybody knowing its id).
#[derive(Debug, Clone, thiserror::Error)]
pub enum TriggerError {
    /// The rollups are not in memory yet; holds what is being waited for.
    #[error("the rollups are not loaded yet: {0}")]
    NotLoaded(String),
    /// The instant lies outside what the rollups hold.
    #[error("expected an instant from {} to {}, found {as_of}", coverage.earliest, coverage.latest)]
    NotCovered {
        /// The instant that was asked for.
        as_of: Timestamp,
        /// What is held.
        coverage: Coverage,
    },
    /// The days lie outside what the rollups hold, or in the future.
    #[error(transparent)]
    DaysNotCovered(#[from] DaysNotCovered),
    /// As many reports as the limits allow are running and waiting.
    #[error("too many reports are waiting")]
    TooBusy,
    /// The report could not be recorded.
    #[error(transparent)]
    Table(Arc<TableError>),
    /// No more reports: the process is going down.
    #[error("the service is shutting down")]
    Stopped,
}

/// What is known of a report.
pub enum Found {
    /// No such report.
    Unknown,
    /// Not finished.
    Running,
    /// It has a file.
    Complete(ReportFile),
    /// It ended without a file.
    Failed {
        /// Why, in words for whoever asked.
        reason: String,
    },
}

/// The file of a complete report, not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportFile {
    /// Its report.
    pub report_id: Uuid,
    /// Its length.
    pub bytes: u64,
    /// What kind of file it is.
    pub format: Format,
    /// Of the same report, equal tags are equal bytes. Letters and digits.
    pub entity_tag: String,
}

/// A report's file, opened.
pub enum Opened {
    /// Here it is.
    File(StoredReport),
    /// It is missing, or is not the one that was written.
    Gone {
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Why nothing can be said about a report.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is not in memory and the table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Its file cannot be opened.
    #[error("{error}")]
    Archive {
        /// The report.
        report_id: Uuid,
        /// Why.
        #[source]
        error: ArchiveError,
    },
}

pub(super) struct Inner {
    pub(super) source: Arc<dyn Source>,
    pub(super) archive: Archive,
    pub(super) table: Table,
    pub(super) states: DashMap<Uuid, State>,
    /// Ended reports whose row says so, oldest first: those that memory may forget.
    pub(super) ended: Mutex<VecDeque<Uuid>>,
    /// One permit for each report from before its INSERT until its row says how it ended: what
    /// bounds the queue, and the endings that wait for a database that is away.
    admission: Arc<Semaphore>,
    /// One permit for each report that is being rendered and written.
    pub(super) turns: Arc<Semaphore>,
    /// Reports that wait for their turn.
    pub(super) waiting: Arc<Waiting>,
    draining: AtomicBool,
    /// Somebody looks after unfinished reports; told to look again, it does.
    recovering: AtomicBool,
    recover: Arc<Notify>,
    pub(super) limits: Limits,
    /// Who wants to know which reports end.
    pub(super) told: broadcast::Sender<Uuid>,
    /// The CSV of the newest report until it is fetched: most are fetched once, right after they were made.
    pub(super) fresh: Mutex<Option<(Uuid, Csv)>>,
}

#[derive(Clone)]
pub(super) enum State {
    Running,
    Ended(Arc<Ending>),
}

impl Registry {
    /// A registry that has touched nothing yet. Follow with [`Registry::recover`].
    pub fn new(source: Arc<dyn Source>, archive: Archive, connect: Connect, limits: Limits) -> Self {
        let running_max = limits.running_max.max(1);
        Registry {
            inner: Arc::new(Inner {
                source,
                archive,
                table: Table::new(connect),
                states: DashMap::new(),
                ended: Mutex::new(VecDeque::new()),
                admission: Arc::new(Semaphore::new(running_max + limits.queue_max)),
                turns: Arc::new(Semaphore::new(running_max)),
                waiting: Arc::default(),
                draining: AtomicBool::new(false),
                recovering: AtomicBool::new(false),
                recover: Arc::default(),
                limits: Limits { running_max, ..limits },
                told: broadcast::Sender::new(ENDINGS_MAX),
                fresh: Mutex::new(None),
            }),
        }
    }

    /// Where the numbers come from.
    pub fn source(&self) -> &dyn Source {
        &*self.inner.source
    }

    /// Records a report and queues its run, or joins one that waits and was asked for with the same. Returns once its
    /// row is durable.
    pub async fn trigger(&self, request: ReportRequest) -> Result<Triggered, TriggerError> {
        let inner = &self.inner;
        inner.check(&request).await.inspect_err(refused)?;
        loop {
            let asked = Instant::now();
            // Under one lock, so that of any number that come at once only the first is recorded.
            let (mut told, joined) = {
                let mut waiting = inner.waiting.lock();
                match waiting.find(&request, asked) {
                    Some(told) => (told, true),
                    None => (inner.enter(request, None, &mut waiting).inspect_err(refused)?, false),
                }
            };
            let told = match told.wait_for(Option::is_some).await {
                Ok(told) => told.clone(),
                Err(_) => None,
            };
            let told = told.ok_or(TriggerError::Stopped)?;
            if !joined {
                return told.outcome;
            }
            if told.serves(asked) {
                figures::outcome("shared");
                return told.outcome;
            }
        }
    }

    /// Records a due report of a job and queues its run. Returns its id once its row is durable.
    ///
    /// # Errors
    /// [`TableError::Taken`]: there is such a row already.
    pub(super) async fn trigger_due(&self, due: Due, request: ReportRequest) -> Result<Uuid, TriggerError> {
        let inner = &self.inner;
        inner.check(&request).await?;
        let mut told = inner.enter(request, Some(due), &mut inner.waiting.lock())?;
        let told = match told.wait_for(Option::is_some).await {
            Ok(told) => told.clone(),
            Err(_) => None,
        };
        Ok(told.ok_or(TriggerError::Stopped)?.outcome?.report_id)
    }

    /// What is known of a due report of a job.
    pub(super) async fn attempts(&self, job: &str, due: Timestamp) -> Result<Attempts, TableError> {
        self.inner.table.attempts(job, due).await
    }

    /// Removes the files of a job's reports but the newest `keep_max`, and those that are older than `keep_days`, but for
    /// the newest one. Their rows stay, and say so.
    pub(super) async fn remove_old(&self, job: &str, keep_max: u32, keep_days: u32) -> Result<(), FetchError> {
        let Inner { archive, table, .. } = &*self.inner;
        for (report_id, format) in table.old(job, keep_max, keep_days).await? {
            // The file first: a row that says nothing leads to it again.
            let removed = archive.remove(report_id, format).await;
            figures::archived("remove", &removed);
            removed.map_err(|error| FetchError::Archive { report_id, error })?;
            table.removed(report_id).await?;
            tracing::info!(job, %report_id, "an old report's file was removed");
        }
        Ok(())
    }

    /// What is known of a report now.
    pub async fn find(&self, report_id: Uuid) -> Result<Found, FetchError> {
        let inner = &self.inner;
        let in_memory = inner.states.get(&report_id).map(|state| state.clone());
        let recorded = match in_memory {
            Some(State::Running) => Recorded::Running,
            Some(State::Ended(ending)) => ending.recorded(),
            None => match inner.table.find(report_id).await? {
                Some(recorded) => recorded,
                None => return Ok(Found::Unknown),
            },
        };
        Ok(match recorded {
            Recorded::Running => Found::Running,
            Recorded::Failed { reason } => Found::Failed { reason },
            Recorded::Complete {
                csv_bytes,
                format,
                made_of,
            } => Found::Complete(ReportFile {
                report_id,
                bytes: csv_bytes,
                format,
                entity_tag: entity_tag(report_id, &made_of, csv_bytes),
            }),
        })
    }

    /// Opens a report's file. `part`: only these bytes of it.
    pub async fn open(&self, file: &ReportFile, part: Option<Range<u64>>) -> Result<Opened, FetchError> {
        let inner = &self.inner;
        if part.is_none()
            && let Some(csv) = inner.take_fresh(file.report_id)
        {
            return Ok(Opened::File(csv.into()));
        }
        let stored = inner.open(file, part).await?;
        let reason = fault(stored.as_ref().map(|stored| stored.csv_bytes), file);
        Ok(match (reason, stored) {
            (None, Some(stored)) => Opened::File(stored),
            (reason, _) => Opened::Gone {
                reason: reason.unwrap_or(MISSING),
            },
        })
    }

    /// What is wrong with a report's file, if something is. It is left to whoever fetches it.
    pub async fn fault(&self, file: &ReportFile) -> Result<Option<&'static str>, FetchError> {
        let length = self.inner.archive.length(file.report_id, file.format).await;
        let length = length.map_err(|error| FetchError::Archive {
            report_id: file.report_id,
            error,
        })?;
        Ok(fault(length, file))
    }

    /// A report as its row says it; none if there is none.
    pub async fn report(&self, report_id: Uuid) -> Result<Option<Report>, TableError> {
        self.inner.table.report(report_id).await
    }

    /// The newest reports of those that were triggered before an instant, newest first.
    pub async fn newest(&self, before: Timestamp, count: u32) -> Result<Vec<Report>, TableError> {
        self.inner.table.newest(before, count).await
    }

    /// Tells of every report that ends from now on, once its row says so. Who is slow misses the oldest.
    pub fn endings(&self) -> broadcast::Receiver<Uuid> {
        self.inner.told.subscribe()
    }

    /// Starts ending every report whose row says `running` and that nobody runs: those of an
    /// earlier life, or of a leader before us, at once, and, each time the table is reached by another session, what a crash
    /// of the server undid. Such a
    /// report is run again as of its recorded instant, once the rollups are loaded; it has failed
    /// if they do not reach back that far any more. Call it in a tokio runtime, and again whenever the database may be
    /// another one: after a failover nobody else may use the table for long.
    pub fn recover(&self) {
        let recover = Arc::clone(&self.inner.recover);
        if self.inner.recovering.swap(true, Ordering::Relaxed) {
            return recover.notify_one();
        }
        let inner = Arc::downgrade(&self.inner);
        let mut sessions = self.inner.table.sessions();
        tokio::spawn(async move {
            while let Some(inner) = inner.upgrade() {
                inner.end_unfinished().await;
                drop(inner);
                tokio::select! {
                    changed = sessions.changed() => if changed.is_err() { return },
                    () = recover.notified() => {}
                }
            }
        });
    }

    /// Sets the figures that are true at the moment when somebody asks for them.
    pub fn collect_metrics(&self) {
        let Inner {
            admission,
            turns,
            limits,
            ..
        } = &*self.inner;
        let running = limits.running_max.saturating_sub(turns.available_permits());
        let admitted = (limits.running_max + limits.queue_max).saturating_sub(admission.available_permits());
        figures::queue(running, admitted.saturating_sub(running));
    }

    /// Accepts no report any more and waits, at most `within`, until those accepted have ended and
    /// are recorded so. Returns whether they have; [`Registry::recover`] of the next life takes
    /// care of the others.
    pub async fn drain(&self, within: Duration) -> bool {
        let Inner {
            admission,
            limits,
            draining,
            ..
        } = &*self.inner;
        draining.store(true, Ordering::Relaxed);
        let all = u32::try_from(limits.running_max + limits.queue_max).unwrap_or(u32::MAX);
        // Permits held back for good: who had not seen the flag yet finds the queue full.
        match tokio::time::timeout(within, admission.acquire_many(all)).await {
            Ok(Ok(permits)) => {
                permits.forget();
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

impl Inner {
    /// Keeps the CSV of a report that was just archived for whoever fetches it first.
    pub(super) fn keep_fresh(&self, report_id: Uuid, csv: Csv) {
        let fresh = (csv.bytes() <= FRESH_BYTES_MAX).then_some((report_id, csv));
        *self.fresh.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    fn take_fresh(&self, report_id: Uuid) -> Option<Csv> {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.take_if(|(id, _)| *id == report_id).map(|(_, csv)| csv)
    }

    async fn open(&self, file: &ReportFile, part: Option<Range<u64>>) -> Result<Option<StoredReport>, FetchError> {
        let report_id = file.report_id;
        let get = self.archive.get(report_id, file.format, part);
        let opened = get.instrument(report_span(report_id)).await;
        figures::archived("get", &opened);
        opened.map_err(|error| FetchError::Archive { report_id, error })
    }

    /// Whether there can be such a report at all.
    async fn check(&self, request: &ReportRequest) -> Result<(), TriggerError> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(TriggerError::Stopped);
        }
        let Some(coverage) = self.source.coverage() else {
            let reason = self.source.readiness().err();
            return Err(TriggerError::NotLoaded(reason.unwrap_or_else(|| "loading".to_owned())));
        };
        let Err(error) = coverage.check(request) else {
            return Ok(());
        };
        // A row that was committed a moment ago may be what it takes.
        match self.source.coverage_now().await {
            Some(coverage) => coverage.check(request),
            None => Err(error),
        }
    }

    /// Lets a new report in, if there is room, on a task of its own: a client that hangs up during the INSERT must not
    /// leave a row that nobody runs. Returns what will be told of it.
    fn enter(
        self: &Arc<Self>,
        request: ReportRequest,
        due: Option<Due>,
        waiting: &mut waiting::Guard<'_>,
    ) -> Result<watch::Receiver<Option<Told>>, TriggerError> {
        let admission = Arc::clone(&self.admission).try_acquire_owned();
        let admission = admission.map_err(|_| TriggerError::TooBusy)?;
        let (tell, told) = watch::channel(None);
        let report_id = Uuid::new_v4();
        let start = match Arc::clone(&self.turns).try_acquire_owned() {
            Ok(turn) => Start::Now(turn),
            Err(_) => Start::Later(waiting.push(report_id, request, told.clone())),
        };
        let run = Arc::clone(self).record_and_run(report_id, request, due, start, tell, admission);
        tokio::spawn(run.instrument(report_span(report_id)));
        Ok(told)
    }

    async fn record_and_run(
        self: Arc<Self>,
        report_id: Uuid,
        request: ReportRequest,
        due: Option<Due>,
        start: Start,
        tell: watch::Sender<Option<Told>>,
        _admission: OwnedSemaphorePermit,
    ) {
        // In memory before in the table, so that a row is never taken for one that nobody runs.
        self.states.insert(report_id, State::Running);
        let asked = Instant::now();
        let start = match start {
            Start::Now(turn) if Early::suits(&request) => Begin::Early(Early::start(&self, &request, turn)),
            // Its turn comes when the row is there.
            Start::Now(turn) => {
                drop(turn);
                Begin::InTurn(None)
            }
            Start::Later(place) => Begin::InTurn(Some(place)),
        };
        let recorded = self.table.insert(report_id, &request, due.as_ref()).await;
        let outcome = recorded.map(|as_of| Triggered { report_id, as_of });
        let outcome = outcome.map_err(|error| TriggerError::Table(Arc::new(error)));
        if outcome.is_ok() {
            stage("record", asked);
            failpoint::pass("report.recorded");
        }
        // Whoever asked may have gone; then nobody is left to tell.
        let _ = tell.send(Some(Told::new(request.as_of, asked, outcome.clone())));
        if let Ok(Triggered { as_of, .. }) = outcome {
            self.run(report_id, as_of, request, start).await;
        } else {
            figures::outcome("refused");
            self.states.remove(&report_id);
        }
    }
}

/// Whether it is a report's turn at once.
enum Start {
    Now(OwnedSemaphorePermit),
    Later(Place),
}

const MISSING: &str = "the report's file is missing";

/// What is wrong with a file of this length, or with none.
fn fault(length: Option<u64>, file: &ReportFile) -> Option<&'static str> {
    match length {
        Some(length) if length == file.bytes => None,
        Some(_) => Some("the report's file is not of the length that was written"),
        None => Some(MISSING),
    }
}

/// What tells the bytes of a report from those of another making of it: a report that a crash cut off is made again, of
/// another point.
fn entity_tag(report_id: Uuid, MadeOf { as_of, cursors }: &MadeOf, bytes: u64) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{report_id} {as_of:?} {cursors:?} {bytes}"));
    let digest: [u8; 32] = digest.finalize().into();
    let (half, _) = digest.split_at(16);
    half.iter().fold(String::new(), |mut tag, byte| {
        // Writing to a String cannot fail.
        let _ = write!(tag, "{byte:02x}");
        tag
    })
}

fn refused(_: &TriggerError) {
    figures::outcome("refused");
}
