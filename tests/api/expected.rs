//! What the API must say, computed by the oracle and nothing else of the program.

use chrono::{LocalResult, NaiveDate, TimeDelta, TimeZone};
use chrono_tz::Tz;
use serde_json::{Value, json};
use uptally::oracle::{RawStore, cells, grid_phase_us, openings, up_down_us, windows};
use uptally::store::Status;
use uptally::time::{DAY_US, HOUR_US, MINUTE_US, Span, Timestamp};
use uptally::window::Windows;

/// The zones that docs/model.md names: their cells are half hours.
const HALVES: [Tz; 6] = [
    Tz::Asia__Colombo,
    Tz::Asia__Pyongyang,
    Tz::America__Caracas,
    Tz::Australia__Lord_Howe,
    Tz::Australia__LHI,
    Tz::Pacific__Norfolk,
];

/// One store as the API must show it.
#[derive(Debug, Clone)]
pub struct Expected {
    pub id: String,
    pub zone: Tz,
    pub state: &'static str,
    pub last: Option<(Timestamp, Status)>,
    /// Hour, day, week: opening time, downtime.
    pub windows: [(i64, i64); 3],
}

/// All stores, in the byte order of their ids.
pub fn expected(stores: &[RawStore], as_of: Timestamp, kind: Windows, silent_after_us: i64) -> Vec<Expected> {
    let mut all: Vec<Expected> = stores
        .iter()
        .map(|store| {
            let last = store.observations.iter().copied().max_by_key(|(at, _)| *at);
            Expected {
                id: store.id.clone(),
                zone: store.zone,
                state: match last {
                    _ if !is_open(store, as_of) => "outside_hours",
                    None => "silent",
                    Some((at, _)) if as_of.since(at) > silent_after_us => "silent",
                    Some((_, Status::Inactive)) => "offline",
                    Some((_, Status::Active)) => "online",
                },
                last,
                windows: windows(store.zone, as_of, kind).map(|window| {
                    let (up, down) = up_down_us(store, window);
                    (up + down, down)
                }),
            }
        })
        .collect();
    all.sort_by(|a, b| a.id.as_bytes().cmp(b.id.as_bytes()));
    all
}

impl Expected {
    /// Active time as a part of opening time, as two whole numbers.
    pub fn uptime(&self, window: usize) -> Option<(i64, i64)> {
        let (open, down) = self.windows[window];
        (open > 0).then_some((open - down, open))
    }

    pub fn json(&self) -> Value {
        json!({
            "store_id": self.id,
            "state": self.state,
            "timezone": self.zone.name(),
            "last_observation": self.last.map(|(at, status)| observed(at, status)),
            "windows": windows_json(self.windows),
        })
    }
}

pub fn observed(at: Timestamp, status: Status) -> Value {
    json!({"at": at.to_string(), "status": status.as_str()})
}

/// Sums over windows.
pub fn windows_json([hour, day, week]: [(i64, i64); 3]) -> Value {
    json!({"last_hour": window_json(hour), "last_day": window_json(day), "last_week": window_json(week)})
}

pub fn window_json((open, down): (i64, i64)) -> Value {
    json!({"open_us": open, "up_us": open - down, "down_us": down, "uptime": six_decimals(open - down, open)})
}

/// By the text of a long division, digit by digit.
pub fn six_decimals(part: i64, whole: i64) -> Option<f64> {
    if whole == 0 {
        return None;
    }
    let (part, whole) = (u128::try_from(part).unwrap(), u128::try_from(whole).unwrap());
    let mut rest = part % whole;
    let mut millionths = part / whole;
    for _ in 0..6 {
        rest *= 10;
        millionths = millionths * 10 + rest / whole;
        rest %= whole;
    }
    if rest * 2 >= whole {
        millionths += 1;
    }
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
        .parse()
        .ok()
}

/// Whether a store is open at an instant.
pub fn is_open(store: &RawStore, at: Timestamp) -> bool {
    !openings(store.zone, &store.hours, &store.closures, Span::new(at, at.plus(1))).is_empty()
}

/// The first instant after `at`, within 35 days, at which it opens or closes.
pub fn next_change(store: &RawStore, at: Timestamp) -> Option<Timestamp> {
    let reach = Span::new(at, at.plus(35 * DAY_US));
    let open = openings(store.zone, &store.hours, &store.closures, reach);
    let mut edges = open.iter().flat_map(|span| [span.start, span.end]);
    edges.find(|edge| *edge > reach.start && *edge < reach.end)
}

/// The fleet's hours: start, opening time, downtime.
pub fn history(stores: &[RawStore], as_of: Timestamp, hours: i64) -> Vec<(Timestamp, i64, i64)> {
    let cell_us = |store: &RawStore| {
        if HALVES.contains(&store.zone) {
            HOUR_US / 2
        } else {
            HOUR_US
        }
    };
    // How long after its UTC hour a store's last cell of that hour is over.
    let late = |store: &RawStore| grid_phase_us(store.zone) % cell_us(store);
    let over = as_of.plus(-stores.iter().map(late).max().unwrap_or(0));
    let end = over.micros().div_euclid(HOUR_US);
    (end - hours..end)
        .map(|hour| {
            let start = Timestamp::from_micros(hour * HOUR_US);
            let sums = stores.iter().flat_map(|store| {
                let cell_us = cell_us(store);
                let around = Span::new(start, start.plus(2 * HOUR_US));
                let all = cells(store, cell_us, grid_phase_us(store.zone) % cell_us, around);
                all.into_iter().filter(|(at, ..)| *at < start.plus(HOUR_US))
            });
            sums.fold((start, 0, 0), |(start, open, down), (_, o, d)| {
                (start, open + o, down + d)
            })
        })
        .collect()
}

/// A store's hours between two instants, which lie on its grid.
pub fn hours(store: &RawStore, within: Span) -> Vec<(Timestamp, i64, i64)> {
    cells(store, HOUR_US, grid_phase_us(store.zone), within)
}

/// The first instant of a local day, by chrono alone.
pub fn day_start(zone: Tz, date: NaiveDate) -> Timestamp {
    let mut wall = date.and_hms_opt(0, 0, 0).unwrap();
    loop {
        match zone.from_local_datetime(&wall) {
            LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => return Timestamp::from_chrono(at.to_utc()),
            LocalResult::None => wall += TimeDelta::minutes(1),
        }
    }
}

/// The local date at an instant, by chrono alone.
pub fn local_date(zone: Tz, at: Timestamp) -> NaiveDate {
    zone.from_utc_datetime(&at.to_chrono().naive_utc()).date_naive()
}

/// What the store's clock shows.
pub fn local(zone: Tz, at: Timestamp) -> String {
    let minute = at.plus(-at.micros().rem_euclid(MINUTE_US));
    let wall = zone.from_utc_datetime(&minute.to_chrono().naive_utc()).naive_local();
    let text = wall.to_string();
    text[..16].replace(' ', "T")
}
