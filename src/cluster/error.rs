//! What can stop the private Postgres, and the exit code that goes with it. Every message is one line.

use std::io;
use std::path::{Path, PathBuf};

/// Exit code when the installation or the configuration has to change (`EX_CONFIG` of sysexits).
const EXIT_CONFIG: u8 = 78;
/// Exit code when trying again later may work (`EX_TEMPFAIL` of sysexits).
const EXIT_TEMPORARY: u8 = 75;

/// Why the private Postgres was not started, found or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No usable binaries; holds where they were looked for.
    #[error(
        "no PostgreSQL {min} or newer in {looked_in} to run a private database with: set DATABASE_URL for one that is \
         there, or install it with `apt-get install postgresql` (Debian, Ubuntu) or `brew install postgresql@17` (macOS)",
        min = super::binaries::MAJOR_MIN
    )]
    NoBinaries {
        /// The places, for the reader.
        looked_in: String,
    },
    /// The data were written by a major version of which no binaries are installed.
    #[error(
        "the data in {} were written by PostgreSQL {wanted}, of which no binaries were found: install PostgreSQL {wanted}",
        data_dir.display()
    )]
    WrongVersion {
        /// The data directory.
        data_dir: PathBuf,
        /// Its major version.
        wanted: u32,
    },
    /// We are root, Postgres refuses root, and there is no other account to run it.
    #[error("Postgres does not run as root and there is neither a user postgres nor a user nobody to run it as")]
    NoAccount,
    /// The account that runs Postgres cannot enter a directory on the way.
    #[error(
        "the user {user}, who runs the private Postgres, cannot enter {} (on the way to {}): chmod a+x it or choose another state directory",
        dir.display(), target.display()
    )]
    Unreachable {
        /// The first directory that cannot be entered.
        dir: PathBuf,
        /// What had to be reached.
        target: PathBuf,
        /// The account.
        user: String,
    },
    /// The path of the state directory is not UTF-8.
    #[error("expected a state directory whose path is UTF-8, found {}", .0.display())]
    NotUtf8(PathBuf),
    /// A living process owns the state directory.
    #[error("the state directory {} is in use by {}", state_dir.display(), holder(*pid))]
    InUse {
        /// The state directory.
        state_dir: PathBuf,
        /// Who has it; `None` in the instant before the owner has written its pid.
        pid: Option<u32>,
    },
    /// The Postgres of an earlier daemon is still shutting down.
    #[error("the previous Postgres of {} is still shutting down after {waited_s} s", state_dir.display())]
    PreviousStillEnding {
        /// The state directory.
        state_dir: PathBuf,
        /// How long we waited, seconds.
        waited_s: u64,
    },
    /// Somebody else's directory lies where the socket belongs.
    #[error(
        "expected {} to be a directory of mode 0700 owned by the user who runs the private Postgres: remove it",
        .0.display()
    )]
    SocketDirForeign(PathBuf),
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Postgres or initdb ended although it should not have; holds how, and what it said last.
    #[error("the private Postgres did not start: {0}")]
    Postgres(String),
    /// Postgres runs but accepts no connection.
    #[error("the private Postgres accepts no connection after {waited_s} s, see {}", log.display())]
    NotReady {
        /// How long we waited, seconds.
        waited_s: u64,
        /// Its log.
        log: PathBuf,
    },
    /// Postgres refused us.
    #[error("the private Postgres refused the connection: {0}")]
    Refused(#[from] tokio_postgres::Error),
    /// The guard ended while the cluster was in use; holds how.
    #[error("the guard of the private Postgres ended: {0}")]
    GuardEnded(String),
    /// Postgres did not end in time.
    #[error("the private Postgres did not end within {waited_s} s")]
    StillRunning {
        /// How long we waited, seconds.
        waited_s: u64,
    },
}

impl ClusterError {
    /// The code for the process to exit with: 78 when something has to be installed or configured,
    /// 75 when trying again later may work.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoBinaries { .. }
            | Self::WrongVersion { .. }
            | Self::NoAccount
            | Self::Unreachable { .. }
            | Self::NotUtf8(_) => EXIT_CONFIG,
            _ => EXIT_TEMPORARY,
        }
    }

    /// For `map_err` on a file operation.
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
