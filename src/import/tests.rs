//! Bytes to typed rows, without a database: every kind of bad input, and any bytes at all.

use proptest::prelude::*;

use super::record::{LINE_BYTES_MAX, Record, Records};
use super::row::{ActivityRow, ClosureRow, HoursRow, TimezoneRow};
use super::{ImportError, Reject, Table};

const ACTIVITY: &str = "store_id,status,timestamp_utc\n";
const HOURS: &str = "store_id,day,start_time_local,end_time_local\n";
const CLOSURES: &str = "store_id,from,to,reason\n";
const ZONES: &str = "store_id,timezone_str\n";

/// The rows of a file as text, and its rejects.
fn parse(table: Table, bytes: &[u8]) -> (Vec<String>, Vec<Reject>) {
    let (mut rows, mut rejects) = (Vec::new(), Vec::new());
    let mut records = Records::open(bytes, "f.csv", table).unwrap();
    while let Some(record) = records.next_record().unwrap() {
        match record.and_then(|record| row_text(table, &record)) {
            Ok(row) => rows.push(row),
            Err(reject) => rejects.push(*reject),
        }
    }
    assert_eq!(records.bytes_read(), bytes.len() as u64, "all of the file was read");
    (rows, rejects)
}

fn row_text(table: Table, record: &Record<'_>) -> Result<String, Box<Reject>> {
    let text = match table {
        Table::Activity => ActivityRow::parse(record).map(|r| format!("{} {} {}", r.store_id, r.status, r.at)),
        Table::Hours => {
            HoursRow::parse(record).map(|r| format!("{} {} {} {}", r.store_id, r.day, r.start_us, r.end_us))
        }
        Table::Closures => {
            let wall = crate::time::Timestamp::from_micros;
            ClosureRow::parse(record)
                .map(|r| format!("{} {} {} {}", r.store_id, wall(r.from_us), wall(r.to_us), r.reason))
        }
        Table::Timezones => TimezoneRow::parse(record).map(|r| format!("{} {}", r.store_id, r.zone)),
    };
    text.map_err(|bad| record.reject(bad))
}

/// The only reject of a file with this one row.
fn reject(table: Table, header: &str, row: impl AsRef<[u8]>) -> Reject {
    let (rows, mut rejects) = parse(table, &[header.as_bytes(), row.as_ref(), b"\n"].concat());
    assert!(rows.is_empty() && rejects.len() == 1, "{rows:?} {rejects:?}");
    let reject = rejects.remove(0);
    assert_eq!((reject.file.as_str(), reject.line), ("f.csv", 2));
    reject
}

fn open_error(table: Table, text: &str) -> String {
    Records::open(text.as_bytes(), "f.csv", table)
        .err()
        .unwrap()
        .to_string()
}

#[test]
fn columns_come_in_any_order_and_under_either_name() {
    let (rows, rejects) = parse(
        Table::Hours,
        b"\xef\xbb\xbfend_time_local,\"dayOfWeek\",note,store_id,start_time_local\r\n\
          \r\n23:59,0,,a,09:00\r\n\"24:00:00\",6,\"x, \"\"y\"\"\",\"b,c\",\"22:30:00.25\"\r\n\n\n",
    );
    assert_eq!(rows, ["a 0 32400000000 86340000000", "b,c 6 81000250000 86400000000"]);
    assert!(rejects.is_empty(), "{rejects:?}");

    let (rows, _) = parse(
        Table::Timezones,
        b"timezone_str,store_id\nAsia/Beirut,8139926242460185114",
    );
    assert_eq!(rows, ["8139926242460185114 Asia/Beirut"], "the last line needs no end");

    let records = Records::open(&b"x,store_id,timezone_str,\n"[..], "f.csv", Table::Timezones).unwrap();
    assert_eq!(records.ignored_columns(), ["\"x\"", "nothing"]);
}

