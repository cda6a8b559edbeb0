//! The private Postgres: started, used, killed from every side, and nothing left behind.
//!
//! Every test owns a state directory. Where the owner has to die, it is this test binary run again
//! as [`helper_process`].
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test panics")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};
use uptally::cluster::{ClusterError, ClusterOptions, PrivateCluster, find_running};

#[tokio::test]
async fn a_new_cluster_answers_and_its_data_survive_a_restart() {
    let state = State::new();
    assert!(find_running(state.path()).unwrap().is_none());
    assert!(find_running(&state.path().join("none")).unwrap().is_none());

    let cluster = PrivateCluster::start(state.options()).await.unwrap();
    assert!(cluster.report().created);
    assert_eq!(cluster.report().took_over, None);
    let client = connect(cluster.connection()).await;
    client
        .batch_execute("CREATE TABLE t AS SELECT 42 AS answer")
        .await
        .unwrap();
    for (setting, value) in [
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("lc_collate", "C"),
        ("data_checksums", "on"),
        ("fsync", "off"),
        ("max_connections", "17"),
    ] {
        assert_eq!(show(&client, setting).await, value, "{setting}");
    }
    let found = find_running(state.path()).unwrap();
    assert_eq!(found.as_ref(), Some(cluster.connection()));
    let by_url: Config = cluster.url().parse().unwrap();
    assert_eq!(answer(&connect(&by_url).await).await, 42);
    cluster.stop().await.unwrap();
    assert!(find_running(state.path()).unwrap().is_none());
    state.assert_no_process_left();

    let cluster = PrivateCluster::start(state.options()).await.unwrap();
    assert!(!cluster.report().created);
    assert_eq!(answer(&connect(cluster.connection()).await).await, 42);
    cluster.stop().await.unwrap();
    state.close();
}

#[tokio::test]
async fn durable_means_that_commits_are_synced() {
    let state = State::new();
    let options = ClusterOptions {
        durable: true,
        ..state.options()
    };
    let cluster = PrivateCluster::start(options).await.unwrap();
    let client = connect(cluster.connection()).await;
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(show(&client, setting).await, "on", "{setting}");
    }
    cluster.stop().await.unwrap();
    state.close();
}

#[tokio::test]
async fn a_second_start_is_refused_with_the_pid_of_the_first() {
    let state = State::new();
    let helper = Helper::own(&state);
    let error = PrivateCluster::start(state.options()).await.unwrap_err();
    assert!(matches!(error, ClusterError::InUse { pid, .. } if pid == Some(helper.pid())));
    let message = error.to_string();
    assert!(message.contains(&format!("process {}", helper.pid())), "{message}");
    assert_eq!(error.exit_code(), 75);
    // The first one is unharmed, and found by others.
    let found = find_running(state.path()).unwrap().unwrap();
    connect(&found).await;
    drop(helper);
    state.close();
}

#[tokio::test]
async fn a_killed_owner_leaves_no_postgres_and_the_next_start_waits_for_it() {
    let state = State::new();
    let helper = Helper::own(&state);
    let config = find_running(state.path()).unwrap().unwrap();
    connect(&config)
        .await
        .batch_execute("CREATE TABLE t AS SELECT 42 AS answer")
        .await
        .unwrap();
    helper.kill();
    state.assert_no_process_left();
    assert!(find_running(state.path()).unwrap().is_none());

    // Killed again, this time with the next start at its heels.
    Helper::own(&state).kill();
    let cluster = PrivateCluster::start(state.options()).await.unwrap();
    assert_eq!(cluster.report().took_over, None);
    assert_eq!(answer(&connect(cluster.connection()).await).await, 42);
    cluster.stop().await.unwrap();
    state.close();
}

#[tokio::test]
async fn a_start_waits_for_a_previous_postgres_that_is_ending() {
    let state = State::new();
    let lock = fs::File::create(state.path().join("postgres.lock")).unwrap();
    lock.lock().unwrap();
    let guard_of_the_previous = std::thread::spawn(move || {
        sleep(Duration::from_millis(500));
        drop(lock);
    });
    let cluster = PrivateCluster::start(state.options()).await.unwrap();
    guard_of_the_previous.join().unwrap();
    let waited = cluster.report().waited.unwrap();
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
    let told = cluster.report().to_string();
    assert!(told.contains("s for the previous one to end"), "{told}");
    cluster.stop().await.unwrap();
    state.close();
}

