//! The auditor: whatever is not what the raw rows say is noticed while the daemon follows, counted, and put right.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::Duration;

use metrics::LocalRecorderGuard;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use support::check::{reports_are_right, verify_is_clean};
use support::daemon::Following;
use support::fixture::{NOW, fill};
use support::writers::Writers;
use support::{TestDatabase, within};
use uptally::audit::Sample;
use uptally::clock::Clock;
use uptally::daemon::Settings;
use uptally::feed::{Reading, Scope};
use uptally::rollup::{Limits, Observation, Rollup};
use uptally::store::Status;
use uptally::time::HOUR_US;

/// Stores are picked at random: several tries until the right one comes.
const PATIENCE: Duration = Duration::from_secs(20);

fn auditing() -> Settings {
    Settings {
        // There is one audit for each look at most.
        poll_interval: Duration::from_millis(5),
        audit_interval: Some(Duration::from_millis(5)),
        flush_interval: Duration::from_millis(10),
        ..Settings::default()
    }
}

/// Collects the figures of this thread; all of a test's tasks run on it.
fn figures() -> (PrometheusHandle, LocalRecorderGuard<'static>) {
    let recorder: &PrometheusRecorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
    (recorder.handle(), metrics::set_default_local_recorder(recorder))
}

/// A figure, after a pause: making the page costs the one thread more than an audit does.
async fn figure(figures: &PrometheusHandle, name: &str) -> u64 {
    tokio::time::sleep(Duration::from_millis(20)).await;
    let page = figures.render();
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.map_or(0, |value| value.parse().unwrap())
}

/// Tables that were written to behind the daemon's back: a cell's downtime, a store's row, opening time, a cell that is
/// gone, one too many.
#[tokio::test]
async fn drift_in_the_tables_is_noticed_counted_and_healed() {
    let (figures, _guard) = figures();
    let server = TestDatabase::start().await;
    let (database, client) = (server.database(), server.connect().await);
    fill(&client, 30).await;
    let daemon = Following::start(&database, &Clock::standing(NOW).0, auditing()).await;
    within(PATIENCE, "some cells were audited", async || {
        figure(&figures, "uptally_audit_cells_total").await > 1_000
    })
    .await;
    let mut drift = 0;
    assert_eq!(figure(&figures, "uptally_audit_drift_total").await, drift);
    // Half of the time the newest week is sampled, and one of seven stores.
    let lately =
        "cell_start > '2023-11-03' AND store_no = (SELECT store_no FROM uptally.rollup_store WHERE store_id = 'howe')";
    for sql in [
        format!("UPDATE uptally.rollup_down SET down_us = 1 WHERE {lately}"),
        format!("DELETE FROM uptally.rollup_down WHERE {lately}"),
        "INSERT INTO uptally.rollup_down SELECT store_no, '2023-11-06 10:00+00', 7 FROM uptally.rollup_store
         WHERE store_id = 'silent'"
            .to_owned(),
        "UPDATE uptally.rollup_store SET last_status = 'inactive', last_observed_at = '2023-11-01', settled_to = '2023-11-01'
         WHERE store_id = 'beirut'"
            .to_owned(),
        "UPDATE uptally.rollup_open SET open_us[3] = 1 WHERE day_start > '2023-11-03'".to_owned(),
    ] {
        client.batch_execute(&sql).await.expect(&sql);
        within(PATIENCE, &sql, async || figure(&figures, "uptally_audit_drift_total").await > drift).await;
        // Healed: the tables are right, and no more is found.
        within(PATIENCE, "the tables are right", async || {
            let verdict = uptally::verify::verify(&database, Limits::default(), NOW, 4_000_000).await;
            verdict.unwrap().difference_count == 0
        })
        .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        drift = figure(&figures, "uptally_audit_drift_total").await;
        let cells = figure(&figures, "uptally_audit_cells_total").await;
        within(PATIENCE, "more was audited", async || {
            figure(&figures, "uptally_audit_cells_total").await > cells + 2_000
        })
        .await;
        assert_eq!(figure(&figures, "uptally_audit_drift_total").await, drift, "after {sql}");
        reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    }
    daemon.stop().await;
    verify_is_clean(&database, NOW).await;
}

