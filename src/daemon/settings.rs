//! How the daemon paces itself.

use std::time::Duration;

use crate::feed::doorbell::{HEARTBEAT, QUEUE_USAGE_MAX, Wake};
use crate::rollup::Limits;

/// What a daemon does while another one is active on its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standby {
    /// It waits, and takes over when the other one goes.
    Wait,
    /// It ends, after a while in which one that was just killed may still hold its lock.
    Refuse,
}

/// Paces and bounds of the daemon.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Whether NOTIFY is used beside polling.
    pub wake: Wake,
    /// The database is looked at so often at least.
    pub poll_interval: Duration,
    /// Pause between two looks while rows keep coming.
    pub awake_interval: Duration,
    /// How long to stay awake after the last row, so that a steady stream never rings the bell.
    pub awake_for: Duration,
    /// Rows sorted in memory at once.
    pub batch_rows_max: usize,
    /// It is looked at tables, triggers and functions so often at least, and at notifications.
    pub check_interval: Duration,
    /// Pause between two audits of a store against its raw rows; None: no audits.
    pub audit_interval: Option<Duration>,
    /// Pause between two flushes at least.
    pub flush_interval: Duration,
    /// Bounds of the rollup.
    pub limits: Limits,
    /// What is done while another daemon is active.
    pub standby: Standby,
    /// How long another daemon may take to go before we refuse: one that was just killed holds its lock until the
    /// server has noticed.
    pub lead_patience: Duration,
    /// The listening session is asked so often whether it lives, and may take as long to answer; the server ends it when
    /// it was silent for six times that.
    pub heartbeat: Duration,
    /// The server must have begun with what it is asked after this; else its process is frozen, or the line is broken, and
    /// another session is taken.
    pub answer_deadline: Duration,
    /// See [`QUEUE_USAGE_MAX`].
    pub queue_usage_max: f64,
    /// For so long an observation says how a store is.
    pub silent_after: Duration,
    /// Not ready when memory was not known to be the present for longer than this.
    pub lag_ready_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            wake: Wake::Notify,
            poll_interval: Duration::from_secs(1),
            awake_interval: Duration::from_millis(2),
            awake_for: Duration::from_millis(250),
            batch_rows_max: 4_000_000,
            check_interval: Duration::from_secs(10),
            audit_interval: Some(Duration::from_secs(10)),
            flush_interval: Duration::from_secs(1),
            limits: Limits::default(),
            standby: Standby::Wait,
            lead_patience: Duration::from_secs(30),
            heartbeat: HEARTBEAT,
            answer_deadline: Duration::from_secs(10),
            queue_usage_max: QUEUE_USAGE_MAX,
            silent_after: Duration::from_hours(2),
            lag_ready_max: Duration::from_secs(5),
        }
    }
}
