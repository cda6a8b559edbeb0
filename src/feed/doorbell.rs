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

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::IN_RECOVERY;
use crate::db::{Backend, Database, DbError, Session};
use crate::failpoint;

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

/// How often the session is asked whether it lives, and how long it may take to answer. So a connection that is broken
/// without a word is noticed after ten seconds, whatever else the daemon is doing.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// The server ends a session that was silent for so many heartbeats: the heart of a daemon that is frozen does not
/// beat, and neither its keys nor its place as the leader may be held for ever.
const SILENT_BEATS_MAX: u32 = 6;

/// From this part of the server's notification queue on, writers are not let ring: when it is full, NOTIFY fails, and with
/// it the statement of the writer. The queue is one for all databases of a server, 8 GB, and whoever listens and keeps a
/// transaction open keeps it from being cleared.
pub const QUEUE_USAGE_MAX: f64 = 0.25;

const BACKEND: &str = "SELECT pg_catalog.pg_backend_pid()";

/// How long a test notification may take at the start.
const ECHO_PATIENCE: Duration = Duration::from_secs(2);

/// The session that listens. It also holds the leader's lock, so that losing the session gives both up.
#[derive(Debug)]
pub struct Doorbell {
    session: Arc<Session>,
    backend: Backend,
    /// As configured.
    wake: Wake,
    /// Notifications do not work at the moment.
    deaf: bool,
    asleep: bool,
    /// Why the session is lost, once it is.
    lost: watch::Receiver<Option<String>>,
    heart: JoinHandle<()>,
}

impl Doorbell {
    /// Opens the session, listening and awake. None if another daemon is active on this database.
    pub async fn open(database: &Database, wake: Wake) -> Result<Option<Self>, DbError> {
        let mut doorbell = Self::connect(database, wake, HEARTBEAT).await?;
        Ok(doorbell.try_to_lead(database).await?.then_some(doorbell))
    }

    /// Opens the session, and leaves it open who leads. Refuses a server in recovery: there, a running transaction reads as
    /// committed, and nothing can be written. `heartbeat`: see [`HEARTBEAT`].
    pub async fn connect(database: &Database, wake: Wake, heartbeat: Duration) -> Result<Self, DbError> {
        let session = database.connect("uptally doorbell").await?;
        let client = &session.client;
        // Postgres 13 does not know the setting, and is not supported.
        client
            .batch_execute(&format!(
                "SET idle_session_timeout = {}",
                (heartbeat * SILENT_BEATS_MAX).as_millis()
            ))
            .await?;
        let row = client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await?;
        if row.try_get(0)? {
            return Err(DbError::Unexpected(IN_RECOVERY.to_owned()));
        }
        let backend = Backend::of(&session).await?;
        let session = Arc::new(session);
        let (told, lost) = watch::channel(None);
        let heart = tokio::spawn(beat(Arc::clone(&session), heartbeat, told));
        Ok(Doorbell {
            session,
            backend,
            wake,
            deaf: false,
            asleep: false,
            lost,
            heart,
        })
    }

    /// Takes the lead, if nobody has it, and listens.
    pub async fn try_to_lead(&mut self, database: &Database) -> Result<bool, DbError> {
        let client = &self.session.client;
        let row = client
            .query_one("SELECT pg_catalog.pg_try_advisory_lock($1)", &[&LEADER_KEY])
            .await?;
        if !row.try_get::<_, bool>(0)? {
            return Ok(false);
        }
        self.listen(database).await?;
        self.tell();
        Ok(true)
    }

    /// Listens, and has another session ring to find out whether it is heard. If not, polling has to do for now.
    ///
    /// Refuses a pooler that lends its sessions to one client after the other: neither keys nor prepared statements
    /// would be ours.
    async fn listen(&mut self, database: &Database) -> Result<(), DbError> {
        let client = &self.session.client;
        let listening = match self.wake {
            Wake::Notify => client.batch_execute("LISTEN uptally").await,
            Wake::Poll => Ok(()),
        };
        let own = client.query_one(BACKEND, &[]).await?;
        let echo = database.connect("uptally echo").await?;
        let other = echo.client.query_one(BACKEND, &[]).await?;
        if own.try_get::<_, i32>(0)? == other.try_get::<_, i32>(0)? {
            return Err(DbError::Unexpected(
                "a pooler lends one session of the database to several connections: connect to the server itself, or \
                 let the pooler give every connection a session of its own"
                    .to_owned(),
            ));
        }
        if self.wake == Wake::Poll {
            return Ok(());
        }
        let heard = async {
            listening?;
            failpoint::hit("start.listening")?;
            // A full queue fails here. Writers would fail by it too; whom nobody listens to, they do not notify.
            echo.client.batch_execute("NOTIFY uptally").await?;
            tokio::time::timeout(ECHO_PATIENCE, self.session.notified.notified())
                .await
                .map_err(|_| {
                    DbError::Unexpected(format!("a test notification did not arrive within {ECHO_PATIENCE:?}"))
                })
        };
        let Err(why) = heard.await else { return Ok(()) };
        self.fall_deaf(&why);
        Ok(())
    }

