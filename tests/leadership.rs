//! One active daemon: the others stand by and take over, whatever became of the first and of its sessions.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::check::{reports_are_right, verify_is_clean};
use support::daemon::{Following, is_asleep, is_flushed_to};
use support::fixture::{NOW, fill};
use support::proxy::{Proxy, Weather};
use support::serve::Serve;
use support::{TestDatabase, database, state_dir, within};
use tokio_postgres::Client;
use uptally::clock::Clock;
use uptally::daemon::{Settings, Standby};
use uptally::report::Source;

const PATIENCE: Duration = Duration::from_secs(8);
/// After a flush that took long the next one waits.
const FLUSHED: Duration = Duration::from_secs(30);
const LEADER_KEY: &str = "8461811447271043955";
const DOORBELL_KEY: &str = "8461811447271043954";
const ROW: &str = "INSERT INTO public.store_activity VALUES ('howe', '2023-11-08 12:00+00', 'inactive')
    ON CONFLICT (store_id, timestamp_utc) DO UPDATE SET status = excluded.status";

fn quick() -> Settings {
    Settings {
        flush_interval: Duration::from_millis(20),
        ..Settings::default()
    }
}

fn reason(daemon: &Following) -> String {
    daemon.handle.readiness().err().unwrap_or_default()
}

async fn pid_of(client: &Client, name: &str) -> i32 {
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()";
    client.query_one(sql, &[&name]).await.unwrap().get(0)
}

async fn epoch(client: &Client) -> i64 {
    client
        .query_one("SELECT epoch FROM uptally.checkpoint", &[])
        .await
        .unwrap()
        .get(0)
}

#[tokio::test]
async fn a_second_daemon_stands_by_and_takes_over() {
    let server = TestDatabase::start().await;
    let (database, client, clock) = (server.database(), server.connect().await, Clock::standing(NOW).0);
    fill(&client, 3).await;
    let first = Following::start(&database, &clock, quick()).await;
    let led = epoch(&client).await;
    let second = Following::launch(&database, &clock, quick());
    within(PATIENCE, "the second stands by", async || {
        reason(&second).starts_with("standby: another daemon is active on this database (uptally doorbell, pid ")
    })
    .await;
    assert!(second.handle.coverage().is_none(), "it would take reports");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(epoch(&client).await, led, "a daemon that stands by writes nothing");
    first.kill().await;
    let gone = Instant::now();
    within(PATIENCE, "the second follows", async || {
        second.handle.readiness().is_ok()
    })
    .await;
    println!("taken over after {:?}", gone.elapsed());
    assert!(gone.elapsed() < Duration::from_secs(3));
    client.batch_execute(ROW).await.unwrap();
    reports_are_right(&second.handle, &client, NOW, NOW).await;
    second.stop().await;
    verify_is_clean(&database, NOW).await;
}

/// The first loses its listening session and is not told; the second takes over; the first goes on and finds out at its
/// next flush.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_brain_ends_at_the_next_flush() {
    let server = TestDatabase::start().await;
    let (direct, client, clock) = (server.database(), server.connect().await, Clock::standing(NOW).0);
    fill(&client, 3).await;
    let proxy = Proxy::start(server.connection()).await;
    let first = Following::start(&database(&proxy.connection()), &clock, quick()).await;
    let second = Following::launch(&direct, &clock, quick());
    within(PATIENCE, "the second stands by", async || {
        reason(&second).contains("standby")
    })
    .await;
    let listening: i32 = client
        .query_one(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = ($1::text::bigint & 4294967295)::oid
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            &[&LEADER_KEY],
        )
        .await
        .unwrap()
        .get(0);
    proxy.set_for("uptally doorbell", Weather::BlackHole);
    client
        .execute("SELECT pg_terminate_backend($1)", &[&listening])
        .await
        .unwrap();
    within(PATIENCE, "the second follows", async || {
        second.handle.readiness().is_ok()
    })
    .await;
    // Both see it; only one may write it. The first is fenced, or has found its session dead before.
    client.batch_execute(ROW).await.unwrap();
    proxy.set(Weather::Clear);
    within(Duration::from_secs(12), "the first stands by", async || {
        reason(&first).contains("standby") || reason(&first).contains("taken over")
    })
    .await;
    assert!(first.handle.status().following.is_err() && second.handle.status().following.is_ok());
    reports_are_right(&second.handle, &client, NOW, NOW).await;
    second.stop().await;
    within(PATIENCE, "the first follows again", async || {
        first.handle.readiness().is_ok()
    })
    .await;
    reports_are_right(&first.handle, &client, NOW, NOW).await;
    first.stop().await;
    verify_is_clean(&direct, NOW).await;
}

