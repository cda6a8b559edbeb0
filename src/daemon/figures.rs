//! The figures of the daemon: what they are called, what they mean, and the words of their labels.
//!
//! Every figure is there from the start, with zero where nothing has happened yet: one that appears with its first event
//! hides that event from whoever looks at increases.

use metrics::Unit::Seconds;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::{DaemonError, Status};
use crate::db::DbError;
use crate::ledger::Unusable;

/// What the daemon is at, for figures; [`Status::following`] has the words for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedState {
    /// On the way to the database or into memory.
    Starting,
    /// Another daemon is active.
    Standby,
    /// The rollup is being built from the raw rows.
    Rebuilding,
    /// Memory follows the database.
    Following,
    /// Tables, triggers or functions that the feed hangs on are broken.
    Wiring,
    /// The database refuses the login.
    Login,
    /// The tables are of another version, and this role may not change them.
    Schema,
    /// The database does not answer, or another failure of it.
    Database,
}

impl FeedState {
    /// Every state, with the label of the figure.
    pub const ALL: [(FeedState, &'static str); 8] = [
        (FeedState::Starting, "starting"),
        (FeedState::Standby, "standby"),
        (FeedState::Rebuilding, "rebuilding"),
        (FeedState::Following, "following"),
        (FeedState::Wiring, "wiring"),
        (FeedState::Login, "login"),
        (FeedState::Schema, "schema"),
        (FeedState::Database, "database"),
    ];

    /// What a failure of following makes of it.
    pub(super) fn after(error: &DaemonError) -> Self {
        match error {
            DaemonError::AnotherDaemon(_) | DaemonError::Fenced => FeedState::Standby,
            DaemonError::Wiring(_) => FeedState::Wiring,
            DaemonError::Db(DbError::LoginRefused(_)) => FeedState::Login,
            DaemonError::Db(DbError::MayNotMigrate(_) | DbError::Migration(_)) => FeedState::Schema,
            DaemonError::Db(_) => FeedState::Database,
        }
    }
}

/// Why the rollup is built from the raw rows: the labels of the figure.
const REBUILDS: [&str; 9] = [
    "first_start",
    "layout",
    "identity",
    "restored",
    "schedule",
    CLOCK,
    WIRING,
    AUDIT,
    INPUT,
];
/// Observations of the future counted: a clock ran ahead.
pub(super) const CLOCK: &str = "clock";
/// What the feed hangs on was touched.
pub(super) const WIRING: &str = "wiring";
/// An audit found wrong opening time.
pub(super) const AUDIT: &str = "audit";
/// Much changed at once, a table was emptied, or somebody asked for it.
pub(super) const INPUT: &str = "input";

/// The label of a rebuild because the tables cannot be used.
pub(super) fn label_of(unusable: &Unusable) -> &'static str {
    match unusable {
        Unusable::NoneYet => "first_start",
        Unusable::Layout => "layout",
        Unusable::Identity => "identity",
        Unusable::Future => "restored",
        Unusable::Schedule => "schedule",
        Unusable::Ahead => CLOCK,
        Unusable::Touched(_) => WIRING,
    }
}

/// Counts a rebuild that begins.
pub(super) fn rebuild_begins(reason: &'static str) {
    counter!("uptally_rollup_rebuilds_total", "reason" => reason).increment(1);
}

/// Sets the figures that are true at the moment when somebody asks for them.
pub fn collect(status: &Status) {
    for (state, label) in FeedState::ALL {
        gauge!("uptally_feed_state", "state" => label).set(f64::from(u8::from(status.state == state)));
    }
    if let Some(at) = status.current_at {
        gauge!("uptally_feed_lag_seconds").set(at.elapsed().as_secs_f64());
    }
    let waits = status
        .unflushed_since
        .map_or(0.0, |since| since.elapsed().as_secs_f64());
    gauge!("uptally_ledger_lag_seconds").set(waits);
    #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
    {
        gauge!("uptally_rollup_stores").set(status.stores as f64);
        if let Some(newest) = status.newest {
            gauge!("uptally_rollup_newest_observation_timestamp_seconds").set(newest.micros() as f64 / 1e6);
        }
    }
}

