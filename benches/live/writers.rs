//! What our trigger and the following daemon take from writers: pgbench transactions a second against none of both.
//!
//! For each kind of row and number of clients a fresh copy of the fleet's database, so that all begin with the same
//! table; in it, rounds in which every variant has its turn, in rotated order, on one table (see `variant`). Figures
//! are ratios within a round, and their median over the rounds. Writers, Postgres and daemon share the processors:
//! where the writers would take all of them, the daemon's own work shows as the writers' loss; "our trigger, no
//! daemon" beside it says how much that is.

use serde_json::json;

use crate::load::{Load, Rows, pgbench};
use crate::results::Results;
use crate::stats::Spread;
use crate::system::System;
use crate::variant::{Variant, copy_with_controls};

const DATABASE: &str = "writers";
const VARIANTS: [Variant; 5] = [
    Variant::Plain,
    Variant::Empty,
    Variant::Following,
    Variant::Alone,
    Variant::Notify,
];
/// What a turn takes beside its seconds, for the forecast: switching, and the daemon's start.
const TURN_OVERHEAD_S: u32 = 2;
/// What a copy of the database takes, for the forecast.
const COPY_S: u32 = 10;

#[derive(clap::Args)]
pub struct Options {
    /// Numbers of clients.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32, 64], value_parser = clap::value_parser!(u32).range(1..=80))]
    clients: Vec<u32>,
    /// Rows of a transaction: 1, 100 or both.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100], value_parser = rows)]
    rows: Vec<u32>,
    /// Turns of each variant.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of a turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
}

fn rows(text: &str) -> Result<u32, &'static str> {
    match text {
        "1" => Ok(1),
        "100" => Ok(100),
        _ => Err("expected 1 or 100"),
    }
}

/// What one variant did, a value for each round.
#[derive(Default)]
struct Turns {
    tps: Vec<f64>,
    /// Against the first variant in the same round.
    ratio: Vec<f64>,
    cores: Vec<f64>,
    session_cores: Vec<f64>,
}

#[derive(Clone, Copy, Default)]
struct Turn {
    tps: f64,
    cores: (f64, f64),
}

pub async fn measure(system: &System, options: &Options, results: &mut Results) -> anyhow::Result<()> {
    pgbench(system).await?;
    let configurations = u32::try_from(options.rows.len() * options.clients.len())?;
    let turns = configurations * options.rounds * u32::try_from(VARIANTS.len())?;
    let seconds = turns * (options.seconds + TURN_OVERHEAD_S) + configurations * COPY_S;
    eprintln!(
        "{turns} turns of {} s: about {} min in all",
        options.seconds,
        seconds.div_ceil(60)
    );
    system.load(0).await?;
    let title = format!("Writers beside our trigger, {} stores", system.stores);
    results.begin(&title, &system.machine);
    for &rows in &options.rows {
        let rows = if rows == 1 { Rows::One } else { Rows::Hundred };
        for &clients in &options.clients {
            configuration(system, options, rows, clients, results).await?;
        }
    }
    Ok(())
}

async fn configuration(
    system: &System,
    options: &Options,
    rows: Rows,
    clients: u32,
    results: &mut Results,
) -> anyhow::Result<()> {
    copy_with_controls(system, DATABASE).await?;
    let load = Load {
        system,
        database: DATABASE,
        rows,
        clients,
        seconds: options.seconds,
        rate: None,
        age_s: 0,
    };
    // The first touch of pages and the first round of the daemon, which builds its rollup, are not part of it.
    turn(&load, Variant::Following).await?;
    let mut all: [Turns; VARIANTS.len()] = Default::default();
    for round in 0..options.rounds as usize {
        let mut round_turns = [Turn::default(); VARIANTS.len()];
        for turn_no in 0..VARIANTS.len() {
            let at = (round + turn_no) % VARIANTS.len();
            round_turns[at] = turn(&load, VARIANTS[at]).await?;
        }
        let [plain, ..] = round_turns;
        for (turns, turn) in all.iter_mut().zip(round_turns) {
            turns.tps.push(turn.tps);
            turns.ratio.push(turn.tps / plain.tps);
            turns.cores.push(turn.cores.0);
            turns.session_cores.push(turn.cores.1);
        }
    }
    for (variant, turns) in VARIANTS.iter().zip(&all) {
        let ratio = Spread::of(&turns.ratio);
        results.row(&[
            ("rows", json!(rows.count())),
            ("clients", json!(clients)),
            ("variant", json!(variant.name())),
            ("transactions/s", json!(Spread::of(&turns.tps).median)),
            ("of no trigger", json!(ratio.median)),
            ("least", json!(ratio.min)),
            ("most", json!(ratio.max)),
            ("daemon cores", json!(Spread::of(&turns.cores).median)),
            ("its sessions' cores", json!(Spread::of(&turns.session_cores).median)),
        ]);
    }
    system.remove(DATABASE).await
}

/// Transactions a second; processors that the daemon and its sessions kept busy meanwhile.
async fn turn(load: &Load<'_>, variant: Variant) -> anyhow::Result<Turn> {
    let ready = variant.prepare(load.system, load.database).await?;
    let before = match &ready.serve {
        Some(serve) => Some((serve, serve.cpu(load.system).await?)),
        None => None,
    };
    let tps = load.run().await?;
    let cores = match before {
        Some((serve, cpu)) => serve.cpu(load.system).await?.cores_since(cpu),
        None => (0.0, 0.0),
    };
    ready.end().await?;
    Ok(Turn { tps, cores })
}
