//! What a process holds, where the system tells (Linux).

use rustix::process::Pid;

/// Memory and open files of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    pub rss_kib: u64,
    pub descriptors: u64,
}

impl Resources {
    /// None where there is no `/proc`.
    pub fn of(pid: Pid) -> Option<Self> {
        let pid = pid.as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let rss_kib = rss.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        Some(Resources {
            rss_kib,
            descriptors: u64::try_from(descriptors).ok()?,
        })
    }
}
