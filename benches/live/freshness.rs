//! How soon a committed row counts.
//!
//! Two meanings, both from the moment COMMIT returned to the writer:
//!
//! - *asked*: a report triggered right after it, over HTTP, to its last byte. It must hold the row: each row makes a store
//!   inactive that was active, in the hour before this one, and the store's line is looked at.
//! - *unasked*: until the daemon itself has the row in memory, nobody asking. The daemon runs in this process for that, on
//!   a runtime like the program's, since no answer over HTTP could tell without asking. Its status names the newest
//!   observation; the rows that are measured are dated now and all others ten seconds back, so the newest is ours.
//!
//! Each idle (now and then a row, the daemon sometimes asleep; and rows so far apart that it always is), beside paced
//! single-row transactions, and beside writers that go as fast as they can.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fastrand::Rng;
use serde_json::json;
use tokio::process::Child;
use uptally::clock::Clock;
use uptally::daemon::{Daemon, Settings, Status};
use uptally::db::Session;
use uptally::time::{HOUR_US, MINUTE_US, Timestamp};

use crate::client::Client;
use crate::daemon::Serve;
use crate::load::{Load, Rows, pgbench};
use crate::results::Results;
use crate::side::Side;
use crate::stats::Percentiles;
use crate::system::{FIRST_STORE, FLEET, System, full_hour, probe_id};

/// Longest that writers beside may run.
const BESIDE_S_MAX: u32 = 1_800;
/// Their first seconds are not part of it.
const BESIDE_WARM_UP: Duration = Duration::from_secs(2);
/// How far back the rows of others are dated.
const OTHERS_AGE_S: u32 = 10;
const VISIBLE_PATIENCE: Duration = Duration::from_mins(1);
/// Until the daemon in this process has built its rollup.
const FOLLOW_PATIENCE: Duration = Duration::from_mins(10);

const INSERT: &str = "INSERT INTO public.store_activity (store_id, timestamp_utc, status) VALUES ($1, $2, $3)";

#[derive(clap::Args)]
pub struct Options {
    /// Rows that are measured in each case; a quarter of them where the daemon is always asleep.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(4..=10_000))]
    samples: u32,
    /// Transactions a second of the paced writers beside.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Connections of the writers that go as fast as they can.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    clients: u32,
}

/// What goes on beside the rows that are measured.
struct Case {
    name: String,
    samples: u32,
    /// Shortest and longest pause between two of them.
    pause_ms: (u64, u64),
    /// Connections of writers beside; 0: none.
    clients: u32,
    rate: Option<u32>,
}

impl Options {
    fn cases(&self) -> [Case; 4] {
        let case = |name: String, part, pause_ms, clients, rate| Case {
            name,
            samples: self.samples / part,
            pause_ms,
            clients,
            rate,
        };
        [
            case("idle, a row every 0 to 0.5 s".to_owned(), 1, (0, 500), 0, None),
            case("idle, a row every second".to_owned(), 4, (1_000, 1_000), 0, None),
            case(
                format!("beside {} transactions/s", self.rate),
                1,
                (0, 100),
                8,
                Some(self.rate),
            ),
            case(
                format!("beside {} writers at full speed", self.clients),
                1,
                (0, 100),
                self.clients,
                None,
            ),
        ]
    }
}

impl Case {
    fn seconds(&self) -> u64 {
        u64::from(self.samples) * (self.pause_ms.0 + self.pause_ms.1) / 2 / 1_000 + 5
    }

    async fn beside(&self, system: &System) -> anyhow::Result<Option<Child>> {
        if self.clients == 0 {
            return Ok(None);
        }
        let load = Load {
            system,
            database: FLEET,
            rows: Rows::One,
            clients: self.clients,
            seconds: BESIDE_S_MAX,
            rate: self.rate,
            age_s: OTHERS_AGE_S,
        };
        let writers = load.spawn().await?;
        tokio::time::sleep(BESIDE_WARM_UP).await;
        Ok(Some(writers))
    }

