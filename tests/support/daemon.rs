//! The daemon in this process.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use uptally::clock::Clock;
use uptally::daemon::{Daemon, DaemonError, Handle, Settings};
use uptally::db::Database;

/// A daemon that runs in a task.
pub struct Following {
    pub handle: Handle,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), DaemonError>>,
}

impl Following {
    /// Starts a daemon and waits until it follows.
    pub async fn start(database: &Database, clock: &Clock, settings: Settings) -> Self {
        let mut this = Self::launch(database, clock, settings);
        let caught_up = tokio::time::timeout(Duration::from_secs(8), this.handle.following());
        assert!(caught_up.await.expect("the daemon follows within 8 s"));
        this
    }

    /// Starts a daemon.
    pub fn launch(database: &Database, clock: &Clock, settings: Settings) -> Self {
        let (daemon, handle) = Daemon::new(database.clone(), clock.clone(), settings);
        let (stop, stops) = watch::channel(false);
        let task = tokio::spawn(daemon.run(stops));
        Following { handle, stop, task }
    }

    /// Number of stores that the daemon has seen so far, without asking it to look.
    pub fn stores_seen(&self) -> usize {
        self.handle.status().stores
    }

    /// Ends the daemon in order, with a last flush.
    pub async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap().unwrap();
    }

    /// Ends the daemon where it stands: nothing more is flushed.
    pub async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    /// Returns when the daemon has ended by itself, and how.
    pub async fn ended(self) -> Result<(), DaemonError> {
        let ended = tokio::time::timeout(Duration::from_secs(8), self.task).await;
        ended.expect("the daemon ends within 8 s").unwrap()
    }
}

/// Whether the follower sleeps: it then holds the doorbell's key for itself.
pub async fn is_asleep(client: &Client) -> bool {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity s USING (pid)
                              WHERE s.datname = current_database() AND l.locktype = 'advisory' AND l.mode = 'ExclusiveLock' AND l.granted
                                AND s.application_name = 'uptally doorbell'
                                AND (l.classid::bigint << 32 | l.objid::bigint) = 8461811447271043954)";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Whether the tables of the rollup have everything that the database has now.
pub async fn is_flushed_to(client: &Client, xid: &str) -> bool {
    let sql =
        "SELECT coalesce(pg_catalog.pg_visible_in_snapshot($1::text::xid8, cursor), false) FROM uptally.checkpoint";
    client.query_one(sql, &[&xid]).await.unwrap().get(0)
}
