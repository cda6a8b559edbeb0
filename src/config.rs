//! The configuration: read once at start, from defaults, a file, the environment and flags, into
//! one struct for each part of the program. A part gets its own struct and never sees the rest.
//!
//! Not here: what the values do. Durations are `Duration`s from here on; in keys they carry their
//! unit (`connect_timeout_ms`).

mod keys;
mod layers;
mod login;
mod secret;
mod words;

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use config::ValueKind;
use tracing_subscriber::EnvFilter;

use crate::http::{OpenToAll, Tokens};
use crate::report::{Job, JobLimits, ReportRequest};
use crate::telemetry::one_line;
use keys::{KEYS, Key};
use layers::Layers;

pub use layers::{ConfigFile, FlagValue};
pub use secret::{DatabaseUrl, Secret};
pub use words::{AsOf, ClosedTime, LogFormat, ParseWordError, Standby, Wake, Windows};

/// Where the file of the configuration is looked for: from the current directory, then where a package puts it.
pub const CONFIG_FILES_DEFAULT: [&str; 2] = ["config/uptally.toml", "/etc/uptally/uptally.toml"];

/// The whole configuration, one struct for each part.
#[derive(Debug, Clone)]
pub struct Config {
    /// For what connects to Postgres.
    pub database: DatabaseConfig,
    /// For what keeps files between runs.
    pub state: StateConfig,
    /// For the HTTP server.
    pub http: HttpConfig,
    /// For what takes observations over HTTP.
    pub activity: ActivityConfig,
    /// For what says what stores do now.
    pub fleet: FleetConfig,
    /// For what makes reports.
    pub report: ReportConfig,
    /// For what makes reports by itself.
    pub jobs: JobsConfig,
    /// For the follower of the change feed.
    pub feed: FeedConfig,
    /// For the owner of the rollup.
    pub rollup: RollupConfig,
    /// For the auditor.
    pub audit: AuditConfig,
    /// For the log.
    pub log: LogConfig,
    /// The same for people: what `uptally config` prints.
    pub effective: Effective,
}

/// How Postgres is reached.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// `database.url`
    pub url: Option<DatabaseUrl>,
    /// `database.url_file`: a file with the URL; never set where there is a URL.
    pub url_file: Option<PathBuf>,
    /// `database.connect_timeout_ms`
    pub connect_timeout: Duration,
    /// `database.statement_timeout_ms`
    pub statement_timeout: Duration,
}

/// Where files are kept between runs.
#[derive(Debug, Clone)]
pub struct StateConfig {
    /// `state.dir`; none: the place that is usual on the machine.
    pub dir: Option<PathBuf>,
}

/// Where HTTP is answered, to whom, and the limits of the server.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// `http.listen`
    pub listen: SocketAddr,
    /// `http.read_tokens`, `http.trigger_tokens` and `http.write_tokens`: those that stand in the configuration itself.
    pub tokens: Tokens,
    /// `http.read_tokens_file`: a file with more of them.
    pub read_tokens_file: Option<PathBuf>,
    /// `http.trigger_tokens_file`: likewise.
    pub trigger_tokens_file: Option<PathBuf>,
    /// `http.write_tokens_file`: likewise.
    pub write_tokens_file: Option<PathBuf>,
    /// `http.hosts`: names that are answered on loopback without a login.
    pub hosts: Vec<String>,
    /// `http.header_timeout_ms`: how long a client may take for the head of a request.
    pub header_timeout: Duration,
    /// `http.connections_max`: how many are open at a time.
    pub connections_max: usize,
    /// `http.subscribers_max`: how many may listen to events at a time.
    pub subscribers_max: usize,
    /// `http.drain_timeout_ms`: how long running requests and reports may take to end at shutdown.
    pub drain_timeout: Duration,
}

/// What a body of observations may be.
#[derive(Debug, Clone, Copy)]
pub struct ActivityConfig {
    /// `activity.body_bytes_max`
    pub body_bytes_max: usize,
    /// `activity.rows_max`
    pub rows_max: u64,
}

/// When a store does what.
#[derive(Debug, Clone, Copy)]
pub struct FleetConfig {
    /// `fleet.silent_after_ms`: an open store that was not observed for longer is silent.
    pub silent_after: Duration,
}

/// What a report is of when the request does not say, and where it goes.
#[derive(Debug, Clone)]
pub struct ReportConfig {
    /// `report.as_of`
    pub as_of: AsOf,
    /// `report.windows`
    pub windows: Windows,
    /// `report.closed`
    pub closed: ClosedTime,
    /// `report.output_url`: a directory or the URL of an object store, without a password.
    pub output_url: String,
    /// `report.running_max`: how many are made at a time.
    pub running_max: usize,
    /// `report.queue_max`: how many wait to be made; the next one is refused.
    pub queue_max: usize,
}

/// Which reports are made by themselves, and how long they are kept.
#[derive(Debug, Clone)]
pub struct JobsConfig {
    /// `jobs.reports`
    pub reports: Vec<Job>,
    /// `jobs.grace_ms`, `jobs.keep_max` and `jobs.keep_days`
    pub limits: JobLimits,
}

