//! The hunt for lost wake-ups: writers in every way that a doorbell could fall for, against a follower that falls asleep all
//! the time and polls once an hour, so that a lost bell shows as a round that waits in vain.

use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::future::join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, IsolationLevel};
use uptally::clock::Clock;
use uptally::daemon::Settings;

use super::daemon::Following;
use super::fixture::NOW;
use super::{TestDatabase, within};

const INSERT: &str = "INSERT INTO public.store_activity VALUES ($1, $2, 'inactive')";
/// A row is seen within this time or its wake-up was lost. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(10);
const WRITERS: usize = 6;

/// What a hunt did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Hunt {
    pub rounds: u64,
    pub rows: usize,
    /// Times that the listening session was ended by the server.
    pub ended: u64,
    /// From the last COMMIT of a round until all of it was seen, at most.
    pub slowest: Duration,
}

/// Settings under which a wake-up has every chance to get lost.
pub fn settings() -> Settings {
    Settings {
        poll_interval: Duration::from_hours(1),
        awake_for: Duration::from_millis(2),
        flush_interval: Duration::from_secs(1),
        ..Settings::default()
    }
}

/// Hunts while `goes_on` says so; it is told the rounds so far. Every `end_every` rounds the listening session is ended.
pub async fn hunt(server: &TestDatabase, seed: u64, end_every: u64, goes_on: impl Fn(u64) -> bool) -> Hunt {
    let mut rng = Rng::with_seed(seed);
    let daemon = Following::start(&server.database(), &Clock::standing(NOW).0, settings()).await;
    let mut clients = join_all((0..WRITERS).map(|_| server.connect())).await;
    let killer = server.connect().await;
    let mut hunt = Hunt::default();
    while goes_on(hunt.rounds) {
        let writers = rng.usize(1..=WRITERS);
        let ends = end_every > 0 && rng.u64(0..end_every) == 0;
        let ends_after = Duration::from_micros(rng.u64(0..4000));
        let kill = async {
            if ends {
                tokio::time::sleep(ends_after).await;
                end_doorbell(&killer).await;
            }
        };
        let written = join_all(clients.iter_mut().take(writers).map(|client| {
            hunt.rows += 1;
            let (store, mut rng) = (hunt.rows.to_string(), rng.fork());
            async move { write(client, &store, &mut rng).await }
        }));
        tokio::join!(written, kill);
        hunt.rounds += 1;
        hunt.ended += u64::from(ends);
        let committed = Instant::now();
        let what = format!("round {}: {} stores are seen", hunt.rounds, hunt.rows);
        within(PATIENCE, &what, async || daemon.stores_seen() == hunt.rows).await;
        if !ends {
            hunt.slowest = hunt.slowest.max(committed.elapsed());
        }
        tokio::time::sleep(Duration::from_micros(rng.u64(0..6000))).await;
    }
    daemon.stop().await;
    hunt
}

async fn end_doorbell(client: &Client) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE application_name = 'uptally doorbell' AND datname = current_database()";
    client.query(sql, &[]).await.unwrap();
}

/// One row of a new store.
async fn write(client: &mut Client, store: &str, rng: &mut Rng) {
    while let Err(error) = try_write(client, store, rng).await {
        let expected = [
            SqlState::T_R_SERIALIZATION_FAILURE,
            // PREPARE TRANSACTION where there is none, and after a NOTIFY.
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            SqlState::FEATURE_NOT_SUPPORTED,
        ];
        let code = error.code().cloned();
        assert!(code.is_some_and(|code| expected.contains(&code)), "{error:?}");
    }
}

/// In one of the ways that a doorbell could fall for.
async fn try_write(client: &mut Client, store: &str, rng: &mut Rng) -> Result<(), Error> {
    let level = match rng.u8(0..3) {
        0 => IsolationLevel::ReadCommitted,
        1 => IsolationLevel::RepeatableRead,
        _ => IsolationLevel::Serializable,
    };
    let mut transaction = client.build_transaction().isolation_level(level).start().await?;
    if rng.bool() {
        // With a snapshot from before whatever the follower does meanwhile.
        transaction
            .simple_query("SELECT 1 FROM public.store_activity LIMIT 1")
            .await?;
        tokio::time::sleep(Duration::from_micros(rng.u64(0..3000))).await;
    }
    if rng.u8(0..4) == 0 {
        let savepoint = transaction.savepoint("undone").await?;
        savepoint.execute(INSERT, &[&"undone", &NOW]).await?;
        savepoint.rollback().await?;
    }
    transaction.execute(INSERT, &[&store, &NOW]).await?;
    if rng.bool() {
        tokio::time::sleep(Duration::from_micros(rng.u64(0..5000))).await;
    }
    if rng.u8(0..8) > 0 {
        return transaction.commit().await;
    }
    transaction
        .batch_execute(&format!("PREPARE TRANSACTION '{store}'"))
        .await?;
    drop(transaction);
    client.batch_execute(&format!("COMMIT PREPARED '{store}'")).await
}
