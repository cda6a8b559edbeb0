//! The `uptally` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|arg| arg == "postgres-guard")
    {
        return uptally::cluster::guard_main();
    }
    ExitCode::SUCCESS
}
