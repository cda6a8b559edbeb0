//! The log for machines.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::support::serve::Serve;
use super::support::{TestDatabase, fixture, state_dir, within};

/// The id of a report that was just triggered.
fn triggered(serve: &mut Serve) -> String {
    let (status, body) = serve.request("POST", "/trigger_report?as_of=2023-11-08T12:17:00Z");
    assert_eq!(status, 202, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    body["report_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_line_about_a_report_has_its_id() {
    let database = TestDatabase::start().await;
    fixture::fill(&database.connect().await, 3).await;
    let dir = state_dir();
    // Debug lines too; those of other crates are not about reports.
    let variables = [
        ("UPTALLY__LOG__FORMAT", "json"),
        ("UPTALLY__LOG__FILTER", "info,uptally::report=debug"),
    ];
    let mut serve = Serve::spawn_with(dir.path(), Some(database.url()), &variables);
    serve.wait_until_ready();
    let mut ids = BTreeSet::from([triggered(&mut serve)]);
    let first = ids.first().unwrap().clone();
    let ended = |serve: &Serve, count: usize| {
        let log = serve.log();
        log.iter()
            .filter(|line| line.contains("report complete") || line.contains("report failed"))
            .count()
            == count
    };
    within(Duration::from_secs(9), "it is complete", async || ended(&serve, 1)).await;
    // The file of one whose row does not say so yet may still be on its way to the disk, and would be missed.
    let client = database.connect().await;
    within(Duration::from_secs(9), "its row says so", async || {
        let complete = "SELECT count(*) FROM public.reports WHERE state = 'complete'";
        client.query_one(complete, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let csvs = serve.csv_dir().to_owned();
    fs::remove_dir_all(&csvs).unwrap();
    fs::write(&csvs, "no directory").unwrap();
    // One that cannot be written, and one that cannot be read: in memory only the newest is kept.
    ids.insert(triggered(&mut serve));
    within(Duration::from_secs(9), "it has failed", async || ended(&serve, 2)).await;
    serve.request("GET", &format!("/get_report?report_id={first}"));
    serve.request("GET", &format!("/get_report?report_id={first}"));

    let mut told: BTreeSet<String> = BTreeSet::new();
    for line in serve.log() {
        let object: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["timestamp", "level", "target", "message"] {
            assert!(object[key].is_string(), "no {key}: {line}");
        }
        let target = object["target"].as_str().unwrap();
        let message = object["message"].as_str().unwrap();
        let about_one =
            target.starts_with("uptally::report") || message.contains("a report") || message.contains("report ");
        if about_one {
            let id = object["report_id"]
                .as_str()
                .unwrap_or_else(|| panic!("no report_id: {line}"));
            assert!(ids.contains(id), "{line}");
            told.insert(format!("{} {}", object["level"].as_str().unwrap(), message));
        }
    }
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    assert_eq!(
        told,
        [
            "ERROR a report could not be archived",
            "INFO report complete",
            "WARN report failed",
        ]
    );
}