#[test]
fn closures_are_local_dates_and_times() {
    let (rows, rejects) = parse(
        Table::Closures,
        b"reason,closed_to,from,store_id\n,,2026-12-25,*\nx,2026-12-25 24:00,2026-12-24T14:30,a\n\
          \"y, z\",2026-12-25 23:59:59,2026-12-25 00:00:00.000001,b\n,2100-01-01,2000-01-01,c\n,,2099-12-31,d\n",
    );
    assert!(rejects.is_empty(), "{rejects:?}");
    assert_eq!(
        rows,
        [
            "* 2026-12-25T00:00:00Z 2026-12-26T00:00:00Z ",
            "a 2026-12-24T14:30:00Z 2026-12-26T00:00:00Z x",
            "b 2026-12-25T00:00:00.000001Z 2026-12-25T23:59:59Z y, z",
            "c 2000-01-01T00:00:00Z 2100-01-01T00:00:00Z ",
            "d 2099-12-31T00:00:00Z 2100-01-01T00:00:00Z ",
        ]
    );
    let error = open_error(Table::Closures, "store_id,from,reason\n");
    assert!(
        error.contains("no column closed_to; expected a header with the columns store_id, closed_from (or from), closed_to (or to), reason"),
        "{error}"
    );
    assert!(
        open_error(Table::Closures, "store_id,from,closed_from,to,reason\n")
            .contains("column closed_from appears twice")
    );
}

#[test]
fn a_header_that_cannot_be_used_says_what_was_expected_and_found() {
    for empty in ["", "\n\r\n", "\u{feff}"] {
        let error = open_error(Table::Hours, empty);
        assert!(error.contains("f.csv: line 1: the file is empty"), "{error}");
        assert!(
            error.contains("store_id, day (or dayOfWeek), start_time_local, end_time_local"),
            "{error}"
        );
    }
    let error = open_error(Table::Activity, "store_id,Status\0,timestamp_utc\na,active,x\n");
    assert!(error.contains("f.csv: line 1: no column status; expected"), "{error}");
    assert!(error.contains("found store_id,Status\\0,timestamp_utc"), "{error}");
    let error = open_error(Table::Hours, "store_id,day,dayOfWeek,start_time_local,end_time_local\n");
    assert!(error.contains("column day appears twice"), "{error}");
    let long = "x".repeat(1 << 20);
    assert!(open_error(Table::Activity, &long).len() < 1_000);
    let latin1 = Records::open(&b"store_id,timezone_str,caf\xe9\n"[..], "f.csv", Table::Timezones);
    assert!(latin1.is_ok(), "a column of no use may be called anything");
}

