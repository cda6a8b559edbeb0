//! The line between the daemon and its server: lost at a COMMIT, slow, cut up, refused.

use std::time::{Duration, Instant};

use fastrand::Rng;
use uptally::clock::Clock;
use uptally::feed;
use uptally::time::HOUR_US;

use super::support::check::{knows_all_of, reports_are_right, verify_is_clean};
use super::support::daemon::Following;
use super::support::proxy::{CutAt, Proxy, Weather};
use super::support::writers::Writers;
use super::support::{TestDatabase, database, seed, within};
use super::{count, quick};

const PATIENCE: Duration = Duration::from_secs(8);

/// Whether a COMMIT arrived cannot be known when the line is lost, and need not be: the checkpoint says it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_lost_at_a_commit_loses_and_doubles_nothing() {
    let server = TestDatabase::start().await;
    let (client, seed, end) = (server.connect().await, seed(), Clock::System.now());
    let mut rng = Rng::with_seed(seed);
    let proxy = Proxy::start(server.connection()).await;
    let mut daemon = Following::start(&database(&proxy.connection()), &Clock::System, quick()).await;
    let writers = Writers::start_wild(server.connection(), 6, seed, end);
    let flushed_at = "SELECT written_at::text FROM uptally.checkpoint";
    for round in 1..=count(2) {
        let at = if round % 2 == 0 {
            CutAt::BeforeCommit
        } else {
            CutAt::AfterCommit
        };
        // Long enough to count as steady, which makes the next pause the shortest.
        tokio::time::sleep(Duration::from_millis(rng.u64(1000..1100))).await;
        proxy.cut_commit("uptally ledger", at);
        // The next flush waits for fifty times as long as the last one took, half a minute at most.
        within(Duration::from_secs(40), "a COMMIT is cut", async || {
            proxy.commits_cut() == round
        })
        .await;
        let flushed: String = client.query_one(flushed_at, &[]).await.unwrap().get(0);
        tokio::time::sleep(Duration::from_millis(50)).await;
        within(Duration::from_secs(40), "it follows and flushes again", async || {
            daemon.handle.following().await
                && client.query_one(flushed_at, &[]).await.unwrap().get::<_, String>(0) != flushed
        })
        .await;
    }
    writers.stop().await;
    within(PATIENCE, "it follows", async || daemon.handle.following().await).await;
    reports_are_right(&daemon.handle, &client, Clock::System.now(), end.plus(-HOUR_US)).await;
    daemon.stop().await;
    verify_is_clean(&server.database(), Clock::System.now()).await;
}

/// The proxy itself: a COMMIT that is cut before the server has not happened, one that is cut after it has.
#[tokio::test]
async fn the_proxy_cuts_where_it_says() {
    let server = TestDatabase::start().await;
    let (client, proxy) = (server.connect().await, Proxy::start(server.connection()).await);
    for (at, rows) in [(CutAt::BeforeCommit, 0), (CutAt::AfterCommit, 1)] {
        let mut config = proxy.connection();
        let mut writer = super::support::connect(config.application_name("cut")).await;
        let transaction = writer.transaction().await.unwrap();
        transaction
            .batch_execute("INSERT INTO public.store_activity VALUES ('a', '2023-11-08 11:00+00', 'active')")
            .await
            .unwrap();
        proxy.cut_commit("cut", at);
        assert!(transaction.commit().await.is_err(), "{at:?}: an answer came");
        within(PATIENCE, "the server has heard", async || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cut'";
            client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
        let found = client
            .query("SELECT FROM public.store_activity", &[])
            .await
            .unwrap()
            .len();
        assert_eq!(found, rows, "{at:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_line_and_one_byte_at_a_time_are_slower_and_right() {
    let server = TestDatabase::start().await;
    let (client, seed, end) = (server.connect().await, seed(), Clock::System.now());
    let delay = Duration::from_millis(std::env::var("DELAY_MS").map_or(5, |ms| ms.parse().unwrap()));
    let mut proxy = Proxy::start(server.connection()).await;
    let through = database(&proxy.connection());
    for weather in [Weather::Slow(delay), Weather::Crumbs] {
        proxy.set(weather);
        let mut daemon = Following::launch(&through, &Clock::System, quick());
        let began = Instant::now();
        // A start from nothing asks about eighty times, one after the other, and each goes both ways.
        let patience = Duration::from_mins(1) + 400 * delay;
        let follows = tokio::time::timeout(patience, daemon.handle.following()).await;
        assert!(follows.unwrap_or_else(|_| panic!("it follows within {patience:?}")));
        println!("{weather:?}: follows after {:?}", began.elapsed());
        let writers = Writers::start_wild(server.connection(), 4, seed, end);
        tokio::time::sleep(Duration::from_millis(300)).await;
        writers.stop().await;
        let present = feed::current(&client).await.unwrap();
        within(patience, "it has caught up", async || {
            knows_all_of(&daemon.handle.point().await.unwrap().cursor, &present)
        })
        .await;
        reports_are_right(&daemon.handle, &client, Clock::System.now(), end.plus(-HOUR_US)).await;
        daemon.stop().await;
        verify_is_clean(&server.database(), Clock::System.now()).await;
    }
    // And a server that cannot be reached for a while.
    proxy.set(Weather::Clear);
    let mut daemon = Following::start(&through, &Clock::System, quick()).await;
    proxy.refuse().await;
    assert!(proxy.cut() > 0);
    within(PATIENCE, "it notices", async || {
        daemon.handle.status().following.is_err()
    })
    .await;
    proxy.admit().await;
    within(PATIENCE, "it follows again", async || daemon.handle.following().await).await;
    daemon.stop().await;
}
