//! From a command and the configuration to the part that does it.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;

use super::reach::{Reached, reach, reach_as_owner, refusal};
use super::signals::Signals;
use super::{DemoArgs, Exit, ImportArgs, MigrateArgs, Refusal, ReportArgs, write_stdout};
use crate::clock::Clock;
use crate::cluster::ClusterError;
use crate::config::{AsOf, Config};
use crate::daemon::{self, DaemonError, Settings};
use crate::db::{self, Database, DbError, Grants};
use crate::demo::{self, DemoOptions};
use crate::feed::doorbell::{Doorbell, Wake};
use crate::feed::{Reading, Scope};
use crate::http::{self, Access, ActivityLimits, ServeLimits, Tokens};
use crate::import::{self, ImportOptions, Input};
use crate::ledger::{self, Flush, Ledger};
use crate::live;
use crate::report::{self, ReportRequest, csv};
use crate::rollup::Limits;
use crate::serve::{self, Service, ServiceOptions};
use crate::systemd::ServiceManager;
use crate::time::{DAY_US, Timestamp};
use crate::window::WINDOW_REACH_US;
use crate::{telemetry, verify};

/// How often it is looked whether the daemon has rebuilt, and after how many looks whether it is gone.
const REBUILD_LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOKS_PER_TRY_TO_LEAD: u32 = 40;

/// How long the private Postgres may take to end, beyond what the rest takes; its guard ends it even if we do not wait.
const POSTGRES_STOP_MAX: Duration = Duration::from_millis(1500);

/// Ended reports whose state is kept in memory.
const REPORTS_KEPT_MAX: usize = 10_000;

