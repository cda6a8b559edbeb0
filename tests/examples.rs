//! The examples that are no Rust, each run against a real daemon. Where a program that one needs is missing, it is skipped,
//! and says so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::serve::Serve;
use support::{TestDatabase, state_dir};
use uptally::time::Timestamp;

const AS_OF: &str = "2023-01-23T18:03:00Z";

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// Whether a program is there; says so if not.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

/// What a command prints, if it succeeds.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The stores of docs/example.
async fn example_stores() -> TestDatabase {
    let database = TestDatabase::start().await;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/example");
    let mut import = Command::new(env!("CARGO_BIN_EXE_uptally"));
    import.args([
        "import",
        "--activity",
        "status.csv",
        "--hours",
        "hours.csv",
        "--timezones",
        "timezones.csv",
        "--closures",
        "closures.csv",
    ]);
    run(import.current_dir(dir).env("DATABASE_URL", database.url()));
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn the_poller_writes_what_it_finds() {
    if !has("psql") || !has("curl") {
        return;
    }
    let (database, state) = (TestDatabase::start().await, state_dir());
    let mut serve = Serve::spawn(state.path(), Some(database.url()));
    serve.wait_until_ready();
    // One store that answers, one that answers with an error, one that is not there.
    let address = serve.address();
    let list = format!("a http://{address}/healthz\nb http://{address}/none\nc http://127.0.0.1:1/\n");
    let stores = state.path().join("stores.txt");
    std::fs::write(&stores, list).unwrap();
    let poll = || {
        run(Command::new(example("poller.sh"))
            .arg(&stores)
            .env("DATABASE_URL", database.url()))
    };
    assert_eq!(poll(), "");
    let sql = "SELECT store_id, status, now() - timestamp_utc < '1 minute' FROM public.store_activity ORDER BY 1";
    let rows = database.connect().await.query(sql, &[]).await.unwrap();
    let found: Vec<(String, String, bool)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let expected = [("a", "active"), ("b", "inactive"), ("c", "inactive")];
    assert_eq!(
        found,
        expected.map(|(store, status)| (store.to_owned(), status.to_owned(), true))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_query_for_a_dashboard_names_the_worst_days() {
    if !has("psql") {
        return;
    }
    let (database, state) = (example_stores().await, state_dir());
    let mut serve = Serve::spawn(state.path(), Some(database.url()));
    serve.wait_until_ready();
    let query = || {
        let mut psql = Command::new("psql");
        psql.arg(database.url())
            .args(["-X", "--csv", "-f"])
            .arg(example("worst_days.sql"));
        run(&mut psql)
    };
    // Monday: the cinema is down for its three hours but one that is not over, the kiosk for half an hour. Sunday: the
    // florist for the hour before it closes.
    let expected = "store_id,day,hours_up,hours_down,uptime_percent\n\
                    cinema,2023-01-23,0.00,2.00,0.00\n\
                    florist,2023-01-22,1.00,1.00,50.00\n\
                    kiosk,2023-01-23,22.50,0.50,97.83\n";
    support::within(std::time::Duration::from_secs(5), "it is flushed", async || {
        query() == expected
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_written_as_spreadsheets_want_it() {
    if !has("python3") {
        return;
    }
    let (database, state) = (example_stores().await, state_dir());
    let mut serve = Serve::spawn(state.path(), Some(database.url()));
    serve.wait_until_ready();
    let output = state.path().join("report.csv");
    let script = |server: String| {
        let mut python = Command::new("python3");
        python
            .arg("-B")
            .arg(example("report_for_spreadsheet.py"))
            .arg(server)
            .arg(&output);
        python
    };
    let server = format!("http://{}", serve.address());
    run(script(server.clone()).args(["--as-of", AS_OF]));
    let text = std::fs::read_to_string(&output).unwrap();
    let plain = serve.report(AS_OF.parse::<Timestamp>().unwrap());
    let converted = plain.replace(',', ";").replace('.', ",").replace('\n', "\r\n");
    assert_eq!(text, format!("\u{feff}{converted}"));
    assert!(text.contains("bakery;15,00;24,00;168,00;45,00;0,00;0,00\r\n"), "{text}");
    let refused = script(server)
        .args(["--as-of", "1999-01-01T00:00:00Z"])
        .output()
        .unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("bad-parameter"));
}
