//! The example `replay` runs, and its report is the same from files as from memory.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "../examples/replay.rs"]
#[allow(dead_code, reason = "its main is the example's")]
mod example;

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use uptally::fleet::{Fleet, FleetOptions};
use uptally::report::csv::HEADER;

#[test]
fn a_generated_fleet_gives_a_report_and_so_do_its_files() {
    let shown = replay(&[]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], HEADER.trim_end());
    assert_eq!(lines.len(), 9);
    for line in &lines[1..] {
        let sum = |column: usize| -> f64 {
            let number = |n| line.split(',').nth(n).unwrap().parse::<f64>().unwrap();
            number(column) + number(column + 3)
        };
        assert!((sum(1) - 60.0).abs() < 0.02, "{line}: a last hour is 60 minutes");
        assert!(
            (sum(3) - 168.0).abs() < 0.02,
            "{line}: a week without clock change is 168 hours"
        );
    }

    let dir = tempfile::tempdir().unwrap();
    let fleet = Fleet::generate(FleetOptions {
        stores: 200,
        days: 15,
        ..FleetOptions::default()
    });
    let create = |name| File::create(dir.path().join(name)).unwrap();
    fleet.write_activity_csv(create("activity.csv")).unwrap();
    fleet.write_hours_csv(create("hours.csv")).unwrap();
    fleet.write_timezones_csv(create("timezones.csv")).unwrap();
    assert_eq!(replay(&files(dir.path())), shown);
}

#[test]
fn missing_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = example::replay(&files(dir.path()), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("timezones.csv"), "{error}");
    let error = example::replay(&files(dir.path())[..2], &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("found 2"), "{error}");
}

fn replay(files: &[OsString]) -> String {
    let mut out = Vec::new();
    example::replay(files, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn files(dir: &Path) -> [OsString; 3] {
    ["activity.csv", "hours.csv", "timezones.csv"].map(|name| dir.join(name).into_os_string())
}
