//! The rows of an import: every line of the input becomes a record or a reject, those that are accepted are what the
//! csv crate reads in them, and what the reader of rows accepts is what the tables and the model accept.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use uptally::import::record::{LINE_BYTES_MAX, Record, Records};
use uptally::import::row::{ActivityRow, ClosureRow, HoursRow, REASON_BYTES_MAX, TimezoneRow};
use uptally::import::{ImportError, Reject, Table};
use uptally::schedule::{Closure, Interval};
use uptally::store::check_store_id;
use uptally::time::DAY_US;

/// The first byte chooses the table, and whether the header is the bytes' own.
pub fn run(bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else {
        return;
    };
    // Of the numbers with which the corpus began, those of three tables mean what they did.
    let table = match (choice % 3, choice & 64) {
        (0, _) => Table::Activity,
        (1, 0) => Table::Hours,
        (1, _) => Table::Closures,
        _ => Table::Timezones,
    };
    let names: Vec<&str> = table.columns().iter().map(|column| column.name).collect();
    let header = if choice < 128 {
        names.join(",") + "\n"
    } else {
        String::new()
    };
    let bytes = [header.as_bytes(), bytes].concat();
    if bytes.len() < LINE_BYTES_MAX {
        read(table, &names, &bytes);
    }
}

fn read(table: Table, names: &[&str], bytes: &[u8]) {
    let mut records = match Records::open(bytes, "f.csv", table) {
        Ok(records) => records,
        Err(error) => {
            let expected = matches!(
                error,
                ImportError::Empty { .. } | ImportError::MissingColumn { .. } | ImportError::RepeatedColumn { .. }
            );
            assert!(expected && error.to_string().starts_with("f.csv: line "), "{error}");
            return;
        }
    };
    let mut lines = lines(bytes);
    let (_, header) = lines.next().expect("the header that was read");
    // A header whose quotes do not close is split at its commas.
    let header = split(header).unwrap_or_default();
    let other_name = |name: &str| match name {
        "day" => "dayOfWeek",
        "closed_from" => "from",
        "closed_to" => "to",
        _ => "",
    };
    let is_named = |field: &str, name: &str| field == name || (!field.is_empty() && field == other_name(name));
    let place = |name: &str| header.iter().position(|field| is_named(field, name));
    while let Some(record) = records.next_record().expect("a reader that does not fail") {
        let (number, line) = lines.next().expect("a line for every record");
        match record {
            Ok(record) => {
                if let Some(fields) = split(line).filter(|fields| fields.len() == header.len()) {
                    for (index, name) in names.iter().enumerate() {
                        let expected = place(name).map(|place| fields[place].as_str());
                        assert_eq!(Some(record.fields[index]), expected, "{name} of line {number}");
                    }
                }
                check_row(table, &record, number);
            }
            Err(reject) => check_reject(&reject, number),
        }
    }
    assert_eq!(lines.next(), None, "a record for every line");
    assert_eq!(records.bytes_read(), bytes.len() as u64);
}

/// The lines that are not blank, without their ends, and their numbers.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let lines = bytes.split(|&byte| byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    (1..).zip(lines).filter(|(_, line)| !line.is_empty())
}

/// A line's fields, as the csv crate reads them if there are quotes; None if that is not one record of text.
fn split(line: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(line).ok()?;
    if !text.contains('"') {
        return Some(text.split(',').map(str::to_owned).collect());
    }
    let mut reader = csv::ReaderBuilder::new();
    let reader = reader.has_headers(false).terminator(csv::Terminator::Any(b'\n'));
    // A field before them: the crate takes a byte order mark away from where a reader begins.
    let line = [b"first,", line].concat();
    let mut reader = reader.from_reader(&*line);
    let mut records = reader.records();
    let record = records.next()?.ok()?;
    records
        .next()
        .is_none()
        .then(|| record.iter().skip(1).map(str::to_owned).collect())
}

fn check_row(table: Table, record: &Record<'_>, number: u64) {
    let parsed = match table {
        Table::Activity => ActivityRow::parse(record).map(|row| {
            assert!(row.at.is_in_range());
            assert_eq!(row.status.as_str(), record.fields[1]);
            row.store_id
        }),
        Table::Hours => HoursRow::parse(record).map(|row| {
            assert!(Interval::new(row.day, row.start_us, row.end_us).is_some(), "{row:?}");
            row.store_id
        }),
        Table::Closures => ClosureRow::parse(record).map(|row| {
            assert!(Closure::new(row.from_us, row.to_us).is_some(), "{row:?}");
            assert!(row.reason.len() <= REASON_BYTES_MAX && !row.reason.chars().any(char::is_control));
            assert!(chrono_reads(record.fields[1], row.from_us), "{row:?}");
            if !record.fields[2].is_empty() {
                assert!(chrono_reads(record.fields[2], row.to_us), "{row:?}");
            }
            row.store_id
        }),
        Table::Timezones => TimezoneRow::parse(record).map(|row| {
            assert_eq!(row.zone.name(), record.fields[1]);
            row.store_id
        }),
    };
    match parsed {
        Ok(store_id) => {
            assert_eq!(check_store_id(store_id), Ok(()));
            assert_eq!(store_id, record.fields[0]);
        }
        Err(bad) => {
            assert!(bad.column < table.columns().len());
            check_reject(&record.reject(bad), number);
        }
    }
}

/// Whether a wall time is what chrono makes of its text.
fn chrono_reads(text: &str, wall_us: i64) -> bool {
    let (text, next_day_us) = match text.split_once("24:00") {
        Some((date, _)) => (format!("{date}00:00"), DAY_US),
        None => (text.to_owned(), 0),
    };
    let date = NaiveDate::parse_from_str(&text, "%Y-%m-%d").map(|date| date.and_time(NaiveTime::MIN));
    let forms = [
        "%Y-%m-%d %H:%M",
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%dT%H:%M:%S%.f",
    ];
    let mut times = forms
        .iter()
        .filter_map(|form| NaiveDateTime::parse_from_str(&text, form).ok());
    let read = date.ok().or_else(|| times.next());
    read.is_some_and(|time| time.and_utc().timestamp_micros() + next_day_us == wall_us)
}

/// A reject says where and what in one short line that can be shown to anybody.
fn check_reject(reject: &Reject, number: u64) {
    assert_eq!(reject.line, number);
    let text = format!("{reject} {}", reject.row);
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.len() < 16_384, "{} bytes", text.len());
    assert!(!reject.expected.is_empty() && !reject.found.is_empty() && !reject.field.is_empty());
    if let Some(store_id) = &reject.store_id {
        assert_eq!(check_store_id(store_id), Ok(()));
    }
}
