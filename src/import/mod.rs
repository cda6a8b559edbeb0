//! Loads the four CSV files into Postgres: all of a run or nothing of it.
//!
//! Three rooms: [`record`] and [`row`] turn bytes into typed rows and know no database; `chunk` turns
//! rows into Postgres's binary COPY format; `load` puts chunks into the tables. Parsing runs on a
//! thread of its own so that it overlaps with what Postgres does. What comes in one body over HTTP has its own way
//! ([`Posted`]) through the same rules.
//!
//! Not here: opening hours, closures, time zones and timelines as rules (the model), and the command line.

mod chunk;
mod error;
mod load;
mod posted;
mod produce;
pub mod record;
mod reject;
pub mod row;
mod summary;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use tokio_postgres::Client;

pub use error::ImportError;
pub use posted::{BodyFormat, Posted, PostedError, PostedSummary};
pub use reject::Reject;
pub use summary::{ImportSummary, TableSummary};

use chunk::ChunkBuilder;
use load::Loader;
use produce::{Parsed, spawn_parser};
use reject::RejectLog;
use row::{ActivityRow, ClosureRow, HoursRow, TimezoneRow};

/// What to load, and what to do with rows that are not right.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Files of `store_id, status, timestamp_utc`, loaded in this order: a later row wins.
    pub activity: Vec<Input>,
    /// File of `store_id, day, start_time_local, end_time_local`.
    pub hours: Option<Input>,
    /// File of `store_id, closed_from, closed_to, reason`.
    pub closures: Option<Input>,
    /// File of `store_id, timezone_str`.
    pub timezones: Option<Input>,
    /// Stop at the first bad row and load nothing, instead of setting bad rows aside.
    pub strict: bool,
    /// Where all bad rows go. Without it: `<file name>.rejects.csv` in the current directory, one per input.
    pub rejects: Option<PathBuf>,
    /// Show a progress bar on standard error, if that is a terminal.
    pub progress: bool,
}

impl ImportOptions {
    fn inputs(&self) -> impl Iterator<Item = &Input> {
        let calendars = self.timezones.iter().chain(&self.hours).chain(&self.closures);
        calendars.chain(&self.activity)
    }
}

/// Where a CSV comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

/// The name used in messages and in the rejects file.
impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::File(path) => path.display().fmt(f),
            Input::Stdin => f.write_str("standard input"),
        }
    }
}

/// Which of the input tables a CSV is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `public.store_activity`
    Activity,
    /// `public.store_business_hours`
    Hours,
    /// `public.store_closures`
    Closures,
    /// `public.store_timezones`
    Timezones,
}

/// Loads all inputs in one transaction and says what changed.
///
/// Time zones go first, then hours and closures, then activity: a follower that reads the result then learns a
/// store's calendar before its observations. Loading the same files again changes no row.
///
/// # Errors
/// [`ImportError`]; the database is then as it was before.
pub async fn run(client: &mut Client, options: &ImportOptions) -> Result<ImportSummary, ImportError> {
    check_inputs(options)?;
    let mut summary = ImportSummary::default();
    let mut log = RejectLog::new(options.rejects.clone());
    let mut loader = Loader::begin(client).await?;

    if let Some(input) = &options.timezones {
        let started = Instant::now();
        let mut parser = spawn_parser(input, Table::Timezones, options, log)?;
        while let Some(chunk) = parser.chunks.recv().await {
            loader.timezones(chunk, &mut summary.timezones).await?;
        }
        let parsed = parser.finish().await?;
        log = summary.note(Table::Timezones, parsed, started);
    }
    if let Some(input) = &options.hours {
        let started = Instant::now();
        let mut parser = spawn_parser(input, Table::Hours, options, log)?;
        while let Some(chunk) = parser.chunks.recv().await {
            loader.hours(chunk).await?;
        }
        let parsed = parser.finish().await?;
        loader.hours_end(&parsed.suspects, &mut summary.hours).await?;
        summary.deletions_withheld = parsed.suspects.withheld();
        log = summary.note(Table::Hours, parsed, started);
    }
    if let Some(input) = &options.closures {
        let started = Instant::now();
        let mut parser = spawn_parser(input, Table::Closures, options, log)?;
        while let Some(chunk) = parser.chunks.recv().await {
            loader.closures(chunk, &mut summary.closures).await?;
        }
        let parsed = parser.finish().await?;
        log = summary.note(Table::Closures, parsed, started);
    }
    for input in &options.activity {
        let started = Instant::now();
        let mut parser = spawn_parser(input, Table::Activity, options, log)?;
        while let Some(chunk) = parser.chunks.recv().await {
            loader.activity(chunk, &mut summary.activity).await?;
        }
        let parsed = parser.finish().await?;
        log = summary.note(Table::Activity, parsed, started);
    }

    summary.rejects_files = log.finish()?;
    loader.commit().await?;
    Ok(summary)
}

