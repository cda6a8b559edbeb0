//! Many writers at once, doing what writers do: single rows, batches, corrections, deletions, moves, other hours, rollbacks,
//! savepoints, and now and then a transaction that stays open for long; on request also in the rarer forms.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, IsolationLevel, NoTls, Transaction};
use uptally::time::{DAY_US, HOUR_US, Timestamp};

use super::forms::{self, Form};

/// Stores that are written to.
const STORES: u32 = 30;
/// A writer corrects and deletes these many of its last rows.
const OWN_ROWS_MAX: usize = 200;
const ZONES: [&str; 4] = [
    "Asia/Kathmandu",
    "America/Chicago",
    "Australia/Lord_Howe",
    "Pacific/Apia",
];
const UPSERT: &str = "INSERT INTO public.store_activity (store_id, timestamp_utc, status) VALUES ($1, $2, $3)
    ON CONFLICT (store_id, timestamp_utc) DO UPDATE SET status = excluded.status";

/// Writers at work until stopped.
pub struct Writers {
    /// Where transactions are prepared.
    wild: Option<(Config, Rng)>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Tally>>,
}

/// Transactions that were committed, rolled back on purpose, and ended by the server.
#[derive(Debug, Default)]
pub struct Tally {
    pub committed: u64,
    pub rolled_back: u64,
    pub failed: u64,
}

impl Writers {
    /// Starts `count` writers of rows from the 20 days before `end`. They outlive crashes of the server.
    pub fn start(connection: &Config, count: u64, seed: u64, end: Timestamp) -> Self {
        Self::launch(connection, count, seed, end, false)
    }

    /// The same, and a third of the transactions are of one of the [`Form`]s. The role must be a superuser.
    pub fn start_wild(connection: &Config, count: u64, seed: u64, end: Timestamp) -> Self {
        Self::launch(connection, count, seed, end, true)
    }

    fn launch(connection: &Config, count: u64, seed: u64, end: Timestamp, wild: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..count).map(|n| {
            let writer = Writer {
                rng: Rng::with_seed(seed.wrapping_add(n)),
                own: Vec::new(),
                end,
                wild,
            };
            tokio::spawn(writer.run(connection.clone(), Arc::clone(&stop)))
        });
        Writers {
            tasks: tasks.collect(),
            wild: wild.then(|| (connection.clone(), Rng::with_seed(seed))),
            stop,
        }
    }

    /// Stops all, when each has ended its transaction. What a crash left prepared is decided about.
    pub async fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for task in self.tasks {
            let tally = task.await.unwrap();
            all.committed += tally.committed;
            all.rolled_back += tally.rolled_back;
            all.failed += tally.failed;
        }
        if let Some((connection, mut rng)) = self.wild {
            let client = super::connect(&connection).await;
            forms::end_prepared(&client, &mut rng).await;
        }
        println!("{all:?}");
        all
    }
}

struct Writer {
    rng: Rng,
    own: Vec<(String, Timestamp)>,
    end: Timestamp,
    wild: bool,
}

impl Writer {
    async fn run(mut self, connection: Config, stop: Arc<AtomicBool>) -> Tally {
        let mut tally = Tally::default();
        while !stop.load(Ordering::Relaxed) {
            let Ok((mut client, session)) = connection.connect(NoTls).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            tokio::spawn(session);
            while !client.is_closed() && !stop.load(Ordering::Relaxed) {
                let wild = self.wild && self.rng.u8(0..3) == 0;
                let written = if wild {
                    let form = Form::random(&mut self.rng);
                    form.write(&mut client, &mut self.rng, STORES, self.end).await
                } else {
                    self.transaction(&mut client).await
                };
                match written {
                    Ok(true) => tally.committed += 1,
                    Ok(false) => tally.rolled_back += 1,
                    Err(_) => tally.failed += 1,
                }
                // The daemon is to be killed at its work, not while it waits for a processor.
                tokio::time::sleep(Duration::from_millis(self.rng.u64(0..20))).await;
            }
        }
        tally
    }

