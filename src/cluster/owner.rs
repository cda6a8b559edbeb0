//! The owner's side: starts the guard, waits until Postgres answers, and stops both.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, interval, interval_at, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use super::account::Account;
use super::binaries::{Binaries, data_major};
use super::error::ClusterError;
use super::layout::Layout;
use super::lock::{OwnerLock, lock_within};
use super::plan::{Message, NAME, Plan};
use super::postmaster;
use crate::systemd;

/// How long the Postgres of a dead owner gets to end.
const PREVIOUS_PATIENCE: Duration = Duration::from_secs(30);
/// A shorter wait than this is not worth a word.
const WAIT_TOLD_MIN: Duration = Duration::from_millis(100);
/// How long Postgres gets until it accepts connections. Recovery after a crash reads at most
/// `max_wal_size` of log.
const READY_PATIENCE: Duration = Duration::from_mins(5);
/// How often a long wait is told.
const TELL_EVERY: Duration = Duration::from_secs(10);
const CONNECT_EVERY: Duration = Duration::from_millis(20);
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How often Postgres may end before it ever answered. More than once, because what is left of a
/// killed one can be in the way for a moment.
const EARLY_ENDS_MAX: u32 = 3;
/// How long the guard gets to end Postgres; its own patience ends before.
const STOP_PATIENCE: Duration = Duration::from_secs(40);

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The state directory; created if missing. One owner at a time.
    pub state_dir: PathBuf,
    /// Whether commits survive a crash of the machine. Off only for throw-away clusters in tests.
    pub durable: bool,
    /// The program whose subcommand `postgres-guard` calls [`super::guard_main`]; `None`: ourselves.
    pub guard_program: Option<PathBuf>,
    /// More Postgres settings, name and value.
    pub settings: Vec<(String, String)>,
}

impl ClusterOptions {
    /// A durable cluster guarded by our own program.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            durable: true,
            guard_program: None,
            settings: Vec::new(),
        }
    }
}

/// A running private Postgres, owned by this process. Dropping it ends Postgres too, but does not
/// wait for that; [`PrivateCluster::stop`] does.
#[derive(Debug)]
pub struct PrivateCluster {
    layout: Layout,
    connection: Config,
    startup: Startup,
    guard: Guard,
    /// Declared after the guard, so dropped after it.
    _lock: OwnerLock,
}

/// The process, and the only write end of its standard input: dropping that is the order to end. Not
/// left in the `Child`, whose `wait` would close it.
#[derive(Debug)]
struct Guard {
    process: Child,
    leash: ChildStdin,
}

/// What happened when a private Postgres was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// The canonical state directory.
    pub state_dir: PathBuf,
    /// Major version of Postgres.
    pub major: u32,
    /// The data directory was made; otherwise it was there.
    pub created: bool,
    /// How long the Postgres of an earlier owner took to end, if we had to wait for it.
    pub waited: Option<Duration>,
    /// The pid of a Postgres without guard that was found running and ended.
    pub took_over: Option<u32>,
}

impl PrivateCluster {
    /// Starts the private Postgres of a state directory and waits until it answers. Everything that
    /// was started has ended again when this fails.
    pub async fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        let layout = Layout::create(&options.state_dir)?;
        let lock = OwnerLock::take(&layout).await?;
        let waited = wait_for_previous(&layout).await?;
        let (plan, major) = plan(&layout, &options)?;
        let mut startup = Startup {
            state_dir: layout.root().to_owned(),
            major,
            created: false,
            waited,
            took_over: None,
        };
        let connection = connection(&layout);
        let (guard, mut messages) = spawn_guard(options.guard_program, &plan).await?;
        let ready = wait_until_ready(&mut messages, &connection, &layout, &mut startup);
        let ready = match timeout(READY_PATIENCE, ready).await {
            Ok(ready) => ready,
            Err(_) => Err(ClusterError::NotReady {
                waited_s: READY_PATIENCE.as_secs(),
                log: layout.log(),
            }),
        };
        let published = ready.and_then(|()| lock.publish(&layout.socket_dir()));
        if let Err(error) = published {
            // The first error is the one to tell.
            let _ = end_guard(guard, &layout).await;
            return Err(error);
        }
        tokio::spawn(log_messages(messages));
        tracing::info!("{startup}");
        Ok(Self {
            layout,
            connection,
            startup,
            guard,
            _lock: lock,
        })
    }

    /// How to connect: socket directory, user and database.
    pub fn connection(&self) -> &Config {
        &self.connection
    }

    /// How to connect, as a URL for psql and others.
    pub fn url(&self) -> String {
        let socket_dir = self.layout.socket_dir();
        let host = percent_encode(socket_dir.as_os_str().as_encoded_bytes());
        format!("postgresql://{NAME}@{host}:5432/{NAME}")
    }

    /// What happened at the start.
    pub fn report(&self) -> &Startup {
        &self.startup
    }

    /// Returns when the guard has ended, which it does not do by itself: somebody killed it, and the
    /// owner should stop. Postgres itself comes back when it dies. Can be dropped and called again.
    pub async fn exited(&mut self) -> ClusterError {
        ClusterError::GuardEnded(match self.guard.process.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        })
    }

    /// Fast shutdown: clients are disconnected, everything is on disk when this returns.
    pub async fn stop(self) -> Result<(), ClusterError> {
        end_guard(self.guard, &self.layout).await
    }
}

