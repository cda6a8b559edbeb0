//! Breaking it on purpose, with real servers and real kills; what must be seen under each fault is in docs/reliability.md.
//!
//! Each test is short by default. `COUNT` makes those that repeat something repeat it so often; `make chaos` has the long runs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod commits;
mod controls;
mod kills;
mod line;
mod load;
mod points;
mod space;
#[path = "../support/mod.rs"]
mod support;
mod two_phase;

use std::path::Path;
use std::time::Duration;

use support::TestDatabase;
use support::check::no_drift;
use support::serve::Serve;
use tokio_postgres::Config;
use uptally::daemon::Settings;
use uptally::time::Timestamp;

/// Writers of the same rows run into deadlocks; finding them should not take most of the test.
const SETTINGS: [(&str, &str); 2] = [("deadlock_timeout", "50ms"), ("max_prepared_transactions", "20")];

/// Flushes all the time, so that faults hit them.
fn quick() -> Settings {
    Settings {
        flush_interval: Duration::from_millis(20),
        ..Settings::default()
    }
}

/// How often something is repeated.
fn count(default: u64) -> u64 {
    std::env::var("COUNT").map_or(default, |count| count.parse().unwrap())
}

/// An undisturbed life of a daemon, so that there is a rollup.
async fn first_life(server: &TestDatabase, state_dir: &Path, end: Timestamp) {
    let mut serve = Serve::spawn(state_dir, Some(&url(server.connection())));
    no_drift(server.connection(), &mut serve, end).await;
}

/// A URL with a password that nobody asks for, and that must not appear anywhere.
fn url(connection: &Config) -> String {
    support::serve::url_with_secret(connection)
}
