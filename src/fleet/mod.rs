//! A made-up fleet in the shape of the real data: stores, time zones, weekly hours, a few closures, and a polling feed.
//!
//! For the demo, tests and benches. Pure: the same options give the same fleet and the same feed on every
//! machine. Each poll follows from (seed, store, slot) alone, so the feed goes on past the fleet's end without
//! any state being kept. Random numbers are floating point; the instants and hours made from them are whole.
//!
//! Units: microseconds, of UTC or (`*_us` of hours) after local midnight.

mod closures;
mod feed;
mod random;
mod store;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use chrono::{Datelike, Timelike};

use crate::import::row::{ActivityRow, ClosureRow, HoursRow, TimezoneRow};
use crate::store::EVERY_STORE;
use crate::time::{DAY_US, HOUR_US, SECOND_US, Timestamp};

pub use closures::FleetClosure;
use feed::Feed;
pub use feed::Poll;
pub use store::{FleetHours, FleetStore};

/// What fleet to make. The default has the size and the end of the real data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FleetOptions {
    /// Number of stores.
    pub stores: u32,
    /// Days of feed before `end`.
    pub days: u32,
    /// Each store is polled once in each stretch of this length; more than 0.
    pub poll_interval_us: i64,
    /// Share of polls that never arrived, 0 to 1.
    pub missing: f64,
    /// Other seeds make other fleets.
    pub seed: u64,
    /// The backfill ends before this instant; the live feed starts at it.
    pub end: Timestamp,
}

impl Default for FleetOptions {
    fn default() -> Self {
        FleetOptions {
            stores: 13_559,
            days: 8,
            poll_interval_us: HOUR_US,
            missing: 0.29,
            seed: 1,
            end: Timestamp::from_micros(1_674_670_402_479_220), // 2023-01-25T18:13:22.479220Z
        }
    }
}

/// A fleet. See [`Fleet::generate`].
#[derive(Debug, Clone)]
pub struct Fleet {
    options: FleetOptions,
    stores: Vec<FleetStore>,
    closures: Vec<FleetClosure>,
}

impl Fleet {
    /// Makes a fleet. Each store depends on the seed and its own index, and on the number of stores only
    /// through how many get an odd zone.
    pub fn generate(options: FleetOptions) -> Self {
        let options = FleetOptions {
            poll_interval_us: options.poll_interval_us.max(1),
            ..options
        };
        let stores = (0..options.stores).map(|index| FleetStore::generate(&options, index));
        Fleet {
            stores: stores.collect(),
            closures: closures::generate(&options),
            options,
        }
    }

    /// What the fleet was made from.
    pub fn options(&self) -> &FleetOptions {
        &self.options
    }

    /// The stores; [`Poll::store`] is an index into them.
    pub fn stores(&self) -> &[FleetStore] {
        &self.stores
    }

