//! The reference on the real opening hours, time zones and status sample, where they are at hand:
//! in the directory that `UPTALLY_SHARED_DIR` names, or in `../shared`. Skipped, and said so,
//! where they are not.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read its input has nothing better to do"
)]

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use chrono_tz::Tz;
use uptally::oracle::{RawInterval, RawStore, cells, grid_phase_us, report_csv, up_down_us, windows};
use uptally::time::{HOUR_US, SECOND_US, Timestamp};
use uptally::window::{ClosedTime, Windows};

#[test]
fn all_four_reports_of_the_real_data_hold_together() {
    let Some(data) = data_dir() else {
        println!("skipped: no ../shared/data, and UPTALLY_SHARED_DIR is not set");
        return;
    };
    let stores = read_stores(&data);
    let seen = stores.iter().flat_map(|store| &store.observations);
    let latest = seen.map(|&(at, _)| at).max().unwrap();
    println!("{} stores as of {latest}", stores.len());

    let report = |windows, closed| numbers(&report_csv(&stores, latest, windows, closed));
    let calendar = report(Windows::Calendar, ClosedTime::Uptime);
    let calendar_open = report(Windows::Calendar, ClosedTime::Excluded);
    let rolling = report(Windows::Rolling, ClosedTime::Uptime);
    let rolling_open = report(Windows::Rolling, ClosedTime::Excluded);

    for (all, open) in [(&calendar, &calendar_open), (&rolling, &rolling_open)] {
        assert_eq!(all.len(), stores.len());
        assert_eq!(open.len(), stores.len());
        for ((id, all), open) in all.iter().zip(open.values()) {
            assert_eq!(all[3..], open[3..], "{id}: one downtime");
            for window in 0..3 {
                assert!(open[window] <= all[window], "{id}: closed time is uptime");
            }
        }
    }
    for ((id, rolling), calendar) in rolling.iter().zip(calendar.values()) {
        assert_eq!(rolling[0], calendar[0], "{id}: one last hour");
        assert_eq!(rolling[3], calendar[3], "{id}: one last hour");
        for (window, length) in [60, 24, 168].into_iter().enumerate() {
            let sum = rolling[window] + rolling[window + 3];
            assert!((sum - length * 100).abs() <= 1, "{id}: {sum} hundredths");
        }
        assert!(rolling[4] <= rolling[5], "{id}: the day is in the week");
    }
}

