//! The guard: the process between the owner of a private Postgres and Postgres itself.
//!
//! It is our own binary in a process group of its own, so that Ctrl-C on the owner's terminal does
//! not reach it. Its standard input is a pipe from the owner. When the pipe ends, the owner is gone,
//! however it died, and the guard ends Postgres. The guard does everything that touches the data
//! directory, initdb too, under the Postgres lock: two guards are never at work on the same data.

use std::fs::{self, File};
use std::io::{BufRead, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep};

use super::error::ClusterError;
use super::layout::{Layout, make_private_dir};
use super::lock::lock_within;
use super::plan::{Message, Plan};
use super::postmaster;

/// How long a guard waits for the guard of a dead owner. Longer than Postgres gets to end.
const LOCK_PATIENCE: Duration = Duration::from_secs(40);
/// Pause before a Postgres that ended on its own is started again; doubles up to the maximum.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A Postgres that ran this long starts again with the shortest pause.
const STEADY: Duration = Duration::from_mins(1);
const BOUND_LOG_EVERY: Duration = Duration::from_mins(1);
/// How much of the end of the log is searched for the reason of a failure, bytes.
const LOG_TAIL_BYTES: u64 = 8_192;

/// The body of the hidden subcommand `uptally postgres-guard <state directory>`. The directory is
/// there for the eyes of whoever lists processes; the plan comes over standard input.
pub fn guard_main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(guard()),
        Err(error) => Err(ClusterError::GuardEnded(error.to_string())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&Message::Failed { why: error.to_string() });
            ExitCode::FAILURE
        }
    }
}

async fn guard() -> Result<(), ClusterError> {
    outlive_signals().map_err(|error| ClusterError::GuardEnded(error.to_string()))?;
    let plan = read_plan()?;
    let mut owner = Owner::watch();

    let lock_path = plan.layout.postgres_lock();
    let lock = tokio::select! {
        lock = lock_within(&lock_path, LOCK_PATIENCE) => lock?,
        () = owner.gone() => return Ok(()),
    };
    let Some(_lock) = lock else {
        return Err(ClusterError::PreviousStillEnding {
            state_dir: plan.layout.root().to_owned(),
            waited_s: LOCK_PATIENCE.as_secs(),
        });
    };
    tokio::spawn(keep_log_bounded(plan.layout.clone()));
    let data_dir = plan.layout.data_dir();
    if let Some(pid) = postmaster::end_orphan(&data_dir).await {
        tell(&Message::EndedOrphan { pid });
    }
    plan.layout.remove_unfinished()?;
    plan.layout.prepare_socket_dir(plan.account.as_ref())?;
    let result = match create_if_missing(&plan, &data_dir, &mut owner).await {
        Ok(()) => keep_running(&plan, &mut owner).await,
        Err(error) => Err(error),
    };
    plan.layout.remove_far_socket_dir();
    result
}

/// Blocks: there is nothing else to do before the plan is known.
fn read_plan() -> Result<Plan, ClusterError> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let plan = read
        .map_err(|error| error.to_string())
        .and_then(|_| serde_json::from_str(&line).map_err(|error| error.to_string()));
    plan.map_err(|why| ClusterError::GuardEnded(format!("expected a plan from `uptally serve`: {why}")))
}

/// The process on the other end of standard input.
struct Owner {
    is_gone: watch::Receiver<bool>,
}

impl Owner {
    /// A plain thread, since nothing but the end of the input ends its read.
    fn watch() -> Self {
        let (sender, is_gone) = watch::channel(false);
        std::thread::spawn(move || {
            // However the reading ends, there is nobody on the other side.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = sender.send(true);
        });
        Self { is_gone }
    }

    /// Returns when the owner has gone, at once if it has already.
    async fn gone(&mut self) {
        // An error means that the task above is gone, which it is only after the owner.
        let _ = self.is_gone.wait_for(|is_gone| *is_gone).await;
    }

    fn is_gone(&self) -> bool {
        *self.is_gone.borrow()
    }
}

