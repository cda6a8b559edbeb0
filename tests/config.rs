//! The program as it is started: its environment, its exit codes, what it prints and where.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const PASSWORD: &str = "hunter2";
const URL: &str = "postgres://ann:hunter2@db.example/uptime";

/// `uptally` in `dir` with nothing in its environment.
fn uptally(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uptally"));
    command.current_dir(dir).env_clear().args(args);
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn config_shows_where_every_value_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("config")).unwrap();
    fs::write(
        dir.join("config/uptally.toml"),
        "[http]\nlisten = '127.0.0.1:1'\nconnections_max = 7\n[state]\ndir = '/from/file'",
    )
    .unwrap();
    fs::write(dir.join("other.toml"), "[http]\nconnections_max = 8").unwrap();

    let (code, stdout, stderr) = run(uptally(dir, &["config"])
        .env("UPTALLY__HTTP__LISTEN", "127.0.0.1:2")
        .env("UPTALLY__DATABASE__URL", "host=elsewhere")
        .env("DATABASE_URL", URL)
        .env("UPTALLY_STATE_DIR", "/from/env"));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for line in [
        "database.url = \"postgres://ann:***@db.example:5432/uptime?sslmode=verify-full\"   # from env DATABASE_URL",
        "state.dir = \"/from/env\"   # from env UPTALLY_STATE_DIR",
        "http.listen = \"127.0.0.1:2\"   # from env UPTALLY__HTTP__LISTEN",
        "http.connections_max = 7   # from config/uptally.toml",
        "log.format = \"text\"   # from default",
    ] {
        assert!(stdout.lines().any(|found| found == line), "{line}\n{stdout}");
    }

    let (code, stdout, _) = run(uptally(dir, &["config", "--state-dir", "/from/flag"])
        .args(["--config", "other.toml"])
        .env("UPTALLY_STATE_DIR", "/from/env"));
    assert_eq!(code, Some(0));
    for line in [
        "# database.url is not set   # from default",
        "state.dir = \"/from/flag\"   # from flag --state-dir",
        "http.listen = \"127.0.0.1:8080\"   # from default",
        "http.connections_max = 8   # from other.toml",
    ] {
        assert!(stdout.lines().any(|found| found == line), "{line}\n{stdout}");
    }
}

#[test]
fn what_is_wrong_is_one_line_on_stderr_and_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("bad.toml"), "[http]\nlistn = 1").unwrap();
    for (args, variable, message) in [
        (
            &["config", "--config", "none.toml"][..],
            ("A", "1"),
            "uptally: cannot read the configuration file none.toml: No such file",
        ),
        (
            &["config", "--config", "bad.toml"],
            ("A", "1"),
            "uptally: unknown key http.listn (from bad.toml); the nearest known key is http.listen",
        ),
        (
            &["config"],
            ("UPTALLY__LOG__LEVEL", "info"),
            "uptally: unknown key log.level (from env UPTALLY__LOG__LEVEL); \
             the nearest known key is UPTALLY__LOG__FILTER",
        ),
        (
            &["serve", "--listen", "8080"],
            ("A", "1"),
            "uptally: http.listen: expected an address and a port",
        ),
        (
            &["verify"],
            ("DATABASE_URL", ""),
            "uptally: database.url: expected postgres://user:password@host",
        ),
    ] {
        let (code, stdout, stderr) = run(uptally(dir, args).env(variable.0, variable.1));
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        assert!(stderr.starts_with(message), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    let (code, _, stderr) = run(&mut uptally(dir, &["report", "--windows", "lunar"]));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("calendar, rolling"), "{stderr}");
    assert_eq!(run(&mut uptally(dir, &["--help"])).0, Some(0));
}

#[test]
fn no_output_holds_the_password() {
    let dir = tempfile::tempdir().unwrap();
    let bad = format!("postgres://ann:{PASSWORD}@db.example:port/uptime");
    for url in [URL, &bad] {
        for args in [&["config"][..], &["--help"], &["serve", "--help"], &["x"]] {
            let outputs = [
                run(uptally(dir.path(), args).env("DATABASE_URL", url)),
                run(uptally(dir.path(), args).env("UPTALLY__DATABASE__URL", url)),
                run(uptally(dir.path(), args).args(["--database-url", url])),
            ];
            for (_, stdout, stderr) in outputs {
                assert!(!stdout.contains(PASSWORD), "{stdout}");
                assert!(!stderr.contains(PASSWORD), "{stderr}");
            }
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = uptally(dir.path(), &["config"])
        .stdout(Stdio::from(writer))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");

    let full = fs::File::options().write(true).open("/dev/full");
    if let Ok(full) = full {
        let output = uptally(dir.path(), &["config"]).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.starts_with("uptally: cannot write to stdout: No space left"),
            "{stderr}"
        );
    }
}
