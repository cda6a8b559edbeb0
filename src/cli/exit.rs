//! How the process ends: exit codes, the one line that says why, and panics.

use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::panic;
use std::process::ExitCode;

use super::output::OutputError;
use crate::config::ConfigError;
use crate::telemetry::one_line;

/// How a process that did not succeed ends. Above 2, the numbers are those of BSD's `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 1: it failed, or `verify` found drift.
    Failure,
    /// 2: the command line or the configuration is wrong.
    Usage,
    /// 75: refused for now, the same command may succeed later.
    TryAgain,
    /// 78: something must be installed first.
    NotInstalled,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::TryAgain => 75,
            Exit::NotInstalled => 78,
        })
    }
}

/// An error that decides how the process ends. Reads like the error in it.
#[derive(Debug)]
pub struct Refusal {
    exit: Exit,
    error: anyhow::Error,
}

impl Refusal {
    /// `error`, ending the process by `exit`.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        let error = error.into();
        Refusal { exit, error }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// Shows help, the version or what is wrong with the command line, and gives the exit code.
pub fn answer(message: &clap::Error) -> ExitCode {
    // Nobody to tell if the output is gone.
    let _ = message.print();
    u8::try_from(message.exit_code()).map_or(Exit::Usage.into(), ExitCode::from)
}

/// Says on stderr, in one line, why the process ends, and gives the exit code. Says nothing if the
/// reader of stdout went away: it has what it wanted (`uptally report | head`).
pub fn fail(error: &anyhow::Error) -> ExitCode {
    if let Some(OutputError::Closed) = error.downcast_ref() {
        return ExitCode::SUCCESS;
    }
    // Nobody to tell if stderr is gone too.
    let _ = writeln!(io::stderr(), "uptally: {}", line(error));
    exit_of(error).into()
}

/// Makes a panic one line on stderr that asks for a report, without a backtrace. The process then
/// ends as Rust ends it: with code 101 if it was the main thread.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|panic| {
        let what = panic.payload_as_str().unwrap_or("no message");
        let place = panic.location().map(ToString::to_string);
        let text = format!(
            "{what} (at {}, version {}); this is a bug, please report this line",
            place.as_deref().unwrap_or("an unknown place"),
            env!("CARGO_PKG_VERSION"),
        );
        let _ = writeln!(io::stderr(), "uptally: internal error: {}", one_line(&text));
    }));
}

fn exit_of(error: &anyhow::Error) -> Exit {
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        refusal.exit
    } else if error.is::<ConfigError>() {
        Exit::Usage
    } else {
        Exit::Failure
    }
}

/// The message and its causes. A cause that the message before it tells already is left out.
fn line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    one_line(&text)
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_causes() {
        let io = io::Error::other("disk on fire\nuptally: all is well");
        let error = anyhow!(io)
            .context("cannot write the report")
            .context("cannot write the report");
        assert_eq!(
            line(&error),
            "cannot write the report: disk on fire\\nuptally: all is well"
        );
    }

    #[test]
    fn the_error_decides_the_exit_code() {
        let refusal = || Refusal::new(Exit::TryAgain, anyhow!("cause").context("busy"));
        assert_eq!(exit_of(&refusal().into()), Exit::TryAgain);
        assert_eq!(line(&refusal().into()), "busy: cause");
        let wrapped = Err::<(), _>(refusal()).context("serve");
        assert!(wrapped.is_err_and(|error| exit_of(&error) == Exit::TryAgain));
        let config: anyhow::Error = ConfigError::NotAKey("a.b".to_owned()).into();
        assert_eq!(exit_of(&config), Exit::Usage);
        assert_eq!(exit_of(&anyhow!("other")), Exit::Failure);
    }
}