/// Bytes vanish both ways and nobody is told: the heartbeat notices, and the session that the server still takes for alive is
/// ended, or its keys would keep the lead for as long as the server waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_noticed_within_two_heartbeats() {
    let server = TestDatabase::start().await;
    let (client, clock) = (server.connect().await, Clock::standing(NOW).0);
    fill(&client, 3).await;
    let proxy = Proxy::start(server.connection()).await;
    let settings = Settings {
        heartbeat: Duration::from_secs(1),
        ..quick()
    };
    let mut daemon = Following::start(&database(&proxy.connection()), &clock, settings).await;
    within(PATIENCE, "it sleeps", async || is_asleep(&client).await).await;
    proxy.set_for("uptally doorbell", Weather::BlackHole);
    let began = Instant::now();
    client.batch_execute(ROW).await.unwrap();
    within(Duration::from_secs(3), "it is noticed", async || {
        daemon.handle.status().following.is_err()
    })
    .await;
    println!("noticed after {:?}: {}", began.elapsed(), reason(&daemon));
    proxy.set(Weather::Clear);
    assert!(daemon.handle.following().await);
    println!("followed again after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5), "the server waits for six");
    reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    daemon.stop().await;
}

/// Processes of the server that are frozen while they have nothing to do: the one that serves the reads is replaced. The
/// one that listens holds the lead, which nobody can take from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_process_is_replaced_and_reports_are_answered_meanwhile() {
    let server = TestDatabase::start().await;
    let (database, client, clock) = (server.database(), server.connect().await, Clock::standing(NOW).0);
    fill(&client, 3).await;
    let settings = Settings {
        heartbeat: Duration::from_secs(1),
        answer_deadline: Duration::from_secs(2),
        ..quick()
    };
    let daemon = Following::start(&database, &clock, settings).await;
    for name in ["uptally follower", "uptally doorbell"] {
        // A process that is frozen in the middle of something may hold what all others need; an idle one holds nothing.
        within(PATIENCE, "it sleeps", async || is_asleep(&client).await).await;
        let frozen = freeze(pid_of(&client, name).await);
        let began = Instant::now();
        let point = tokio::time::timeout(Duration::from_secs(1), daemon.handle.point()).await;
        assert!(point.expect("it answers within a second").is_some());
        within(Duration::from_secs(4), "it is noticed", async || {
            daemon.handle.status().following.is_err()
        })
        .await;
        println!("{name}: noticed after {:?}: {}", began.elapsed(), reason(&daemon));
        if name == "uptally doorbell" {
            within(PATIENCE, "it says who has the lead", async || {
                let holder = format!("(uptally doorbell, pid {})", frozen.as_raw_nonzero());
                reason(&daemon).contains("standby") && reason(&daemon).contains(&holder)
            })
            .await;
            kill_process(frozen, Signal::CONT).unwrap();
        }
        within(PATIENCE, "it follows by another session", async || {
            daemon.handle.readiness().is_ok()
        })
        .await;
        // It was told to end and does so now.
        let _ = kill_process(frozen, Signal::CONT);
        client.batch_execute(ROW).await.unwrap();
        reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    }
    daemon.stop().await;
    verify_is_clean(&database, NOW).await;
}

