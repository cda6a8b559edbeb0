//! What each fuzz target does with its bytes. It panics if something does not hold.
//!
//! `tests/fuzz_corpus.rs` compiles these modules too, and runs them over the committed corpora: a find of the fuzzer
//! becomes a regression test by being copied there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a target says what is wrong"
)]

pub mod calendars;
pub mod configuration;
pub mod csv_rows;
pub mod cursors;
pub mod histories;
pub mod requests;
pub mod timestamps;

#[path = "../../tests/histories/mod.rs"]
#[allow(dead_code, reason = "nobody sums up the checks here")]
mod machine;

/// A target by name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. The names are those of the binaries and of the corpora.
pub const TARGETS: [Target; 7] = [
    ("calendars", calendars::run),
    ("configuration", configuration::run),
    ("csv_rows", csv_rows::run),
    ("cursors", cursors::run),
    ("histories", histories::run),
    ("requests", requests::run),
    ("timestamps", timestamps::run),
];
