//! The arguments as clap reads them, with their help texts.
#![expect(
    clippy::doc_markdown,
    reason = "the doc comments are help texts, which show backticks as they are"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgGroup, ArgMatches, Args, CommandFactory, Parser, Subcommand};

use crate::config::{FlagValue, Secret};
use crate::db::RoleName;

/// Follows store status rows in Postgres and answers uptime reports in milliseconds.
#[derive(Debug, Parser)]
#[command(
    name = "uptally",
    version,
    propagate_version = true,
    after_help = AFTER_HELP
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: GlobalArgs,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

impl Cli {
    /// The same without commands that only the program itself gives. (Completions would offer them.)
    pub(super) fn without_hidden() -> clap::Command {
        let all = Cli::command();
        let shown: Vec<_> = all.get_subcommands().filter(|verb| !verb.is_hide_set()).collect();
        GlobalArgs::augment_args(clap::Command::new("uptally"))
            .version(env!("CARGO_PKG_VERSION"))
            .propagate_version(true)
            .about(all.get_about().cloned().unwrap_or_default())
            .after_help(AFTER_HELP)
            .subcommand_required(true)
            .subcommands(shown.into_iter().cloned())
    }
}

const AFTER_HELP: &str = "\
Examples:
  uptally demo --once
  uptally import --activity status.csv --hours hours.csv --timezones zones.csv
  uptally serve
  uptally report --as-of latest | head

Settings come from the defaults, then config/uptally.toml (else /etc/uptally/uptally.toml) or --config,
then the environment (http.listen is UPTALLY__HTTP__LISTEN), then flags; the later one wins. `uptally
config` shows them.

Exit codes: 0 done, 1 failed or drift found, 2 wrong usage or configuration, 75 refused for now (try
again), 78 something must be installed.";

const EVERYWHERE: &str = "Options everywhere";

/// Options that every command takes.
#[derive(Debug, Args)]
pub(super) struct GlobalArgs {
    /// The Postgres to use; without it, a private one in the state directory [key database.url]
    ///
    /// A URL (postgres://user@host:5432/database) or key/value pairs (host=... user=... dbname=...).
    /// Other users of the machine can see a password given here: prefer the environment variable.
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        value_name = "URL",
        env = "DATABASE_URL",
        hide_env_values = true,
        value_parser = |text: &str| Ok::<_, std::convert::Infallible>(Secret::from(text))
    )]
    database_url: Option<Secret>,

    /// The configuration file, which must exist [default: config/uptally.toml, else
    /// /etc/uptally/uptally.toml, if one exists]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Where files are kept between runs, the private Postgres among them [key state.dir]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "DIR", env = "UPTALLY_STATE_DIR")]
    state_dir: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    #[command(flatten)]
    Command(Command),

    /// Ends a private Postgres when the process that started it is gone
    #[command(hide = true)]
    PostgresGuard {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon: follow the status rows and answer HTTP
    #[command(after_help = "\
Examples:
  uptally serve
  DATABASE_URL=postgres://uptally@db.example/uptime uptally serve --listen 127.0.0.1:9090
  curl -X POST http://127.0.0.1:8080/trigger_report")]
    Serve(ServeArgs),

    /// Load CSV files into the database
    #[command(after_help = "\
Loading a file again changes nothing. Columns may be in any order. Bad rows go to a rejects file, are
counted, and do not stop the good ones. Closures are added to those that are there.

Examples:
  uptally import --activity status.csv --hours hours.csv --timezones zones.csv
  uptally import --activity monday.csv --activity tuesday.csv --strict
  uptally import --closures holidays.csv
  zcat status.csv.gz | uptally import --activity -")]
    Import(ImportArgs),

    /// Make one report, with or without a daemon running
    #[command(after_help = "\
Examples:
  uptally report > report.csv
  uptally report --as-of latest --windows rolling --closed excluded -o report.csv
  uptally report --as-of 2023-01-25T18:13:22Z | head")]
    Report(ReportArgs),

    /// Recompute everything from the raw rows and compare; exit code 1 and the cells on drift
    Verify,

    /// Throw the rollups away and recompute them from the raw rows
    Rebuild,

    /// Create or update the tables, and nothing else; grant roles what they need
    #[command(after_help = "\
Run it as the role that shall own the tables, after every upgrade with the same options. Roles must exist.

Examples:
  uptally migrate
  DATABASE_URL=postgres://installer@db.example/uptime uptally migrate --grant-to uptally --grant-poller poller
  uptally migrate --grant-to uptally --dry-run")]
    Migrate(MigrateArgs),

    /// Show the effective configuration and where each value comes from
    #[command(after_help = "\
Passwords are not shown. Examples:
  uptally config
  UPTALLY__HTTP__LISTEN=127.0.0.1:9090 uptally config --config other.toml")]
    Config,

    /// Show everything at work: a generated fleet in a private Postgres, live rows, a report
    #[command(after_help = "\
Examples:
  uptally demo
  uptally demo --stores 13559 --once --seed 7")]
    Demo(DemoArgs),

    /// Write the CSV files of a made-up fleet, to import or to measure with
    #[command(after_help = "\
The same options write the same files. They end at 2023-01-25 18:13:22 UTC: ask for reports as of latest.

Examples:
  uptally generate --out fleet
  uptally generate --out fleet --stores 1000000 --days 1
  uptally import --activity fleet/store_status.csv --hours fleet/menu_hours.csv \\
    --closures fleet/closures.csv --timezones fleet/timezones.csv")]
    Generate(GenerateArgs),
}

