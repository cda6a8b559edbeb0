//! Rows that are odd or meant to harm, by SQL and by import: each is counted or refused by its rule, and the stores
//! beside them have their right numbers.
//!
//! What each constraint refuses is in `tests/schema.rs`, what each field of a CSV may hold in `src/import/tests.rs`, how
//! a cell is made harmless in `src/report/csv.rs`, and gaps and folds zone by zone in `src/oracle/clock_changes.rs`. Here all
//! of it meets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use support::check::{reports_are_right, same_report, verify_is_clean};
use support::daemon::Following;
use support::fixture::{NOW, fill};
use support::raw::raw_stores;
use support::{TestDatabase, state_dir};
use uptally::clock::Clock;
use uptally::daemon::Settings;
use uptally::import::{ImportOptions, Input, run};
use uptally::oracle::report_csv;
use uptally::report::ReportRequest;
use uptally::window::{ClosedTime, Windows};

/// Ids that are odd and right; the fifth of them is as long as an id may be.
fn odd_ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        "=cmd|' /C calc'!A0",
        "+1+1",
        "-2",
        "@SUM(A1)",
        "a,\"b\"",
        "  ",
        "🏪🇧🇪",
        "../../etc/passwd",
    ]
    .map(str::to_owned)
    .into();
    ids.extend(
        [
            "', ('x'); DROP TABLE public.reports; --",
            "{{7*7}}",
            "\u{202e}rtl",
            "NULL",
        ]
        .map(str::to_owned),
    );
    ids.push("x".repeat(200));
    ids
}

/// By SQL, each in a statement of its own: refused, with the constraint that says so.
const REFUSED: [(&str, &str); 16] = [
    (
        r"store_activity VALUES (E'a\nb', '2023-11-08', 'active')",
        "store_id_is_short_printable_text",
    ),
    (
        r"store_activity VALUES (E'a\rb', '2023-11-08', 'active')",
        "store_id_is_short_printable_text",
    ),
    (
        "store_activity VALUES (repeat('x', 1048576), '2023-11-08', 'active')",
        "store_id_is_short_printable_text",
    ),
    (
        "store_activity VALUES ('chicago', 'infinity', 'active')",
        "timestamp_utc_is_from_2000_to_2100",
    ),
    (
        "store_activity VALUES ('chicago', '-infinity', 'active')",
        "timestamp_utc_is_from_2000_to_2100",
    ),
    (
        "store_activity VALUES ('chicago', '294276-12-31', 'active')",
        "timestamp_utc_is_from_2000_to_2100",
    ),
    (
        "store_activity VALUES ('chicago', '4713-01-01 BC', 'active')",
        "timestamp_utc_is_from_2000_to_2100",
    ),
    (
        "store_activity VALUES ('chicago', '2023-11-08', 'open')",
        "status_is_active_or_inactive",
    ),
    ("store_activity VALUES ('chicago', '2023-11-08', NULL)", "status"),
    ("store_activity VALUES (NULL, '2023-11-08', 'active')", "store_id"),
    (
        "store_timezones VALUES ('bad zone', 'Mars/Olympus_Mons')",
        "store_timezones_timezone_str_fkey",
    ),
    (
        "store_timezones VALUES ('bad zone', 'UTC+25')",
        "store_timezones_timezone_str_fkey",
    ),
    (
        "store_business_hours VALUES ('chicago', 7, '09:00', '17:00')",
        "day_is_0_monday_to_6_sunday",
    ),
    (
        "store_business_hours VALUES ('chicago', 0, '24:00', '01:00')",
        "start_is_before_24_00",
    ),
    (
        "store_closures VALUES ('chicago', '2023-11-08', '2023-11-08')",
        "closed_from_is_before_closed_to",
    ),
    (
        "store_closures VALUES ('*', '2023-11-08', 'infinity')",
        "closed_from_2000_to_2100",
    ),
];

/// Hours that overlap, touch, wrap past midnight, are a whole day; over the gap and the fold of several zones.
const HOURS: &str = "
    INSERT INTO public.store_business_hours
        SELECT 'overlapping', day, t.s::time, t.e::time
        FROM generate_series(0, 6) day, (VALUES ('09:00', '17:00'), ('12:00', '20:00'), ('20:00', '21:00'), ('13:00', '14:00')) t (s, e)
        UNION ALL SELECT 'overnight', day, '22:00', '03:30' FROM generate_series(0, 6) day
        UNION ALL SELECT 'in the fold', 6, '01:00', '02:00'
        UNION ALL SELECT 'in the gap', 6, '02:10', '02:50'
        UNION ALL SELECT 'whole days', day, '00:00', '00:00' FROM generate_series(0, 6) day;
    INSERT INTO public.store_closures VALUES
        ('overlapping', '2023-11-06 13:00', '2023-11-06 14:30'), ('overlapping', '2023-11-06 14:00', '2023-11-07'),
        ('in the fold', '2023-11-05 01:20', '2023-11-05 01:40'), ('in the gap', '2023-03-12 02:10', '2023-03-12 02:50'),
        ('whole days', '2023-11-05', '2023-11-05 23:59:59'), ('*', '2000-01-01', '2000-01-02');
    INSERT INTO public.store_timezones VALUES ('overlapping', 'Pacific/Apia'), ('overnight', 'America/New_York');
    INSERT INTO public.store_activity
        SELECT id, '2023-11-05 00:00+00'::timestamptz + n * interval '13 minutes', CASE WHEN n % 3 = 0 THEN 'inactive' ELSE 'active' END
        FROM unnest(ARRAY['overlapping', 'overnight', 'in the fold', 'in the gap', 'whole days']) id, generate_series(0, 300) n";

