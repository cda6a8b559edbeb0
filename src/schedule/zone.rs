//! Time zones: from local wall time to UTC with named rules, and the grid of cells.
//!
//! The rules for wall times that a clock change removes or repeats are those of [`Side`]. The grid is
//! the store's own clock: cells start where the zone's *standard* time shows :00 (and :30 in the few
//! zones whose offset moves by a half hour).

use std::sync::LazyLock;

use chrono::{LocalResult, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone};
use chrono_tz::{OffsetComponents, Tz};
use dashmap::DashMap;

use crate::time::{DAY_US, HOUR_US, SECOND_US, Span, Timestamp};

/// Cells are hours, or half hours at the finest.
pub const CELLS_PER_HOUR_MAX: u8 = 2;

/// Which of two instants a wall time means that exists twice. One that does not exist is the first
/// instant after the gap for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first of the two.
    Opening,
    /// The second of the two.
    Closing,
}

/// A time zone and its grid. Small and `Copy`; made once per zone name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Zone {
    tz: Tz,
    grid: Grid,
}

impl Zone {
    /// The zone of an IANA name.
    pub fn of(tz: Tz) -> Self {
        // Finding the grid walks decades of offsets, half a millisecond: remembered by zone.
        static ZONES: LazyLock<DashMap<Tz, Zone>> = LazyLock::new(DashMap::new);
        *ZONES.entry(tz).or_insert_with(|| Zone { tz, grid: Grid::of(tz) })
    }

    /// The IANA name.
    pub fn name(self) -> &'static str {
        self.tz.name()
    }

    /// The grid of cells.
    pub fn grid(self) -> Grid {
        self.grid
    }

    /// What its clocks are ahead of UTC at an instant, microseconds.
    pub(super) fn offset_us(self, at: Timestamp) -> i64 {
        offset_s(self.tz, at.micros().div_euclid(SECOND_US)) * SECOND_US
    }

    /// What the clocks show at an instant.
    pub fn local_time(self, at: Timestamp) -> NaiveDateTime {
        self.tz.from_utc_datetime(&at.to_chrono().naive_utc()).naive_local()
    }

    /// The local calendar date at an instant.
    pub fn local_date(self, at: Timestamp) -> NaiveDate {
        self.tz.from_utc_datetime(&at.to_chrono().naive_utc()).date_naive()
    }

    /// The first instant of a local day.
    pub fn day_start(self, date: NaiveDate) -> Timestamp {
        self.wall_time(date, 0, Side::Opening)
    }

    /// The instant of a wall time, `wall_us` microseconds after 00:00 of `date`, up to 48 h.
    ///
    /// Exactly 24 h is the end of the day: the first instant of the next one, whichever side asks.
    pub fn resolve(self, date: NaiveDate, wall_us: i64, side: Side) -> Timestamp {
        if wall_us < DAY_US {
            return self.wall_time(date, wall_us, side);
        }
        let next = date.succ_opt().unwrap_or(date);
        if wall_us == DAY_US {
            self.day_start(next)
        } else {
            self.wall_time(next, wall_us - DAY_US, side)
        }
    }

    /// The instant at which its clock shows `wall_us`, microseconds since 1970-01-01 00:00 of that same clock. As a
    /// closing, 00:00 is the end of the day before.
    pub fn at_wall(self, wall_us: i64, side: Side) -> Timestamp {
        let (day, of_day_us) = match (wall_us.div_euclid(DAY_US), wall_us.rem_euclid(DAY_US)) {
            (day, 0) if side == Side::Closing => (day - 1, DAY_US),
            whole => whole,
        };
        let date = NaiveDate::default().checked_add_signed(TimeDelta::days(day));
        self.resolve(date.unwrap_or_default(), of_day_us, side)
    }

    fn wall_time(self, date: NaiveDate, wall_us: i64, side: Side) -> Timestamp {
        let wall = date.and_time(NaiveTime::MIN) + TimeDelta::microseconds(wall_us);
        match self.tz.from_local_datetime(&wall) {
            LocalResult::Single(at) => Timestamp::from_chrono(at.to_utc()),
            LocalResult::Ambiguous(first, second) => {
                let at = match side {
                    Side::Opening => first,
                    Side::Closing => second,
                };
                Timestamp::from_chrono(at.to_utc())
            }
            LocalResult::None => self.after_gap(wall.and_utc().timestamp()),
        }
    }

    /// The first instant whose wall time is not before `wall_s` (seconds, as if it were UTC), which
    /// itself lies in a gap. No zone is further from UTC than 15 hours, no gap longer than a day.
    fn after_gap(self, wall_s: i64) -> Timestamp {
        let (mut before, mut after) = (wall_s - 40 * 3600, wall_s + 40 * 3600);
        while after - before > 1 {
            let middle = i64::midpoint(before, after);
            if middle + offset_s(self.tz, middle) < wall_s {
                before = middle;
            } else {
                after = middle;
            }
        }
        Timestamp::from_micros(after * SECOND_US)
    }
}