    /// False: rolled back.
    async fn transaction(&mut self, client: &mut Client) -> Result<bool, Error> {
        let level = match self.rng.u8(0..10) {
            0 => IsolationLevel::Serializable,
            1 | 2 => IsolationLevel::RepeatableRead,
            _ => IsolationLevel::ReadCommitted,
        };
        let mut transaction = client.build_transaction().isolation_level(level).start().await?;
        for _ in 0..self.rng.u8(1..4) {
            if self.rng.u8(0..10) == 0 {
                let savepoint = transaction.savepoint("sometimes").await?;
                self.statement(&savepoint).await?;
                if self.rng.bool() {
                    savepoint.rollback().await?;
                } else {
                    savepoint.commit().await?;
                }
            } else {
                self.statement(&transaction).await?;
            }
        }
        let open_ms = match self.rng.u8(0..100) {
            0 => self.rng.u64(0..2000),
            1..=30 => self.rng.u64(0..20),
            _ => 0,
        };
        tokio::time::sleep(Duration::from_millis(open_ms)).await;
        let commits = self.rng.u8(0..8) > 0;
        if commits {
            transaction.commit().await?;
        } else {
            transaction.rollback().await?;
        }
        Ok(commits)
    }

    async fn statement(&mut self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let store = format!("store {}", self.rng.u32(0..STORES));
        let status = *self.rng.choice(&["active", "inactive"]).unwrap();
        match self.rng.u8(0..100) {
            0..40 => {
                let at = self.instant();
                transaction.execute(UPSERT, &[&store, &at, &status]).await?;
                self.own.push((store, at));
                let excess = self.own.len().saturating_sub(OWN_ROWS_MAX);
                self.own.drain(..excess);
            }
            40..60 => {
                let batch = "INSERT INTO public.store_activity (store_id, timestamp_utc, status)
                    SELECT $1, at, $3 FROM unnest($2::timestamptz[]) at ON CONFLICT DO NOTHING";
                let instants: Vec<Timestamp> = (0..20).map(|_| self.instant()).collect();
                transaction.execute(batch, &[&store, &instants, &status]).await?;
            }
            60..75 => {
                let Some((store, at)) = self.rng.choice(&self.own) else {
                    return Ok(());
                };
                transaction.execute(UPSERT, &[store, at, &status]).await?;
            }
            75..83 => {
                let Some((store, at)) = self.rng.choice(&self.own) else {
                    return Ok(());
                };
                let delete = "DELETE FROM public.store_activity WHERE store_id = $1 AND timestamp_utc = $2";
                transaction.execute(delete, &[store, at]).await?;
            }
            83..91 => {
                let to = self.instant();
                let Some((from, at)) = self.rng.choice(&self.own) else {
                    return Ok(());
                };
                let update = "UPDATE public.store_activity SET store_id = $3, timestamp_utc = $4
                    WHERE store_id = $1 AND timestamp_utc = $2";
                transaction.execute(update, &[from, at, &store, &to]).await?;
            }
            91..94 => {
                let delete =
                    "DELETE FROM public.store_activity WHERE store_id = $1 AND timestamp_utc BETWEEN $2 AND $3";
                let from = self.instant();
                transaction
                    .execute(delete, &[&store, &from, &from.plus(HOUR_US)])
                    .await?;
            }
            94..95 => {
                let day = self.instant().to_chrono().date_naive();
                let closure = format!(
                    "INSERT INTO public.store_closures VALUES ($1, '{day}', '{day} {}:30') ON CONFLICT DO NOTHING",
                    self.rng.u8(1..23)
                );
                if transaction.execute(&closure, &[&store]).await? == 0 {
                    let delete = "DELETE FROM public.store_closures WHERE store_id = $1";
                    transaction.execute(delete, &[&store]).await?;
                }
            }
            95..97 => {
                let zone = "INSERT INTO public.store_timezones VALUES ($1, $2)
                    ON CONFLICT (store_id) DO UPDATE SET timezone_str = excluded.timezone_str";
                transaction
                    .execute(zone, &[&store, self.rng.choice(&ZONES).unwrap()])
                    .await?;
            }
            _ => {
                let day = self.rng.i16(0..7);
                let hours =
                    "INSERT INTO public.store_business_hours VALUES ($1, $2, '08:00', '23:59') ON CONFLICT DO NOTHING";
                if transaction.execute(hours, &[&store, &day]).await? == 0 {
                    let delete = "DELETE FROM public.store_business_hours WHERE store_id = $1 AND day = $2";
                    transaction.execute(delete, &[&store, &day]).await?;
                }
            }
        }
        Ok(())
    }

    /// Half of them lately.
    fn instant(&mut self) -> Timestamp {
        let reach_us = if self.rng.bool() { 3 * HOUR_US } else { 20 * DAY_US };
        self.end.plus(-self.rng.i64(0..reach_us))
    }
}