    async fn pause(&self, rng: &mut Rng) {
        let pause_ms = rng.u64(self.pause_ms.0..=self.pause_ms.1);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
}

pub async fn measure(system: &System, options: &Options, results: &mut Results) -> anyhow::Result<()> {
    pgbench(system).await?;
    let cases = options.cases();
    let seconds: u64 = cases.iter().map(Case::seconds).sum::<u64>() * 2 + 60;
    eprintln!(
        "{} cases in two meanings: about {} min in all",
        cases.len(),
        seconds.div_ceil(60)
    );
    system.load(cases.iter().map(|case| case.samples).sum()).await?;
    results.begin(
        &format!("From COMMIT to visible, {} stores", system.stores),
        &system.machine,
    );
    asked(system, &cases, results).await?;
    unasked(system, &cases, results).await
}

/// In a report that is asked for right after COMMIT, of the program as a process of its own.
async fn asked(system: &System, cases: &[Case], results: &mut Results) -> anyhow::Result<()> {
    let serve = Serve::start(system, FLEET).await?;
    serve.settle(system).await?;
    let session = system.connect(FLEET).await?;
    let mut client = serve.client().await?;
    let mut rng = Rng::with_seed(1);
    let mut probes = (0..).map(probe_id);
    for case in cases {
        let beside = case.beside(system).await?;
        let mut took = Vec::new();
        let mut held = 0;
        for probe in probes.by_ref().take(case.samples as usize) {
            case.pause(&mut rng).await;
            let (duration, holds) = ask(&session, &mut client, &serve, &probe).await?;
            took.push(duration);
            held += u32::from(holds);
        }
        drop(beside);
        row(results, &format!("asked, {}", case.name), &took, Some(held));
        ensure!(
            held == case.samples,
            "{} reports did not hold a row committed before",
            case.samples - held
        );
    }
    serve.stop().await
}

/// Commits a row of a store, asks for a report; how long that took, and whether it holds the row.
async fn ask(session: &Session, client: &mut Client, serve: &Serve, probe: &str) -> anyhow::Result<(Duration, bool)> {
    // Active since three hours ago, and from a quarter past the hour before this one on not any more.
    let at = full_hour(Clock::System.now()).plus(-HOUR_US + 15 * MINUTE_US);
    session.client.execute(INSERT, &[&probe, &at, &"inactive"]).await?;
    let report = client.report().await?;
    serve.forget(&report.id);
    let csv = std::str::from_utf8(&report.csv)?;
    let start = format!("\n{probe},");
    let line = csv.split_once(&start).with_context(|| format!("no line of {probe}"))?.1;
    Ok((report.took, !line.starts_with("60.00,")))
}

/// Until the daemon has it, of the daemon in this process.
async fn unasked(system: &System, cases: &[Case], results: &mut Results) -> anyhow::Result<()> {
    let (daemon, handle) = Daemon::new(system.database(FLEET)?, Clock::System, Settings::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let follower = Side::start(runtime, async move |stop| Ok(daemon.run(stop).await?));
    let mut following = handle.clone();
    ensure!(
        tokio::time::timeout(FOLLOW_PATIENCE, following.following()).await?,
        "the daemon did not start"
    );
    let mut status = handle.watch();
    let session = system.connect(FLEET).await?;
    let mut rng = Rng::with_seed(2);
    for case in cases {
        let beside = case.beside(system).await?;
        let mut took = Vec::new();
        for _ in 0..case.samples {
            case.pause(&mut rng).await;
            let store = (FIRST_STORE + rng.u64(0..u64::from(system.stores))).to_string();
            let at = Clock::System.now();
            session.client.execute(INSERT, &[&store, &at, &"active"]).await?;
            let committed = Instant::now();
            until_newest(&mut status, at).await?;
            took.push(committed.elapsed());
        }
        drop(beside);
        row(results, &format!("unasked, {}", case.name), &took, None);
    }
    follower.finish()
}

async fn until_newest(status: &mut tokio::sync::watch::Receiver<Status>, at: Timestamp) -> anyhow::Result<()> {
    let visible = status.wait_for(|status| status.newest >= Some(at));
    tokio::time::timeout(VISIBLE_PATIENCE, visible).await??;
    Ok(())
}

fn row(results: &mut Results, name: &str, took: &[Duration], held: Option<u32>) {
    let percentiles = Percentiles::of(took);
    results.row(&[
        ("case", json!(name)),
        ("rows", json!(took.len())),
        ("held by the report", json!(held)),
        ("p50 ms", json!(percentiles.p50)),
        ("p90 ms", json!(percentiles.p90)),
        ("p99 ms", json!(percentiles.p99)),
        ("max ms", json!(percentiles.max)),
    ]);
}