#[tokio::test]
async fn a_pid_that_now_belongs_to_somebody_else_is_left_alone() {
    let state = State::new();
    let cluster = PrivateCluster::start(state.options()).await.unwrap();
    let pid_file = state.path().join("postgres/postmaster.pid");
    let text = fs::read_to_string(&pid_file).unwrap();
    cluster.stop().await.unwrap();
    // As after a restart of a container, where pids come again: the number is now our own.
    let (_, rest) = text.split_once('\n').unwrap();
    fs::write(&pid_file, format!("{}\n{rest}", std::process::id())).unwrap();
    let owner = fs::metadata(state.path().join("postgres")).unwrap();
    std::os::unix::fs::chown(&pid_file, Some(owner.uid()), Some(owner.gid())).unwrap();

    let cluster = PrivateCluster::start(state.options()).await.unwrap();
    assert_eq!(cluster.report().took_over, None);
    connect(cluster.connection()).await;
    cluster.stop().await.unwrap();
    state.close();
}

#[tokio::test]
async fn an_owner_killed_during_initdb_leaves_no_half_cluster() {
    let state = State::new();
    let helper = Helper::spawn(&state, None);
    let is_unfinished = || {
        let entries = fs::read_dir(state.path()).unwrap().flatten();
        let mut names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.any(|name| name.starts_with("postgres.new."))
    };
    wait_until("initdb runs", is_unfinished);
    helper.kill();
    state.assert_no_process_left();
    assert!(!is_unfinished());
    assert!(!state.path().join("postgres").exists());

    // A guard that was killed too cannot clean up: the next one does.
    fs::create_dir(state.path().join("postgres.new.1")).unwrap();
    let cluster = PrivateCluster::start(state.options()).await.unwrap();
    assert!(cluster.report().created);
    assert!(!is_unfinished());
    cluster.stop().await.unwrap();
    state.close();
}

#[tokio::test]
async fn a_killed_postgres_comes_back() {
    let state = State::new();
    let cluster = PrivateCluster::start(state.options()).await.unwrap();
    let before = state.postmaster();
    kill(before, Signal::KILL);
    let deadline = Instant::now() + Duration::from_secs(8);
    let after = loop {
        if let Ok((client, session)) = cluster.connection().connect(NoTls).await {
            tokio::spawn(session);
            break client;
        }
        assert!(Instant::now() < deadline, "Postgres did not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    after.simple_query("SELECT 1").await.unwrap();
    assert_ne!(state.postmaster(), before);
    cluster.stop().await.unwrap();
    state.close();
}

#[tokio::test]
async fn a_postgres_without_guard_is_ended_by_the_next_start() {
    let state = State::new();
    let helper = Helper::own(&state);
    let orphan = state.postmaster();
    kill(state.guard(), Signal::KILL);
    helper.kill();
    wait_until("the guard is gone", || state.processes().len() == 1);

    let cluster = PrivateCluster::start(state.options()).await.unwrap();
    assert_eq!(cluster.report().took_over, Some(orphan));
    let told = cluster.report().to_string();
    assert!(told.contains(&format!("pid {orphan}")), "{told}");
    assert_ne!(state.postmaster(), orphan);
    cluster.stop().await.unwrap();
    state.close();
}

#[tokio::test]
async fn the_owner_learns_of_a_killed_guard_and_can_still_stop() {
    let state = State::new();
    let mut cluster = PrivateCluster::start(state.options()).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), cluster.exited()).await;
    assert!(early.is_err(), "{early:?}");
    // Having asked did not end it, and neither do the signals of a service manager.
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        kill(state.guard(), signal);
    }
    connect(cluster.connection()).await;

    kill(state.guard(), Signal::KILL);
    let error = cluster.exited().await;
    assert!(matches!(error, ClusterError::GuardEnded(_)), "{error}");
    cluster.stop().await.unwrap();
    state.close();
}

