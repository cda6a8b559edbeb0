//! `PgBouncer` between the daemon and its server. It is refused, whichever way it lends its sessions, before anything is
//! written: keys, notifications and settings are a session's own.
//!
//! Runs where `PgBouncer` is installed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::daemon::Following;
use support::fixture::{NOW, fill};
use support::{TestDatabase, database, state_dir, within};
use tempfile::TempDir;
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use uptally::clock::Clock;
use uptally::daemon::Settings;
use uptally::report::Source;

/// A running `PgBouncer`. It ends with the value.
struct Bouncer {
    process: Child,
    port: u16,
    _files: TempDir,
}

impl Bouncer {
    /// None where it is not installed.
    fn start(server: &TestDatabase, mode: &str, ignored: &str) -> Option<Self> {
        let program = ["pgbouncer", "/usr/sbin/pgbouncer"].into_iter().find(|program| {
            let asked = Command::new(program).arg("--version").stdout(Stdio::null()).status();
            asked.is_ok_and(|status| status.success())
        })?;
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let [Host::Unix(socket)] = server.connection().get_hosts() else {
            panic!("test servers have one socket");
        };
        let files = state_dir();
        let settings = files.path().join("pgbouncer.ini");
        fs::write(files.path().join("users.txt"), "\"uptally\" \"\"\n").unwrap();
        let text = format!(
            "[databases]\n* = host={} port=5432 user=uptally\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\nauth_file = {}\npool_mode = {mode}\nignore_startup_parameters = {ignored}\n",
            socket.display(),
            files.path().join("users.txt").display(),
        );
        fs::write(&settings, text).unwrap();
        let mut command = Command::new(program);
        // It does not run as root.
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "postgres"]);
        }
        let process = command
            .arg(&settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Bouncer {
            process,
            port,
            _files: files,
        })
    }

    fn connection(&self, server: &TestDatabase) -> Config {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user("uptally")
            .dbname(server.name());
        config
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbouncer_is_refused_in_every_mode() {
    let server = TestDatabase::start().await;
    let client = server.connect().await;
    fill(&client, 3).await;
    let clock = Clock::standing(NOW).0;
    let epoch = async || -> Option<i64> {
        let sql = "SELECT max(epoch) FROM uptally.checkpoint";
        client.query_one(sql, &[]).await.unwrap().get(0)
    };
    let before = epoch().await;
    // As it comes; told to drop what it does not know; and on a server that happens to be set as we set our sessions.
    for (mode, ignored, default, reason) in [
        ("session", "", "postgres", "options"),
        ("transaction", "", "postgres", "options"),
        ("session", "options", "postgres", "settings"),
        ("transaction", "options", "postgres", "settings"),
        ("transaction", "options", "iso_8601", "lends one session"),
    ] {
        let set = format!("ALTER DATABASE {} SET IntervalStyle = '{default}'", server.name());
        client.batch_execute(&set).await.unwrap();
        let Some(bouncer) = Bouncer::start(&server, mode, ignored) else {
            println!("SKIPPED: PgBouncer is not installed");
            return;
        };
        let through = database(&bouncer.connection(&server));
        let daemon = Following::launch(&through, &clock, Settings::default());
        let mut told = String::new();
        within(Duration::from_secs(8), "it is refused", async || {
            told = daemon.handle.readiness().err().unwrap_or_default();
            told.contains(reason)
        })
        .await;
        println!("{mode}, ignores {ignored:?}, {default}: {told}");
        daemon.stop().await;
    }
    assert_eq!(epoch().await, before, "it took over");
}
