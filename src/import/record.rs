//! Bytes of a CSV to records: lines, quotes, header, ragged rows. Knows the columns' names, not their
//! meaning.
//!
//! A record is one line. RFC 4180 lets a quoted field go on over lines, but no column of ours may hold
//! a line break, and believing an unclosed quote would swallow the good rows after it. So a quote that
//! its line does not close rejects that line and nothing else.

use std::io::{self, BufRead};
use std::ops::Range;

use super::reject::{shown, shown_row};
use super::{ImportError, Reject, Table};

/// Longest line in bytes, its end included. Longer ones are rejected without being held in memory.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Columns of the widest table.
pub const COLUMNS_MAX: usize = 4;

/// A column of a table: its name, and the one that others give it.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// The name in the table and in messages.
    pub name: &'static str,
    also: Option<&'static str>,
}

const fn column(name: &'static str) -> Column {
    Column { name, also: None }
}

impl Table {
    /// The columns that a CSV for this table must have, in the order of [`Record::fields`].
    pub const fn columns(self) -> &'static [Column] {
        const STORE_ID: Column = column("store_id");
        const DAY: Column = Column {
            name: "day",
            also: Some("dayOfWeek"),
        };
        match self {
            Table::Activity => &const { [STORE_ID, column("status"), column("timestamp_utc")] },
            Table::Hours => &const { [STORE_ID, DAY, column("start_time_local"), column("end_time_local")] },
            Table::Closures => {
                const FROM: Column = Column {
                    name: "closed_from",
                    also: Some("from"),
                };
                const TO: Column = Column {
                    name: "closed_to",
                    also: Some("to"),
                };
                &const { [STORE_ID, FROM, TO, column("reason")] }
            }
            Table::Timezones => &const { [STORE_ID, column("timezone_str")] },
        }
    }

    /// The columns as a message lists them.
    fn columns_text(self) -> String {
        let names = self.columns().iter().map(|column| match column.also {
            Some(also) => format!("{} (or {also})", column.name),
            None => column.name.to_owned(),
        });
        names.collect::<Vec<_>>().join(", ")
    }
}

/// One field that does not parse: its column, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadField {
    /// Index in [`Table::columns`].
    pub column: usize,
    /// What was expected.
    pub expected: String,
}

/// One line of the right shape; its fields are text still.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The fields of the table's columns, in the order of [`Table::columns`]; unused ones are empty.
    pub fields: [&'a str; COLUMNS_MAX],
    table: Table,
    file: &'a str,
    line_number: u64,
    line: &'a [u8],
}

impl Record<'_> {
    /// This record, set aside because of one of its fields.
    pub fn reject(&self, bad: BadField) -> Box<Reject> {
        let store_id = self.fields[0];
        Box::new(Reject {
            file: self.file.to_owned(),
            line: self.line_number,
            field: self.table.columns().get(bad.column).map_or("row", |c| c.name),
            found: self.fields.get(bad.column).map_or_else(String::new, |f| shown(f)),
            expected: bad.expected,
            row: shown_row(self.line),
            store_id: crate::store::check_store_id(store_id)
                .is_ok()
                .then(|| store_id.to_owned()),
        })
    }
}

/// Reads the records of one CSV, one at a time, without an allocation per record.
pub struct Records<R> {
    input: R,
    file: String,
    table: Table,
    /// For each column of the table, its place in the file.
    places: [usize; COLUMNS_MAX],
    /// Fields in the header.
    width: usize,
    ignored_columns: Vec<String>,
    line_number: u64,
    bytes_read: u64,
    line: Vec<u8>,
    /// The fields' text where quotes had to be taken away.
    unquoted: String,
    fields: Vec<Range<usize>>,
}