/// Rows that a superuser slips past the feed: no wiring is touched, and no trigger could see it.
#[tokio::test]
async fn drift_in_memory_is_noticed_counted_and_healed() {
    let (figures, _guard) = figures();
    let server = TestDatabase::start().await;
    let (database, client) = (server.database(), server.connect().await);
    fill(&client, 10).await;
    let daemon = Following::start(&database, &Clock::standing(NOW).0, auditing()).await;
    // What a bug in the feed would do: the note that says what went away is itself taken away, in its own transaction.
    client
        .batch_execute(
            "BEGIN;
             DELETE FROM public.store_activity WHERE store_id IN ('howe', 'chicago') AND timestamp_utc > '2023-11-04';
             DELETE FROM uptally.invalidation;
             COMMIT",
        )
        .await
        .unwrap();
    within(PATIENCE, "it is noticed", async || {
        figure(&figures, "uptally_audit_drift_total").await > 0
    })
    .await;
    within(PATIENCE, "the tables are right", async || {
        let verdict = uptally::verify::verify(&database, Limits::default(), NOW, 4_000_000).await;
        verdict.unwrap().difference_count == 0
    })
    .await;
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.stop().await;
    verify_is_clean(&database, NOW).await;
}

#[tokio::test]
async fn audits_beside_writers_find_nothing() {
    let (figures, _guard) = figures();
    let server = TestDatabase::start_alone(&[("deadlock_timeout", "50ms")]).await;
    let (database, client, seed) = (server.database(), server.connect().await, support::seed());
    let end = Clock::System.now();
    let daemon = Following::start(&database, &Clock::System, auditing()).await;
    let writers = Writers::start(&server.url().parse().unwrap(), 8, seed, end);
    tokio::time::sleep(Duration::from_secs(4)).await;
    writers.stop().await;
    let cells = figure(&figures, "uptally_audit_cells_total").await;
    assert!(cells > 100, "only {cells} cells were audited");
    assert_eq!(figure(&figures, "uptally_audit_drift_total").await, 0);
    reports_are_right(&daemon.handle, &client, Clock::System.now(), end.plus(-HOUR_US)).await;
    daemon.stop().await;
    verify_is_clean(&database, Clock::System.now()).await;
}

/// A sample is bounded however many rows a store has, and it sees a change of a microsecond.
#[tokio::test]
async fn a_sample_is_bounded_and_exact() {
    let server = TestDatabase::start().await;
    let (database, client) = (server.database(), server.connect().await);
    client
        .batch_execute(
            "INSERT INTO public.store_activity SELECT 'busy', '2023-11-01'::timestamptz + n * interval '20 s',
                 CASE n % 3 WHEN 0 THEN 'inactive' ELSE 'active' END FROM generate_series(0, 25000) n",
        )
        .await
        .unwrap();
    let mut session = database.connect("test").await.unwrap();
    let reading = Reading::start(&mut session, Scope::Inputs).await.unwrap();
    let mut rollup = reading.rebuild(Limits::default(), NOW, 100_000, || ()).await.unwrap();
    let sample = async |rollup: &Rollup| Sample::take(&reading, rollup).await.unwrap().unwrap();
    for _ in 0..20 {
        let sample = sample(&rollup).await;
        // 2,000 rows are a bit more than eleven hours, and the coverage begins an hour before the first.
        assert!((1..=12).contains(&sample.cells()), "{} cells", sample.cells());
        assert_eq!(sample.against_memory(&rollup), []);
    }
    let store = rollup.find("busy").unwrap();
    let at = "2023-11-06T10:00:00.000001Z".parse().unwrap();
    let slipped_in = Observation {
        at,
        status: Status::Inactive,
    };
    let mut late = rollup.apply(&mut [(store, slipped_in)]);
    assert!(late.pop().is_none_or(|late| late.store == store));
    // Whether by the row itself or by its absence from raw: only the cell of ten o'clock can differ.
    let last = Observation {
        at: "2023-11-06T18:53:20.000001Z".parse().unwrap(),
        status: Status::Active,
    };
    rollup.apply(&mut [(store, last)]);
    let differences = sample(&rollup).await.against_memory(&rollup);
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!(differences[0].what, "last observation in memory");
}
