//! Uptally keeps every store's hourly uptime buckets materialized and answers reports from them.
//!
//! The modules in reading order; each uses its own layer and those above it in this list.

// Layer 0 to 2: pure. No I/O, no clock, no tokio, no Postgres.
pub mod schedule;
pub mod store;
pub mod time;
pub mod window;

// Layer 6: around the daemon.
pub mod fleet;
pub mod import;
