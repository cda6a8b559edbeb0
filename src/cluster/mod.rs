//! The private Postgres: a child process from the machine's own binaries, for whoever has no database.
//!
//! Unix socket only, data under the state directory. Not for a database that was given by URL, and
//! no administration: no backups, no upgrades between major versions.
//!
//! Three processes: the *owner* (this module in `serve` or a test), the *guard* (our own binary
//! again, see [`guard_main`]) and Postgres. Whichever dies first, nothing is left behind:
//!
//! | killed | what happens |
//! |---|---|
//! | owner | the guard sees the end of its pipe and ends Postgres |
//! | Postgres | the guard starts it again |
//! | guard | Postgres runs on; [`PrivateCluster::exited`] tells, and the next start or stop ends it |

mod account;
mod binaries;
mod error;
mod guard;
mod layout;
mod lock;
mod owner;
mod plan;
mod postmaster;

pub use error::ClusterError;
pub use guard::guard_main;
pub use owner::{ClusterOptions, PrivateCluster, Startup};

use std::env;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use layout::Layout;

/// The private Postgres of a running owner with that state directory, such as `uptally serve`;
/// `None` when there is none or it is not ready. Starts nothing, and blocks for an instant only.
pub fn find_running(state_dir: &Path) -> Result<Option<tokio_postgres::Config>, ClusterError> {
    if !state_dir.exists() {
        return Ok(None);
    }
    let layout = Layout::open(state_dir)?;
    if !lock::is_published(&layout)? || UnixStream::connect(layout.trusted_socket()?).is_err() {
        return Ok(None);
    }
    Ok(Some(owner::connection(&layout)))
}

/// Where the state is kept if nobody says otherwise: `/var/lib/uptally` for root, else
/// `$XDG_STATE_HOME/uptally`, which is `~/.local/state/uptally` if not set.
pub fn default_state_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/uptally");
    }
    // The XDG specification says to ignore a relative path.
    let xdg = env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let base = xdg.filter(|path| path.is_absolute());
    let home = || env::home_dir().unwrap_or_default().join(".local/state");
    base.unwrap_or_else(home).join("uptally")
}
