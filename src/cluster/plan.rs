//! What the owner tells the guard, and what the guard tells the owner: one line of JSON each.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::account::Account;
use super::layout::Layout;

/// Name of the one superuser, and of the database.
pub(super) const NAME: &str = "uptally";

/// Everything that the guard has to know; the first line of its standard input. The input stays open
/// as long as the owner lives: its end is the owner's end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub layout: Layout,
    pub bin_dir: PathBuf,
    /// Runs Postgres; `None`: whoever runs the guard.
    pub account: Option<Account>,
    /// Off: a crash of the machine may destroy the data.
    pub durable: bool,
    /// More settings, name and value; they win over ours.
    pub settings: Vec<(String, String)>,
    /// Process id of the owner.
    pub owner_pid: u32,
}

/// A line from the guard's standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// A data directory was made.
    Created,
    /// A Postgres without guard was found and ended.
    EndedOrphan { pid: u32 },
    /// A Postgres process was started; it accepts no connections yet.
    Started,
    /// Postgres ended on its own; it will be started again.
    Ended { how: String },
    /// The guard gives up.
    Failed { why: String },
}

impl Plan {
    /// `initdb` into `target`. Local connections need no password, since only the owner of the
    /// socket directory can make one; connections over TCP are refused even if somebody switched
    /// them on.
    pub fn initdb(&self, target: &std::path::Path) -> Command {
        let mut command = self.command("initdb");
        command.arg("-D").arg(target).args([
            &format!("--username={NAME}"),
            "--auth-local=trust",
            "--auth-host=reject",
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
        ]);
        if !self.durable {
            command.arg("--no-sync");
        }
        command
    }

    /// The server. The order of its first arguments is how `postmaster` recognizes it.
    pub fn postgres(&self) -> Command {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.layout.data_dir());
        let socket_dir = self.layout.socket_dir().display().to_string();
        // Last, because the last one wins: where the socket is.
        let fixed = [
            ("port", "5432"),
            ("unix_socket_directories", &socket_dir),
            ("unix_socket_permissions", "0700"),
        ];
        let not_durable = NOT_DURABLE.iter().filter(|_| !self.durable);
        let own = DEFAULTS.iter().chain(not_durable).copied();
        let extra = self.settings.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        for (name, value) in own.chain(extra).chain(fixed) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command
    }

    /// One of the binaries, run by the account, and by nothing of our surroundings.
    fn command(&self, binary: &str) -> Command {
        let mut command = Command::new(self.bin_dir.join(binary));
        // PGDATA, PGPORT, PGOPTIONS and the like would be obeyed.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C");
        // A lock file with the pid of parent or grandparent is stale to Postgres. In a container the
        // pids of the last life come again.
        command.env("PG_GRANDPARENT_PID", self.owner_pid.to_string());
        // The account may not be allowed into our own working directory.
        command.current_dir("/");
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }
}

/// Modest enough for a small machine, enough for a million stores.
const DEFAULTS: [(&str, &str); 13] = [
    // No TCP port. Only tests that need one ask for it.
    ("listen_addresses", ""),
    ("shared_buffers", "256MB"),
    ("max_connections", "100"),
    ("max_wal_size", "2GB"),
    ("checkpoint_timeout", "10min"),
    ("jit", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_min_messages", "warning"),
    ("log_checkpoints", "off"),
    ("log_line_prefix", "%m [%p] "),
];

const NOT_DURABLE: [(&str, &str); 3] = [
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
];
