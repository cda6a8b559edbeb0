//! On what a figure was found: machine, Postgres, commit, and the command that finds it again.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uptally::clock::Clock;

use crate::stats::Percentiles;

/// How often the disk is asked.
const SYNCS: u32 = 50;
const SYNCED_BYTES: usize = 8192;

/// See the module.
#[derive(Debug, Clone)]
pub struct Machine {
    cpu: String,
    cores: usize,
    ram_gib: Option<f64>,
    /// Load of the last minute before we began.
    load: Option<f64>,
    /// What a commit has to wait for.
    sync_ms: f64,
    /// Version of the server.
    pub postgres: String,
    commit: String,
    date: String,
    command: String,
}

impl Machine {
    /// Looks around; writes to `dir` to learn how fast its disk is.
    pub fn look(dir: &Path) -> anyhow::Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total_kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let arguments: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
        Ok(Machine {
            cpu: model
                .map_or("unknown processor", |rest| rest.trim_matches([' ', '\t', ':']))
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            ram_gib: total_kib.and_then(first_number).map(|kib| kib / 1024.0 / 1024.0),
            load: fs::read_to_string("/proc/loadavg")
                .ok()
                .as_deref()
                .and_then(first_number),
            sync_ms: sync_ms(dir)?,
            postgres: String::new(),
            commit: commit(),
            date: Clock::System.now().to_chrono().format("%Y-%m-%d").to_string(),
            command: format!("cargo bench --bench live -- {}", arguments.join(" ")),
        })
    }

    /// The line that says under which conditions the others were found.
    pub fn json(&self, title: &str) -> Value {
        json!({
            "measured": title, "cpu": self.cpu, "cores": self.cores, "ram_gib": self.ram_gib, "load": self.load,
            "sync_ms": self.sync_ms, "postgres": self.postgres, "commit": self.commit, "date": self.date,
            "command": self.command,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} cores", self.cpu, self.cores)?;
        if let Some(gib) = self.ram_gib {
            write!(f, ", {gib:.0} GiB")?;
        }
        write!(f, "; PostgreSQL {}, fsync {:.2} ms", self.postgres, self.sync_ms)?;
        if let Some(load) = self.load {
            write!(f, "; load before {load:.1}")?;
        }
        write!(f, "; {}, commit {}\n`{}`", self.date, self.commit, self.command)
    }
}

fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

fn sync_ms(dir: &Path) -> anyhow::Result<f64> {
    let path = dir.join("sync");
    let mut file = File::create(&path)?;
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&[0; SYNCED_BYTES])?;
        file.sync_data()?;
        took.push(began.elapsed());
    }
    fs::remove_file(path)?;
    Ok(Percentiles::of(&took).p50)
}

/// As git names it; with an end of its own if the sources differ from it.
fn commit() -> String {
    let git = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let text = git
        .ok()
        .filter(|output| output.status.success())
        .map(|output| output.stdout);
    text.and_then(|text| String::from_utf8(text).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}
