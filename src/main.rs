//! The `uptally` program.
fn main() {}
