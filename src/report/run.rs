//! The run of one report, its ending, and the reports that a crash left unfinished.

use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tracing::Instrument;
use uuid::Uuid;

use super::registry::{Inner, State};
use super::table::{Ending, UNFINISHED_MAX, Unfinished};
use super::waiting::Place;
use super::{AsOf, Columns, RenderError, Rendered, ReportRequest, figures, stage};
use crate::clock::Clock;
use crate::failpoint;
use crate::time::Timestamp;
use crate::window::WINDOWS_STEP_US;

/// A report that is rendered while its row is still being recorded, which is a wait for the disk. If nothing comes of
/// the row, nothing comes of this either.
pub(super) struct Early {
    turn: OwnedSemaphorePermit,
    rendering: Rendering,
}

/// What is logged about a report is logged in here, so that it has its id, whatever the log's filter lets through.
pub(super) fn report_span(report_id: Uuid) -> tracing::Span {
    tracing::error_span!("report", %report_id)
}

/// How a run begins.
pub(super) enum Begin {
    /// It began while its row was recorded.
    Early(Early),
    /// When it is its turn; until then others may share it, if it has a place among those that wait.
    InTurn(Option<Place>),
}

struct Rendering {
    /// The instant that it is as of; none for the newest observation.
    as_of: Option<Timestamp>,
    task: JoinHandle<Result<Rendered, RenderError>>,
}

impl Early {
    /// Whether a report may be rendered before its row is recorded: where only the windows count, not the very instant.
    pub(super) fn suits(request: &ReportRequest) -> bool {
        request.columns == Columns::Default && request.days.is_none()
    }

    /// Starts at once: it is this report's turn.
    pub(super) fn start(inner: &Inner, request: &ReportRequest, turn: OwnedSemaphorePermit) -> Self {
        let as_of = match request.as_of {
            AsOf::At(at) => Some(at),
            AsOf::Latest => None,
            // The row will have the database's time: another instant, but nearly always one with the same windows.
            AsOf::Now => Some(Clock::System.now()),
        };
        let (source, request) = (Arc::clone(&inner.source), *request);
        let render = async move { source.render(as_of, request).await };
        let task = tokio::spawn(render.in_current_span());
        let rendering = Rendering { as_of, task };
        Early { turn, rendering }
    }
}

impl Rendering {
    /// What came of it, as of the instant that was recorded; none if that one has other windows.
    async fn recorded_as_of(self, as_of: Option<Timestamp>) -> Option<Result<Rendered, RenderError>> {
        let step = |at: Timestamp| at.micros().div_euclid(WINDOWS_STEP_US);
        if self.as_of.map(step) != as_of.map(step) {
            return None;
        }
        let rendered = match self.task.await {
            Ok(rendered) => rendered,
            // Nobody cancels it, so it panicked: that goes on where panics of reports are caught.
            Err(broke_off) => std::panic::resume_unwind(broke_off.into_panic()),
        };
        Some(rendered.map(|rendered| Rendered {
            as_of: as_of.unwrap_or(rendered.as_of),
            ..rendered
        }))
    }
}

impl Inner {
    /// Takes a turn, makes the report and sees to its ending.
    pub(super) async fn run(&self, report_id: Uuid, as_of: Option<Timestamp>, request: ReportRequest, begin: Begin) {
        let (turn, rendering) = match begin {
            Begin::Early(Early { turn, rendering }) => (Ok(turn), Some(rendering)),
            Begin::InTurn(place) => {
                let turn = Arc::clone(&self.turns).acquire_owned().await;
                // Before it asks for its point: who comes later may know of commits that it will not contain.
                drop(place);
                (turn, None)
            }
        };
        let started = Instant::now();
        let made = AssertUnwindSafe(tokio::time::timeout(
            self.limits.run_max,
            self.make(report_id, as_of, request, rendering),
        ))
        .catch_unwind()
        .await;
        let duration = started.elapsed();
        drop(turn);
        let ending = match made {
            Ok(Ok(Ok(rendered))) => Ending::complete(&rendered, request.format, duration),
            Ok(Ok(Err(reason))) => Ending::Failed { reason, duration },
            Ok(Err(_)) => Ending::Failed {
                reason: format!("the report took longer than {:?}", self.limits.run_max),
                duration,
            },
            // The panic hook has logged what and where.
            Err(_) => Ending::Failed {
                reason: "the report ran into an internal error".to_owned(),
                duration,
            },
        };
        self.end(report_id, ending).await;
    }

