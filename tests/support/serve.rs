//! `uptally serve` as a child process, and just enough HTTP to ask it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use uptally::time::Timestamp;

/// One request on a connection of its own: status, head, body.
pub fn http(address: &str, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: uptally\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

/// A running `uptally serve`. Dropped, it is killed.
pub struct Serve {
    child: Child,
    log: Receiver<String>,
    address: Option<String>,
}

impl Serve {
    /// Starts it with its files in `state_dir`; without a URL it starts its own Postgres there. A short pause between
    /// flushes gives a kill more of them to hit.
    pub fn spawn(state_dir: &Path, url: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uptally"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--state-dir"])
            .arg(state_dir)
            .current_dir(state_dir)
            .env_remove("DATABASE_URL")
            .envs(url.map(|url| ("DATABASE_URL", url)))
            .env("UPTALLY__ROLLUP__FLUSH_INTERVAL_MS", "20")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (line, log) = channel();
        // Ends with the child, whose log must not fill the pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|text| line.send(text)));
        Serve {
            child,
            log,
            address: None,
        }
    }

    /// Kills it with -9 and waits for its end.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has caught up.
    pub fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(9);
        while self.request("GET", "/readyz").0 != 200 {
            assert!(
                Instant::now() < deadline,
                "not ready: {:?}",
                self.log.try_iter().collect::<Vec<_>>()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A report from trigger to CSV.
    pub fn report(&mut self, as_of: Timestamp) -> String {
        let (status, triggered) = self.request("POST", &format!("/trigger_report?as_of={as_of}"));
        assert_eq!(status, 202, "{triggered}");
        let triggered: serde_json::Value = serde_json::from_str(&triggered).unwrap();
        let path = format!("/get_report?report_id={}", triggered["report_id"].as_str().unwrap());
        loop {
            match self.request("GET", &path) {
                (202, _) => std::thread::sleep(Duration::from_millis(5)),
                (200, csv) => return csv,
                (status, problem) => panic!("{status}: {problem}"),
            }
        }
    }

    /// Status and body of an answer.
    fn request(&mut self, method: &str, path: &str) -> (u16, String) {
        let (status, _, body) = http(self.address(), method, path);
        (status, body)
    }

    /// Where it listens, which its log tells.
    fn address(&mut self) -> &str {
        let mut told = Vec::new();
        while self.address.is_none() {
            let Ok(line) = self.log.recv_timeout(Duration::from_secs(8)) else {
                panic!("it does not listen: {told:?}");
            };
            self.address = line
                .split_once("listening on http://")
                .map(|(_, address)| address.trim().to_owned());
            told.push(line);
        }
        self.address.as_deref().unwrap()
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
