//! One fault in large numbers, one line each.

use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::future::join_all;
use uptally::clock::Clock;
use uptally::daemon::Settings;
use uptally::time::HOUR_US;

use crate::support::check::{reports_are_right, verify_is_clean};
use crate::support::daemon::Following;
use crate::support::hunt::{Hunt, hunt};
use crate::support::replica::fail_over;
use crate::support::reporter::Reporter;
use crate::support::writers::Writers;
use crate::support::{TestDatabase, within};
use crate::world::World;

/// A kind of run.
#[derive(Clone, Copy)]
pub enum Figure {
    DaemonKills,
    PostgresKills,
    Terminations,
    Wakeups,
    Failovers,
}

/// All of them, by the variable that says how many.
pub const ALL: [(&str, Figure); 5] = [
    ("DAEMON_KILLS", Figure::DaemonKills),
    ("POSTGRES_KILLS", Figure::PostgresKills),
    ("TERMINATIONS", Figure::Terminations),
    ("WAKEUPS", Figure::Wakeups),
    ("FAILOVERS", Figure::Failovers),
];

/// Databases that runs in which most of the time is waiting use at once.
const LANES: u64 = 4;

impl Figure {
    /// Runs until the count is reached. Panics at the first drift.
    pub async fn run(self, count: u64, seed: u64) {
        let began = Instant::now();
        let line = match self {
            Figure::DaemonKills => daemon_kills(count, seed).await,
            Figure::PostgresKills => postgres_kills(count, seed).await,
            Figure::Terminations => terminations(count, seed).await,
            Figure::Wakeups => wakeups(count, seed).await,
            Figure::Failovers => failovers(count, seed).await,
        };
        println!(
            "FIGURE {line}; drift 0; seed {seed}; {:.0} s",
            began.elapsed().as_secs_f64()
        );
    }
}

/// Now in the middle of the start, now while it follows, flushes and makes reports. The writers never rest but for the
/// checks: the tables against raw every 10th time, everything every 50th.
async fn daemon_kills(count: u64, seed: u64) -> String {
    let (mut world, mut rng) = (World::start(seed).await, Rng::with_seed(seed));
    let connection = world.server.connection().clone();
    let (mut early, mut fetched) = (0, 0);
    // A life before the first, so that there is a rollup to verify.
    let mut serve = world.serve(&connection, &[]);
    world.check(&mut serve).await;
    serve.kill();
    for kill in 1..=count {
        world.write();
        let mut serve = world.serve(&connection, &[]);
        if rng.bool() {
            early += 1;
            tokio::time::sleep(Duration::from_millis(rng.u64(0..150))).await;
            serve.kill();
        } else {
            serve.wait_until_ready();
            let reporter = Reporter::start(serve.address());
            tokio::time::sleep(Duration::from_millis(rng.u64(0..500))).await;
            serve.kill();
            fetched += reporter.stop().await;
        }
        if kill % 10 == 0 {
            verify_is_clean(&world.server.database(), world.end).await;
        }
        if kill % 50 == 0 || kill == count {
            let mut serve = world.serve(&connection, &[]);
            world.check(&mut serve).await;
            println!("{kill} kills, {} transactions, checked", world.committed);
        }
    }
    format!(
        "daemon killed {count} times ({early} before it was ready) under {} committed transactions and {fetched} reports",
        world.committed
    )
}

/// The daemon lives; the server is killed under it and the writers.
async fn postgres_kills(count: u64, seed: u64) -> String {
    let (mut world, mut rng) = (World::start(seed).await, Rng::with_seed(seed));
    let connection = world.server.connection().clone();
    let mut serve = world.serve(&connection, &[]);
    serve.wait_until_ready();
    let mut took = Vec::new();
    for kill in 1..=count {
        world.write();
        tokio::time::sleep(Duration::from_millis(rng.u64(300..1500))).await;
        world.server.crash().await;
        took.push(serve.wait_until_ready_within(Duration::from_secs(20)));
        if kill % 10 == 0 || kill == count {
            world.check(&mut serve).await;
            println!("{kill} kills, {} transactions, checked", world.committed);
        }
    }
    took.sort_unstable();
    let (half, most) = (took[took.len() / 2], took[took.len() - 1]);
    format!(
        "Postgres killed {count} times under {} committed transactions; ready after it answers again: median {half:.2?}, at most {most:.2?}",
        world.committed
    )
}

