//! Where the choices of a generated history come from: a seed, or bytes that somebody else makes up.

use std::ops::Range;

/// A source of choices.
pub trait Dice {
    /// A number below `bound`, which is more than 0.
    fn below(&mut self, bound: u64) -> u64;

    /// Whether every choice from here on is 0.
    fn is_spent(&self) -> bool {
        false
    }

    /// True once in `times`.
    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A number of a range that is not empty.
    fn within(&mut self, range: Range<i64>) -> i64 {
        range.start + i64::try_from(self.below(range.start.abs_diff(range.end))).unwrap()
    }

    /// An item of a list that is not empty.
    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let place = self.below(u64::try_from(items.len()).unwrap());
        &items[usize::try_from(place).unwrap()]
    }
}

impl Dice for fastrand::Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.u64(..bound)
    }
}

/// Choices from bytes: as few of them for each as its range needs, so that a changed byte changes one choice.
pub struct Bytes<'a>(pub &'a [u8]);

impl Dice for Bytes<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        let bits = u64::BITS - (bound - 1).leading_zeros();
        let (taken, rest) = self.0.split_at((bits as usize).div_ceil(8).min(self.0.len()));
        self.0 = rest;
        taken.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)) % bound
    }

    fn is_spent(&self) -> bool {
        self.0.is_empty()
    }
}
