//! The parser's thread: reads one input, sets bad rows aside, hands chunks over.
//!
//! At most [`CHUNKS_WAITING_MAX`] chunks wait for Postgres; then the parser waits too.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use indicatif::ProgressBar;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::chunk::{Chunk, ChunkBuilder};
use super::record::{BadField, Record, Records};
use super::reject::RejectLog;
use super::row::{ActivityRow, ClosureRow, HoursRow, TimezoneRow};
use super::{ImportError, ImportOptions, Input, Table, progress_bar};

const CHUNKS_WAITING_MAX: usize = 2;
const READ_BUFFER_BYTES: usize = 256 * 1024;
/// Records between two updates of the progress bar.
const PROGRESS_RECORDS: u64 = 8_192;
/// Most stores remembered as [`Suspects`] by name.
const SUSPECTS_MAX: usize = 10_000;

/// A parser at work.
pub(super) struct Parser {
    pub(super) chunks: mpsc::Receiver<Chunk>,
    name: String,
    thread: JoinHandle<Result<Parsed, ImportError>>,
}

impl Parser {
    /// What the parser counted, once `chunks` has ended.
    pub(super) async fn finish(self) -> Result<Parsed, ImportError> {
        let file = self.name;
        self.thread
            .await
            .map_err(|source| ImportError::Parser { file, source })?
    }
}

/// What the parser of one input counted.
pub(super) struct Parsed {
    pub(super) name: String,
    pub(super) log: RejectLog,
    pub(super) ignored_columns: Vec<String>,
    /// Records, bad ones included.
    pub(super) read: u64,
    pub(super) rejected: u64,
    pub(super) suspects: Suspects,
}

/// The stores of which a file may not tell everything, because a row of theirs was rejected.
#[derive(Debug, Default)]
pub(super) enum Suspects {
    /// None at all.
    #[default]
    None,
    /// These, at most [`SUSPECTS_MAX`].
    Stores(HashSet<String>),
    /// Any store: a rejected row did not say whose it was, or there were too many.
    Any,
}

impl Suspects {
    fn add(&mut self, store_id: Option<String>) {
        let Some(store_id) = store_id else {
            *self = Suspects::Any;
            return;
        };
        match self {
            Suspects::None => *self = Suspects::Stores(HashSet::from([store_id])),
            Suspects::Stores(stores) if stores.len() < SUSPECTS_MAX => {
                stores.insert(store_id);
            }
            Suspects::Stores(_) => *self = Suspects::Any,
            Suspects::Any => {}
        }
    }

    /// For the summary: of which stores no hours were deleted.
    pub(super) fn withheld(&self) -> Option<String> {
        match self {
            Suspects::None => None,
            Suspects::Stores(stores) => Some(format!("{} stores with rejected rows", stores.len())),
            Suspects::Any => Some("any store, as rejected rows may be any store's".to_owned()),
        }
    }
}

/// Opens an input and starts parsing it.
pub(super) fn spawn_parser(
    input: &Input,
    table: Table,
    options: &ImportOptions,
    log: RejectLog,
) -> Result<Parser, ImportError> {
    let (reader, bytes) = open(input)?;
    let bar = progress_bar(bytes, input, options.progress);
    let (sender, chunks) = mpsc::channel(CHUNKS_WAITING_MAX);
    let (input, name, strict) = (input.clone(), input.to_string(), options.strict);
    let thread = tokio::task::spawn_blocking(move || {
        let outcome = parse(reader, &input, table, strict, log, &bar, &sender);
        bar.finish_and_clear();
        outcome
    });
    Ok(Parser { chunks, name, thread })
}

fn open(input: &Input) -> Result<(Box<dyn BufRead + Send>, Option<u64>), ImportError> {
    let Input::File(path) = input else {
        let stdin = BufReader::with_capacity(READ_BUFFER_BYTES, io::stdin());
        return Ok((Box::new(stdin), None));
    };
    let opened = File::open(path).and_then(|file| {
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok((file, metadata.is_file().then_some(metadata.len())))
    });
    let (file, bytes) = opened.map_err(|source| ImportError::Open {
        file: input.to_string(),
        source,
    })?;
    Ok((Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, file)), bytes))
}

fn parse(
    reader: Box<dyn BufRead + Send>,
    input: &Input,
    table: Table,
    strict: bool,
    mut log: RejectLog,
    bar: &ProgressBar,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<Parsed, ImportError> {
    let name = input.to_string();
    let mut records = Records::open(reader, &name, table)?;
    let mut builder = ChunkBuilder::default();
    let (mut read, mut rejected, mut suspects) = (0, 0, Suspects::None);
    while let Some(record) = records.next_record()? {
        read += 1;
        let pushed = record.and_then(|record| push(table, &record, &mut builder).map_err(|bad| record.reject(bad)));
        if let Err(reject) = pushed {
            if strict {
                return Err(ImportError::Rejected(reject));
            }
            log.write(input, &reject)?;
            rejected += 1;
            suspects.add(reject.store_id);
        }
        if read % PROGRESS_RECORDS == 0 {
            bar.set_position(records.bytes_read());
        }
        if builder.is_full() && chunks.blocking_send(builder.take()).is_err() {
            break; // the loader failed and says why
        }
    }
    // Nobody receives any more only if the loader failed; then that is the error to show.
    let _ = chunks.blocking_send(builder.take());
    Ok(Parsed {
        ignored_columns: records.ignored_columns().to_vec(),
        name,
        log,
        read,
        rejected,
        suspects,
    })
}

fn push(table: Table, record: &Record<'_>, builder: &mut ChunkBuilder) -> Result<(), BadField> {
    match table {
        Table::Activity => builder.push_activity(&ActivityRow::parse(record)?),
        Table::Hours => builder.push_hours(&HoursRow::parse(record)?),
        Table::Closures => builder.push_closure(&ClosureRow::parse(record)?),
        Table::Timezones => builder.push_timezone(&TimezoneRow::parse(record)?),
    }
    Ok(())
}