/// How the change feed is followed.
#[derive(Debug, Clone)]
pub struct FeedConfig {
    /// `feed.wake`
    pub wake: Wake,
    /// `feed.poll_interval_ms`: the feed is read this often even if nothing wakes us.
    pub poll_interval: Duration,
    /// `feed.awake_interval_ms`: the pause between two reads while awake.
    pub awake_interval: Duration,
    /// `feed.awake_for_ms`: how long to stay awake after the last row.
    pub awake_for: Duration,
    /// `feed.standby`: what is done while another daemon is active.
    pub standby: Standby,
    /// `feed.check_interval_ms`: how often tables, triggers and functions are looked at.
    pub check_interval: Duration,
    /// `feed.batch_rows_max`: rows taken from the feed in one transaction.
    pub batch_rows_max: usize,
}

/// How the rollup is kept.
#[derive(Debug, Clone)]
pub struct RollupConfig {
    /// `rollup.flush_interval_ms`: the longest that a changed bucket waits to be written.
    pub flush_interval: Duration,
    /// `rollup.retention_days`: how long bucket rows stay in Postgres.
    pub retention_days: u32,
    /// `rollup.lag_ready_ms_max`: the daemon is not ready while it lags by more.
    pub lag_ready_max: Duration,
}

/// How the rollup is held against the raw rows while the daemon follows.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// `audit.interval_ms`: the pause between two samples; None: no audits.
    pub interval: Option<Duration>,
}

/// What the log shows, and how.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `log.format`
    pub format: LogFormat,
    /// `log.filter`: directives such as `info,uptally::feed=debug`; checked.
    pub filter: String,
}