#[tokio::test]
async fn a_dropped_cluster_ends_by_itself() {
    let state = State::new();
    drop(PrivateCluster::start(state.options()).await.unwrap());
    state.assert_no_process_left();
    state.close();
}

#[tokio::test]
async fn a_long_or_odd_state_path_works() {
    let state = State::new();
    for name in ["x".repeat(150), "it's, \"odd\" & Ünïcode".to_owned()] {
        let options = ClusterOptions {
            state_dir: state.path().join(&name),
            ..state.options()
        };
        let cluster = PrivateCluster::start(options.clone()).await.unwrap();
        connect(&cluster.url().parse().unwrap()).await;
        let found = find_running(&options.state_dir).unwrap();
        assert_eq!(found.as_ref(), Some(cluster.connection()));
        let socket_dir = socket_dir(cluster.connection());
        assert!(socket_dir.starts_with("/tmp"), "{}", socket_dir.display());
        cluster.stop().await.unwrap();
        assert!(!socket_dir.exists());
    }
    state.close();
}

#[tokio::test]
async fn a_squatted_socket_directory_is_refused() {
    let state = State::new();
    let socket_dir = state.path().join("socket");
    fs::create_dir(&socket_dir).unwrap();
    fs::set_permissions(&socket_dir, Permissions::from_mode(0o777)).unwrap();
    let error = PrivateCluster::start(state.options()).await.unwrap_err();
    assert!(error.to_string().contains("mode 0700"), "{error}");
    state.assert_no_process_left();
    state.close();
}

#[tokio::test]
async fn a_setting_that_postgres_refuses_is_told() {
    let state = State::new();
    let options = ClusterOptions {
        settings: vec![("max_connections".into(), "many".into())],
        ..state.options()
    };
    let error = PrivateCluster::start(options).await.unwrap_err();
    let message = error.to_string();
    assert!(message.contains("max_connections"), "{message}");
    assert!(!message.contains('\n'), "{message}");
    state.assert_no_process_left();
    state.close();
}

#[tokio::test]
async fn data_of_another_major_version_are_refused() {
    let state = State::new();
    let data_dir = state.path().join("postgres");
    fs::create_dir(&data_dir).unwrap();
    fs::write(data_dir.join("PG_VERSION"), "12\n").unwrap();
    let error = PrivateCluster::start(state.options()).await.unwrap_err();
    assert!(error.to_string().contains("install PostgreSQL 12"), "{error}");
    assert_eq!(error.exit_code(), 78);
    state.close();
}

#[test]
fn without_binaries_one_line_says_what_to_install() {
    let state = State::new();
    let mut helper = Helper::spawn(&state, Some(("UPTALLY_POSTGRES_BINDIR", "/nonexistent")));
    let message = helper.line();
    assert!(message.starts_with("78 no PostgreSQL 14 or newer"), "{message}");
    assert!(message.contains("apt-get install postgresql"), "{message}");
    assert!(message.contains("brew install"), "{message}");
    drop(helper);
    state.close();
}

#[test]
fn an_ordinary_user_runs_it_as_themselves() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else; the other tests ran as a user");
        return;
    }
    let state = State::new();
    std::os::unix::fs::chown(state.path(), Some(65534), Some(65534)).unwrap();
    let mut command = Helper::command(&state);
    command.uid(65534).gid(65534);
    let mut helper = match command.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("skipped: nobody cannot run this test binary where it lies");
            return;
        }
        child => Helper::new(child.unwrap()),
    };
    assert_eq!(helper.line(), "ready");
    // Root may look in, too.
    assert!(find_running(state.path()).unwrap().is_some());
    drop(helper);
    state.close();
}

#[tokio::test]
async fn root_is_told_which_directory_the_account_cannot_enter() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root drops to another account");
        return;
    }
    let state = State::new();
    let closed = state.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let options = ClusterOptions {
        state_dir: closed.join("state"),
        ..state.options()
    };
    let error = PrivateCluster::start(options).await.unwrap_err();
    assert!(matches!(&error, ClusterError::Unreachable { dir, .. } if dir.ends_with("closed")));
    assert_eq!(error.exit_code(), 78);
    state.close();
}

