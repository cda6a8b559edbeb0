//! The pure core at work, without a database: three CSVs in, a report out.
//!
//! `cargo run --release --example replay -- ACTIVITY.csv HOURS.csv TIMEZONES.csv` prints the first lines of the
//! report as of the newest observation; without files, that of a small generated fleet.
//!
//! The steps are the daemon's: parse rows, give every store its schedule, apply observations, take a snapshot,
//! render it. What the daemon adds is where rows come from and where results go.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};

use anyhow::{Context, bail};
use chrono_tz::Tz;
use uptally::fleet::{Fleet, FleetOptions};
use uptally::import::Table;
use uptally::import::record::{BadField, Record, Records};
use uptally::import::row::{ActivityRow, HoursRow, TimezoneRow};
use uptally::report::csv;
use uptally::rollup::{Limits, Observation, Rollup, StoreNo};
use uptally::schedule::{DEFAULT_ZONE, Interval, Schedule};
use uptally::store::Status;
use uptally::time::Timestamp;
use uptally::window::{ClosedTime, Windows};

/// Lines of the report that are shown, header included.
const LINES_SHOWN: usize = 9;

fn main() -> anyhow::Result<()> {
    let files: Vec<OsString> = std::env::args_os().skip(1).collect();
    replay(&files, &mut io::stdout().lock())
}

/// Replays three files, or the generated fleet if there are none, and writes the report's first lines.
pub fn replay(files: &[OsString], out: &mut dyn Write) -> anyhow::Result<()> {
    let history = match files {
        [] => History::generated()?,
        [activity, hours, timezones] => {
            let mut history = History::default();
            history.read_timezones(open(timezones)?, &timezones.to_string_lossy())?;
            history.read_hours(open(hours)?, &hours.to_string_lossy())?;
            history.read_activity(open(activity)?, &activity.to_string_lossy())?;
            history
        }
        other => bail!(
            "expected no files or three: ACTIVITY HOURS TIMEZONES, found {}",
            other.len()
        ),
    };
    let (mut rollup, mut rows) = history.into_rollup();
    let late = rollup.apply(&mut rows);
    debug_assert!(
        late.is_empty(),
        "sorted by time, no row comes after what memory has forgotten"
    );

    let snapshot = rollup.snapshot();
    let as_of = snapshot.newest().context("there is no observation to report as of")?;
    let report = csv::render(&snapshot, as_of, Windows::Calendar, ClosedTime::Uptime)?;
    eprintln!("{} stores, {} observations, as of {as_of}", snapshot.len(), rows.len());
    // Every piece ends with the end of a row.
    let lines = report
        .pieces()
        .iter()
        .flat_map(|piece| piece.split_inclusive(|&byte| byte == b'\n'));
    for line in lines.take(LINES_SHOWN) {
        out.write_all(line)?;
    }
    Ok(())
}

fn open(file: &OsString) -> anyhow::Result<BufReader<File>> {
    let opened = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    Ok(BufReader::new(opened))
}

/// What the three tables hold, under the same keys.
#[derive(Default)]
struct History {
    zones: BTreeMap<String, Tz>,
    hours: BTreeMap<String, Vec<Interval>>,
    observations: BTreeMap<(String, Timestamp), Status>,
}

impl History {
    fn generated() -> anyhow::Result<Self> {
        let fleet = Fleet::generate(FleetOptions {
            stores: 200,
            days: 15,
            ..FleetOptions::default()
        });
        let (mut timezones, mut hours, mut activity) = (Vec::new(), Vec::new(), Vec::new());
        fleet.write_timezones_csv(&mut timezones)?;
        fleet.write_hours_csv(&mut hours)?;
        fleet.write_activity_csv(&mut activity)?;
        let mut history = History::default();
        history.read_timezones(timezones.as_slice(), "generated time zones")?;
        history.read_hours(hours.as_slice(), "generated hours")?;
        history.read_activity(activity.as_slice(), "generated activity")?;
        Ok(history)
    }

    fn read_timezones(&mut self, input: impl BufRead, file: &str) -> anyhow::Result<()> {
        read(input, file, Table::Timezones, |record| {
            let row = TimezoneRow::parse(record)?;
            self.zones.insert(row.store_id.to_owned(), row.zone);
            Ok(())
        })
    }

    fn read_hours(&mut self, input: impl BufRead, file: &str) -> anyhow::Result<()> {
        read(input, file, Table::Hours, |record| {
            let row = HoursRow::parse(record)?;
            let of_store = self.hours.entry(row.store_id.to_owned()).or_default();
            of_store.extend(Interval::new(row.day, row.start_us, row.end_us));
            Ok(())
        })
    }

    fn read_activity(&mut self, input: impl BufRead, file: &str) -> anyhow::Result<()> {
        read(input, file, Table::Activity, |record| {
            let row = ActivityRow::parse(record)?;
            self.observations.insert((row.store_id.to_owned(), row.at), row.status);
            Ok(())
        })
    }

    /// A rollup that knows every store and its schedule, and the rows to apply to it.
    fn into_rollup(self) -> (Rollup, Vec<(StoreNo, Observation)>) {
        let limits = Limits {
            track_dirty: false, // nothing is flushed
            ..Limits::default()
        };
        let newest = self.observations.keys().map(|&(_, at)| at).max();
        let mut rollup = Rollup::new(limits, newest.unwrap_or(Timestamp::MIN));
        let mut zones = self.zones;
        for (id, intervals) in self.hours {
            let zone = zones.remove(&id).unwrap_or(DEFAULT_ZONE);
            rollup.enroll(&id, &Schedule::new(zone, intervals.into_iter().collect()));
        }
        for (id, zone) in zones {
            rollup.enroll(&id, &Schedule::new(zone, std::iter::empty().collect()));
        }
        let row = |((id, at), status): ((String, Timestamp), Status)| (rollup.intern(&id), Observation { at, status });
        let rows = self.observations.into_iter().map(row).collect();
        (rollup, rows)
    }
}

/// Reads every record of a table; those that are not right are shown and left out.
fn read(
    input: impl BufRead,
    file: &str,
    table: Table,
    mut take: impl FnMut(&Record<'_>) -> Result<(), BadField>,
) -> anyhow::Result<()> {
    let mut records = Records::open(input, file, table)?;
    while let Some(record) = records.next_record()? {
        let taken = record.and_then(|record| take(&record).map_err(|bad| record.reject(bad)));
        if let Err(reject) = taken {
            eprintln!("{reject}");
        }
    }
    Ok(())
}
