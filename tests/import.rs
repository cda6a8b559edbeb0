//! Imports into a real Postgres: what ends in the tables, and what does not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use support::TestDatabase;
use tempfile::TempDir;
use tokio_postgres::Client;
use uptally::fleet::{Fleet, FleetOptions};
use uptally::import::{ImportError, ImportOptions, ImportSummary, Input, load, run};

/// Files of one test, in a directory of its own.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Files(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Input {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        Input::File(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Options that keep bad rows inside the directory.
    fn options(&self) -> ImportOptions {
        ImportOptions {
            rejects: Some(self.path("rejects.csv")),
            ..ImportOptions::default()
        }
    }

    async fn activity(&self, client: &mut Client, rows: &str) -> ImportSummary {
        let activity = self.write("activity.csv", format!("store_id,status,timestamp_utc\n{rows}"));
        let options = ImportOptions {
            activity: vec![activity],
            ..self.options()
        };
        run(client, &options).await.unwrap()
    }

    async fn hours(&self, client: &mut Client, rows: &str) -> ImportSummary {
        let hours = self.write(
            "hours.csv",
            format!("store_id,dayOfWeek,start_time_local,end_time_local\n{rows}"),
        );
        let options = ImportOptions {
            hours: Some(hours),
            ..self.options()
        };
        run(client, &options).await.unwrap()
    }
}

