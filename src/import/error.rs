//! Why an import stopped. Whatever the reason, nothing of the run is in the database.

use std::io;
use std::path::PathBuf;

use super::Reject;

/// Why an import stopped.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// An input could not be opened.
    #[error("cannot open {file}")]
    Open {
        /// The input's name.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// An input could not be read to its end.
    #[error("cannot read {file} after line {line}")]
    Read {
        /// The input's name.
        file: String,
        /// Lines read so far.
        line: u64,
        /// What the system said.
        source: io::Error,
    },
    /// An input without even a header.
    #[error("{file}: line 1: the file is empty; expected a header with the columns {expected}")]
    Empty {
        /// The input's name.
        file: String,
        /// The columns of its table.
        expected: String,
    },
    /// The header lacks a column.
    #[error("{file}: line {line}: no column {column}; expected a header with the columns {expected}, found {found}")]
    MissingColumn {
        /// The input's name.
        file: String,
        /// The header's line, from 1.
        line: u64,
        /// The column that is missing, under its first name.
        column: &'static str,
        /// The columns of its table.
        expected: String,
        /// The header as found, shortened.
        found: String,
    },
    /// The header names a column twice, maybe under both of its names.
    #[error("{file}: line {line}: column {column} appears twice; expected it once, found {found}")]
    RepeatedColumn {
        /// The input's name.
        file: String,
        /// The header's line, from 1.
        line: u64,
        /// The column, under its first name.
        column: &'static str,
        /// The header as found, shortened.
        found: String,
    },
    /// A bad row, with `strict` asked for.
    #[error("{0} (nothing was loaded)")]
    Rejected(Box<Reject>),
    /// The file for bad rows could not be written.
    #[error("cannot write the rejects file {path}")]
    Rejects {
        /// The file for bad rows.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file for bad rows is one of the inputs.
    #[error("the rejects file {0} is an input; name another one")]
    RejectsIsInput(PathBuf),
    /// Standard input was named for more than one table.
    #[error("standard input can be read once only; expected - for one input at most")]
    StdinTwice,
    /// Postgres refused.
    #[error("Postgres refused the import")]
    Database(#[from] tokio_postgres::Error),
    /// The parser's thread ended without a result: a bug in it, or the runtime is shutting down.
    #[error("the parser of {file} stopped")]
    Parser {
        /// The input's name.
        file: String,
        /// How the thread ended.
        source: tokio::task::JoinError,
    },
}
