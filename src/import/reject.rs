//! Rows that are set aside: what was wrong with them, and the CSV that they go to.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use super::{ImportError, Input};
use crate::text::{printable, quoted};

/// Longest piece of a field that a reason quotes, in characters.
const FOUND_CHARS_MAX: usize = 60;
/// Longest piece of a row that the rejects file keeps, in characters. A sound row is far shorter.
const ROW_CHARS_MAX: usize = 500;

/// A row that is not right, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The input's name.
    pub file: String,
    /// The row's line, from 1 (the header's, usually).
    pub line: u64,
    /// The column's first name, or `row` if the whole line is at fault.
    pub field: &'static str,
    /// What was found there, shortened and with control characters escaped.
    pub found: String,
    /// What was expected instead.
    pub expected: String,
    /// The line, shortened and with control characters escaped.
    pub row: String,
    /// The store that the row names, where that could be read.
    pub store_id: Option<String>,
}

impl Reject {
    /// What is wrong, without the place.
    pub fn reason(&self) -> String {
        format!("expected {}, found {}", self.expected, self.found)
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reject { file, line, field, .. } = self;
        write!(f, "{file}: line {line}: {field}: {}", self.reason())
    }
}

/// A field's text as a message shows it: quoted, shortened, control characters escaped.
pub(super) fn shown(text: &str) -> String {
    if text.is_empty() {
        "nothing".to_owned()
    } else {
        quoted(text, FOUND_CHARS_MAX)
    }
}

/// A line as the rejects file keeps it.
pub(super) fn shown_row(line: &[u8]) -> String {
    // A character has at most four bytes: no need to look at a megabyte to keep 500 of them.
    let (head, _) = line.split_at(line.len().min(4 * ROW_CHARS_MAX + 4));
    printable(&String::from_utf8_lossy(head), ROW_CHARS_MAX)
}

/// Where the bad rows of `input` go.
pub(super) fn path_for(chosen: Option<&Path>, input: &Input) -> PathBuf {
    match (chosen, input) {
        (Some(path), _) => path.to_owned(),
        (None, Input::Stdin) => PathBuf::from("stdin.rejects.csv"),
        (None, Input::File(path)) => {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(".rejects.csv");
            PathBuf::from(name)
        }
    }
}

/// The rejects files of a run, each created with its first row.
pub(super) struct RejectLog {
    chosen: Option<PathBuf>,
    /// At most one per input.
    open: Vec<(PathBuf, csv::Writer<BufWriter<File>>)>,
}

impl RejectLog {
    pub(super) fn new(chosen: Option<PathBuf>) -> Self {
        RejectLog {
            chosen,
            open: Vec::new(),
        }
    }

    /// Writes one row of the rejects file that belongs to `input`.
    pub(super) fn write(&mut self, input: &Input, reject: &Reject) -> Result<(), ImportError> {
        let path = path_for(self.chosen.as_deref(), input);
        self.try_write(&path, reject)
            .map_err(|source| ImportError::Rejects { path, source })
    }

    fn try_write(&mut self, path: &Path, reject: &Reject) -> io::Result<()> {
        let index = if let Some(index) = self.open.iter().position(|(open, _)| open == path) {
            index
        } else {
            let mut writer = csv::Writer::from_writer(BufWriter::new(File::create(path)?));
            writer.write_record(["file", "line", "field", "reason", "row"])?;
            self.open.push((path.to_owned(), writer));
            self.open.len() - 1
        };
        if let Some((_, writer)) = self.open.get_mut(index) {
            writer.write_record([
                &reject.file,
                &reject.line.to_string(),
                reject.field,
                &reject.reason(),
                &inert(&reject.row),
            ])?;
        }
        Ok(())
    }

    /// Flushes the files and says which there are.
    pub(super) fn finish(self) -> Result<Vec<PathBuf>, ImportError> {
        let mut paths = Vec::with_capacity(self.open.len());
        for (path, mut writer) in self.open {
            if let Err(source) = writer.flush() {
                return Err(ImportError::Rejects { path, source });
            }
            paths.push(path);
        }
        Ok(paths)
    }
}

/// A text that a spreadsheet shows rather than runs.
fn inert(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_shown_short_and_escaped() {
        assert_eq!(shown(""), "nothing");
        assert_eq!(shown("up\0\u{1b}[31m"), "\"up\\0\\u{1b}[31m\"");
        assert!(shown_row(&vec![0xff; 1 << 20]).chars().count() <= ROW_CHARS_MAX + 1);
        assert_eq!(inert("=cmd|x,active"), "'=cmd|x,active");
    }

    #[test]
    fn each_input_has_its_own_rejects_file_unless_one_is_named() {
        let file = Input::File(PathBuf::from("/data/activity.csv"));
        let here = PathBuf::from("activity.csv.rejects.csv");
        assert_eq!(path_for(None, &file), here);
        let stdin = PathBuf::from("stdin.rejects.csv");
        assert_eq!(path_for(None, &Input::Stdin), stdin);
        let named = Path::new("bad.csv");
        assert_eq!(path_for(Some(named), &file), named);
    }
}