#[test]
fn each_bad_value_is_rejected_with_its_field_and_what_was_expected() {
    let at = "2023-01-22 12:00:00 UTC";
    for (row, field, found) in [
        (format!("s,up,{at}"), "status", "\"up\""),
        (format!("s,Active,{at}"), "status", "\"Active\""),
        (format!("s,,{at}"), "status", "nothing"),
        (format!(",active,{at}"), "store_id", "nothing"),
        (format!("s\0,active,{at}"), "store_id", "\"s\\0\""),
        (format!("s\t,active,{at}"), "store_id", "\"s\\t\""),
        (format!("s,active\u{1b},{at}"), "status", "\"active\\u{1b}\""),
        (
            "s,active,2023-01-22 12:00:00".into(),
            "timestamp_utc",
            "\"2023-01-22 12:00:00\"",
        ),
        (
            "s,active,2023-02-30 12:00:00 UTC".into(),
            "timestamp_utc",
            "\"2023-02-30 12:00:00 UTC\"",
        ),
        (
            "s,active,1999-12-31 12:00:00 UTC".into(),
            "timestamp_utc",
            "\"1999-12-31 12:00:00 UTC\"",
        ),
        ("s,active,infinity".into(), "timestamp_utc", "\"infinity\""),
        ("s,active".into(), "row", "2"),
        (format!("s,active,{at},more"), "row", "4"),
        ("s".into(), "row", "1"),
        (format!("s,\"active,{at}"), "row", "none"),
        (format!("s,\"active\"x,{at}"), "row", "more text"),
    ] {
        let reject = reject(Table::Activity, ACTIVITY, &row);
        assert_eq!((reject.field, reject.found.as_str()), (field, found), "{row}");
        assert!(reject.reason().starts_with("expected "), "{reject}");
    }
    for (row, field) in [
        ("s,7,09:00,17:00", "day"),
        ("s,-1,09:00,17:00", "day"),
        ("s,,09:00,17:00", "day"),
        ("s,00,09:00,17:00", "day"),
        ("s,Mon,09:00,17:00", "day"),
        ("s,0,,17:00", "start_time_local"),
        ("s,0,24:00,17:00", "start_time_local"),
        ("s,0,9:00,17:00", "start_time_local"),
        ("s,0,09:00,", "end_time_local"),
        ("s,0,09:00,24:00:01", "end_time_local"),
        ("s,0,09:00,24:00:00.000001", "end_time_local"),
        ("s,0,09:00,17:60", "end_time_local"),
        ("s,0,09:00,17:00:60", "end_time_local"),
        ("s,0,09:00,17:00:00.", "end_time_local"),
        ("s,0,09:00,17:00.5", "end_time_local"),
        ("s,0,09:00,17:00:00.1234567", "end_time_local"),
        ("s,0,09:00,-1:00", "end_time_local"),
        ("s,0,09:00,5:00 PM", "end_time_local"),
        ("s,0,09:00", "row"),
    ] {
        assert_eq!(reject(Table::Hours, HOURS, row).field, field, "{row}");
    }
    for (row, field) in [
        ("s,,2026-12-26,x", "closed_from"),
        ("s,2026-12-25Z,2026-12-26,x", "closed_from"),
        ("s,2026-12-25 10:00:00+01:00,2026-12-26,x", "closed_from"),
        ("s,2026-12-25  10:00,2026-12-26,x", "closed_from"),
        ("s,2026-12-25 9:00,2026-12-26,x", "closed_from"),
        ("s,25.12.2026,2026-12-26,x", "closed_from"),
        ("s,2026-12-25 25:00,2026-12-27,x", "closed_from"),
        ("s,2026-02-29,2026-12-26,x", "closed_from"),
        ("s,1999-12-31,2026-12-26,x", "closed_from"),
        ("s,1999-12-31,,x", "closed_from"),
        ("s,2100-01-01,,x", "closed_from"),
        ("s,2099-12-31 24:00,2100-01-01,x", "closed_from"),
        ("s,2026-12-25,2026-12-25,x", "closed_to"),
        ("s,2026-12-25,2026-12-24,x", "closed_to"),
        ("s,2026-12-25 00:00,,x", "closed_to"),
        ("s,2026-12-25,tomorrow,x", "closed_to"),
        ("s,2026-12-25,2100-01-01 00:00:00.000001,x", "closed_to"),
        ("s,2026-12-25,,a\tb", "reason"),
        (",2026-12-25,,x", "store_id"),
        ("s,2026-12-25,", "row"),
    ] {
        assert_eq!(reject(Table::Closures, CLOSURES, row).field, field, "{row}");
    }
    let long = format!("s,2026-12-25,,{}", "x".repeat(201));
    assert_eq!(reject(Table::Closures, CLOSURES, long).field, "reason");
    for zone in ["", "America/Chicaco", "CST6", "america/chicago", "US Central", "+02:00"] {
        assert_eq!(
            reject(Table::Timezones, ZONES, format!("s,{zone}")).field,
            "timezone_str",
            "{zone}"
        );
    }
}

#[test]
fn a_reject_says_whose_row_it_is_if_that_can_be_read() {
    assert_eq!(
        reject(Table::Hours, HOURS, "s,7,09:00,17:00").store_id.as_deref(),
        Some("s")
    );
    assert_eq!(reject(Table::Hours, HOURS, ",7,09:00,17:00").store_id, None);
    assert_eq!(reject(Table::Hours, HOURS, "s,7").store_id, None);
}