/// The session of the ledger, in the middle of a flush: its process is frozen, then its line swallows everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_is_not_answered_is_given_up() {
    let server = TestDatabase::start().await;
    let (client, clock) = (server.connect().await, Clock::standing(NOW).0);
    fill(&client, 3).await;
    let proxy = Proxy::start(server.connection()).await;
    let settings = Settings {
        answer_deadline: Duration::from_secs(2),
        ..quick()
    };
    let mut daemon = Following::start(&database(&proxy.connection()), &clock, settings).await;
    let mut written = 0..;
    let mut write = async |client: &Client| -> String {
        let sql = "INSERT INTO public.store_activity VALUES ('howe', '2023-11-08 10:00+00'::timestamptz + $1 * interval '1 us',
                     'inactive') RETURNING change_xid::text";
        let n = f64::from(written.next().unwrap());
        client.query_one(sql, &[&n]).await.unwrap().get(0)
    };
    let mut xid = write(&client).await;
    for freezes in [true, false] {
        within(FLUSHED, "what there was is flushed", async || {
            is_flushed_to(&client, &xid).await
        })
        .await;
        // Between its statements is time to hit it.
        proxy.set_for("uptally ledger", Weather::Slow(Duration::from_millis(200)));
        xid = write(&client).await;
        within(FLUSHED, "a flush has begun", async || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'uptally ledger'
                       AND datname = current_database() AND state = 'idle in transaction'";
            client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
        })
        .await;
        let pid = pid_of(&client, "uptally ledger").await;
        if freezes {
            freeze(pid);
        } else {
            proxy.set_for("uptally ledger", Weather::BlackHole);
        }
        let began = Instant::now();
        client
            .batch_execute("UPDATE public.store_activity SET status = 'active' WHERE store_id = 'chicago'")
            .await
            .unwrap();
        reports_are_right(&daemon.handle, &client, NOW, NOW).await;
        within(Duration::from_secs(6), "it is given up", async || {
            daemon.handle.status().following.is_err()
        })
        .await;
        println!("given up after {:?}: {}", began.elapsed(), reason(&daemon));
        proxy.set(Weather::Clear);
        assert!(daemon.handle.following().await);
        println!("followed again after {:?}", began.elapsed());
        assert!(began.elapsed() < PATIENCE, "the server waits for 30 s");
        if freezes {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::CONT).unwrap();
        }
        within(PATIENCE, "the old session is gone", async || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
            client.query_one(sql, &[&pid]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
        reports_are_right(&daemon.handle, &client, NOW, NOW).await;
    }
    daemon.stop().await;
    verify_is_clean(&server.database(), NOW).await;
}

fn freeze(pid: i32) -> Pid {
    let pid = Pid::from_raw(pid).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    pid
}

/// Keys of ours in the hands of a stranger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_with_our_keys_costs_speed_at_most() {
    let server = TestDatabase::start().await;
    let (database, client, clock) = (server.database(), server.connect().await, Clock::standing(NOW).0);
    fill(&client, 3).await;
    let stranger = server.connect().await;
    let mut daemon = Following::start(&database, &clock, quick()).await;
    for lock in ["pg_advisory_lock_shared", "pg_advisory_lock"] {
        within(PATIENCE, "the stranger has the key", async || {
            let sql = format!("SELECT pg_try_{}({DOORBELL_KEY})", &lock[3..]);
            stranger.query_one(&sql, &[]).await.unwrap().get(0)
        })
        .await;
        // It cannot fall asleep: it polls, in pauses of up to 50 ms.
        let looks = async || -> i64 {
            let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
            client.query_one(sql, &[]).await.unwrap().get(0)
        };
        tokio::time::sleep(Duration::from_millis(700)).await;
        let before = looks().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let looked = looks().await - before;
        println!("{lock}: {looked} transactions in a second");
        assert!(looked < 300, "a busy loop");
        client.batch_execute(ROW).await.unwrap();
        reports_are_right(&daemon.handle, &client, NOW, NOW).await;
        stranger.batch_execute("SELECT pg_advisory_unlock_all()").await.unwrap();
    }
    // The leader's key: the daemon says who has it.
    daemon.stop().await;
    stranger
        .batch_execute(&format!(
            "SET application_name = 'a curious script'; SELECT pg_advisory_lock({LEADER_KEY})"
        ))
        .await
        .unwrap();
    daemon = Following::launch(&database, &clock, quick());
    within(PATIENCE, "it names the stranger", async || {
        reason(&daemon).contains("a curious script, pid")
    })
    .await;
    let refusing = Settings {
        standby: Standby::Refuse,
        lead_patience: Duration::from_millis(100),
        ..quick()
    };
    let refused = Following::launch(&database, &clock, refusing).ended().await;
    assert!(refused.unwrap_err().to_string().contains("a curious script, pid"));
    stranger.batch_execute("SELECT pg_advisory_unlock_all()").await.unwrap();
    within(PATIENCE, "it follows", async || daemon.handle.readiness().is_ok()).await;
    daemon.stop().await;
}

