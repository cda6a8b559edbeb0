//! The long runs: a soak of mixed faults, and the figures of single faults in large numbers. `make chaos`,
//! `make chaos-figures`.
//!
//! A program, not part of the tests: it takes minutes to hours. The environment says what to run:
//!
//! | variable | meaning |
//! |---|---|
//! | `SEED` | repeats a run as far as the machine's timing allows; a new one by default |
//! | `MINUTES` | length of the soak (10, or none if a figure is asked for) |
//! | `DAEMON_KILLS`, `POSTGRES_KILLS`, `TERMINATIONS`, `WAKEUPS`, `FAILOVERS` | how many; each prints one line |
//!
//! Exit code 0: no drift, and everything came back; 1: something is wrong, and the last lines say what.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a run that cannot go on fails")]

mod figures;
mod soak;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let failed = runtime.block_on(async {
        tokio::select! {
            // What went wrong has been printed.
            outcome = AssertUnwindSafe(run()).catch_unwind() => outcome.is_err(),
            // Dropping what runs ends every child.
            _ = tokio::signal::ctrl_c() => true,
            () = terminated() => true,
        }
    });
    // Tasks hold the servers: they end here.
    runtime.shutdown_timeout(Duration::from_secs(10));
    ExitCode::from(u8::from(failed))
}

async fn terminated() {
    let mut signals = signal(SignalKind::terminate()).unwrap();
    signals.recv().await;
}

async fn run() {
    let seed = support::seed();
    let mut any = false;
    for (variable, figure) in figures::ALL {
        if let Some(count) = number(variable) {
            any = true;
            figure.run(count, seed).await;
        }
    }
    match number("MINUTES") {
        Some(minutes) => soak::run(seed, Duration::from_secs(60 * minutes)).await,
        None if !any => soak::run(seed, Duration::from_mins(10)).await,
        None => {}
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}: expected a number, found {text}")),
    )
}
