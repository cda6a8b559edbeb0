//! The figures and the log of a running daemon, held against what is written about them: docs/metrics.md, the alert rules
//! and the dashboard. A figure that is renamed, or one that nobody explains, fails here.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![allow(clippy::float_cmp, reason = "figures that count are whole numbers")]

mod exported;
mod log;
mod queries;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use exported::Exported;
use support::serve::Serve;
use support::{TestDatabase, fixture, state_dir, within};

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[tokio::test]
async fn what_is_exported_is_what_is_written() {
    let database = TestDatabase::start().await;
    let client = database.connect().await;
    fixture::fill(&client, 3).await;
    let dir = state_dir();
    // Due on leap days, so that it is there and does nothing.
    let job = [("UPTALLY__JOBS__REPORTS", "leap 0 0 29 2 * UTC")];
    let mut serve = Serve::spawn_with(dir.path(), Some(database.url()), &job);
    serve.wait_until_ready();
    serve.report(fixture::NOW);
    assert_eq!(serve.request("GET", "/nowhere").0, 404);
    let exported = Exported::read(&serve.request("GET", "/metrics").1);

    has_good_names(&exported);
    is_documented(&exported);
    let queries = queries::all();
    assert!(queries.len() > 50, "{}", queries.len());
    let wrong: Vec<String> = queries.iter().flat_map(|query| query.faults(&exported)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    tells_the_truth(&mut serve, &client).await;
}

fn has_good_names(exported: &Exported) {
    for (name, family) in &exported.families {
        let ours = name.starts_with("uptally_") || name.starts_with("process_");
        assert!(ours, "{name}: prefix");
        assert!(!family.help.is_empty(), "{name}: help");
        assert_eq!(
            name.ends_with("_total"),
            family.kind == "counter",
            "{name}: {}",
            family.kind
        );
        if family.kind == "histogram" {
            assert!(name.ends_with("_seconds") || name.ends_with("_bytes"), "{name}: unit");
        }
        for unit in ["_ms", "_us", "_millis", "_kb", "_mb", "_minutes"] {
            assert!(!name.contains(unit), "{name}: base units only");
        }
        for (label, values) in &family.labels {
            assert!(values.len() <= 20, "{name}: {} values of {label}", values.len());
        }
    }
}

fn is_documented(exported: &Exported) {
    let paper = read("docs/metrics.md");
    let mut documented = BTreeSet::new();
    let mut wrong = Vec::new();
    for line in paper.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning, _] = cells.as_slice() else {
            panic!("five cells: {line}");
        };
        let (name, labels) = (name.replace('`', ""), labels.replace('`', ""));
        let labels: BTreeSet<&str> = labels.split(", ").filter(|label| !label.is_empty()).collect();
        assert!(!meaning.is_empty(), "{name}");
        match exported.families.get(&name) {
            None => wrong.push(format!("{name} is documented and not exported")),
            Some(family) => {
                let found: BTreeSet<&str> = family.labels.keys().map(String::as_str).collect();
                if family.kind != *kind || found != labels {
                    wrong.push(format!("{name} is a {} with {found:?}", family.kind));
                }
            }
        }
        assert!(documented.insert(name.clone()), "{name} is listed twice");
    }
    let missing = exported.families.keys().filter(|name| !documented.contains(*name));
    wrong.extend(missing.map(|name| format!("{name} is exported and not documented")));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Some figures against what is known otherwise.
