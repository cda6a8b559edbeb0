//! Reports from trigger to CSV against a real Postgres, the routes, and the accept loop.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod fake;
mod jobs;
mod registry;
mod routes;
mod server;
#[path = "../support/mod.rs"]
mod support;
