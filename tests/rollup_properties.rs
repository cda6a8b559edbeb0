//! The rollup against the oracle, over generated histories (see module `histories`).
//!
//! What a case is, says docs/fuzzing.md. `make properties` runs a million on all cores. `SEED=n` begins at a seed,
//! `CASES=n` sets how many follow; a run prints where it is, so one that was broken off goes on from there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may")]
#![allow(dead_code, reason = "the dice of bytes are for the fuzzer")]

mod histories;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use histories::Checks;

/// Steps of a case.
const STEPS: u32 = 40;
/// Between two lines that say how far a long run is.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);

/// Prints how to repeat a case that fails, and tells the other workers.
struct Repeat<'a> {
    seed: u64,
    failed: &'a AtomicBool,
}

impl Drop for Repeat<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failed.store(true, Ordering::Relaxed);
            println!(
                "repeat with: SEED={} CASES=1 cargo test --test rollup_properties",
                self.seed
            );
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Runs the cases of seeds that nobody has taken yet, until there are none or one has failed.
fn work(next: &AtomicU64, end: u64, failed: &AtomicBool) -> Checks {
    let mut checks = Checks::default();
    let mut said = Instant::now();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || failed.load(Ordering::Relaxed) {
            return checks;
        }
        let _repeat = Repeat { seed, failed };
        checks.add(histories::run(fastrand::Rng::with_seed(seed), STEPS));
        if said.elapsed() > PROGRESS_EVERY {
            said = Instant::now();
            println!("at seed {seed}");
        }
    }
}

#[test]
fn any_history_gives_the_oracles_numbers() {
    let first = number("SEED", fastrand::u64(..1 << 40));
    let cases = number("CASES", 60);
    let end = first + cases;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    println!("SEED={first} CASES={cases}, on {workers} threads");
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let began = Instant::now();
    let mut checks = Checks::default();
    std::thread::scope(|scope| {
        let work = || scope.spawn(|| work(&next, end, &failed));
        let workers: Vec<_> = (0..workers).map(|_| work()).collect();
        for worker in workers {
            checks.add(worker.join().expect("a case failed: see above how to repeat it"));
        }
    });
    let took = began.elapsed();
    println!("{cases} cases in {took:.1?}, seeds {first} to {}: {checks:?}", end - 1);
    assert!(
        cases < 60 || checks.from_the_shelf * 3 < checks.reports,
        "most reports are of what memory holds"
    );
}
