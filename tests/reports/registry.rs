//! The registry with a real table and a real directory: nothing is left running, nothing is
//! served in part.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use tempfile::tempdir;
use uptally::report::{AsOf, Columns, Format, Found, Limits, Opened, Registry, ReportRequest, TriggerError, Triggered};
use uptally::time::HOUR_US;
use uptally::window::{ClosedTime, Windows};
use uuid::Uuid;

use super::fake::{Behaviour, FakeSource, LATEST, OPEN, csv_of, limits, registry};
use super::support::{TestDatabase, within};

const LATEST_REPORT: ReportRequest = ReportRequest {
    as_of: AsOf::Latest,
    windows: Windows::Rolling,
    closed: ClosedTime::Excluded,
    format: Format::Csv,
    columns: Columns::Default,
    days: None,
};

/// The report once it is no longer running: its CSV or why there is none.
async fn end_of(registry: &Registry, id: Uuid) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + Duration::from_secs(8);
    while Instant::now() < deadline {
        let file = match registry.find(id).await.unwrap() {
            Found::Running => {
                tokio::time::sleep(Duration::from_micros(200)).await;
                continue;
            }
            Found::Complete(file) => file,
            Found::Failed { reason } => return Err(reason),
            Found::Unknown => panic!("report {id} is unknown"),
        };
        return match registry.open(&file, None).await.unwrap() {
            Opened::File(stored) => {
                let pieces: Vec<_> = stored.stream.try_collect().await.unwrap();
                Ok(pieces.concat())
            }
            Opened::Gone { reason } => Err(reason.to_owned()),
        };
    }
    panic!("report {id} did not end");
}