    /// The polls of the `days` before `end`, in time order.
    pub fn backfill(&self) -> impl Iterator<Item = Poll> + '_ {
        let end = self.options.end;
        Feed::starting(self, -self.backfill_slots()).take_while(move |poll| poll.at < end)
    }

    /// The same polls, one store after another.
    pub fn backfill_by_store(&self) -> impl Iterator<Item = Poll> + '_ {
        let slots = self.backfill_slots();
        (0..self.options.stores).flat_map(move |store| feed::of_store(self.options, store, -slots..0))
    }

    fn backfill_slots(&self) -> i64 {
        i64::from(self.options.days) * DAY_US / self.options.poll_interval_us
    }

    /// The polls from `end` on, in time order, without an end of its own if any store is polled at all.
    pub fn live(&self) -> impl Iterator<Item = Poll> + '_ {
        Feed::starting(self, 0)
    }

    /// [`Fleet::backfill`] as rows to import.
    pub fn activity_rows(&self) -> impl Iterator<Item = ActivityRow<'_>> {
        self.backfill().filter_map(|poll| self.activity_row(poll))
    }

    /// A poll of this fleet as a row; None if the poll is of another, larger fleet.
    pub fn activity_row(&self, poll: Poll) -> Option<ActivityRow<'_>> {
        let store = self.stores.get(poll.store as usize)?;
        Some(ActivityRow {
            store_id: &store.store_id,
            at: poll.at,
            status: poll.status,
        })
    }

    /// The weekly hours of all stores as rows to import.
    pub fn hours_rows(&self) -> impl Iterator<Item = HoursRow<'_>> {
        self.stores.iter().flat_map(|store| {
            store.hours.iter().map(|hours| HoursRow {
                store_id: &store.store_id,
                day: hours.day,
                start_us: hours.start_us,
                end_us: hours.end_us,
            })
        })
    }

    /// The closures as rows to import.
    pub fn closure_rows(&self) -> impl Iterator<Item = ClosureRow<'_>> {
        self.closures.iter().filter_map(|closure| {
            let store_id = match closure.store {
                None => EVERY_STORE,
                Some(store) => &self.stores.get(store as usize)?.store_id,
            };
            Some(ClosureRow {
                store_id,
                from_us: closure.from_us,
                to_us: closure.to_us,
                reason: closure.reason,
            })
        })
    }

    /// The time zones of all stores that have one as rows to import.
    pub fn timezone_rows(&self) -> impl Iterator<Item = TimezoneRow<'_>> {
        self.stores.iter().filter_map(|store| {
            Some(TimezoneRow {
                store_id: &store.store_id,
                zone: store.zone?,
            })
        })
    }

    /// Writes the backfill as a status CSV, in time order; returns how many rows.
    pub fn write_activity_csv(&self, out: impl Write) -> io::Result<u64> {
        self.write_polls(self.backfill(), out)
    }

    /// Writes the same rows one store after another.
    pub fn write_activity_csv_by_store(&self, out: impl Write) -> io::Result<u64> {
        self.write_polls(self.backfill_by_store(), out)
    }

    fn write_polls(&self, polls: impl Iterator<Item = Poll>, mut out: impl Write) -> io::Result<u64> {
        out.write_all(b"store_id,status,timestamp_utc\n")?;
        let mut rows = 0;
        let mut line = Vec::new();
        for row in polls.filter_map(|poll| self.activity_row(poll)) {
            line.clear();
            line.extend_from_slice(row.store_id.as_bytes());
            line.push(b',');
            line.extend_from_slice(row.status.as_str().as_bytes());
            line.push(b',');
            push_utc(&mut line, row.at);
            line.push(b'\n');
            out.write_all(&line)?;
            rows += 1;
        }
        out.flush()?;
        Ok(rows)
    }

    /// Writes the weekly hours as a CSV; returns how many rows.
    pub fn write_hours_csv(&self, mut out: impl Write) -> io::Result<u64> {
        writeln!(out, "store_id,day,start_time_local,end_time_local")?;
        let mut rows = 0;
        for row in self.hours_rows() {
            let (start, end) = (clock(row.start_us), clock(row.end_us));
            writeln!(out, "{},{},{start},{end}", row.store_id, row.day)?;
            rows += 1;
        }
        out.flush()?;
        Ok(rows)
    }

    /// Writes the closures as a CSV; returns how many rows.
    pub fn write_closures_csv(&self, mut out: impl Write) -> io::Result<u64> {
        writeln!(out, "store_id,from,to,reason")?;
        let mut rows = 0;
        for row in self.closure_rows() {
            let (from, to) = (wall_time(row.from_us), wall_time(row.to_us));
            writeln!(out, "{},{from},{to},{}", row.store_id, row.reason)?;
            rows += 1;
        }
        out.flush()?;
        Ok(rows)
    }

    /// Writes the time zones as a CSV; returns how many rows.
    pub fn write_timezones_csv(&self, mut out: impl Write) -> io::Result<u64> {
        writeln!(out, "store_id,timezone_str")?;
        let mut rows = 0;
        for row in self.timezone_rows() {
            writeln!(out, "{},{}", row.store_id, row.zone)?;
            rows += 1;
        }
        out.flush()?;
        Ok(rows)
    }
}

/// Appends an instant as the real feed spells it: `2023-01-22 12:09:39.388884 UTC`. Digit by digit, as going
/// through chrono's formatter would take most of the time of writing a large file.
fn push_utc(line: &mut Vec<u8>, at: Timestamp) {
    let utc = at.to_chrono();
    let (year, month, day) = (utc.year().unsigned_abs(), utc.month(), utc.day());
    let (hour, minute, second, micros) = (utc.hour(), utc.minute(), utc.second(), utc.nanosecond() / 1_000);
    let mut part = |number: u32, lowest: u8, after: &[u8]| {
        let mut unit = 10_u32.pow(u32::from(lowest));
        while unit > 0 {
            line.push(b'0' + u8::try_from(number / unit % 10).unwrap_or_default());
            unit /= 10;
        }
        line.extend_from_slice(after);
    };
    part(year, 3, b"-");
    part(month, 1, b"-");
    part(day, 1, b" ");
    part(hour, 1, b":");
    part(minute, 1, b":");
    part(second, 1, b".");
    part(micros, 5, b" UTC");
}

/// `HH:MM:SS`; generated hours are of whole seconds.
fn clock(us: i64) -> String {
    let seconds = us / SECOND_US;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A date, with a time of day unless that is 00:00; generated closures are of whole seconds.
fn wall_time(us: i64) -> String {
    let date = Timestamp::from_micros(us).to_chrono().date_naive();
    match us.rem_euclid(DAY_US) {
        0 => date.to_string(),
        of_day_us => format!("{date} {}", clock(of_day_us)),
    }
}
