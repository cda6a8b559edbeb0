//! The brute-force reference: what the numbers must be, computed again from raw rows.
//!
//! This is the model written down a second time, in the most obvious way: intervals over the whole
//! window, no buckets, no state kept between calls. The property tests hold the production code
//! against it and `uptally verify` does the same on live data. For that reason it shares no code
//! with the modules it checks: only [`crate::time`], [`crate::store`] and the words of a request
//! ([`Windows`], [`ClosedTime`], [`DateRange`]) are common ground.
//!
//! It is not fast (a report sorts every row three times), and no report that is served comes from
//! here.
//!
//! What holds the reference itself: cases computed by hand (`tests`, and `clock_changes` for days on
//! which a clock changes, with chrono's own resolution of wall times beside them) and a look at
//! every single second of random histories (`simulation`).
//!
//! Units: instants are [`Timestamp`]s. A *wall time* is a plain `i64`, the microseconds that a
//! clock on the wall shows since 1970-01-01 00:00 of that same clock. Durations are microseconds.

use chrono::{NaiveDate, NaiveTime, Offset, TimeZone};
use chrono_tz::{OffsetComponents, Tz};

use crate::store::Status;
use crate::time::{DAY_US, HOUR_US, MINUTE_US, Span, Timestamp};
use crate::window::{ClosedTime, DateRange, Windows};

#[cfg(test)]
mod clock_changes;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

/// The first line of every report.
const HEADER: &str = "store_id,uptime_last_hour,uptime_last_day,uptime_last_week,\
                      downtime_last_hour,downtime_last_day,downtime_last_week\n";

/// All that is known of one store, as the rows say it.
#[derive(Debug, Clone)]
pub struct RawStore {
    /// The store's id, as in the tables.
    pub id: String,
    /// The zone of its opening hours; the default zone where the tables have none.
    pub zone: Tz,
    /// Its weekly opening hours in any order. None at all: always open.
    pub hours: Vec<RawInterval>,
    /// Its closures in any order, with those of every store.
    pub closures: Vec<RawClosure>,
    /// Its observations in any order, one per instant.
    pub observations: Vec<(Timestamp, Status)>,
}

/// One row of `store_business_hours`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawInterval {
    /// 0 = Monday to 6 = Sunday.
    pub day: u8,
    /// Wall time of the opening, microseconds of the local day, `0..=DAY_US`.
    pub start_us: i64,
    /// Wall time of the closing, microseconds of the local day, `0..=DAY_US`.
    pub end_us: i64,
}

/// One row of `store_closures`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawClosure {
    /// Wall time of the first closed moment.
    pub from_us: i64,
    /// Wall time of the first moment that is not closed any more.
    pub to_us: i64,
}

/// The stretches of `within` in which a store with these hours and closures is open: disjoint, not
/// touching, in order.
pub fn openings(zone: Tz, hours: &[RawInterval], closures: &[RawClosure], within: Span) -> Vec<Span> {
    let clock = WallClock::around(zone, within);
    let open = hours_open(&clock, hours, within);
    if closures.is_empty() {
        return open;
    }
    // What is not closed, as the stretches between the closed ones.
    let closed = union(
        closures
            .iter()
            .map(|&c| closed_in(&clock, c).intersect(within))
            .collect(),
    );
    let ends = [within.start].into_iter().chain(closed.iter().map(|span| span.end));
    let starts = closed.iter().map(|span| span.start).chain([within.end]);
    let between: Vec<Span> = ends.zip(starts).map(|(end, start)| Span::new(end, start)).collect();
    both(&open, &between)
}

/// The stretches of `within` in which these hours alone say open.
fn hours_open(clock: &WallClock, hours: &[RawInterval], within: Span) -> Vec<Span> {
    if hours.is_empty() {
        return union(vec![within]);
    }
    // An opening reaches into the two days after its own at most; one more costs nothing.
    let first_day = clock.local_day(within.start) - 3;
    let last_day = clock.local_day(within.end) + 1;
    let mut open = Vec::new();
    for day in first_day..=last_day {
        for interval in hours {
            if i64::from(interval.day) == weekday(day) {
                open.push(opening_on(clock, day, *interval).intersect(within));
            }
        }
    }
    union(open)
}

