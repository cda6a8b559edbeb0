//! Places where a test can make the daemon stumble: be killed, fail, stall.
//!
//! Compiled in with the Cargo feature `failpoints` only, for tests; without it [`hit`] is nothing. What happens where
//! is said by the environment, in entries that are separated by commas:
//!
//! ```text
//! UPTALLY_FAILPOINTS="flush.before_commit=kill@3,read.looked=sleep:200/5,flush.begun=error"
//! ```
//!
//! | word | does |
//! |---|---|
//! | `kill` | ends this process with SIGKILL |
//! | `error` | makes the step fail |
//! | `panic` | panics |
//! | `sleep:200` | stalls the step for 200 ms, and its task with it; other tasks go on |
//! | `...@3` | at the third pass only |
//! | `.../5` | at every fifth pass |

use crate::db::DbError;

/// All places, in the order of the work. A test goes through all of them.
pub const POINTS: [&str; 24] = [
    // Start: we listen; the leader's lock is ours; the epoch is raised; memory is loaded or built.
    "start.listening",
    "start.leading",
    "start.epoch_raised",
    "start.loaded",
    // A look at the database: what is new is here; it is in memory; the cursor says so; it is published.
    "read.looked",
    "read.applied",
    "read.cursor_moved",
    "read.published",
    // The key is ours, and the look that must follow has not happened.
    "sleep.granted",
    // A flush: taken from memory; transaction begun; rows written; checkpoint written; committed; known to be.
    "flush.taken",
    "flush.begun",
    "flush.rows_written",
    "flush.before_commit",
    "flush.committed",
    "flush.known",
    // A report: its row is there; over days, the ledger's sums are read, and memory is not asked yet; rendered; its file written under another name; renamed; announced; synced; recorded.
    "report.recorded",
    "report.summed",
    "report.rendered",
    "report.file_written",
    "report.renamed",
    "report.announced",
    "report.synced",
    "report.ended",
    // The last flush of an end in order is due.
    "stop.last_flush",
];

/// A step of the work is done. Fails, stalls or kills if the environment says so for this place.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn hit(_point: &'static str) -> Result<(), DbError> {
    Ok(())
}

/// The same after a step that cannot fail: an `error` is a panic there.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn pass(_point: &'static str) {}

#[cfg(feature = "failpoints")]
pub use active::{Plan, hit, pass};

