//! Servers made from others: base backups, standbys that are promoted, dumps.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, TargetSessionAttrs};
use uptally::clock::Clock;
use uptally::daemon::Settings;
use uptally::report::Source;
use uptally::time::HOUR_US;

use super::check::{reports_are_right, verify_is_clean};
use super::daemon::Following;
use super::server::Server;
use super::writers::Writers;
use super::{TestDatabase, database, postmaster, state_dir, within};

const PATIENCE: Duration = Duration::from_secs(20);
const WRITERS: u64 = 8;

/// A copy of a running server, which must be its database's alone. `streams`: it stays in recovery and follows the other
/// one until it is promoted; else it starts as a server of its own, as one that was restored.
pub async fn base_backup(from: &TestDatabase, streams: bool) -> TestDatabase {
    let state = copy_files(from, streams).await;
    let server = Server::start_in(state.path(), &[]);
    TestDatabase::empty_on(server.keeping(state))
}

/// The files of a running server, as [`base_backup`] starts them.
pub async fn copy_files(from: &TestDatabase, streams: bool) -> TempDir {
    let state = state_dir();
    let target = state.path().join("postgres");
    let mut command = program(from, "pg_basebackup").await;
    command
        .args(["--checkpoint=fast", "--no-sync", "--wal-method=stream", "-D"])
        .arg(&target);
    command.arg("-d").arg(from.conninfo("uptally"));
    if streams {
        command.arg("--write-recovery-conf");
    }
    run(command).await;
    // Postgres runs by the account of the first server, and refuses files of another one.
    let owner = fs::metadata(from.server.state_dir().join("postgres")).unwrap();
    give(&target, owner.uid(), owner.gid());
    state
}

/// What makes a server keep its log, in a directory beside its data.
pub const ARCHIVES: [(&str, &str); 2] = [
    ("archive_mode", "on"),
    ("archive_command", "mkdir -p archive && cp %p archive/%f"),
];

/// Starts copied files of a server that archives, with its log replayed up to a target such as `recovery_target_name`, and
/// promoted there.
pub async fn recover_to(files: TempDir, from: &TestDatabase, target: (&str, &str)) -> TestDatabase {
    let data = files.path().join("postgres");
    let signal = data.join("recovery.signal");
    fs::write(&signal, "").unwrap();
    let owner = fs::metadata(&data).unwrap();
    give(&signal, owner.uid(), owner.gid());
    let restore = format!("cp {}/postgres/archive/%f %p", from.server_dir().display());
    let settings = [
        ("restore_command", restore.as_str()),
        ("recovery_target_action", "promote"),
        target,
    ];
    let server = Server::start_in(files.path(), &settings);
    let recovered = TestDatabase::empty_on(server.keeping(files));
    let client = recovered.connect().await;
    within(PATIENCE, "the target is reached", async || {
        let sql = "SELECT NOT pg_is_in_recovery()";
        client.query_one(sql, &[]).await.unwrap().get(0)
    })
    .await;
    recovered
}

/// Copies schema and rows by `pg_dump` into an empty database.
pub async fn dump_and_restore(from: &TestDatabase, to: &TestDatabase) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut dump = program(from, "pg_dump").await;
    dump.args(["--no-owner", "-f"]).arg(file.path()).arg("-d");
    dump.arg(from.conninfo(from.connection.get_dbname().unwrap()));
    run(dump).await;
    let mut restore = program(from, "psql").await;
    restore
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-1", "-f"])
        .arg(file.path());
    restore.arg("-d").arg(to.conninfo(to.connection.get_dbname().unwrap()));
    run(restore).await;
}

