//! The program as a user meets it: every command, on a private Postgres in a state directory of the test's own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::serve::{Serve, http};
use support::{TestDatabase, fixture, state_dir, within};
use tempfile::TempDir;
use uptally::fleet::{Fleet, FleetOptions};
use uptally::time::{HOUR_US, Timestamp};

const SEED: u64 = 7;
const STORES: u32 = 60;

/// A directory with the three files of a small fleet and room for a private Postgres.
struct Workplace {
    dir: TempDir,
}

impl Workplace {
    fn new() -> Self {
        // Postgres may run as another user, which has to get in.
        let dir = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o711))
            .tempdir()
            .unwrap();
        let fleet = Fleet::generate(FleetOptions {
            stores: STORES,
            days: 3,
            poll_interval_us: HOUR_US,
            missing: 0.3,
            seed: SEED,
            end: "2023-01-25T18:13:22Z".parse::<Timestamp>().unwrap(),
        });
        let file = |name: &str| File::create(dir.path().join(name)).unwrap();
        fleet.write_activity_csv(file("activity.csv")).unwrap();
        fleet.write_hours_csv(file("hours.csv")).unwrap();
        fleet.write_closures_csv(file("closures.csv")).unwrap();
        fleet.write_timezones_csv(file("zones.csv")).unwrap();
        Workplace { dir }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uptally"));
        command
            .env_remove("DATABASE_URL")
            .env_remove("UPTALLY_STATE_DIR")
            .current_dir(self.dir.path());
        command
            .arg("--state-dir")
            .arg(self.dir.path().join("state"))
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed; returns its stdout.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn import(&self) -> String {
        self.ok(&[
            "import",
            "--activity",
            "activity.csv",
            "--hours",
            "hours.csv",
            "--closures",
            "closures.csv",
            "--timezones",
            "zones.csv",
        ])
    }

    fn serve(&self) -> Served {
        let mut child = self
            .command(&["serve", "--listen", "127.0.0.1:0"])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = None;
        while address.is_none() {
            let line = lines.next().expect("the daemon says where it listens").unwrap();
            address = line
                .split_once("listening on http://")
                .map(|(_, rest)| rest.trim().to_owned());
        }
        // Whoever closes this pipe would stop the log.
        std::thread::spawn(move || lines.for_each(drop));
        let served = Served {
            child,
            address: address.unwrap(),
        };
        served.until("/readyz", 200);
        served
    }

    fn psql(&self, sql: &str) {
        let done = Command::new("psql")
            .args([
                "-X",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "uptally",
                "-d",
                "uptally",
                "-h",
            ])
            .arg(self.dir.path().join("state/socket"))
            .args(["-c", sql])
            .output()
            .unwrap();
        assert!(done.status.success(), "{sql}: {}", text(&done.stderr));
    }
}

