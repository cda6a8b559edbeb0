//! Why the cursor is a snapshot: the same concurrent writers under two readers. One goes by `id > last`, as is often done,
//! and must lose rows: if it does not, the writers are too tame to prove anything. The snapshot delta loses and doubles none.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use support::TestDatabase;
use support::fixture::NOW;
use tokio_postgres::Client;
use uptally::db::Session;
use uptally::feed::{Cursor, Reading, Scope};
use uptally::rollup::StoreIndex;

const WRITERS: i64 = 16;
const WRITE_FOR: Duration = Duration::from_millis(2500);

/// A row in both tables: the second has the sequence number that the first does without.
const WRITE: &str = "WITH numbered AS (INSERT INTO public.numbered (store_id) VALUES ($1) RETURNING store_id)
    INSERT INTO public.store_activity SELECT store_id, $2, 'active' FROM numbered";

/// Writes rows of stores of its own until told to stop; returns those that were committed.
async fn writer(mut client: Client, n: i64, seed: u64, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut rng = Rng::with_seed(seed.wrapping_add(u64::try_from(n).unwrap()));
    let mut committed = Vec::new();
    let mut row = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut transaction = client.transaction().await.unwrap();
        let mut written = Vec::new();
        for _ in 0..rng.u8(1..4) {
            row += 1;
            let store = format!("{n} {row}");
            let savepoint = transaction.savepoint("row").await.unwrap();
            savepoint.execute(WRITE, &[&store, &NOW]).await.unwrap();
            if rng.u8(0..8) == 0 {
                savepoint.rollback().await.unwrap();
            } else {
                savepoint.commit().await.unwrap();
                written.push(store);
            }
            tokio::time::sleep(Duration::from_millis(rng.u64(0..4))).await;
        }
        if rng.u8(0..50) == 0 {
            tokio::time::sleep(Duration::from_millis(rng.u64(0..1000))).await;
        }
        if rng.u8(0..8) == 0 {
            transaction.rollback().await.unwrap();
        } else {
            transaction.commit().await.unwrap();
            committed.extend(written);
        }
    }
    committed
}

/// Goes by the sequence number.
#[derive(Default)]
struct ByNumber {
    last: i64,
    seen: usize,
}

impl ByNumber {
    async fn read(&mut self, client: &Client) {
        let sql = "SELECT id FROM public.numbered WHERE id > $1 ORDER BY id";
        let rows = client.query(sql, &[&self.last]).await.unwrap();
        self.seen += rows.len();
        self.last = rows.last().map_or(self.last, |row| row.get(0));
    }
}

/// Goes by the snapshot.
struct BySnapshot {
    cursor: Cursor,
    seen: BTreeSet<String>,
}

impl BySnapshot {
    async fn read(&mut self, session: &mut Session) {
        let reading = Reading::start(session, Scope::Inputs).await.unwrap();
        let delta = reading.delta(&self.cursor, &StoreIndex::default()).await.unwrap();
        // The same by the definition, row by row.
        let sql = "SELECT store_id, change_xid::text FROM public.store_activity";
        let rows = reading.transaction().query(sql, &[]).await.unwrap();
        let is_new = |xid: &str| self.cursor.is_new(xid.parse().unwrap());
        let new: Vec<String> = rows
            .iter()
            .filter(|row| is_new(row.get(1)))
            .map(|row| row.get(0))
            .collect();
        assert_eq!(
            delta.rows(),
            new.len(),
            "the statement of the delta says what its definition says"
        );
        for store in new {
            assert!(self.seen.insert(store), "a row came twice");
        }
        self.cursor = reading.finish();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_by_number_loses_rows_and_the_snapshot_delta_does_not() {
    let server = TestDatabase::start().await;
    let client = server.connect().await;
    let side_table = "CREATE TABLE public.numbered (id bigserial PRIMARY KEY, store_id text)";
    client.batch_execute(side_table).await.unwrap();
    let mut session = server.database().connect("reader").await.unwrap();
    let start = uptally::feed::current(&session.client).await.unwrap();
    let mut by_number = ByNumber::default();
    let mut by_snapshot = BySnapshot {
        cursor: start,
        seen: BTreeSet::new(),
    };

    let (seed, stop) = (support::seed(), Arc::new(AtomicBool::new(false)));
    let mut writers = Vec::new();
    for n in 0..WRITERS {
        writers.push(tokio::spawn(writer(server.connect().await, n, seed, Arc::clone(&stop))));
    }
    let mut reads = 0;
    let began = std::time::Instant::now();
    while began.elapsed() < WRITE_FOR {
        by_number.read(&client).await;
        by_snapshot.read(&mut session).await;
        reads += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let committed: BTreeSet<String> = join_all(writers).await.into_iter().flat_map(Result::unwrap).collect();
    by_number.read(&client).await;
    by_snapshot.read(&mut session).await;

    let lost = committed.len() - by_number.seen;
    println!("{} rows in {reads} reads; by number {lost} were lost", committed.len());
    assert!(lost > 0, "the control lost nothing, so this harness proves nothing");
    assert!(
        committed == by_snapshot.seen,
        "the snapshot delta lost or invented rows"
    );
}