/// All rows of a table with their versions, one a line.
async fn rows_of(client: &Client, sql: &str) -> Vec<String> {
    let sql = format!("SELECT (r.*)::text FROM ({sql}) AS r ORDER BY 1");
    let rows = client.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

const ACTIVITY: &str = "SELECT store_id, timestamp_utc AT TIME ZONE 'UTC', status FROM public.store_activity";
const HOURS: &str = "SELECT store_id, day, start_time_local, end_time_local FROM public.store_business_hours";
const CLOSURES: &str = "SELECT store_id, closed_from, closed_to, reason FROM public.store_closures";
const VERSIONS: &str = "
    SELECT 'a', store_id, xmin, change_xid::text FROM public.store_activity UNION ALL
    SELECT 'h', store_id, xmin, '' FROM public.store_business_hours UNION ALL
    SELECT 'c', store_id, xmin, '' FROM public.store_closures UNION ALL
    SELECT 't', store_id, xmin, '' FROM public.store_timezones";

#[tokio::test]
async fn a_second_import_of_the_same_files_changes_no_row() {
    let database = TestDatabase::start().await;
    let mut client = database.connect().await;
    let files = Files::new();
    let options = ImportOptions {
        activity: vec![files.write(
            "a.csv",
            "\u{feff}status,timestamp_utc,store_id,note\r\n\
             active,2023-01-22 12:09:39.388884 UTC,s1,x\r\n\
             \"inactive\",2023-01-22T13:09:39Z,\"s,2\",\"y\"\"z\"\r\n\r\n",
        )],
        hours: Some(files.write(
            "h.csv",
            "day,store_id,end_time_local,start_time_local\n0,s1,24:00,09:00\n6,s1,02:00:00,22:30:00.5\n",
        )),
        closures: Some(files.write(
            "c.csv",
            "to,reason,store_id,from\n,holiday,*,2023-12-25\n2023-01-23 09:15:00.25,,s1,2023-01-22T14:00\n",
        )),
        timezones: Some(files.write(
            "t.csv",
            "store_id,timezone_str\ns1,Asia/Kathmandu\ns3,America/Chicago\n",
        )),
        ..files.options()
    };
    let first = run(&mut client, &options).await.unwrap();
    assert_eq!((first.activity.new, first.hours.new, first.timezones.new), (2, 2, 2));
    assert_eq!((first.closures.new, first.closures.unchanged), (2, 0));
    assert_eq!(first.ignored_columns.len(), 1);
    assert_eq!(
        rows_of(&client, CLOSURES).await,
        [
            r#"(*,"2023-12-25 00:00:00","2023-12-26 00:00:00",holiday)"#,
            r#"(s1,"2023-01-22 14:00:00","2023-01-23 09:15:00.25","")"#
        ]
    );
    assert_eq!(
        rows_of(&client, ACTIVITY).await,
        [
            r#"("s,2","2023-01-22 13:09:39",inactive)"#,
            r#"(s1,"2023-01-22 12:09:39.388884",active)"#
        ]
    );
    assert_eq!(
        rows_of(&client, HOURS).await,
        ["(s1,0,09:00:00,24:00:00)", "(s1,6,22:30:00.5,02:00:00)"]
    );

    let versions = rows_of(&client, VERSIONS).await;
    let second = run(&mut client, &options).await.unwrap();
    assert_eq!(rows_of(&client, VERSIONS).await, versions);
    assert_eq!(
        (
            second.activity.unchanged,
            second.hours.unchanged,
            second.timezones.unchanged
        ),
        (2, 2, 2)
    );
    assert_eq!((second.hours.deleted, second.rejected()), (0, 0));
    assert_eq!((second.closures.new, second.closures.unchanged), (0, 2));
    assert!(!files.path("rejects.csv").exists());
}

#[tokio::test]
async fn closures_are_added_and_their_reasons_corrected() {
    let database = TestDatabase::start().await;
    let mut client = database.connect().await;
    let files = Files::new();
    let import = async |client: &mut Client, rows: &str| {
        let closures = files.write("c.csv", format!("store_id,closed_from,closed_to,reason\n{rows}"));
        let options = ImportOptions {
            closures: Some(closures),
            ..files.options()
        };
        run(client, &options).await.unwrap()
    };
    import(
        &mut client,
        "a,2025-12-25,2025-12-26,\n*,2025-12-31 14:00,2026-01-02,New Year\n",
    )
    .await;
    let next = import(
        &mut client,
        "a,2025-12-25,,Christmas\na,2026-12-25,2026-12-26,x\na,2026-12-25,,Christmas\n\
         b,2026-02-30,,\nb,2026-12-25,2026-12-25,\nb,2026-12-25 10:00,,\nb,2026-12-25,2026-12-26Z,\n",
    )
    .await
    .closures;
    assert_eq!(
        (next.read, next.new, next.corrected, next.unchanged, next.rejected),
        (7, 1, 1, 1, 4)
    );
    assert_eq!(next.deleted, 0);
    assert_eq!(
        rows_of(&client, CLOSURES).await,
        [
            r#"(*,"2025-12-31 14:00:00","2026-01-02 00:00:00","New Year")"#,
            r#"(a,"2025-12-25 00:00:00","2025-12-26 00:00:00",Christmas)"#,
            r#"(a,"2026-12-25 00:00:00","2026-12-26 00:00:00",Christmas)"#,
        ]
    );
    let rejects = std::fs::read_to_string(files.path("rejects.csv")).unwrap();
    let reasons: Vec<&str> = rejects
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(2).unwrap())
        .collect();
    assert_eq!(reasons, ["closed_from", "closed_to", "closed_to", "closed_to"]);
}

