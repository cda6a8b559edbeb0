//! Finds the machine's own Postgres binaries. Nothing is downloaded, nothing is installed.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::ClusterError;

/// Oldest major version that the schema runs on.
pub(super) const MAJOR_MIN: u32 = 14;

/// Names the directory of the binaries; when set, nothing else is looked at.
const BINDIR_VARIABLE: &str = "UPTALLY_POSTGRES_BINDIR";

/// A directory with `postgres` and `initdb` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    pub dir: PathBuf,
    /// Major version, at least [`MAJOR_MIN`].
    pub major: u32,
}

impl Binaries {
    /// The first usable directory in the order of [`candidates`]. `wanted` is the major version of
    /// an existing data directory: no other one can read it.
    pub fn find(data_dir: &Path, wanted: Option<u32>) -> Result<Self, ClusterError> {
        let given = env::var_os(BINDIR_VARIABLE)
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from);
        let looked_in = given.as_ref().map_or_else(
            || "/usr/lib/postgresql, pg_config, PATH or Homebrew".to_owned(),
            |dir| format!("{BINDIR_VARIABLE}={}", dir.display()),
        );
        let dirs = given.map_or_else(candidates, |dir| vec![dir]);
        let found = usable(&dirs, major_of);
        match (wanted, found.first()) {
            (_, None) => Err(ClusterError::NoBinaries { looked_in }),
            (None, Some(first)) => Ok(first.clone()),
            (Some(wanted), Some(_)) => found
                .into_iter()
                .find(|binaries| binaries.major == wanted)
                .ok_or_else(|| ClusterError::WrongVersion {
                    data_dir: data_dir.to_owned(),
                    wanted,
                }),
        }
    }
}

/// Every place worth a look, the preferred first.
fn candidates() -> Vec<PathBuf> {
    let mut dirs = versioned("/usr/lib/postgresql", "");
    dirs.extend(pg_config_bindir());
    dirs.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    dirs.extend(versioned("/opt/homebrew/opt", "postgresql@"));
    dirs.extend(versioned("/usr/local/opt", "postgresql@"));
    dirs
}

/// `<parent>/<prefix><version>/bin` for every version there is, newest first.
fn versioned(parent: &str, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, dir)| dir).collect()
}

fn pg_config_bindir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let dir = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(dir.trim()))
}

/// The candidates that hold a version we can use, in the same order.
fn usable(dirs: &[PathBuf], major_of: impl Fn(&Path) -> Option<u32>) -> Vec<Binaries> {
    dirs.iter()
        .filter_map(|dir| {
            let major = major_of(dir).filter(|&major| major >= MAJOR_MIN)?;
            Some(Binaries {
                dir: dir.clone(),
                major,
            })
        })
        .collect()
}

fn major_of(dir: &Path) -> Option<u32> {
    let postgres = dir.join("postgres");
    if !postgres.is_file() || !dir.join("initdb").is_file() {
        return None;
    }
    let output = Command::new(postgres).arg("--version").output().ok()?;
    parse_major(output.stdout.as_slice())
}

/// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` and `... 18beta1` both start with their major.
fn parse_major(version_output: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(version_output).ok()?;
    let (_, version) = text.split_once("(PostgreSQL) ")?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The major version that wrote a data directory; `None` when there is no cluster yet.
pub(super) fn data_major(data_dir: &Path) -> Result<Option<u32>, ClusterError> {
    let path = data_dir.join(OsStr::new("PG_VERSION"));
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ClusterError::file("read", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test panics")]
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_known_form() {
        for (text, major) in [
            ("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("postgres (PostgreSQL) 9.6.24\n", Some(9)),
            ("something else", None),
            ("", None),
        ] {
            assert_eq!(parse_major(text.as_bytes()), major, "{text:?}");
        }
    }

    #[test]
    fn too_old_and_missing_binaries_are_passed_over() {
        let dirs: Vec<PathBuf> = ["/none", "/nine", "/sixteen", "/fourteen"].map(PathBuf::from).to_vec();
        let majors = |dir: &Path| match dir.to_str() {
            Some("/nine") => Some(9),
            Some("/fourteen") => Some(14),
            Some("/sixteen") => Some(16),
            _ => None,
        };
        let found: Vec<u32> = usable(&dirs, majors).iter().map(|b| b.major).collect();
        assert_eq!(found, [16, 14]);
    }

    #[test]
    fn the_newest_version_directory_comes_first_by_number() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["pg@9", "pg@17", "pg@15", "pg@", "other@18"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let dirs = versioned(parent.path().to_str().unwrap(), "pg@");
        let expected = ["pg@17", "pg@15", "pg@9"].map(|name| parent.path().join(name).join("bin"));
        assert_eq!(dirs, expected);
    }

    #[test]
    fn the_message_without_binaries_is_one_line_for_both_systems() {
        let message = ClusterError::NoBinaries {
            looked_in: "PATH".to_owned(),
        }
        .to_string();
        assert!(!message.contains('\n'), "{message}");
        assert!(message.contains("set DATABASE_URL"), "{message}");
        assert!(message.contains("apt-get install postgresql"), "{message}");
        assert!(message.contains("brew install postgresql@17"), "{message}");
    }
}
