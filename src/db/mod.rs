//! Connections to Postgres, and the schema.
//!
//! A database is a value ([`Database`]), not a global: everything that talks to one takes it as an
//! argument, so that a fleet may be spread over several one day.

mod types;

pub use types::WallTime;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use refinery::Target;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, GenericClient, NoTls, Statement};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Key of the advisory lock under which the schema is changed, so that two daemons that start at once
/// do it one after the other. The bytes of `uptally` and a number.
const MIGRATION_LOCK: i64 = 0x0075_7074_616c_6c79;

/// How long a session may be silent before the server looks whether our machine is still there, and how long it
/// then waits: sessions of a lost machine must not hold their locks for ever.
const KEEPALIVES: &str = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3";

/// How long data may stay unacknowledged before a TCP connection counts as broken.
const PEER_GONE_AFTER: Duration = Duration::from_secs(15);

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection in time.
    #[error("no connection to the database within {0:?}")]
    Timeout(Duration),
    /// The server or the connection failed.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The schema could not be brought up to date.
    #[error("the schema could not be brought up to date: {0}")]
    Migration(#[from] Box<refinery::Error>),
    /// A host elsewhere without an explicit word on encryption.
    #[error(
        "the database is on another machine and this build speaks no TLS yet: \
         add sslmode=disable to the URL to send everything in plaintext"
    )]
    Plaintext,
    /// Something in the database is not what it must be.
    #[error("{0}")]
    Unexpected(String),
}

/// The server's own words where there are some: the library's say "db error" only.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => match db.detail() {
            Some(detail) => format!("the database says: {} ({detail})", db.message()),
            None => format!("the database says: {}", db.message()),
        },
        None => format!("the connection to the database failed: {}", Sources(error)),
    }
}

struct Sources<'a>(&'a tokio_postgres::Error);

impl std::fmt::Display for Sources<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = std::error::Error::source(self.0);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl DbError {
    /// Whether the server refused the login: trying again soon is of no use.
    pub fn is_login_refused(&self) -> bool {
        let DbError::Postgres(error) = self else { return false };
        matches!(
            error.code(),
            Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
        )
    }
}

/// How to reach one database.
#[derive(Debug, Clone)]
pub struct Database {
    config: Config,
    connect_timeout: Duration,
    statement_timeout: Duration,
}