/// Of `uptally serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The address and port for HTTP [key http.listen] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

/// Of `uptally import`. At least one of the four kinds of file is named; at most one file is `-`.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group = ArgGroup::new("inputs").required(true).multiple(true).args(["activity", "hours", "closures", "timezones"]))]
pub struct ImportArgs {
    /// Status rows: store_id, timestamp_utc, status; may be given several times (- is stdin)
    #[arg(long, value_name = "FILE")]
    pub activity: Vec<PathBuf>,

    /// Opening hours: store_id, day (0 is Monday), start_time_local, end_time_local (- is stdin)
    #[arg(long, value_name = "FILE")]
    pub hours: Option<PathBuf>,

    /// Closures: store_id (* is every store), closed_from, closed_to in local time, reason (- is stdin)
    #[arg(long, value_name = "FILE")]
    pub closures: Option<PathBuf>,

    /// Time zones: store_id, timezone_str (- is stdin)
    #[arg(long, value_name = "FILE")]
    pub timezones: Option<PathBuf>,

    /// Stop at the first bad row and load nothing
    #[arg(long)]
    pub strict: bool,

    /// Where bad rows go
    #[arg(long, value_name = "FILE", conflicts_with = "strict")]
    pub rejects: Option<PathBuf>,
}

/// Of `uptally report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The instant of the report: now, latest (the newest observation) or RFC 3339
    /// [key report.as_of] [default: now]
    #[arg(long, value_name = "INSTANT")]
    as_of: Option<String>,

    /// What day and week mean: the last full calendar ones, or the last 24 and 168 hours
    /// [key report.windows] [default: calendar]
    #[arg(long, value_parser = ["calendar", "rolling"])]
    windows: Option<String>,

    /// What closed hours count as: uptime, or nothing [key report.closed] [default: uptime]
    #[arg(long, value_parser = ["uptime", "excluded"])]
    closed: Option<String>,

    /// Write to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Of `uptally migrate`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Grant this role what `uptally serve` needs
    #[arg(long, value_name = "ROLE")]
    pub grant_to: Option<RoleName>,

    /// Grant this role what writes status rows, hours, closures and time zones
    #[arg(long, value_name = "ROLE")]
    pub grant_poller: Option<RoleName>,

    /// Show the statements that would grant, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Of `uptally demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Stores in the generated fleet
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub stores: u32,

    /// End after the first report
    #[arg(long)]
    pub once: bool,

    /// Generate the same fleet again [default: another one each time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// Of `uptally generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Where the files go; made if it is not there. No file is overwritten
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// Stores in the fleet
    #[arg(long, value_name = "N", default_value_t = 13_559, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub stores: u32,

    /// Days of polls
    #[arg(long, value_name = "D", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,

    /// Time between two polls of a store; about three in ten never arrive
    #[arg(long, value_name = "M", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub poll_minutes: u32,

    /// Other seeds make other fleets
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,

    /// The order of the status rows: as observed, or one store after another
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = RowOrder::Time)]
    pub order: RowOrder,
}

/// The order of generated status rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RowOrder {
    /// As they were observed.
    Time,
    /// One store after another.
    Store,
}

impl GlobalArgs {
    /// The keys that are set, by a flag or by its environment variable.
    pub(super) fn flags(&self, matches: &ArgMatches) -> Vec<FlagValue> {
        let url = self.database_url.clone().map(|text| FlagValue {
            key: "database.url",
            origin: origin(matches, "database_url"),
            text,
        });
        let state_dir = self.state_dir.as_deref().map(|text| FlagValue {
            key: "state.dir",
            origin: origin(matches, "state_dir"),
            text: text.into(),
        });
        url.into_iter().chain(state_dir).collect()
    }
}

impl Command {
    /// The keys that are set by flags of the command.
    pub(super) fn flags(&self) -> Vec<FlagValue> {
        let flags = match self {
            Command::Serve(serve) => vec![("http.listen", "--listen", &serve.listen)],
            Command::Report(report) => vec![
                ("report.as_of", "--as-of", &report.as_of),
                ("report.windows", "--windows", &report.windows),
                ("report.closed", "--closed", &report.closed),
            ],
            _ => Vec::new(),
        };
        let given = |(key, flag, text): (_, &str, &Option<String>)| {
            let text = Secret::from(text.as_deref()?);
            let origin = format!("flag {flag}");
            Some(FlagValue { key, origin, text })
        };
        flags.into_iter().filter_map(given).collect()
    }
}

impl ImportArgs {
    /// At most one file may be stdin. An error is a usage message.
    pub(super) fn check_stdin(&self) -> Result<(), clap::Error> {
        let calendars = self.hours.iter().chain(&self.closures).chain(&self.timezones);
        let files = self.activity.iter().chain(calendars);
        if files.filter(|file| file.as_path() == Path::new("-")).count() > 1 {
            let message = "only one of the files can be - (stdin)";
            return Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(())
    }
}

/// Where the value of a global option comes from.
fn origin(matches: &ArgMatches, id: &str) -> String {
    let flag = format!("--{}", id.replace('_', "-"));
    if matches.value_source(id) != Some(ValueSource::EnvVariable) {
        return format!("flag {flag}");
    }
    let command = Cli::command();
    let variable = command
        .get_arguments()
        .find(|arg| arg.get_id() == id)
        .and_then(|arg| arg.get_env())
        .unwrap_or_default();
    format!("env {}", variable.display())
}
