//! What the integration tests share: a throw-away Postgres, the daemon in this process or as a child, raw rows read
//! the oracle's way, and writers that do what writers do.

#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

pub mod check;
pub mod daemon;
pub mod fixture;
pub mod forms;
pub mod hunt;
pub mod proxy;
pub mod raw;
pub mod replica;
pub mod reporter;
pub mod resources;
pub mod serve;
pub mod server;
pub mod tls;
pub mod writers;

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use server::Server;
use tempfile::TempDir;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};
use uptally::clock::Clock;
use uptally::daemon::Daemon;
use uptally::db::Database;
use uptally::live::{self, Live};
use uptally::report::Connect;

/// A database of one test's own, gone with the value.
pub struct TestDatabase {
    server: Arc<Server>,
    connection: Config,
    url: String,
}

impl TestDatabase {
    /// A database with the tables.
    pub async fn start() -> Self {
        let this = Self::start_empty().await;
        this.database().migrate().await.unwrap();
        this
    }

    /// A database without tables, on the server that the tests of this process share.
    pub async fn start_empty() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = Server::shared();
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let client = connect(server.connection()).await;
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        TestDatabase {
            connection: server.connection().clone().dbname(&name).clone(),
            url: server.url(&name),
            server,
        }
    }

    /// A database with the tables on a server of its own, with settings of Postgres, name and value: for tests that stop
    /// or kill the server.
    pub async fn start_alone(settings: &[(&str, &str)]) -> Self {
        Self::on(Server::start(settings)).await
    }

    /// The same with its files in a directory that is there and stays.
    pub async fn start_alone_in(state_dir: &Path, settings: &[(&str, &str)]) -> Self {
        Self::on(Server::start_in(state_dir, settings)).await
    }

    async fn on(server: Server) -> Self {
        let this = Self::empty_on(server);
        this.database().migrate().await.unwrap();
        this
    }

    /// A database without tables on a server of its own.
    pub fn start_empty_alone() -> Self {
        Self::empty_on(Server::start(&[]))
    }

    fn empty_on(server: Server) -> Self {
        let connection = server.connection().clone();
        TestDatabase {
            url: server.url(connection.get_dbname().unwrap()),
            connection,
            server: Arc::new(server),
        }
    }

    /// Another database without tables on the same server.
    pub async fn another(&self, name: &str) -> Self {
        let client = self.connect().await;
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        TestDatabase {
            connection: self.connection.clone().dbname(name).clone(),
            url: self.server.url(name),
            server: Arc::clone(&self.server),
        }
    }

    /// As the program reaches it.
    pub fn database(&self) -> Database {
        database(&self.connection)
    }

    /// Connection parameters of the superuser.
    pub fn connection(&self) -> &Config {
        &self.connection
    }

    /// Where the server keeps its files.
    pub fn server_dir(&self) -> &Path {
        self.server.state_dir()
    }

    /// A session of the superuser with Postgres's own defaults.
    pub async fn connect(&self) -> Client {
        connect(&self.connection).await
    }

    /// A session of the superuser in another database of the same server.
    pub async fn connect_to(&self, database: &str) -> Client {
        connect(self.connection.clone().dbname(database)).await
    }

    /// Key and value pairs by which the server itself reaches one of its databases.
    pub fn conninfo(&self, database: &str) -> String {
        let [Host::Unix(socket)] = self.connection.get_hosts() else {
            panic!("test servers have one socket");
        };
        let user = self.connection.get_user().unwrap();
        let port = self.connection.get_ports().first().unwrap_or(&5432);
        format!("host={} port={port} user={user} dbname={database}", socket.display())
    }

    /// A session of another role.
    pub async fn connect_as(&self, role: &str) -> Client {
        connect(self.connection.clone().user(role)).await
    }

    /// As the program reaches it as another role.
    pub fn database_as(&self, role: &str) -> Database {
        database(self.connection.clone().user(role))
    }

    /// For psql and `--database-url`, as another role.
    pub fn url_as(&self, role: &str) -> String {
        self.url.replacen("uptally@", &format!("{role}@"), 1)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.connection.get_dbname().unwrap()
    }

    /// Sessions for the registry of reports.
    pub fn connector(&self) -> Connect {
        let config = self.connection.clone();
        Arc::new(move || {
            let config = config.clone();
            Box::pin(async move {
                let (client, connection) = config.connect(NoTls).await?;
                tokio::spawn(connection);
                Ok(client)
            })
        })
    }

    /// For psql and `--database-url`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops the server, which must be this database's alone.
    pub fn down(&mut self) {
        Arc::get_mut(&mut self.server).unwrap().down();
    }

    /// Starts the server after [`TestDatabase::down`], with the same data in the same place.
    pub fn up(&mut self) {
        Arc::get_mut(&mut self.server).unwrap().up();
    }

    /// Kills the server, which must be this database's alone, with -9. Its guard starts it again, and this returns when
    /// it answers.
    pub async fn crash(&self) {
        assert_eq!(Arc::strong_count(&self.server), 1, "others use this server");
        kill_process(postmaster(self.server.state_dir()), Signal::KILL).unwrap();
        self.wait_until_back().await;
    }

    /// Returns when the server answers.
    pub async fn wait_until_back(&self) {
        within(Duration::from_secs(20), "Postgres is back", async || {
            self.answers().await
        })
        .await;
    }

    /// Whether the server answers.
    pub async fn answers(&self) -> bool {
        match self.connection.connect(NoTls).await {
            Err(_) => false,
            Ok((client, connection)) => {
                tokio::spawn(connection);
                client.simple_query("SELECT 1").await.is_ok()
            }
        }
    }
}

/// A state directory that the account of Postgres can enter when root runs the tests.
pub fn state_dir() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.permissions(Permissions::from_mode(0o711));
    builder.prefix("uptally-test-").tempdir().unwrap()
}

/// Returns when no Postgres of a state directory lives any more: its guard holds this lock as long as one may.
pub fn wait_for_guard(state_dir: &Path) {
    if let Ok(file) = File::open(state_dir.join("postgres.lock")) {
        file.lock().unwrap();
    }
}

/// The server of a state directory.
pub fn postmaster(state_dir: &Path) -> Pid {
    let text = std::fs::read_to_string(state_dir.join("postgres/postmaster.pid")).unwrap();
    Pid::from_raw(text.lines().next().unwrap().parse().unwrap()).unwrap()
}

/// As the program reaches it.
pub fn database(connection: &Config) -> Database {
    Database::new(connection, Duration::from_secs(5), Duration::from_secs(30)).unwrap()
}

/// What is asked about the stores of a daemon that never started.
pub fn live_of_nobody() -> Live {
    let nowhere = database(&"host=/nowhere user=nobody".parse().unwrap());
    let (_, handle) = Daemon::new(nowhere.clone(), Clock::System, uptally::daemon::Settings::default());
    Live::new(nowhere, handle, Clock::System, live::Settings::default())
}

/// A session.
pub async fn connect(connection: &Config) -> Client {
    let (client, connection) = connection.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Waits until something is so; fails the test if that takes longer than `patience`.
pub async fn within(patience: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(
            began.elapsed() < patience,
            "gave up after {patience:?} waiting until {what}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The seed of a random test: `SEED` of the environment, or a new one. Printed, so that a failure tells it.
pub fn seed() -> u64 {
    let seed = std::env::var("SEED")
        .ok()
        .filter(|seed| !seed.is_empty())
        .map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    seed
}
