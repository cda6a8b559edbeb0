//! What `uptally serve` tells the service manager that started it, over a socket such as systemd's.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::serve::Serve;
use support::{TestDatabase, state_dir};

/// Without a word for so long, the daemon would be killed.
const WATCHDOG: Duration = Duration::from_secs(3);

/// Plays the manager.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn at_path(path: &std::path::Path) -> Self {
        Manager {
            socket: UnixDatagram::bind(path).unwrap(),
            name: path.to_str().unwrap().to_owned(),
        }
    }

    /// One with a name that is no file.
    fn abstract_one() -> Self {
        let name = format!("uptally-test-{}", fastrand::u64(..));
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Manager {
            socket: UnixDatagram::bind_addr(&address).unwrap(),
            name: format!("@{name}"),
        }
    }

    fn start(&self, state_dir: &std::path::Path, url: &str, more: &[(&str, &str)]) -> Serve {
        let patience = WATCHDOG.as_micros().to_string();
        let mut variables = vec![("NOTIFY_SOCKET", self.name.as_str()), ("WATCHDOG_USEC", &patience)];
        variables.extend(more);
        Serve::spawn_with(state_dir, Some(url), &variables)
    }

    /// The next message, if one comes within `patience`.
    fn hear(&self, patience: Duration) -> Option<String> {
        let mut bytes = [0; 4096];
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    /// All messages up to the one that `is_it`.
    fn hear_until(&self, is_it: impl Fn(&str) -> bool) -> Vec<String> {
        let (began, mut heard) = (Instant::now(), Vec::new());
        loop {
            heard.extend(self.hear(Duration::from_secs(1)));
            if heard.last().is_some_and(|last| is_it(last)) {
                return heard;
            }
            assert!(began.elapsed() < Duration::from_secs(9), "{heard:?}");
        }
    }

    /// How often the watchdog is fed within a time.
    fn feedings(&self, time: Duration) -> usize {
        let (end, mut count) = (Instant::now() + time, 0);
        while let Some(left) = end
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            count += usize::from(self.hear(left).as_deref() == Some("WATCHDOG=1"));
        }
        count
    }
}

/// A file of the repository.
fn read(path: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_unit_hands_over_every_secret_that_may_be_in_a_file() {
    let unit = read("packaging/uptally.service");
    let handed: Vec<&str> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("LoadCredential="))
        .collect();
    let (mut section, mut expected) = (String::new(), Vec::new());
    for line in read("config/uptally.toml").lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((name, _)) = line.strip_prefix('#').and_then(|line| line.split_once("_file = ")) {
            expected.push(format!("uptally.{section}.{name}"));
        }
    }
    assert_eq!(handed, expected);
    let paper = read("docs/operating.md");
    for name in expected {
        assert!(
            paper.contains(&format!("| `{name}` | `")),
            "{name} is in docs/operating.md"
        );
    }
}

fn is_ready(message: &str) -> bool {
    message == "READY=1"
}

#[tokio::test]
async fn it_hears_of_the_beginning_of_the_state_and_of_the_end() {
    let (database, state) = (TestDatabase::start().await, state_dir());
    let manager = Manager::at_path(&state.path().join("notify"));
    let mut serve = manager.start(state.path(), database.url(), &[]);
    assert_eq!(manager.hear_until(is_ready), ["STATUS=starting", "READY=1"]);
    assert_eq!(serve.request("GET", "/healthz").0, 200, "ready is: HTTP is answered");
    manager.hear_until(|message| message == "STATUS=following 0 stores");
    manager.hear_until(|message| message == "WATCHDOG=1");
    let client = database.connect().await;
    let insert = "INSERT INTO public.store_activity VALUES ('a', '2023-01-25 12:00Z', 'active')";
    client.batch_execute(insert).await.unwrap();
    manager.hear_until(|message| message == "STATUS=following 1 stores");
    serve.signal(Signal::TERM);
    let last = manager.hear_until(|message| message.starts_with("STOPPING=1\nSTATUS=stopping"));
    assert!(last.iter().all(|message| !is_ready(message)), "{last:?}");
    assert_eq!(serve.exit_code(Duration::from_secs(9)), Some(0));
}

#[tokio::test]
async fn who_waits_for_an_absent_database_is_ready_and_alive() {
    let (manager, state) = (Manager::abstract_one(), state_dir());
    let nobody = format!("host={} user=uptally dbname=uptally", state.path().display());
    let _serve = manager.start(state.path(), &nobody, &[]);
    manager.hear_until(is_ready);
    manager.hear_until(|message| message.starts_with("STATUS=not ready: cannot connect to "));
    // Pauses between attempts grow up to ten seconds.
    assert!(manager.feedings(WATCHDOG * 2) >= 4);
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_follower_that_is_stuck_is_not_vouched_for() {
    let (database, state) = (TestDatabase::start().await, state_dir());
    let manager = Manager::abstract_one();
    // Other databases of the server move its snapshot too, which is worth a look: not one of the first.
    let stuck = [("UPTALLY_FAILPOINTS", "read.looked=sleep:600000@20")];
    let mut serve = manager.start(state.path(), database.url(), &stuck);
    manager.hear_until(|message| message == "STATUS=following 0 stores");
    assert!(manager.feedings(WATCHDOG / 2) >= 1, "it is asleep and alive");
    let client = database.connect().await;
    for second in 0..50 {
        let insert =
            format!("INSERT INTO public.store_activity VALUES ('a', '2023-01-25 12:00:{second:02}Z', 'active')");
        client.batch_execute(&insert).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What it had done just before counts for half of the patience.
    manager.feedings(WATCHDOG * 2 / 3);
    assert_eq!(manager.feedings(WATCHDOG), 0);
    let (status, _) = serve.request("GET", "/healthz");
    assert_eq!(
        status, 200,
        "HTTP answers meanwhile, which is why HTTP vouches for nothing"
    );
    serve.kill();
}
