//! What the system says about this process: memory, CPU time, open files, when it was started.
//!
//! Read from `/proc` when somebody asks for the figures; where there is none, these are absent. The names are those that
//! Prometheus's client libraries agree on. They are written here and not by the recorder, whose counters are whole
//! numbers: CPU seconds are not.

use std::fmt::Write as _;
use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// One figure: name, type, explanation, value.
type Figure = (&'static str, &'static str, &'static str, Option<f64>);

/// The figures of this process in the Prometheus text format; empty where the system does not tell.
pub(super) fn render() -> String {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let booted = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text));
    let stat = Stat::parse(&stat);
    let of_stat = |value: fn(&Stat) -> f64| stat.as_ref().map(value);
    let figures: [Figure; 7] = [
        (
            "process_resident_memory_bytes",
            "gauge",
            "Memory of the process that is in RAM",
            of_stat(|stat| stat.resident_pages * as_f64(page_size() as u64)),
        ),
        (
            "process_virtual_memory_bytes",
            "gauge",
            "Address space of the process",
            of_stat(|stat| stat.virtual_bytes),
        ),
        (
            "process_cpu_seconds_total",
            "counter",
            "CPU time of the process, its own and the kernel's for it",
            of_stat(|stat| stat.cpu_ticks / as_f64(clock_ticks_per_second())),
        ),
        (
            "process_threads",
            "gauge",
            "Threads of the process",
            of_stat(|stat| stat.threads),
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "When the process was started, in seconds since 1970",
            stat.as_ref()
                .zip(booted)
                .map(|(stat, booted)| booted + stat.started_ticks / as_f64(clock_ticks_per_second())),
        ),
        (
            "process_open_fds",
            "gauge",
            "File descriptors that are open",
            // One of them is for looking.
            fs::read_dir("/proc/self/fd")
                .ok()
                .map(|files| as_f64(files.count() as u64) - 1.0),
        ),
        (
            "process_max_fds",
            "gauge",
            "File descriptors that may be open",
            stat.as_ref().and(getrlimit(Resource::Nofile).current).map(as_f64),
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in figures {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
        }
    }
    text
}

/// What `/proc/self/stat` says, as far as it is wanted.
#[derive(Debug, PartialEq)]
struct Stat {
    /// User and system time, in clock ticks.
    cpu_ticks: f64,
    threads: f64,
    /// Since the machine was started, in clock ticks.
    started_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, and may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Fields are counted from 1 in the manual; the first of these is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Stat {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            started_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// Seconds since 1970 at which the machine was started.
fn boot_time(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "figures are floating point")]
fn as_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed parse is a failed test")]

    use super::*;

    #[test]
    fn a_name_with_parentheses_shifts_no_field() {
        let text =
            "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 5 0 1234 900000 77 18446744073709551615";
        let stat = Stat {
            cpu_ticks: 300.0,
            threads: 5.0,
            started_ticks: 1234.0,
            virtual_bytes: 900_000.0,
            resident_pages: 77.0,
        };
        assert_eq!(Stat::parse(text), Some(stat));
        for cut_off in ["", "42 (a", "42 (a) S 1 2"] {
            assert_eq!(Stat::parse(cut_off), None, "{cut_off}");
        }
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_figures_are_those_of_this_process() {
        let burn = std::time::Instant::now();
        while burn.elapsed() < std::time::Duration::from_millis(30) {}
        let text = render();
        let figure = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap().parse::<f64>().unwrap()
        };
        assert!((1e6..1e11).contains(&figure("process_resident_memory_bytes")), "{text}");
        assert!(figure("process_virtual_memory_bytes") >= figure("process_resident_memory_bytes"));
        assert!((0.01..3600.0).contains(&figure("process_cpu_seconds_total")), "{text}");
        assert!(figure("process_threads") >= 1.0);
        assert!(figure("process_max_fds") >= figure("process_open_fds"));
        let now = as_f64(u64::try_from(crate::clock::Clock::System.now().micros()).unwrap()) / 1e6;
        let age = now - figure("process_start_time_seconds");
        assert!((-2.0..3600.0).contains(&age), "{age}");
    }
}