/// Waits until `condition` over the rows of `public.reports` holds.
async fn until(database: &TestDatabase, condition: &str) {
    let admin = database.connect().await;
    let query = format!("SELECT {condition} FROM public.reports");
    for _ in 0..400 {
        let row = admin.query_one(&query, &[]).await.unwrap();
        if row.get::<_, Option<bool>>(0) == Some(true) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rows = admin.query("SELECT r::text FROM public.reports r", &[]).await;
    let rows: Vec<String> = rows.unwrap().iter().map(|r| r.get(0)).collect();
    panic!("{condition} did not come true: {rows:#?}");
}

#[tokio::test]
async fn a_report_is_recorded_made_and_found_again() {
    let (database, csvs) = (TestDatabase::start().await, tempdir().unwrap());
    let source = FakeSource::new(OPEN);
    let reports = registry(&source, csvs.path(), database.connector(), limits());

    let now = reports.trigger(ReportRequest::default()).await.unwrap();
    let as_of = now.as_of.unwrap();
    let expected = csv_of(as_of, Windows::Calendar, ClosedTime::Uptime);
    assert_eq!(end_of(&reports, now.report_id).await.unwrap(), expected);
    until(
        &database,
        "bool_and(state = 'complete' AND as_of_requested = 'now' AND windows = 'calendar' \
         AND closed = 'uptime' AND cursors = '{7:9:8}' AND stores = 13558 \
         AND abs(extract(epoch from as_of - requested_at)) < 0.001 AND duration_us > 0 \
         AND finished_at > requested_at AND failure IS NULL)",
    )
    .await;

    let latest = reports.trigger(LATEST_REPORT).await.unwrap();
    assert_eq!(latest.as_of, None);
    let expected = csv_of(LATEST, Windows::Rolling, ClosedTime::Excluded);
    assert_eq!(end_of(&reports, latest.report_id).await.unwrap(), expected);

    let at = LATEST.plus(-1_234_567);
    let request = ReportRequest {
        as_of: AsOf::At(at),
        ..LATEST_REPORT
    };
    let fixed = reports.trigger(request).await.unwrap();
    assert_eq!(fixed.as_of, Some(at), "to the microsecond");
    end_of(&reports, fixed.report_id).await.unwrap();
    until(&database, "count(*) = 3 AND bool_and(state = 'complete')").await;

    // Another life: the table answers.
    let reports = registry(&source, csvs.path(), database.connector(), limits());
    assert_eq!(end_of(&reports, latest.report_id).await.unwrap(), expected);
    let unknown = reports.find(Uuid::new_v4()).await.unwrap();
    assert!(matches!(unknown, Found::Unknown));
}

#[tokio::test]
async fn instants_outside_the_coverage_and_unloaded_rollups_are_refused() {
    let (database, csvs) = (TestDatabase::start().await, tempdir().unwrap());
    let source = FakeSource::new(OPEN);
    let reports = registry(&source, csvs.path(), database.connector(), limits());
    for hours in [-401, 1_000_001] {
        let request = ReportRequest {
            as_of: AsOf::At(LATEST.plus(hours * HOUR_US)),
            ..ReportRequest::default()
        };
        let refused = reports.trigger(request).await.unwrap_err();
        assert!(matches!(refused, TriggerError::NotCovered { .. }));
    }
    *source.coverage.lock().unwrap() = None;
    let refused = reports.trigger(LATEST_REPORT).await.unwrap_err();
    assert!(matches!(refused, TriggerError::NotLoaded(reason) if reason == "reading the rollups"));
    until(&database, "count(*) = 0").await;
}

/// One that no other is the same as.
fn request(number: i64) -> ReportRequest {
    ReportRequest {
        as_of: AsOf::At(LATEST.plus(-number)),
        ..LATEST_REPORT
    }
}

#[tokio::test]
async fn thirty_at_once_all_end_and_more_than_fit_are_refused() {
    let (database, csvs) = (TestDatabase::start().await, tempdir().unwrap());
    let source = FakeSource::new(30);
    let reports = registry(&source, csvs.path(), database.connector(), limits());
    let triggered = join_all((0..30).map(|number| reports.trigger(request(number)))).await;
    for triggered in triggered {
        end_of(&reports, triggered.unwrap().report_id).await.unwrap();
    }
    until(&database, "count(*) = 30 AND bool_and(state = 'complete')").await;

    // Nothing renders any more: 1 runs, 40 wait.
    let triggered = join_all((0..60).map(|number| reports.trigger(request(number)))).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = triggered.into_iter().partition(Result::is_ok);
    assert_eq!(accepted.len(), 41);
    for refused in refused {
        assert!(matches!(refused.unwrap_err(), TriggerError::TooBusy));
    }
    source.gate.add_permits(41);
    assert!(reports.drain(Duration::from_secs(8)).await);
    until(&database, "count(*) = 71 AND bool_and(state = 'complete')").await;
    let refused = reports.trigger(LATEST_REPORT).await.unwrap_err();
    assert!(matches!(refused, TriggerError::Stopped), "drained for good");
}

#[tokio::test]
async fn the_same_asked_for_while_it_waits_is_one_report() {
    let (database, csvs) = (TestDatabase::start().await, tempdir().unwrap());
    let source = FakeSource::new(0);
    let reports = registry(&source, csvs.path(), database.connector(), limits());
    let ids = |triggered: Vec<Result<Triggered, TriggerError>>| {
        let ids = triggered.into_iter().map(|triggered| triggered.unwrap().report_id);
        ids.collect::<BTreeSet<_>>()
    };
    // The first has asked for its point, so that it is nobody else's.
    let running = reports.trigger(LATEST_REPORT).await.unwrap().report_id;
    let waiting = ids(join_all((0..200).map(|_| reports.trigger(LATEST_REPORT))).await);
    assert_eq!(waiting.len(), 1, "far more than the queue holds");
    assert!(!waiting.contains(&running));
    let others = ids(join_all((0..20).map(|number| reports.trigger(request(number % 2)))).await);
    assert_eq!(others.len(), 2, "other options are another report");
    assert!(others.is_disjoint(&waiting));
    assert_eq!(ids(vec![reports.trigger(LATEST_REPORT).await]), waiting);

    source.gate.add_permits(1);
    end_of(&reports, running).await.unwrap();
    // Now the second renders: it may have asked for its point before this commit.
    within(Duration::from_secs(5), "the second has its turn", async || {
        source.renders() == 2
    })
    .await;
    let later = ids(vec![reports.trigger(LATEST_REPORT).await]);
    assert!(later.is_disjoint(&waiting), "a report that runs is not shared");
    source.gate.add_permits(OPEN);
    for id in waiting.iter().chain(&others).chain(&later) {
        end_of(&reports, *id).await.unwrap();
    }
    assert_ne!(
        ids(vec![reports.trigger(LATEST_REPORT).await]),
        later,
        "nor one that is complete"
    );
    until(&database, "count(*) = 6 AND bool_and(state = 'complete')").await;
}

#[tokio::test]
async fn all_who_share_a_report_learn_that_it_could_not_be_recorded() {
    let (mut database, csvs) = (TestDatabase::start_alone(&[]).await, tempdir().unwrap());
    let source = FakeSource::new(0);
    let reports = registry(&source, csvs.path(), database.connector(), limits());
    let running = reports.trigger(LATEST_REPORT).await.unwrap().report_id;
    database.down();
    for triggered in join_all((0..5).map(|_| reports.trigger(LATEST_REPORT))).await {
        assert!(matches!(triggered, Err(TriggerError::Table(_))), "{triggered:?}");
    }
    database.up();
    source.gate.add_permits(OPEN);
    let again = reports.trigger(LATEST_REPORT).await.unwrap().report_id;
    end_of(&reports, running).await.unwrap();
    end_of(&reports, again).await.unwrap();
}

#[test]
fn reports_cut_off_by_a_kill_are_ended_by_the_next_life() {
    let life = tokio::runtime::Runtime::new().unwrap();
    let next_life = tokio::runtime::Runtime::new().unwrap();
    let (database, csvs) = (next_life.block_on(TestDatabase::start()), tempdir().unwrap());
    let stuck = FakeSource::new(0);
    let early = LATEST.plus(-399 * HOUR_US);
    let (now, latest, uncovered) = life.block_on(async {
        let reports = registry(&stuck, csvs.path(), database.connector(), limits());
        let now = reports.trigger(ReportRequest::default()).await.unwrap();
        let latest = reports.trigger(LATEST_REPORT).await.unwrap();
        let as_of = AsOf::At(early);
        let request = ReportRequest { as_of, ..LATEST_REPORT };
        let uncovered = reports.trigger(request).await.unwrap();
        (now, latest, uncovered)
    });
    // Every task ends where it stands.
    life.shutdown_background();

    next_life.block_on(async {
        let source = FakeSource::new(OPEN);
        let mut coverage = source.coverage.lock().unwrap().take().unwrap();
        let reports = registry(&source, csvs.path(), database.connector(), limits());
        reports.recover();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let waiting = reports.find(now.report_id).await.unwrap();
        assert!(matches!(waiting, Found::Running), "until loaded");
        coverage.earliest = early.plus(1);
        *source.coverage.lock().unwrap() = Some(coverage);

        let csv = end_of(&reports, now.report_id).await.unwrap();
        let as_of = now.as_of.unwrap();
        let expected = csv_of(as_of, Windows::Calendar, ClosedTime::Uptime);
        assert_eq!(csv, expected, "as of its own trigger");
        end_of(&reports, latest.report_id).await.unwrap();
        let reason = end_of(&reports, uncovered.report_id).await.unwrap_err();
        assert!(reason.contains("rollups now begin at"), "{reason}");
        until(&database, "bool_and(state <> 'running')").await;
        until(&database, "count(*) FILTER (WHERE state = 'failed') = 1").await;
    });
}

#[tokio::test]
async fn a_database_that_is_away_delays_the_row_but_not_the_report() {
    let (mut database, csvs) = (TestDatabase::start_alone(&[]).await, tempdir().unwrap());
    let source = FakeSource::new(0);
    let reports = registry(&source, csvs.path(), database.connector(), limits());
    reports.recover();
    let id = reports.trigger(LATEST_REPORT).await.unwrap().report_id;
    database.down();
    source.gate.add_permits(1);
    end_of(&reports, id).await.unwrap();
    assert!(reports.find(Uuid::new_v4()).await.is_err(), "not unknown");
    let refused = reports.trigger(LATEST_REPORT).await.unwrap_err();
    assert!(matches!(refused, TriggerError::Table(_)), "{refused}");
    database.up();
    until(&database, "count(*) = 1 AND bool_and(state = 'complete')").await;
}

/// What a crash of the server does to an ending that was not on disk yet, done by hand.
#[tokio::test]
async fn an_ending_that_the_database_forgot_is_written_again() {
    let (database, csvs) = (TestDatabase::start().await, tempdir().unwrap());
    let source = FakeSource::new(2);
    let reports = registry(&source, csvs.path(), database.connector(), limits());
    reports.recover();
    let id = reports.trigger(LATEST_REPORT).await.unwrap().report_id;
    end_of(&reports, id).await.unwrap();
    until(&database, "bool_and(state = 'complete')").await;
    let admin = database.connect().await;
    let undo = "UPDATE public.reports SET state = 'running', csv_bytes = NULL; \
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
        AND datname = current_database()";
    admin.batch_execute(undo).await.unwrap();
    // The next use of the table, whatever it is, finds the session lost.
    while reports.find(Uuid::new_v4()).await.is_err() {}
    until(&database, "bool_and(state = 'complete' AND csv_bytes > 0)").await;
    assert_eq!(source.gate.available_permits(), 1, "made once only");
}

#[tokio::test]
async fn a_client_that_hangs_up_during_the_trigger_leaves_no_running_row() {
    let (database, csvs) = (TestDatabase::start().await, tempdir().unwrap());
    let source = FakeSource::new(OPEN);
    let reports = registry(&source, csvs.path(), database.connector(), limits());
    let admin = database.connect().await;
    let lock = "BEGIN; LOCK TABLE public.reports IN EXCLUSIVE MODE";
    admin.batch_execute(lock).await.unwrap();
    let trigger = reports.trigger(LATEST_REPORT);
    let gone = tokio::time::timeout(Duration::from_millis(200), trigger).await;
    assert!(gone.is_err(), "the INSERT waits");
    admin.batch_execute("COMMIT").await.unwrap();
    until(&database, "count(*) = 1 AND bool_and(state = 'complete')").await;
}

#[tokio::test]
async fn an_archive_that_cannot_be_written_fails_the_report_and_leaves_nothing() {
    let (database, dir) = (TestDatabase::start().await, tempdir().unwrap());
    let csvs = dir.path().join("csvs");
    let source = FakeSource::new(OPEN);
    let reports = registry(&source, &csvs, database.connector(), limits());
    std::fs::remove_dir(&csvs).unwrap();
    std::fs::write(&csvs, "in the way").unwrap();
    let id = reports.trigger(LATEST_REPORT).await.unwrap().report_id;
    let reason = end_of(&reports, id).await.unwrap_err();
    assert_eq!(reason, "the report archive failed: not a directory");
    until(
        &database,
        "bool_and(state = 'failed' AND csv_bytes IS NULL AND finished_at IS NOT NULL \
         AND failure = 'the report archive failed: not a directory')",
    )
    .await;
    assert_eq!(std::fs::read(&csvs).unwrap(), b"in the way");

    std::fs::remove_file(&csvs).unwrap();
    let id = reports.trigger(LATEST_REPORT).await.unwrap().report_id;
    end_of(&reports, id).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_not_what_was_written_is_not_served() {
    let (database, csvs) = (TestDatabase::start().await, tempdir().unwrap());
    let source = FakeSource::new(OPEN);
    let one_remembered = Limits {
        ended_max: 1,
        ..limits()
    };
    let reports = registry(&source, csvs.path(), database.connector(), one_remembered);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = reports.trigger(LATEST_REPORT).await.unwrap().report_id;
        end_of(&reports, id).await.unwrap();
        ids.push(id);
    }
    until(&database, "bool_and(state = 'complete')").await;
    let file = |id: Uuid| csvs.path().join(format!("{id}.csv"));
    for (id, expected) in [(ids[0], "length"), (ids[2], "length")] {
        std::fs::write(file(id), "half").unwrap();
        let reason = end_of(&reports, id).await.unwrap_err();
        assert!(reason.contains(expected), "{reason}");
    }
    std::fs::remove_file(file(ids[1])).unwrap();
    let reason = end_of(&reports, ids[1]).await.unwrap_err();
    assert!(reason.contains("missing"), "{reason}");
}

#[tokio::test]
async fn a_run_that_panics_or_hangs_has_failed() {
    let (database, csvs) = (TestDatabase::start().await, tempdir().unwrap());
    let source = FakeSource::with(OPEN, Behaviour::Panic);
    let reports = registry(&source, csvs.path(), database.connector(), limits());
    let id = reports.trigger(LATEST_REPORT).await.unwrap().report_id;
    let reason = end_of(&reports, id).await.unwrap_err();
    assert!(reason.contains("internal error"), "{reason}");

    let short = Limits {
        run_max: Duration::from_millis(100),
        ..limits()
    };
    let reports = registry(&FakeSource::new(0), csvs.path(), database.connector(), short);
    let id = reports.trigger(LATEST_REPORT).await.unwrap().report_id;
    let reason = end_of(&reports, id).await.unwrap_err();
    assert!(reason.contains("took longer than 100ms"), "{reason}");
    until(&database, "count(*) = 2 AND bool_and(state = 'failed')").await;
}

/// Not a benchmark: shows what the registry, the table and the archive add to rendering.
#[tokio::test(flavor = "multi_thread")]
async fn from_trigger_to_csv_takes_milliseconds() {
    let (database, csvs) = (TestDatabase::start().await, tempdir().unwrap());
    let source = FakeSource::new(OPEN);
    let reports = registry(&source, csvs.path(), database.connector(), limits());
    let mut took_us = Vec::new();
    for _ in 0..100 {
        let started = Instant::now();
        let id = reports.trigger(LATEST_REPORT).await.unwrap().report_id;
        assert!(!end_of(&reports, id).await.unwrap().is_empty());
        took_us.push(started.elapsed().as_micros());
    }
    took_us.sort_unstable();
    let (median, worst) = (took_us[50], took_us[99]);
    println!("trigger to CSV in hand: median {median} us, worst {worst} us");
    assert!(median < 100_000, "median {median} us");
}
