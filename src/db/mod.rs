//! Connections to Postgres, and the schema.
//!
//! A database is a value ([`Database`]), not a global: everything that talks to one takes it as an
//! argument, so that a fleet may be spread over several one day.

mod backend;
mod error;
mod parameters;
mod roles;
mod schema;
mod tls;
mod types;
pub mod wiring;

pub use backend::Backend;
pub use error::{DbError, LOGIN_PAUSE, LoginRefused};
pub use parameters::{Parameters, ParametersError, TlsFiles};
pub use roles::{Grants, RoleName, RoleNameError};
pub use tls::TlsError;
pub use types::{LocalTime, WallTime};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rustc_hash::FxHashMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, GenericClient, NoTls, Statement};

use error::is_login_refused;
use tls::Verified;

/// How long a session may be silent before the server looks whether our machine is still there, and how long it
/// then waits: sessions of a lost machine must not hold their locks for ever.
const KEEPALIVES: &str = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3";

/// A setting that the server reports at the start of a session, and that nothing here depends on: whether it arrived says
/// whether the others did.
const MARK: (&str, &str) = ("IntervalStyle", "iso_8601");

/// How long data may stay unacknowledged before a TCP connection counts as broken.
const PEER_GONE_AFTER: Duration = Duration::from_secs(15);

/// What a daemon opens sessions for, beside what it does once at its start.
const DAEMON_SESSIONS: [&str; 4] = ["doorbell", "follower", "ledger", "reports"];

/// How to reach one database.
#[derive(Debug, Clone)]
pub struct Database {
    parameters: Parameters,
    connect_timeout: Duration,
    statement_timeout: Duration,
    /// The last refusal of the server: until its time is over nobody who uses this database logs in.
    refused: Arc<Mutex<Option<LoginRefused>>>,
    login_pause: Duration,
}

impl Database {
    /// A database by its connection parameters. Fails if they name certificates that are of no use.
    pub fn new(
        parameters: impl Into<Parameters>,
        connect_timeout: Duration,
        statement_timeout: Duration,
    ) -> Result<Self, DbError> {
        let parameters = parameters.into();
        parameters.tls().map(Verified::read).transpose()?;
        Ok(Database {
            parameters,
            connect_timeout,
            statement_timeout,
            refused: Arc::default(),
            login_pause: LOGIN_PAUSE,
        })
    }

    /// The same with another pause after a refused login, for tests that wait for its end.
    #[must_use]
    pub fn with_login_pause(mut self, pause: Duration) -> Self {
        self.login_pause = pause;
        self
    }

    /// A new session. `name` is what `pg_stat_activity` shows.
    pub async fn connect(&self, name: &str) -> Result<Session, DbError> {
        let now = Instant::now();
        if let Some(refused) = self.refused().as_ref().filter(|refused| refused.until > now) {
            return Err(refused.clone().into());
        }
        let connecting = tokio::time::timeout(self.connect_timeout, self.connect_at_once(name));
        let connected = connecting.await.unwrap_or_else(|_| {
            Err(DbError::ConnectTimeout {
                place: self.parameters.place().to_string(),
                after: self.connect_timeout,
            })
        });
        if let Err(DbError::LoginRefused(refused)) = &connected {
            *self.refused() = Some(refused.clone());
        }
        let outcome = if connected.is_ok() { "ok" } else { "failed" };
        count_session(name, outcome, 1);
        connected
    }

    async fn connect_at_once(&self, name: &str) -> Result<Session, DbError> {
        let config = self.session_config(name);
        let refused = |error: tokio_postgres::Error| match error.as_db_error() {
            Some(says) if is_login_refused(&error) => DbError::LoginRefused(LoginRefused {
                says: says.message().to_owned(),
                until: Instant::now() + self.login_pause,
            }),
            Some(_) => DbError::Postgres(error),
            None => DbError::Connect {
                place: self.parameters.place().to_string(),
                source: error,
            },
        };
        let notified = Arc::new(Notify::new());
        let bell = Arc::clone(&notified);
        let client = match self.parameters.tls().cloned() {
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(refused)?;
                is_set(&connection)?;
                tokio::spawn(drive(connection, bell));
                client
            }
            Some(files) => {
                let read = tokio::task::spawn_blocking(move || Verified::read(&files));
                let broken = |error: tokio::task::JoinError| DbError::Unexpected(error.to_string());
                let verified = read.await.map_err(broken)??;
                let (client, connection) = config.connect(verified).await.map_err(refused)?;
                is_set(&connection)?;
                tokio::spawn(drive(connection, bell));
                client
            }
        };
        Ok(Session {
            client,
            notified,
            statements: Statements::default(),
        })
    }

    /// The driver's parameters, and what our sessions are set to.
    fn session_config(&self, name: &str) -> Config {
        let mut config = self.parameters.driver().clone();
        config.application_name(name);
        config.connect_timeout(self.connect_timeout);
        // A peer that is gone without a word: noticed by us as well as by the server.
        config
            .tcp_user_timeout(PEER_GONE_AFTER)
            .keepalives_idle(PEER_GONE_AFTER)
            .keepalives_retries(3);
        let options = config.get_options().unwrap_or_default();
        config.options(format!(
            "{options} {KEEPALIVES} -c {}={} -c TimeZone=UTC -c search_path=pg_catalog,pg_temp -c statement_timeout={}",
            MARK.0,
            MARK.1,
            self.statement_timeout.as_millis()
        ));
        config
    }

    fn refused(&self) -> MutexGuard<'_, Option<LoginRefused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a session whose settings did not arrive: its search path is not ours, nor is its pace.
fn is_set<S, T>(connection: &Connection<S, T>) -> Result<(), DbError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    if connection.parameter(MARK.0) == Some(MARK.1) {
        return Ok(());
    }
    Err(DbError::Unexpected(
        "the settings of our session do not arrive (is there a pooler in between that ignores options?): connect to the \
         server itself"
            .to_owned(),
    ))
}

fn count_session(name: &str, outcome: &'static str, count: u64) {
    // Names of sessions are words of this program, so there are few.
    let session = name.strip_prefix("uptally ").unwrap_or(name).to_owned();
    metrics::counter!("uptally_postgres_connects_total", "session" => session, "outcome" => outcome).increment(count);
}

/// Names and explains this module's figures to the installed recorder.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "uptally_postgres_connects_total",
        "Sessions with Postgres that were opened, or could not be, by what they are for"
    );
    for name in DAEMON_SESSIONS {
        for outcome in ["ok", "failed"] {
            count_session(name, outcome, 0);
        }
    }
}

/// Moves what a connection sends and receives. Ends when the client is dropped or the connection breaks.
async fn drive<S, T>(mut connection: Connection<S, T>, bell: Arc<Notify>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
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
