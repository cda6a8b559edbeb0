//! Rows a second that Postgres takes with the daemon following, against none; its lag meanwhile; catching up.
//!
//! Rounds without triggers and daemon, with the triggers, and with both, in rotated order on one table (see `variant`), by
//! several writers that go as fast as they can. The daemon's lag: at each look, how long ago as many rows were committed as it has applied by now, as its
//! figures over HTTP say, so 10 ms and a look too much. Then an overload, and how long after its end the daemon has the
//! last row. At the end `uptally verify` compares everything with the raw rows.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use crate::client::Client;
use crate::copy::{Way, Writers};
use crate::daemon::{Cpu, Serve, verify};
use crate::results::{Cell, Results};
use crate::stats::{Percentiles, Spread};
use crate::system::System;
use crate::variant::{Variant, copy_with_controls};

const DATABASE: &str = "ingest";
const VARIANTS: [Variant; 3] = [Variant::Plain, Variant::Alone, Variant::Following];
/// Between two looks at the daemon's figures.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const CATCH_UP_PATIENCE: Duration = Duration::from_mins(10);
/// What a turn takes beside its seconds, for the forecast: the daemon's start, and catching up.
const TURN_OVERHEAD_S: u32 = 2;
/// The figure that counts what the daemon has applied.
const APPLIED: &str = "uptally_feed_rows_total ";

#[derive(clap::Args)]
pub struct Options {
    /// Writers.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    writers: u32,
    /// Turns of each variant.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of a turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Seconds of the overload.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=600))]
    overload_seconds: u32,
    /// Leave out the comparison with the raw rows.
    #[arg(long)]
    no_verify: bool,
}

/// What a turn did.
struct Turn {
    rows: u64,
    rows_per_s: f64,
    /// None: no daemon.
    followed: Option<Followed>,
}

struct Followed {
    lags: Vec<Duration>,
    backlog_rows_max: u64,
    /// From the last commit until the daemon had it.
    caught_up: Duration,
    cores: (f64, f64),
}

pub async fn measure(system: &System, options: &Options, results: &mut Results) -> anyhow::Result<()> {
    let turns = u32::try_from(VARIANTS.len())? * options.rounds * (options.seconds + TURN_OVERHEAD_S);
    let seconds = 2 * (turns + 2 * options.overload_seconds + 60) + 30;
    eprintln!("INSERT, then COPY: about {} min in all", seconds.div_ceil(60));
    system.load(0).await?;
    let title = format!(
        "Sustained ingest by {} writers, {} stores",
        options.writers, system.stores
    );
    results.begin(&title, &system.machine);
    let mut overloads = Vec::new();
    for way in [Way::Insert, Way::Copy] {
        copy_with_controls(system, DATABASE).await?;
        rounds(system, options, way, results).await?;
        overloads.push(overload(system, options, way).await?);
        system.remove(DATABASE).await?;
    }
    for cells in overloads {
        results.row(&cells);
    }
    Ok(())
}

/// What one variant did, over the rounds.
#[derive(Default)]
struct Turns {
    rows_per_s: Vec<f64>,
    /// Against the first variant in the same round.
    ratio: Vec<f64>,
    lags: Vec<Duration>,
    backlog_rows_max: u64,
    cores: Vec<f64>,
    session_cores: Vec<f64>,
}

async fn rounds(system: &System, options: &Options, way: Way, results: &mut Results) -> anyhow::Result<()> {
    // The first touch of pages and the daemon's first rollup are not part of it.
    turn(system, options, way, Variant::Following, 1).await?;
    let mut all: [Turns; VARIANTS.len()] = Default::default();
    for round in 0..options.rounds as usize {
        for turn_no in 0..VARIANTS.len() {
            let at = (round + turn_no) % VARIANTS.len();
            let turn = turn(system, options, way, VARIANTS[at], options.seconds).await?;
            let turns = &mut all[at];
            turns.rows_per_s.push(turn.rows_per_s);
            if let Some(followed) = turn.followed {
                turns.lags.extend(followed.lags);
                turns.backlog_rows_max = followed.backlog_rows_max.max(turns.backlog_rows_max);
                turns.cores.push(followed.cores.0);
                turns.session_cores.push(followed.cores.1);
            }
        }
        let plain = all[0].rows_per_s[round];
        for turns in &mut all {
            turns.ratio.push(turns.rows_per_s[round] / plain);
        }
    }
    for (variant, turns) in VARIANTS.iter().zip(&all) {
        let (ratio, lag) = (Spread::of(&turns.ratio), Percentiles::of(&turns.lags));
        let followed = |figure: f64| (*variant == Variant::Following).then_some(figure);
        results.row(&[
            ("way", json!(way.name())),
            ("variant", json!(variant.name())),
            ("rows/s", json!(Spread::of(&turns.rows_per_s).median)),
            ("of no trigger", json!(ratio.median)),
            ("least", json!(ratio.min)),
            ("most", json!(ratio.max)),
            ("lag p50 ms", json!(followed(lag.p50))),
            ("lag max ms", json!(followed(lag.max))),
            ("backlog max rows", json!(turns.backlog_rows_max)),
            ("daemon cores", json!(Spread::of(&turns.cores).median)),
            ("its sessions' cores", json!(Spread::of(&turns.session_cores).median)),
        ]);
    }
    Ok(())
}

