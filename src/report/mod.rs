//! Reports: what is asked for, where the numbers come from, and the life of each report from the
//! trigger to a CSV in the archive.
//!
//! Not here: the arithmetic (behind [`Source`]) and status codes (module `http`).

pub mod csv;

mod archive;
mod bucket;
mod days;
mod figures;
mod job;
mod jobs;
mod registry;
mod request;
mod run;
mod table;
mod waiting;

use chrono::NaiveDate;
use futures_util::future::BoxFuture;

pub use archive::{Archive, ArchiveError, StoredReport};
pub use bucket::BucketError;
pub use csv::Csv;
pub use days::{DAYS_HEADER, render_days};
pub use figures::describe_metrics;
pub(crate) use figures::stage;
pub use job::{Due, Job, ParseJobError};
pub use jobs::{JobLimits, Jobs};
pub use registry::{FetchError, Found, Limits, Opened, Registry, ReportFile, TriggerError, Triggered};
pub use request::{AsOf, Columns, Format, ParseAsOfError, ReportRequest};
pub use table::{Connect, ConnectError, Report, ReportState, TableError};

use crate::rollup::last_date_at;
use crate::time::Timestamp;
use crate::window::DateRange;

/// Where a report's numbers come from.
pub trait Source: Send + Sync + 'static {
    /// Renders a report of one consistent point of the change stream. `as_of` is the fixed instant
    /// of the report, whatever the request asked for, or `None` for the newest observation at that point. Instants in
    /// the same step of [`WINDOWS_STEP_US`](crate::window::WINDOWS_STEP_US) give the same bytes, but for extended columns.
    fn render(&self, as_of: Option<Timestamp>, request: ReportRequest) -> BoxFuture<'_, Result<Rendered, RenderError>>;

    /// The instants that a report may be as of right now; `None` while nothing is loaded yet. May be a moment old.
    fn coverage(&self) -> Option<Coverage>;

    /// The same, of a point that knows everything committed before the question. Asked for before a refusal.
    fn coverage_now(&self) -> BoxFuture<'_, Option<Coverage>> {
        Box::pin(std::future::ready(self.coverage()))
    }

    /// Ready to serve, or the reason why not.
    ///
    /// # Errors
    /// One line for an operator: what is being waited for.
    fn readiness(&self) -> Result<(), String>;
}

/// A finished report and what it was made from.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// The whole CSV, header included.
    pub csv: Csv,
    /// The instant that the windows count back from.
    pub as_of: Timestamp,
    /// The point of the change stream, one cursor for each database that rows were read from.
    pub cursors: Vec<String>,
    /// Rows in the CSV, header not counted.
    pub stores: u64,
}

/// The stretch of instants that reports may be as of, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coverage {
    /// The earliest instant whose windows are still held.
    pub earliest: Timestamp,
    /// The latest instant that is known.
    pub latest: Timestamp,
    /// The newest observation, which a report of the latest instant is as of; None: there is none.
    pub newest: Option<Timestamp>,
    /// The first local day that a report over days may begin with; None: any.
    pub first_day: Option<NaiveDate>,
}

impl Coverage {
    /// Whether there can be such a report.
    pub(super) fn check(self, request: &ReportRequest) -> Result<(), TriggerError> {
        let as_of = match request.as_of {
            AsOf::At(as_of) => as_of,
            AsOf::Now => self.latest,
            AsOf::Latest => self.newest.unwrap_or(self.latest),
        };
        if matches!(request.as_of, AsOf::At(_)) && !(self.earliest..=self.latest).contains(&as_of) {
            return Err(TriggerError::NotCovered { as_of, coverage: self });
        }
        match request.days {
            Some(days) => Ok(DaysNotCovered::check(days, self.first_day, as_of)?),
            None => Ok(()),
        }
    }
}

/// Days of which no report can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected days from {} to {last}, found {days}", first.map_or_else(|| "2000-01-01".to_owned(), |day| day.to_string()))]
pub struct DaysNotCovered {
    /// What was asked for.
    pub days: DateRange,
    /// The first day that is held.
    pub first: Option<NaiveDate>,
    /// The first day that has begun nowhere yet.
    pub last: NaiveDate,
}

impl DaysNotCovered {
    /// An error if not all of the days are held and have begun somewhere.
    pub fn check(days: DateRange, first: Option<NaiveDate>, as_of: Timestamp) -> Result<(), DaysNotCovered> {
        let last = last_date_at(as_of) + chrono::Days::new(1);
        if Some(days.from()) < first || days.to() > last {
            return Err(DaysNotCovered { days, first, last });
        }
        Ok(())
    }
}

/// Why a report could not be rendered. The text is shown to whoever asked for the report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The rollups are not in memory (yet, or any more).
    #[error("the rollups are not loaded: {0}")]
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
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}
