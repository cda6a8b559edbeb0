//! More than it can take.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::future::join_all;
use tokio_postgres::Client;
use uptally::clock::Clock;
use uptally::time::{DAY_US, Timestamp};

use super::support::check::no_drift;
use super::support::resources::Resources;
use super::support::serve::{Serve, http};
use super::support::{TestDatabase, seed, state_dir, within};
use super::{SETTINGS, count, url};

/// What a row may take in memory while it is read and applied, and what the allocator keeps of that.
const ROW_BYTES_MAX: u64 = 400;

async fn copy(client: &Client, stores: u64, rows: u64, end: Timestamp, rng: &mut fastrand::Rng) {
    let sql = "COPY public.store_activity (store_id, timestamp_utc, status) FROM STDIN";
    let sink = client.copy_in(sql).await.unwrap();
    futures_util::pin_mut!(sink);
    let mut lines = String::new();
    for row in 0..rows {
        let status = if rng.u8(0..3) == 0 { "inactive" } else { "active" };
        // Instants do not meet: ten days of microseconds for each store.
        let at = end.plus(-rng.i64(0..10 * DAY_US));
        writeln!(lines, "store {}\t{at}\t{status}", row % stores).unwrap();
    }
    sink.send(Bytes::from(lines)).await.unwrap();
    sink.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_many_rows_is_one_step() {
    let server = TestDatabase::start_alone(&SETTINGS).await;
    let (end, state, mut rng) = (Clock::System.now(), state_dir(), fastrand::Rng::with_seed(seed()));
    let mut serve = Serve::spawn(state.path(), Some(&url(server.connection())));
    serve.wait_until_ready();
    let (before, client, rows) = (Resources::of(serve.pid()), server.connect().await, count(50_000));
    copy(&client, 500, rows, end, &mut rng).await;
    no_drift(server.connection(), &mut serve, end).await;
    if let (Some(before), Some(after)) = (before, Resources::of(serve.pid())) {
        println!("{rows} rows: {before:?}, then {after:?}");
        assert!(after.rss_kib < before.rss_kib + rows * ROW_BYTES_MAX / 1024 + 64 * 1024);
    }
}

/// Writers as fast as the server takes them; the processors are theirs and the daemon's together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_makes_it_lag_and_nothing_else() {
    const BATCH: u64 = 2000;
    let server = TestDatabase::start_alone(&SETTINGS).await;
    let (end, state, seed) = (Clock::System.now(), state_dir(), seed());
    let mut serve = Serve::spawn(state.path(), Some(&url(server.connection())));
    serve.wait_until_ready();
    let before = Resources::of(serve.pid());
    let length = Duration::from_secs(std::env::var("OVERLOAD_S").map_or(1, |s| s.parse().unwrap()));
    let began = Instant::now();
    let writers = (0..4).map(|n| {
        let (server, mut rng) = (&server, fastrand::Rng::with_seed(seed.wrapping_add(n)));
        async move {
            let (client, mut rows) = (server.connect().await, 0);
            while began.elapsed() < length {
                copy(&client, 200, BATCH, end, &mut rng).await;
                rows += BATCH;
            }
            rows
        }
    });
    let rows: u64 = join_all(writers).await.into_iter().sum();
    let (took, stopped) = (began.elapsed(), Instant::now());
    let after = Resources::of(serve.pid());
    let address = serve.address().to_owned();
    let read = || -> u64 {
        let (_, _, figures) = http(&address, "GET", "/metrics");
        let line = figures
            .lines()
            .find_map(|line| line.strip_prefix("uptally_feed_rows_total "));
        line.map_or(0, |value| value.trim().parse().unwrap())
    };
    let behind = rows - read();
    within(Duration::from_mins(1), "it has caught up", async || read() >= rows).await;
    println!(
        "{rows} rows in {took:.1?}; at the end {behind} behind, caught up after {:.1?}; {before:?}, then {after:?}",
        stopped.elapsed()
    );
    if let (Some(before), Some(after)) = (before, after) {
        // Two observations for each row would be more than that in a long run; in a short one the allocator shows most.
        let bound = 128 * 1024 + rows * 32 / 1024;
        assert!(
            after.rss_kib < before.rss_kib + bound,
            "memory grew from {before:?} to {after:?}"
        );
    }
    no_drift(server.connection(), &mut serve, end).await;
}