/// Why there is no configuration. No variant holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing or cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}, line {line}: {message}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser expected; does not quote the line.
        message: String,
    },
    /// There is no such key.
    #[error("unknown key {key} (from {origin}); the nearest known key is {nearest}")]
    Unknown {
        /// The key as it was found.
        key: String,
        /// A file or `env NAME`.
        origin: String,
        /// The key that was probably meant, in the spelling of the origin.
        nearest: String,
    },
    /// The value has another type, form or range than its key.
    #[error("{key}: {problem} (from {origin})")]
    Value {
        /// The key.
        key: String,
        /// What was expected, and found unless it is secret.
        problem: String,
        /// A file, `env NAME` or `flag --name`.
        origin: String,
    },
    /// A file with a secret in it is missing or cannot be read.
    #[error("{key}: cannot read {}", path.display())]
    SecretFile {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file holds something else than the secret, or nothing.
    #[error("{key}: {problem} ({}, line {line})", path.display())]
    NoSecret {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was expected.
        problem: String,
    },
    /// Other machines may reach the address, and nothing keeps them out.
    #[error(transparent)]
    OpenToAll(#[from] OpenToAll),
    /// The program asks for a key that does not exist with that type: a bug that the tests find.
    #[error("{0} is not a key of the type that is read")]
    NotAKey(String),
    /// The layers could not be laid over each other.
    #[error("cannot merge the configuration")]
    Merge(#[from] config::ConfigError),
}

impl Config {
    /// Reads and checks everything: the defaults, over them `file`, over it the credentials of the
    /// service and then the variables `UPTALLY__SECTION__KEY` of `env`, over them `flags`.
    pub fn load(
        file: &ConfigFile,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<FlagValue>,
    ) -> Result<Self, ConfigError> {
        let layers = Layers::merge(file, env, flags)?;
        let ms = |key: &str| layers.integer(key).map(Duration::from_millis);
        let tokens = |key: &str| Ok::<_, ConfigError>(layers.optional_text(key, login::tokens)?.unwrap_or_default());
        let url = layers.optional_text("database.url", str::parse::<DatabaseUrl>)?;
        layers.check_below(
            "feed.poll_interval_ms",
            "rollup.lag_ready_ms_max",
            "a daemon with nothing to do would call itself lagging",
        )?;
        let defaults = ReportRequest {
            windows: layers.text("report.windows", str::parse::<Windows>)?,
            closed: layers.text("report.closed", str::parse::<ClosedTime>)?,
            ..ReportRequest::default()
        };
        let jobs = layers.optional_text("jobs.reports", |text| Job::parse_all(text, defaults))?;
        let effective = Effective::of(&layers, url.as_ref());
        Ok(Config {
            database: DatabaseConfig {
                url,
                url_file: layers.optional_text("database.url_file", file_path)?,
                connect_timeout: ms("database.connect_timeout_ms")?,
                statement_timeout: ms("database.statement_timeout_ms")?,
            },
            state: StateConfig {
                dir: layers.optional_text("state.dir", directory)?,
            },
            http: HttpConfig {
                listen: layers.text("http.listen", address)?,
                tokens: Tokens {
                    read: tokens("http.read_tokens")?,
                    trigger: tokens("http.trigger_tokens")?,
                    write: tokens("http.write_tokens")?,
                },
                read_tokens_file: layers.optional_text("http.read_tokens_file", file_path)?,
                trigger_tokens_file: layers.optional_text("http.trigger_tokens_file", file_path)?,
                write_tokens_file: layers.optional_text("http.write_tokens_file", file_path)?,
                hosts: layers.optional_text("http.hosts", login::hosts)?.unwrap_or_default(),
                header_timeout: ms("http.header_timeout_ms")?,
                connections_max: layers.integer("http.connections_max")?,
                subscribers_max: layers.integer("http.subscribers_max")?,
                drain_timeout: ms("http.drain_timeout_ms")?,
            },
            activity: ActivityConfig {
                body_bytes_max: layers.integer("activity.body_bytes_max")?,
                rows_max: layers.integer("activity.rows_max")?,
            },
            fleet: FleetConfig {
                silent_after: ms("fleet.silent_after_ms")?,
            },
            report: ReportConfig {
                as_of: layers.text("report.as_of", str::parse::<AsOf>)?,
                windows: layers.text("report.windows", str::parse::<Windows>)?,
                closed: layers.text("report.closed", str::parse::<ClosedTime>)?,
                output_url: layers.text("report.output_url", output_url)?,
                running_max: layers.integer("report.running_max")?,
                queue_max: layers.integer("report.queue_max")?,
            },
            jobs: JobsConfig {
                reports: jobs.unwrap_or_default(),
                limits: JobLimits {
                    grace: ms("jobs.grace_ms")?,
                    keep_max: layers.integer("jobs.keep_max")?,
                    keep_days: layers.integer("jobs.keep_days")?,
                },
            },
            feed: FeedConfig {
                wake: layers.text("feed.wake", str::parse::<Wake>)?,
                poll_interval: ms("feed.poll_interval_ms")?,
                awake_interval: ms("feed.awake_interval_ms")?,
                awake_for: ms("feed.awake_for_ms")?,
                standby: layers.text("feed.standby", str::parse::<Standby>)?,
                check_interval: ms("feed.check_interval_ms")?,
                batch_rows_max: layers.integer("feed.batch_rows_max")?,
            },
            rollup: RollupConfig {
                flush_interval: ms("rollup.flush_interval_ms")?,
                retention_days: layers.integer("rollup.retention_days")?,
                lag_ready_max: ms("rollup.lag_ready_ms_max")?,
            },
            audit: AuditConfig {
                interval: Some(ms("audit.interval_ms")?).filter(|interval| !interval.is_zero()),
            },
            log: LogConfig {
                format: layers.text("log.format", str::parse::<LogFormat>)?,
                filter: layers.text("log.filter", log_filter)?,
            },
            effective,
        })
    }
}

/// Every key with its value, secrets masked, and where the value came from. `Display` is one line a
/// key, in TOML.
#[derive(Debug, Clone)]
pub struct Effective(Vec<String>);

impl Effective {
    fn of(layers: &Layers, url: Option<&DatabaseUrl>) -> Self {
        let line = |key: &Key| {
            let Some(value) = layers.get(key.name) else {
                return format!("# {} is not set   # from default", key.name);
            };
            let shown = match (&value.kind, url) {
                _ if key.masked => toml_text("***"),
                (_, Some(url)) if key.name == "database.url" => toml_text(&url.to_string()),
                (ValueKind::String(text), _) => toml_text(text),
                (other, _) => other.to_string(),
            };
            let origin = one_line(value.origin().unwrap_or_default());
            format!("{} = {shown}   # from {origin}", key.name)
        };
        Effective(KEYS.iter().map(line).collect())
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl ConfigError {
    fn not_a_key(key: &str) -> Self {
        ConfigError::NotAKey(key.to_owned())
    }
}

/// A TOML text on one line. (The toml crate spreads one with a newline over several.)
fn toml_text(text: &str) -> String {
    let mut shown = String::from('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => shown.extend(['\\', char]),
            char if char.is_control() => shown.extend(format!("\\u{:04X}", u32::from(char)).chars()),
            char => shown.push(char),
        }
    }
    shown.push('"');
    shown
}

fn directory(text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() || text.contains('\0') {
        return Err("expected a directory");
    }
    Ok(PathBuf::from(text))
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "expected an address and a port such as 127.0.0.1:8080 or [::1]:8080")
}

fn file_path(text: &str) -> Result<PathBuf, &'static str> {
    directory(text).map_err(|_| "expected a file")
}

/// A directory or URL. Whether there is an object store behind it, the part that writes finds out.
fn output_url(text: &str) -> Result<String, &'static str> {
    let login = text
        .split_once("://")
        .is_some_and(|(_, rest)| rest.split('/').next().is_some_and(|host| host.contains('@')));
    if login {
        return Err("expected a URL without a login: an object store's keys come from its own environment variables");
    }
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("expected a directory or the URL of an object store");
    }
    Ok(text.to_owned())
}

fn log_filter(text: &str) -> Result<String, &'static str> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|_| "expected log directives such as info or info,uptally::feed=debug")
}

#[cfg(test)]
mod tests;
