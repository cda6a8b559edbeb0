//! Where everything of a private Postgres lies in its state directory.
//!
//! ```text
//! <state>/lock            held by the owner; its pid, and the socket directory once Postgres accepts
//! <state>/postgres.lock   held by the guard for as long as Postgres may live
//! <state>/postgres        the data directory
//! <state>/postgres.new.N  a data directory in the making (by guard N), renamed when it is whole
//! <state>/postgres.log    what Postgres says
//! <state>/socket          the socket, unless the path would be too long
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::account::Account;
use super::error::ClusterError;

/// Longest path of a socket that we use, bytes. The kernel's limit is 107 on Linux, 103 on macOS.
const SOCKET_PATH_BYTES_MAX: usize = 100;
/// The socket's name, as Postgres derives it from the port.
const SOCKET_NAME: &str = ".s.PGSQL.5432";
/// The log is emptied when it is longer than this.
const LOG_BYTES_MAX: u64 = 10_000_000;
/// How the names of unfinished data directories start.
const UNFINISHED_PREFIX: &str = "postgres.new.";

/// The paths in one state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    /// Canonical, so that every process derives the same socket directory; UTF-8.
    root: PathBuf,
}

impl Layout {
    /// Creates the state directory if it is not there. Root's can be entered by everyone (mode 0711),
    /// because another account runs Postgres; what lies in it protects itself.
    pub fn create(state_dir: &Path) -> Result<Self, ClusterError> {
        if !state_dir.exists() {
            fs::create_dir_all(state_dir).map_err(ClusterError::file("create", state_dir))?;
            let is_root = rustix::process::geteuid().is_root();
            let mode = if is_root { 0o711 } else { 0o700 };
            fs::set_permissions(state_dir, Permissions::from_mode(mode))
                .map_err(ClusterError::file("set the mode of", state_dir))?;
        }
        Self::open(state_dir)
    }

    /// A state directory that exists.
    pub fn open(state_dir: &Path) -> Result<Self, ClusterError> {
        let root = fs::canonicalize(state_dir).map_err(ClusterError::file("open", state_dir))?;
        if root.to_str().is_none() {
            return Err(ClusterError::NotUtf8(root));
        }
        Ok(Self { root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn owner_lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub fn postgres_lock(&self) -> PathBuf {
        self.root.join("postgres.lock")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.root.join("postgres")
    }

    pub fn log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    /// `<state>/socket` if the kernel takes the path and Postgres's list of directories needs no
    /// quoting; else a directory in /tmp that belongs to this state directory alone.
    pub fn socket_dir(&self) -> PathBuf {
        let near = self.root.join("socket");
        let bytes = near.as_os_str().as_encoded_bytes();
        let fits = bytes.len() + 1 + SOCKET_NAME.len() <= SOCKET_PATH_BYTES_MAX;
        if fits && !bytes.iter().any(|byte| b",\"".contains(byte)) {
            return near;
        }
        let hash = fnv1a(self.root.as_os_str().as_encoded_bytes());
        PathBuf::from(format!("/tmp/uptally-{hash:016x}"))
    }

    /// Where a new data directory is made, by the process with this id.
    pub fn unfinished_data_dir(&self, pid: u32) -> PathBuf {
        self.root.join(format!("{UNFINISHED_PREFIX}{pid}"))
    }

    /// Removes what a killed initdb left.
    pub fn remove_unfinished(&self) -> Result<(), ClusterError> {
        let list = ClusterError::file("list", &self.root);
        for entry in fs::read_dir(&self.root).map_err(list)?.flatten() {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(UNFINISHED_PREFIX.as_bytes()) {
                fs::remove_dir_all(entry.path()).map_err(ClusterError::file("remove", &entry.path()))?;
            }
        }
        Ok(())
    }

    /// Creates the socket directory if it is not there, and makes sure that it is ours alone:
    /// whoever may enter it is let in without a password.
    pub fn prepare_socket_dir(&self, account: Option<&Account>) -> Result<(), ClusterError> {
        let dir = self.socket_dir();
        make_private_dir(&dir, account)?;
        let owner = account.map_or_else(own_uid, |account| account.uid);
        check_private_dir(&dir, owner)
    }

    /// The socket, for a client: refuses a directory in which somebody else than the owner of the
    /// data could have put it.
    pub fn trusted_socket(&self) -> Result<PathBuf, ClusterError> {
        let (data_dir, dir) = (self.data_dir(), self.socket_dir());
        let data = fs::metadata(&data_dir).map_err(ClusterError::file("look at", &data_dir))?;
        check_private_dir(&dir, data.uid())?;
        Ok(dir.join(SOCKET_NAME))
    }

    /// Removes a socket directory outside of the state directory once Postgres has gone.
    pub fn remove_far_socket_dir(&self) {
        let dir = self.socket_dir();
        if !dir.starts_with(&self.root) {
            // Not empty if Postgres was killed; the next start cleans it by using it.
            let _ = fs::remove_dir(dir);
        }
    }

    /// The log, for appending.
    pub fn open_log(&self) -> Result<File, ClusterError> {
        let path = self.log();
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(ClusterError::file("open", &path))
    }

    /// Empties a log that grew too long. Its writers append, so they go on at the new end.
    pub fn bound_log(&self) -> Result<(), ClusterError> {
        let log = self.open_log()?;
        let path = self.log();
        let length = log.metadata().map_err(ClusterError::file("look at", &path))?.len();
        if length > LOG_BYTES_MAX {
            log.set_len(0).map_err(ClusterError::file("empty", &path))?;
        }
        Ok(())
    }
}

/// Creates a directory of mode 0700 that belongs to `account`, or takes an existing one: also one that
/// we created and were killed before giving it away.
pub(super) fn make_private_dir(dir: &Path, account: Option<&Account>) -> Result<(), ClusterError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(ClusterError::file("create", dir)(error));
        }
        _ => {}
    }
    let meta = fs::symlink_metadata(dir).map_err(ClusterError::file("look at", dir))?;
    if let Some(account) = account
        && meta.is_dir()
        && meta.uid() == own_uid()
    {
        lchown(dir, Some(account.uid), Some(account.gid)).map_err(ClusterError::file("change the owner of", dir))?;
    }
    Ok(())
}