/// Makes the data directory under another name and renames it when it is whole.
async fn create_if_missing(plan: &Plan, data_dir: &Path, owner: &mut Owner) -> Result<(), ClusterError> {
    if super::binaries::data_major(data_dir)?.is_some() || owner.is_gone() {
        return Ok(());
    }
    let target = plan.layout.unfinished_data_dir(std::process::id());
    make_private_dir(&target, plan.account.as_ref())?;
    let mut run = Run::start(plan, plan.initdb(&target))?;
    let status = tokio::select! {
        status = run.child.wait() => status.map_err(ClusterError::file("wait for initdb in", &target))?,
        () = owner.gone() => {
            run.end().await;
            return plan.layout.remove_unfinished();
        }
    };
    if !status.success() {
        let why = run.why(&plan.layout, status);
        plan.layout.remove_unfinished()?;
        return Err(ClusterError::Postgres(format!("initdb: {why}")));
    }
    fs::rename(&target, data_dir).map_err(ClusterError::file("rename to", data_dir))?;
    if plan.durable {
        let root = plan.layout.root();
        File::open(root)
            .and_then(|dir| dir.sync_all())
            .map_err(ClusterError::file("sync", root))?;
    }
    tell(&Message::Created);
    Ok(())
}

/// Runs Postgres, again and again if need be, until the owner has gone.
async fn keep_running(plan: &Plan, owner: &mut Owner) -> Result<(), ClusterError> {
    let data_dir = plan.layout.data_dir();
    let mut pause = PAUSE_MIN;
    while !owner.is_gone() {
        let started = Instant::now();
        let mut run = Run::start(plan, plan.postgres())?;
        tell(&Message::Started);
        let status = tokio::select! {
            status = run.child.wait() => {
                status.map_err(ClusterError::file("wait for Postgres in", &data_dir))?
            }
            () = owner.gone() => {
                run.end().await;
                return Ok(());
            }
        };
        tell(&Message::Ended {
            how: run.why(&plan.layout, status),
        });
        if started.elapsed() >= STEADY {
            pause = PAUSE_MIN;
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = owner.gone() => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
    Ok(())
}

/// A child that writes to the log.
struct Run {
    child: Child,
    /// Length of the log when the child started, bytes.
    log_start: u64,
}

impl Run {
    fn start(plan: &Plan, mut command: Command) -> Result<Self, ClusterError> {
        let log = plan.layout.open_log()?;
        let log_path = plan.layout.log();
        let log_start = log.metadata().map_err(ClusterError::file("look at", &log_path))?.len();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(ClusterError::file("run", Path::new(command.as_std().get_program())))?;
        Ok(Self { child, log_start })
    }

    /// Ends the child, if it has not ended.
    async fn end(&mut self) {
        // While there is an id, the child has not been waited for, and the id is its own.
        if let Some(pid) = self.child.id() {
            let child = &mut self.child;
            postmaster::end(pid, async || {
                let _ = child.wait().await;
            })
            .await;
        }
    }

    /// How it ended, with the most telling of its last lines. One that a signal killed had no time to
    /// say why, and an older line would mislead.
    fn why(&self, layout: &Layout, status: ExitStatus) -> String {
        let said = self.said(layout).filter(|_| status.code().is_some());
        let said = said.unwrap_or_default();
        let telling = |line: &&str| ["FATAL", "PANIC", "error:"].iter().any(|w| line.contains(w));
        match said.lines().rfind(telling).or(said.lines().last()) {
            Some(line) => format!("{status}, {line}"),
            None => status.to_string(),
        }
    }

    fn said(&self, layout: &Layout) -> Option<String> {
        let mut log = File::open(layout.log()).ok()?;
        let end = log.metadata().ok()?.len();
        log.seek(SeekFrom::Start(self.log_start.max(end.saturating_sub(LOG_TAIL_BYTES))))
            .ok()?;
        let mut bytes = Vec::new();
        log.take(LOG_TAIL_BYTES).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

async fn keep_log_bounded(layout: Layout) {
    let mut tick = interval(BOUND_LOG_EVERY);
    loop {
        tick.tick().await;
        // A log that cannot be emptied is no reason to stop guarding.
        let _ = layout.bound_log();
    }
}

/// Only the end of the owner ends the guard: a service manager that signals every process of the
/// service must not take Postgres away from an owner that is still writing its last.
fn outlive_signals() -> std::io::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        // Registering replaces the default action for the life of the process.
        drop(signal(kind)?);
    }
    Ok(())
}

/// A line to the owner. If it is gone there is nobody to tell.
fn tell(message: &Message) {
    if let Ok(line) = serde_json::to_string(message) {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
}
