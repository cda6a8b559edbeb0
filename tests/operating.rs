//! The commands of docs/operating.md, run as they stand there against a real daemon.
//!
//! Those that need a machine with systemd of their own are run by scripts/test-package; a test checks that each is run by
//! somebody.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::serve::Serve;
use support::{TestDatabase, state_dir};

/// The blocks that are run here.
const HERE: [&str; 5] = ["backup", "migrate", "prune", "restore", "standby"];

const AS_OF: &str = "2023-01-23T18:03:00Z";

/// The named blocks of the paper, in its order.
fn blocks() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let parts = text.split("<!-- run ").skip(1);
    let read = |part: &str| {
        let (name, rest) = part.split_once(" -->\n```sh\n").expect("a box follows a name");
        let (commands, _) = rest.split_once("\n```\n").unwrap();
        (name.to_owned(), commands.to_owned())
    };
    parts.map(read).collect()
}

fn block(name: &str) -> String {
    let found = blocks().into_iter().find(|(other, _)| other == name);
    found.unwrap_or_else(|| panic!("no block {name}")).1
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A place to type commands in.
struct Terminal {
    dir: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Terminal {
    fn new(database: &TestDatabase) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_uptally"));
        let path = format!(
            "{}:{}",
            program.parent().unwrap().display(),
            std::env::var("PATH").unwrap()
        );
        let dir = state_dir();
        Terminal {
            variables: vec![
                ("PATH", path),
                ("DATABASE_URL", database.url().to_owned()),
                ("UPTALLY_STATE_DIR", dir.path().display().to_string()),
            ],
            dir,
        }
    }

    /// What the commands print, if all of them succeed. What runs in the background ends with them.
    fn run(&self, commands: &str) -> String {
        let ended = "trap 'kill $(jobs -p) 2>/dev/null && wait || true' EXIT";
        let Output { status, stdout, stderr } = Command::new("bash")
            .args(["-eu", "-o", "pipefail", "-c", &format!("{ended}\n{commands}")])
            .current_dir(self.dir.path())
            .envs(self.variables.iter().map(|(name, text)| (name, text)))
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "{commands}\n{status}\n{stderr}");
        String::from_utf8(stdout).unwrap()
    }

    fn import_the_example(&self) {
        let example = root().join("docs/example");
        let file = |name: &str| example.join(name).display().to_string();
        let (status, hours) = (file("status.csv"), file("hours.csv"));
        let (zones, closures) = (file("timezones.csv"), file("closures.csv"));
        self.run(&format!(
            "uptally import --activity {status} --hours {hours} --timezones {zones} --closures {closures}"
        ));
    }

    fn report(&self) -> String {
        self.run(&format!("uptally report --as-of {AS_OF}"))
    }
}

#[test]
fn every_command_of_the_paper_is_run_by_somebody() {
    let named: BTreeSet<String> = blocks().into_iter().map(|(name, _)| name).collect();
    let inside = std::fs::read_to_string(root().join("scripts/test-package-inside")).unwrap();
    let elsewhere = inside.lines().filter_map(|line| line.trim().strip_prefix("block "));
    let run: BTreeSet<String> = elsewhere.chain(HERE).map(str::to_owned).collect();
    assert_eq!(named, run);
    let text = std::fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let shown = text.matches("<!-- shown: ").count();
    assert_eq!(
        text.matches("\n```sh\n").count(),
        named.len() + shown,
        "each box has a name or a reason"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_are_backed_up_and_restored_beside_daemons() {
    let (old, new) = (TestDatabase::start().await, TestDatabase::start_empty().await);
    let mut terminal = Terminal::new(&old);
    terminal.import_the_example();
    let states = (state_dir(), state_dir());
    let mut serve = Serve::spawn(states.0.path(), Some(old.url()));
    serve.wait_until_ready();
    let expected = serve.report(AS_OF.parse().unwrap());
    terminal.run(&block("backup"));
    terminal.variables.push(("NEW_DATABASE_URL", new.url().to_owned()));
    // The daemon makes the tables, and follows what the restore brings.
    let mut serve = Serve::spawn(states.1.path(), Some(new.url()));
    serve.wait_until_ready();
    let said = terminal.run(&block("restore"));
    assert!(said.contains("\n0 differences; 5 stores"), "{said}");
    assert_eq!(serve.report(AS_OF.parse().unwrap()), expected);
    let count = "SELECT count(*) FROM public.reports WHERE state = 'complete'";
    let reports: i64 = new.connect().await.query_one(count, &[]).await.unwrap().get(0);
    assert!(reports >= 1, "the record of reports came along");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_takes_over_without_a_gap() {
    let database = TestDatabase::start().await;
    let mut terminal = Terminal::new(&database);
    terminal.run(&block("migrate"));
    let state = state_dir();
    let mut serve = Serve::spawn(state.path(), Some(database.url()));
    serve.wait_until_ready();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    terminal
        .variables
        .push(("OLD_DAEMON", serve.pid().as_raw_nonzero().to_string()));
    terminal.run(&block("standby").replace("8081", &port.to_string()));
    assert_eq!(serve.exit_code(std::time::Duration::from_secs(9)), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_raw_rows_changes_no_report() {
    let database = TestDatabase::start().await;
    let terminal = Terminal::new(&database);
    terminal.import_the_example();
    let client = database.connect().await;
    // Rows on both sides of the line, 401 days before the newest: hourly ones, one store inactive across it.
    let history = "INSERT INTO public.store_activity (store_id, timestamp_utc, status)
        SELECT store, at, CASE WHEN store = 'bakery' AND at > '2021-12-10Z' THEN 'inactive' ELSE 'active' END
        FROM unnest('{bakery,kiosk}'::text[]) AS store,
             generate_series('2021-12-01Z'::timestamptz, '2021-12-24Z', '1 hour') AS at";
    client.batch_execute(history).await.unwrap();
    let state = state_dir();
    let mut serve = Serve::spawn(state.path(), Some(database.url()));
    serve.wait_until_ready();
    let old = "2022-01-10T18:03:00Z".parse().unwrap();
    let before = (terminal.report(), serve.report(old));
    assert!(before.1.contains("bakery,0.00"), "it was down: {}", before.1);
    terminal.run(&block("prune"));
    let left = "SELECT count(*) FILTER (WHERE store_id = 'kiosk'), count(*) FROM public.store_activity
                WHERE timestamp_utc < '2021-12-18 17:15Z'";
    let row = client.query_one(left, &[]).await.unwrap();
    assert_eq!(
        (row.get::<_, i64>(0), row.get::<_, i64>(1)),
        (1, 2),
        "one row for each store before the line"
    );
    serve.wait_until_ready();
    assert_eq!((terminal.report(), serve.report(old)), before);
    let said = terminal.run("uptally verify");
    assert!(said.starts_with("0 differences"), "{said}");
}
