//! What every long run has: a Postgres of its own, a daemon as a child process, writers.

use tempfile::TempDir;
use tokio_postgres::{Client, Config};
use uptally::clock::Clock;
use uptally::time::Timestamp;

use crate::support::check::no_drift;
use crate::support::serve::{Serve, url_with_secret};
use crate::support::writers::Writers;
use crate::support::{TestDatabase, state_dir};

/// Writers at once.
pub const WRITERS: u64 = 8;

/// Deadlocks between the writers should not take most of the time.
const SETTINGS: [(&str, &str); 3] = [
    ("deadlock_timeout", "50ms"),
    ("max_prepared_transactions", "50"),
    ("max_connections", "60"),
];

/// Everything that a run breaks.
pub struct World {
    pub server: TestDatabase,
    pub end: Timestamp,
    seed: u64,
    state: TempDir,
    writers: Option<Writers>,
    /// Transactions that were committed so far, of writers that have ended.
    pub committed: u64,
    lives: u64,
}

impl World {
    pub async fn start(seed: u64) -> Self {
        World {
            server: TestDatabase::start_alone(&SETTINGS).await,
            end: Clock::System.now(),
            seed,
            state: state_dir(),
            writers: None,
            committed: 0,
            lives: 0,
        }
    }

    /// Starts a daemon on the database at `connection`.
    pub fn serve(&mut self, connection: &Config, variables: &[(&str, &str)]) -> Serve {
        self.lives += 1;
        Serve::spawn_with(self.state.path(), Some(&url_with_secret(connection)), variables)
    }

    /// A session with the server itself.
    pub async fn client(&self) -> Client {
        self.server.connect().await
    }

    /// Lets the writers write, if they do not.
    pub fn write(&mut self) {
        if self.writers.is_none() {
            self.seed = self.seed.wrapping_add(1000);
            let writers = Writers::start_wild(self.server.connection(), WRITERS, self.seed, self.end);
            self.writers = Some(writers);
        }
    }

    /// Stops the writers.
    pub async fn rest(&mut self) {
        if let Some(writers) = self.writers.take() {
            let tally = writers.stop().await;
            self.committed += tally.committed;
        }
    }

    /// Stops the writers and holds everything against the raw rows. All faults must be over.
    pub async fn check(&mut self, serve: &mut Serve) {
        self.rest().await;
        no_drift(self.server.connection(), serve, self.end).await;
    }
}
