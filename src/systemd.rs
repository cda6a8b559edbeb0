//! What the service manager is told: ready, how it goes, stopping, and that the daemon is alive.
//!
//! The protocol of `sd_notify(3)`: datagrams of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names. Nothing
//! depends on their arrival: what cannot be sent is left out, and the watchdog is fed again soon.
//!
//! Ready means that HTTP is answered. Whether the database is followed is another question, which may be answered with
//! no for hours without anything being wrong here: the status line and `/readyz` have it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::daemon::{Handle, Pulse};
use crate::report::Source as _;
use crate::telemetry::one_line;

/// How often the status line is brought up to date.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// The watchdog is fed as long as the pulse is younger than this part of its patience. The other half is for us to be
/// late with feeding.
const PATIENCE_PARTS: u32 = 2;

/// With less patience, a look at a database that is slow to answer could pass for a standstill: the daemon asks after
/// it for the first time when it has taken 10 s.
const PATIENCE_MIN: Duration = Duration::from_secs(30);

/// Longest status line, bytes; the manager shows one line.
const STATUS_BYTES_MAX: usize = 500;

/// What the manager says to its services, and only to them.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The service manager that started this process, or nobody.
#[derive(Debug)]
pub struct ServiceManager {
    /// None: nobody wants to be told.
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The process is killed when it has not said for so long that it is alive; none: never.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that `variable` (of the environment) leads to.
    pub fn find(variable: impl Fn(&str) -> Option<OsString>) -> io::Result<Self> {
        let open = |name: OsString| {
            let socket = UnixDatagram::unbound()?;
            // A manager that does not read must not hold us up.
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>((socket, address(&name)?))
        };
        Ok(ServiceManager {
            socket: variable("NOTIFY_SOCKET").map(open).transpose()?,
            watchdog: watchdog(&variable),
        })
    }

    /// HTTP is answered from now on.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping: reports and answers are finished, then the last flush");
    }

    /// What is shown beside the service's name.
    pub fn status(&self, text: &str) {
        let mut line = one_line(text);
        line.truncate(line.floor_char_boundary(STATUS_BYTES_MAX));
        self.tell(&format!("STATUS={line}"));
    }

    /// Shows how the daemon is, and feeds the watchdog as long as the daemon's task gets on.
    pub async fn watch(&self, daemon: &Handle) -> Infallible {
        if self.socket.is_none() {
            return std::future::pending().await;
        }
        if let Some(patience) = self.watchdog.filter(|&patience| patience < PATIENCE_MIN) {
            tracing::warn!(
                ?patience,
                "the watchdog is less patient than {PATIENCE_MIN:?}: a slow database may end this process"
            );
        }
        let mut every = tokio::time::interval(STATUS_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shown = String::new();
        loop {
            every.tick().await;
            self.feed_watchdog(daemon.pulse());
            let text = describe(daemon);
            if text != shown {
                self.status(&text);
                shown = text;
            }
        }
    }

    fn feed_watchdog(&self, pulse: &Pulse) {
        if let Some(patience) = self.watchdog
            && pulse.age() < patience / PATIENCE_PARTS
        {
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, message: &str) {
        let Some((socket, address)) = &self.socket else {
            return;
        };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::debug!(%error, message, "the service manager cannot be told");
        }
    }
}

fn describe(daemon: &Handle) -> String {
    match daemon.readiness() {
        Ok(()) => format!("following {} stores", daemon.status().stores),
        Err(reason) => format!("not ready: {reason}"),
    }
}

/// A path, or with @ in front a name in the kernel's own table.
fn address(name: &OsString) -> io::Result<SocketAddr> {
    match name.as_bytes().split_first() {
        #[cfg(target_os = "linux")]
        Some((b'@', rest)) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(rest),
        Some((b'/', _)) => SocketAddr::from_pathname(name),
        _ => {
            let found = name.display();
            let text = format!("NOTIFY_SOCKET: expected a path or a name that begins with @, found {found}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}

/// The patience of the watchdog, if it watches this very process.
fn watchdog(variable: &impl Fn(&str) -> Option<OsString>) -> Option<Duration> {
    let number = |name| String::from_utf8(variable(name)?.into_vec()).ok()?.parse::<u64>().ok();
    let is_for_us = variable("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(std::process::id().into());
    let micros = number("WATCHDOG_USEC").filter(|&micros| micros > 0 && is_for_us)?;
    Some(Duration::from_micros(micros))
}
