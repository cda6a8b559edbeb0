//! Negative controls: designs that look right and are not, under the same faults. Each must lose or double something here; if
//! it does not, the harness is too tame to prove anything. (A cursor by sequence number is in `tests/cursor.rs`.)

use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::future::join_all;
use tokio_postgres::Client;
use uptally::db::Session;
use uptally::feed::{Cursor, Reading, Scope};
use uptally::rollup::StoreIndex;

use super::count;
use super::support::fixture::NOW;
use super::support::{TestDatabase, seed};

const INSERT: &str = "INSERT INTO public.store_activity VALUES ($1, $2, 'inactive')";

/// A follower that says in a table that it sleeps, and writers that look there whether to ring.
///
/// It sets the flag, looks once more, and sleeps. A writer whose snapshot is from before the flag and whose commit is from after
/// that look rings nobody and is seen by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doorbell_by_a_flag_in_a_table_loses_wake_ups() {
    const ROUNDS_MAX: u64 = 400;
    let server = TestDatabase::start().await;
    let client = server.connect().await;
    let flag = "CREATE TABLE public.flag (sleeps boolean); INSERT INTO public.flag VALUES (false)";
    client.batch_execute(flag).await.unwrap();
    let follower = server.database().connect("follower").await.unwrap();
    follower.client.batch_execute("LISTEN flag").await.unwrap();
    let mut writers = join_all((0..4).map(|_| server.connect())).await;
    let mut rng = Rng::with_seed(seed());
    let (mut rounds, mut lost, mut written) = (0, 0, 0);
    while lost == 0 && rounds < ROUNDS_MAX {
        rounds += 1;
        follower
            .client
            .batch_execute("UPDATE public.flag SET sleeps = false")
            .await
            .unwrap();
        let writing = join_all(writers.iter_mut().map(|client| {
            written += 1;
            let (store, mut rng) = (format!("{written}"), rng.fork());
            async move { write_with_flag(client, &store, &mut rng).await }
        }));
        let pause = Duration::from_micros(rng.u64(0..4000));
        let sleeping = async {
            tokio::time::sleep(pause).await;
            follower
                .client
                .batch_execute("UPDATE public.flag SET sleeps = true")
                .await
                .unwrap();
            rows(&follower.client).await
        };
        let (_, mut seen) = tokio::join!(writing, sleeping);
        // Asleep: each bell makes it look again. All have committed, so what is to ring has rung.
        while seen < written
            && tokio::time::timeout(Duration::from_millis(20), follower.notified.notified())
                .await
                .is_ok()
        {
            seen = rows(&follower.client).await;
        }
        lost += written - seen;
    }
    println!("{rounds} rounds, {written} rows, {lost} lost");
    assert!(lost > 0, "the control lost nothing, so this harness proves nothing");
}

async fn write_with_flag(client: &mut Client, store: &str, rng: &mut Rng) {
    let transaction = client.transaction().await.unwrap();
    transaction.execute(INSERT, &[&store, &NOW]).await.unwrap();
    let sleeps = transaction
        .query_one("SELECT sleeps FROM public.flag", &[])
        .await
        .unwrap();
    if sleeps.get(0) {
        transaction.batch_execute("NOTIFY flag").await.unwrap();
    }
    tokio::time::sleep(Duration::from_micros(rng.u64(0..4000))).await;
    transaction.commit().await.unwrap();
}

async fn rows(client: &Client) -> usize {
    client
        .query("SELECT FROM public.store_activity", &[])
        .await
        .unwrap()
        .len()
}

/// How a follower that counts rows writes its count and its cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checkpoint {
    /// In one transaction, as the ledger does.
    Together,
    /// First the count, then the cursor.
    CountFirst,
    /// First the cursor, then the count.
    CursorFirst,
}

/// The same follower three times over the same rows, killed between two statements now and then.
#[tokio::test]
async fn a_checkpoint_in_a_transaction_of_its_own_loses_or_doubles_rows() {
    let seed = seed();
    for checkpoint in [Checkpoint::Together, Checkpoint::CountFirst, Checkpoint::CursorFirst] {
        let server = TestDatabase::start().await;
        let (client, mut rng) = (server.connect().await, Rng::with_seed(seed));
        client
            .batch_execute(
                "CREATE TABLE public.total (n bigint, cursor text);
                 INSERT INTO public.total VALUES (0, pg_current_snapshot()::text)",
            )
            .await
            .unwrap();
        let (mut rows, began) = (0, Instant::now());
        for _ in 0..count(30) {
            for _ in 0..rng.i64(1..4) {
                rows += 1;
                client.execute(INSERT, &[&rows.to_string(), &NOW]).await.unwrap();
            }
            let killed_after = rng.bool().then(|| rng.usize(1..4));
            follow(&server, &client, checkpoint, killed_after).await;
        }
        follow(&server, &client, checkpoint, None).await;
        let counted: i64 = client
            .query_one("SELECT n FROM public.total", &[])
            .await
            .unwrap()
            .get(0);
        println!("{checkpoint:?}: {rows} rows, {counted} counted, {:?}", began.elapsed());
        match checkpoint {
            Checkpoint::Together => assert_eq!(counted, rows),
            Checkpoint::CountFirst => assert!(counted > rows, "nothing was doubled"),
            Checkpoint::CursorFirst => assert!(counted < rows, "nothing was lost"),
        }
    }
}

/// A life of the follower: reads what is new, writes, and is killed after so many of its statements.
async fn follow(server: &TestDatabase, client: &Client, checkpoint: Checkpoint, killed_after: Option<usize>) {
    let database = server.database();
    let mut session = database.connect("follower").await.unwrap();
    let old = session
        .client
        .query_one("SELECT cursor FROM public.total", &[])
        .await
        .unwrap();
    let (new, cursor) = delta(&mut session, &old.get::<_, String>(0).parse().unwrap()).await;
    let count = format!("UPDATE public.total SET n = n + {new}");
    let cursor = format!("UPDATE public.total SET cursor = '{cursor}'");
    let statements = match checkpoint {
        Checkpoint::Together => ["BEGIN", &count, &cursor, "COMMIT"],
        Checkpoint::CountFirst => [&count, "SELECT", &cursor, "SELECT"],
        Checkpoint::CursorFirst => [&cursor, "SELECT", &count, "SELECT"],
    };
    for sql in statements.into_iter().take(killed_after.unwrap_or(statements.len())) {
        session.client.batch_execute(sql).await.unwrap();
    }
    // The session ends with its transaction undone; the next one is not to meet it still ending.
    drop(session);
    let gone =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'follower' AND datname = current_database()";
    while client.query_one(gone, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn delta(session: &mut Session, old: &Cursor) -> (usize, Cursor) {
    let reading = Reading::start(session, Scope::Inputs).await.unwrap();
    let delta = reading.delta(old, &StoreIndex::default()).await.unwrap();
    (delta.rows(), reading.finish())
}
