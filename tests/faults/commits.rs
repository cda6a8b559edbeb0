//! Commits out of order, late, undone, in every form and at every level.

use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio_postgres::{Client, IsolationLevel};
use uptally::clock::Clock;
use uptally::daemon::Settings;
use uptally::time::HOUR_US;

use super::support::check::{reports_are_right, verify_is_clean};
use super::support::daemon::{Following, is_asleep};
use super::support::fixture::{NOW, fill};
use super::support::forms::{FORMS, Form};
use super::support::{TestDatabase, seed, within};
use super::{SETTINGS, count, quick};

const INSERT: &str = "INSERT INTO public.store_activity VALUES ($1, $2, 'inactive')";
const PATIENCE: Duration = Duration::from_secs(4);

async fn insert(client: &Client, store: &str) {
    client.execute(INSERT, &[&store, &NOW]).await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_commits_after_later_ones_is_seen_at_once() {
    let server = TestDatabase::start().await;
    let (client, mut slow) = (server.connect().await, server.connect().await);
    let clock = Clock::standing(NOW).0;
    let daemon = Following::start(&server.database(), &clock, quick()).await;
    let transaction = slow.transaction().await.unwrap();
    transaction.execute(INSERT, &[&"first", &NOW]).await.unwrap();
    for n in 0..100 {
        insert(&client, &n.to_string()).await;
    }
    within(PATIENCE, "the later ones are seen", async || {
        daemon.stores_seen() == 100
    })
    .await;
    transaction.commit().await.unwrap();
    within(Duration::from_secs(1), "the first is seen", async || {
        daemon.stores_seen() == 101
    })
    .await;
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.stop().await;
    verify_is_clean(&server.database(), NOW).await;
}

#[tokio::test]
async fn a_writer_that_idles_for_long_costs_no_freshness_and_no_rescans() {
    let server = TestDatabase::start().await;
    let (client, mut idle) = (server.connect().await, server.connect().await);
    let clock = Clock::standing(NOW).0;
    let daemon = Following::start(&server.database(), &clock, quick()).await;
    // It has a number, so every snapshot from now on says that it is running.
    let transaction = idle.transaction().await.unwrap();
    transaction.execute(INSERT, &[&"idle", &NOW]).await.unwrap();
    let mut lags = Vec::new();
    let rows = 50 * usize::try_from(count(20)).unwrap();
    for n in 1..=rows {
        insert(&client, &n.to_string()).await;
        if n % 50 == 0 {
            let committed = Instant::now();
            within(PATIENCE, "all are seen", async || daemon.stores_seen() == n).await;
            lags.push(committed.elapsed());
        }
    }
    lags.sort_unstable();
    let most = lags[lags.len() - 1];
    println!(
        "{rows} rows beside an open transaction; lag median {:?}, at most {most:?}",
        lags[lags.len() / 2]
    );
    assert!(most < Duration::from_secs(1), "lag {most:?}");
    transaction.commit().await.unwrap();
    within(PATIENCE, "the idle one is seen", async || {
        daemon.stores_seen() == rows + 1
    })
    .await;
    daemon.stop().await;
    // Were everything since the idle one read at every look, this would be many times the rows.
    let sql = "SELECT coalesce(idx_tup_fetch, 0) + seq_tup_read FROM pg_catalog.pg_stat_user_tables WHERE relname = 'store_activity'";
    let mut read = 0;
    within(PATIENCE, "the statistics are there", async || {
        read = client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
        read >= i64::try_from(rows).unwrap()
    })
    .await;
    println!("{read} rows were read");
    assert!(read < 3 * i64::try_from(rows).unwrap(), "{read} rows read for {rows}");
}

#[tokio::test]
async fn what_is_undone_is_not_counted() {
    let server = TestDatabase::start().await;
    let client = server.connect().await;
    fill(&client, 3).await;
    let clock = Clock::standing(NOW).0;
    let daemon = Following::start(&server.database(), &clock, quick()).await;
    let before = daemon.stores_seen();
    client
        .batch_execute(
            "BEGIN; INSERT INTO public.store_activity VALUES ('undone 1', '2023-11-08 11:00+00', 'inactive'); ROLLBACK;
             BEGIN; SAVEPOINT s; INSERT INTO public.store_activity VALUES ('undone 2', '2023-11-08 11:00+00', 'inactive');
             DELETE FROM public.store_activity WHERE store_id = 'chicago'; ROLLBACK TO s;
             INSERT INTO public.store_activity VALUES ('done 1', '2023-11-08 11:00+00', 'inactive'); COMMIT;
             DO $$ BEGIN
               BEGIN
                 INSERT INTO public.store_activity VALUES ('undone 3', '2023-11-08 11:00+00', 'inactive');
                 UPDATE public.store_activity SET status = 'inactive';
                 RAISE EXCEPTION 'undone';
               EXCEPTION WHEN OTHERS THEN
                 INSERT INTO public.store_activity VALUES ('done 2', '2023-11-08 11:00+00', 'inactive');
               END;
             END $$",
        )
        .await
        .unwrap();
    within(PATIENCE, "two stores are new", async || {
        daemon.stores_seen() == before + 2
    })
    .await;
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.stop().await;
    verify_is_clean(&server.database(), NOW).await;
}

/// Those that need a server with prepared transactions are in `two_phase`, too.
#[tokio::test]
async fn rows_are_followed_in_whatever_form_they_are_written() {
    let server = TestDatabase::start_alone(&SETTINGS).await;
    let (mut client, other, end) = (server.connect().await, server.connect().await, Clock::System.now());
    let mut rng = Rng::with_seed(seed());
    let daemon = Following::start(&server.database(), &Clock::System, quick()).await;
    // Something to change.
    for _ in 0..40 {
        Form::Copy.write(&mut client, &mut rng, 8, end).await.unwrap();
    }
    for form in FORMS {
        let (mut written, mut refused) = (0, 0);
        for _ in 0..count(8) {
            match form.write(&mut client, &mut rng, 8, end).await {
                Ok(true) => written += 1,
                Ok(false) => refused += 1,
                // Keys that exist, and PREPARE after a NOTIFY.
                Err(error) => {
                    assert!(error.as_db_error().is_some(), "{form:?}: {error:?}");
                    refused += 1;
                }
            }
        }
        println!("{form:?}: {written} written, {refused} refused or rolled back");
        assert!(written > 0 || form == Form::Merge, "{form:?} was never written");
        let as_of = end.plus(-HOUR_US * i64::from(rng.u8(0..30)));
        reports_are_right(&daemon.handle, &other, Clock::System.now(), as_of).await;
    }
    daemon.stop().await;
    verify_is_clean(&server.database(), Clock::System.now()).await;
}

/// The snapshot of the writer is from before the follower fell asleep, and from while it was awake.
#[tokio::test]
async fn a_snapshot_older_than_the_sleep_wakes_all_the_same() {
    let server = TestDatabase::start().await;
    let (mut client, other) = (server.connect().await, server.connect().await);
    let settings = Settings {
        poll_interval: Duration::from_hours(1),
        ..quick()
    };
    let daemon = Following::start(&server.database(), &Clock::standing(NOW).0, settings).await;
    let mut stores = 0;
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        for writes_first in [false, true] {
            insert(&other, &format!("{level:?} {writes_first} awake")).await;
            let transaction = client.build_transaction().isolation_level(level).start().await.unwrap();
            transaction
                .query("SELECT FROM public.store_activity", &[])
                .await
                .unwrap();
            let store = format!("{level:?} {writes_first}");
            if writes_first {
                transaction.execute(INSERT, &[&store, &NOW]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(400)).await;
            } else {
                within(PATIENCE, "the follower sleeps", async || is_asleep(&other).await).await;
                transaction.execute(INSERT, &[&store, &NOW]).await.unwrap();
            }
            transaction.commit().await.unwrap();
            let committed = Instant::now();
            stores += 2;
            within(PATIENCE, "the row is seen", async || daemon.stores_seen() == stores).await;
            println!(
                "{level:?}, wrote before the sleep: {writes_first}: seen after {:?}",
                committed.elapsed()
            );
        }
    }
    daemon.stop().await;
}

