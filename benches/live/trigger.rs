//! From `POST /trigger_report` to the last byte of the complete CSV, over one HTTP connection, one report after another.
//!
//! Measured idle and beside paced single-row transactions. The parts: the trigger's own answer (its row is durable
//! then), the run (memory to file, as `public.reports` has it) and the GET that has the CSV. They overlap and leave
//! gaps: the run begins before the answer is out, and the client looks again only every 0.2 ms and a round trip.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use tokio_postgres::Client as Postgres;

use crate::client::{Client, Report};
use crate::daemon::Serve;
use crate::load::{Load, Rows, pgbench};
use crate::results::Results;
use crate::stats::Percentiles;
use crate::system::{FLEET, System};

/// Reports that are not counted: first use of connections, statements and memory.
const WARM_UP: u32 = 10;
/// Files that are left lying: the daemon still brings the last ones to the disk.
const FILES_KEPT: usize = 16;
/// Longest that the writers beside may run.
const BESIDE_S_MAX: u32 = 1_800;
/// The writers' first second is not part of it.
const BESIDE_WARM_UP: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Options {
    /// Reports for each case.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    reports: u32,
    /// Transactions a second of the writers beside, one row each; 0 leaves that case out.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// Connections of the writers beside.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    clients: u32,
}

pub async fn measure(system: &System, options: &Options, results: &mut Results) -> anyhow::Result<()> {
    if options.rate > 0 {
        pgbench(system).await?;
    }
    eprintln!(
        "{} reports for each case: about a minute at the default size",
        options.reports
    );
    system.load(0).await?;
    let serve = Serve::start(system, FLEET).await?;
    serve.settle(system).await?;
    let session = system.connect(FLEET).await?;
    let title = format!("Trigger to complete CSV over HTTP, {} stores", system.stores);
    results.begin(&title, &system.machine);
    let at_work = AtWork {
        system,
        serve: &serve,
        postgres: &session.client,
    };
    at_work.case(options, "idle", results).await?;
    if options.rate > 0 {
        let load = Load {
            system,
            database: FLEET,
            rows: Rows::One,
            clients: options.clients,
            seconds: BESIDE_S_MAX,
            rate: Some(options.rate),
            age_s: 0,
        };
        let beside = load.spawn().await?;
        tokio::time::sleep(BESIDE_WARM_UP).await;
        let (xid, began) = (next_xid(&session.client).await?, Instant::now());
        let name = format!("beside {} transactions/s", options.rate);
        at_work.case(options, &name, results).await?;
        let (written, took) = (rows_since(&session.client, &xid).await?, began.elapsed());
        drop(beside);
        #[expect(clippy::cast_precision_loss, reason = "a count of rows to show")]
        let rate = written as f64 / took.as_secs_f64();
        results.note(&format!(
            "The writers beside got {rate:.0} transactions a second through."
        ));
    }
    serve.stop().await
}

/// What the cases share.
struct AtWork<'a> {
    system: &'a System,
    serve: &'a Serve,
    postgres: &'a Postgres,
}

impl AtWork<'_> {
    async fn case(&self, options: &Options, name: &str, results: &mut Results) -> anyhow::Result<()> {
        let mut client = self.serve.client().await?;
        let mut files = Files {
            serve: self.serve,
            ids: VecDeque::new(),
        };
        for _ in 0..WARM_UP {
            files.keep(get(&mut client).await?);
        }
        let now = "SELECT pg_catalog.clock_timestamp()::text";
        let since: String = self.postgres.query_one(now, &[]).await?.try_get(0)?;
        let cpu = self.serve.cpu(self.system).await?;
        let (mut answered, mut fetched, mut took) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        for _ in 0..options.reports {
            let report = get(&mut client).await?;
            answered.push(report.answered);
            fetched.push(report.fetched);
            took.push(report.took);
            bytes = report.csv.len();
            files.keep(report);
        }
        let (cores, session_cores) = self.serve.cpu(self.system).await?.cores_since(cpu);
        let total = Percentiles::of(&took);
        results.row(&[
            ("case", json!(name)),
            ("reports", json!(options.reports)),
            ("p50 ms", json!(total.p50)),
            ("p90 ms", json!(total.p90)),
            ("p99 ms", json!(total.p99)),
            ("max ms", json!(total.max)),
            ("answer p50 ms", json!(Percentiles::of(&answered).p50)),
            (
                "run p50 ms",
                json!(Percentiles::of(&runs(self.postgres, &since).await?).p50),
            ),
            ("get p50 ms", json!(Percentiles::of(&fetched).p50)),
            ("CSV bytes", json!(bytes)),
            ("daemon cores", json!(cores)),
            ("its sessions' cores", json!(session_cores)),
        ]);
        Ok(())
    }
}

async fn get(client: &mut Client) -> anyhow::Result<Report> {
    let report = client.report().await?;
    ensure!(report.csv.ends_with(b"\n"), "the CSV is cut off");
    Ok(report)
}

/// The files of the reports so far.
struct Files<'a> {
    serve: &'a Serve,
    ids: VecDeque<String>,
}

impl Files<'_> {
    /// Keeps this one, lets an old one go.
    fn keep(&mut self, report: Report) {
        self.ids.push_back(report.id);
        if self.ids.len() > FILES_KEPT
            && let Some(id) = self.ids.pop_front()
        {
            self.serve.forget(&id);
        }
    }
}

/// How long the runs since an instant took, by the daemon's own clock.
async fn runs(postgres: &Postgres, since: &str) -> anyhow::Result<Vec<Duration>> {
    // Rows are ended after the file is synced, a moment after the client has it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let sql = "SELECT duration_us FROM public.reports
               WHERE requested_at >= $1::text::timestamptz AND state = 'complete'";
    let rows = postgres.query(sql, &[&since]).await?;
    let took = rows
        .iter()
        .map(|row| Ok(Duration::from_micros(row.try_get::<_, i64>(0)?.unsigned_abs())));
    took.collect()
}

/// The number of a transaction that begins now.
async fn next_xid(postgres: &Postgres) -> anyhow::Result<String> {
    let sql = "SELECT pg_catalog.pg_current_xact_id()::text";
    Ok(postgres.query_one(sql, &[]).await?.try_get(0)?)
}

async fn rows_since(postgres: &Postgres, xid: &str) -> anyhow::Result<i64> {
    let sql = "SELECT count(*) FROM public.store_activity WHERE change_xid >= $1::text::xid8";
    Ok(postgres.query_one(sql, &[&xid]).await?.try_get(0)?)
}
