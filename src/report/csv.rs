//! A snapshot as the bytes of a report: CSV, or the same as JSON.
//!
//! Numbers are integers of microseconds up to the two decimals of the text; the same snapshot as of the
//! same instant gives the same bytes. Stores come in chunks, and chunks are rendered in parallel.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, mpsc};

use bytes::Bytes;

use super::{Format, ReportRequest};
use crate::rollup::{ObservedWindows, Snapshot, Sums};
use crate::time::{HOUR_US, MINUTE_US, Timestamp};
use crate::window::{ClosedTime, Windows};

/// The first line of every report.
pub const HEADER: &str = "store_id,uptime_last_hour,uptime_last_day,uptime_last_week,\
                          downtime_last_hour,downtime_last_day,downtime_last_week\n";

/// The first line of a report with extended columns.
pub const EXTENDED_HEADER: &str = "store_id,uptime_last_hour,uptime_last_day,uptime_last_week,\
                                   downtime_last_hour,downtime_last_day,downtime_last_week,last_observation_utc,\
                                   observations_last_hour,observations_last_day,observations_last_week,\
                                   coverage_last_hour,coverage_last_day,coverage_last_week\n";

/// The column that is an instant.
const LAST_OBSERVATION: &str = "last_observation_utc";

/// Bytes of a typical row, to size the buffer.
const ROW_BYTES: usize = 64;

/// Stores that a thread renders at a time, in about 200 us: no thread waits much longer for another.
const STORES_PER_PART: usize = 2_000;

/// Threads that can run at once. Remembered: asking makes the system read files.
static THREADS: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// The bytes of a report, in the pieces that they were rendered in. Nothing that takes them needs them in one; putting them
/// together would copy a report of tens of megabytes once more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Csv(Vec<Bytes>);

impl Csv {
    /// Number of bytes in all.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|piece| piece.len() as u64).sum()
    }

    /// The pieces, in their order. Each ends with the end of a row.
    pub fn pieces(&self) -> &[Bytes] {
        &self.0
    }

    /// All in one.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.concat()
    }
}

impl From<Vec<u8>> for Csv {
    fn from(bytes: Vec<u8>) -> Self {
        Csv(vec![bytes.into()])
    }
}

impl IntoIterator for Csv {
    type Item = Bytes;
    type IntoIter = std::vec::IntoIter<Bytes>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

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
) -> Result<Csv, BeforeMemory> {
    if !snapshot.reaches(as_of) {
        return Err(BeforeMemory { as_of });
    }
    let (snapshot, plan) = (snapshot.clone(), snapshot.plan(as_of, windows));
    Ok(in_parts(snapshot.len(), HEADER, move |places, csv| {
        for store in snapshot.stores_in(places) {
            if let Some(sums) = store.sums(&plan, closed) {
                push_row(store.id, sums, csv);
            }
        }
    }))
}

/// Renders a report in another form: extended by what was observed of each store, by its place in the order of the ids, or
/// as JSON, or both. Blocking.
///
/// # Errors
/// As [`render`].
pub fn render_as(
    snapshot: &Snapshot,
    as_of: Timestamp,
    request: ReportRequest,
    observed: Option<Vec<ObservedWindows>>,
) -> Result<Csv, BeforeMemory> {
    if request.format == Format::Csv && observed.is_none() {
        return render(snapshot, as_of, request.windows, request.closed);
    }
    if !snapshot.reaches(as_of) {
        return Err(BeforeMemory { as_of });
    }
    let (snapshot, plan) = (snapshot.clone(), snapshot.plan(as_of, request.windows));
    let is_json = request.format == Format::Json;
    let header = match (request.format, &observed) {
        (Format::Json, _) => "[",
        (Format::Csv, Some(_)) => EXTENDED_HEADER,
        (Format::Csv, None) => HEADER,
    };
    let mut file = in_parts(snapshot.len(), header, move |places, out| {
        let observed = |place: usize| observed.as_ref().and_then(|all| all.get(place));
        for (place, store) in (places.start..).zip(snapshot.stores_in(places)) {
            let Some(sums) = store.sums(&plan, request.closed) else {
                continue;
            };
            if is_json {
                let separator = if place == 0 { "\n" } else { ",\n" };
                out.extend_from_slice(separator.as_bytes());
                push_object(store.id, sums, observed(place), out);
            } else {
                push_id(store.id, out);
                push_sums(sums, out);
                if let Some(observed) = observed(place) {
                    push_observed(observed, out);
                }
                out.push(b'\n');
            }
        }
    });
    if is_json {
        file.0.push(Bytes::from_static(b"\n]\n"));
    }
    Ok(file)
}

