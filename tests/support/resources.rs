//! What a process holds, where the system tells (Linux).

use std::fmt;
use std::fs::{read_dir, read_to_string};
use std::time::Duration;

use rustix::process::Pid;

/// Memory, open files and children of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    pub rss_kib: u64,
    pub descriptors: u64,
    pub children: u64,
}

impl Resources {
    /// None where there is no `/proc`.
    pub fn of(pid: Pid) -> Option<Self> {
        let dir = format!("/proc/{}", pid.as_raw_nonzero());
        let status = read_to_string(format!("{dir}/status")).ok()?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let rss_kib = rss.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        let mut children = 0;
        for task in read_dir(format!("{dir}/task")).ok()?.flatten() {
            // A thread may have ended meanwhile.
            let text = read_to_string(task.path().join("children")).unwrap_or_default();
            children += text.split_whitespace().count();
        }
        Some(Resources {
            rss_kib,
            descriptors: u64::try_from(read_dir(format!("{dir}/fd")).ok()?.count()).ok()?,
            children: u64::try_from(children).ok()?,
        })
    }

    /// Fails if something is left over from before. A few descriptors come with a session or a connection that was just
    /// opened; of memory the allocator keeps what it likes.
    pub fn assert_back_at(&self, before: &Resources) {
        assert!(
            self.descriptors <= before.descriptors * 11 / 10 + 4 && self.children <= before.children,
            "it held {before:?}, and now {self:?}"
        );
    }
}

/// How memory and descriptors went, by least squares over samples that were taken while nothing was going on.
#[derive(Debug, Clone, Copy)]
pub struct Trend {
    mean_mib: f64,
    mib_per_hour: f64,
    /// Growth from the first to the last sample, by the slope.
    grown_mib: f64,
    /// First, fewest, most and last.
    descriptors: [u64; 4],
}

/// What an allocator may keep beyond a tenth in a run of minutes.
const GROWTH_MIB_MAX: f64 = 4.0;

impl Trend {
    /// Of samples in order, without the first quarter, in which the process warms up. None: too few.
    #[expect(clippy::cast_precision_loss, reason = "figures")]
    pub fn of(samples: &[(Duration, Resources)]) -> Option<Self> {
        let warm = &samples[samples.len() / 4..];
        let [(first, from), .., (last, to)] = warm else {
            return None;
        };
        let points = warm
            .iter()
            .map(|(at, held)| (at.as_secs_f64() / 3600.0, held.rss_kib as f64 / 1024.0));
        let n = warm.len() as f64;
        let mean = points
            .clone()
            .fold((0.0, 0.0), |sum, point| (sum.0 + point.0 / n, sum.1 + point.1 / n));
        let (above, below) = points.fold((0.0, 0.0), |sum, point| {
            let x = point.0 - mean.0;
            (sum.0 + x * (point.1 - mean.1), sum.1 + x * x)
        });
        let mib_per_hour = above / below;
        let held = warm.iter().map(|(_, held)| held.descriptors);
        Some(Trend {
            mean_mib: mean.1,
            mib_per_hour,
            grown_mib: mib_per_hour * last.saturating_sub(*first).as_secs_f64() / 3600.0,
            descriptors: [from.descriptors, held.clone().min()?, held.max()?, to.descriptors],
        })
    }

    /// Fails if memory or descriptors grew.
    pub fn assert_flat(&self) {
        let [first, _, _, last] = self.descriptors;
        assert!(
            self.grown_mib <= self.mean_mib / 10.0 + GROWTH_MIB_MAX && last <= first * 11 / 10 + 4,
            "not flat: {self}"
        );
    }
}

impl fmt::Display for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, fewest, most, last] = self.descriptors;
        write!(
            f,
            "memory of one life {:.1} MiB, {:+.2} MiB/h ({:+.2} MiB in all); descriptors {first} at first, {last} at last, \
             {fewest} to {most} meanwhile",
            self.mean_mib, self.mib_per_hour, self.grown_mib
        )
    }
}
