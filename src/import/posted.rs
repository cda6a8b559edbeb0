//! Observations that come in one body, from somebody who does not write into the table: the same rows by the same rules as
//! those of a file, and in one statement, so all of them or none.

use serde_json::Value;
use tokio_postgres::Client;

use super::record::{BadField, Records};
use super::reject::{shown, shown_row};
use super::row::ActivityRow;
use super::{ImportError, Reject, Table};
use crate::store::{Status, check_store_id};
use crate::time::Timestamp;

/// What the body is called in messages.
const BODY: &str = "the body";

/// How the rows of a body are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// With a header, as a file would be.
    Csv,
    /// A JSON object a line, with the names of the columns; every value is a text.
    JsonLines,
}

/// The rows of a body.
#[derive(Debug)]
pub struct Posted {
    /// Rows, good or bad.
    pub read: u64,
    /// Rows that were set aside.
    pub rejected: u64,
    /// The first of those.
    pub rejects: Vec<Reject>,
    /// The good ones by store and instant, each once: of several the last.
    rows: Vec<(String, Timestamp, Status)>,
}

/// What became of the rows. `read = new + corrected + unchanged + rejected`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostedSummary {
    /// Rows inserted.
    pub new: u64,
    /// Rows whose status was another one.
    pub corrected: u64,
    /// Rows that were there already, or that a later one of the same body says otherwise.
    pub unchanged: u64,
}

/// Why nothing of a body is taken.
#[derive(Debug, thiserror::Error)]
pub enum PostedError {
    /// More rows than are taken at once.
    #[error("expected at most {0} rows in a body, found more")]
    TooManyRows(u64),
    /// Its header is none.
    #[error(transparent)]
    Header(#[from] ImportError),
}

impl Posted {
    /// Reads a body. Blocking: about a tenth of a second for 100,000 rows. `rejects_max`: so many rejects are kept.
    ///
    /// # Errors
    /// [`PostedError`]; a bad row is none.
    pub fn parse(body: &[u8], format: BodyFormat, rows_max: u64, rejects_max: usize) -> Result<Self, PostedError> {
        let mut posted = Posted {
            read: 0,
            rejected: 0,
            rejects: Vec::new(),
            rows: Vec::new(),
        };
        let mut take = |row: Result<(String, Timestamp, Status), Box<Reject>>| {
            posted.read += 1;
            match row {
                Ok(row) => posted.rows.push(row),
                Err(reject) => {
                    posted.rejected += 1;
                    if posted.rejects.len() < rejects_max {
                        posted.rejects.push(*reject);
                    }
                }
            }
            if posted.read > rows_max {
                Err(PostedError::TooManyRows(rows_max))
            } else {
                Ok(())
            }
        };
        match format {
            BodyFormat::Csv => {
                let mut records = Records::open(body, BODY, Table::Activity)?;
                while let Some(record) = records.next_record()? {
                    take(record.and_then(|record| {
                        let row = ActivityRow::parse(&record).map_err(|bad| record.reject(bad))?;
                        Ok((row.store_id.to_owned(), row.at, row.status))
                    }))?;
                }
            }
            BodyFormat::JsonLines => {
                for (number, line) in (1..).zip(body.split(|&byte| byte == b'\n')) {
                    let line = line.trim_ascii();
                    if !line.is_empty() {
                        take(json_row(number, line))?;
                    }
                }
            }
        }
        // Stable: of equal keys the last one given comes first, and stays.
        posted.rows.reverse();
        posted.rows.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        posted.rows.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
        Ok(posted)
    }

    /// Writes the good rows, all or none, and says what changed. Writing them again changes nothing.
    ///
    /// # Errors
    /// Whatever Postgres says; then nothing is written.
    pub async fn write(&self, client: &Client) -> Result<PostedSummary, tokio_postgres::Error> {
        let ids: Vec<&str> = self.rows.iter().map(|(id, ..)| id.as_str()).collect();
        let instants: Vec<Timestamp> = self.rows.iter().map(|(_, at, _)| *at).collect();
        let statuses: Vec<&str> = self.rows.iter().map(|(.., status)| status.as_str()).collect();
        let (new, corrected) = if self.rows.is_empty() {
            (0, 0)
        } else {
            let row = client
                .query_one(super::load::POSTED, &[&ids, &instants, &statuses])
                .await?;
            let count = |index| row.try_get::<_, i64>(index).map(i64::unsigned_abs);
            (count(0)?, count(1)?)
        };
        Ok(PostedSummary {
            new,
            corrected,
            unchanged: (self.read - self.rejected).saturating_sub(new + corrected),
        })
    }
}

/// One line of JSON.
fn json_row(number: u64, line: &[u8]) -> Result<(String, Timestamp, Status), Box<Reject>> {
    let reject = |field: &'static str, expected: String, found: String, store_id: Option<&str>| {
        Box::new(Reject {
            file: BODY.to_owned(),
            line: number,
            field,
            found,
            expected,
            row: shown_row(line),
            store_id: store_id.filter(|id| check_store_id(id).is_ok()).map(str::to_owned),
        })
    };
    let shape = || "a JSON object with store_id, timestamp_utc and status".to_owned();
    let parsed: Value = serde_json::from_slice(line).map_err(|error| {
        let found = if error.is_eof() {
            "the end of the line in the middle of one".to_owned()
        } else {
            format!("no JSON at character {}", error.column())
        };
        reject("row", shape(), found, None)
    })?;
    let object = parsed
        .as_object()
        .ok_or_else(|| reject("row", shape(), shown_row(line), None))?;
    let columns = Table::Activity.columns();
    let field = |column: usize| {
        let name = columns.get(column).map_or("row", |column| column.name);
        match object.get(name) {
            Some(Value::String(text)) => Ok(text.as_str()),
            Some(other) => Err(reject(name, "a text".to_owned(), shown(&other.to_string()), None)),
            None => Err(reject(name, "a text".to_owned(), "no such field".to_owned(), None)),
        }
    };
    let (store_id, status, at) = (field(0)?, field(1)?, field(2)?);
    let row = ActivityRow::of(store_id, status, at).map_err(|BadField { column, expected }| {
        let found = field(column).map_or_else(|_| String::new(), shown);
        let name = columns.get(column).map_or("row", |column| column.name);
        reject(name, expected, found, Some(store_id))
    })?;
    Ok((row.store_id.to_owned(), row.at, row.status))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed parse is a failed test")]