#[test]
fn bytes_that_are_no_text_cost_their_own_line_only() {
    let huge = "x".repeat(1 << 20);
    let text = format!(
        "store_id,timezone_str\na,Asia/Tokyo\n{huge},Asia/Tokyo\nb,Asia/Tokyo\n\"c,Asia/Tokyo\nd,Asia/Tokyo\ne@,Asia/Tokyo\nf,Asia/Tokyo\n"
    );
    let bytes: Vec<u8> = text.bytes().map(|b| if b == b'@' { 0xff } else { b }).collect();
    let (rows, rejects) = parse(Table::Timezones, &bytes);
    assert_eq!(rows, ["a Asia/Tokyo", "b Asia/Tokyo", "d Asia/Tokyo", "f Asia/Tokyo"]);
    let places: Vec<_> = rejects.iter().map(|r| (r.line, r.field, r.found.as_str())).collect();
    assert_eq!(
        places,
        [
            (3, "row", "a longer one"),
            (5, "row", "none"),
            (7, "row", "an invalid byte at byte 2 of the row")
        ]
    );
    assert!(rejects.iter().all(|reject| reject.row.len() < 2_500));
    // Long, but within a line's limit: the id itself is refused.
    let long = reject(Table::Timezones, ZONES, format!("{},Asia/Tokyo", "x".repeat(60_000)));
    assert_eq!((long.field, long.store_id), ("store_id", None));
}

#[test]
fn a_line_of_the_longest_length_is_read_whole() {
    let line = format!("s,{}\n", "z".repeat(LINE_BYTES_MAX - 3));
    assert_eq!(reject(Table::Timezones, ZONES, line.trim_end()).field, "timezone_str");
    let line = format!("s,{}", "z".repeat(LINE_BYTES_MAX - 2));
    assert_eq!(reject(Table::Timezones, ZONES, line).field, "row");
}

#[test]
fn a_reader_that_fails_is_an_error_with_the_line() {
    struct Torn;
    impl std::io::Read for Torn {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
    }
    let start = &b"store_id,timezone_str\ns,Asia/Tokyo\n"[..];
    let torn = std::io::BufReader::new(std::io::Read::chain(start, Torn));
    let mut records = Records::open(torn, "f.csv", Table::Timezones).unwrap();
    assert!(records.next_record().unwrap().unwrap().is_ok());
    assert!(matches!(records.next_record(), Err(ImportError::Read { line: 2, .. })));
}

/// A failure prints the bytes that failed, minimised.
mod properties {
    use super::*;

    /// A line that is no blank one, of bytes that matter to a CSV or of any.
    fn garbage() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(b'"'), Just(b','), Just(b'\r'), Just(0_u8), any::<u8>()];
        prop::collection::vec(byte, 1..40).prop_map(|mut line| {
            line.retain(|&b| b != b'\n');
            line.insert(0, b'#');
            line
        })
    }

    proptest! {
        #[test]
        fn any_bytes_give_rows_or_rejects(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            for (table, header) in [(Table::Activity, ACTIVITY), (Table::Hours, HOURS), (Table::Closures, CLOSURES), (Table::Timezones, ZONES)] {
                if let Ok(mut records) = Records::open(&bytes[..], "f.csv", table) {
                    while records.next_record().unwrap().is_some() {}
                }
                parse(table, &[header.as_bytes(), &bytes].concat());
            }
        }

        #[test]
        fn good_rows_survive_between_garbage(lines in prop::collection::vec(prop::option::of(garbage()), 1..30)) {
            let mut bytes = ACTIVITY.as_bytes().to_vec();
            let mut expected = Vec::new();
            for (index, line) in lines.iter().enumerate() {
                if let Some(garbage) = line {
                    bytes.extend(garbage);
                } else {
                    bytes.extend(format!("s{index},inactive,2023-01-22 12:09:39.5 UTC").bytes());
                    expected.push(format!("s{index} inactive 2023-01-22T12:09:39.500Z"));
                }
                bytes.extend(if index % 2 == 0 { &b"\n"[..] } else { b"\r\n" });
            }
            let (rows, rejects) = parse(Table::Activity, &bytes);
            prop_assert_eq!(rows, expected);
            let bad = lines.iter().enumerate().filter(|(_, line)| line.is_some());
            let places: Vec<u64> = bad.map(|(index, _)| index as u64 + 2).collect();
            prop_assert_eq!(rejects.iter().map(|reject| reject.line).collect::<Vec<_>>(), places);
        }

        #[test]
        fn quoting_gives_the_text_back(id in "[^\\p{Cc}]{1,20}") {
            let row = format!("\"{}\",\"Asia/Tokyo\"\n", id.replace('"', "\"\""));
            let (rows, _) = parse(Table::Timezones, (ZONES.to_owned() + &row).as_bytes());
            prop_assert_eq!(rows, [format!("{id} Asia/Tokyo")]);
        }
    }
}