/// Not a test: what [`Helper`] runs in another process. Owns the cluster of `UPTALLY_TEST_STATE`
/// until its standard input ends. Says "ready", or exit code and message of what went wrong.
#[test]
#[ignore = "the other half of the tests above"]
fn helper_process() {
    let Some(state_dir) = std::env::var_os("UPTALLY_TEST_STATE") else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut out = std::io::stderr();
        match PrivateCluster::start(options(Path::new(&state_dir))).await {
            Ok(cluster) => {
                connect(cluster.connection()).await;
                writeln!(out, "ready").unwrap();
                std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
                cluster.stop().await.unwrap();
            }
            Err(error) => writeln!(out, "{} {error}", error.exit_code()).unwrap(),
        }
    });
}

/// Another process that owns the cluster. Dropped, it stops in order.
struct Helper {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Helper {
    fn own(state: &State) -> Self {
        let mut helper = Self::spawn(state, None);
        assert_eq!(helper.line(), "ready");
        helper
    }

    fn spawn(state: &State, variable: Option<(&str, &str)>) -> Self {
        let mut command = Self::command(state);
        command.envs(variable);
        Self::new(command.spawn().unwrap())
    }

    fn command(state: &State) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["helper_process", "--exact", "--ignored", "--nocapture"])
            .env("UPTALLY_TEST_STATE", state.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    fn new(mut process: Child) -> Self {
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, lines }
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
    }
}

/// A state directory that root's Postgres can enter.
struct State(TempDir);

impl State {
    fn new() -> Self {
        let mut builder = tempfile::Builder::new();
        builder.permissions(Permissions::from_mode(0o711));
        Self(builder.prefix("uptally-test-").tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn options(&self) -> ClusterOptions {
        options(self.path())
    }

    fn postmaster(&self) -> u32 {
        let path = self.path().join("postgres/postmaster.pid");
        let text = fs::read_to_string(path).unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }

    fn guard(&self) -> u32 {
        let processes = self.processes();
        let guard = processes.iter().find(|(_, args)| args.contains("postgres-guard"));
        guard.unwrap().0
    }

    /// Every process that names this state directory in its arguments: guard, initdb, Postgres.
    fn processes(&self) -> Vec<(u32, String)> {
        let output = Command::new("ps").args(["-axww", "-o", "pid=", "-o", "args="]).output();
        let list = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
        let ours = list.lines().filter(|line| line.contains(self.path().to_str().unwrap()));
        ours.map(|line| {
            let (pid, args) = line.trim().split_once(' ').unwrap();
            (pid.parse().unwrap(), args.to_owned())
        })
        .collect()
    }

    fn assert_no_process_left(&self) {
        wait_until("no process is left", || self.processes().is_empty());
    }

    /// Nothing runs any more, and the directory goes.
    fn close(self) {
        self.assert_no_process_left();
        self.0.close().unwrap();
    }
}

fn options(state_dir: &Path) -> ClusterOptions {
    ClusterOptions {
        durable: false,
        guard_program: Some(PathBuf::from(env!("CARGO_BIN_EXE_uptally"))),
        settings: vec![("max_connections".into(), "17".into())],
        ..ClusterOptions::new(state_dir)
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(8);
    while !is_so() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        sleep(Duration::from_millis(20));
    }
}

fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

async fn connect(config: &Config) -> Client {
    let (client, session) = config.connect(NoTls).await.unwrap();
    tokio::spawn(session);
    client.simple_query("SELECT 1").await.unwrap();
    client
}

async fn show(client: &Client, setting: &str) -> String {
    let rows = client.query_one(&format!("SHOW {setting}"), &[]).await;
    rows.unwrap().get(0)
}

async fn answer(client: &Client) -> i32 {
    client.query_one("SELECT answer FROM t", &[]).await.unwrap().get(0)
}

fn socket_dir(config: &Config) -> PathBuf {
    match config.get_hosts() {
        [tokio_postgres::config::Host::Unix(path)] => path.clone(),
        hosts => panic!("expected one socket directory, found {hosts:?}"),
    }
}
