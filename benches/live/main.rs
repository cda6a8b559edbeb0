//! Live measurements: the real program against a real Postgres, rows coming in while it works.
//!
//! Each command starts a private Postgres in a scratch directory (fsync on, the settings that `uptally serve` gives its
//! own), loads a generated fleet that ends now, measures, and removes everything. `make help` lists the commands;
//! `-- COMMAND --help` after `cargo bench --bench live` their options.
//!
//! Not measured here: the pure core and rendering (the criterion benches beside this directory), other databases.
//! On this machine everything shares the processors: the daemon, Postgres, the writers and the one who measures. So
//! the figures are upper bounds of what the daemon alone takes, and ratios within one run are what to compare.

mod audit;
mod client;
mod copy;
mod daemon;
mod days;
mod freshness;
mod ingest;
mod load;
mod machine;
mod results;
mod side;
mod stats;
mod system;
mod trigger;
mod variant;
mod writers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use results::Results;
use system::System;
use tokio::signal::unix::{SignalKind, signal};

/// Live measurements of uptally beside its Postgres.
#[derive(Parser)]
#[command(name = "live", bin_name = "cargo bench --bench live --")]
struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
struct Common {
    /// Stores of the fleet.
    #[arg(long, global = true, default_value_t = 13_559, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    stores: u32,
    /// Days of hourly polls that are in the table at the start.
    #[arg(long, global = true, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=60))]
    days: u32,
    /// Where the scratch directory is made; its disk is the one that is measured [default: the system's].
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    /// The figures go to this file too, one JSON object a line.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
    /// The daemon's log, with debug lines, goes to this file; costs it a little time.
    #[arg(long, global = true)]
    daemon_log: Option<PathBuf>,
    /// Cargo adds it.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// From `POST /trigger_report` to the last byte of the CSV.
    Trigger(trigger::Options),
    /// What the triggers and the following daemon take from writers.
    Writers(writers::Options),
    /// From COMMIT until a row is in a report, and until the daemon follows it unasked.
    Freshness(freshness::Options),
    /// Rows a second with and without the daemon; its lag; catching up after an overload.
    Ingest(ingest::Options),
    /// Reports over local days, up to a year, with ratios to a week.
    Days(days::Options),
    /// Processor time of a daemon that audits and of one that does not, side by side.
    Audit(audit::Options),
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Args { common, command }: Args) -> anyhow::Result<()> {
    // One thread, and the client on it: between asking and the answer nothing of ours is in its way.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let system = System::start(&common).await?;
        let measured = tokio::select! {
            measured = measure(&system, &common, &command) => measured,
            _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
            _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
        };
        system.stop().await?;
        measured
    })
}

async fn measure(system: &System, common: &Common, command: &Command) -> anyhow::Result<()> {
    let mut results = Results::new(common.json.clone());
    match command {
        Command::Trigger(options) => trigger::measure(system, options, &mut results).await,
        Command::Writers(options) => writers::measure(system, options, &mut results).await,
        Command::Freshness(options) => freshness::measure(system, options, &mut results).await,
        Command::Ingest(options) => ingest::measure(system, options, &mut results).await,
        Command::Days(options) => days::measure(system, options, &mut results).await,
        Command::Audit(options) => audit::measure(system, options, &mut results).await,
    }?;
    results.finish()
}
