//! Why the database could not be used, in words for an operator. None of them holds a password.

use std::fmt;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use super::TlsError;

/// After a refused login nobody logs in for so long: servers lock accounts that try again and again.
pub const LOGIN_PAUSE: Duration = Duration::from_secs(10);

/// Whether a server is there, and has ended its recovery, is asked so often at least: it costs neither side anything,
/// and a longer pause is time in which nothing is followed although it could be.
const KNOCK_EVERY: Duration = Duration::from_secs(1);

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No answer in time.
    #[error("no answer from the database within {0:?}")]
    Timeout(Duration),
    /// No connection in time.
    #[error("no connection to {place} within {after:?}")]
    ConnectTimeout {
        /// Hosts, ports and how they are spoken with.
        place: String,
        /// How long was waited.
        after: Duration,
    },
    /// No connection: nobody there, no TLS, or a certificate that proves nothing.
    #[error("cannot connect to {place}: {}", Sources(source))]
    Connect {
        /// Hosts, ports and how they are spoken with.
        place: String,
        /// What the driver says.
        source: tokio_postgres::Error,
    },
    /// The server or the connection failed.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The server refused the login, now or so short a time ago that it was not asked again.
    #[error(transparent)]
    LoginRefused(#[from] LoginRefused),
    /// The certificates that the parameters name are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The schema could not be brought up to date.
    #[error("the schema could not be brought up to date: {0}")]
    Migration(#[from] Box<refinery::Error>),
    /// The schema is not of this version, and this role may not change it.
    #[error(
        "the tables are not those of this version and this role may not change them: run `uptally migrate` as the role that owns them ({0})"
    )]
    MayNotMigrate(String),
    /// Something in the database is not what it must be.
    #[error("{0}")]
    Unexpected(String),
}

/// A login that was refused.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the database says: {says}")]
pub struct LoginRefused {
    /// The server's words.
    pub says: String,
    /// When to try again.
    pub until: Instant,
}

impl DbError {
    /// How long to wait before trying again, if trying again sooner is of no use.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            DbError::LoginRefused(refused) => Some(refused.until.saturating_duration_since(Instant::now())),
            _ => None,
        }
    }

    /// The longest pause before another try that does anybody good.
    pub fn retry_within(&self) -> Duration {
        match self {
            DbError::Connect { .. } | DbError::ConnectTimeout { .. } => KNOCK_EVERY,
            // It starts, recovers or stops.
            DbError::Postgres(error) if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW) => KNOCK_EVERY,
            _ => Duration::MAX,
        }
    }
}

/// Whether the server refused who we say we are.
pub(super) fn is_login_refused(error: &tokio_postgres::Error) -> bool {
    matches!(
        error.code(),
        Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
    )
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

/// An error with all its causes.
struct Sources<'a>(&'a tokio_postgres::Error);

impl fmt::Display for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = std::error::Error::source(self.0);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
