//! Writers in this process: COPY, which pgbench cannot, and INSERT of a hundred rows, counted while they write.
//!
//! Keys never meet: every writer has instants of its own, rising, dated a second ago so that none lies in the future.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fastrand::Rng;
use futures_util::SinkExt;
use tokio_postgres::{Client, Statement};
use uptally::clock::Clock;
use uptally::db::{Database, Session};
use uptally::time::{SECOND_US, Timestamp};

use crate::side::{Side, Stop};
use crate::system::FIRST_STORE;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// INSERT of 100 rows from arrays.
    Insert,
    /// COPY of 1,000 rows.
    Copy,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::Insert => "INSERT, 100 rows",
            Way::Copy => "COPY, 1000 rows",
        }
    }

    fn rows(self) -> usize {
        match self {
            Way::Insert => 100,
            Way::Copy => 1_000,
        }
    }
}

const INSERT: &str = "INSERT INTO public.store_activity (store_id, timestamp_utc, status)
    SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[])";
const COPY: &str = "COPY public.store_activity (store_id, timestamp_utc, status) FROM STDIN";

/// Writers at work. Dropped, they end.
pub struct Writers {
    committed: Arc<AtomicU64>,
    side: Side<()>,
}

impl Writers {
    /// `count` writers as fast as they can, for random stores.
    pub fn start(database: Database, way: Way, count: u32, stores: u32) -> anyhow::Result<Self> {
        let committed = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&committed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let side = Side::start(runtime, async move |stop| {
            let writers = (0..count).map(async |number| {
                let session = database.connect("uptally bench writer").await?;
                let writer = Writer {
                    insert: session.client.prepare(INSERT).await?,
                    session,
                    rows: Rows {
                        number,
                        count,
                        stores,
                        last_us: 0,
                        rng: Rng::with_seed(number.into()),
                    },
                };
                writer.run(way, &counted, stop.clone()).await
            });
            futures_util::future::try_join_all(writers).await?;
            Ok(())
        });
        Ok(Writers { committed, side })
    }

    /// Rows that were committed so far.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Ends them, each after its transaction; rows that were committed.
    pub fn finish(self) -> anyhow::Result<u64> {
        self.side.finish()?;
        Ok(self.committed.load(Ordering::Relaxed))
    }
}

struct Writer {
    session: Session,
    insert: Statement,
    rows: Rows,
}

impl Writer {
    async fn run(mut self, way: Way, committed: &AtomicU64, stop: Stop) -> anyhow::Result<()> {
        let client = &self.session.client;
        while !*stop.borrow() {
            match way {
                Way::Insert => self.rows.insert(client, &self.insert).await?,
                Way::Copy => self.rows.copy(client).await?,
            }
            committed.fetch_add(way.rows() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The rows of one writer.
struct Rows {
    number: u32,
    count: u32,
    stores: u32,
    last_us: i64,
    rng: Rng,
}

impl Rows {
    async fn insert(&mut self, client: &Client, insert: &Statement) -> anyhow::Result<()> {
        let (mut ids, mut instants, mut statuses) = (Vec::new(), Vec::new(), Vec::new());
        for (id, at, status) in self.take(Way::Insert.rows()) {
            ids.push(id.to_string());
            instants.push(at);
            statuses.push(status);
        }
        client.execute(insert, &[&ids, &instants, &statuses]).await?;
        Ok(())
    }

    async fn copy(&mut self, client: &Client) -> anyhow::Result<()> {
        use std::fmt::Write;
        let mut text = String::new();
        for (id, at, status) in self.take(Way::Copy.rows()) {
            writeln!(text, "{id}\t{at}\t{status}")?;
        }
        let mut sink = std::pin::pin!(client.copy_in(COPY).await?);
        sink.send(Bytes::from(text)).await?;
        sink.finish().await?;
        Ok(())
    }

    /// The next rows: store, instant, status; one in ten is inactive.
    fn take(&mut self, rows: usize) -> impl Iterator<Item = (u64, Timestamp, &'static str)> {
        let (count, number) = (i64::from(self.count), i64::from(self.number));
        let now_us = Clock::System.now().micros() - SECOND_US;
        let first_us = (now_us - now_us.rem_euclid(count) + number).max(self.last_us + count);
        (0..rows).map(move |_| {
            self.last_us = if self.last_us < first_us {
                first_us
            } else {
                self.last_us + count
            };
            let id = FIRST_STORE + self.rng.u64(0..u64::from(self.stores));
            let status = if self.rng.u8(0..10) == 0 { "inactive" } else { "active" };
            (id, Timestamp::from_micros(self.last_us), status)
        })
    }
}
