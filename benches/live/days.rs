//! Reports over local days, from a week to a year, beside the report of the three windows: what a longer stretch costs.
//!
//! Before the fleet's hourly polls lies a year of sparse ones: each store one every 36 hours, with outages of as long. The
//! cases take turns, so that whatever else the machine does meets all of them.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use tokio_postgres::Client as Postgres;

use crate::daemon::Serve;
use crate::results::Results;
use crate::stats::Percentiles;
use crate::system::{FLEET, System};

/// Reports of each case that are not counted.
const WARM_UP: u32 = 2;
/// How long flushing a year may take.
const SUMS_PATIENCE: Duration = Duration::from_mins(5);

/// One poll of each store in 36 hours, for a year before the first one that is there; one in twenty says inactive.
const YEAR: &str = "
    INSERT INTO public.store_activity (store_id, timestamp_utc, status)
    SELECT s.store_id, f.first - n.n * interval '36 h' - (hashtext(s.store_id) & 65535) * interval '1 s',
           CASE WHEN (hashtext(s.store_id || n.n) & 255) < 13 THEN 'inactive' ELSE 'active' END
    FROM (SELECT DISTINCT store_id FROM public.store_activity) s,
         (SELECT min(timestamp_utc) AS first FROM public.store_activity) f,
         generate_series(1, 245) AS n (n)
    ON CONFLICT DO NOTHING";

#[derive(clap::Args)]
pub struct Options {
    /// Reports for each case.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    reports: u32,
}

pub async fn measure(system: &System, options: &Options, results: &mut Results) -> anyhow::Result<()> {
    system.load(0).await?;
    let session = system.connect(FLEET).await?;
    let rows = session.client.execute(YEAR, &[]).await?;
    eprintln!("{rows} rows of a year before");
    let serve = Serve::start(system, FLEET).await?;
    serve.settle(system).await?;
    sums_are_there(&session.client).await?;
    let title = format!("Reports over days, trigger to complete CSV, {} stores", system.stores);
    results.begin(&title, &system.machine);
    let day = async |back: i32| -> anyhow::Result<String> {
        let sql = "SELECT ((clock_timestamp() AT TIME ZONE 'UTC')::date - $1::integer)::text";
        Ok(session.client.query_one(sql, &[&back]).await?.try_get(0)?)
    };
    let mut cases = vec![("three windows".to_owned(), "/trigger_report".to_owned(), Vec::new())];
    for (name, from, to) in [
        ("7 days to yesterday", 8, 1),
        ("30 days", 31, 1),
        ("90 days", 91, 1),
        ("365 days", 366, 1),
        ("7 days, 300 days ago", 307, 300),
    ] {
        let path = format!("/trigger_report?from={}&to={}", day(from).await?, day(to).await?);
        cases.push((name.to_owned(), path, Vec::new()));
    }
    let mut client = serve.client().await?;
    for round in 0..WARM_UP + options.reports {
        for (_, path, took) in &mut cases {
            let report = client.report_of(path).await?;
            ensure!(report.csv.ends_with(b"\n"), "the CSV is cut off");
            if round >= WARM_UP {
                took.push(report.took);
            }
        }
    }
    let week = cases.get(1).map_or(1.0, |(_, _, took)| Percentiles::of(took).p50);
    for (name, _, took) in &cases {
        let took = Percentiles::of(took);
        results.row(&[
            ("case", json!(name)),
            ("reports", json!(options.reports)),
            ("p50 ms", json!(took.p50)),
            ("p90 ms", json!(took.p90)),
            ("times 7 days", json!(took.p50 / week)),
        ]);
    }
    let sql =
        "SELECT count(*), pg_total_relation_size('uptally.rollup_day'), count(DISTINCT day) FROM uptally.rollup_day";
    let row = session.client.query_one(sql, &[]).await?;
    let (rows, bytes, days): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    results.note(&format!(
        "Running sums: {rows} rows of {days} days, {bytes} bytes, {} bytes a row.",
        bytes / rows.max(1)
    ));
    serve.stop().await
}

async fn sums_are_there(postgres: &Postgres) -> anyhow::Result<()> {
    let sql =
        "SELECT coalesce(summed_to > (clock_timestamp() AT TIME ZONE 'UTC')::date - 20, false) FROM uptally.checkpoint";
    let there = async {
        while !postgres.query_one(sql, &[]).await?.try_get::<_, bool>(0)? {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(SUMS_PATIENCE, there).await?
}
