//! The `uptally` program: the life of the process.

use std::process::ExitCode;
use std::time::Duration;

use uptally::cli::{self, Command, Invocation};
use uptally::config::{Config, ConfigFile, FlagValue};
use uptally::telemetry;

/// How long blocking work, such as reading stdin, may hold up the end of the process.
const BLOCKING_GRACE: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    cli::install_panic_hook();
    let outcome = match Invocation::read(std::env::args_os()) {
        Ok(Invocation::Run { command, file, flags }) => run(command, &file, flags),
        Ok(Invocation::GuardPostgres) => return cli::guard_postgres(),
        Err(help_or_usage) => return cli::answer(&help_or_usage),
    };
    outcome.unwrap_or_else(|error| cli::fail(&error))
}

fn run(command: Command, file: &ConfigFile, flags: Vec<FlagValue>) -> anyhow::Result<ExitCode> {
    let config = Config::load(file, std::env::vars_os(), flags)?;
    telemetry::start_log(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(cli::run(command, config));
    runtime.shutdown_timeout(BLOCKING_GRACE);
    outcome
}