impl fmt::Display for Startup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.created { "created and started" } else { "started" };
        let (major, dir) = (self.major, self.state_dir.display());
        write!(f, "{verb} a private PostgreSQL {major} in {dir}")?;
        if let Some(waited) = self.waited {
            write!(f, ", after {:.1} s for the previous one to end", waited.as_secs_f64())?;
        }
        if let Some(pid) = self.took_over {
            write!(f, ", in place of one without guard (pid {pid}), which was ended")?;
        }
        Ok(())
    }
}

/// How to connect to the Postgres of a state directory.
pub(super) fn connection(layout: &Layout) -> Config {
    let mut config = Config::new();
    config
        .host_path(layout.socket_dir())
        .port(5432)
        .user(NAME)
        .dbname(NAME)
        .connect_timeout(CONNECT_PATIENCE);
    config
}

/// With the owner lock ours, only the guard of a dead owner can hold the Postgres lock.
async fn wait_for_previous(layout: &Layout) -> Result<Option<Duration>, ClusterError> {
    let started = Instant::now();
    let lock = lock_within(&layout.postgres_lock(), PREVIOUS_PATIENCE).await?;
    let waited = started.elapsed();
    match lock {
        Some(_) => Ok((waited >= WAIT_TOLD_MIN).then_some(waited)),
        None => Err(ClusterError::PreviousStillEnding {
            state_dir: layout.root().to_owned(),
            waited_s: PREVIOUS_PATIENCE.as_secs(),
        }),
    }
}

fn plan(layout: &Layout, options: &ClusterOptions) -> Result<(Plan, u32), ClusterError> {
    let data_dir = layout.data_dir();
    let binaries = Binaries::find(&data_dir, data_major(&data_dir)?)?;
    let account = Account::choose(&data_dir)?;
    if let Some(account) = &account {
        account.check_reach(layout.root())?;
        account.check_reach(&binaries.dir)?;
    }
    layout.bound_log()?;
    let plan = Plan {
        layout: layout.clone(),
        bin_dir: binaries.dir,
        account,
        durable: options.durable,
        settings: options.settings.clone(),
        owner_pid: std::process::id(),
    };
    Ok((plan, binaries.major))
}

type Messages = Lines<BufReader<ChildStdout>>;

async fn spawn_guard(program: Option<PathBuf>, plan: &Plan) -> Result<(Guard, Messages), ClusterError> {
    let program = match program {
        Some(program) => std::path::absolute(&program).map_err(ClusterError::file("run", &program)),
        None => std::env::current_exe().map_err(ClusterError::file("run", Path::new("ourselves"))),
    }?;
    let failed = |source| ClusterError::file("run the guard", &program)(source);
    let mut command = Command::new(&program);
    for name in systemd::VARIABLES {
        // Neither the guard nor Postgres, which would use it, is the service.
        command.env_remove(name);
    }
    let mut process = command
        .arg("postgres-guard")
        .arg(plan.layout.root())
        .process_group(0)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Not our own: whoever reads our output would wait for the guard to end.
        .stderr(plan.layout.open_log()?)
        .spawn()
        .map_err(failed)?;
    let (Some(mut leash), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
        return Err(failed(std::io::Error::other("it has no pipes")));
    };
    let mut line = serde_json::to_string(plan).map_err(|error| failed(error.into()))?;
    line.push('\n');
    leash.write_all(line.as_bytes()).await.map_err(failed)?;
    Ok((Guard { process, leash }, BufReader::new(output).lines()))
}

