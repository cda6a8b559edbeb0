//! Writing to stdout, whose reader may have gone away.
//!
//! Use this instead of `println!`, which panics then.

use std::io::{self, BufWriter, Write};

/// Why stdout could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The reader closed its end, as `head` does. No failure: it has what it wanted. Told apart by
    /// type, because a broken pipe to the database is a failure.
    #[error("the reader of stdout went away")]
    Closed,
    /// Anything else, such as a full disk behind a redirection.
    #[error("cannot write to stdout")]
    Failed(#[source] io::Error),
}

/// Writes to stdout what `write` writes, buffered, and flushes.
pub fn write_stdout(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), OutputError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let result = write(&mut out).and_then(|()| out.flush());
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => OutputError::Closed,
        _ => OutputError::Failed(error),
    })
}