/// Renders the rows of `stores` stores in parts, on as many threads as there are. `rows` appends those at some places of
/// the order of their ids.
fn in_parts(
    stores: usize,
    header: &'static str,
    rows: impl Fn(Range<usize>, &mut Vec<u8>) + Send + Sync + 'static,
) -> Csv {
    let work = Arc::new(Work {
        stores,
        header,
        rows,
        taken: AtomicUsize::new(0),
    });
    // The first one has the header, also where there are no stores.
    let parts = stores.div_ceil(STORES_PER_PART).max(1);
    let (done, rendered) = mpsc::channel();
    for _ in 1..(*THREADS).min(parts) {
        let (work, done) = (Arc::clone(&work), done.clone());
        std::thread::spawn(move || work.render_parts(|part, rows| drop(done.send((part, rows)))));
    }
    drop(done);
    let mut rows: Vec<Option<Vec<u8>>> = vec![None; parts];
    let mut place = |part: usize, part_rows| {
        if let Some(place) = rows.get_mut(part) {
            *place = Some(part_rows);
        }
    };
    let mut own = 0;
    work.render_parts(|part, part_rows| {
        place(part, part_rows);
        own += 1;
    });
    // Nobody waits for a helper that has not begun: there is nothing left for it to take. Fewer come if one broke off.
    for (part, part_rows) in rendered.iter().take(parts.saturating_sub(own)) {
        place(part, part_rows);
    }
    let rows = rows.into_iter().enumerate();
    let pieces = rows.map(|(part, part_rows)| part_rows.unwrap_or_else(|| work.render(part)).into());
    Csv(pieces.collect())
}

/// A report that is rendered by several threads, each taking the next part that nobody has taken.
struct Work<F> {
    stores: usize,
    header: &'static str,
    rows: F,
    /// Parts taken so far.
    taken: AtomicUsize,
}

impl<F: Fn(Range<usize>, &mut Vec<u8>)> Work<F> {
    /// Renders parts until all are taken.
    fn render_parts(&self, mut done: impl FnMut(usize, Vec<u8>)) {
        loop {
            let part = self.taken.fetch_add(1, Ordering::Relaxed);
            if part * STORES_PER_PART >= self.stores {
                return;
            }
            done(part, self.render(part));
        }
    }

    fn render(&self, part: usize) -> Vec<u8> {
        let mut csv = Vec::with_capacity(STORES_PER_PART * ROW_BYTES);
        if part == 0 {
            csv.extend_from_slice(self.header.as_bytes());
        }
        let first = part * STORES_PER_PART;
        (self.rows)(first..first + STORES_PER_PART, &mut csv);
        csv
    }
}

fn push_row(id: &str, sums: Sums, csv: &mut Vec<u8>) {
    push_id(id, csv);
    push_sums(sums, csv);
    csv.push(b'\n');
}

/// Six numbers, each after a separator.
fn push_sums(Sums { down_us, whole_us }: Sums, csv: &mut Vec<u8>) {
    let [down_hour, down_day, down_week] = down_us;
    let [hour, day, week] = whole_us;
    // Units are constants, so that each division is a multiplication.
    push_decimal::<MINUTE_US>(hour - down_hour, csv);
    push_decimal::<HOUR_US>(day - down_day, csv);
    push_decimal::<HOUR_US>(week - down_week, csv);
    push_decimal::<MINUTE_US>(down_hour, csv);
    push_decimal::<HOUR_US>(down_day, csv);
    push_decimal::<HOUR_US>(down_week, csv);
}

/// How well a store was observed: when last, how often, and how much of its opening time is covered by that, with four
/// decimals. Nothing stands where there is nothing to say.
fn push_observed(observed: &ObservedWindows, csv: &mut Vec<u8>) {
    let coverages = observed.covered_us.iter().zip(observed.open_us);
    let last = observed.last.map(|at| at.to_string()).unwrap_or_default();
    let mut text = format!(",{last}");
    // Writing to a String cannot fail.
    for count in observed.count {
        let _ = write!(text, ",{count}");
    }
    for (&covered_us, open_us) in coverages {
        if open_us > 0 {
            let parts = (covered_us * 10_000 + open_us / 2) / open_us;
            let _ = write!(text, ",{}.{:04}", parts / 10_000, parts % 10_000);
        } else {
            text.push(',');
        }
    }
    csv.extend_from_slice(text.as_bytes());
}