impl<R: BufRead> Records<R> {
    /// Reads the header. `file` is the name for messages.
    ///
    /// # Errors
    /// [`ImportError::Empty`], [`ImportError::MissingColumn`], [`ImportError::RepeatedColumn`], [`ImportError::Read`].
    pub fn open(input: R, file: &str, table: Table) -> Result<Self, ImportError> {
        let mut records = Records {
            input,
            file: file.to_owned(),
            table,
            places: [0; COLUMNS_MAX],
            width: 0,
            ignored_columns: Vec::new(),
            line_number: 0,
            bytes_read: 0,
            line: Vec::with_capacity(256),
            unquoted: String::new(),
            fields: Vec::new(),
        };
        records.read_header()?;
        Ok(records)
    }

    /// Names of the columns that no table has a use for.
    pub fn ignored_columns(&self) -> &[String] {
        &self.ignored_columns
    }

    /// Bytes taken from the input so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The next record, or why its line is none; `None` at the end. Blank lines are passed over.
    ///
    /// # Errors
    /// [`ImportError::Read`] only; bad lines are values.
    pub fn next_record(&mut self) -> Result<Option<Result<Record<'_>, Box<Reject>>>, ImportError> {
        match self.next_line()? {
            Line::End => Ok(None),
            Line::Whole => Ok(Some(self.split())),
            Line::TooLong => {
                let expected = format!("a row of at most {LINE_BYTES_MAX} bytes");
                let found = "a longer one".to_owned();
                Ok(Some(Err(self.reject_line(expected, found))))
            }
        }
    }

    /// Reads the next line that is not blank into `self.line`, without its end.
    fn next_line(&mut self) -> Result<Line, ImportError> {
        loop {
            self.line.clear();
            let line = self.read_line().map_err(|source| ImportError::Read {
                file: self.file.clone(),
                line: self.line_number,
                source,
            })?;
            match line {
                Line::Whole if self.line.is_empty() => {}
                other => return Ok(other),
            }
        }
    }

    fn read_line(&mut self) -> io::Result<Line> {
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        let read = io::Read::take(&mut self.input, limit).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(Line::End);
        }
        self.bytes_read += read as u64;
        self.line_number += 1;
        if self.line_number == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
            self.line.drain(..3); // the byte order mark that spreadsheets write
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if read == LINE_BYTES_MAX {
            self.bytes_read += self.input.skip_until(b'\n')? as u64;
            return Ok(Line::TooLong);
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(Line::Whole)
    }

    fn read_header(&mut self) -> Result<(), ImportError> {
        if let Line::End = self.next_line()? {
            return Err(ImportError::Empty {
                file: self.file.clone(),
                expected: self.table.columns_text(),
            });
        }
        let header = String::from_utf8_lossy(&self.line).into_owned();
        let names = match split_fields(&header, &mut self.unquoted, &mut self.fields) {
            Ok(text) => fields_of(text, &self.fields),
            Err(_) => header.split(',').collect(),
        };
        let (table, line) = (self.table, self.line_number);
        for (place, column) in self.places.iter_mut().zip(table.columns()) {
            let is_it = |name: &str| name == column.name || Some(name) == column.also;
            let mut found = names.iter().enumerate().filter(|(_, name)| is_it(name));
            let Some((index, _)) = found.next() else {
                return Err(ImportError::MissingColumn {
                    file: self.file.clone(),
                    line,
                    column: column.name,
                    expected: table.columns_text(),
                    found: shown_row(&self.line),
                });
            };
            if found.next().is_some() {
                return Err(ImportError::RepeatedColumn {
                    file: self.file.clone(),
                    line,
                    column: column.name,
                    found: shown_row(&self.line),
                });
            }
            *place = index;
        }
        let places = self.places.get(..table.columns().len()).unwrap_or_default();
        self.ignored_columns = names
            .iter()
            .enumerate()
            .filter(|(index, _)| !places.contains(index))
            .map(|(_, name)| shown(name))
            .collect();
        self.width = names.len();
        Ok(())
    }

    /// Splits `self.line` into the fields of the table's columns.
    fn split(&mut self) -> Result<Record<'_>, Box<Reject>> {
        let fault = match std::str::from_utf8(&self.line) {
            Err(error) => Some((
                "UTF-8 text".to_owned(),
                format!("an invalid byte at byte {} of the row", error.valid_up_to() + 1),
            )),
            Ok(text) => match split_fields(text, &mut self.unquoted, &mut self.fields) {
                Err(fault) => Some((fault.expected.to_owned(), fault.found.to_owned())),
                Ok(_) if self.fields.len() != self.width => Some((
                    format!("{} fields as in the header", self.width),
                    self.fields.len().to_string(),
                )),
                Ok(_) => None,
            },
        };
        if let Some((expected, found)) = fault {
            return Err(self.reject_line(expected, found));
        }
        // Checked above; asking again costs less than a second copy of the text would.
        let line_text = std::str::from_utf8(&self.line).unwrap_or_default();
        let text = if line_text.contains('"') {
            &self.unquoted
        } else {
            line_text
        };
        let mut fields = [""; COLUMNS_MAX];
        let columns = self.table.columns().len();
        for (field, place) in fields.iter_mut().zip(self.places).take(columns) {
            let range = self.fields.get(place).cloned().unwrap_or_default();
            *field = text.get(range).unwrap_or_default();
        }
        Ok(Record {
            fields,
            table: self.table,
            file: &self.file,
            line_number: self.line_number,
            line: &self.line,
        })
    }

    fn reject_line(&self, expected: String, found: String) -> Box<Reject> {
        Box::new(Reject {
            file: self.file.clone(),
            line: self.line_number,
            field: "row",
            found,
            expected,
            row: shown_row(&self.line),
            store_id: None,
        })
    }
}

