//! Whether the task that owns the rollup still gets on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a wait shows that it is attended.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// The instant at which the daemon's task last did a step, or was seen to wait as it should. Clones show the same.
///
/// Waiting is no standstill: an absent database, another daemon that leads, an idle night. A task that is blocked, that
/// spins, or that waits for an answer on which nobody works is none of these, and its pulse grows old.
#[derive(Debug, Clone)]
pub struct Pulse {
    began: Instant,
    /// Milliseconds after `began`.
    beat_ms: Arc<AtomicU64>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Pulse {
            began: Instant::now(),
            beat_ms: Arc::default(),
        }
    }

    /// Time since the last beat, to the millisecond.
    pub fn age(&self) -> Duration {
        let beat = Duration::from_millis(self.beat_ms.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(beat)
    }

    /// A step was done.
    pub(super) fn beat(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat_ms.store(now, Ordering::Relaxed);
    }

    /// Waits for something that may take any time. The pulse beats as long as whoever waits is awake to see it.
    pub(super) async fn during<T>(&self, wait: impl Future<Output = T>) -> T {
        let mut every = tokio::time::interval(BEAT_EVERY);
        tokio::pin!(wait);
        loop {
            tokio::select! {
                biased;
                output = &mut wait => return output,
                _ = every.tick() => self.beat(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_beats_and_a_standstill_does_not() {
        let pulse = Pulse::new();
        let old = Duration::from_millis(1500);
        pulse.during(tokio::time::sleep(Duration::from_millis(2200))).await;
        assert!(pulse.age() < Duration::from_millis(700), "{:?}", pulse.age());
        let blocked = pulse.during(async {
            // The first tick comes only after this.
            std::thread::sleep(old);
            pulse.age()
        });
        assert!(blocked.await >= old);
        pulse.beat();
        assert!(pulse.clone().age() < old);
    }
}
