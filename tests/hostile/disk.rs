//! Directories of reports that are full, read-only, gone, or no directories.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::filled;
use super::support::TestDatabase;
use super::support::serve::Serve;
use super::support::{state_dir, within};

/// Triggers a report and waits for its end: status and body.
fn report(serve: &mut Serve) -> (u16, String) {
    let (status, body) = serve.request("POST", "/trigger_report?as_of=latest");
    assert_eq!(status, 202, "{body}");
    let path = format!("/get_report?report_id={}", body.split('"').nth(3).unwrap());
    loop {
        match serve.request("GET", &path) {
            (202, _) => std::thread::sleep(Duration::from_millis(5)),
            ended => return ended,
        }
    }
}

fn fails_because(serve: &mut Serve, reason: &str) {
    let (status, body) = report(serve);
    assert_eq!(status, 500, "{body}");
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["type"], "urn:uptally:problem:report-failed");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(reason), "{detail}");
    assert!(!detail.contains('/'), "{detail}");
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// A row of a new store is in a report soon after: rows are followed whatever is wrong with the disk.
async fn rows_still_come(database: &TestDatabase, serve: &mut Serve, store: &str) {
    let insert = format!("INSERT INTO public.store_activity VALUES ('{store}', '2023-11-08 11:00:00Z', 'active')");
    let before = stores(serve);
    database.connect().await.batch_execute(&insert).await.unwrap();
    within(Duration::from_secs(5), "the row is followed", async || {
        stores(serve) > before
    })
    .await;
}

fn stores(serve: &mut Serve) -> u64 {
    let (_, metrics) = serve.request("GET", "/metrics");
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("uptally_feed_rows_total "));
    line.map_or(0, |count| count.parse().unwrap())
}

/// In mount points of the process's own, so that whatever happens nothing is left behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_or_read_only_disk_fails_reports_and_nothing_else() {
    let mount = [
        "unshare",
        "-m",
        "sh",
        "-c",
        "mkdir -p csvs && mount -t tmpfs -o size=1m none csvs && exec \"$@\"",
        "sh",
    ];
    let probe = ["-m", "sh", "-c", "mount -t tmpfs -o size=1m none /tmp"];
    if !Command::new("unshare")
        .args(probe)
        .output()
        .is_ok_and(|done| done.status.success())
    {
        println!("skipped: mounting a small disk needs Linux and root");
        return;
    }
    let (database, state) = (filled().await, state_dir());
    let mut serve = Serve::spawn_by(&mount, state.path(), Some(database.url()), &[]);
    serve.wait_until_ready();
    let process = serve.pid().as_raw_nonzero();
    let csvs = PathBuf::from(format!("/proc/{process}/root{}/csvs", state.path().display()));
    assert_eq!(report(&mut serve).0, 200);
    let whole = names(&csvs);

    fs::write(csvs.join("filler"), vec![b'x'; 2 << 20]).unwrap_err();
    fails_because(&mut serve, "no storage space");
    let mut left = names(&csvs);
    left.retain(|name| name != "filler");
    assert_eq!(left, whole, "no part of a report stays");
    rows_still_come(&database, &mut serve, "while full").await;
    fs::remove_file(csvs.join("filler")).unwrap();
    let (status, csv) = report(&mut serve);
    assert_eq!(status, 200);
    assert!(csv.contains("\nwhile full,"), "{csv}");

    let remount = |how: &str| {
        let pid = process.to_string();
        let how = format!("remount,{how}");
        let dir = state.path().join("csvs");
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid, "-m", "mount", "-o", &how]).arg(dir);
        assert!(command.status().unwrap().success());
    };
    remount("ro");
    fails_because(&mut serve, "read-only");
    rows_still_come(&database, &mut serve, "while read-only").await;
    remount("rw");
    assert_eq!(report(&mut serve).0, 200);
    assert!(
        names(&csvs).iter().all(|name| !name.contains('#')),
        "{:?}",
        names(&csvs)
    );
    let panics = serve
        .log()
        .iter()
        .filter(|line| line.contains("internal error"))
        .count();
    assert_eq!(panics, 0);
}

/// A rename, then a sync that fails.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature failpoints")]
async fn a_file_that_cannot_be_renamed_or_synced_fails_its_report() {
    let (database, state) = (filled().await, state_dir());
    let plan = [(
        "UPTALLY_FAILPOINTS",
        "report.file_written=error@1,report.synced=error@1",
    )];
    let mut serve = Serve::spawn_with(state.path(), Some(database.url()), &plan);
    serve.wait_until_ready();
    let csvs = state.path().join("csvs");
    fails_because(&mut serve, "other error");
    assert!(names(&csvs).is_empty(), "no part of a report stays");
    // Whole and readable, but nobody can say for how long.
    let (status, body) = serve.request("POST", "/trigger_report?as_of=latest");
    assert_eq!(status, 202, "{body}");
    let path = format!("/get_report?report_id={}", body.split('"').nth(3).unwrap());
    within(Duration::from_secs(5), "it has failed", async || {
        serve.request("GET", &path).0 == 500
    })
    .await;
    assert_eq!(report(&mut serve).0, 200);
    rows_still_come(&database, &mut serve, "after the sync").await;
    let client = database.connect().await;
    within(Duration::from_secs(5), "all rows say how they ended", async || {
        let sql =
            "SELECT count(*) FILTER (WHERE state = 'failed') = 2 AND count(*) FILTER (WHERE state = 'complete') = 1
                   FROM public.reports";
        client.query_one(sql, &[]).await.unwrap().get(0)
    })
    .await;
    assert!(!serve.log().iter().any(|line| line.contains("internal error")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_goes_is_made_again_and_one_that_is_none_fails_reports() {
    let (database, state) = (filled().await, state_dir());
    let mut serve = Serve::spawn(state.path(), Some(database.url()));
    serve.wait_until_ready();
    let csvs = state.path().join("csvs");
    let (status, body) = serve.request("POST", "/trigger_report?as_of=latest");
    assert_eq!(status, 202, "{body}");
    let first = format!("/get_report?report_id={}", body.split('"').nth(3).unwrap());
    // Twice: the first to fetch the newest gets it from memory.
    for _ in 0..2 {
        while serve.request("GET", &first).0 == 202 {}
    }
    fs::remove_dir_all(&csvs).unwrap();
    let (status, body) = serve.request("GET", &first);
    assert_eq!(status, 410, "{body}");
    assert!(body.contains("urn:uptally:problem:report-gone"), "{body}");
    assert_eq!(report(&mut serve).0, 200);
    assert_eq!(names(&csvs).len(), 1);

    fs::remove_dir_all(&csvs).unwrap();
    fs::write(&csvs, "in the way").unwrap();
    fails_because(&mut serve, "not a directory");
    rows_still_come(&database, &mut serve, "no directory").await;
    fs::remove_file(&csvs).unwrap();
    assert_eq!(report(&mut serve).0, 200);
}