#[tokio::test]
async fn the_last_row_wins_and_corrections_are_counted() {
    let database = TestDatabase::start().await;
    let mut client = database.connect().await;
    let files = Files::new();
    let at = "2023-01-22 12:00:00 UTC";
    let twice = files
        .activity(&mut client, &format!("s,active,{at}\ns,inactive,{at}\n"))
        .await;
    assert_eq!((twice.activity.new, twice.activity.unchanged), (1, 1));
    assert_eq!(
        rows_of(&client, ACTIVITY).await,
        ["(s,\"2023-01-22 12:00:00\",inactive)"]
    );

    let stamp = "SELECT change_xid FROM public.store_activity";
    let before = rows_of(&client, stamp).await;
    let corrected = files
        .activity(&mut client, &format!("t,active,{at}\ns,active,{at}\n"))
        .await;
    assert_eq!((corrected.activity.new, corrected.activity.corrected), (1, 1));
    assert_ne!(rows_of(&client, &format!("{stamp} WHERE store_id = 's'")).await, before);

    // Across files of one run: the second file meets rows of its own transaction.
    let (one, two) = (format!("u,active,{at}\n"), format!("u,inactive,{at}\n"));
    let header = "store_id,status,timestamp_utc\n";
    let options = ImportOptions {
        activity: vec![
            files.write("1.csv", header.to_owned() + &one),
            files.write("2.csv", header.to_owned() + &two),
        ],
        ..files.options()
    };
    let summary = run(&mut client, &options).await.unwrap();
    assert_eq!((summary.activity.new, summary.activity.corrected), (1, 1));
    let u = format!("{ACTIVITY} WHERE store_id = 'u'");
    assert_eq!(rows_of(&client, &u).await, ["(u,\"2023-01-22 12:00:00\",inactive)"]);
}

/// More rows than a chunk holds, so that chunks are loaded both ways in one run.
#[tokio::test]
async fn chunks_that_meet_existing_rows_load_like_those_that_do_not() {
    let database = TestDatabase::start().await;
    let mut client = database.connect().await;
    let files = Files::new();
    let row = |n: i64| {
        let at = uptally::time::Timestamp::from_micros(1_674_000_000_000_000 + n * 1_000_000);
        format!("store,active,{at}\n")
    };
    let some: String = (150_000..150_010).map(row).collect();
    files.activity(&mut client, &some).await;
    let all: String = (0..320_000).chain(310_000..310_005).map(row).collect();
    let summary = files.activity(&mut client, &all).await.activity;
    assert_eq!((summary.read, summary.new, summary.corrected), (320_005, 319_990, 0));
    let count = rows_of(
        &client,
        "SELECT count(*), count(DISTINCT change_xid::text) FROM public.store_activity",
    );
    assert_eq!(count.await, ["(320000,2)"]);
}

#[tokio::test]
async fn hours_files_are_the_truth_for_the_stores_that_they_name() {
    let database = TestDatabase::start().await;
    let mut client = database.connect().await;
    let files = Files::new();
    files
        .hours(
            &mut client,
            "a,0,09:00,17:00\na,1,09:00,17:00\nb,0,10:00,12:00\nc,0,10:00,12:00\n",
        )
        .await;

    // a drops a day and gains one, b has a bad row and so only gains, c is not named.
    let summary = files.hours(
        &mut client,
        "a,1,09:00,17:00\na,2,09:00,17:00\nb,7,10:00,12:00\nb,3,10:00,12:00\n",
    );
    let summary = summary.await;
    let rows = [
        "(a,1,09:00:00,17:00:00)",
        "(a,2,09:00:00,17:00:00)",
        "(b,0,10:00:00,12:00:00)",
        "(b,3,10:00:00,12:00:00)",
        "(c,0,10:00:00,12:00:00)",
    ];
    assert_eq!(rows_of(&client, HOURS).await, rows);
    let t = &summary.hours;
    assert_eq!((t.read, t.new, t.deleted, t.unchanged, t.rejected), (4, 2, 1, 1, 1));
    assert!(summary.deletions_withheld.is_some());

    // A row that may be anybody's: nothing is deleted.
    files.hours(&mut client, "a,5,09:00,17:00\n\"a,1,09:00,17:00\n").await;
    assert!(rows_of(&client, HOURS).await.contains(&rows[0].to_owned()));
}

