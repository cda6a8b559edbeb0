//! `uptally serve` in hostile hands: strangers, crowds, words that mean harm, full disks, and the end while all that
//! goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod crowd;
mod disk;
mod ending;
mod login;
#[path = "../support/mod.rs"]
mod support;
mod words;

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use support::{TestDatabase, fixture};

/// A database with some stores.
async fn filled() -> TestDatabase {
    let database = TestDatabase::start().await;
    fixture::fill(&database.connect().await, 3).await;
    database
}

/// Lets this process open as many files as it may at all; returns how many those are.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(10_000).min(10_000);
    let raised = Rlimit {
        current: Some(most),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    usize::try_from(most).unwrap()
}

/// Files that a process has open; none where the system does not tell.
fn open_files(process: Pid) -> Option<usize> {
    let files = fs::read_dir(format!("/proc/{}/fd", process.as_raw_nonzero())).ok()?;
    Some(files.count())
}

/// Memory of a process in MB; none where the system does not tell.
fn memory_mb(process: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kb: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kb / 1024)
}
