//! Nobody without the right token, and no secret in what the program says.

use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::filled;
use super::support::serve::{Serve, try_http_with};
use super::support::state_dir;

const READ: &str = "read-4f1c0b7e5d2a9f8e7d6c5b4a39281706";
const NEW_READ: &str = "new-read-4f1c0b7e5d2a9f8e7d6c5b4a39281706";
const TRIGGER: &str = "trigger-4f1c0b7e5d2a9f8e7d6c5b4a39281706";
const WRITE: &str = "write-4f1c0b7e5d2a9f8e7d6c5b4a39281706";
const WRONG: &str = "wrong-4f1c0b7e5d2a9f8e7d6c5b4a39281706";
const PASSWORD: &str = "hunter2-of-the-database";

#[test]
fn an_address_that_others_reach_is_refused_without_a_token() {
    let state = state_dir();
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8080"] {
        let output = Command::new(env!("CARGO_BIN_EXE_uptally"))
            .args(["serve", "--listen", listen, "--state-dir"])
            .arg(state.path())
            .current_dir(state.path())
            .env_remove("DATABASE_URL")
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        for named in [
            listen,
            "http.trigger_tokens_file",
            "UPTALLY__HTTP__TRIGGER_TOKENS",
            "127.0.0.1",
        ] {
            assert!(message.contains(named), "{message}");
        }
    }
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0, "nothing was started");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_open_what_they_are_for_and_are_never_logged() {
    let (database, state) = (filled().await, state_dir());
    let file = state.path().join("read-tokens");
    fs::write(&file, format!("# old and new\n{READ}\n{NEW_READ}\n")).unwrap();
    let separator = if database.url().contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}password={PASSWORD}", database.url());
    let env = [
        ("UPTALLY__HTTP__READ_TOKENS_FILE", file.to_str().unwrap()),
        ("UPTALLY__HTTP__TRIGGER_TOKENS", TRIGGER),
        ("UPTALLY__HTTP__WRITE_TOKENS", WRITE),
        ("UPTALLY__LOG__FILTER", "trace"),
    ];
    let mut serve = Serve::spawn_by(&[], state.path(), Some(&url), &env);
    let address = serve.address().to_owned();
    let ask = |method: &str, path: &str, token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        try_http_with(&address, method, path, if token.is_empty() { "" } else { &header }).unwrap()
    };
    serve.wait_until_ready();
    for (token, metrics, trigger, write) in [
        ("", 401, 401, 401),
        (WRONG, 401, 401, 401),
        (READ, 200, 403, 403),
        (NEW_READ, 200, 403, 403),
        (TRIGGER, 200, 202, 403),
        // Past the login: there is no body.
        (WRITE, 403, 403, 415),
    ] {
        for path in ["/metrics", "/api/v1/fleet", "/docs/api", "/openapi.json"] {
            assert_eq!(ask("GET", path, token).0, metrics, "{path} {token}");
        }
        assert_eq!(ask("POST", "/trigger_report", token).0, trigger, "{token}");
        assert_eq!(ask("POST", "/api/v1/activity", token).0, write, "{token}");
        assert_eq!(ask("GET", "/healthz", token).0, 200, "{token}");
    }
    let (_, head, _) = ask("POST", "/trigger_report", TRIGGER);
    let location = head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
    while ask("GET", location, READ).0 == 202 {}
    let (status, _, csv) = ask("GET", location, READ);
    assert_eq!(status, 200);
    assert!(csv.starts_with("store_id,"));
    assert_eq!(ask("GET", location, "").0, 401);
    // As a browser logs in by itself, with any user.
    let basic = |token: &str, more: &str| {
        let login = BASE64_STANDARD.encode(format!("somebody:{token}"));
        format!("Authorization: Basic {login}\r\n{more}")
    };
    let (status, head, _) = try_http_with(&address, "GET", "/docs/api", "").unwrap();
    assert!(
        status == 401 && head.contains("www-authenticate: Basic realm=\"uptally\""),
        "{head}"
    );
    let ours = format!("Origin: http://{address}\r\n");
    for (method, path, token, more, expected) in [
        ("GET", "/docs/api", READ, "", 200),
        ("GET", "/docs/api", WRONG, "", 401),
        ("POST", "/trigger_report", TRIGGER, &*ours, 202),
        ("POST", "/trigger_report", READ, &ours, 403),
        ("POST", "/trigger_report", TRIGGER, "", 403),
        (
            "POST",
            "/trigger_report",
            TRIGGER,
            "Origin: http://evil.example\r\n",
            403,
        ),
    ] {
        let answer = try_http_with(&address, method, path, &basic(token, more)).unwrap();
        assert_eq!(answer.0, expected, "{method} {path} {token} {more}");
    }
    let twice = format!("Authorization: Bearer {READ}\r\nAuthorization: Bearer {READ}\r\n");
    assert_eq!(try_http_with(&address, "GET", "/metrics", &twice).unwrap().0, 400);

    serve.signal(rustix::process::Signal::TERM);
    serve.exit_code(std::time::Duration::from_secs(10));
    let log = serve.log().join("\n");
    assert!(
        log.contains("DEBUG") && log.contains("/trigger_report"),
        "the log is there: {log}"
    );
    for secret in [READ, NEW_READ, TRIGGER, WRITE, WRONG, PASSWORD] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }

    let mut shown = Command::new(env!("CARGO_BIN_EXE_uptally"));
    let shown = shown
        .arg("config")
        .current_dir(state.path())
        .env("DATABASE_URL", &url)
        .envs(env);
    let shown = String::from_utf8(shown.output().unwrap().stdout).unwrap();
    assert!(shown.contains("http.trigger_tokens = \"***\""), "{shown}");
    assert!(!shown.contains(TRIGGER) && !shown.contains(PASSWORD), "{shown}");
}