/// The grid of a zone: cells of equal length, numbered through from 1970.
///
/// Invariant: `cell_us` is one hour or half of it; `0 <= phase_us < 1 h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    phase_us: i64,
    cell_us: i64,
}

impl Grid {
    /// Hours where standard time shows :00. Where the zone's offset has moved by part of an hour since
    /// 2000 (Lord Howe's summer time; Caracas, Pyongyang, Colombo and Norfolk changed their standard),
    /// half hours, so that every local midnight still lies on the grid.
    fn of(tz: Tz) -> Self {
        let far = Timestamp::MAX.to_chrono().naive_utc() - TimeDelta::days(183);
        let standard = tz.offset_from_utc_datetime(&far).base_utc_offset();
        let phase_us = (standard.num_seconds() * SECOND_US).rem_euclid(HOUR_US);
        let first = Timestamp::MIN.micros() / SECOND_US;
        let last = Timestamp::MAX.micros() / SECOND_US;
        let splits_hours = (first..last)
            .step_by(7 * 86_400)
            .any(|at| (offset_s(tz, at) * SECOND_US - phase_us).rem_euclid(HOUR_US) != 0);
        let cell_us = if splits_hours {
            HOUR_US / i64::from(CELLS_PER_HOUR_MAX)
        } else {
            HOUR_US
        };
        Grid { phase_us, cell_us }
    }

    /// Length of a cell in microseconds.
    pub fn cell_us(self) -> i64 {
        self.cell_us
    }

    /// 1 or 2.
    pub fn cells_per_hour(self) -> u8 {
        if self.cell_us == HOUR_US { 1 } else { CELLS_PER_HOUR_MAX }
    }

    /// 24 or 48.
    pub fn cells_per_day(self) -> usize {
        24 * usize::from(self.cells_per_hour())
    }

    /// How long after each full UTC hour the first cell of that hour begins, and so how long after its end the last one is
    /// over.
    pub fn offset_us(self) -> i64 {
        (-self.phase_us).rem_euclid(self.cell_us)
    }

    /// The cell that holds an instant.
    pub fn cell_of(self, at: Timestamp) -> i32 {
        let cell = (at.micros() + self.phase_us).div_euclid(self.cell_us);
        i32::try_from(cell).unwrap_or(i32::MAX)
    }

    /// The first instant of a cell.
    pub fn cell_start(self, cell: i32) -> Timestamp {
        Timestamp::from_micros(i64::from(cell) * self.cell_us - self.phase_us)
    }

    /// The first instant after the cell that holds `at`.
    pub fn cell_end_after(self, at: Timestamp) -> Timestamp {
        self.cell_start(self.cell_of(at) + 1)
    }

    /// The start of the clock hour that holds `at`.
    pub fn hour_start(self, at: Timestamp) -> Timestamp {
        at.plus(-(at.micros() + self.phase_us).rem_euclid(HOUR_US))
    }

    /// The first cell of the 24-hour block that holds a cell. Blocks are the rows of `rollup_open`.
    pub fn block_first(self, cell: i32) -> i32 {
        let cells = i32::from(self.cells_per_hour()) * 24;
        cell.div_euclid(cells) * cells
    }

    /// Calls `each` with every cell that `span` overlaps and the microseconds of overlap.
    pub fn split(self, span: Span, mut each: impl FnMut(i32, i64)) {
        let mut cell = self.cell_of(span.start);
        let mut from = span.start;
        while from < span.end {
            let to = self.cell_start(cell + 1).min(span.end);
            each(cell, to.since(from));
            from = to;
            cell += 1;
        }
    }
}