    /// Looks whether notifications still work, or again. `ringer`: another session of ours; `queue_usage_max`: see
    /// [`QUEUE_USAGE_MAX`].
    ///
    /// Whoever is deaf is rung once at each look, and learns at the next one whether that was heard.
    pub async fn look_after(&mut self, ringer: &Client, queue_usage_max: f64) -> Result<(), DbError> {
        if self.wake == Wake::Poll {
            return Ok(());
        }
        let client = &self.session.client;
        let row = client
            .query_one("SELECT pg_catalog.pg_notification_queue_usage()", &[])
            .await?;
        let usage: f64 = row.try_get(0)?;
        if usage > queue_usage_max {
            if !self.deaf {
                self.fall_deaf(&format!(
                    "the server's notification queue is {:.1} % full: a session that listens does not end its transaction",
                    usage * 100.0
                ));
            }
        } else if self.deaf {
            let rang = self.session.notified.notified().now_or_never().is_some();
            if rang && !self.is_closed() {
                tracing::info!("notifications work again");
                self.deaf = false;
                self.tell();
                return Ok(());
            }
            let rung = async {
                client.batch_execute("LISTEN uptally").await?;
                ringer.batch_execute("NOTIFY uptally").await
            };
            if let Err(error) = rung.await {
                tracing::debug!(error = %DbError::from(error), "notifications still do not work");
            }
        }
        Ok(())
    }

    fn fall_deaf(&mut self, why: &impl fmt::Display) {
        tracing::warn!(%why, "notifications do not work: new rows are found by polling alone");
        self.deaf = true;
        self.tell();
    }

    fn tell(&self) {
        metrics::gauge!("uptally_feed_polls_only").set(f64::from(u8::from(self.wake() == Wake::Poll)));
    }

    /// Who leads, for people. None: nobody that can be seen.
    pub async fn leader(&self) -> Result<Option<String>, DbError> {
        let sql = "SELECT l.pid, coalesce(nullif(a.application_name, ''), 'without a name'), a.client_addr::text
                   FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
                   WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                     AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
                     AND (l.classid::bigint << 32 | l.objid::bigint) = $1
                   LIMIT 1";
        let Some(row) = self.session.client.query_opt(sql, &[&LEADER_KEY]).await? else {
            return Ok(None);
        };
        let (pid, name): (i32, &str) = (row.try_get(0)?, row.try_get(1)?);
        let from = row.try_get::<_, Option<&str>>(2)?.map(|at| format!(" from {at}"));
        Ok(Some(format!("{name}, pid {pid}{}", from.unwrap_or_default())))
    }

    /// Whether writers are to ring now.
    pub fn wake(&self) -> Wake {
        if self.deaf { Wake::Poll } else { self.wake }
    }

    /// Whether the session is gone.
    pub fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    /// The session, for short questions.
    pub fn client(&self) -> &Client {
        &self.session.client
    }

    /// The process that serves the session.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Returns why, when the session is lost, and with it the leadership.
    pub fn lost(&self) -> impl Future<Output = DbError> + use<> {
        let mut lost = self.lost.clone();
        async move {
            let why = lost.wait_for(Option::is_some).await;
            let why = why.ok().and_then(|why| why.clone());
            DbError::Unexpected(why.unwrap_or_else(|| "the listening session ended".to_owned()))
        }
    }

    /// Tries to take the key. It must be followed by a read in a statement of its own.
    pub async fn fall_asleep(&mut self) -> Result<Sleep, DbError> {
        let Session { client, statements, .. } = &*self.session;
        let lock = statements
            .get(client, "SELECT pg_catalog.pg_try_advisory_lock($1)")
            .await?;
        self.asleep = client.query_one(&lock, &[&DOORBELL_KEY]).await?.try_get(0)?;
        Ok(if self.asleep { Sleep::Granted } else { Sleep::Refused })
    }

    /// Gives the key back, before reading.
    pub async fn wake_up(&mut self) -> Result<(), DbError> {
        if self.asleep {
            let Session { client, statements, .. } = &*self.session;
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
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        // It shares the session, which is to end with us.
        self.heart.abort();
    }
}

/// Asks the server in its own pace whether the session is still there, until it is not.
async fn beat(session: Arc<Session>, heartbeat: Duration, told: watch::Sender<Option<String>>) {
    let mut every = tokio::time::interval(heartbeat);
    let why = loop {
        every.tick().await;
        let asked = session.client.batch_execute("");
        match tokio::time::timeout(heartbeat, asked).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => break format!("the listening session ended: {}", DbError::from(error)),
            Err(_) => break format!("the listening session has not answered for {heartbeat:?}"),
        }
    };
    told.send_replace(Some(why));
    // Nobody may go on waiting for the bell.
    session.notified.notify_one();
}
