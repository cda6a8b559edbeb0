//! What the audit costs: two daemons that differ in nothing else, each on a copy of the fleet, side by side, so that
//! whatever else the machine does meets both.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::future::try_join_all;
use serde_json::json;

use crate::daemon::{Cpu, Serve};
use crate::load::{Load, Rows, pgbench};
use crate::results::Results;
use crate::system::System;

/// A database, how its daemon audits, and the variables that say so.
type Side = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// As by default, and not at all.
const SIDES: [Side; 2] = [
    ("audited", "every 10 s", &[]),
    ("not_audited", "never", &[("UPTALLY__AUDIT__INTERVAL_MS", "0")]),
];

#[derive(clap::Args)]
pub struct Options {
    /// Length of each case, in seconds.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(10..=36_000))]
    seconds: u32,
    /// Transactions a second of the writers beside, one row each, on each side; 0 leaves that case out.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Connections of the writers beside.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    clients: u32,
}

pub async fn measure(system: &System, options: &Options, results: &mut Results) -> anyhow::Result<()> {
    if options.rate > 0 {
        pgbench(system).await?;
    }
    system.load(0).await?;
    let mut daemons = Vec::new();
    for (name, _, variables) in SIDES {
        system.copy(name).await?;
        let serve = Serve::start_with(system, name, variables).await?;
        serve.settle(system).await?;
        daemons.push(serve);
    }
    let title = format!("What the audit costs, {} stores", system.stores);
    results.begin(&title, &system.machine);
    let sides = Sides {
        system,
        options,
        daemons,
    };
    sides.case("idle", results).await?;
    if options.rate > 0 {
        let loads = SIDES.map(|(database, ..)| Load {
            system,
            database,
            rows: Rows::One,
            clients: options.clients,
            seconds: 2 * options.seconds + 60,
            rate: Some(options.rate),
            age_s: 0,
        });
        let beside = try_join_all(loads.iter().map(Load::spawn)).await?;
        sides
            .case(&format!("beside {} transactions/s", options.rate), results)
            .await?;
        drop(beside);
    }
    for serve in sides.daemons {
        serve.stop().await?;
    }
    Ok(())
}

/// The two daemons at work.
struct Sides<'a> {
    system: &'a System,
    options: &'a Options,
    /// In the order of [`SIDES`].
    daemons: Vec<Serve>,
}

impl Sides<'_> {
    async fn case(&self, name: &str, results: &mut Results) -> anyhow::Result<()> {
        let (before, began) = (self.look().await?, Instant::now());
        tokio::time::sleep(Duration::from_secs(u64::from(self.options.seconds))).await;
        let after = self.look().await?;
        for (side, (_, audits, _)) in SIDES.iter().enumerate() {
            let (old, new) = before.get(side).zip(after.get(side)).context("two sides")?;
            let (own, sessions) = new.cpu.cores_since(old.cpu);
            results.row(&[
                ("case", json!(name)),
                ("audit", json!(audits)),
                ("daemon, % of a core", json!(own * 100.0)),
                ("its Postgres sessions", json!(sessions * 100.0)),
                ("cells compared", json!(new.cells - old.cells)),
                ("seconds", json!(began.elapsed().as_secs())),
            ]);
        }
        Ok(())
    }

    async fn look(&self) -> anyhow::Result<Vec<Look>> {
        let system = self.system;
        try_join_all(self.daemons.iter().map(|serve| async move {
            let figures = serve.client().await?.get("/metrics").await?.1;
            let cells = figures
                .lines()
                .find_map(|line| line.strip_prefix("uptally_audit_cells_total "));
            Ok(Look {
                cpu: serve.cpu(system).await?,
                cells: cells.map_or(Ok(0), str::parse)?,
            })
        }))
        .await
    }
}

/// What a daemon has used and done so far.
struct Look {
    cpu: Cpu,
    cells: u64,
}