#[tokio::test]
async fn each_is_counted_or_refused_and_blocks_nobody() {
    let server = TestDatabase::start().await;
    let (database, mut client, clock) = (server.database(), server.connect().await, Clock::standing(NOW).0);
    fill(&client, 10).await;
    let daemon = Following::start(&database, &clock, Settings::default()).await;

    for (row, expected) in REFUSED {
        let shown = &row[..row.len().min(80)];
        let error = client
            .batch_execute(&format!("INSERT INTO public.{row}"))
            .await
            .expect_err(shown);
        let error = error.as_db_error().unwrap();
        assert_eq!(
            error.constraint().or(error.column()),
            Some(expected),
            "{shown}: {error}"
        );
    }
    let insert = "INSERT INTO public.store_activity (store_id, timestamp_utc, status) VALUES ($1, '2023-11-08 11:40+00', 'inactive')";
    for id in odd_ids() {
        client.execute(insert, &[&id]).await.expect(&id);
    }
    client.batch_execute(HOURS).await.unwrap();
    // Right at the edges of what may be; the later one waits for its time and counts for nothing.
    let edges = "INSERT INTO public.store_activity VALUES ('edges', '2000-01-01+00', 'inactive'),
                     ('edges', '2099-12-31 23:59:59.999999+00', 'active')";
    client.batch_execute(edges).await.unwrap();
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;

    // The same sort of rows in files; the bad ones are set aside with their line and reason.
    let dir = state_dir();
    let long = "y".repeat(1 << 20);
    let activity = format!(
        "store_id,timestamp_utc,status\n\
         =imported(),2023-11-08 11:00:00 UTC,inactive\n\
         \"two\nlines\",2023-11-08 11:00:00 UTC,active\n\
         {long},2023-11-08 11:00:00 UTC,active\n\
         s,infinity,active\n\
         s,294276-12-31 00:00:00 UTC,active\n\
         s,2023-11-08 11:00:00 UTC,open\n\
         s,,active\n\
         ,2023-11-08 11:00:00 UTC,active\n\
         s,2023-11-08 11:00:00 UTC\n\
         \"quo\"\"ted, and 🏪\",2023-11-08 11:00:00 UTC,inactive\n"
    );
    let hours = "store_id,day,start_time_local,end_time_local\n\
         =imported(),2,22:00:00,06:00:00\n=imported(),2,23:00:00,05:00:00\n\
         s,7,09:00,17:00\ns,0,25:00,17:00\ns,0,09:00,\n";
    let zones = "store_id,timezone_str\n=imported(),Asia/Kathmandu\ns,Mars/Olympus_Mons\ns,\n";
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Input::File(path)
    };
    let options = ImportOptions {
        activity: vec![file("activity.csv", &activity)],
        hours: Some(file("hours.csv", hours)),
        timezones: Some(file("zones.csv", zones)),
        rejects: Some(dir.path().join("rejects.csv")),
        ..ImportOptions::default()
    };
    let summary = run(&mut client, &options).await.unwrap();
    let counts = [&summary.activity, &summary.hours, &summary.timezones].map(|table| (table.new, table.rejected));
    // A record is one line: what follows the line break in the second one is a store of its own.
    assert_eq!(counts, [(3, 8), (2, 3), (1, 2)], "{summary}");
    let rejects = std::fs::read_to_string(dir.path().join("rejects.csv")).unwrap();
    assert_eq!(rejects.lines().count(), 1 + 13, "{rejects}");
    assert!(rejects.len() < 32 << 10, "a row of a megabyte is shortened");

    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    let csv = uptally::report::Source::render(&daemon.handle, Some(NOW), ReportRequest::default());
    let csv = String::from_utf8(csv.await.unwrap().csv.to_vec()).unwrap();
    let expected = report_csv(
        &raw_stores(&client, NOW).await,
        NOW,
        Windows::Calendar,
        ClosedTime::Uptime,
    );
    same_report(&csv, &expected, "with odd stores");
    // No line begins as a formula does, quoted or not, and no id makes two lines.
    for line in csv.lines().skip(1) {
        assert!(
            !line
                .trim_start_matches('"')
                .starts_with(['=', '+', '-', '@', '\t', '\r']),
            "{line}"
        );
        assert_eq!(
            line.rsplit(',').take_while(|cell| cell.parse::<f64>().is_ok()).count(),
            6,
            "{line}"
        );
    }
    assert!(csv.contains("\n'=cmd|' /C calc'!A0,"), "{csv}");
    daemon.stop().await;
    verify_is_clean(&database, NOW).await;
}