/// A running `uptally serve`, killed if the test ends before it does.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    /// Asks until the answer has a status.
    fn until(&self, path: &str, status: u16) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let (found, _, body) = http(&self.address, "GET", path);
            if found == status {
                return body;
            }
            assert!(Instant::now() < deadline, "GET {path}: {found} {body}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn report(&self, query: &str) -> String {
        let (status, head, body) = http(&self.address, "POST", &format!("/trigger_report?{query}"));
        assert_eq!(status, 202, "{body}");
        let location = head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
        self.until(location, 200)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn import_report_and_verify_without_a_daemon() {
    let place = Workplace::new();
    let refused = place.run(&["report"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("uptally migrate"),
        "{}",
        text(&refused.stderr)
    );
    place.import();
    assert!(
        place.import().contains("store_timezones"),
        "a second import changes nothing and says so"
    );
    let report = place.ok(&["report", "--as-of", "latest"]);
    assert_eq!(report.lines().count(), STORES as usize + 1);
    assert!(report.starts_with("store_id,uptime_last_hour,"));
    assert_eq!(place.run(&["verify"]).status.code(), Some(1), "there is no rollup yet");
    assert!(place.ok(&["rebuild"]).contains(&format!("{STORES} stores")));
    assert!(place.ok(&["verify"]).starts_with("0 differences"));
    assert_eq!(place.ok(&["report", "--as-of", "latest"]), report);
    place.ok(&["report", "--as-of", "latest", "-o", "report.csv"]);
    assert_eq!(fs::read_to_string(place.dir.path().join("report.csv")).unwrap(), report);
    let early = place.run(&["report", "--as-of", "2023-01-01T00:00:00Z"]);
    assert_eq!(early.status.code(), Some(1));
    assert!(
        text(&early.stderr).contains("expected --as-of from 2023-01-22T"),
        "{}",
        text(&early.stderr)
    );
}

#[test]
fn bad_rows_go_to_a_file_and_strict_loads_nothing() {
    let place = Workplace::new();
    let path = place.dir.path().join("bad.csv");
    fs::write(
        &path,
        "store_id,status,timestamp_utc\na,active,2023-01-25 10:00:00 UTC\nb,up,2023-01-25 10:00:00 UTC\n",
    )
    .unwrap();
    let strict = place.run(&["import", "--strict", "--activity", "bad.csv"]);
    assert_eq!(strict.status.code(), Some(1));
    let message = text(&strict.stderr);
    assert!(
        message.contains("bad.csv") && message.contains('3') && message.contains("active or inactive"),
        "{message}"
    );
    place.ok(&["import", "--activity", "bad.csv"]);
    let rejects = fs::read_to_string(place.dir.path().join("bad.csv.rejects.csv")).unwrap();
    assert!(rejects.contains("bad.csv,3,status,"), "{rejects}");
    let report = place.ok(&["report"]);
    assert_eq!(report.lines().count(), 2, "{report}");
}

#[test]
fn the_daemon_answers_survives_and_repairs() {
    let place = Workplace::new();
    let served = place.serve();
    place.import();
    let report = served.report("as_of=latest&windows=rolling");
    assert_eq!(report.lines().count(), STORES as usize + 1);
    assert_eq!(
        place.ok(&["report", "--as-of", "latest", "--windows", "rolling"]),
        report,
        "the command beside the daemon"
    );

    let second = place.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(75), "{}", text(&second.stderr));
    assert!(text(&second.stderr).contains("in use by"), "{}", text(&second.stderr));

    // A new row, a correction, a deletion, new hours: each is in the next report.
    place.psql("INSERT INTO store_activity VALUES ('=new', '2023-01-25 17:30:00Z', 'inactive')");
    assert!(
        served.report("as_of=latest").contains("\n'=new,30.00,"),
        "a formula is neutralised, and 17:30 to 18:00 is down"
    );
    place.psql("UPDATE store_activity SET status = 'active' WHERE store_id = '=new'");
    assert!(served.report("as_of=latest").contains("\n'=new,60.00,"));
    place.psql("INSERT INTO store_activity VALUES ('=new', '2023-01-25 17:15:00Z', 'inactive')");
    place.psql("INSERT INTO store_business_hours VALUES ('=new', 2, '11:20', '11:25')"); // 17:20 to 17:25 UTC
    assert!(served.report("as_of=latest").contains("\n'=new,55.00,"));
    place.psql("DELETE FROM store_activity WHERE store_id = '=new' AND status = 'inactive'");
    assert!(served.report("as_of=latest").contains("\n'=new,60.00,"));
    assert!(place.ok(&["verify"]).starts_with("0 differences"));

    // Killed, started again: the same numbers, and what was known of reports.
    let (_, _, body) = http(&served.address, "POST", "/trigger_report?as_of=latest");
    let id = body.split('"').nth(3).unwrap().to_owned();
    let expected = served.until(&format!("/get_report?report_id={id}"), 200);
    served.signal(Signal::KILL);
    served.wait();
    let served = place.serve();
    assert_eq!(served.until(&format!("/get_report?report_id={id}"), 200), expected);
    assert_eq!(served.report("as_of=latest"), expected);

    // Drift that somebody made by hand is found, named and repaired.
    std::thread::sleep(Duration::from_millis(1500)); // the last flush must not repair it by chance
    place.psql("UPDATE uptally.rollup_down SET down_us = 1 WHERE (store_no, cell_start) = (SELECT store_no, min(cell_start) FROM uptally.rollup_down GROUP BY store_no LIMIT 1)");
    let drift = place.run(&["verify"]);
    assert_eq!(drift.status.code(), Some(1));
    assert!(
        text(&drift.stdout).contains("downtime in us: expected "),
        "{}",
        text(&drift.stdout)
    );
    place.ok(&["rebuild"]);
    assert!(place.ok(&["verify"]).starts_with("0 differences"));

    served.signal(Signal::TERM);
    assert_eq!(served.wait(), Some(0));
    let left: Vec<PathBuf> = fs::read_dir(place.dir.path().join("csvs"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert!(
        left.iter().all(|path| path.extension().is_some_and(|e| e == "csv")),
        "{left:?}"
    );
}

#[test]
fn a_generated_fleet_is_imported_as_it_is_and_never_overwritten() {
    let place = Workplace::new();
    let generate = ["generate", "--out", "new/fleet", "--stores", "30", "--days", "2"];
    let said = place.ok(&generate);
    let rows = |name: &str| fs::read_to_string(place.dir.path().join("new/fleet").join(name)).unwrap();
    for name in ["store_status.csv", "menu_hours.csv", "closures.csv", "timezones.csv"] {
        let count = rows(name).lines().count() - 1;
        assert!(said.contains(&format!("{count} rows in new/fleet/{name}\n")), "{said}");
    }
    let summary = place.ok(&[
        "import",
        "--strict",
        "--activity",
        "new/fleet/store_status.csv",
        "--hours",
        "new/fleet/menu_hours.csv",
        "--closures",
        "new/fleet/closures.csv",
        "--timezones",
        "new/fleet/timezones.csv",
    ]);
    assert_eq!(summary.lines().count(), 5, "{summary}");

    let status = rows("store_status.csv");
    fs::remove_file(place.dir.path().join("new/fleet/menu_hours.csv")).unwrap();
    let refused = place.run(&generate);
    assert_eq!(refused.status.code(), Some(1));
    let message = text(&refused.stderr);
    assert!(message.contains("timezones.csv exists already") || message.contains("store_status.csv exists already"));
    assert_eq!(message.lines().count(), 1, "{message}");
    assert_eq!(rows("store_status.csv"), status);

    place.ok(&[
        "generate", "--out", "other", "--stores", "30", "--days", "2", "--order", "store",
    ]);
    let by_store = fs::read_to_string(place.dir.path().join("other/store_status.csv")).unwrap();
    let sorted = |csv: &str| csv.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&by_store), sorted(&status), "the same rows");
    assert_ne!(by_store, status, "in another order");

    fs::write(place.dir.path().join("file"), "").unwrap();
    let refused = place.run(&["generate", "--out", "file/fleet"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("cannot make the directory file/fleet"));
}

#[test]
fn the_demo_shows_a_report_and_leaves_nothing() {
    let place = Workplace::new();
    let mut command = place.command(&["demo", "--once", "--stores", "50", "--seed", "1"]);
    // The demo's own directories go below this one.
    let output = command.env("TMPDIR", place.dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("store_id,uptime_last_hour"),
        "{}",
        text(&output.stdout)
    );
    let left = fs::read_dir(place.dir.path()).unwrap().filter(|e| {
        e.as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with("uptally-demo-")
    });
    assert_eq!(left.count(), 0);
}

/// A job that was due within the last minute is made at once by a daemon that starts.
#[tokio::test]
async fn a_job_of_the_configuration_makes_its_report() {
    let database = TestDatabase::start().await;
    fixture::fill(&database.connect().await, 3).await;
    let dir = state_dir();
    let jobs = [("UPTALLY__JOBS__REPORTS", "minutely * * * * * UTC format=json")];
    let mut serve = Serve::spawn_with(dir.path(), Some(database.url()), &jobs);
    serve.wait_until_ready();
    let (mut file, mut stores) = (String::new(), None);
    within(Duration::from_secs(10), "it is there", async || {
        let reports: serde_json::Value = serde_json::from_str(&serve.request("GET", "/api/v1/reports").1).unwrap();
        let report = &reports["reports"][0];
        if report["state"] != "complete" {
            return false;
        }
        assert_eq!(report["job"], "minutely");
        assert_eq!(report["due_at"], report["as_of"]);
        stores = report["stores"].as_u64();
        file = serve.request("GET", report["file"].as_str().unwrap()).1;
        true
    })
    .await;
    assert_eq!(Some(file.matches("\"store_id\"").count() as u64), stores);
    assert!(stores > Some(3));
}
