//! The figures of reports and their files, all there from the start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::Unit::{Bytes, Seconds};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::archive::ArchiveError;

/// Parts of a report's way: its row, reading up to the present, rendering, its file.
const STAGES: [&str; 4] = ["record", "point", "render", "archive"];
/// What becomes of a trigger. Those that `shared` joined a report that waited.
const OUTCOMES: [&str; 4] = ["complete", "failed", "refused", "shared"];
/// What is done with files of reports.
const OPERATIONS: [&str; 3] = ["put", "get", "remove"];

/// Records how long a part of a report's way took; one of [`STAGES`].
pub(crate) fn stage(stage: &'static str, since: Instant) {
    histogram!("uptally_report_stage_seconds", "stage" => stage).record(since.elapsed());
}

/// Counts what became of a trigger; one of [`OUTCOMES`].
pub(super) fn outcome(outcome: &'static str) {
    counter!("uptally_reports_total", "outcome" => outcome).increment(1);
}

/// Records the end of a run.
pub(super) fn ended(how: &'static str, took: Duration) {
    outcome(how);
    histogram!("uptally_report_duration_seconds", "outcome" => how).record(took);
}

/// Counts what was done with a file; one of [`OPERATIONS`].
pub(super) fn archived<T>(operation: &'static str, done: &Result<T, ArchiveError>) {
    let outcome = if done.is_ok() { "ok" } else { "failed" };
    counter!("uptally_archive_operations_total", "operation" => operation, "outcome" => outcome).increment(1);
}

/// The figures of a job are there from the start. Their label is not `job`: Prometheus has its own of that name.
pub(super) fn job_is_there(job: &Arc<str>) {
    counter!("uptally_job_attempts_total", "report_job" => Arc::clone(job)).increment(0);
    job_overdue(job, 0);
}

/// Counts that a job's report was triggered, or was to be.
pub(super) fn job_attempt(job: &Arc<str>) {
    counter!("uptally_job_attempts_total", "report_job" => Arc::clone(job)).increment(1);
}

/// Sets for how long a due report of a job has not been made; microseconds.
pub(super) fn job_overdue(job: &Arc<str>, us: i64) {
    #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
    gauge!("uptally_job_overdue_seconds", "report_job" => Arc::clone(job)).set(us as f64 / 1e6);
}

/// Counts bytes of files that were written.
pub(super) fn written(bytes: u64) {
    counter!("uptally_archive_written_bytes_total").increment(bytes);
}

/// Sets how many reports are being made, and how many wait for their turn or for their ending to be recorded.
pub(super) fn queue(running: usize, waiting: usize) {
    #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
    {
        gauge!("uptally_reports_running").set(running as f64);
        gauge!("uptally_reports_waiting").set(waiting as f64);
    }
}

/// Names and explains this module's figures to the installed recorder. Call it once, after installing it.
pub fn describe_metrics() {
    describe_counter!(
        "uptally_reports_total",
        "Reports by outcome: complete, failed, refused; shared are triggers that joined one"
    );
    describe_gauge!("uptally_reports_running", "Reports that are being made");
    describe_gauge!(
        "uptally_reports_waiting",
        "Reports that wait for their turn, or for a database that is away to take their end"
    );
    describe_histogram!(
        "uptally_report_duration_seconds",
        Seconds,
        "From the start of a report's run to its end, by outcome"
    );
    describe_histogram!(
        "uptally_report_stage_seconds",
        Seconds,
        "Parts of a report's way: record, point, render, archive"
    );
    describe_gauge!(
        "uptally_job_overdue_seconds",
        Seconds,
        "For how long a due report of a job has not been made, by job; 0: it is, or it is too late for it"
    );
    describe_counter!(
        "uptally_job_attempts_total",
        "Reports of jobs that were triggered, or were to be, by job"
    );
    describe_counter!(
        "uptally_archive_operations_total",
        "Files of reports put, got and removed, by outcome"
    );
    describe_counter!(
        "uptally_archive_written_bytes_total",
        Bytes,
        "Bytes of reports written to the archive"
    );
    for outcome in OUTCOMES {
        counter!("uptally_reports_total", "outcome" => outcome).increment(0);
    }
    for outcome in ["complete", "failed"] {
        // Named is registered.
        drop(histogram!("uptally_report_duration_seconds", "outcome" => outcome));
    }
    for stage in STAGES {
        drop(histogram!("uptally_report_stage_seconds", "stage" => stage));
    }
    for operation in OPERATIONS {
        for outcome in ["ok", "failed"] {
            counter!("uptally_archive_operations_total", "operation" => operation, "outcome" => outcome).increment(0);
        }
    }
    written(0);
    queue(0, 0);
}
