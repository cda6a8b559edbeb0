//! The one place that reads the time of day.
//!
//! Everything that needs "now" takes a [`Clock`]. The pure core (layers 0 to 2) does not even take
//! one: there an instant is an argument. How long something took is no matter of this module:
//! `std::time::Instant` is for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::Timestamp;

/// Says what time it is. Clones show the same time.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's own clock.
    System,
    /// Stands where its [`ClockHand`] was put last.
    Hand(ClockHand),
}

impl Clock {
    /// A clock that stands at `at`, and the hand that moves it.
    pub fn standing(at: Timestamp) -> (Clock, ClockHand) {
        let hand = ClockHand(Arc::new(AtomicI64::new(at.micros())));
        (Clock::Hand(hand.clone()), hand)
    }

    /// The time. A machine whose clock is outside the range of [`Timestamp`] reads as the nearest
    /// end of that range: such a clock is wrong anyway, and the arithmetic stays free of overflow.
    pub fn now(&self) -> Timestamp {
        match self {
            Clock::System => system_now(),
            Clock::Hand(hand) => Timestamp::from_micros(hand.0.load(Ordering::SeqCst)),
        }
    }
}

/// Sets a clock made by [`Clock::standing`], and all clones of it.
#[derive(Debug, Clone)]
pub struct ClockHand(Arc<AtomicI64>);

impl ClockHand {
    /// From now on it is `at`, which may be earlier than before.
    pub fn set(&self, at: Timestamp) {
        self.0.store(at.micros(), Ordering::SeqCst);
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
fn system_now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(micros).clamp(Timestamp::MIN, Timestamp::MAX.plus(-1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_is_in_range_and_does_not_stand() {
        let first = Clock::System.now();
        assert!(first.is_in_range());
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(Clock::System.now() > first);
    }

    #[test]
    fn a_standing_clock_moves_with_its_hand_only() {
        let noon = Timestamp::MIN;
        let (clock, hand) = Clock::standing(noon);
        let copy = clock.clone();
        assert_eq!((clock.now(), clock.now()), (noon, noon));
        hand.set(noon.plus(5));
        assert_eq!((clock.now(), copy.now()), (noon.plus(5), noon.plus(5)));
    }
}
