//! The command line: what can be asked for, and the way from a command to what does it.
//!
//! Flags that set a key of the configuration go through the configuration, so that they are checked
//! there, win over the other layers and are shown with their origin by `uptally config`. Commands
//! read the configuration, not these structs; only what is no key of it is taken from here.

mod args;
mod commands;
mod exit;
mod generate;
mod output;
mod reach;
mod signals;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::config::{CONFIG_FILES_DEFAULT, Config, ConfigFile, FlagValue};
use args::{Cli, Verb};

pub use args::{Command, DemoArgs, GenerateArgs, ImportArgs, MigrateArgs, ReportArgs, RowOrder, ServeArgs};
pub use exit::{Exit, Refusal, answer, fail, install_panic_hook};
pub use output::{OutputError, write_stdout};

/// Does what `command` says. Errors are shown, and turned into an exit code, by [`fail`].
pub async fn run(command: Command, config: Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Config => {
            write_stdout(|out| write!(out, "{}", config.effective))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Serve(_) => commands::serve(&config).await,
        Command::Import(arguments) => commands::import(&config, arguments).await,
        Command::Report(arguments) => commands::report(&config, arguments).await,
        Command::Verify => commands::verify(&config).await,
        Command::Rebuild => commands::rebuild(&config).await,
        Command::Migrate(arguments) => commands::migrate(&config, arguments).await,
        Command::Demo(arguments) => commands::demo(&config, &arguments).await,
        Command::Generate(arguments) => generate::generate(&arguments),
    }
}

/// Guards a private Postgres. Reads no configuration and starts no runtime: whatever is wrong with
/// those, the guard must come up and stay.
pub fn guard_postgres() -> ExitCode {
    crate::cluster::guard_main()
}

/// The arguments with their help texts, for manuals and completions: all that a user may type.
pub fn command() -> clap::Command {
    Cli::without_hidden()
}

/// A command line that was read.
#[derive(Debug)]
pub enum Invocation {
    /// A command of a user.
    Run {
        /// What to do.
        command: Command,
        /// The configuration file to read.
        file: ConfigFile,
        /// Keys that are set by flags, or by the environment variables that stand in for them.
        flags: Vec<FlagValue>,
    },
    /// The program calls itself, for [`guard_postgres`].
    GuardPostgres,
}

impl Invocation {
    /// Reads the arguments of a process, its name first. The error is help or a usage message.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = Cli::command().try_get_matches_from(args)?;
        let Cli { global, verb } = Cli::from_arg_matches(&matches)?;
        let command = match verb {
            Verb::PostgresGuard { .. } => return Ok(Invocation::GuardPostgres),
            Verb::Command(command) => command,
        };
        if let Command::Import(import) = &command {
            import.check_stdin()?;
        }
        let mut flags = global.flags(&matches);
        flags.extend(command.flags());
        let file = match global.config {
            Some(path) => ConfigFile::Required(path),
            None => ConfigFile::IfPresent(CONFIG_FILES_DEFAULT.map(PathBuf::from).to_vec()),
        };
        Ok(Invocation::Run { command, file, flags })
    }
}

#[cfg(test)]
mod tests;