enum Line {
    Whole,
    TooLong,
    End,
}

struct QuoteFault {
    expected: &'static str,
    found: &'static str,
}

/// Fills `fields` with the ranges of a line's fields in the text that is returned: the line itself, or
/// `unquoted` if there is a quote in it.
fn split_fields<'a>(
    line: &'a str,
    unquoted: &'a mut String,
    fields: &mut Vec<Range<usize>>,
) -> Result<&'a str, QuoteFault> {
    fields.clear();
    if line.contains('"') {
        unquoted.clear();
        split_quoted(line, unquoted, fields)?;
        return Ok(unquoted);
    }
    let mut start = 0;
    for (index, byte) in line.bytes().enumerate() {
        if byte == b',' {
            fields.push(start..index);
            start = index + 1;
        }
    }
    fields.push(start..line.len());
    Ok(line)
}

fn split_quoted(line: &str, unquoted: &mut String, fields: &mut Vec<Range<usize>>) -> Result<(), QuoteFault> {
    let mut rest = line;
    loop {
        let start = unquoted.len();
        let after = if let Some(quoted) = rest.strip_prefix('"') {
            take_quoted(quoted, unquoted)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let (field, after) = rest.split_at(end);
            unquoted.push_str(field); // a quote inside an unquoted field is a character
            after
        };
        fields.push(start..unquoted.len());
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(()),
            None => {
                return Err(QuoteFault {
                    expected: "a comma after a closing quote",
                    found: "more text",
                });
            }
        }
    }
}

/// Appends a quoted field, whose opening quote is taken already; returns what follows its closing quote.
fn take_quoted<'a>(quoted: &'a str, out: &mut String) -> Result<&'a str, QuoteFault> {
    let mut rest = quoted;
    while let Some((piece, after)) = rest.split_once('"') {
        out.push_str(piece);
        let Some(doubled) = after.strip_prefix('"') else {
            return Ok(after);
        };
        out.push('"');
        rest = doubled;
    }
    Err(QuoteFault {
        expected: "a closing quote on the same line",
        found: "none",
    })
}

fn fields_of<'a>(text: &'a str, fields: &[Range<usize>]) -> Vec<&'a str> {
    let slices = fields.iter().cloned();
    slices.filter_map(|range| text.get(range)).collect()
}