/// A row as an object with the names of the columns. Numbers are those of the CSV, digit by digit.
fn push_object(id: &str, sums: Sums, observed: Option<&ObservedWindows>, json: &mut Vec<u8>) {
    let mut numbers = Vec::with_capacity(2 * ROW_BYTES);
    push_sums(sums, &mut numbers);
    if let Some(observed) = observed {
        push_observed(observed, &mut numbers);
    }
    json.extend_from_slice(br#"{"store_id":"#);
    // A text is JSON, always.
    let id = serde_json::to_vec(id).unwrap_or_default();
    json.extend_from_slice(&id);
    let names = EXTENDED_HEADER.trim_ascii_end().split(',').skip(1);
    for (name, value) in names.zip(numbers.split(|&byte| byte == b',').skip(1)) {
        json.extend_from_slice(format!(",\"{name}\":").as_bytes());
        match (value, name) {
            (b"", _) => json.extend_from_slice(b"null"),
            (at, LAST_OBSERVATION) => {
                json.push(b'"');
                json.extend_from_slice(at);
                json.push(b'"');
            }
            (number, _) => json.extend_from_slice(number),
        }
    }
    json.push(b'}');
}

/// The digits of 0 to 999, first digit lowest, and in the highest byte how many they are.
const WHOLE: [u32; 1000] = {
    let mut table = [0; 1000];
    let mut n = 0;
    while n < 1000 {
        let (hundreds, tens, ones) = (n / 100, n / 10 % 10, n % 10);
        let digits = (hundreds | tens << 8 | ones << 16) + 0x30_3030;
        let count = 1 + (n > 9) as u32 + (n > 99) as u32;
        table[n as usize] = digits >> (8 * (3 - count)) | count << 24;
        n += 1;
    }
    table
};

/// A point and the digits of 00 to 99.
const DECIMALS: [u32; 100] = {
    let mut table = [0; 100];
    let mut n = 0;
    while n < 100 {
        table[n as usize] = 0x30_302e + ((n / 10) << 8) + ((n % 10) << 16);
        n += 1;
    }
    table
};

/// A separator and two decimals, half away from zero. `us` is never negative: downtime lies inside its window.
pub(super) fn push_decimal<const UNIT_US: i64>(us: i64, csv: &mut Vec<u8>) {
    debug_assert!(us >= 0, "{us}");
    let hundredths = u64::try_from((us * 100 + UNIT_US / 2) / UNIT_US).unwrap_or(0);
    let (whole, rest) = ((hundredths / 100) as usize, (hundredths % 100) as usize);
    let (Some(digits), Some(decimals)) = (WHOLE.get(whole), DECIMALS.get(rest)) else {
        // No window is that long.
        csv.extend_from_slice(format!(",{whole}.{rest:02}").as_bytes());
        return;
    };
    // At most seven bytes, made in a register, first byte lowest, and appended as eight: no loop, no call.
    let count = (digits >> 24) as usize;
    let word = u64::from(b',') | u64::from(digits & 0xff_ffff) << 8 | u64::from(*decimals) << (8 * (1 + count));
    csv.extend_from_slice(&word.to_le_bytes());
    csv.truncate(csv.len() + count - 4);
}

/// A text cell. A spreadsheet runs what starts like a formula, so such an id gets a quote in front;
/// separators and quotes are quoted by RFC 4180.
pub(super) fn push_id(id: &str, csv: &mut Vec<u8>) {
    let formula = matches!(id.bytes().next(), Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r'));
    let neutral = if formula { "'" } else { "" };
    // Looks at all bytes, which the compiler turns into a few wide comparisons.
    if id
        .bytes()
        .fold(false, |any, b| any | matches!(b, b',' | b'"' | b'\n' | b'\r'))
    {
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
    fn every_number_is_what_the_standard_library_makes_of_it() {
        for hundredths in 0..110_000 {
            let expected = format!(",{}.{:02}", hundredths / 100, hundredths % 100);
            assert_eq!(decimal::<HOUR_US>(hundredths * HOUR_US / 100), expected);
        }
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