fn check_private_dir(dir: &Path, owner: u32) -> Result<(), ClusterError> {
    let meta = fs::symlink_metadata(dir).map_err(ClusterError::file("look at", dir))?;
    if meta.is_dir() && meta.uid() == owner && meta.mode() & 0o777 == 0o700 {
        Ok(())
    } else {
        Err(ClusterError::SocketDirForeign(dir.to_owned()))
    }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// FNV-1a, 64 bits: the same in every release, which the standard library's hasher does not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test panics")]
    use super::*;

    fn layout(root: &str) -> Layout {
        Layout {
            root: PathBuf::from(root),
        }
    }

    #[test]
    fn the_socket_is_in_the_state_directory_unless_the_path_forbids() {
        let near = layout("/var/lib/uptally").socket_dir();
        assert_eq!(near, Path::new("/var/lib/uptally/socket"));

        // 100 bytes with "/socket/.s.PGSQL.5432" behind it, and one more.
        let longest = format!("/{}", "x".repeat(78));
        assert!(layout(&longest).socket_dir().starts_with(&longest));
        for far in [format!("{longest}x"), "/a,b".to_owned(), "/a\"b".to_owned()] {
            let dir = layout(&far).socket_dir();
            assert!(dir.starts_with("/tmp"), "{far}: {}", dir.display());
            assert_ne!(dir, layout("/c,d").socket_dir(), "each its own");
        }
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // From the test vectors of the authors.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_directory_that_others_may_enter_or_that_is_a_link_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("socket");
        make_private_dir(&dir, None).unwrap();
        make_private_dir(&dir, None).unwrap();
        check_private_dir(&dir, own_uid()).unwrap();
        check_private_dir(&dir, own_uid() + 1).unwrap_err();

        fs::set_permissions(&dir, Permissions::from_mode(0o710)).unwrap();
        check_private_dir(&dir, own_uid()).unwrap_err();

        fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        check_private_dir(&link, own_uid()).unwrap_err();
    }

    #[test]
    fn a_long_log_is_emptied_and_a_short_one_kept() {
        let parent = tempfile::tempdir().unwrap();
        let layout = Layout::create(&parent.path().join("state")).unwrap();
        layout.open_log().unwrap().set_len(LOG_BYTES_MAX).unwrap();
        layout.bound_log().unwrap();
        assert_eq!(fs::metadata(layout.log()).unwrap().len(), LOG_BYTES_MAX);
        layout.open_log().unwrap().set_len(LOG_BYTES_MAX + 1).unwrap();
        layout.bound_log().unwrap();
        assert_eq!(fs::metadata(layout.log()).unwrap().len(), 0);
    }
}