/// The stretches of `within` in which the last observation says inactive: disjoint, not touching,
/// in order. Before the first observation a store is active; after the last one, that one holds.
pub fn inactive(observations: &[(Timestamp, Status)], within: Span) -> Vec<Span> {
    let mut in_order = observations.to_vec();
    in_order.sort_by_key(|&(at, _)| at);
    let next = in_order.iter().skip(1).map(|&(at, _)| at);
    let ends = next.chain([within.end]);
    let down = in_order
        .iter()
        .zip(ends)
        .filter(|((_, status), _)| *status == Status::Inactive)
        .map(|(&(start, _), end)| Span::new(start, end).intersect(within))
        .collect();
    union(down)
}

/// Microseconds of `within` that the store was (active, inactive) inside its opening hours.
pub fn up_down_us(store: &RawStore, within: Span) -> (i64, i64) {
    let open = openings(store.zone, &store.hours, &store.closures, within);
    let down = both(&open, &inactive(&store.observations, within));
    let (open_us, down_us) = (total_us(&open), total_us(&down));
    (open_us - down_us, down_us)
}

/// The windows (last hour, last day, last week) of a report as of `as_of` for a store in `zone`.
pub fn windows(zone: Tz, as_of: Timestamp, kind: Windows) -> [Span; 3] {
    let hour_end = cell_start(as_of, HOUR_US, grid_phase_us(zone));
    let hours_back = |hours: i64| Span::new(hour_end.plus(-hours * HOUR_US), hour_end);
    match kind {
        Windows::Rolling => [hours_back(1), hours_back(24), hours_back(168)],
        Windows::Calendar => {
            let clock = WallClock::around(zone, Span::new(as_of.plus(-15 * DAY_US), as_of));
            let today = clock.local_day(as_of);
            let monday = today - weekday(today);
            let days = |from, to| Span::new(clock.day_start(from), clock.day_start(to));
            [hours_back(1), days(today - 1, today), days(monday - 7, monday)]
        }
    }
}

/// Where the hours of a zone's grid begin: microseconds after a full UTC hour, `0..HOUR_US`. The
/// zone's standard offset decides, so that a summer time of half an hour does not move the grid.
pub fn grid_phase_us(zone: Tz) -> i64 {
    const JULY_2037: Timestamp = Timestamp::from_micros(2_130_019_200_000_000);
    let at = JULY_2037.to_chrono().naive_utc();
    let standard = zone.offset_from_utc_datetime(&at).base_utc_offset();
    (-standard.num_seconds() * 1_000_000).rem_euclid(HOUR_US)
}

/// The whole report, header included, one line per store in the byte order of the ids; lines end
/// in LF.
pub fn report_csv(stores: &[RawStore], as_of: Timestamp, windows_kind: Windows, closed: ClosedTime) -> String {
    let mut in_order: Vec<&RawStore> = stores.iter().collect();
    in_order.sort_by(|a, b| a.id.as_bytes().cmp(b.id.as_bytes()));
    let mut csv = String::from(HEADER);
    for store in in_order {
        let spans = windows(store.zone, as_of, windows_kind);
        let sums = spans.map(|span| {
            let (up_us, down_us) = up_down_us(store, span);
            match closed {
                ClosedTime::Uptime => (span.len_us() - down_us, down_us),
                ClosedTime::Excluded => (up_us, down_us),
            }
        });
        let [hour, day, week] = sums;
        let fields = [
            csv_id(&store.id),
            decimal(hour.0, MINUTE_US),
            decimal(day.0, HOUR_US),
            decimal(week.0, HOUR_US),
            decimal(hour.1, MINUTE_US),
            decimal(day.1, HOUR_US),
            decimal(week.1, HOUR_US),
        ];
        csv.push_str(&fields.join(","));
        csv.push('\n');
    }
    csv
}

/// The stretch of local days in a zone: to the end of the last one, or of the last full hour of the zone's clock before
/// `as_of`.
pub fn days_stretch(zone: Tz, days: DateRange, as_of: Timestamp) -> Span {
    let midnight = |day: NaiveDate| Timestamp::from_chrono(day.and_time(NaiveTime::MIN).and_utc());
    let by_utc = Span::new(midnight(days.from()), midnight(days.to()));
    let clock = WallClock::around(zone, by_utc);
    let start = clock.first_at_or_after(by_utc.start.micros());
    let end = clock.first_at_or_after(by_utc.end.micros());
    let hour = cell_start(as_of, HOUR_US, grid_phase_us(zone));
    Span::new(start, end.min(hour).max(start))
}

