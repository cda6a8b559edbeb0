//! The API of version 1, in this process: every answer against the oracle, what is written by it, what it tells of, and its
//! description.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod activity;
mod answers;
mod app;
mod days;
mod description;
mod events;
mod expected;
mod extended;
mod made_up;
mod pages;
mod reports;
#[path = "../support/mod.rs"]
mod support;
