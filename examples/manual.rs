//! Writes the manual pages and the completions of shells, for packages: `cargo run --example manual -- DIRECTORY`.
//!
//! An example rather than a command, so that the program does not carry what it takes to make them.

use std::path::PathBuf;

use anyhow::Context as _;
use clap_complete::Shell;
use uptally::cli;

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from);
    let dir = dir.context("expected a directory to write to")?;
    std::fs::create_dir_all(&dir)?;
    clap_mangen::generate_to(cli::command(), &dir)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut cli::command(), "uptally", &dir)?;
    }
    Ok(())
}