/// How many advisory keys are held in the database.
async fn keys_held(client: &Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// After the keys of a frozen daemon are free: rows are written, nothing waits in the queue, another one follows.
async fn goes_on_without(server: &TestDatabase, client: &Client, clock: &Clock) -> Following {
    client.batch_execute(ROW).await.unwrap();
    let usage: f64 = client
        .query_one("SELECT pg_notification_queue_usage()", &[])
        .await
        .unwrap()
        .get(0);
    assert!(usage < 0.001, "{usage}");
    Following::start(&server.database(), clock, quick()).await
}

/// The server ends the silent session of a daemon that is frozen, and with it keys and lead are free. Here the heart beats
/// ten times as fast as by default, and the daemon is one whose only thread is held up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_held_up_loses_its_keys() {
    const HELD_UP: Duration = Duration::from_secs(5);
    let server = TestDatabase::start().await;
    let (client, clock) = (server.connect().await, Clock::standing(NOW).0);
    fill(&client, 3).await;
    let settings = Settings {
        heartbeat: Duration::from_millis(500),
        ..quick()
    };
    let (connection, its_clock) = (server.connection().clone(), clock.clone());
    let (tell, told) = tokio::sync::oneshot::channel();
    let (end, ends) = tokio::sync::oneshot::channel::<()>();
    let held_up = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let daemon = Following::start(&database(&connection), &its_clock, settings).await;
            let client = support::connect(&connection).await;
            within(PATIENCE, "it sleeps", async || is_asleep(&client).await).await;
            tell.send(()).unwrap();
            std::thread::sleep(HELD_UP);
            within(PATIENCE, "it has lost the lead", async || {
                reason(&daemon).contains("standby")
            })
            .await;
            ends.await.unwrap();
            within(PATIENCE, "it follows again", async || daemon.handle.readiness().is_ok()).await;
            daemon.stop().await;
        });
    });
    told.await.unwrap();
    let frozen = Instant::now();
    within(HELD_UP, "the server ends the silent session", async || {
        keys_held(&client).await == 0
    })
    .await;
    println!("keys free {:?} after the daemon froze", frozen.elapsed());
    assert!(frozen.elapsed() > 4 * settings.heartbeat, "before its time");
    let successor = goes_on_without(&server, &client, &clock).await;
    tokio::time::sleep(HELD_UP.saturating_sub(frozen.elapsed()) + Duration::from_secs(1)).await;
    reports_are_right(&successor.handle, &client, NOW, NOW).await;
    successor.stop().await;
    end.send(()).unwrap();
    tokio::task::spawn_blocking(|| held_up.join().unwrap()).await.unwrap();
    verify_is_clean(&server.database(), NOW).await;
}

/// The same by SIGSTOP and with the times as they are: the server waits for 30 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "35 s"]
async fn a_frozen_daemon_loses_its_keys() {
    let server = TestDatabase::start().await;
    let (client, state) = (server.connect().await, state_dir());
    fill(&client, 3).await;
    let mut serve = Serve::spawn(state.path(), Some(server.url()));
    serve.wait_until_ready();
    within(PATIENCE, "it sleeps", async || is_asleep(&client).await).await;
    serve.signal(Signal::STOP);
    let frozen = Instant::now();
    within(
        Duration::from_secs(36),
        "the server ends the silent session",
        async || keys_held(&client).await == 0,
    )
    .await;
    println!("keys free {:?} after the daemon froze", frozen.elapsed());
    let successor = goes_on_without(&server, &client, &Clock::System).await;
    serve.signal(Signal::CONT);
    tokio::time::sleep(Duration::from_secs(1)).await;
    reports_are_right(&successor.handle, &client, Clock::System.now(), NOW).await;
    successor.stop().await;
    serve.wait_until_ready();
    serve.kill();
    verify_is_clean(&server.database(), Clock::System.now()).await;
}
