//! `uptally generate`: a made-up fleet as the four CSV files that `uptally import` takes.
//!
//! No database and no configuration matter to it. The rows are written as they are made; what is held in memory
//! grows with the stores (about 0.5 kB each), not with the rows.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tempfile::NamedTempFile;

use super::commands::readable;
use super::{GenerateArgs, RowOrder, write_stdout};
use crate::fleet::{Fleet, FleetOptions};
use crate::time::MINUTE_US;

const ACTIVITY: &str = "store_status.csv";
const HOURS: &str = "menu_hours.csv";
const CLOSURES: &str = "closures.csv";
const TIMEZONES: &str = "timezones.csv";

const BUFFER_BYTES: usize = 256 * 1024;

pub(super) fn generate(arguments: &GenerateArgs) -> anyhow::Result<ExitCode> {
    let dir = &arguments.out;
    fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    // Before a large file is written, not after.
    for name in [ACTIVITY, HOURS, CLOSURES, TIMEZONES] {
        let path = dir.join(name);
        anyhow::ensure!(
            !path.try_exists().with_context(|| cannot_write(&path))?,
            "{} exists already: remove it or name another directory",
            path.display()
        );
    }
    let fleet = Fleet::generate(FleetOptions {
        stores: arguments.stores,
        days: arguments.days,
        poll_interval_us: i64::from(arguments.poll_minutes) * MINUTE_US,
        seed: arguments.seed,
        ..FleetOptions::default()
    });
    let zones = write_new(dir, TIMEZONES, |out| fleet.write_timezones_csv(out))?;
    let hours = write_new(dir, HOURS, |out| fleet.write_hours_csv(out))?;
    let closures = write_new(dir, CLOSURES, |out| fleet.write_closures_csv(out))?;
    let polls = write_new(dir, ACTIVITY, |out| match arguments.order {
        RowOrder::Time => fleet.write_activity_csv(out),
        RowOrder::Store => fleet.write_activity_csv_by_store(out),
    })?;
    write_stdout(|out| {
        let files = [
            (TIMEZONES, zones),
            (HOURS, hours),
            (CLOSURES, closures),
            (ACTIVITY, polls),
        ];
        for (name, rows) in files {
            writeln!(out, "{rows} rows in {}", dir.join(name).display())?;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a file that was not there; returns how many rows. It gets its name when it is whole.
fn write_new(dir: &Path, name: &str, write: impl FnOnce(&mut dyn Write) -> io::Result<u64>) -> anyhow::Result<u64> {
    let path = dir.join(name);
    let written = || -> io::Result<u64> {
        let mut file = tempfile::Builder::new().permissions(readable()).tempfile_in(dir)?;
        let rows = write(&mut BufWriter::with_capacity(BUFFER_BYTES, &mut file))?;
        NamedTempFile::persist_noclobber(file, &path)?;
        Ok(rows)
    };
    written().with_context(|| cannot_write(&path))
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
