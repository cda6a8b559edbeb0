//! What is measured lives here: a scratch directory, a private Postgres in it, and a generated fleet.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use tempfile::TempDir;
use uptally::clock::Clock;
use uptally::cluster::{ClusterOptions, PrivateCluster};
use uptally::db::{Database, Session};
use uptally::fleet::{Fleet, FleetOptions};
use uptally::import;
use uptally::import::row::{ActivityRow, HoursRow, TimezoneRow};
use uptally::store::Status;
use uptally::time::{HOUR_US, Timestamp};

use crate::Common;
use crate::machine::Machine;

/// The first store's id; the others follow on. As three quarters of the real ids they are 19 digits, and here they
/// count up, so that pgbench can name a store.
pub const FIRST_STORE: u64 = 4_000_000_000_000_000_000;
/// Where the fleet is loaded. Others are copied from it.
pub const FLEET: &str = "uptally";

/// Loading and verifying take as long as they take.
const STATEMENT_PATIENCE: Duration = Duration::from_hours(2);
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// A running Postgres. Stop it with [`System::stop`]; dropped, its guard ends it a little later.
pub struct System {
    cluster: PrivateCluster,
    scratch: TempDir,
    pub machine: Machine,
    pub stores: u32,
    days: u32,
    pub daemon_log: Option<PathBuf>,
}

impl System {
    /// An empty Postgres.
    pub async fn start(common: &Common) -> anyhow::Result<Self> {
        let mut scratch = tempfile::Builder::new();
        // Others may enter it: Postgres may have to run as another user.
        scratch
            .prefix("uptally-live-")
            .permissions(PermissionsExt::from_mode(0o711));
        let scratch = match &common.dir {
            Some(dir) => scratch.tempdir_in(dir),
            None => scratch.tempdir(),
        }
        .context("cannot make a scratch directory")?;
        let mut machine = Machine::look(scratch.path())?;
        let cluster = PrivateCluster::start(ClusterOptions {
            guard_program: Some(PathBuf::from(env!("CARGO_BIN_EXE_uptally"))),
            ..ClusterOptions::new(scratch.path().join("state"))
        })
        .await?;
        let mut system = System {
            cluster,
            scratch,
            machine: machine.clone(),
            stores: common.stores,
            days: common.days,
            daemon_log: common.daemon_log.clone(),
        };
        machine.postgres = system.setting("SHOW server_version").await?;
        system.machine = machine;
        Ok(system)
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        Ok(self.cluster.stop().await?)
    }

    /// For files of a measurement; goes with the system.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// One of its databases, as a URL.
    pub fn url(&self, name: &str) -> String {
        let url = self.cluster.url();
        let server = url.rsplit_once('/').map_or(url.as_str(), |(server, _)| server);
        format!("{server}/{name}")
    }

    pub fn database(&self, name: &str) -> anyhow::Result<Database> {
        let mut config = self.cluster.connection().clone();
        config.dbname(name);
        Ok(Database::new(&config, CONNECT_PATIENCE, STATEMENT_PATIENCE)?)
    }

    pub async fn connect(&self, name: &str) -> anyhow::Result<Session> {
        Ok(self.database(name)?.connect("uptally bench").await?)
    }

    /// Where the server's programs are, pgbench among them if it is installed.
    pub async fn bin_dir(&self) -> anyhow::Result<PathBuf> {
        let sql = "SELECT setting FROM pg_catalog.pg_config WHERE name = 'BINDIR'";
        Ok(PathBuf::from(self.setting(sql).await?))
    }

    async fn setting(&self, sql: &str) -> anyhow::Result<String> {
        let session = self.connect("postgres").await?;
        Ok(session.client.query_one(sql, &[]).await?.try_get(0)?)
    }

    /// Makes the tables, a fleet whose polls end now, and `probes` stores that are always open, were polled three hours
    /// ago and are not written to by anybody else.
    pub async fn load(&self, probes: u32) -> anyhow::Result<()> {
        let began = Instant::now();
        // As the generator leaves polls out.
        let rows_expected = f64::from(self.stores) * f64::from(self.days) * 24.0 * 0.71;
        eprintln!("loading about {rows_expected:.0} rows; a million takes about ten seconds");
        self.database(FLEET)?.migrate().await?;
        let end = Clock::System.now();
        let fleet = Fleet::generate(FleetOptions {
            stores: self.stores,
            days: self.days,
            end,
            ..FleetOptions::default()
        });
        let ids: Vec<String> = (FIRST_STORE..)
            .take(fleet.stores().len())
            .map(|id| id.to_string())
            .collect();
        let named = || ids.iter().zip(fleet.stores());
        let zones = named().filter_map(|(store_id, store)| {
            Some(TimezoneRow {
                store_id,
                zone: store.zone?,
            })
        });
        let hours = named().flat_map(|(store_id, store)| {
            store.hours.iter().map(move |hours| HoursRow {
                store_id,
                day: hours.day,
                start_us: hours.start_us,
                end_us: hours.end_us,
            })
        });
        let probe_ids: Vec<String> = (0..probes).map(probe_id).collect();
        let probed = probe_ids.iter().map(|store_id| ActivityRow {
            store_id,
            at: end.plus(-3 * HOUR_US),
            status: Status::Active,
        });
        let polls = fleet.backfill().filter_map(|poll| {
            Some(ActivityRow {
                store_id: ids.get(usize::try_from(poll.store).ok()?)?,
                at: poll.at,
                status: poll.status,
            })
        });
        let mut session = self.connect(FLEET).await?;
        let loaded = import::load(&mut session.client, zones, hours, [], polls.chain(probed)).await?;
        // What autovacuum would do in the middle of a measurement.
        session.client.batch_execute("VACUUM (ANALYZE)").await?;
        session.client.batch_execute("CHECKPOINT").await?;
        eprintln!(
            "loaded {} stores and {} rows of {} days in {:.0} s",
            self.stores,
            loaded.activity.read,
            self.days,
            began.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// A database like the fleet's; one of the same name goes.
    pub async fn copy(&self, name: &str) -> anyhow::Result<()> {
        self.remove(name).await?;
        let session = self.connect("postgres").await?;
        let sql = format!("CREATE DATABASE {name} TEMPLATE {FLEET}");
        session.client.batch_execute(&sql).await?;
        Ok(())
    }

    pub async fn remove(&self, name: &str) -> anyhow::Result<()> {
        let session = self.connect("postgres").await?;
        let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        session.client.batch_execute(&sql).await?;
        // The pages of what went are not to be written while the next one is measured.
        session.client.batch_execute("CHECKPOINT").await?;
        Ok(())
    }
}

/// The id of a store that only the one who measures writes to.
pub fn probe_id(number: u32) -> String {
    format!("probe-{number:06}")
}

/// The full hour at or before an instant.
pub fn full_hour(at: Timestamp) -> Timestamp {
    at.plus(-at.micros().rem_euclid(HOUR_US))
}
