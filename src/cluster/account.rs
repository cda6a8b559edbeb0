//! The account that runs Postgres: ourselves, or, as root, somebody else, since Postgres refuses root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::error::ClusterError;

/// Accounts to drop to, the preferred first.
const NAMES: [&str; 2] = ["postgres", "nobody"];

/// An account other than our own. Postgres gets no supplementary groups: the standard library
/// clears them when root changes the user of a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    /// For messages only.
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// `None`: run Postgres as ourselves. As root, the owner of an existing data directory goes
    /// before the names: the account that made it is the only one that Postgres accepts.
    pub fn choose(data_dir: &Path) -> Result<Option<Self>, ClusterError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        if let Ok(owned) = fs::metadata(data_dir)
            && owned.uid() != 0
        {
            return Ok(Some(Self {
                name: format!("with id {}", owned.uid()),
                uid: owned.uid(),
                gid: owned.gid(),
            }));
        }
        let account = NAMES.iter().find_map(|name| Self::look_up(name));
        account.map(Some).ok_or(ClusterError::NoAccount)
    }

    /// `id` rather than /etc/passwd: it also knows the accounts of directory services and of macOS.
    fn look_up(name: &str) -> Option<Self> {
        let ask = |what| {
            let output = Command::new("id").args([what, name]).output().ok()?;
            parse_id(std::str::from_utf8(&output.stdout).ok()?)
        };
        Some(Self {
            name: name.to_owned(),
            uid: ask("-u").filter(|&uid| uid != 0)?,
            gid: ask("-g")?,
        })
    }

    /// Refuses when a directory on the way to `target`, or `target` itself, cannot be entered.
    pub fn check_reach(&self, target: &Path) -> Result<(), ClusterError> {
        let mut way: Vec<&Path> = target.ancestors().collect();
        way.reverse();
        for dir in way {
            let meta = fs::metadata(dir).map_err(ClusterError::file("look at", dir))?;
            if !self.may_enter(meta.uid(), meta.gid(), meta.mode()) {
                return Err(ClusterError::Unreachable {
                    dir: dir.to_owned(),
                    target: target.to_owned(),
                    user: self.name.clone(),
                });
            }
        }
        Ok(())
    }

    fn may_enter(&self, owner: u32, group: u32, mode: u32) -> bool {
        let bit = if owner == self.uid {
            0o100
        } else if group == self.gid {
            0o010
        } else {
            0o001
        };
        mode & bit != 0
    }
}

/// macOS prints the id of nobody as -2.
fn parse_id(text: &str) -> Option<u32> {
    let text = text.trim();
    let signed = || text.parse().ok().map(i32::cast_unsigned);
    text.parse().ok().or_else(signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_be_negative() {
        assert_eq!(parse_id("101\n"), Some(101));
        assert_eq!(parse_id("-2\n"), Some(4_294_967_294));
        assert_eq!(parse_id("id: no such user\n"), None);
        assert_eq!(parse_id(""), None);
    }

    #[test]
    fn only_the_class_that_applies_decides_who_may_enter() {
        let account = Account {
            name: "someone".to_owned(),
            uid: 7,
            gid: 8,
        };
        for (owner, group, mode, may) in [
            (7, 0, 0o700, true),
            (7, 0, 0o077, false),
            (0, 8, 0o010, true),
            (0, 8, 0o701, false),
            (0, 0, 0o711, true),
            (0, 0, 0o700, false),
        ] {
            assert_eq!(account.may_enter(owner, group, mode), may, "{owner} {group} {mode:o}");
        }
    }
}