/// The whole report over local days, like [`report_csv`].
pub fn days_csv(stores: &[RawStore], days: DateRange, as_of: Timestamp) -> String {
    let mut in_order: Vec<&RawStore> = stores.iter().collect();
    in_order.sort_by(|a, b| a.id.as_bytes().cmp(b.id.as_bytes()));
    let mut csv = String::from("store_id,uptime_hours,downtime_hours,open_hours,uptime_percent\n");
    for store in in_order {
        let (up_us, down_us) = up_down_us(store, days_stretch(store.zone, days, as_of));
        // Cut off after three digits; nothing where there was no opening time.
        let thousandths = (i128::from(up_us) * 100_000).checked_div(i128::from(up_us + down_us));
        let percent = thousandths.map_or_else(String::new, |n| format!("{}.{:03}", n / 1000, n % 1000));
        let hours = [up_us, down_us, up_us + down_us].map(|us| decimal(us, HOUR_US));
        csv.push_str(&[csv_id(&store.id), hours.join(","), percent].join(","));
        csv.push('\n');
    }
    csv
}

/// Every cell of a grid that lies wholly in `within`, in order: its start, the microseconds in it
/// that the store was open, and those of them that it was inactive.
///
/// The cells are `cell_us` (more than 0) long and begin `phase_us` after the multiples of `cell_us` since 1970.
pub fn cells(store: &RawStore, cell_us: i64, phase_us: i64, within: Span) -> Vec<(Timestamp, i64, i64)> {
    let first = cell_start(within.start.plus(cell_us - 1), cell_us, phase_us);
    let end = cell_start(within.end, cell_us, phase_us);
    let grid = Span::new(first, end);
    let open = openings(store.zone, &store.hours, &store.closures, grid);
    let down = both(&open, &inactive(&store.observations, grid));
    let starts = (0..grid.len_us() / cell_us).map(|n| first.plus(n * cell_us));
    starts
        .zip(us_by_cell(&open, cell_us, grid))
        .zip(us_by_cell(&down, cell_us, grid))
        .map(|((start, open_us), down_us)| (start, open_us, down_us))
        .collect()
}

/// From this time of day on, an end spells the end of the day.
const LAST_MINUTE_US: i64 = DAY_US - MINUTE_US;

/// The instants between which a closure closes.
fn closed_in(clock: &WallClock, closure: RawClosure) -> Span {
    let (last_day, time) = (closure.to_us.div_euclid(DAY_US), closure.to_us.rem_euclid(DAY_US));
    let end = if time == 0 {
        clock.day_start(last_day)
    } else if time >= LAST_MINUTE_US {
        clock.day_start(last_day + 1)
    } else {
        clock.last_at_or_before(closure.to_us)
    };
    Span::new(clock.first_at_or_after(closure.from_us), end)
}

/// The instants between which an interval is open when it begins on local day `day`.
fn opening_on(clock: &WallClock, day: i64, interval: RawInterval) -> Span {
    let start = interval.start_us;
    // 23:59 is how many rows spell the end of the day. This comes before the question of wrapping.
    let mut end = interval.end_us;
    if end >= LAST_MINUTE_US {
        end = DAY_US;
    }
    if start >= end {
        end += DAY_US;
    }
    let opens = clock.first_at_or_after(day * DAY_US + start);
    let closes = if end % DAY_US == 0 {
        clock.day_start(day + end / DAY_US)
    } else {
        clock.last_at_or_before(day * DAY_US + end)
    };
    Span::new(opens, closes)
}

/// The weekday of a local day that is counted from 1970-01-01, a Thursday; 0 = Monday.
fn weekday(local_day: i64) -> i64 {
    (local_day + 3).rem_euclid(7)
}

/// What the clocks of a zone show around some window: the stretches of constant offset from UTC in
/// order, as (stretch, offset). Together they cover all time: beyond a few days around the window
/// nobody asks, and the clocks are taken to stand as they do there.
struct WallClock {
    stretches: Vec<(Span, i64)>,
}

