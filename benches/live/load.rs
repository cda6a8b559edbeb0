//! Writers: pgbench, from the server's own directory. Rows are for random stores of the fleet and dated now.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use tokio::process::{Child, Command};

use crate::system::{FIRST_STORE, System};

/// What one transaction writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// One row, its values sent by the client.
    One,
    /// A hundred, made by the server: cheaper than sending them, so what a trigger adds weighs more, not less.
    Hundred,
}

impl Rows {
    pub fn count(self) -> u32 {
        match self {
            Rows::One => 1,
            Rows::Hundred => 100,
        }
    }

    /// Instants are those at which the server makes the row, `age_s` back, to the microsecond: two of a store that meet
    /// are one in a million, and are let go. One row in ten says inactive.
    fn script(self, age_s: u32) -> String {
        let at = format!("pg_catalog.clock_timestamp() - interval '{age_s} s'");
        match self {
            Rows::One => format!(
                "\\set store random(:first, :last)\n\\set dice random(1, 10)\n\
                 INSERT INTO public.store_activity (store_id, timestamp_utc, status)\n\
                 VALUES (:store, {at}, CASE WHEN :dice = 1 THEN 'inactive' ELSE 'active' END)\n\
                 ON CONFLICT DO NOTHING;\n"
            ),
            Rows::Hundred => format!(
                "INSERT INTO public.store_activity (store_id, timestamp_utc, status)\n\
                 SELECT (CAST(:first AS bigint) + pg_catalog.floor(pg_catalog.random() * CAST(:stores AS bigint))::bigint)::text,\n\
                 {at}, CASE WHEN pg_catalog.random() < 0.1 THEN 'inactive' ELSE 'active' END\n\
                 FROM pg_catalog.generate_series(1, 100)\nON CONFLICT DO NOTHING;\n"
            ),
        }
    }
}

/// A run of pgbench.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub system: &'a System,
    pub database: &'a str,
    pub rows: Rows,
    pub clients: u32,
    /// At most so long.
    pub seconds: u32,
    /// Transactions a second; None: as many as can be.
    pub rate: Option<u32>,
    /// How far back rows are dated.
    pub age_s: u32,
}

impl Load<'_> {
    /// Runs to the end; returns the transactions a second.
    pub async fn run(&self) -> anyhow::Result<f64> {
        let output = self.spawn().await?.wait_with_output().await?;
        let (out, log) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        ensure!(output.status.success(), "pgbench: {}\n{log}", output.status);
        let tps = out.lines().find_map(|line| line.strip_prefix("tps = "));
        let tps = tps.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        tps.with_context(|| {
            format!(
                "pgbench does not say what it did
{out}{log}"
            )
        })
    }

    /// Goes on beside what follows; killed when dropped.
    pub async fn spawn(&self) -> anyhow::Result<Child> {
        let program = pgbench(self.system).await?;
        let script = self
            .system
            .scratch()
            .join(format!("{}-{}.sql", self.rows.count(), self.age_s));
        std::fs::write(&script, self.rows.script(self.age_s))?;
        let mut command = Command::new(program);
        // Two threads drive any number of clients; more would take from Postgres.
        let threads = self.clients.min(2).to_string();
        command
            .args(["-n", "-M", "prepared", "-j", &threads, "-c", &self.clients.to_string()])
            .args(["-T", &self.seconds.to_string(), "-D", &format!("first={FIRST_STORE}")])
            .args([
                "-D",
                &format!("last={}", FIRST_STORE + u64::from(self.system.stores) - 1),
            ])
            .args(["-D", &format!("stores={}", self.system.stores)])
            .arg("-f")
            .arg(script);
        if let Some(rate) = self.rate {
            command.args(["-R", &rate.to_string()]);
        }
        command
            .arg(self.system.url(self.database))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Ok(command.spawn()?)
    }
}

/// Where it is, or what to install.
pub async fn pgbench(system: &System) -> anyhow::Result<PathBuf> {
    let path = system.bin_dir().await?.join("pgbench");
    if !path.is_file() {
        bail!(
            "{} is missing: install it (Debian: apt-get install postgresql; Fedora: postgresql-contrib)",
            path.display()
        );
    }
    Ok(path)
}
