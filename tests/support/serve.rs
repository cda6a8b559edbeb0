//! `uptally serve` as a child process, and just enough HTTP to ask it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use uptally::time::Timestamp;
use uptally::window::{ClosedTime, Windows};

use super::check::SECRET;
use super::resources::Resources;

/// One request on a connection of its own: status, head, body.
pub fn http(address: &str, method: &str, path: &str) -> (u16, String, String) {
    try_http(address, method, path).unwrap()
}

/// The same of a server that may be gone, frozen or in the middle of its end.
pub fn try_http(address: &str, method: &str, path: &str) -> io::Result<(u16, String, String)> {
    try_http_with(address, method, path, "")
}

/// The same with more headers, each with its line end.
pub fn try_http_with(address: &str, method: &str, path: &str, headers: &str) -> io::Result<(u16, String, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let cut_off = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut_off)?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok((status, head.to_owned(), body.to_owned()))
}

/// A URL with a password that nobody asks for, and that must not appear anywhere.
pub fn url_with_secret(connection: &Config) -> String {
    let host = match &connection.get_hosts()[0] {
        Host::Tcp(name) => name.clone(),
        Host::Unix(dir) => dir.to_str().unwrap().replace('/', "%2F"),
    };
    let port = connection.get_ports().first().copied().unwrap_or(5432);
    let (user, name) = (connection.get_user().unwrap(), connection.get_dbname().unwrap());
    format!("postgresql://{user}:{SECRET}@{host}:{port}/{name}")
}

/// A running `uptally serve`. Dropped, it is killed.
pub struct Serve {
    child: Child,
    csv_dir: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
    address: Option<String>,
    /// What it held when it was ready for the first time.
    at_first: Option<Resources>,
}

impl Serve {
    /// Starts it with its files in `state_dir`; without a URL it starts its own Postgres there. A short pause between
    /// flushes gives a kill more of them to hit.
    pub fn spawn(state_dir: &Path, url: Option<&str>) -> Self {
        Self::spawn_with(state_dir, url, &[])
    }

    /// The same with variables of the environment, name and value.
    pub fn spawn_with(state_dir: &Path, url: Option<&str>, variables: &[(&str, &str)]) -> Self {
        Self::spawn_by(&[], state_dir, url, variables)
    }

    /// The same by a program that runs what its last arguments say.
    pub fn spawn_by(by: &[&str], state_dir: &Path, url: Option<&str>, variables: &[(&str, &str)]) -> Self {
        let words = by.iter().copied().chain([env!("CARGO_BIN_EXE_uptally"), "serve"]);
        let words: Vec<&str> = words.collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args(["--listen", "127.0.0.1:0", "--state-dir"])
            .arg(state_dir)
            .current_dir(state_dir)
            .env_remove("DATABASE_URL")
            .envs(url.map(|url| ("DATABASE_URL", url)))
            .env("UPTALLY__ROLLUP__FLUSH_INTERVAL_MS", "20")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::default();
        let told: Arc<Mutex<Vec<String>>> = Arc::clone(&log);
        // Ends with the child, whose log must not fill the pipe.
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|text| told.lock().unwrap().push(text));
        });
        Serve {
            child,
            csv_dir: state_dir.join("csvs"),
            log,
            address: None,
            at_first: None,
        }
    }

    /// Fails if it holds more than when it was ready for the first time.
    pub fn assert_nothing_left_over(&self) {
        if let (Some(before), Some(now)) = (self.at_first, Resources::of(self.pid())) {
            now.assert_back_at(&before);
        }
    }

    /// Kills it with -9 and waits for its end.
    pub fn kill(mut self) {
        self.end();
    }

    /// The same of one that may have ended already.
    pub fn end(&mut self) {
        // Fails if it has.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Where its reports are.
    pub fn csv_dir(&self) -> &Path {
        &self.csv_dir
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Its exit code, once it has ended and said its last words, which must be within `patience`.
    pub fn exit_code(&mut self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        loop {
            // Whoever reads the log lets go of it at its end.
            if let Some(status) = self.ended()
                && Arc::strong_count(&self.log) == 1
            {
                return status.code();
            }
            assert!(Instant::now() < deadline, "still there: {:#?}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits until it has caught up.
    pub fn wait_until_ready(&mut self) {
        self.wait_until_ready_within(Duration::from_secs(9));
    }

    /// The same with a patience of one's own; returns how long it took.
    pub fn wait_until_ready_within(&mut self, patience: Duration) -> Duration {
        let began = Instant::now();
        while self.request("GET", "/readyz").0 != 200 {
            assert!(began.elapsed() < patience, "not ready: {:?}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let took = began.elapsed();
        self.at_first = self.at_first.or_else(|| Resources::of(self.pid()));
        took
    }

    /// A report from trigger to CSV.
    pub fn report(&mut self, as_of: Timestamp) -> String {
        self.report_of(as_of, Windows::Calendar, ClosedTime::Uptime)
    }

    /// A report of any kind.
    pub fn report_of(&mut self, as_of: Timestamp, windows: Windows, closed: ClosedTime) -> String {
        self.try_report(as_of, windows, closed).unwrap()
    }

    /// The same; whatever was answered in its place.
    pub fn try_report(&mut self, as_of: Timestamp, windows: Windows, closed: ClosedTime) -> Result<String, String> {
        let (windows, closed) = (windows.as_str(), closed.as_str());
        self.try_report_by(&format!("as_of={as_of}&windows={windows}&closed={closed}"))
    }

    /// The same of what a query asks for.
    pub fn try_report_by(&mut self, query: &str) -> Result<String, String> {
        let (status, triggered) = self.request("POST", &format!("/trigger_report?{query}"));
        if status != 202 {
            return Err(triggered);
        }
        let triggered: serde_json::Value = serde_json::from_str(&triggered).unwrap();
        let path = format!("/get_report?report_id={}", triggered["report_id"].as_str().unwrap());
        loop {
            match self.request("GET", &path) {
                (202, _) => std::thread::sleep(Duration::from_millis(5)),
                (200, csv) => return Ok(csv),
                (_, problem) => return Err(problem),
            }
        }
    }

    /// Status and body of an answer.
    pub fn request(&mut self, method: &str, path: &str) -> (u16, String) {
        let (status, _, body) = http(self.address(), method, path);
        (status, body)
    }

    /// Whether it has said where it listens.
    pub fn listens(&self) -> bool {
        let log = self.log.lock().unwrap();
        log.iter().any(|line| line.contains("listening on http://"))
    }

    /// Where it listens, which its log tells.
    pub fn address(&mut self) -> &str {
        let began = Instant::now();
        while self.address.is_none() {
            self.address = self.log.lock().unwrap().iter().find_map(|line| {
                let (_, rest) = line.split_once("listening on http://")?;
                // In a log for machines the text ends with a quote.
                rest.split('"').next().map(|address| address.trim().to_owned())
            });
            assert!(
                self.address.is_some() || began.elapsed() < Duration::from_secs(8),
                "it does not listen: {:?}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        self.address.as_deref().unwrap()
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        self.end();
    }
}