#[cfg(feature = "failpoints")]
mod active {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};
    use tokio::runtime::{Handle, RuntimeFlavor};

    use super::{DbError, POINTS};

    /// The environment's word; none: nothing happens anywhere.
    const VARIABLE: &str = "UPTALLY_FAILPOINTS";

    /// What happens, and how often each place was passed.
    #[derive(Debug, Default)]
    pub struct Plan(Vec<Entry>);

    #[derive(Debug)]
    struct Entry {
        point: &'static str,
        action: Action,
        when: When,
        passes: AtomicU64,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Action {
        Kill,
        Error,
        Panic,
        Sleep(Duration),
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum When {
        /// At the pass of this number, counted from 1.
        At(u64),
        /// Whenever the number of passes is a multiple.
        Every(u64),
    }

    /// A step of the work is done. Fails, stalls or kills if the environment says so for this place.
    pub fn hit(point: &'static str) -> Result<(), DbError> {
        static PLAN: OnceLock<Plan> = OnceLock::new();
        PLAN.get_or_init(Plan::of_the_environment).hit(point)
    }

    /// The same after a step that cannot fail.
    ///
    /// # Panics
    ///
    /// In place of an `error`.
    pub fn pass(point: &'static str) {
        if let Err(error) = hit(point) {
            panic!("{error}");
        }
    }

    impl Plan {
        fn of_the_environment() -> Self {
            let Ok(text) = std::env::var(VARIABLE) else {
                return Plan::default();
            };
            tracing::warn!(%text, "fail points are on");
            match Plan::parse(&text) {
                Ok(plan) => plan,
                // A test whose fault never comes would pass for the wrong reason.
                Err(wrong) => panic!("{VARIABLE}: {wrong}"),
            }
        }

        /// Reads entries; says which one is wrong.
        pub fn parse(text: &str) -> Result<Self, String> {
            let entries = text.split(',').map(|entry| parse_entry(entry).ok_or(entry));
            entries
                .collect::<Result<_, _>>()
                .map(Plan)
                .map_err(|entry| format!("expected point=action, found {entry:?}"))
        }

        /// See [`hit`].
        ///
        /// # Panics
        ///
        /// If the place is not in the list, or if that was asked for.
        pub fn hit(&self, point: &'static str) -> Result<(), DbError> {
            assert!(POINTS.contains(&point), "{point} is not in the list");
            for entry in self.0.iter().filter(|entry| entry.point == point) {
                let pass = entry.passes.fetch_add(1, Ordering::Relaxed) + 1;
                let due = match entry.when {
                    When::At(n) => pass == n,
                    When::Every(n) => pass.is_multiple_of(n),
                };
                if due {
                    entry.act(pass)?;
                }
            }
            Ok(())
        }
    }

    impl Entry {
        fn act(&self, pass: u64) -> Result<(), DbError> {
            let point = self.point;
            match self.action {
                Action::Kill => {
                    // On one's own process it can only succeed, and then nothing comes after it.
                    let _ = kill_process(getpid(), Signal::KILL);
                    std::thread::sleep(Duration::MAX);
                    Ok(())
                }
                Action::Error => Err(DbError::Unexpected(format!("fail point {point}, pass {pass}"))),
                Action::Panic => panic!("fail point {point}, pass {pass}"),
                Action::Sleep(length) => {
                    stall(length);
                    Ok(())
                }
            }
        }
    }

    /// Stalls who calls it, and nobody else: a worker of the runtime first hands on the tasks that wait for its thread.
    fn stall(length: Duration) {
        let workers = Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
        if workers {
            tokio::task::block_in_place(|| std::thread::sleep(length));
        } else {
            std::thread::sleep(length);
        }
    }

    fn parse_entry(entry: &str) -> Option<Entry> {
        let (point, rest) = entry.trim().split_once('=')?;
        let point = POINTS.into_iter().find(|known| *known == point)?;
        let (action, when) = match (rest.split_once('@'), rest.split_once('/')) {
            (Some((action, n)), _) => (action, When::At(count(n)?)),
            (None, Some((action, n))) => (action, When::Every(count(n)?)),
            (None, None) => (rest, When::Every(1)),
        };
        let action = match action.split_once(':') {
            Some(("sleep", ms)) => Action::Sleep(Duration::from_millis(ms.parse().ok()?)),
            None if action == "kill" => Action::Kill,
            None if action == "error" => Action::Error,
            None if action == "panic" => Action::Panic,
            _ => return None,
        };
        Some(Entry {
            point,
            action,
            when,
            passes: AtomicU64::new(0),
        })
    }

    fn count(text: &str) -> Option<u64> {
        text.parse().ok().filter(|&n| n > 0)
    }

    #[cfg(test)]
    #[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    mod tests {
        use super::*;

        #[test]
        fn it_happens_at_the_pass_that_was_asked_for() {
            let plan = Plan::parse("flush.begun=error@2, read.looked=error/3,read.applied=sleep:1").unwrap();
            let fails = |point| (0..6).map(|_| plan.hit(point).is_err()).collect::<Vec<_>>();
            assert_eq!(fails("flush.begun"), [false, true, false, false, false, false]);
            assert_eq!(fails("read.looked"), [false, false, true, false, false, true]);
            assert!(!fails("read.applied").contains(&true));
            assert!(!fails("flush.committed").contains(&true), "nothing was asked for there");
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
        async fn who_stalls_holds_up_nobody_else() {
            let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
            let (told, hears) = std::sync::mpsc::channel::<()>();
            tokio::spawn(async move {
                // Woken by a task, a task waits in the slot of that one's worker, which others cannot take from.
                tokio::spawn(async move { told.send(()).unwrap() });
                begun.send(()).unwrap();
                stall(Duration::from_secs(3));
            });
            has_begun.recv().await.unwrap();
            let heard = tokio::task::spawn_blocking(move || hears.recv_timeout(Duration::from_millis(1500)));
            assert!(heard.await.unwrap().is_ok(), "the only worker's other task went on");
        }

        #[test]
        fn what_is_not_understood_is_refused() {
            for wrong in [
                "",
                "nowhere=kill",
                "flush.begun",
                "flush.begun=explode",
                "flush.begun=kill@0",
                "flush.begun=sleep",
                "flush.begun=kill@x",
            ] {
                assert!(Plan::parse(wrong).is_err(), "{wrong}");
            }
        }
    }
}