async fn overload(system: &System, options: &Options, way: Way) -> anyhow::Result<Vec<Cell>> {
    let Turn {
        rows,
        rows_per_s,
        followed,
    } = turn(system, options, way, Variant::Following, options.overload_seconds).await?;
    let followed = followed.context("the daemon followed")?;
    let began = Instant::now();
    let verdict = if options.no_verify {
        "left out".to_owned()
    } else {
        verify(system, DATABASE).await?
    };
    eprintln!("verified in {:.0} s", began.elapsed().as_secs_f64());
    let lag = Percentiles::of(&followed.lags);
    Ok(vec![
        ("way", json!(way.name())),
        ("overload s", json!(options.overload_seconds)),
        ("rows", json!(rows)),
        ("rows/s", json!(rows_per_s)),
        ("lag p50 ms", json!(lag.p50)),
        ("lag max ms", json!(lag.max)),
        ("backlog max rows", json!(followed.backlog_rows_max)),
        ("caught up after ms", json!(followed.caught_up.as_secs_f64() * 1e3)),
        ("verify", json!(verdict.lines().last())),
    ])
}

async fn turn(system: &System, options: &Options, way: Way, variant: Variant, seconds: u32) -> anyhow::Result<Turn> {
    let ready = variant.prepare(system, DATABASE).await?;
    let mut watch = match &ready.serve {
        Some(serve) => Some(Watch::start(system, serve).await?),
        None => None,
    };
    let writers = Writers::start(system.database(DATABASE)?, way, options.writers, system.stores)?;
    let began = Instant::now();
    let length = Duration::from_secs(seconds.into());
    while began.elapsed() < length {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Some(watch) = &mut watch {
            watch.look(writers.committed()).await?;
        }
    }
    let rows = writers.finish()?;
    let took = began.elapsed();
    let followed = match (watch, &ready.serve) {
        (Some(watch), Some(serve)) => Some(watch.finish(rows, system, serve).await?),
        _ => None,
    };
    ready.end().await?;
    #[expect(clippy::cast_precision_loss, reason = "a count of rows to show")]
    let rows_per_s = rows as f64 / took.as_secs_f64();
    Ok(Turn {
        rows,
        rows_per_s,
        followed,
    })
}

/// Looks at a daemon while others write.
struct Watch {
    client: Client,
    /// What it had applied before.
    applied_before: u64,
    /// When how many rows were committed, oldest first, from the last that it has applied on.
    committed: VecDeque<(Instant, u64)>,
    lags: Vec<Duration>,
    backlog_rows_max: u64,
    cpu: Cpu,
}

impl Watch {
    async fn start(system: &System, serve: &Serve) -> anyhow::Result<Self> {
        let mut client = serve.client().await?;
        Ok(Watch {
            applied_before: applied(&mut client).await?,
            client,
            committed: VecDeque::from([(Instant::now(), 0)]),
            lags: Vec::new(),
            backlog_rows_max: 0,
            cpu: serve.cpu(system).await?,
        })
    }

    /// `committed`: rows so far.
    async fn look(&mut self, committed: u64) -> anyhow::Result<()> {
        self.committed.push_back((Instant::now(), committed));
        let applied = applied(&mut self.client).await? - self.applied_before;
        while self.committed.get(1).is_some_and(|&(_, rows)| rows <= applied) {
            self.committed.pop_front();
        }
        if let Some(&(at, _)) = self.committed.front() {
            self.lags.push(at.elapsed());
        }
        self.backlog_rows_max = self.backlog_rows_max.max(committed.saturating_sub(applied));
        Ok(())
    }

    /// After the last commit: waits until everything is applied.
    async fn finish(mut self, rows: u64, system: &System, serve: &Serve) -> anyhow::Result<Followed> {
        let ended = Instant::now();
        while applied(&mut self.client).await? - self.applied_before < rows {
            ensure!(ended.elapsed() < CATCH_UP_PATIENCE, "the daemon has not caught up");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let caught_up = ended.elapsed();
        let cores = serve.cpu(system).await?.cores_since(self.cpu);
        Ok(Followed {
            lags: self.lags,
            backlog_rows_max: self.backlog_rows_max,
            caught_up,
            cores,
        })
    }
}

/// Rows that the daemon has applied in its life.
async fn applied(client: &mut Client) -> anyhow::Result<u64> {
    let (_, figures) = client.get("/metrics").await?;
    let rows = figures.lines().find_map(|line| line.strip_prefix(APPLIED));
    Ok(rows.map_or(Ok(0), str::parse)?)
}