impl Database {
    /// A database by its connection parameters. Refuses to send anything in plaintext to another
    /// machine unless the parameters ask for that.
    pub fn new(config: &Config, connect_timeout: Duration, statement_timeout: Duration) -> Result<Self, DbError> {
        let local = config.get_hosts().iter().all(|host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => matches!(name.as_str(), "localhost" | "::1") || name.starts_with("127."),
        });
        if !local && config.get_ssl_mode() != SslMode::Disable {
            return Err(DbError::Plaintext);
        }
        Ok(Database {
            config: config.clone(),
            connect_timeout,
            statement_timeout,
        })
    }

    /// A new session. `name` is what `pg_stat_activity` shows.
    pub async fn connect(&self, name: &str) -> Result<Session, DbError> {
        let mut config = self.config.clone();
        config.application_name(name);
        config.connect_timeout(self.connect_timeout);
        // A peer that is gone without a word: noticed by us as well as by the server.
        config
            .tcp_user_timeout(PEER_GONE_AFTER)
            .keepalives_idle(PEER_GONE_AFTER)
            .keepalives_retries(3);
        let options = config.get_options().unwrap_or_default();
        config.options(format!(
            "{options} {KEEPALIVES} -c TimeZone=UTC -c search_path=pg_catalog,pg_temp -c statement_timeout={}",
            self.statement_timeout.as_millis()
        ));
        let connecting = tokio::time::timeout(self.connect_timeout, config.connect(NoTls));
        let (client, mut connection) = connecting.await.map_err(|_| DbError::Timeout(self.connect_timeout))??;
        let notified = Arc::new(Notify::new());
        let bell = Arc::clone(&notified);
        // Ends when the client is dropped or the connection breaks.
        tokio::spawn(async move {
            let mut messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
            while let Some(message) = messages.next().await {
                match message {
                    // However many notifications come, they are one flag.
                    Ok(AsyncMessage::Notification(_)) => bell.notify_one(),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%error, "a database connection ended");
                        break;
                    }
                }
            }
            bell.notify_one();
        });
        Ok(Session {
            client,
            notified,
            statements: Statements::default(),
        })
    }

    /// Brings the schema up to date, unless it is: a daemon whose role may not change it needs no more than that.
    pub async fn migrate_if_needed(&self) -> Result<(), DbError> {
        let session = self.connect("uptally migrate").await?;
        if Self::is_migrated(&session.client).await? {
            return Ok(());
        }
        self.migrate().await
    }

    /// Brings the schema up to date. Safe when several do it at once.
    pub async fn migrate(&self) -> Result<(), DbError> {
        let mut session = self.connect("uptally migrate").await?;
        let client = &mut session.client;
        // Waiting for another daemon's migration is not a statement that hangs.
        client.batch_execute("SET statement_timeout = 0").await?;
        client
            .execute("SELECT pg_catalog.pg_advisory_lock($1)", &[&MIGRATION_LOCK])
            .await?;
        client.batch_execute("CREATE SCHEMA IF NOT EXISTS uptally").await?;
        let mut runner = embedded::migrations::runner()
            .set_target(Target::Latest)
            .set_grouped(true);
        runner.set_migration_table_name("uptally.schema_history");
        runner.run_async(client).await.map_err(Box::new)?;
        let names: Vec<&str> = chrono_tz::TZ_VARIANTS.iter().map(|tz| tz.name()).collect();
        client
            .execute(
                "INSERT INTO uptally.time_zone (name) SELECT unnest($1::text[]) ON CONFLICT (name) DO NOTHING",
                &[&names],
            )
            .await?;
        client
            .execute("SELECT pg_catalog.pg_advisory_unlock($1)", &[&MIGRATION_LOCK])
            .await?;
        Ok(())
    }

    /// Whether the schema is there, in this version and with all time zones of this program.
    pub async fn is_migrated(client: &Client) -> Result<bool, DbError> {
        let there = client
            .query_one(
                "SELECT pg_catalog.to_regclass('uptally.schema_history') IS NOT NULL",
                &[],
            )
            .await?;
        if !there.try_get::<_, bool>(0)? {
            return Ok(false);
        }
        let latest = embedded::migrations::runner()
            .get_migrations()
            .iter()
            .map(refinery::Migration::version)
            .max();
        let row = client
            .query_one("SELECT max(version)::bigint FROM uptally.schema_history", &[])
            .await?;
        let have: Option<i64> = row.try_get(0)?;
        let zones = client.query_one("SELECT count(*) FROM uptally.time_zone", &[]).await?;
        let zones_known = i64::try_from(chrono_tz::TZ_VARIANTS.len()).unwrap_or(i64::MAX);
        Ok(have >= latest.map(i64::from) && zones.try_get::<_, i64>(0)? >= zones_known)
    }
}

/// One session of the database. Ends when dropped.
#[derive(Debug)]
pub struct Session {
    /// For statements.
    pub client: Client,
    /// Flagged when a notification came in on this session, and when the session ended.
    pub notified: Arc<Notify>,
    /// For statements that come again and again.
    pub statements: Statements,
}

/// Prepared statements of one session, by their text.
///
/// Bounded by the texts in this program: each is prepared once, at its first use.
#[derive(Debug, Default)]
pub struct Statements(Mutex<FxHashMap<&'static str, Statement>>);

impl Statements {
    /// The prepared statement of a text. `client`: the session's, or a transaction on it.
    pub async fn get(&self, client: &impl GenericClient, sql: &'static str) -> Result<Statement, DbError> {
        if let Some(statement) = self.lock().get(sql) {
            return Ok(statement.clone());
        }
        let statement = client.prepare(sql).await?;
        self.lock().insert(sql, statement.clone());
        Ok(statement)
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<&'static str, Statement>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}
