//! `uptally serve` as a process of its own, as a user runs it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hyper::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::client::Client;
use crate::system::System;

/// How long it may take until it answers, and until everything from before is in its tables.
const READY_PATIENCE: Duration = Duration::from_mins(10);
const STOP_PATIENCE: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// In which the kernel tells processor time, on every Linux that there is.
const TICKS_PER_SECOND: f64 = 100.0;
/// The store whose rows mark a point of the change stream.
const MARK: &str = "mark";

/// A running daemon. Dropped, it is killed.
pub struct Serve {
    child: Child,
    pub address: SocketAddr,
    database: String,
    log: PathBuf,
    csvs: PathBuf,
}

impl Serve {
    /// Starts it and returns when it follows.
    pub async fn start(system: &System, database: &str) -> anyhow::Result<Self> {
        Self::start_with(system, database, &[]).await
    }

    /// The same with variables of the environment, name and value.
    pub async fn start_with(system: &System, database: &str, variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        let dir = system.scratch().join("daemon").join(database);
        std::fs::create_dir_all(&dir)?;
        let log = system.daemon_log.clone().unwrap_or_else(|| dir.join("log"));
        let filter = if system.daemon_log.is_some() { "debug" } else { "info" };
        let mut child = program(system)
            .args(["serve", "--listen", "127.0.0.1:0", "--state-dir"])
            .arg(&dir)
            .current_dir(&dir)
            .env("DATABASE_URL", system.url(database))
            .env("UPTALLY__LOG__FILTER", filter)
            .envs(variables.iter().copied())
            .stderr(File::create(&log)?)
            .spawn()?;
        let began = Instant::now();
        let mut told = async || loop {
            let text = std::fs::read_to_string(&log)?;
            let address = text
                .split_once("listening on http://")
                .and_then(|(_, rest)| rest.split_once('\n'));
            if let Some((address, _)) = address {
                return Ok(address.trim().parse()?);
            }
            if child.try_wait()?.is_some() || began.elapsed() > READY_PATIENCE {
                bail!("the daemon does not listen:\n{text}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let address = told().await?;
        let serve = Serve {
            child,
            address,
            database: database.to_owned(),
            csvs: dir.join("csvs"),
            log,
        };
        let mut client = serve.client().await?;
        while client.get("/readyz").await?.0 != StatusCode::OK {
            ensure!(
                began.elapsed() < READY_PATIENCE,
                "the daemon is not ready:\n{}",
                serve.said()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(serve)
    }

    pub async fn client(&self) -> anyhow::Result<Client> {
        Client::connect(self.address).await
    }

    /// Returns when everything that is committed now is in memory and in the rollup tables. What comes then is what the
    /// daemon does all day, not what it does once after its start.
    pub async fn settle(&self, system: &System) -> anyhow::Result<()> {
        let session = system.connect(&self.database).await?;
        let mark = "INSERT INTO public.store_activity (store_id, timestamp_utc, status)
                    VALUES ($1, pg_catalog.clock_timestamp(), 'active') RETURNING change_xid::text";
        let xid: String = session.client.query_one(mark, &[&MARK]).await?.try_get(0)?;
        let sql = "SELECT coalesce(pg_catalog.pg_visible_in_snapshot($1::text::xid8, cursor), false)
                   FROM uptally.checkpoint";
        let began = Instant::now();
        while !session.client.query_one(sql, &[&xid]).await?.try_get::<_, bool>(0)? {
            ensure!(began.elapsed() < READY_PATIENCE, "no flush:\n{}", self.said());
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Processor time so far, of itself and of its sessions' servers.
    pub async fn cpu(&self, system: &System) -> anyhow::Result<Cpu> {
        let session = system.connect(&self.database).await?;
        let sql = "SELECT pid FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database()
                   AND application_name LIKE 'uptally %' AND application_name NOT LIKE 'uptally bench%'";
        let mut sessions_s = 0.0;
        for row in session.client.query(sql, &[]).await? {
            sessions_s += cpu_s(row.try_get::<_, i32>(0)?);
        }
        let own_s = cpu_s(self.child.id().unwrap_or_default().cast_signed());
        Ok(Cpu {
            own_s,
            sessions_s,
            at: Instant::now(),
        })
    }

    /// Removes a report's file, so that a thousand reports do not fill the disk.
    pub fn forget(&self, report_id: &str) {
        let _ = std::fs::remove_file(self.csvs.join(format!("{report_id}.csv")));
    }

    /// Ends it in order.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        kill_process(pid.context("the daemon has ended before")?, Signal::TERM)?;
        let status = tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await??;
        ensure!(status.success(), "the daemon ended with {status}:\n{}", self.said());
        Ok(())
    }

    fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(20)..)
            .unwrap_or_default()
            .join("\n")
    }
}

/// Seconds of processor time that a daemon and its sessions have used; zero where there is no /proc.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    own_s: f64,
    sessions_s: f64,
    at: Instant,
}

impl Cpu {
    /// How many processors the daemon kept busy since then, and how many the servers of its sessions did.
    pub fn cores_since(self, before: Cpu) -> (f64, f64) {
        let wall_s = self.at.duration_since(before.at).as_secs_f64();
        (
            (self.own_s - before.own_s) / wall_s,
            (self.sessions_s - before.sessions_s) / wall_s,
        )
    }
}

fn cpu_s(pid: i32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the program is in parentheses and may hold anything; user and system time are the 12th and 13th
    // number behind it.
    let numbers = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks = numbers.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

/// Runs `uptally verify`; an error if the rollup is not what the raw rows say.
pub async fn verify(system: &System, database: &str) -> anyhow::Result<String> {
    let output = program(system)
        .args(["verify", "--database-url", &system.url(database)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let (out, log) = (text(&output.stdout), text(&output.stderr));
    ensure!(
        output.status.success(),
        "uptally verify: {}\n{out}\n{log}",
        output.status
    );
    Ok(out)
}

/// The program with nothing of our surroundings but the PATH; killed when dropped.
fn program(system: &System) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uptally"));
    command
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .current_dir(system.scratch())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    command
}