async fn tells_the_truth(serve: &mut Serve, client: &tokio_postgres::Client) {
    let stores: i64 = client
        .query_one(
            "SELECT count(DISTINCT store_id) FROM (SELECT store_id FROM public.store_activity UNION \
             SELECT store_id FROM public.store_business_hours UNION SELECT store_id FROM public.store_timezones) s",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    let before = Exported::read(&serve.request("GET", "/metrics").1);
    #[expect(clippy::cast_precision_loss, reason = "few")]
    let stores = stores as f64;
    assert_eq!(before.value("uptally_rollup_stores"), stores, "stores");
    assert_eq!(before.value("uptally_ready"), 1.0);
    assert_eq!(before.value("uptally_feed_state{state=\"following\"}"), 1.0);
    assert_eq!(before.sum("uptally_feed_state"), 1.0, "one state at a time");
    assert_eq!(before.value("uptally_reports_total{outcome=\"complete\"}"), 1.0);
    assert_eq!(
        before.value("uptally_report_stage_seconds_count{stage=\"render\"}"),
        1.0
    );
    assert_eq!(
        before.value("uptally_rollup_rebuilds_total{reason=\"first_start\"}"),
        1.0
    );
    assert!(before.value("uptally_archive_written_bytes_total") > 100.0);
    assert!(before.value("uptally_http_connections") >= 1.0, "the one that asks");

    // Once asleep, rows wake it by the bell: they are in memory long before the next poll would find them.
    let sleeps = before.value("uptally_feed_sleeps_total");
    within(Duration::from_secs(9), "it sleeps again", async || {
        Exported::read(&serve.request("GET", "/metrics").1).value("uptally_feed_sleeps_total") > sleeps
    })
    .await;
    let (fresh, rows) = (
        before.value("uptally_feed_freshness_seconds_count"),
        before.value("uptally_feed_rows_total"),
    );
    client
        .batch_execute("INSERT INTO public.store_activity VALUES ('fresh', '2023-11-08 12:00 UTC', 'active')")
        .await
        .unwrap();
    within(Duration::from_secs(9), "the row is in memory", async || {
        let now = Exported::read(&serve.request("GET", "/metrics").1);
        now.value("uptally_feed_rows_total") > rows
    })
    .await;
    within(Duration::from_secs(9), "the row is in the tables", async || {
        let now = Exported::read(&serve.request("GET", "/metrics").1);
        now.value("uptally_ledger_lag_seconds") == 0.0
            && now.value("uptally_ledger_flushed_rows_total") > before.value("uptally_ledger_flushed_rows_total")
    })
    .await;
    let after = Exported::read(&serve.request("GET", "/metrics").1);
    assert_eq!(after.value("uptally_feed_freshness_seconds_count"), fresh + 1.0);
    let took = after.value("uptally_feed_freshness_seconds_sum") - before.value("uptally_feed_freshness_seconds_sum");
    assert!((0.0..0.9).contains(&took), "by the bell, not by a poll: {took} s");
    let newest = after.value("uptally_rollup_newest_observation_timestamp_seconds");
    assert!(newest >= 1_699_444_800.0, "{newest}");
}

#[tokio::test]
async fn why_it_does_not_follow_is_a_word() {
    let database = TestDatabase::start().await;
    let dirs = (state_dir(), state_dir());
    let variables = [("UPTALLY__FEED__CHECK_INTERVAL_MS", "200")];
    let mut first = Serve::spawn_with(dirs.0.path(), Some(database.url()), &variables);
    first.wait_until_ready();
    let mut second = Serve::spawn(dirs.1.path(), Some(database.url()));
    let state = |serve: &mut Serve, state: &str| {
        let exported = Exported::read(&serve.request("GET", "/metrics").1);
        assert_eq!(exported.sum("uptally_feed_state"), 1.0, "one state at a time");
        exported.value(&format!("uptally_feed_state{{state=\"{state}\"}}")) == 1.0
    };
    let patience = Duration::from_secs(20);
    within(patience, "the second stands by", async || state(&mut second, "standby")).await;
    let client = database.connect().await;
    client
        .batch_execute("ALTER TABLE public.store_activity DISABLE TRIGGER ALL")
        .await
        .unwrap();
    within(patience, "the wiring is broken", async || state(&mut first, "wiring")).await;
    let exported = Exported::read(&first.request("GET", "/metrics").1);
    assert_eq!(exported.value("uptally_ready"), 0.0);
    assert!(exported.value("uptally_feed_restarts_total") >= 1.0);
}
