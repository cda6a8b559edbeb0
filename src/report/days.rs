//! A report over a stretch of local days: one row for each store.

use std::fmt::Write as _;

use super::Format;
use super::csv::{Csv, push_decimal, push_id};
use crate::rollup::{OpenDown, Snapshot};
use crate::time::HOUR_US;

/// The first line of a report over days.
pub const DAYS_HEADER: &str = "store_id,uptime_hours,downtime_hours,open_hours,uptime_percent\n";

/// Thousandths of a percent in the whole.
const WHOLE: i64 = 100_000;

/// Renders such a report. `sums`: of each store of the snapshot, in the order of the ids.
///
/// All is inside opening hours. The percentage is cut off, not rounded: 100.000 is said only where there was no downtime at
/// all; nothing is said where there was no opening time.
pub fn render_days(snapshot: &Snapshot, sums: &[OpenDown], format: Format) -> Csv {
    let mut out = Vec::with_capacity(sums.len() * 64);
    let mut separator = "\n";
    match format {
        Format::Csv => out.extend_from_slice(DAYS_HEADER.as_bytes()),
        Format::Json => out.push(b'['),
    }
    for (store, &sum) in snapshot.stores().zip(sums) {
        match format {
            Format::Csv => {
                push_id(store.id, &mut out);
                push_numbers(sum, &mut out);
                out.push(b'\n');
            }
            Format::Json => {
                out.extend_from_slice(separator.as_bytes());
                separator = ",\n";
                push_object(store.id, sum, &mut out);
            }
        }
    }
    if format == Format::Json {
        out.extend_from_slice(b"\n]\n");
    }
    Csv::from(out)
}

/// Four numbers, each after a separator.
fn push_numbers(sum: OpenDown, out: &mut Vec<u8>) {
    push_decimal::<HOUR_US>(sum.up_us(), out);
    push_decimal::<HOUR_US>(sum.down_us, out);
    push_decimal::<HOUR_US>(sum.open_us, out);
    let mut percent = String::from(",");
    if sum.open_us > 0 {
        // A century of microseconds and five digits are more than 64 bits hold.
        let parts = i128::from(sum.up_us()) * i128::from(WHOLE) / i128::from(sum.open_us);
        // Writing to a String cannot fail.
        let _ = write!(percent, "{}.{:03}", parts / 1000, parts % 1000);
    }
    out.extend_from_slice(percent.as_bytes());
}

/// A row as an object with the names of the columns. Numbers are those of the CSV, digit by digit.
fn push_object(id: &str, sum: OpenDown, out: &mut Vec<u8>) {
    let mut numbers = Vec::with_capacity(64);
    push_numbers(sum, &mut numbers);
    out.extend_from_slice(br#"{"store_id":"#);
    // A text is JSON, always.
    out.extend_from_slice(&serde_json::to_vec(id).unwrap_or_default());
    let names = DAYS_HEADER.trim_ascii_end().split(',').skip(1);
    for (name, value) in names.zip(numbers.split(|&byte| byte == b',').skip(1)) {
        out.extend_from_slice(format!(",\"{name}\":").as_bytes());
        out.extend_from_slice(if value.is_empty() { b"null" } else { value });
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(open_us: i64, down_us: i64) -> String {
        let mut out = Vec::new();
        push_numbers(OpenDown { open_us, down_us }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_percentage_is_never_better_than_it_was() {
        assert_eq!(numbers(0, 0), ",0.00,0.00,0.00,");
        assert_eq!(numbers(10 * HOUR_US, 0), ",10.00,0.00,10.00,100.000");
        assert_eq!(numbers(8760 * HOUR_US, 1), ",8760.00,0.00,8760.00,99.999");
        assert_eq!(numbers(3 * HOUR_US, 2 * HOUR_US), ",1.00,2.00,3.00,33.333");
        let century = 876_000 * HOUR_US;
        assert_eq!(numbers(century, century), ",0.00,876000.00,876000.00,0.000");
    }

    #[test]
    fn an_object_says_what_the_row_says() {
        let sum = OpenDown {
            open_us: 2 * HOUR_US,
            down_us: HOUR_US,
        };
        let object = |sum| {
            let mut out = Vec::new();
            push_object("a\"b", sum, &mut out);
            serde_json::from_slice::<serde_json::Value>(&out).unwrap()
        };
        let expected = serde_json::json!({"store_id": "a\"b", "uptime_hours": 1.0, "downtime_hours": 1.0,
                                          "open_hours": 2.0, "uptime_percent": 50.0});
        assert_eq!(object(sum), expected);
        assert!(object(OpenDown::default())["uptime_percent"].is_null());
    }
}