#[tokio::test]
async fn bad_rows_are_set_aside_or_stop_everything() {
    let database = TestDatabase::start().await;
    let mut client = database.connect().await;
    let files = Files::new();
    let rows = "s,active,2023-01-22 12:00:00 UTC\ns,up,2023-01-22 13:00:00 UTC\n=s,active,today\n";
    let summary = files.activity(&mut client, rows).await;
    assert_eq!((summary.activity.new, summary.activity.rejected), (1, 2));
    assert_eq!(summary.rejects_files, [files.path("rejects.csv")]);
    let rejects = std::fs::read_to_string(files.path("rejects.csv")).unwrap();
    let lines: Vec<&str> = rejects.lines().collect();
    assert_eq!(lines[0], "file,line,field,reason,row");
    assert!(
        lines[1].contains("activity.csv,3,status,\"expected active or inactive, found \"\"up\"\"\""),
        "{rejects}"
    );
    assert!(
        lines[2].contains(",4,timestamp_utc,") && lines[2].ends_with("\"'=s,active,today\""),
        "{rejects}"
    );

    let activity = files.write(
        "b.csv",
        "store_id,status,timestamp_utc\nt,active,2023-01-22 12:00:00 UTC\nt,up,x\n",
    );
    let timezones = files.write("t.csv", "store_id,timezone_str\nt,Asia/Kolkata\n");
    let options = ImportOptions {
        activity: vec![activity],
        timezones: Some(timezones),
        strict: true,
        ..files.options()
    };
    let error = run(&mut client, &options).await.unwrap_err();
    assert!(
        matches!(&error, ImportError::Rejected(reject) if reject.line == 3),
        "{error}"
    );
    let t = "SELECT store_id FROM public.store_activity UNION SELECT store_id FROM public.store_timezones";
    assert_eq!(rows_of(&client, t).await, ["(s)"]);
}