    async fn make(
        &self,
        report_id: Uuid,
        as_of: Option<Timestamp>,
        request: ReportRequest,
        early: Option<Rendering>,
    ) -> Result<Rendered, String> {
        let early = match early {
            Some(rendering) => rendering.recorded_as_of(as_of).await,
            None => None,
        };
        let rendered = match early {
            Some(rendered) => rendered,
            None => self.source.render(as_of, request).await,
        };
        let rendered = rendered.map_err(|error| error.to_string())?;
        let rendered_at = Instant::now();
        failpoint::hit("report.rendered").map_err(|error| error.to_string())?;
        let put = self.archive.put(report_id, request.format, rendered.csv.clone()).await;
        stage("archive", rendered_at);
        figures::archived("put", &put);
        failpoint::hit("report.renamed").map_err(|error| error.to_string())?;
        put.map_err(|error| {
            tracing::error!(error = &error as &dyn Error, "a report could not be archived");
            error.public_reason()
        })?;
        figures::written(rendered.csv.bytes());
        self.keep_fresh(report_id, rendered.csv.clone());
        Ok(rendered)
    }

    /// Makes an ending known: in memory at once, which is what readers of the report are answered
    /// from, then in the table, however long the database is away. A power cut in between leaves a
    /// row that says `running`, so the report is made again.
    async fn end(&self, report_id: Uuid, ending: Ending) {
        match &ending {
            Ending::Complete { stores, duration, .. } => {
                figures::ended("complete", *duration);
                tracing::info!(stores, ?duration, "report complete");
            }
            Ending::Failed { reason, duration } => {
                figures::ended("failed", *duration);
                tracing::warn!(reason, "report failed");
            }
        }
        let ending = self.remember(report_id, ending);
        self.settle(report_id, ending).await;
        self.forget_oldest(report_id);
    }

    /// Puts an ending into the table, once its file is on the disk.
    async fn settle(&self, report_id: Uuid, mut ending: Arc<Ending>) {
        failpoint::pass("report.announced");
        if let Ending::Complete { duration, format, .. } = *ending
            && let Err(error) = self.archive.persist(report_id, format).await
        {
            tracing::error!(error = &error as &dyn Error, "a report was lost again");
            let reason = error.public_reason();
            ending = self.remember(report_id, Ending::Failed { reason, duration });
        }
        let mut backoff = Backoff::new();
        while let Err(error) = self.table.finish(report_id, &ending).await {
            tracing::warn!(error = &error as &dyn Error, "end not recorded yet");
            backoff.wait().await;
        }
        failpoint::pass("report.ended");
        // Nobody may listen.
        let _ = self.told.send(report_id);
    }

    fn remember(&self, report_id: Uuid, ending: Ending) -> Arc<Ending> {
        let ending = Arc::new(ending);
        self.states.insert(report_id, State::Ended(Arc::clone(&ending)));
        ending
    }

    /// Notes that memory may forget `report_id`, and forgets the oldest beyond the limit.
    fn forget_oldest(&self, report_id: Uuid) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.push_back(report_id);
        while ended.len() > self.limits.ended_max {
            if let Some(oldest) = ended.pop_front() {
                self.states.remove(&oldest);
            }
        }
    }

    /// Ends every report whose row says `running` and that no task of this life runs.
    pub(super) async fn end_unfinished(&self) {
        loop {
            let rows = self.unfinished().await;
            let full = rows.len() == UNFINISHED_MAX;
            let mut ended = 0;
            for row in rows {
                let in_memory = self.states.get(&row.report_id).map(|state| state.clone());
                match in_memory {
                    Some(State::Running) => continue,
                    Some(State::Ended(ending)) => {
                        let span = report_span(row.report_id);
                        self.settle(row.report_id, ending).instrument(span).await;
                    }
                    None => {
                        let span = report_span(row.report_id);
                        self.run_again(row).instrument(span).await;
                    }
                }
                ended += 1;
            }
            if !full || ended == 0 {
                return;
            }
        }
    }

    async fn unfinished(&self) -> Vec<Unfinished> {
        let mut backoff = Backoff::new();
        loop {
            match self.table.unfinished().await {
                Ok(rows) => return rows,
                Err(error) => {
                    let error = &error as &dyn Error;
                    tracing::warn!(error, "unfinished reports cannot be read yet");
                }
            }
            backoff.wait().await;
        }
    }

    async fn run_again(&self, row: Unfinished) {
        let report_id = row.report_id;
        tracing::info!("taking up an unfinished report");
        self.states.insert(report_id, State::Running);
        let earliest = loop {
            match self.source.coverage() {
                Some(coverage) => break coverage.earliest,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let reason = match (row.as_of, row.request()) {
            (Some(as_of), _) if as_of < earliest => format!(
                "the service stopped before the report was done, and the rollups now begin at \
                 {earliest}, after its instant {as_of}"
            ),
            (as_of, Some(request)) => {
                return self.run(report_id, as_of, request, Begin::InTurn(None)).await;
            }
            _ => "the service stopped before the report was done, and its recorded options are \
                  not known to this version"
                .to_owned(),
        };
        let duration = Duration::ZERO;
        let ending = Ending::Failed { reason, duration };
        self.end(report_id, ending).await;
    }
}

/// Waits that double from 50 ms to 10 s.
struct Backoff {
    next: Duration,
}

impl Backoff {
    fn new() -> Self {
        Backoff {
            next: Duration::from_millis(50),
        }
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(Duration::from_secs(10));
    }
}