/// One failover under load: the first server is killed, the second promoted, and the daemon finds its way. If not
/// `synchronous`, the second misses the last rows of the first, and so must every number.
pub async fn fail_over(seed: u64, synchronous: bool) {
    let mut rng = Rng::with_seed(seed);
    let first = TestDatabase::start_alone(&[("deadlock_timeout", "50ms"), ("synchronous_commit", "on")]).await;
    let mut second = base_backup(&first, true).await;
    if synchronous {
        let client = first.connect().await;
        let names = "ALTER SYSTEM SET synchronous_standby_names = '*'";
        client.batch_execute(names).await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    }
    let either = either(&first, &second);
    let end = Clock::System.now();
    let settings = Settings {
        flush_interval: Duration::from_millis(20),
        ..Settings::default()
    };
    let daemon = Following::start(&database(&either), &Clock::System, settings).await;
    let writers = Writers::start(first.connection(), WRITERS, seed, end);
    tokio::time::sleep(Duration::from_millis(rng.u64(200..800))).await;
    if !synchronous {
        second.down();
        tokio::time::sleep(Duration::from_millis(rng.u64(100..400))).await;
    }
    // What was acknowledged last.
    let marker = "INSERT INTO public.store_activity VALUES ('acknowledged', '2023-11-08 12:00+00', 'inactive')";
    first.connect().await.batch_execute(marker).await.unwrap();
    let seen = daemon.handle.point().await.unwrap().snapshot;
    assert!(seen.stores().any(|store| store.id == "acknowledged"));
    kill_process(postmaster(first.server.state_dir()), Signal::KILL).unwrap();
    drop(first);
    writers.stop().await;
    if !synchronous {
        second.up();
    }
    let client = second.connect().await;
    client.batch_execute("SELECT pg_promote()").await.unwrap();
    let promoted = Instant::now();
    within(PATIENCE, "the promoted server is followed", async || {
        daemon.handle.readiness().is_ok()
    })
    .await;
    println!("followed {:?} after the promotion", promoted.elapsed());
    // No transaction of the lost rows may come back to life by its number.
    let writers = Writers::start(second.connection(), WRITERS, seed.wrapping_add(1), end);
    tokio::time::sleep(Duration::from_millis(rng.u64(200..600))).await;
    writers.stop().await;
    let sql = "SELECT count(*) FROM public.store_activity WHERE store_id = 'acknowledged'";
    let kept: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(kept, i64::from(synchronous), "the test did not do what it is about");
    let as_of = end.plus(-HOUR_US);
    reports_are_right(&daemon.handle, &client, Clock::System.now(), as_of).await;
    daemon.stop().await;
    verify_is_clean(&second.database(), Clock::System.now()).await;
}

/// Whichever of two servers takes writes.
fn either(first: &TestDatabase, second: &TestDatabase) -> Config {
    let mut config = first.connection().clone();
    for host in second.connection().get_hosts() {
        if let Host::Unix(dir) = host {
            config.host_path(dir);
        }
    }
    config.target_session_attrs(TargetSessionAttrs::ReadWrite).clone()
}

/// The same for `--database-url`.
pub fn either_url(first: &TestDatabase, second: &TestDatabase) -> String {
    let sockets = [first, second].map(|database| {
        let [Host::Unix(dir)] = database.connection().get_hosts() else {
            panic!("test servers have one socket");
        };
        dir.to_str().unwrap().replace('/', "%2F")
    });
    let (user, name) = (first.connection().get_user().unwrap(), first.name());
    format!(
        "postgresql://{user}@{}/{name}?target_session_attrs=read-write",
        sockets.join(",")
    )
}

/// A program of the Postgres that serves a database.
async fn program(server: &TestDatabase, name: &str) -> Command {
    let sql = "SELECT setting FROM pg_config WHERE name = 'BINDIR'";
    let row = server.connect().await.query_one(sql, &[]).await.unwrap();
    let mut command = Command::new(PathBuf::from(row.get::<_, &str>(0)).join(name));
    command.stdin(Stdio::null()).env("LC_ALL", "C");
    command
}

async fn run(mut command: Command) {
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Gives a directory and all that is in it to an account.
fn give(path: &Path, uid: u32, gid: u32) {
    chown(path, Some(uid), Some(gid)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), uid, gid);
        }
    }
}
