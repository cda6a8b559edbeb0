//! A throw-away Postgres for one test: its own cluster on a unix socket, gone when the value is dropped.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

const MIGRATION: &str = include_str!("../../migrations/V1__uptally.sql");

pub struct TestDatabase {
    server: Child,
    dir: TempDir,
}

impl TestDatabase {
    /// A running cluster with the tables in database `postgres`.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let user = server_user();
        if let Some((uid, gid)) = user {
            chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        let data = dir.path().join("data");
        let initdb = as_user("initdb", user, dir.path())
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C",
            ])
            .arg("--pgdata")
            .arg(&data)
            .stdout(Stdio::null())
            .status();
        assert!(initdb.unwrap().success());
        let server = as_user("postgres", user, dir.path())
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(dir.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .args(
                std::env::var("UPTALLY_TEST_FSYNC")
                    .iter()
                    .flat_map(|v| ["-c".to_owned(), format!("fsync={v}")]),
            )
            .args(["-c", "max_wal_size=4GB", "-c", "shared_buffers=128MB"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let database = TestDatabase { server, dir };
        let client = database.first_client().await;
        client.batch_execute("CREATE SCHEMA uptally").await.unwrap();
        client.batch_execute(MIGRATION).await.unwrap();
        let zones: Vec<&str> = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).collect();
        let seed = "INSERT INTO uptally.time_zone SELECT unnest($1::text[])";
        client.execute(seed, &[&zones]).await.unwrap();
        database
    }

    /// A session of the superuser.
    pub async fn connect(&self) -> Client {
        self.try_connect().await.unwrap()
    }

    /// The directory of the socket, for other clients.
    pub fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    async fn try_connect(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.dir.path()).user("postgres").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn first_client(&self) -> Client {
        for _ in 0..200 {
            if let Ok(client) = self.try_connect().await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the server did not start within 5 s");
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.server);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = self.server.wait();
    }
}

/// Postgres refuses to run as root: then user `postgres`, else `nobody`.
fn server_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
        Some((fields.next()?, fields.next()?))
    };
    ids("postgres").or_else(|| ids("nobody"))
}

fn as_user(program: &str, user: Option<(u32, u32)>, dir: &Path) -> Command {
    let mut command = Command::new(bin_dir().join(program));
    command.current_dir(dir).stdin(Stdio::null());
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// The newest of the packaged versions, else what is on the PATH.
fn bin_dir() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let bins = versions.flatten().map(|version| version.path().join("bin"));
    bins.filter(|bin| bin.join("initdb").exists()).max().unwrap_or_default()
}
