//! `uptally demo`: everything at work on a generated fleet, in a private Postgres of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpStream;

use crate::clock::Clock;
use crate::cluster::{ClusterOptions, PrivateCluster};
use crate::config::DatabaseConfig;
use crate::db::{Database, Session};
use crate::fleet::{Fleet, FleetOptions};
use crate::import;
use crate::serve::{Service, ServiceOptions};
use crate::time::{MINUTE_US, Timestamp};

/// Days of polls that lie in the past when the demo starts: two weeks, so that the calendar week is whole.
const DAYS: u32 = 15;
const POLL_INTERVAL_US: i64 = 60 * MINUTE_US;
/// Share of polls that never arrive, as in the real data.
const MISSING: f64 = 0.29;
/// Live rows are written so often.
const LIVE_EVERY: Duration = Duration::from_millis(200);
/// Lines of the report that are shown.
const LINES_SHOWN: usize = 8;
/// How long the report may take before the demo gives up.
const REPORT_PATIENCE: Duration = Duration::from_secs(30);

/// Shows a text and a line end.
pub type Say<'a> = &'a (dyn Fn(&str) -> anyhow::Result<()> + Sync);

/// What to show.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Stores in the fleet.
    pub stores: u32,
    /// End after the first report.
    pub once: bool,
    /// Of the generator.
    pub seed: u64,
    /// How to serve. The address gives way to a free one if it is taken.
    pub service: ServiceOptions,
    /// Timeouts of the database; its URL is not used.
    pub database: DatabaseConfig,
    /// Where the Postgres of the demo lives; None: in a directory that goes when the demo does.
    pub state_dir: Option<PathBuf>,
}

/// Runs the demo until it is over or `interrupted`.
pub async fn run(
    options: DemoOptions,
    metrics: PrometheusHandle,
    interrupted: impl Future<Output = ()>,
    say: Say<'_>,
) -> anyhow::Result<()> {
    // Others may enter it: Postgres may have to run as another user.
    let scratch = tempfile::Builder::new()
        .prefix("uptally-demo-")
        .permissions(PermissionsExt::from_mode(0o711))
        .tempdir()
        .context("cannot make a directory for the demo")?;
    let state_dir = options
        .state_dir
        .clone()
        .unwrap_or_else(|| scratch.path().join("state"));
    let cluster = PrivateCluster::start(ClusterOptions::new(state_dir)).await?;
    tokio::pin!(interrupted);
    let shown = tokio::select! {
        shown = show(&options, &cluster, scratch.path(), metrics, say) => shown,
        () = &mut interrupted => Ok(()),
    };
    cluster.stop().await?;
    shown
}

async fn show(
    options: &DemoOptions,
    cluster: &PrivateCluster,
    scratch: &Path,
    metrics: PrometheusHandle,
    say: Say<'_>,
) -> anyhow::Result<()> {
    let timeouts = &options.database;
    let database = Database::new(
        cluster.connection(),
        timeouts.connect_timeout,
        timeouts.statement_timeout,
    )?;
    let began = Instant::now();
    database.migrate().await?;
    let fleet = Fleet::generate(FleetOptions {
        stores: options.stores,
        days: DAYS,
        poll_interval_us: POLL_INTERVAL_US,
        missing: MISSING,
        seed: options.seed,
        end: Clock::System.now(),
    });
    let mut session = database.connect("uptally demo").await?;
    let loaded = import::load(
        &mut session.client,
        fleet.timezone_rows(),
        fleet.hours_rows(),
        fleet.closure_rows(),
        fleet.activity_rows(),
    )
    .await?;
    say(&format!(
        "loaded {} stores and {} status rows of {DAYS} days into a private Postgres in {:.1} s (seed {})",
        options.stores,
        loaded.activity.read,
        began.elapsed().as_secs_f64(),
        options.seed
    ))?;
    let began = Instant::now();
    let mut service = ServiceOptions {
        output_url: scratch.join("csvs").display().to_string(),
        ..options.service.clone()
    };
    if std::net::TcpListener::bind(service.listen).is_err() {
        service.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    }
    let service = Service::start(database.clone(), service, metrics).await?;
    anyhow::ensure!(service.handle().clone().following().await, "the daemon did not start");
    say(&format!(
        "rollups built and following after {:.0} ms",
        began.elapsed().as_secs_f64() * 1e3
    ))?;
    let live = tokio::spawn(write_live(session, fleet));
    let psql = format!("psql '{}'", cluster.url());
    let outcome = ask(options, &service, &psql, say).await;
    if outcome.is_ok() && !options.once {
        // Until somebody interrupts, which drops all of this.
        std::future::pending::<()>().await;
    }
    live.abort();
    service.stop().await;
    outcome
}