impl WallClock {
    /// The clock of `zone` for every question about `window`.
    fn around(zone: Tz, window: Span) -> Self {
        const EVER: i64 = i64::MAX / 4;
        const STEP_US: i64 = 6 * HOUR_US; // no zone changes its clocks twice in so short a time
        let offset = |at: Timestamp| -> i64 {
            let offset = zone.offset_from_utc_datetime(&at.to_chrono().naive_utc());
            i64::from(offset.fix().local_minus_utc()) * 1_000_000
        };
        let mut stretches = Vec::new();
        let mut start = Timestamp::from_micros(-EVER);
        let mut at = window.start.plus(-5 * DAY_US);
        let mut shown = offset(at);
        while at < window.end.plus(5 * DAY_US) {
            let next = at.plus(STEP_US);
            let shown_next = offset(next);
            if shown_next != shown {
                let (mut before, mut after) = (at, next);
                while after.since(before) > 1 {
                    let middle = before.plus(after.since(before) / 2);
                    if offset(middle) == shown {
                        before = middle;
                    } else {
                        after = middle;
                    }
                }
                stretches.push((Span::new(start, after), shown));
                start = after;
            }
            (at, shown) = (next, shown_next);
        }
        let rest = Span::new(start, Timestamp::from_micros(EVER));
        stretches.push((rest, shown));
        WallClock { stretches }
    }

    /// The first instant at which the clock shows `wall` or later. For a wall time that is skipped
    /// that is the first instant after the gap; for one shown twice, the first showing.
    fn first_at_or_after(&self, wall: i64) -> Timestamp {
        for &(stretch, offset) in &self.stretches {
            let reached = Timestamp::from_micros(wall - offset).max(stretch.start);
            if reached < stretch.end {
                return reached;
            }
        }
        Timestamp::MAX
    }

    /// The end of the time in which the clock shows `wall` or earlier. For a wall time that is
    /// skipped that is the first instant after the gap; for one shown twice, the second showing.
    fn last_at_or_before(&self, wall: i64) -> Timestamp {
        for &(stretch, offset) in self.stretches.iter().rev() {
            let passed = Timestamp::from_micros(wall - offset).min(stretch.end);
            if stretch.start <= passed {
                return passed;
            }
        }
        Timestamp::MIN
    }

    /// The first instant of a local day, counted from 1970-01-01.
    fn day_start(&self, day: i64) -> Timestamp {
        self.first_at_or_after(day * DAY_US)
    }

    /// The local day that the clock shows at an instant, counted from 1970-01-01.
    fn local_day(&self, at: Timestamp) -> i64 {
        let now = self.stretches.iter().find(|(span, _)| span.contains(at));
        let offset = now.map_or(0, |&(_, offset)| offset);
        at.plus(offset).micros().div_euclid(DAY_US)
    }
}

/// The last start of a cell at or before `at`.
fn cell_start(at: Timestamp, cell_us: i64, phase_us: i64) -> Timestamp {
    at.plus(-(at.micros() - phase_us).rem_euclid(cell_us))
}

/// The union of spans: in order, disjoint, touching ones joined, empty ones gone.
fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|span| !span.is_empty());
    spans.sort();
    let mut joined: Vec<Span> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => joined.push(span),
        }
    }
    joined
}

/// The time that lies in both of two lists of spans, each in order and disjoint.
fn both(a: &[Span], b: &[Span]) -> Vec<Span> {
    let mut common = Vec::new();
    for &one in a {
        for &other in b {
            common.push(one.intersect(other));
        }
    }
    union(common)
}

/// The length of disjoint spans together.
fn total_us(spans: &[Span]) -> i64 {
    spans.iter().map(|span| span.len_us()).sum()
}

/// How much of each cell of `grid` lies in `spans`, which are disjoint and lie in `grid`.
fn us_by_cell(spans: &[Span], cell_us: i64, grid: Span) -> Vec<i64> {
    let mut sums = Vec::new();
    let mut cell = Span::new(grid.start, grid.start.plus(cell_us));
    while cell.end <= grid.end {
        sums.push(spans.iter().map(|span| span.intersect(cell).len_us()).sum());
        cell = Span::new(cell.end, cell.end.plus(cell_us));
    }
    sums
}

/// A duration in units of `unit_us` with two decimals, half away from zero. Durations here are
/// never negative.
fn decimal(us: i64, unit_us: i64) -> String {
    let hundredths = (us * 100 + unit_us / 2) / unit_us;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// An id as a CSV field. What a spreadsheet would run as a formula gets an apostrophe in front;
/// then RFC 4180 quotes go around what needs them.
fn csv_id(id: &str) -> String {
    let harmless = if id.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{id}")
    } else {
        id.to_owned()
    };
    if harmless.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", harmless.replace('"', "\"\""))
    } else {
        harmless
    }
}
