//! The password is in nothing that the program prints, records or answers, whatever goes wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use support::fixture::{NOW, fill};
use support::serve::Serve;
use support::tls::hba;
use support::{TestDatabase, state_dir};

/// Known here, and to be found nowhere. Encoded in a URL it reads the same.
const PASSWORD: &str = "Hunter2-geheim";

/// Fails if any of the texts holds the password or a good part of it.
fn holds_no_password(what: &str, text: &str) {
    for part in [PASSWORD, "geheim", "Hunter2"] {
        assert!(!text.contains(part), "{what} shows the password: {text}");
    }
}

/// What a command says, at debug level; it must fail unless `succeeds`.
fn told(url: &str, arguments: &[&str], succeeds: bool) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_uptally"))
        .args(arguments)
        .current_dir(std::env::temp_dir())
        .env("DATABASE_URL", url)
        .env("UPTALLY__LOG__FILTER", "trace")
        .env("UPTALLY__DATABASE__CONNECT_TIMEOUT_MS", "500")
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert_eq!(output.status.success(), succeeds, "{arguments:?}: {told}");
    assert!(!told.is_empty(), "{arguments:?} says nothing");
    told
}

#[test]
fn commands_that_fail_do_not_show_it() {
    // Takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    for (url, succeeds) in [
        (format!("postgres://ann:{PASSWORD}@127.0.0.1:1/d"), false),
        (
            format!("postgres://ann:{PASSWORD}@127.0.0.1:1/d?sslmode=verify-full"),
            false,
        ),
        (format!("postgres://ann:{PASSWORD}@{silent}/d"), false),
        (format!("postgres://ann:{PASSWORD}@no-such-host.invalid/d"), false),
        (
            format!("host=127.0.0.1 port=1 user=ann password='{PASSWORD}' sslmode=verify-full sslrootcert=/none"),
            false,
        ),
        // What is wrong with these, the configuration says.
        (format!("postgres://ann:{PASSWORD}@db.example/d?sslmode=prefer"), false),
        (
            format!("postgres://ann:{PASSWORD}@db.example/d?sslmode={PASSWORD}"),
            false,
        ),
        (
            format!("postgres://ann:{PASSWORD}@db.example/d?password={PASSWORD}&{PASSWORD}=1"),
            false,
        ),
        (format!("postgres://ann:x@{PASSWORD}@db.example/d"), false),
        (format!("postgres://ann:{PASSWORD}@db.example:{PASSWORD}/d"), false),
        (format!("postgres:/ann:{PASSWORD}@db.example/d"), false),
        (format!("host=db.example password={PASSWORD} geheim"), false),
        (format!("host=db.example password='{PASSWORD}"), false),
        (PASSWORD.to_owned(), false),
    ] {
        let mut all = String::new();
        for command in [&["verify"][..], &["report"], &["migrate"]] {
            all.push_str(&told(&url, command, succeeds));
        }
        holds_no_password(&url, &all);
    }
    for url in [
        format!("postgres://ann:{PASSWORD}@db.example/d?sslmode=require"),
        format!("host=db.example user=ann password='{PASSWORD}'"),
        format!("postgres://db.example/d?user=ann&password={PASSWORD}"),
    ] {
        let shown = told(&url, &["config"], true);
        assert!(shown.contains("ann:***@db.example"), "{shown}");
        holds_no_password("uptally config", &shown);
    }
}

/// Right, then wrong: in the log at debug level, in answers, and in what is recorded of a report.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_cannot_log_in_any_more_does_not_show_it() {
    let server = TestDatabase::start_alone(&[]).await;
    let client = server.connect().await;
    fill(&client, 2).await;
    let role = format!("CREATE ROLE daemon SUPERUSER LOGIN PASSWORD '{PASSWORD}'");
    client.batch_execute(&role).await.unwrap();
    hba(&client, "local all daemon scram-sha-256").await;
    let state = state_dir();
    let url = server.url_as(&format!("daemon:{PASSWORD}"));
    let mut serve = Serve::spawn_with(state.path(), Some(&url), &[("UPTALLY__LOG__FILTER", "trace")]);
    serve.wait_until_ready();
    serve.report(NOW);
    // A report whose file cannot be written has a reason on record.
    std::fs::remove_dir_all(state.path().join("csvs")).unwrap();
    std::fs::write(state.path().join("csvs"), "in the way").unwrap();
    let (_, answer) = serve.request("POST", "/trigger_report?as_of=latest");
    holds_no_password("an answer", &answer);
    let deadline = Instant::now() + Duration::from_secs(5);
    let failure = loop {
        let sql = "SELECT string_agg(failure, ' ') FROM public.reports WHERE state = 'failed'";
        if let Some(failure) = client.query_one(sql, &[]).await.unwrap().get::<_, Option<String>>(0) {
            break failure;
        }
        assert!(Instant::now() < deadline, "no report failed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    holds_no_password("reports.failure", &failure);

    for change in [
        "ALTER ROLE daemon PASSWORD 'another'",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'daemon'",
    ] {
        client.batch_execute(change).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while !serve
        .request("GET", "/readyz")
        .1
        .contains("password authentication failed")
    {
        assert!(Instant::now() < deadline, "the login is not refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let unknown = "/get_report?report_id=7e57ab1e-0000-4000-8000-000000000000";
    for (method, path) in [
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("POST", "/trigger_report"),
        ("GET", unknown),
    ] {
        holds_no_password(path, &serve.request(method, path).1);
    }
    let log = serve.log().join("\n");
    assert!(
        log.contains("DEBUG") && log.contains("password authentication failed"),
        "{log}"
    );
    holds_no_password("the log", &log);
    serve.kill();
}