/// Triggers a report by HTTP, waits for it, shows its first lines.
async fn ask(options: &DemoOptions, service: &Service, psql: &str, say: Say<'_>) -> anyhow::Result<()> {
    let address = service.address();
    let mut client = Client::connect(address).await?;
    // The connection's and the statements' first use are not what an answer costs.
    client.report().await?;
    let (csv, took) = client.report().await?;
    let text = String::from_utf8_lossy(&csv);
    say(&format!(
        "\nPOST /trigger_report, then GET /get_report until it is complete: {:.1} ms for {} stores\n",
        took.as_secs_f64() * 1e3,
        text.lines().count().saturating_sub(1)
    ))?;
    for line in text.lines().take(LINES_SHOWN) {
        say(line)?;
    }
    if !options.once {
        say(&format!(
            "\nLive rows keep coming. Try:\n  curl -X POST http://{address}/trigger_report\n  \
             curl http://{address}/metrics\n  {psql} -c 'TABLE store_uptime_hourly LIMIT 10'\n\
             Ctrl-C ends the demo and removes it."
        ))?;
    }
    Ok(())
}

/// Writes the polls of the fleet as their time comes.
async fn write_live(session: Session, fleet: Fleet) {
    let mut polls = fleet.live().peekable();
    let mut every = tokio::time::interval(LIVE_EVERY);
    let sql = "INSERT INTO public.store_activity (store_id, timestamp_utc, status)
               SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[])
               ON CONFLICT (store_id, timestamp_utc) DO UPDATE SET status = excluded.status";
    loop {
        every.tick().await;
        let now = Clock::System.now();
        let (mut ids, mut instants, mut statuses) = (Vec::new(), Vec::<Timestamp>::new(), Vec::new());
        while let Some(poll) = polls.next_if(|poll| poll.at <= now) {
            let Some(row) = fleet.activity_row(poll) else { continue };
            ids.push(row.store_id);
            instants.push(poll.at);
            statuses.push(poll.status.as_str());
        }
        if ids.is_empty() {
            continue;
        }
        if let Err(error) = session.client.execute(sql, &[&ids, &instants, &statuses]).await {
            tracing::warn!(%error, "the demo's live rows stopped");
            return;
        }
    }
}

/// One HTTP connection.
struct Client {
    sender: http1::SendRequest<Empty<Bytes>>,
    host: String,
}

impl Client {
    async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client {
            sender,
            host: address.to_string(),
        })
    }

    /// The bytes of a report, and the time from the trigger to the last of them.
    async fn report(&mut self) -> anyhow::Result<(Bytes, Duration)> {
        let began = Instant::now();
        let triggered = self.send(Method::POST, "/trigger_report").await?;
        anyhow::ensure!(
            triggered.status() == StatusCode::ACCEPTED,
            "POST /trigger_report: {}",
            triggered.status()
        );
        let location = triggered
            .headers()
            .get("location")
            .context("no Location")?
            .to_str()?
            .to_owned();
        triggered.collect().await?;
        while began.elapsed() < REPORT_PATIENCE {
            let answer = self.send(Method::GET, &location).await?;
            let status = answer.status();
            let body = answer.collect().await?.to_bytes();
            match status {
                StatusCode::OK => return Ok((body, began.elapsed())),
                StatusCode::ACCEPTED => tokio::time::sleep(Duration::from_micros(200)).await,
                _ => anyhow::bail!("GET {location}: {status} {}", String::from_utf8_lossy(&body)),
            }
        }
        anyhow::bail!("the report was not complete after {REPORT_PATIENCE:?}")
    }

    async fn send(&mut self, method: Method, path: &str) -> anyhow::Result<Response<hyper::body::Incoming>> {
        self.sender.ready().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .body(Empty::new())?;
        Ok(self.sender.send_request(request).await?)
    }
}