/// A report has all of a table or nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_is_seen_whole_or_not_at_all() {
    const STORES: usize = 300;
    let server = TestDatabase::start().await;
    let client = server.connect().await;
    let mut rng = Rng::with_seed(seed());
    let daemon = Following::start(&server.database(), &Clock::standing(NOW).0, quick()).await;
    let watched = daemon.handle.clone();
    let watching = tokio::spawn(async move {
        let mut seen = [0, 0, 0];
        loop {
            let stores = watched.point().await.unwrap().snapshot.len();
            match stores {
                0 => seen[0] += 1,
                1 => {
                    seen[1] += 1;
                    return seen;
                }
                STORES => seen[2] += 1,
                some => panic!("{some} of {STORES} stores"),
            }
        }
    });
    let fill = format!(
        "INSERT INTO public.store_activity SELECT 'store ' || n, '2023-11-08 11:00+00', 'inactive' FROM generate_series(1, {STORES}) n"
    );
    for _ in 0..count(40) {
        client.batch_execute(&fill).await.unwrap();
        tokio::time::sleep(Duration::from_millis(rng.u64(0..15))).await;
        let again = if rng.bool() { fill.as_str() } else { "" };
        let sql = format!("BEGIN; TRUNCATE public.store_activity; {again}; COMMIT; TRUNCATE public.store_activity");
        client.batch_execute(&sql).await.unwrap();
        tokio::time::sleep(Duration::from_millis(rng.u64(0..15))).await;
    }
    insert(&client, "end").await;
    let seen = watching.await.unwrap();
    println!(
        "points with nothing {}, with the end {}, with all {}",
        seen[0], seen[1], seen[2]
    );
    assert!(seen[0] > 0 && seen[2] > 0, "both were to be seen");
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.stop().await;
    verify_is_clean(&server.database(), NOW).await;
}
