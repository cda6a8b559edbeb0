//! Uptally keeps every store's hourly uptime buckets materialized and answers reports from them.
//!
//! The modules in reading order; each uses its own layer and those below it.

// Layer 0: instants, identities, text that strangers sent.
pub mod store;
pub mod text;
pub mod time;

// Layer 1: when a store is open; which stretches a report looks at.
pub mod schedule;
pub mod window;

// Layer 2: what is kept of every store, and what all of them do at an instant. Up to here no I/O, no clock, no tokio, no Postgres.
pub mod overview;
pub mod rollup;

// The reference that all of the above is held against; it uses layer 0 and the words of layer 1 only.
pub mod oracle;

// Layer 3: the outside world: time, Postgres, what changed there, what we keep there.
pub mod audit;
pub mod clock;
pub mod db;
pub mod failpoint;
pub mod feed;
pub mod ledger;

// Layer 4: the task that owns the rollup; what the stores do now; reports; rows from files and clients.
pub mod daemon;
pub mod import;
pub mod live;
pub mod report;

// Layer 5: the edge. The only place that knows status codes.
pub mod http;

// Layer 6: the program.
pub mod cluster;
pub mod demo;
pub mod fleet;
pub mod serve;
pub mod systemd;
pub mod verify;

pub mod config;
pub mod telemetry;

pub mod cli;
