//! A throw-away Postgres for one test: its own data directory, a unix socket and no port.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};
use uptally::report::Connect;

/// As in the contract of `public.reports`.
const SCHEMA: &str = "CREATE TABLE public.reports (
    report_id uuid PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('running', 'complete', 'failed')),
    requested_at timestamptz NOT NULL DEFAULT now(),
    as_of_requested text NOT NULL, windows text NOT NULL, closed text NOT NULL,
    as_of timestamptz, cursors text[], finished_at timestamptz,
    stores bigint, csv_bytes bigint, duration_us bigint, failure text)";

pub struct Cluster {
    dir: TempDir,
    bin: String,
    /// Postgres refuses to run as root.
    user: Option<(u32, u32)>,
    server: Option<Child>,
}

impl Cluster {
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("upt").tempdir().unwrap();
        let user = (id("-u", None) == 0).then(|| (id("-u", Some("postgres")), id("-g", Some("postgres"))));
        if let Some((uid, gid)) = user {
            chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(dir.path(), mode).unwrap();
        let bin = bin_dir();
        let mut cluster = Cluster {
            dir,
            bin,
            user,
            server: None,
        };
        let made = cluster
            .command("initdb")
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        cluster.up();
        cluster.admin().await.batch_execute(SCHEMA).await.unwrap();
        cluster
    }

    /// Starts the server; sessions wait for it by themselves.
    pub fn up(&mut self) {
        let socket_dir = self.dir.path().to_str().unwrap().to_owned();
        let server = self
            .command("postgres")
            .args(["-k", &socket_dir, "-h", ""])
            .spawn()
            .unwrap();
        self.server = Some(server);
    }

    /// Ends the server the hard way.
    pub fn crash(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = self.command("pg_ctl").args(["stop", "-m", "immediate"]).output();
            let _ = server.wait();
        }
    }

    /// A session, as soon as there is one to be had.
    pub async fn admin(&self) -> Client {
        for _ in 0..400 {
            match (self.connect())().await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        panic!("no session with the test server");
    }

    pub fn connect(&self) -> Connect {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.dir.path()).user("postgres").dbname("postgres");
        Arc::new(move || {
            let config = config.clone();
            Box::pin(async move {
                let (client, connection) = config.connect(NoTls).await?;
                tokio::spawn(connection);
                Ok(client)
            })
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(format!("{}/{program}", self.bin));
        command
            .arg("-D")
            .arg(self.dir.path().join("data"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.crash();
    }
}

fn id(flag: &str, user: Option<&str>) -> u32 {
    let out = Command::new("id").arg(flag).args(user).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()
}

fn bin_dir() -> String {
    let out = Command::new("pg_config").arg("--bindir").output();
    if let Some(out) = out.ok().filter(|out| out.status.success()) {
        return String::from_utf8(out.stdout).unwrap().trim().to_owned();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("Postgres is installed");
    let newest = versions.map(|v| v.unwrap().path()).max().unwrap();
    newest.join("bin").to_str().unwrap().to_owned()
}