async fn wait_until_ready(
    messages: &mut Messages,
    connection: &Config,
    layout: &Layout,
    startup: &mut Startup,
) -> Result<(), ClusterError> {
    let mut is_started = false;
    let mut early_ends = 0;
    let mut tick = interval(CONNECT_EVERY);
    let mut patience = interval_at(Instant::now() + TELL_EVERY, TELL_EVERY);
    loop {
        tokio::select! {
            line = messages.next_line() => match parse(line)? {
                Message::Created => startup.created = true,
                Message::EndedOrphan { pid } => startup.took_over = Some(pid),
                Message::Started => is_started = true,
                Message::Failed { why } => return Err(ClusterError::Postgres(why)),
                Message::Ended { how } => {
                    is_started = false;
                    early_ends += 1;
                    if early_ends >= EARLY_ENDS_MAX {
                        return Err(ClusterError::Postgres(how));
                    }
                }
            },
            _ = patience.tick() => {
                let log = layout.log();
                tracing::info!("waiting for the private Postgres, see {}", log.display());
            }
            _ = tick.tick(), if is_started => {
                if layout.trusted_socket().is_ok_and(|socket| socket.exists())
                    && answers(connection).await?
                {
                    return Ok(());
                }
            }
        }
    }
}

fn parse(line: std::io::Result<Option<String>>) -> Result<Message, ClusterError> {
    let ended = |why: String| ClusterError::GuardEnded(why);
    let line = line.map_err(|error| ended(error.to_string()))?;
    let line = line.ok_or_else(|| ended("it said nothing more".to_owned()))?;
    serde_json::from_str(&line).map_err(|_| {
        ended(format!(
            "expected a message, found {line:?}: is it `uptally postgres-guard`?"
        ))
    })
}

/// Whether our database accepts a connection; creates it if it is missing.
async fn answers(connection: &Config) -> Result<bool, ClusterError> {
    let Err(error) = connection.connect(NoTls).await else {
        return Ok(true);
    };
    match error.code() {
        // No answer yet: no socket, or nobody behind it.
        None => Ok(false),
        Some(code) if *code == SqlState::CANNOT_CONNECT_NOW => Ok(false),
        Some(code) if *code == SqlState::INVALID_CATALOG_NAME => {
            create_database(connection.clone()).await?;
            Ok(false)
        }
        Some(_) => Err(error.into()),
    }
}

async fn create_database(mut connection: Config) -> Result<(), ClusterError> {
    let (client, session) = connection.dbname("postgres").connect(NoTls).await?;
    let session = tokio::spawn(session);
    client.batch_execute(&format!("CREATE DATABASE {NAME}")).await?;
    drop(client);
    // The result says how the session ended, which no longer matters.
    let _ = session.await;
    Ok(())
}

/// What the guard has to say while Postgres is in use.
async fn log_messages(mut messages: Messages) {
    while let Ok(message) = parse(messages.next_line().await) {
        match message {
            Message::Ended { how } => {
                tracing::warn!("the private Postgres ended ({how}); it is started again");
            }
            Message::Failed { why } => {
                tracing::error!("the guard of the private Postgres gave up: {why}");
            }
            Message::Created | Message::EndedOrphan { .. } | Message::Started => {}
        }
    }
}

/// Orders the guard to end and waits for it; a Postgres that lost its guard is ended here.
async fn end_guard(guard: Guard, layout: &Layout) -> Result<(), ClusterError> {
    let Guard { mut process, leash } = guard;
    drop(leash);
    let still_running = || ClusterError::StillRunning {
        waited_s: STOP_PATIENCE.as_secs(),
    };
    let ended = timeout(STOP_PATIENCE, process.wait()).await;
    let status = ended.map_err(|_| still_running())?;
    if !status.is_ok_and(|status| status.success()) {
        postmaster::end_orphan(&layout.data_dir()).await;
        layout.remove_far_socket_dir();
    }
    Ok(())
}

/// Everything but the characters that a URL may always hold (RFC 3986, unreserved).
fn percent_encode(bytes: &[u8]) -> String {
    let encode = |&byte: &u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    bytes.iter().map(encode).collect()
}