#[tokio::test]
async fn an_input_that_cannot_be_used_stops_the_run() {
    let database = TestDatabase::start().await;
    let mut client = database.connect().await;
    let files = Files::new();
    let good = files.write("good.csv", "store_id,timezone_str\nt,Asia/Kolkata\n");
    let run_with = async |client: &mut Client, activity: Input| {
        let options = ImportOptions {
            activity: vec![activity],
            timezones: Some(good.clone()),
            ..files.options()
        };
        run(client, &options).await.unwrap_err()
    };
    let missing = Input::File(files.path("no.csv"));
    assert!(matches!(run_with(&mut client, missing).await, ImportError::Open { .. }));
    let folder = Input::File(files.0.path().to_owned());
    assert!(matches!(run_with(&mut client, folder).await, ImportError::Open { .. }));
    let empty = files.write("empty.csv", "");
    assert!(matches!(run_with(&mut client, empty).await, ImportError::Empty { .. }));
    let wrong = files.write("wrong.csv", "store_id,state\n");
    let error = run_with(&mut client, wrong).await.to_string();
    for part in [
        "wrong.csv: line 1: no column status",
        "store_id, status, timestamp_utc",
        "store_id,state",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let input = files.write("rejects.csv", "store_id,status,timestamp_utc\n");
    assert!(matches!(
        run_with(&mut client, input).await,
        ImportError::RejectsIsInput(_)
    ));
    let twice = ImportOptions {
        hours: Some(Input::Stdin),
        timezones: Some(Input::Stdin),
        ..files.options()
    };
    assert!(matches!(run(&mut client, &twice).await, Err(ImportError::StdinTwice)));
    assert!(
        rows_of(&client, "SELECT store_id FROM public.store_timezones")
            .await
            .is_empty()
    );
}

/// A generated fleet loaded as rows, then as the CSVs written of it: the second way finds nothing to do.
#[tokio::test]
async fn a_fleet_loads_the_same_as_rows_and_as_files() {
    let database = TestDatabase::start().await;
    let mut client = database.connect().await;
    let fleet = Fleet::generate(FleetOptions {
        stores: 500,
        ..FleetOptions::default()
    });
    let rows = load(
        &mut client,
        fleet.timezone_rows(),
        fleet.hours_rows(),
        fleet.closure_rows(),
        fleet.activity_rows(),
    );
    let rows = rows.await.unwrap();
    assert_eq!(rows.activity.new, fleet.backfill().count() as u64);
    assert_eq!((rows.hours.unchanged, rows.timezones.unchanged), (0, 0));
    assert!(rows.closures.new > 1 && rows.closures.unchanged == 0);

    let files = Files::new();
    let create = |name: &str| BufWriter::new(File::create(files.path(name)).unwrap());
    fleet.write_activity_csv(create("a.csv")).unwrap();
    fleet.write_hours_csv(create("h.csv")).unwrap();
    fleet.write_closures_csv(create("c.csv")).unwrap();
    fleet.write_timezones_csv(create("t.csv")).unwrap();
    let versions = rows_of(&client, VERSIONS).await;
    let options = ImportOptions {
        activity: vec![Input::File(files.path("a.csv"))],
        hours: Some(Input::File(files.path("h.csv"))),
        closures: Some(Input::File(files.path("c.csv"))),
        timezones: Some(Input::File(files.path("t.csv"))),
        ..files.options()
    };
    let again = run(&mut client, &options).await.unwrap();
    assert_eq!(rows_of(&client, VERSIONS).await, versions);
    assert_eq!(again.activity.unchanged, rows.activity.new);
    assert_eq!((again.hours.deleted, again.rejected()), (0, 0));
}

/// Compares with psql: `IMPORT_DIR=D cargo test --release --test import -- --ignored --nocapture`, where D holds
/// `store_status.csv`, `menu_hours.csv` and `timezones.csv`. Target: at most 1.3 times as long as `\copy` of the same
/// files into the same tables.
#[tokio::test]
#[ignore = "a measurement, of the files in IMPORT_DIR"]
async fn speed_beside_psql_copy() {
    let dir = PathBuf::from(std::env::var("IMPORT_DIR").unwrap());
    let database = TestDatabase::start_alone(&[("max_wal_size", "4GB")]).await;
    let mut client = database.connect().await;
    let input = |name| Input::File(dir.join(name));
    let options = ImportOptions {
        activity: vec![input("store_status.csv")],
        hours: Some(input("menu_hours.csv")),
        timezones: Some(input("timezones.csv")),
        ..ImportOptions::default()
    };
    let empty = "TRUNCATE public.store_activity, public.store_business_hours, public.store_timezones; CHECKPOINT";
    for round in 1..=3 {
        client.batch_execute(empty).await.unwrap();
        let psql = psql_copy(database.url(), &dir);
        client.batch_execute(empty).await.unwrap();
        let started = Instant::now();
        let summary = run(&mut client, &options).await.unwrap();
        let ours = started.elapsed().as_secs_f64();
        // What an ANALYZE beside the import may leave: the pages are counted, the rows not visible yet.
        let stale = "UPDATE pg_class SET reltuples = 0, relpages = greatest(1, pg_relation_size(oid) / 8192)
                     WHERE relname IN ('store_activity', 'store_business_hours', 'store_timezones')";
        client.batch_execute(stale).await.unwrap();
        let again = run(&mut client, &options).await.unwrap();
        println!(
            "round {round}: psql {psql:.2} s, import {ours:.2} s, ratio {:.2}",
            ours / psql
        );
        println!("{summary}again:\n{again}");
    }
}

fn psql_copy(url: &str, dir: &Path) -> f64 {
    let started = Instant::now();
    let mut psql = Command::new("psql");
    psql.args(["-X", "-q", "-1", "-d", url]);
    for (table, file) in [
        ("store_timezones (store_id, timezone_str)", "timezones.csv"),
        (
            "store_business_hours (store_id, day, start_time_local, end_time_local)",
            "menu_hours.csv",
        ),
        ("store_activity (store_id, status, timestamp_utc)", "store_status.csv"),
    ] {
        let path = dir.join(file);
        psql.args([
            "-c",
            &format!("\\copy public.{table} FROM '{}' CSV HEADER", path.display()),
        ]);
    }
    assert!(psql.status().unwrap().success());
    started.elapsed().as_secs_f64()
}
