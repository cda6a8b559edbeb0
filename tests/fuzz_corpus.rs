//! Every fuzz target over its committed corpus, without a fuzzer: what was found once is not found again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may")]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::Path;

fn replay(name: &str) {
    let (_, run) = targets::TARGETS.iter().find(|(target, _)| *target == name).unwrap();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&corpus)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", corpus.display());
    for file in files {
        println!("{}", file.display()); // the last one is the one that failed
        run(&fs::read(&file).unwrap());
    }
}

#[test]
fn calendars() {
    replay("calendars");
}

#[test]
fn configuration() {
    replay("configuration");
}

#[test]
fn csv_rows() {
    replay("csv_rows");
}

#[test]
fn cursors() {
    replay("cursors");
}

#[test]
fn histories() {
    replay("histories");
}

#[test]
fn requests() {
    replay("requests");
}

#[test]
fn timestamps() {
    replay("timestamps");
}
