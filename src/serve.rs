//! The daemon with everything around it: reports, HTTP, and an end in the right order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::daemon::{self, Daemon, DaemonError, Handle, Settings};
use crate::db::Database;
use crate::http::{self, Access, ActivityLimits, Api, Events, ServeLimits};
use crate::live::{self, Live};
use crate::report::{Archive, Connect, Job, JobLimits, Jobs, Limits, Registry, ReportRequest};
use crate::telemetry;

/// At the end, answers get so long at least, even if reports took all the time for draining.
const ANSWERS_DRAIN_MIN: Duration = Duration::from_millis(500);
/// How long the last flush may take beyond the time for draining.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// How often the figures are tidied, so that histograms do not grow between two scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// What the service needs to know.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// Where HTTP is answered; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who is let in.
    pub access: Access,
    /// Bounds of the HTTP server.
    pub http: ServeLimits,
    /// How long running answers and reports may take to end.
    pub drain_max: Duration,
    /// Bounds of the reports.
    pub reports: Limits,
    /// Options of a trigger that does not give its own.
    pub defaults: ReportRequest,
    /// Reports that are made by themselves.
    pub jobs: Vec<Job>,
    /// How late they may be, and how long they are kept.
    pub job_limits: JobLimits,
    /// What a body of observations may be.
    pub activity: ActivityLimits,
    /// What counts as the present, and when a store is silent.
    pub live: live::Settings,
    /// Who may listen to events at a time.
    pub subscribers_max: usize,
    /// Directory or URL of the reports.
    pub output_url: String,
    /// Pace of the daemon.
    pub daemon: Settings,
}

/// A running service. Stop it with [`Service::stop`]; dropping it leaves its tasks to the runtime.
pub struct Service {
    address: SocketAddr,
    handle: Handle,
    registry: Registry,
    events: Events,
    stop_http: watch::Sender<Option<Instant>>,
    stop_daemon: watch::Sender<bool>,
    http: JoinHandle<bool>,
    daemon: JoinHandle<Result<(), DaemonError>>,
    upkeep: JoinHandle<()>,
    drain_max: Duration,
}

impl Service {
    /// Starts everything. Whether the database answers shows in the readiness, not here.
    pub async fn start(database: Database, options: ServiceOptions, metrics: PrometheusHandle) -> anyhow::Result<Self> {
        let archive = Archive::open(&options.output_url)
            .with_context(|| format!("cannot use {} for reports (report.output_url)", options.output_url))?;
        let listener = TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("cannot listen on {} (http.listen)", options.listen))?;
        let address = listener.local_addr()?;
        let (daemon, handle) = Daemon::new(database.clone(), Clock::System, options.daemon);
        let (stop_daemon, daemon_stops) = watch::channel(false);
        let daemon = tokio::spawn(daemon.run(daemon_stops));
        let live = Live::new(database.clone(), handle.clone(), Clock::System, options.live);
        let events = Events::new(&Clock::System, options.subscribers_max);
        let registry = Registry::new(Arc::new(handle.clone()), archive, connector(database), options.reports);
        events.watch(live.clone(), registry.clone());
        recover_when_leading(handle.clone(), registry.clone());
        if !options.jobs.is_empty() {
            let jobs = Jobs::new(registry.clone(), options.jobs, options.job_limits, Clock::System);
            work_when_leading(handle.clone(), jobs);
        }
        let upkeep = tokio::spawn(upkeep(metrics.clone()));
        let api = Api {
            registry: registry.clone(),
            live,
            events: events.clone(),
            activity: options.activity,
            defaults: options.defaults,
            access: options.access,
            metrics_text: metrics_text(metrics, handle.clone(), registry.clone()),
        };
        let (stop_http, mut http_stops) = watch::channel(None);
        let stopping = async move {
            // An error means that the service is gone: stop too, at once.
            let told = http_stops.wait_for(Option::is_some).await;
            told.ok().and_then(|at| *at).unwrap_or_else(Instant::now)
        };
        let http = tokio::spawn(http::serve(listener, http::router(api), stopping, options.http));
        tracing::info!("listening on http://{address}");
        Ok(Service {
            address,
            handle,
            registry,
            events,
            stop_http,
            stop_daemon,
            http,
            daemon,
            upkeep,
            drain_max: options.drain_max,
        })
    }

    /// Where HTTP is answered.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The daemon's handle.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Returns when the daemon has ended by itself, and why.
    pub async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.daemon).await {
            Ok(Ok(())) => anyhow::anyhow!("the daemon ended without being asked"),
            Ok(Err(error)) => error.into(),
            Err(error) => anyhow::Error::new(error).context("the daemon broke off"),
        }
    }

    /// How long [`Service::stop`] takes at most.
    pub fn stop_max(&self) -> Duration {
        self.drain_max + FLUSH_MAX
    }

    /// Ends in order: not ready, no events and no new reports, those accepted finished while readiness and reports are still
    /// answered, then running answers, then the last flush.
    pub async fn stop(self) {
        let drained_by = Instant::now() + self.drain_max;
        self.handle.drain();
        // They would go on for ever.
        self.events.close();
        if !self.registry.drain(self.drain_max).await {
            tracing::warn!("some reports are left to the next start");
        }
        let cut_off_at = drained_by.max(Instant::now() + ANSWERS_DRAIN_MIN);
        let _ = self.stop_http.send(Some(cut_off_at));
        if !self.http.await.unwrap_or(false) {
            tracing::warn!("some answers were cut off");
        }
        let _ = self.stop_daemon.send(true);
        let flushed_by = (drained_by + FLUSH_MAX).into();
        if !self.daemon.is_finished() && tokio::time::timeout_at(flushed_by, self.daemon).await.is_err() {
            tracing::warn!("the last flush was cut off; the next start reads what it misses again");
        }
        self.upkeep.abort();
        tracing::info!("stopped");
    }
}

/// Reports that an earlier life left running are made by whoever has the lead, never by a daemon that waits. Each time that
/// it is taken the database may be another one, which lacks the ends of some.
fn recover_when_leading(mut handle: Handle, registry: Registry) {
    tokio::spawn(async move {
        while handle.following().await {
            registry.recover();
            if !handle.stopped().await {
                return;
            }
        }
    });
}

/// Jobs are done by whoever has the lead.
fn work_when_leading(mut handle: Handle, mut jobs: Jobs) {
    tokio::spawn(async move {
        while handle.following().await {
            tokio::select! {
                () = jobs.run() => {}
                more = handle.stopped() => if !more { return },
            }
        }
    });
}

fn connector(database: Database) -> Connect {
    Arc::new(move || {
        let database = database.clone();
        Box::pin(async move { Ok(database.connect("uptally reports").await?.client) })
    })
}

/// The figures, with those that are true at one moment only set when somebody asks.
fn metrics_text(
    metrics: PrometheusHandle,
    handle: Handle,
    registry: Registry,
) -> Arc<dyn Fn() -> String + Send + Sync> {
    Arc::new(move || {
        daemon::collect_metrics(&handle.status());
        registry.collect_metrics();
        let ready = registry.source().readiness().is_ok();
        metrics::gauge!("uptally_ready").set(f64::from(u8::from(ready)));
        telemetry::render_metrics(&metrics)
    })
}

/// Names and explains this module's figures to the installed recorder.
pub fn describe_metrics() {
    metrics::describe_gauge!("uptally_ready", "1 while /readyz answers 200");
}

async fn upkeep(metrics: PrometheusHandle) {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    loop {
        every.tick().await;
        metrics.run_upkeep();
    }
}