    use super::*;

    fn json(body: &str) -> Posted {
        Posted::parse(body.as_bytes(), BodyFormat::JsonLines, 100, 10).unwrap()
    }

    #[test]
    fn lines_of_json_and_a_csv_are_the_same_rows() {
        let lines = json(
            "\n{\"store_id\":\"b\",\"timestamp_utc\":\"2023-01-22T12:00:00Z\",\"status\":\"active\"}\r\n\
             {\"status\":\"inactive\", \"more\":[1], \"store_id\":\"a\\u0020\", \"timestamp_utc\":\"2023-01-22 12:00:00 UTC\"}\n\
             {\"store_id\":\"b\",\"timestamp_utc\":\"2023-01-22T14:00:00+02:00\",\"status\":\"inactive\"}",
        );
        let csv = "timestamp_utc,store_id,status\n2023-01-22T12:00:00Z,b,active\n2023-01-22T12:00:00Z,a ,inactive\n\
                   2023-01-22 12:00:00 UTC,b,inactive\n";
        let csv = Posted::parse(csv.as_bytes(), BodyFormat::Csv, 100, 10).unwrap();
        let at = "2023-01-22T12:00:00Z".parse().unwrap();
        let expected = [
            ("a ".to_owned(), at, Status::Inactive),
            ("b".to_owned(), at, Status::Inactive),
        ];
        for posted in [lines, csv] {
            assert_eq!((posted.read, posted.rejected), (3, 0));
            assert_eq!(posted.rows, expected, "the last of equal keys");
        }
    }

    #[test]
    fn each_bad_line_says_what_is_wrong_with_it() {
        let good = "{\"store_id\":\"s\",\"timestamp_utc\":\"2023-01-22T12:00:00Z\",\"status\":\"active\"}";
        for (line, field, found) in [
            ("{", "row", "the end of the line"),
            ("nonsense", "row", "no JSON at character 2"),
            ("[1,2]", "row", "[1,2]"),
            ("\"s\"", "row", "\"s\""),
            (
                &good.replace("active", "up"),
                "status",
                "expected active or inactive, found \"up\"",
            ),
            (
                &good.replace("\"active\"", "true"),
                "status",
                "expected a text, found \"true\"",
            ),
            (&good.replace("\"s\"", "7"), "store_id", "expected a text, found \"7\""),
            (&good.replace("\"s\"", "\"\""), "store_id", "found nothing"),
            (
                &good.replace("\"s\"", "\"\\u0000\""),
                "store_id",
                "without control characters",
            ),
            (&good.replace("store_id", "store"), "store_id", "found no such field"),
            (&good.replace('Z', ""), "timestamp_utc", "expected a time such as"),
            (&good.replace("2023", "1999"), "timestamp_utc", "2000-01-01"),
        ] {
            let posted = json(&format!("{good}\n\n{line}\n"));
            assert_eq!((posted.read, posted.rejected, posted.rows.len()), (2, 1, 1), "{line}");
            let reject = &posted.rejects[0];
            assert_eq!((reject.line, reject.field), (3, field), "{line}");
            assert!(reject.reason().contains(found), "{}", reject.reason());
        }
    }

    #[test]
    fn what_is_too_much_is_refused_and_rejects_are_few() {
        let bad = "x\n".repeat(50);
        let posted = json(&bad);
        assert_eq!((posted.read, posted.rejected, posted.rejects.len()), (50, 50, 10));
        let many = Posted::parse("x\n".repeat(101).as_bytes(), BodyFormat::JsonLines, 100, 10);
        assert!(matches!(many, Err(PostedError::TooManyRows(100))));
        let headless = Posted::parse(b"a,b\n", BodyFormat::Csv, 100, 10).unwrap_err();
        assert!(
            headless.to_string().contains("the body: line 1: no column store_id"),
            "{headless}"
        );
        assert!(Posted::parse(b"", BodyFormat::Csv, 100, 10).is_err());
        assert_eq!(json("").read, 0);
    }
}