#[test]
fn the_program_imports_the_real_data_and_reports_what_the_reference_says() {
    let Some(data) = data_dir() else {
        println!("skipped: no ../shared/data, and UPTALLY_SHARED_DIR is not set");
        return;
    };
    let stores = read_stores(&data);
    let latest = stores
        .iter()
        .flat_map(|store| &store.observations)
        .map(|&(at, _)| at)
        .max()
        .unwrap();
    // Postgres may run as another user, which has to get in.
    let state = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o711))
        .tempdir()
        .unwrap();
    let uptally = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uptally"));
        command.env_remove("DATABASE_URL").current_dir(state.path());
        let output = command
            .arg("--state-dir")
            .arg(state.path().join("state"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let file = |name: &str| data.join(name).canonicalize().unwrap().display().to_string();
    let (activity, hours) = (file("store_status_sample.csv"), file("menu_hours.csv"));
    let zones = file("timezones.csv");
    uptally(&[
        "import",
        "--activity",
        &activity,
        "--hours",
        &hours,
        "--timezones",
        &zones,
    ]);
    uptally(&["rebuild"]);
    for windows in [Windows::Calendar, Windows::Rolling] {
        for closed in [ClosedTime::Uptime, ClosedTime::Excluded] {
            let (windows_word, closed_word) = (windows.as_str(), closed.as_str());
            let options = [
                "report",
                "--as-of",
                "latest",
                "--windows",
                windows_word,
                "--closed",
                closed_word,
            ];
            let expected = report_csv(&stores, latest, windows, closed);
            let found = uptally(&options);
            let differing = found.lines().zip(expected.lines()).find(|(a, b)| a != b);
            assert!(found == expected, "{windows} {closed}: {differing:?}");
        }
    }
    assert!(uptally(&["verify"]).starts_with("0 differences"));
}

#[test]
fn the_hours_of_the_real_data_add_up_to_their_week() {
    let Some(data) = data_dir() else {
        println!("skipped: no ../shared/data, and UPTALLY_SHARED_DIR is not set");
        return;
    };
    let stores = read_stores(&data);
    let seen = stores.iter().flat_map(|store| &store.observations);
    let latest = seen.map(|&(at, _)| at).max().unwrap();
    // Only those that were ever seen: the others have nothing to add up.
    for store in stores.iter().filter(|s| !s.observations.is_empty()) {
        let [_, _, week] = windows(store.zone, latest, Windows::Rolling);
        let hours = cells(store, HOUR_US, grid_phase_us(store.zone), week);
        assert_eq!(hours.len(), 168, "{}", store.id);
        let open: i64 = hours.iter().map(|&(_, open_us, _)| open_us).sum();
        let down: i64 = hours.iter().map(|&(_, _, down_us)| down_us).sum();
        assert!(
            hours
                .iter()
                .all(|&(_, open_us, down_us)| { (0..=HOUR_US).contains(&open_us) && (0..=open_us).contains(&down_us) })
        );
        assert_eq!(up_down_us(store, week), (open - down, down), "{}", store.id);
    }
}

fn data_dir() -> Option<PathBuf> {
    let given = std::env::var_os("UPTALLY_SHARED_DIR").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let data = given.unwrap_or(beside).join("data");
    data.is_dir().then_some(data)
}

/// Every store of the three files, with Chicago for those without a zone.
fn read_stores(data: &Path) -> Vec<RawStore> {
    let mut stores = BTreeMap::new();
    for [id, zone] in read(data, "timezones.csv", ["store_id", "timezone_str"]) {
        known(&mut stores, id).zone = zone.parse().unwrap();
    }
    let columns = ["store_id", "day", "start_time_local", "end_time_local"];
    for [id, day, start, end] in read(data, "menu_hours.csv", columns) {
        known(&mut stores, id).hours.push(RawInterval {
            day: day.parse().unwrap(),
            start_us: time_of_day_us(&start),
            end_us: time_of_day_us(&end),
        });
    }
    let columns = ["store_id", "timestamp_utc", "status"];
    for [id, at, status] in read(data, "store_status_sample.csv", columns) {
        let observation = (at.parse().unwrap(), status.parse().unwrap());
        let store = known(&mut stores, id);
        if !store.observations.contains(&observation) {
            store.observations.push(observation);
        }
    }
    stores.into_values().collect()
}

fn known(stores: &mut BTreeMap<String, RawStore>, id: String) -> &mut RawStore {
    stores.entry(id.clone()).or_insert_with(|| RawStore {
        id,
        zone: Tz::America__Chicago,
        hours: Vec::new(),
        closures: Vec::new(),
        observations: Vec::<(Timestamp, _)>::new(),
    })
}

/// The named columns of a CSV file, row by row.
fn read<const N: usize>(data: &Path, file: &str, columns: [&str; N]) -> Vec<[String; N]> {
    let mut reader = csv::Reader::from_path(data.join(file)).unwrap();
    let headers = reader.headers().unwrap().clone();
    let places = columns.map(|name| headers.iter().position(|h| h == name).unwrap());
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        places.map(|place| row[place].to_owned())
    });
    rows.collect()
}

fn time_of_day_us(text: &str) -> i64 {
    let mut parts = text.split(':').map(|part| part.parse::<i64>().unwrap());
    let mut next = || parts.next().unwrap();
    (next() * 3600 + next() * 60 + next()) * SECOND_US
}

/// The numbers of a report in hundredths, by store id.
fn numbers(csv: &str) -> BTreeMap<String, [i64; 6]> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        let hundredths = |n: usize| row[n].replace('.', "").parse().unwrap();
        (row[0].to_owned(), [1, 2, 3, 4, 5, 6].map(hundredths))
    });
    rows.collect()
}