/// Seconds by which a zone's wall time is ahead of UTC, at a Unix time in seconds.
fn offset_s(tz: Tz, unix_s: i64) -> i64 {
    let at = Timestamp::from_micros(unix_s * SECOND_US).to_chrono().naive_utc();
    i64::from(tz.offset_from_utc_datetime(&at).fix().local_minus_utc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MINUTE_US;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn date(y: i32, m: u32, d: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(y, m, d).unwrap()
    }

    #[test]
    fn every_local_midnight_of_every_zone_lies_on_its_grid() {
        for tz in chrono_tz::TZ_VARIANTS {
            let zone = Zone::of(tz);
            // Every 5th day hits every weekday and month; changes persist for months.
            for days in (0..36_500).step_by(5) {
                let start = zone.day_start(date(2000, 1, 2) + TimeDelta::days(days));
                let grid = zone.grid();
                assert_eq!(grid.cell_start(grid.cell_of(start)), start, "{tz} {start}");
            }
        }
    }

    #[test]
    fn grids_follow_standard_time() {
        let phase = |tz: Tz| Zone::of(tz).grid().phase_us / MINUTE_US;
        assert_eq!(phase(Tz::America__Chicago), 0);
        assert_eq!(phase(Tz::Asia__Kolkata), 30);
        assert_eq!(phase(Tz::Asia__Kathmandu), 45);
        assert_eq!(phase(Tz::Australia__Lord_Howe), 30);
        assert_eq!(Zone::of(Tz::Australia__Lord_Howe).grid().cells_per_hour(), 2);
        assert_eq!(Zone::of(Tz::Asia__Kathmandu).grid().cells_per_hour(), 1);
        assert_eq!(Zone::of(Tz::Africa__Casablanca).grid().cells_per_hour(), 1);
    }

    #[test]
    fn a_missing_day_is_empty() {
        // Apia went from UTC-10 to UTC+14 at the end of 2011-12-29: the 30th did not happen.
        let apia = Zone::of(Tz::Pacific__Apia);
        let change = at("2011-12-30T10:00:00Z");
        assert_eq!(apia.day_start(date(2011, 12, 30)), change);
        assert_eq!(apia.day_start(date(2011, 12, 31)), change);
        assert_eq!(apia.resolve(date(2011, 12, 30), 13 * HOUR_US, Side::Closing), change);
    }

    #[test]
    fn half_hour_gaps_and_folds() {
        // Lord Howe, 2023-10-01 02:00 to 02:30 missing; 2023-04-02 01:30 to 02:00 twice.
        let zone = Zone::of(Tz::Australia__Lord_Howe);
        let wall = 2 * HOUR_US + 10 * MINUTE_US;
        assert_eq!(
            zone.resolve(date(2023, 10, 1), wall, Side::Opening),
            at("2023-09-30T15:30:00Z")
        );
        let wall = HOUR_US + 45 * MINUTE_US;
        assert_eq!(
            zone.resolve(date(2023, 4, 2), wall, Side::Opening),
            at("2023-04-01T14:45:00Z")
        );
        assert_eq!(
            zone.resolve(date(2023, 4, 2), wall, Side::Closing),
            at("2023-04-01T15:15:00Z")
        );
    }

    #[test]
    fn midnight_in_a_gap_and_in_a_fold() {
        let sao_paulo = Zone::of(Tz::America__Sao_Paulo);
        assert_eq!(sao_paulo.day_start(date(2018, 11, 4)), at("2018-11-04T03:00:00Z"));
        let havana = Zone::of(Tz::America__Havana);
        assert_eq!(havana.day_start(date(2023, 11, 5)), at("2023-11-05T04:00:00Z"));
        assert_eq!(
            havana.resolve(date(2023, 11, 4), DAY_US, Side::Closing),
            at("2023-11-05T04:00:00Z")
        );
    }

    #[test]
    fn a_span_splits_into_cells() {
        let grid = Zone::of(Tz::Asia__Kathmandu).grid();
        let mut parts = Vec::new();
        grid.split(
            Span::new(at("2023-01-01T00:00:00Z"), at("2023-01-01T01:30:00Z")),
            |cell, us| {
                parts.push((grid.cell_start(cell), us / MINUTE_US));
            },
        );
        assert_eq!(
            parts,
            [
                (at("2022-12-31T23:15:00Z"), 15),
                (at("2023-01-01T00:15:00Z"), 60),
                (at("2023-01-01T01:15:00Z"), 15),
            ]
        );
    }
}
