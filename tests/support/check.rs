//! Right numbers: what the daemon and its tables say, held against the raw rows.

use std::time::Duration;

use tokio_postgres::Client;
use uptally::db::Database;
use uptally::feed::{self, Cursor};
use uptally::oracle::report_csv;
use uptally::report::Source;
use uptally::rollup::{FUTURE_MAX_US, Limits};
use uptally::time::Timestamp;
use uptally::verify::{Verdict, verify};
use uptally::window::{ClosedTime, Windows};

use super::raw::raw_stores;
use super::within;

/// All four kinds of report.
pub const KINDS: [(Windows, ClosedTime); 4] = [
    (Windows::Calendar, ClosedTime::Uptime),
    (Windows::Calendar, ClosedTime::Excluded),
    (Windows::Rolling, ClosedTime::Uptime),
    (Windows::Rolling, ClosedTime::Excluded),
];

/// The tables of the rollup, brought to the present as a restart would do it, are what the raw rows say.
pub async fn verify_is_clean(database: &Database, now: Timestamp) -> Verdict {
    let verdict = verify(database, Limits::default(), now, 4_000_000).await.unwrap();
    let shown: Vec<String> = verdict.differences.iter().map(ToString::to_string).collect();
    assert_eq!(verdict.difference_count, 0, "verify:\n{}", shown.join("\n"));
    verdict
}

/// The daemon's reports as of an instant are the oracle's, byte for byte. Nobody may be writing.
///
/// A report says of which point it is. One that was asked for in the middle of a long read may be of the point before it;
/// then it is asked for again.
pub async fn reports_are_right(source: &impl Source, client: &Client, now: Timestamp, as_of: Timestamp) {
    let present = feed::current(client).await.unwrap();
    let stores = raw_stores(client, now.plus(FUTURE_MAX_US)).await;
    for (windows, closed) in KINDS {
        let mut csv = String::new();
        within(Duration::from_secs(5), "a report is of the present", async || {
            let rendered = source.render(Some(as_of), windows, closed).await.unwrap();
            csv = String::from_utf8(rendered.csv.to_vec()).unwrap();
            knows_all_of(&rendered.cursors[0].parse().unwrap(), &present)
        })
        .await;
        let expected = report_csv(&stores, as_of, windows, closed);
        same_report(&csv, &expected, &format!("{windows:?}, {closed:?} as of {as_of}"));
    }
}

/// Whether every transaction that is visible at `earlier` is visible at `point`.
fn knows_all_of(point: &Cursor, earlier: &Cursor) -> bool {
    let unknown = point.running().iter().copied().chain(point.xmax()..earlier.xmax());
    unknown.into_iter().all(|xid| earlier.is_new(xid))
}

/// Fails with the lines that differ.
pub fn same_report(found: &str, expected: &str, what: &str) {
    if found == expected {
        return;
    }
    let (found, expected): (Vec<&str>, Vec<&str>) = (found.lines().collect(), expected.lines().collect());
    let only = |these: &[&str], those: &[&str]| {
        let lines = these.iter().filter(|line| !those.contains(line)).take(10);
        lines.fold(String::new(), |text, line| format!("{text}\n  {line}"))
    };
    panic!(
        "{what}: the report has{}\nbut the raw rows say{}",
        only(&found, &expected),
        only(&expected, &found)
    );
}
