//! Random numbers of a made-up fleet: streams by purpose, and the distributions that std has not.

use fastrand::Rng;

/// What a random stream is for: streams of one seed do not meet.
pub(super) const STREAM_STORE: u64 = 1;
pub(super) const STREAM_OUTAGES: u64 = 2;
pub(super) const STREAM_POLL: u64 = 3;
pub(super) const STREAM_CLOSURES: u64 = 4;

/// The random stream of one thing (a store, a poll ...) for one purpose.
pub(super) fn stream(seed: u64, purpose: u64, a: u64, b: u64) -> Rng {
    let mix = |state: u64, part: u64| Rng::with_seed(state ^ part.rotate_left(32)).u64(..);
    Rng::with_seed([purpose, a, b].into_iter().fold(seed, mix))
}

/// Standard normal, by Box and Muller.
pub(super) fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

/// Counts how many uniform factors keep a product above `e^-mean`; for small means.
pub(super) fn poisson(rng: &mut Rng, mean: f64) -> u32 {
    let limit = (-mean).exp();
    let (mut count, mut product) = (0, rng.f64());
    while product > limit {
        count += 1;
        product *= rng.f64();
    }
    count
}
