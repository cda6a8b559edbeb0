//! Right numbers: what the daemon and its tables say, held against the raw rows.

use std::time::Duration;

use chrono::{Days, NaiveDate};
use tokio_postgres::{Client, Config};
use uptally::db::Database;
use uptally::feed::{self, Cursor};
use uptally::oracle::{days_csv, report_csv};
use uptally::report::{ReportRequest, Source};
use uptally::rollup::{FUTURE_MAX_US, Limits};
use uptally::time::{HOUR_US, Timestamp};
use uptally::verify::{Verdict, verify};
use uptally::window::{ClosedTime, DateRange, Windows};

use super::raw::raw_stores;
use super::serve::Serve;
use super::{connect, within};

/// All four kinds of report.
pub const KINDS: [(Windows, ClosedTime); 4] = [
    (Windows::Calendar, ClosedTime::Uptime),
    (Windows::Calendar, ClosedTime::Excluded),
    (Windows::Rolling, ClosedTime::Uptime),
    (Windows::Rolling, ClosedTime::Excluded),
];

/// How long the daemon may take to be ready again, to flush, or to report the present, once all faults are over: its longest pause, and some.
const RECOVERY_MAX: Duration = Duration::from_secs(15);

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
        let request = ReportRequest {
            windows,
            closed,
            ..ReportRequest::default()
        };
        within(RECOVERY_MAX, "a report is of the present", async || {
            let rendered = source.render(Some(as_of), request).await.unwrap();
            csv = String::from_utf8(rendered.csv.to_vec()).unwrap();
            knows_all_of(&rendered.cursors[0].parse().unwrap(), &present)
        })
        .await;
        let expected = report_csv(&stores, as_of, windows, closed);
        same_report(&csv, &expected, &format!("{windows:?}, {closed:?} as of {as_of}"));
    }
    let first_day = source.coverage().and_then(|coverage| coverage.first_day);
    for days in days_before(as_of, first_day) {
        let request = ReportRequest {
            days: Some(days),
            ..ReportRequest::default()
        };
        let rendered = source.render(Some(as_of), request).await.unwrap();
        let csv = String::from_utf8(rendered.csv.to_vec()).unwrap();
        same_report(&csv, &days_csv(&stores, days, as_of), &format!("{days} as of {as_of}"));
    }
}

/// Stretches of days from a first one on, with and without the day that is not over.
fn days_before(as_of: Timestamp, first: Option<NaiveDate>) -> Vec<DateRange> {
    let today = as_of.to_chrono().date_naive();
    let stretches = [(9, 0), (3, 1), (0, 1)].into_iter().filter_map(|(before, after)| {
        let (from, to) = (today - Days::new(before), today + Days::new(after));
        DateRange::new(first.map_or(from, |first| first.max(from)), to).ok()
    });
    stretches.collect()
}

/// A password for URLs of servers that ask for none, so that it can be looked for where it must not be.
pub const SECRET: &str = "s3cret-of-the-tests";

/// The end of every scenario with a daemon as a child. Nobody may be writing any more, and all faults must be over.
///
/// Memory, which the reports are made of, the tables, and what the raw rows say are the same; reports have ended; no secret and
/// no panic is in the log; no half file is in the archive, no session is left over at the server, no descriptor and no child of
/// the daemon's. The tables may be up to half a minute behind; they are held against the
/// raw rows as a restart would take them.
pub async fn no_drift(connection: &Config, serve: &mut Serve, end: Timestamp) {
    let client = connect(connection).await;
    serve.wait_until_ready_within(RECOVERY_MAX);
    let stores = raw_stores(&client, end.plus(FUTURE_MAX_US)).await;
    // While a large batch is read, a report may be of the point before it; its row says of which it is.
    let present = feed::current(&client).await.unwrap();
    within(RECOVERY_MAX, "a report is of the present", async || {
        let newest = "SELECT cursors[1] FROM public.reports WHERE state = 'complete' ORDER BY finished_at DESC LIMIT 1";
        serve.try_report(end, Windows::Calendar, ClosedTime::Uptime).is_ok()
            && client.query_opt(newest, &[]).await.unwrap().is_some_and(|row| {
                let point: Cursor = row.get::<_, &str>(0).parse().unwrap();
                knows_all_of(&point, &present)
            })
    })
    .await;
    let first = stores
        .iter()
        .flat_map(|store| &store.observations)
        .map(|(at, _)| *at)
        .min();
    for (windows, closed) in KINDS {
        for as_of in [end, end.plus(-40 * HOUR_US)] {
            if first.is_some_and(|first| first > as_of) {
                continue;
            }
            let expected = report_csv(&stores, as_of, windows, closed);
            let what = format!("{windows:?}, {closed:?} as of {as_of}");
            // A session that a fault ended may be noticed only now: refused or failed reports are asked for again.
            let mut csv = Err(String::new());
            within(RECOVERY_MAX, &what, async || {
                csv = serve.try_report(as_of, windows, closed);
                csv.is_ok()
            })
            .await;
            same_report(&csv.unwrap(), &expected, &what);
        }
    }
    // By local days, the first day of the rows may be a day later.
    let first = first.map(|first| first.to_chrono().date_naive() + Days::new(2));
    for days in days_before(end, first) {
        let what = format!("{days} as of {end}");
        let mut csv = Err(String::new());
        within(RECOVERY_MAX, &what, async || {
            csv = serve.try_report_by(&format!("as_of={end}&from={}&to={}", days.from(), days.to()));
            csv.is_ok()
        })
        .await;
        same_report(&csv.unwrap(), &days_csv(&stores, days, end), &what);
    }
    within(RECOVERY_MAX, "there is a rollup", async || {
        let built = "SELECT cursor IS NOT NULL FROM uptally.checkpoint";
        client.query_one(built, &[]).await.unwrap().get(0)
    })
    .await;
    verify_is_clean(&super::database(connection), end).await;
    within(RECOVERY_MAX, "every report has ended", async || {
        let running = "SELECT count(*) FROM public.reports WHERE state = 'running'";
        client.query_one(running, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    let bad = |line: &&String| line.contains(SECRET) || line.contains("panicked");
    assert_eq!(serve.log().iter().find(bad), None, "the log has it");
    assert_eq!(serve.ended(), None, "the daemon lives");
    let files = std::fs::read_dir(serve.csv_dir()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let half: Vec<String> = names.filter(|name| name.contains(".csv#")).collect();
    assert!(half.is_empty(), "half files are left: {half:?}");
    within(RECOVERY_MAX, "no session is left over", async || {
        let sql = "SELECT coalesce(max(sessions), 0) FROM (
                     SELECT count(*) AS sessions FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name LIKE 'uptally %' GROUP BY application_name) s";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) <= 1
    })
    .await;
    serve.assert_nothing_left_over();
}

/// Whether every transaction that is visible at `earlier` is visible at `point`.
pub fn knows_all_of(point: &Cursor, earlier: &Cursor) -> bool {
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
