//! The two locks of a state directory. Both are locks on open files, which the kernel drops with
//! their process: no lock outlives its holder, however it died. The files stay.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::ClusterError;
use super::layout::Layout;

/// A reader of the owner lock holds it shared for an instant; an owner-to-be tries for longer than that.
const OWNER_TRY: Duration = Duration::from_millis(300);
const TRY_EVERY: Duration = Duration::from_millis(20);

/// `<state>/lock`: this process owns the private Postgres of the state directory. Released by drop.
#[derive(Debug)]
pub(super) struct OwnerLock {
    file: File,
    path: PathBuf,
}

impl OwnerLock {
    /// Takes the lock, or refuses with the pid of who has it.
    pub async fn take(layout: &Layout) -> Result<Self, ClusterError> {
        let path = layout.owner_lock();
        let Some(file) = lock_within(&path, OWNER_TRY).await? else {
            return Err(ClusterError::InUse {
                state_dir: layout.root().to_owned(),
                pid: read_pid(&path),
            });
        };
        let lock = Self { file, path };
        lock.write(&format!("{}\n", std::process::id()))?;
        Ok(lock)
    }

    /// Says where Postgres accepts connections; before that nobody else uses it.
    pub fn publish(&self, socket_dir: &Path) -> Result<(), ClusterError> {
        self.write(&format!("{}\n{}\n", std::process::id(), socket_dir.display()))
    }

    fn write(&self, text: &str) -> Result<(), ClusterError> {
        let length = self.file.set_len(0);
        length
            .and_then(|()| self.file.write_all_at(text.as_bytes(), 0))
            .map_err(ClusterError::file("write", &self.path))
    }
}

impl Drop for OwnerLock {
    fn drop(&mut self) {
        // So that the next holder is not taken for us before it has written its own pid.
        let _ = self.file.set_len(0);
    }
}

/// Whether a living process holds the owner lock and has published its socket directory.
pub(super) fn is_published(layout: &Layout) -> Result<bool, ClusterError> {
    let path = layout.owner_lock();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(ClusterError::file("open", &path)(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => {
            let text = io::read_to_string(file).map_err(ClusterError::file("read", &path))?;
            let published = text.lines().nth(1).map(Path::new);
            Ok(published == Some(layout.socket_dir().as_path()))
        }
        Err(TryLockError::Error(error)) => Err(ClusterError::file("lock", &path)(error)),
    }
}

/// Takes an exclusive lock on a file, trying until `patience` is over; `None` when somebody else
/// held it all the time.
pub(super) async fn lock_within(path: &Path, patience: Duration) -> Result<Option<File>, ClusterError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(ClusterError::file("open", path))?;
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(None),
            Err(TryLockError::WouldBlock) => sleep(TRY_EVERY).await,
            Err(TryLockError::Error(error)) => return Err(ClusterError::file("lock", path)(error)),
        }
    }
}

fn read_pid(path: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().next()?.parse().ok()
}
