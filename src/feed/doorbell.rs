//! Being woken: LISTEN/NOTIFY, with a gate that keeps writers from paying for it.
//!
//! Every NOTIFY takes one lock for the whole server at commit and ends group commit. So the writers'
//! trigger rings only while the follower sleeps, and the follower says that it sleeps by holding an
//! advisory key exclusively; the trigger tries to share it and rings if it cannot.
//!
//! Why no wake-up is lost. A writer that shared the key holds it until after its commit is visible;
//! so once we have the key for ourselves, the next snapshot, which must be taken by a *new* statement,
//! sees its rows. A writer that could not share the key notifies at commit. There is no third case, and
//! no snapshot decides anything, so isolation levels, savepoints and prepared transactions do not
//! matter. The poll floor bounds the delay should a notification get lost all the same.

use std::time::Duration;

use crate::db::{Database, DbError, Session};

/// The key; `uptally.ring_doorbell` has the same number.
const DOORBELL_KEY: i64 = 8_461_811_447_271_043_954;

/// The key that the active daemon of a database holds.
const LEADER_KEY: i64 = 8_461_811_447_271_043_955;

/// How the daemon learns of new rows between two polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// By NOTIFY; polling is the guarantee.
    Notify,
    /// By polling alone: where notifications do not arrive, or where writers use PREPARE TRANSACTION, which refuses
    /// after a NOTIFY. A pooler must still give every connection a session of its own.
    Poll,
}

/// What came of trying to fall asleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sleep {
    /// The key is ours: read once more, then wait for the bell.
    Granted,
    /// A writer that did not ring has not finished yet: go on reading.
    Refused,
}

/// The session that listens. It also holds the leader's lock, so that losing the session gives both up.
#[derive(Debug)]
pub struct Doorbell {
    session: Session,
    wake: Wake,
    asleep: bool,
}

impl Doorbell {
    /// Opens the session, listening and awake. None if another daemon is active on this database.
    pub async fn open(database: &Database, wake: Wake) -> Result<Option<Self>, DbError> {
        let session = database.connect("uptally doorbell").await?;
        let row = session
            .client
            .query_one("SELECT pg_catalog.pg_try_advisory_lock($1)", &[&LEADER_KEY])
            .await?;
        if !row.try_get::<_, bool>(0)? {
            return Ok(None);
        }
        if wake == Wake::Notify {
            session.client.batch_execute("LISTEN uptally").await?;
        }
        Ok(Some(Doorbell {
            session,
            wake,
            asleep: false,
        }))
    }

    /// Whether writers are to ring at all.
    pub fn wake(&self) -> Wake {
        self.wake
    }

    /// Whether the session is gone, and with it the leadership.
    pub fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    /// Tries to take the key. It must be followed by a read in a statement of its own.
    pub async fn fall_asleep(&mut self) -> Result<Sleep, DbError> {
        let Session { client, statements, .. } = &self.session;
        let lock = statements
            .get(client, "SELECT pg_catalog.pg_try_advisory_lock($1)")
            .await?;
        self.asleep = client.query_one(&lock, &[&DOORBELL_KEY]).await?.try_get(0)?;
        Ok(if self.asleep { Sleep::Granted } else { Sleep::Refused })
    }

    /// Gives the key back, before reading.
    pub async fn wake_up(&mut self) -> Result<(), DbError> {
        if self.asleep {
            let Session { client, statements, .. } = &self.session;
            let unlock = statements
                .get(client, "SELECT pg_catalog.pg_advisory_unlock($1)")
                .await?;
            client.execute(&unlock, &[&DOORBELL_KEY]).await?;
            self.asleep = false;
        }
        Ok(())
    }

    /// Returns when the bell rang since the last call, or the session ended.
    pub async fn rung(&self) {
        self.session.notified.notified().await;
    }

    /// Asks the server whether it is still there.
    pub async fn heartbeat(&self, patience: Duration) -> Result<(), DbError> {
        let asked = self.session.client.batch_execute("");
        tokio::time::timeout(patience, asked)
            .await
            .map_err(|_| DbError::Timeout(patience))??;
        Ok(())
    }
}
