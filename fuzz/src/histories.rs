//! Bucket arithmetic: the bytes choose a history, as a seed does in `tests/rollup_properties.rs`; the rollup's reports
//! and cells must be the oracle's.

use super::machine;
use super::machine::dice::Bytes;

/// Longer histories find little more and take long.
const STEPS_MAX: u32 = 60;

/// Runs the history that the bytes choose, until they are spent.
pub fn run(bytes: &[u8]) {
    machine::run(Bytes(bytes), STEPS_MAX);
}
