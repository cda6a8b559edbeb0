//! What may happen with every request, and is told in the log now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The log tells at most so often.
const EVERY: Duration = Duration::from_secs(5);

/// One kind of event.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<Option<Told>>);

#[derive(Debug)]
struct Told {
    at: Instant,
    /// Events that were not told since.
    untold: u64,
}

impl Seldom {
    /// An event that has not happened yet.
    pub const fn new() -> Self {
        Seldom(Mutex::new(None))
    }

    /// It happened. Some if it is to be told: how many went untold before it.
    pub fn happened(&self, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *told {
            Some(told) if now.duration_since(told.at) < EVERY => {
                told.untold += 1;
                None
            }
            _ => {
                let untold = told.take().map_or(0, |told| told.untold);
                *told = Some(Told { at: now, untold: 0 });
                Some(untold)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_in_five_seconds_with_the_number_of_the_others() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        let at = |ms| seldom.happened(start + Duration::from_millis(ms));
        assert_eq!(at(0), Some(0));
        assert_eq!([at(1), at(100), at(4999)], [None, None, None]);
        assert_eq!(at(5000), Some(3));
        assert_eq!(at(5001), None);
        assert_eq!(at(60_000), Some(1));
        assert_eq!(at(120_000), Some(0));
    }
}