/// One session of the daemon, or several, again and again; on several databases, since most of it is waiting.
async fn terminations(count: u64, seed: u64) -> String {
    let lanes = (0..LANES).map(|lane| async move {
        let (seed, server) = (seed.wrapping_add(lane), TestDatabase::start().await);
        let mut rng = Rng::with_seed(seed);
        let settings = Settings {
            flush_interval: Duration::from_millis(20),
            ..Settings::default()
        };
        let (end, client) = (Clock::System.now(), server.connect().await);
        let mut daemon = Following::start(&server.database(), &Clock::System, settings).await;
        let mut writers = Some(Writers::start_wild(server.connection(), 4, seed, end));
        let (mut done, mut checked_at, mut committed) = (0, 0, 0);
        while done < count.div_ceil(LANES) {
            // Long enough to count as steady, which makes the next pause the shortest.
            tokio::time::sleep(Duration::from_millis(rng.u64(1000..1100))).await;
            let name = *rng.choice(&["uptally %", "uptally %", "uptally doorbell", "uptally ledger", "uptally follower"]).unwrap();
            let sql = "SELECT count(*) FILTER (WHERE ended) FROM (SELECT pg_terminate_backend(pid) AS ended FROM pg_stat_activity
                       WHERE datname = current_database() AND application_name LIKE $1) AS t";
            let ended: i64 = client.query_one(sql, &[&name]).await.unwrap().get(0);
            done += u64::try_from(ended).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            let follows = tokio::time::timeout(Duration::from_secs(25), daemon.handle.following()).await;
            assert!(follows.expect("it follows again within 25 s"), "the daemon gave up");
            if done >= checked_at + 100 || done >= count.div_ceil(LANES) {
                checked_at = done;
                committed += writers.take().unwrap().stop().await.committed;
                within(Duration::from_secs(20), "it follows", async || daemon.handle.status().following.is_ok()).await;
                reports_are_right(&daemon.handle, &client, Clock::System.now(), end.plus(-HOUR_US)).await;
                verify_is_clean(&server.database(), Clock::System.now()).await;
                writers = Some(Writers::start_wild(server.connection(), 4, seed.wrapping_add(done), end));
            }
        }
        committed += writers.take().unwrap().stop().await.committed;
        daemon.stop().await;
        verify_is_clean(&server.database(), Clock::System.now()).await;
        (done, committed)
    });
    let done = join_all(lanes).await;
    let (ended, committed) = done.iter().fold((0, 0), |sum, lane| (sum.0 + lane.0, sum.1 + lane.1));
    format!("{ended} sessions of the daemon ended by the server under {committed} committed transactions")
}

async fn wakeups(count: u64, seed: u64) -> String {
    // One after the other: each takes what processors there are.
    let mut servers = Vec::new();
    for _ in 0..LANES {
        servers.push(TestDatabase::start_alone(&[("max_prepared_transactions", "20")]).await);
    }
    let each = count.div_ceil(LANES);
    let hunts = servers.iter().zip(0..).map(|(server, lane)| {
        hunt(server, seed.wrapping_add(lane), 200, move |rounds| {
            if rounds % 5000 == 0 {
                println!("lane {lane}: {rounds} of {each} rounds");
            }
            rounds < each
        })
    });
    let all = join_all(hunts)
        .await
        .into_iter()
        .fold(Hunt::default(), |sum, hunt| Hunt {
            rounds: sum.rounds + hunt.rounds,
            rows: sum.rows + hunt.rows,
            ended: sum.ended + hunt.ended,
            slowest: sum.slowest.max(hunt.slowest),
        });
    format!(
        "{} wake-up rounds with polling off, {} rows, {} listening sessions ended; 0 lost; slowest {:.0?}",
        all.rounds, all.rows, all.ended, all.slowest
    )
}

/// The primary is killed under writers, its standby promoted; every second time with synchronous replication.
async fn failovers(count: u64, seed: u64) -> String {
    for n in 0..count {
        fail_over(seed.wrapping_add(n), n % 2 == 0).await;
    }
    format!("{count} failovers to a promoted standby, every second one synchronous; 0 missed, doubled or phantom rows")
}
