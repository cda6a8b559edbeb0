//! Postgres's main process, seen from outside: who it is, and how it is made to end.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};

/// How Postgres is asked to end, and how long it gets before the next and harder way: fast shutdown
/// (clients are disconnected, everything is written), immediate shutdown (recovery at the next
/// start), and no question at all.
const WAYS_TO_END: [(Signal, Duration); 3] = [
    (Signal::INT, Duration::from_secs(20)),
    (Signal::QUIT, Duration::from_secs(10)),
    (Signal::KILL, Duration::from_secs(5)),
];
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Makes a postmaster end; `ended` waits for it. The caller makes sure that `pid` is still that
/// process until `ended` returns.
pub(super) async fn end(pid: u32, mut ended: impl AsyncFnMut()) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    for (signal, patience) in WAYS_TO_END {
        // A process that is gone already is what we want.
        let _ = kill_process(pid, signal);
        if timeout(patience, ended()).await.is_ok() {
            return;
        }
    }
}

/// Ends a Postgres that was started by us on this data directory and that nobody guards any more;
/// its pid if there was one. The caller holds the Postgres lock.
pub(super) async fn end_orphan(data_dir: &Path) -> Option<u32> {
    let pid = running(data_dir)?;
    end(pid, async || {
        while running(data_dir) == Some(pid) {
            sleep(LOOK_EVERY).await;
        }
    })
    .await;
    Some(pid)
}

/// The pid in `postmaster.pid`, if that process lives and is a Postgres of this data directory: the
/// number alone may belong to anybody after a restart of the machine.
fn running(data_dir: &Path) -> Option<u32> {
    let text = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim().parse().ok()?;
    // As the guard starts it: `.../postgres -D <data directory> -c ...`.
    let expected = format!("postgres -D {} -c", data_dir.display());
    command_line(pid)?.contains(&expected).then_some(pid)
}

/// The arguments of a process with spaces between; `None` or empty when it is gone or a zombie.
fn command_line(pid: u32) -> Option<String> {
    let bytes = if Path::new("/proc/self/cmdline").exists() {
        fs::read(format!("/proc/{pid}/cmdline")).ok()?
    } else {
        let mut ps = Command::new("ps");
        ps.args(["-ww", "-o", "args=", "-p", &pid.to_string()]);
        ps.output().ok()?.stdout
    };
    Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
}