/// Names and explains this module's figures to the installed recorder, and has those that count events begin at zero.
pub fn describe_metrics() {
    describe_feed();
    describe_rollup();
    for name in [
        "uptally_feed_rows_total",
        "uptally_feed_reads_total",
        "uptally_feed_restarts_total",
        "uptally_feed_sleeps_total",
        "uptally_feed_wiring_changes_total",
        "uptally_audit_cells_total",
        "uptally_audit_drift_total",
        "uptally_ledger_flushed_rows_total",
    ] {
        counter!(name).increment(0);
    }
    for reason in REBUILDS {
        counter!("uptally_rollup_rebuilds_total", "reason" => reason).increment(0);
    }
    for name in [
        "uptally_feed_read_seconds",
        "uptally_feed_freshness_seconds",
        "uptally_audit_seconds",
        "uptally_ledger_flush_seconds",
    ] {
        // Named is registered.
        drop(histogram!(name));
    }
    for name in ["uptally_feed_polls_only", "uptally_rollup_held_observations"] {
        gauge!(name).set(0.0);
    }
}

fn describe_feed() {
    describe_gauge!(
        "uptally_feed_state",
        "1 for the state that the daemon is in, 0 for all others"
    );
    describe_gauge!(
        "uptally_feed_lag_seconds",
        Seconds,
        "Time since memory was last known to be the present"
    );
    describe_histogram!(
        "uptally_feed_freshness_seconds",
        Seconds,
        "For each read that found something: from when that may have been committed at the earliest to memory"
    );
    describe_counter!("uptally_feed_rows_total", "Rows of store_activity that were applied");
    describe_counter!(
        "uptally_feed_reads_total",
        "Looks at the database that found something new"
    );
    describe_histogram!(
        "uptally_feed_read_seconds",
        Seconds,
        "From the start of such a look to its rows applied"
    );
    describe_counter!("uptally_feed_restarts_total", "Times that following had to start anew");
    describe_counter!(
        "uptally_feed_wiring_changes_total",
        "Times that tables, triggers or functions were found touched and everything was read again"
    );
    describe_gauge!(
        "uptally_feed_polls_only",
        "1 while new rows are found by polling alone, by configuration or because notifications do not work at the moment"
    );
    describe_counter!("uptally_feed_sleeps_total", "Times that the follower fell asleep");
}

fn describe_rollup() {
    describe_gauge!("uptally_rollup_stores", "Stores in the rollup");
    describe_gauge!(
        "uptally_rollup_held_observations",
        "Observations dated in the future that wait for their time"
    );
    describe_gauge!(
        "uptally_rollup_newest_observation_timestamp_seconds",
        Seconds,
        "The newest observation that is counted, in seconds since 1970"
    );
    describe_counter!(
        "uptally_rollup_rebuilds_total",
        "Times that the rollup was built from the raw rows, by reason"
    );
    describe_histogram!(
        "uptally_ledger_flush_seconds",
        Seconds,
        "Duration of a flush to the rollup tables"
    );
    describe_counter!(
        "uptally_ledger_flushed_rows_total",
        "Store and cell rows written by flushes"
    );
    describe_gauge!(
        "uptally_ledger_lag_seconds",
        Seconds,
        "How long the oldest change that the rollup tables do not have yet has waited; 0: they have all"
    );
    describe_counter!(
        "uptally_audit_cells_total",
        "Cells that were recomputed from raw and compared"
    );
    describe_counter!(
        "uptally_audit_drift_total",
        "Differences that audits found, each logged and its store recomputed; anything but 0 is worth a report"
    );
    describe_histogram!(
        "uptally_audit_seconds",
        Seconds,
        "Time that the follower spent on an audit"
    );
}
