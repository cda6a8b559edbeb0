//! A snapshot as CSV bytes.
//!
//! Numbers are integers of microseconds up to the two decimals of the text; the same snapshot as of the
//! same instant gives the same bytes. Stores come in chunks, and chunks are rendered in parallel.

use std::fmt;
use std::ops::Range;

use crate::rollup::{Plan, Snapshot, Sums};
use crate::time::{HOUR_US, MINUTE_US, Timestamp};
use crate::window::{ClosedTime, Windows};

/// The first line of every report.
pub const HEADER: &str = "store_id,uptime_last_hour,uptime_last_day,uptime_last_week,\
                          downtime_last_hour,downtime_last_day,downtime_last_week\n";

/// Bytes of a typical row, to size the buffer.
const ROW_BYTES: usize = 64;

/// Fewer stores than this are not worth another thread.
const STORES_PER_THREAD_MIN: usize = 4_000;

/// The snapshot's memory does not go back far enough for this instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeforeMemory {
    /// The instant that was asked for.
    pub as_of: Timestamp,
}

impl fmt::Display for BeforeMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "memory does not reach back to the windows of a report as of {}",
            self.as_of
        )
    }
}

impl std::error::Error for BeforeMemory {}

/// Renders a report. Blocking; a few milliseconds for ten thousand stores.
///
/// # Errors
/// [`BeforeMemory`] if the windows begin before what the snapshot holds; the ledger has it then.
pub fn render(
    snapshot: &Snapshot,
    as_of: Timestamp,
    windows: Windows,
    closed: ClosedTime,
) -> Result<Vec<u8>, BeforeMemory> {
    if !snapshot.reaches(as_of) {
        return Err(BeforeMemory { as_of });
    }
    let plan = snapshot.plan(as_of, windows);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let parts = (snapshot.len() / STORES_PER_THREAD_MIN).clamp(1, threads);
    let mut csv = HEADER.as_bytes().to_vec();
    if parts == 1 {
        csv.reserve(snapshot.len() * ROW_BYTES);
        render_rows(snapshot, &plan, closed, 0..snapshot.len(), &mut csv);
        return Ok(csv);
    }
    let per_part = snapshot.len().div_ceil(parts);
    let rendered = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..parts)
            .map(|part| {
                let plan = &plan;
                let range = part * per_part..((part + 1) * per_part).min(snapshot.len());
                scope.spawn(move || {
                    let mut rows = Vec::with_capacity(range.len() * ROW_BYTES);
                    render_rows(snapshot, plan, closed, range, &mut rows);
                    rows
                })
            })
            .collect();
        workers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect::<Vec<_>>()
    });
    for rows in rendered {
        match rows {
            Ok(rows) => csv.extend_from_slice(&rows),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    Ok(csv)
}

fn render_rows(snapshot: &Snapshot, plan: &Plan, closed: ClosedTime, range: Range<usize>, csv: &mut Vec<u8>) {
    for store in snapshot.stores().skip(range.start).take(range.len()) {
        if let Some(sums) = store.sums(plan, closed) {
            push_row(store.id, sums, csv);
        }
    }
}

fn push_row(id: &str, Sums { down_us, whole_us }: Sums, csv: &mut Vec<u8>) {
    push_id(id, csv);
    let [down_hour, down_day, down_week] = down_us;
    let [hour, day, week] = whole_us;
    // Units are constants, so that each division is a multiplication.
    push_decimal::<MINUTE_US>(hour - down_hour, csv);
    push_decimal::<HOUR_US>(day - down_day, csv);
    push_decimal::<HOUR_US>(week - down_week, csv);
    push_decimal::<MINUTE_US>(down_hour, csv);
    push_decimal::<HOUR_US>(down_day, csv);
    push_decimal::<HOUR_US>(down_week, csv);
    csv.push(b'\n');
}

/// A separator and two decimals, half away from zero. `us` is never negative: downtime lies inside its window.
fn push_decimal<const UNIT_US: i64>(us: i64, csv: &mut Vec<u8>) {
    let hundredths = (us * 100 + UNIT_US / 2) / UNIT_US;
    let mut rest = u32::try_from(hundredths).unwrap_or(0);
    // From the back: two decimals, the point, at least one digit; ten digits are all that a u32 has.
    let mut text = [0; 12];
    let mut start = text.len();
    let mut put = |byte: u8| {
        start -= 1;
        if let Some(place) = text.get_mut(start) {
            *place = byte;
        }
    };
    let mut digit = || {
        let last = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        (last, rest)
    };
    put(digit().0);
    put(digit().0);
    put(b'.');
    loop {
        let (byte, rest) = digit();
        put(byte);
        if rest == 0 {
            break;
        }
    }
    put(b',');
    csv.extend_from_slice(text.get(start..).unwrap_or_default());
}

/// A text cell. A spreadsheet runs what starts like a formula, so such an id gets a quote in front;
/// separators and quotes are quoted by RFC 4180.
fn push_id(id: &str, csv: &mut Vec<u8>) {
    let formula = matches!(id.bytes().next(), Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r'));
    let neutral = if formula { "'" } else { "" };
    if id.bytes().any(|b| matches!(b, b',' | b'"' | b'\n' | b'\r')) {
        csv.push(b'"');
        csv.extend_from_slice(neutral.as_bytes());
        csv.extend_from_slice(id.replace('"', "\"\"").as_bytes());
        csv.push(b'"');
    } else {
        csv.extend_from_slice(neutral.as_bytes());
        csv.extend_from_slice(id.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal<const UNIT_US: i64>(us: i64) -> String {
        let mut csv = Vec::new();
        push_decimal::<UNIT_US>(us, &mut csv);
        String::from_utf8(csv).unwrap()
    }

    #[test]
    fn two_decimals_half_away_from_zero() {
        assert_eq!(decimal::<HOUR_US>(0), ",0.00");
        assert_eq!(decimal::<HOUR_US>(HOUR_US), ",1.00");
        assert_eq!(decimal::<HOUR_US>(18_000_000), ",0.01"); // half a hundredth of an hour
        assert_eq!(decimal::<HOUR_US>(17_999_999), ",0.00");
        assert_eq!(decimal::<MINUTE_US>(60 * MINUTE_US - 1), ",60.00");
        assert_eq!(decimal::<HOUR_US>(168 * HOUR_US), ",168.00");
        assert_eq!(decimal::<HOUR_US>(1_000_000 * HOUR_US), ",1000000.00");
    }

    #[test]
    fn an_id_is_never_a_formula_and_never_breaks_a_row() {
        let id = |text| {
            let mut csv = Vec::new();
            push_id(text, &mut csv);
            String::from_utf8(csv).unwrap()
        };
        assert_eq!(id("8419537941919820732"), "8419537941919820732");
        assert_eq!(id("=cmd|' /C calc'!A0"), "'=cmd|' /C calc'!A0");
        assert_eq!(id("-1"), "'-1");
        assert_eq!(id("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(id("@a,b"), "\"'@a,b\"");
    }
}
