//! Uptally keeps every store's hourly uptime buckets materialized and answers reports from them.
//!
//! The modules in reading order; each uses its own layer and those above it in this list.

// Layer 0 to 2: pure. No I/O, no clock, no tokio, no Postgres.
pub mod time;

pub mod store;

// Layer 3: the machine and the database.
pub mod clock;

// Layer 6: the program around it.
pub mod cli;
pub mod config;
pub mod telemetry;
