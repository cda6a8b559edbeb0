//! The rollup in Postgres: its rows, and the checkpoint that says how far they are.
//!
//! Rows and checkpoint are written in one transaction, so that a reader and a restart always find a point of
//! the change stream, whatever was killed when. The cursor is a snapshot that was taken before the
//! transaction that writes it got its number: any prefix of the server's log that holds the cursor holds all that
//! the cursor claims.
//!
//! The *epoch* fences: a daemon raises it when it takes over, and a checkpoint is written only where the
//! epoch is still its own.

mod days;
mod load;
mod write;

pub use days::{DayDifference, day_differences, read_day_sums};
pub use load::{Checkpoint, Loaded, Unusable};

use tokio_postgres::Client;

use crate::audit::Sample;
use crate::db::{Backend, Database, DbError, Session};
use crate::feed::Cursor;
use crate::rollup::Dirty;
use crate::time::Timestamp;

/// What the rows were made by. Another layout or other time zone data: they are made anew.
pub fn layout() -> String {
    format!("3 tz {}", chrono_tz::IANA_TZDB_VERSION)
}

/// Which database this is, so that a restored copy or another one is not taken for it: its transaction
/// numbers would mean something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Of the cluster, from `initdb`.
    pub system_identifier: i64,
    /// Of the database.
    pub database_oid: u32,
    /// Of the table `store_activity`.
    pub activity_oid: u32,
    /// Raised by every promotion of a standby.
    pub timeline: i32,
}

impl Identity {
    /// The identity of the database that a client is connected to.
    pub async fn read(client: &impl tokio_postgres::GenericClient) -> Result<Self, DbError> {
        let row = client
            .query_one(
                "SELECT s.system_identifier, d.oid, 'public.store_activity'::regclass::oid,
                        ('x' || pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8))::bit(32)::int
                 FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d
                 WHERE d.datname = pg_catalog.current_database()",
                &[],
            )
            .await?;
        Ok(Identity {
            system_identifier: row.try_get(0)?,
            database_oid: row.try_get(1)?,
            activity_oid: row.try_get(2)?,
            timeline: row.try_get(3)?,
        })
    }

    /// Whether rows made under the other identity speak of the same transactions. A promotion keeps them:
    /// what it loses, the rollup rows lose with it.
    pub fn continues(&self, other: &Identity) -> bool {
        (self.system_identifier, self.database_oid, self.activity_oid)
            == (other.system_identifier, other.database_oid, other.activity_oid)
    }
}

/// The server ends a flush whose daemon was frozen for so long in the middle of it, milliseconds: its locks would keep
/// a successor waiting.
const FLUSH_IDLE_MAX_MS: u32 = 30_000;

/// Why a flush did not happen.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// Another daemon has taken over.
    #[error("another daemon has taken over this database")]
    Fenced,
    /// The database failed. Whether the flush arrived is open; writing it again is safe.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<tokio_postgres::Error> for FlushError {
    fn from(error: tokio_postgres::Error) -> Self {
        FlushError::Db(error.into())
    }
}

/// What one flush writes.
#[derive(Debug)]
pub struct Flush {
    /// The rows. Absolute values, so writing them twice changes nothing.
    pub dirty: Dirty,
    /// The point that they bring the tables to.
    pub cursor: Cursor,
    /// Throw away what is there first: the rollup was built from raw, over a wiring with these marks
    /// ([`Wiring::marks`](crate::db::wiring::Wiring::marks)).
    pub replace: Option<Vec<String>>,
    /// Cells before this instant fall out of retention.
    pub drop_before: Option<Timestamp>,
    /// A store at the point of `cursor`, to be compared with the tables.
    pub audit: Option<Sample>,
}

/// Asks the daemon that is active to build the rollup anew. Returns the transaction of the request.
pub async fn ask_for_rebuild(client: &Client) -> Result<String, DbError> {
    let row = client
        .query_one(
            "WITH asked AS (INSERT INTO uptally.invalidation (store_id) VALUES (NULL) RETURNING change_xid)
             SELECT change_xid::text, uptally.ring_doorbell()::text FROM asked",
            &[],
        )
        .await?;
    Ok(row.try_get(0)?)
}

/// The number of stores in the tables, once they are made from what such a request has seen.
pub async fn rebuilt(client: &Client, asked: &str) -> Result<Option<usize>, DbError> {
    let sql = "SELECT coalesce(pg_catalog.pg_visible_in_snapshot($1::text::xid8, cursor), false),
                      (SELECT count(*) FROM uptally.rollup_store)
               FROM uptally.checkpoint";
    let row = client.query_one(sql, &[&asked]).await?;
    let stores = usize::try_from(row.try_get::<_, i64>(1)?).unwrap_or(0);
    Ok(row.try_get::<_, bool>(0)?.then_some(stores))
}

/// The writing end: one session, one epoch.
#[derive(Debug)]
pub struct Ledger {
    session: Session,
    backend: Backend,
    epoch: i64,
    identity: Identity,
    months: std::collections::BTreeSet<i64>,
}

impl Ledger {
    /// Opens a session and raises the epoch: from here on no other daemon can write.
    pub async fn open(database: &Database) -> Result<Self, DbError> {
        let session = database.connect("uptally ledger").await?;
        let backend = Backend::of(&session).await?;
        // A flush after a rebuild may take longer than a statement of a user.
        session
            .client
            .batch_execute(&format!(
                "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = {FLUSH_IDLE_MAX_MS}"
            ))
            .await?;
        let row = session
            .client
            .query_one(
                "INSERT INTO uptally.checkpoint AS k (epoch) VALUES (1)
                 ON CONFLICT (only_row) DO UPDATE SET epoch = k.epoch + 1 RETURNING k.epoch",
                &[],
            )
            .await?;
        // The epoch is on the disk. Flushes need not wait for it, nor make the writers' commits wait: one that a crash of
        // the server takes back leaves an older point, and whoever follows from there reads a little more again.
        session.client.batch_execute("SET synchronous_commit = off").await?;
        let identity = Identity::read(&session.client).await?;
        Ok(Ledger {
            epoch: row.try_get(0)?,
            identity,
            session,
            backend,
            months: std::collections::BTreeSet::new(),
        })
    }

    /// This daemon's epoch.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// The process that serves the session.
    pub fn backend(&self) -> Backend {
        self.backend
    }
}
