//! Makes the reports of jobs when they are due, and removes old ones.
//!
//! Whoever has the lead does it. That a report is made once, though leaders change, is the table's doing: a row for each
//! job, due instant and attempt. A due report that was missed is made later, as of the instant at which it was due; of
//! several that were missed, the last one.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::{Due, Job};
use super::registry::Registry;
use super::table::TableError;
use super::{TriggerError, figures};
use crate::clock::Clock;
use crate::time::Timestamp;

/// The longest pause between two looks at what is due: clocks may jump.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// The same while something is due and not made.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// The longest pause between two looks for files that have become too old.
const SWEEP_EVERY: Duration = Duration::from_hours(1);
/// How often making a report is tried.
const ATTEMPTS_MAX: i32 = 5;
/// The pause after its first failure; twice as long after each further one.
const PAUSE_US: i64 = 60_000_000;

/// How late jobs may be, and how long their reports are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobLimits {
    /// A due report that could not be made for longer is not made any more.
    pub grace: Duration,
    /// Files kept of each job, the newest ones.
    pub keep_max: u32,
    /// Age at which files are removed, but for the newest of each job.
    pub keep_days: u32,
}

/// The jobs of a daemon.
pub struct Jobs {
    registry: Registry,
    all: Vec<Job>,
    limits: JobLimits,
    clock: Clock,
    /// The last due report of each job that is known to be made.
    over: HashMap<Arc<str>, Timestamp>,
    /// When old files were removed; None: they are to be, now.
    swept: Option<Instant>,
}

/// How far a due report is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Over,
    Waiting,
    GivenUp,
}

impl Jobs {
    /// Nothing is done before [`Jobs::run`].
    pub fn new(registry: Registry, all: Vec<Job>, limits: JobLimits, clock: Clock) -> Self {
        for job in &all {
            figures::job_is_there(&job.name);
        }
        Jobs {
            registry,
            all,
            limits,
            clock,
            over: HashMap::new(),
            swept: None,
        }
    }

    /// Makes what is due, for ever. May be dropped at any time.
    pub async fn run(&mut self) {
        loop {
            let is_waiting = self.look().await;
            let now = self.clock.now();
            let next = self.all.iter().filter_map(|job| job.due_after(now)).min();
            let until_next = next.and_then(|next| u64::try_from(next.since(now)).ok());
            let until_next = until_next.map_or(LOOK_EVERY, Duration::from_micros);
            let most = if is_waiting { LOOK_AGAIN } else { LOOK_EVERY };
            tokio::time::sleep(until_next.min(most)).await;
        }
    }

    /// Does what is to be done now. Returns whether something is due that is about to be made.
    pub async fn look(&mut self) -> bool {
        let now = self.clock.now();
        let grace_us = i64::try_from(self.limits.grace.as_micros()).unwrap_or(i64::MAX);
        let mut is_waiting = false;
        for job in &self.all {
            let due = job.due_by(now).filter(|due| now.since(*due) <= grace_us);
            let open = due.filter(|due| self.over.get(&job.name) != Some(due));
            let Some(due) = open else {
                figures::job_overdue(&job.name, 0);
                continue;
            };
            match self.attend(job, due).await {
                Progress::Over => {
                    figures::job_overdue(&job.name, 0);
                    self.over.insert(Arc::clone(&job.name), due);
                    self.swept = None;
                }
                progress => {
                    figures::job_overdue(&job.name, now.since(due));
                    is_waiting |= progress == Progress::Waiting;
                }
            }
        }
        if self.swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY) {
            for job in &self.all {
                self.remove_old(&job.name).await;
            }
            self.swept = Some(Instant::now());
        }
        is_waiting
    }

    /// Makes a due report, if nobody does or has.
    async fn attend(&self, job: &Job, at: Timestamp) -> Progress {
        let tried = match self.registry.attempts(&job.name, at).await {
            Ok(tried) => tried,
            Err(error) => {
                warn(job, at, &error);
                return Progress::Waiting;
            }
        };
        if tried.complete {
            return Progress::Over;
        }
        if tried.failed >= ATTEMPTS_MAX {
            return Progress::GivenUp;
        }
        let pause_us = if tried.failed > 0 {
            PAUSE_US << (tried.failed - 1)
        } else {
            0
        };
        if tried.running || tried.since_last_us < pause_us {
            return Progress::Waiting;
        }
        let Some(request) = job.request(at) else {
            tracing::warn!(job = &*job.name, due = %at, "a job asks for days before all tables");
            return Progress::Over;
        };
        let due = Due {
            job: Arc::clone(&job.name),
            at,
            attempt: tried.failed + 1,
        };
        figures::job_attempt(&job.name);
        match self.registry.trigger_due(due, request).await {
            Ok(report_id) => tracing::info!(job = &*job.name, due = %at, %report_id, "a job's report is due"),
            // Another leader's.
            Err(TriggerError::Table(error)) if matches!(*error, TableError::Taken) => {}
            Err(error) => warn(job, at, &error),
        }
        Progress::Waiting
    }

    async fn remove_old(&self, job: &str) {
        let (count, days) = (self.limits.keep_max, self.limits.keep_days);
        if let Err(error) = self.registry.remove_old(job, count, days).await {
            tracing::warn!(
                job,
                error = &error as &dyn Error,
                "old reports of a job are not removed yet"
            );
        }
    }
}

fn warn(job: &Job, due: Timestamp, error: &(dyn Error + 'static)) {
    tracing::warn!(job = &*job.name, %due, error, "a job's report cannot be made yet");
}