/// Loads rows that are typed already, with the same rules as [`run`] and in one transaction; for
/// generated fleets.
///
/// # Errors
/// [`ImportError::Database`]; the database is then as it was before.
pub async fn load<'a>(
    client: &mut Client,
    timezones: impl IntoIterator<Item = TimezoneRow<'a>>,
    hours: impl IntoIterator<Item = HoursRow<'a>>,
    closures: impl IntoIterator<Item = ClosureRow<'a>>,
    activity: impl IntoIterator<Item = ActivityRow<'a>>,
) -> Result<ImportSummary, ImportError> {
    let mut summary = ImportSummary::default();
    let mut loader = Loader::begin(client).await?;
    let mut builder = ChunkBuilder::default();

    let started = Instant::now();
    for row in timezones {
        builder.push_timezone(&row);
        summary.timezones.read += 1;
        if builder.is_full() {
            loader.timezones(builder.take(), &mut summary.timezones).await?;
        }
    }
    loader.timezones(builder.take(), &mut summary.timezones).await?;
    summary.timezones.close(started);

    let started = Instant::now();
    for row in hours {
        builder.push_hours(&row);
        summary.hours.read += 1;
        if builder.is_full() {
            loader.hours(builder.take()).await?;
        }
    }
    loader.hours(builder.take()).await?;
    loader
        .hours_end(&produce::Suspects::default(), &mut summary.hours)
        .await?;
    summary.hours.close(started);

    let started = Instant::now();
    for row in closures {
        builder.push_closure(&row);
        summary.closures.read += 1;
        if builder.is_full() {
            loader.closures(builder.take(), &mut summary.closures).await?;
        }
    }
    loader.closures(builder.take(), &mut summary.closures).await?;
    summary.closures.close(started);

    let started = Instant::now();
    for row in activity {
        builder.push_activity(&row);
        summary.activity.read += 1;
        if builder.is_full() {
            loader.activity(builder.take(), &mut summary.activity).await?;
        }
    }
    loader.activity(builder.take(), &mut summary.activity).await?;
    summary.activity.close(started);

    loader.commit().await?;
    Ok(summary)
}

/// What is wrong before anything is read.
fn check_inputs(options: &ImportOptions) -> Result<(), ImportError> {
    if options.inputs().filter(|i| **i == Input::Stdin).count() > 1 {
        return Err(ImportError::StdinTwice);
    }
    for input in options.inputs() {
        let Input::File(path) = input else { continue };
        let rejects = reject::path_for(options.rejects.as_deref(), input);
        if is_same_file(path, &rejects) {
            return Err(ImportError::RejectsIsInput(rejects));
        }
    }
    Ok(())
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false, // one of them does not exist yet
    }
}

/// A bar over the bytes of one input; hidden where standard error is no terminal.
fn progress_bar(bytes: Option<u64>, input: &Input, visible: bool) -> ProgressBar {
    if !visible {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{msg} {wide_bar} {bytes}/{total_bytes} {eta}"),
        None => (ProgressBar::new_spinner(), "{msg} {spinner} {bytes} {elapsed}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(input.to_string());
    bar
}

impl ImportSummary {
    /// Takes over what the parser of one input counted; hands the reject log on to the next one.
    fn note(&mut self, table: Table, parsed: Parsed, started: Instant) -> RejectLog {
        let summary = match table {
            Table::Activity => &mut self.activity,
            Table::Hours => &mut self.hours,
            Table::Closures => &mut self.closures,
            Table::Timezones => &mut self.timezones,
        };
        summary.read += parsed.read;
        summary.rejected += parsed.rejected;
        summary.close(started);
        if !parsed.ignored_columns.is_empty() {
            self.ignored_columns.push((parsed.name, parsed.ignored_columns));
        }
        parsed.log
    }
}