pub(super) async fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    let options = service_options(config, config.http.listen, config.http.access()?);
    let manager = ServiceManager::find(|name| std::env::var_os(name))?;
    let mut signals = Signals::listen()?;
    manager.status("starting");
    let reached = tokio::select! {
        reached = reach_as_owner(config) => reached?,
        // Whatever was begun of a private Postgres, its guard ends.
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let Reached { database, mut cluster } = reached;
    let mut stop_by = Instant::now() + POSTGRES_STOP_MAX;
    let service = Service::start(database, options, start_metrics()?).await;
    let outcome = match service {
        Ok(mut service) => {
            manager.ready();
            let daemon = service.handle().clone();
            let failure = tokio::select! {
                () = signals.next() => {
                    tracing::info!("ending; a second signal ends at once");
                    None
                }
                error = service.failed() => Some(error),
                error = guard_lost(cluster.as_mut()) => Some(error),
                never = manager.watch(&daemon) => match never {},
            };
            manager.stopping();
            stop_by = Instant::now() + service.stop_max() + POSTGRES_STOP_MAX;
            tokio::select! {
                () = service.stop() => {}
                () = signals.next() => {
                    tracing::warn!("ended at once");
                    stop_by = Instant::now();
                }
            }
            failure.map_or(Ok(()), Err)
        }
        Err(error) => Err(error),
    };
    if let Some(cluster) = cluster {
        tokio::select! {
            stopped = cluster.stop() => stopped.map_err(refusal)?,
            () = tokio::time::sleep_until(stop_by.into()) => tracing::warn!("Postgres is still ending; its guard sees to that"),
            () = signals.next() => {}
        }
    }
    outcome.map_err(explain)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns if the private Postgres lost its guard: without one it would outlive us.
async fn guard_lost(cluster: Option<&mut crate::cluster::PrivateCluster>) -> anyhow::Error {
    match cluster {
        Some(cluster) => cluster.exited().await.into(),
        None => std::future::pending().await,
    }
}

/// Gives errors that are no failure of ours their exit code: another daemon, a private Postgres in use.
fn explain(error: anyhow::Error) -> anyhow::Error {
    if let Some(DaemonError::AnotherDaemon(_) | DaemonError::Fenced) = error.downcast_ref::<DaemonError>() {
        return Refusal::new(Exit::TryAgain, error).into();
    }
    error
        .downcast::<ClusterError>()
        .map_or_else(|error| error, |error| refusal(error).into())
}

pub(super) async fn import(config: &Config, arguments: ImportArgs) -> anyhow::Result<ExitCode> {
    let input = |path: PathBuf| {
        if path == Path::new("-") {
            Input::Stdin
        } else {
            Input::File(path)
        }
    };
    let options = ImportOptions {
        activity: arguments.activity.into_iter().map(input).collect(),
        hours: arguments.hours.map(input),
        closures: arguments.closures.map(input),
        timezones: arguments.timezones.map(input),
        strict: arguments.strict,
        rejects: arguments.rejects,
        progress: true,
    };
    let reached = reach(config).await?;
    reached.database.migrate_if_needed().await?;
    let mut session = reached.database.connect("uptally import").await?;
    // A chunk waits for whoever holds its rows.
    session
        .client
        .batch_execute("SET statement_timeout = 0")
        .await
        .map_err(DbError::from)?;
    let outcome = import::run(&mut session.client, &options).await;
    drop(session);
    let summary = match outcome {
        Ok(summary) => summary,
        Err(error) => {
            reached.close().await?;
            return Err(error.into());
        }
    };
    reached.close().await?;
    write_stdout(|out| write!(out, "{summary}"))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn report(config: &Config, arguments: ReportArgs) -> anyhow::Result<ExitCode> {
    let reached = reach(config).await?;
    let rendered = render(config, &reached.database).await;
    reached.close().await?;
    let csv = rendered?;
    match arguments.output {
        None => write_stdout(|out| out.write_all(&csv))?,
        Some(path) => write_whole(&path, &csv)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn render(config: &Config, database: &Database) -> anyhow::Result<Vec<u8>> {
    let now = Clock::System.now();
    let keep_from = |as_of: Timestamp| Some(as_of.plus(-WINDOW_REACH_US));
    let limits = Limits {
        keep_from: match config.report.as_of {
            AsOf::At(as_of) => keep_from(as_of),
            AsOf::Now | AsOf::Latest => None,
        },
        ..limits(config)
    };
    let mut point = daemon::point(database, limits, now, config.feed.batch_rows_max).await?;
    let newest = point.snapshot.newest();
    let as_of = match config.report.as_of {
        AsOf::Now => now,
        AsOf::Latest => newest.unwrap_or(now),
        AsOf::At(as_of) => as_of,
    };
    if !point.snapshot.reaches(as_of) {
        // Rows were deleted, and the newest that is left lies before what was loaded.
        let limits = Limits {
            keep_from: keep_from(as_of),
            ..limits
        };
        point = daemon::point(database, limits, now, config.feed.batch_rows_max).await?;
    }
    let (earliest, latest) = (
        point.snapshot.earliest_as_of(),
        newest.map_or(now, |newest| newest.max(now)),
    );
    anyhow::ensure!(
        (earliest..=latest).contains(&as_of),
        "expected --as-of from {earliest} to {latest}, found {as_of}"
    );
    let csv = csv::render(&point.snapshot, as_of, config.report.windows, config.report.closed)?;
    Ok(csv.to_vec())
}

/// Writes a file so that it is whole or as before.
fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let whole = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().permissions(readable()).tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    // Something that is no file (/dev/null, a pipe) is written as it is.
    let special = path.metadata().is_ok_and(|metadata| !metadata.is_file());
    let written = if special { std::fs::write(path, bytes) } else { whole() };
    written.with_context(|| format!("cannot write {}", path.display()))
}

pub(super) fn readable() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}

pub(super) async fn verify(config: &Config) -> anyhow::Result<ExitCode> {
    let reached = reach(config).await?;
    let now = Clock::System.now();
    let verdict = verify::verify(&reached.database, limits(config), now, config.feed.batch_rows_max).await;
    reached.close().await?;
    let verdict = verdict?;
    write_stdout(|out| {
        for difference in &verdict.differences {
            writeln!(out, "{difference}")?;
        }
        let hidden = verdict.difference_count - verdict.differences.len();
        if hidden > 0 {
            writeln!(out, "and {hidden} more")?;
        }
        let (stores, cells, rows) = (verdict.stores, verdict.cells, verdict.rows);
        writeln!(
            out,
            "{} differences; {stores} stores, {cells} cells and {rows} rows were compared",
            verdict.difference_count
        )
    })?;
    Ok(if verdict.difference_count == 0 {
        ExitCode::SUCCESS
    } else {
        Exit::Failure.into()
    })
}

pub(super) async fn rebuild(config: &Config) -> anyhow::Result<ExitCode> {
    let reached = reach(config).await?;
    let outcome = rebuild_at(config, &reached.database).await;
    reached.close().await?;
    let stores = outcome?;
    write_stdout(|out| writeln!(out, "rebuilt the rollup of {stores} stores"))?;
    Ok(ExitCode::SUCCESS)
}

/// A daemon that is active rebuilds by itself, when told so; if it goes, or none is there, it is done here.
async fn rebuild_at(config: &Config, database: &Database) -> anyhow::Result<usize> {
    database.migrate_if_needed().await?;
    let client = database.connect("uptally rebuild").await?.client;
    let mut asked = None;
    let mut looks = 0_u32;
    let _lead = loop {
        if looks.is_multiple_of(LOOKS_PER_TRY_TO_LEAD)
            && let Some(lead) = Doorbell::open(database, Wake::Poll).await?
        {
            break lead;
        }
        if asked.is_none() {
            asked = Some(ledger::ask_for_rebuild(&client).await?);
        }
        if let Some(asked) = &asked
            && let Some(stores) = ledger::rebuilt(&client, asked).await?
        {
            return Ok(stores);
        }
        looks += 1;
        tokio::time::sleep(REBUILD_LOOK_EVERY).await;
    };
    let mut ledger = Ledger::open(database).await?;
    let mut session = database.connect("uptally rebuild").await?;
    session
        .client
        .batch_execute("SET statement_timeout = 0")
        .await
        .map_err(DbError::from)?;
    let reading = Reading::start(&mut session, Scope::Inputs).await?;
    let now = Clock::System.now();
    let mut rollup = reading
        .rebuild(limits(config), now, config.feed.batch_rows_max, || ())
        .await?;
    let wiring = reading.wiring().await?;
    let cursor = reading.finish();
    let flush = Flush {
        dirty: rollup.take_dirty(),
        cursor,
        replace: Some(wiring.marks().to_vec()),
        drop_before: None,
        audit: None,
    };
    ledger.flush(&flush).await?;
    Ok(rollup.stores())
}

pub(super) async fn migrate(config: &Config, arguments: MigrateArgs) -> anyhow::Result<ExitCode> {
    let grants = Grants {
        daemon: arguments.grant_to,
        poller: arguments.grant_poller,
    };
    if arguments.dry_run {
        write_stdout(|out| out.write_all(grants.sql().as_bytes()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let reached = reach(config).await?;
    let outcome = migrate_at(&reached.database, &grants).await;
    reached.close().await?;
    for warning in outcome? {
        tracing::warn!("{warning}");
    }
    write_stdout(|out| writeln!(out, "the schema is up to date"))?;
    Ok(ExitCode::SUCCESS)
}

async fn migrate_at(database: &Database, grants: &Grants) -> Result<Vec<String>, DbError> {
    database.migrate().await?;
    if grants.is_empty() {
        return Ok(Vec::new());
    }
    database.grant(grants).await
}

pub(super) async fn demo(config: &Config, arguments: &DemoArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let options = DemoOptions {
        stores: arguments.stores,
        once: arguments.once,
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
        service: demo_service_options(config)?,
        database: config.database.clone(),
        state_dir: config.state.dir.clone(),
    };
    let say = |text: &str| Ok(write_stdout(|out| writeln!(out, "{text}"))?);
    demo::run(options, start_metrics()?, signals.next(), &say)
        .await
        .map_err(explain)?;
    Ok(ExitCode::SUCCESS)
}

fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    Ok(telemetry::start_metrics(|| {
        db::describe_metrics();
        daemon::describe_metrics();
        report::describe_metrics();
        http::describe_metrics();
        serve::describe_metrics();
    })?)
}

fn limits(config: &Config) -> Limits {
    Limits {
        retention_us: i64::from(config.rollup.retention_days) * DAY_US,
        ..Limits::default()
    }
}

/// The demo is for this machine only and needs no login, whatever the configuration says of the real thing.
fn demo_service_options(config: &Config) -> anyhow::Result<ServiceOptions> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, config.http.listen.port()));
    let access = Access::new(listen, Tokens::default(), Vec::new())?;
    Ok(service_options(config, listen, access))
}

fn service_options(config: &Config, listen: SocketAddr, access: Access) -> ServiceOptions {
    ServiceOptions {
        listen,
        access,
        drain_max: config.http.drain_timeout,
        http: ServeLimits {
            connections_max: config.http.connections_max,
            header_max: config.http.header_timeout,
            ..ServeLimits::default()
        },
        reports: report::Limits {
            running_max: config.report.running_max,
            queue_max: config.report.queue_max,
            ended_max: REPORTS_KEPT_MAX,
            ..report::Limits::default()
        },
        defaults: ReportRequest {
            as_of: config.report.as_of,
            windows: config.report.windows,
            closed: config.report.closed,
            ..ReportRequest::default()
        },
        jobs: config.jobs.reports.clone(),
        job_limits: config.jobs.limits,
        activity: ActivityLimits {
            body_bytes_max: config.activity.body_bytes_max,
            rows_max: config.activity.rows_max,
        },
        live: live::Settings {
            silent_after: config.fleet.silent_after,
            as_of_latest: config.report.as_of == AsOf::Latest,
        },
        subscribers_max: config.http.subscribers_max,
        output_url: config.report.output_url.clone(),
        daemon: Settings {
            wake: config.feed.wake,
            poll_interval: config.feed.poll_interval,
            awake_interval: config.feed.awake_interval,
            awake_for: config.feed.awake_for,
            batch_rows_max: config.feed.batch_rows_max,
            standby: config.feed.standby,
            audit_interval: config.audit.interval,
            check_interval: config.feed.check_interval,
            flush_interval: config.rollup.flush_interval,
            limits: limits(config),
            silent_after: config.fleet.silent_after,
            lag_ready_max: config.rollup.lag_ready_max,
            ..Settings::default()
        },
    }
}
