//! `/api/v1/stores`, one of them, and its hours.

use axum::http::{StatusCode, Uri};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::{Observed, Window, WindowSums, fleet};
use crate::http::problem::Problem;
use crate::http::query::{Given, NUMBER_MAX, Param, WINDOWS, bad, bad_value, date, days, instant};
use crate::http::{Api, Asked};
use crate::live::{Buckets, BucketsError, Step, StoreDetail, blocking};
use crate::overview::{Query, Sort, State, StoreNow};
use crate::report::TriggerError;
use crate::rollup::OpenDown;
use crate::schedule::{Interval, Zone};
use crate::store::check_store_id;
use crate::text::quoted;
use crate::time::{DAY_US, HOUR_US, MINUTE_US, SECOND_US, Timestamp};
use crate::window::Windows;

const LIMIT_MAX: usize = 200;
const LIMIT: usize = 50;

/// What `/api/v1/stores` takes.
pub(in crate::http) const LIST: &[Param] = &[
    Param::new(
        "state",
        "Only the stores in this state.",
        || json!({"type": "string", "enum": State::ALL.map(State::as_str)}),
    ),
    Param::new(
        "q",
        "Only the stores whose id has this in it; the case of ASCII letters does not matter.",
        || json!({"type": "string"}),
    ),
    Param::new(
        "timezone",
        "Only the stores in this IANA time zone.",
        || json!({"type": "string", "examples": ["America/Chicago"]}),
    ),
    Param::new(
        "sort",
        "What they are ordered by.",
        || json!({"type": "string", "enum": Sort::WORDS.map(|(word, _)| word), "default": "down_last_day"}),
    ),
    Param::new(
        "order",
        "By default the worst first: desc for down_*, else asc. Stores without a value come last either way, equals follow \
         by id.",
        || json!({"type": "string", "enum": ["asc", "desc"]}),
    ),
    Param::new(
        "limit",
        "So many at most.",
        || json!({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT}),
    ),
    Param::new(
        "offset",
        "Leaving out so many.",
        || json!({"type": "integer", "minimum": 0, "maximum": NUMBER_MAX, "default": 0}),
    ),
    WINDOWS,
];

/// What `/api/v1/stores/{store_id}/hours` takes.
pub(in crate::http) const HOURS: &[Param] = &[
    Param::new(
        "from",
        "Where the stretch begins; by default seven days before its end, or where buckets begin.",
        instant,
    ),
    Param::new("to", "Where the stretch ends; by default at the present.", instant),
    Param::new(
        "step",
        "hour: hours of the store's clock. day: its local days.",
        || json!({"type": "string", "enum": ["hour", "day"], "default": "hour"}),
    ),
];

/// A store at an instant.
#[allow(clippy::struct_field_names, reason = "they are those of the answer")]
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::http) struct Store {
    /// Its id.
    pub(in crate::http) store_id: String,
    /// What it does.
    pub(in crate::http) state: State,
    /// Its IANA time zone.
    pub(in crate::http) timezone: &'static str,
    /// Its newest observation.
    pub(in crate::http) last_observation: Option<Observed>,
    /// Its windows.
    pub(in crate::http) windows: WindowSums,
}

/// A page of stores.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::http) struct StoreList {
    /// The instant that the numbers are of.
    pub(in crate::http) as_of: Timestamp,
    /// How many there are on all pages.
    pub(in crate::http) total: u64,
    /// How many come before this page.
    pub(in crate::http) offset: u64,
    /// How many a page has at most.
    pub(in crate::http) limit: u64,
    /// Those of this page.
    pub(in crate::http) stores: Vec<Store>,
}

/// An interval of a store's week, in its local time.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::http) struct Hours {
    /// The day that it begins on; 0 is Monday.
    #[schemars(range(max = 6))]
    pub(in crate::http) day: u8,
    /// When it begins.
    pub(in crate::http) start: String,
    /// When it ends; 24:00:00 is the end of the day. Not after the start: on the next day.
    pub(in crate::http) end: String,
}

/// Everything about one store at an instant.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::http) struct OneStore {
    /// The instant that the numbers are of.
    pub(in crate::http) as_of: Timestamp,
    /// The store.
    #[serde(flatten)]
    pub(in crate::http) store: Store,
    /// Whether it has no hours, and so never closes.
    pub(in crate::http) always_open: bool,
    /// Its weekly hours.
    pub(in crate::http) hours: Vec<Hours>,
    /// When it next opens or closes, within five weeks.
    pub(in crate::http) next_change: Option<Timestamp>,
    /// The first instant with buckets; null without any observation.
    pub(in crate::http) covered_from: Option<Timestamp>,
    /// Newest first, at most 50.
    pub(in crate::http) observations: Vec<Observed>,
}

/// One bucket of a store.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::http) struct StoreBucket {
    /// Its first instant.
    pub(in crate::http) start: Timestamp,
    /// The same on the store's clock, without the zone.
    pub(in crate::http) local: String,
    /// What was in it.
    #[serde(flatten)]
    pub(in crate::http) sum: BucketSum,
    /// How often the store was observed in it.
    pub(in crate::http) observations: u64,
}

/// Opening time of a bucket, and what was up and down of it.
#[allow(clippy::struct_field_names, reason = "they are those of the answer")]
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub(in crate::http) struct BucketSum {
    /// Opening time.
    pub(in crate::http) open_us: i64,
    /// Time of it in which the store was active.
    pub(in crate::http) up_us: i64,
    /// Time of it in which the store was inactive.
    pub(in crate::http) down_us: i64,
}

/// A store's buckets.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::http) struct StoreHours {
    /// The store.
    pub(in crate::http) store_id: String,
    /// Its IANA time zone.
    pub(in crate::http) timezone: &'static str,
    /// How long a bucket is.
    pub(in crate::http) step: Step,
    /// Where the first bucket begins.
    pub(in crate::http) from: Timestamp,
    /// Where the last bucket ends.
    pub(in crate::http) to: Timestamp,
    /// The instant at which all of them are over.
    pub(in crate::http) as_of: Timestamp,
    /// Oldest first: those that overlap the stretch that was asked for, and are over.
    pub(in crate::http) buckets: Vec<StoreBucket>,
}

/// What `/api/v1/stores/{store_id}/uptime` takes.
pub(in crate::http) const DAYS: &[Param] = &[
    Param::new("from", "The first day, of the store's own clock.", date).required(),
    Param::new(
        "to",
        "The first day that does not belong to the stretch any more.",
        date,
    )
    .required(),
];

/// A store over whole days of its own clock.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::http) struct StoreUptime {
    /// The store.
    store_id: String,
    /// Its IANA time zone.
    timezone: &'static str,
    /// The first day.
    #[schemars(extend("format" = "date"))]
    from: String,
    /// The first day that does not belong to the stretch any more.
    #[schemars(extend("format" = "date"))]
    to: String,
    /// When the first day begins.
    start: Timestamp,
    /// When the last day ends, or the last full clock hour before `as_of`.
    end: Timestamp,
    /// The instant up to which days count that are not over.
    as_of: Timestamp,
    /// What was in it.
    #[serde(flatten)]
    sum: Window,
}

/// What a list is asked for with.
#[derive(Debug, Clone)]
pub(in crate::http) struct ListQuery {
    pub(in crate::http) windows: Windows,
    pub(in crate::http) query: Query,
}

impl ListQuery {
    pub(in crate::http) fn read(uri: &Uri) -> Result<Self, Problem> {
        let given = Given::read(uri, LIST)?;
        let sort: Sort = given.parsed("sort")?.unwrap_or(Sort::Down(1));
        let descending = match given.text("order") {
            None => sort.is_descending(),
            Some("asc") => false,
            Some("desc") => true,
            Some(other) => return Err(bad_value("order", "expected asc or desc", other)),
        };
        let zone = |name: &str| {
            let zone: Result<Tz, _> = name.parse();
            zone.map_err(|_| bad_value("timezone", "expected an IANA time zone such as America/Chicago", name))
        };
        Ok(ListQuery {
            windows: given.parsed("windows")?.unwrap_or(Windows::Rolling),
            query: Query {
                state: given.parsed("state")?,
                part_of_id: given.text("q").map(str::to_owned),
                timezone: given.text("timezone").map(zone).transpose()?,
                sort,
                descending,
                limit: given.number("limit", 1..=LIMIT_MAX)?.unwrap_or(LIMIT),
                offset: given.number("offset", 0..=NUMBER_MAX)?.unwrap_or(0),
            },
        })
    }
}

/// What a store's buckets are asked for with.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::http) struct HoursQuery {
    pub(in crate::http) from: Option<Timestamp>,
    pub(in crate::http) to: Option<Timestamp>,
    pub(in crate::http) step: Step,
}

impl HoursQuery {
    pub(in crate::http) fn read(uri: &Uri) -> Result<Self, Problem> {
        let given = Given::read(uri, HOURS)?;
        Ok(HoursQuery {
            from: given.parsed("from")?,
            to: given.parsed("to")?,
            step: given.parsed("step")?.unwrap_or_default(),
        })
    }
}

impl From<StoreNow<'_>> for Store {
    fn from(store: StoreNow<'_>) -> Self {
        Store {
            store_id: store.id.to_owned(),
            state: store.state,
            timezone: store.zone.map_or("", Zone::name),
            last_observation: store.last.map(Observed::from),
            windows: store.windows.into(),
        }
    }
}

impl From<&Interval> for Hours {
    fn from(&Interval { day, start_us, end_us }: &Interval) -> Self {
        let end_us = if end_us > DAY_US { end_us - DAY_US } else { end_us };
        Hours {
            day,
            start: clock_time(start_us),
            end: clock_time(end_us),
        }
    }
}

/// Microseconds after midnight as `HH:MM:SS`, with a fraction only if there is one.
fn clock_time(us: i64) -> String {
    let (hours, minutes, seconds) = (us / HOUR_US, us % HOUR_US / MINUTE_US, us % MINUTE_US / SECOND_US);
    match us % SECOND_US {
        0 => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        fraction => format!("{hours:02}:{minutes:02}:{seconds:02}.{fraction:06}"),
    }
}

impl From<StoreDetail> for OneStore {
    fn from(detail: StoreDetail) -> Self {
        let hours = detail.schedule.hours();
        OneStore {
            as_of: detail.as_of,
            always_open: hours.is_always_open(),
            hours: hours.all().iter().map(Hours::from).collect(),
            next_change: detail.next_change,
            covered_from: detail.covered_from,
            observations: detail.observations.into_iter().map(Observed::from).collect(),
            store: Store {
                store_id: detail.store_id,
                state: detail.state,
                timezone: detail.schedule.zone().name(),
                last_observation: detail.last.map(Observed::from),
                windows: detail.windows.into(),
            },
        }
    }
}

impl From<OpenDown> for BucketSum {
    fn from(sum: OpenDown) -> Self {
        let Window {
            open_us,
            up_us,
            down_us,
            ..
        } = sum.into();
        BucketSum {
            open_us,
            up_us,
            down_us,
        }
    }
}

impl StoreHours {
    fn of(store_id: String, step: Step, answered: &Buckets) -> Self {
        let buckets = answered.buckets.iter().map(|bucket| StoreBucket {
            start: bucket.start,
            local: answered
                .zone
                .local_time(bucket.start)
                .format("%Y-%m-%dT%H:%M")
                .to_string(),
            sum: bucket.sum.into(),
            observations: bucket.observations,
        });
        StoreHours {
            store_id,
            timezone: answered.zone.name(),
            step,
            from: answered.stretch.start,
            to: answered.stretch.end,
            as_of: answered.as_of,
            buckets: buckets.collect(),
        }
    }
}

/// A page of stores.
pub(in crate::http) async fn stores(api: &Api, asked: ListQuery) -> Result<StoreList, Problem> {
    let ListQuery { windows, query } = asked;
    let overview = api.live.overview(windows).await?;
    let list = move || {
        let listed = overview.list(&query);
        StoreList {
            as_of: overview.asked().as_of,
            total: listed.total as u64,
            offset: query.offset as u64,
            limit: query.limit as u64,
            stores: listed.stores.into_iter().map(Store::from).collect(),
        }
    };
    Ok(blocking(list).await?)
}

/// Everything about one store.
pub(in crate::http) async fn store(api: &Api, store_id: &str, windows: Windows) -> Result<OneStore, Problem> {
    check_id(store_id)?;
    let detail = api.live.store(store_id, windows).await?;
    detail.map(OneStore::from).ok_or_else(|| unknown(store_id))
}

/// A store's buckets.
pub(in crate::http) async fn hours(api: &Api, store_id: &str, asked: HoursQuery) -> Result<StoreHours, Problem> {
    check_id(store_id)?;
    let HoursQuery { from, to, step } = asked;
    let buckets = api.live.buckets(store_id, from, to, step).await?;
    let answered = buckets.ok_or_else(|| unknown(store_id))?;
    let store_id = store_id.to_owned();
    Ok(blocking(move || StoreHours::of(store_id, step, &answered)).await?)
}

pub(in crate::http) async fn get_stores(api: Api, asked: Asked) -> Result<StoreList, Problem> {
    stores(&api, ListQuery::read(&asked.uri)?).await
}

pub(in crate::http) async fn get_store(api: Api, asked: Asked) -> Result<OneStore, Problem> {
    store(&api, asked.id()?, fleet::windows(&asked.uri)?).await
}

pub(in crate::http) async fn get_uptime(api: Api, asked: Asked) -> Result<StoreUptime, Problem> {
    let store_id = asked.id()?;
    let given = Given::read(&asked.uri, DAYS)?;
    let days = days(&given)?.ok_or_else(|| bad("expected the query parameters from and to, found none"))?;
    check_id(store_id)?;
    let found = api.live.days(store_id, days).await?.ok_or_else(|| unknown(store_id))?;
    Ok(StoreUptime {
        store_id: store_id.to_owned(),
        timezone: found.zone.name(),
        from: days.from().to_string(),
        to: days.to().to_string(),
        start: found.stretch.start,
        end: found.stretch.end,
        as_of: found.as_of,
        sum: found.sum.into(),
    })
}

pub(in crate::http) async fn get_hours(api: Api, asked: Asked) -> Result<StoreHours, Problem> {
    hours(&api, asked.id()?, HoursQuery::read(&asked.uri)?).await
}

/// No table can have such an id; Postgres would not even take one with a NUL.
fn check_id(store_id: &str) -> Result<(), Problem> {
    check_store_id(store_id).map_err(|_| unknown(store_id))
}

fn unknown(store_id: &str) -> Problem {
    let detail = format!("no table knows a store with the id {}", quoted(store_id, 64));
    Problem::new(StatusCode::NOT_FOUND, "unknown-store", "Unknown store", detail)
}

impl From<BucketsError> for Problem {
    fn from(error: BucketsError) -> Self {
        let detail = error.to_string();
        match error {
            BucketsError::NotCovered { .. } => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "from-not-covered",
                "Instant not covered",
                format!("query parameter from: {detail}"),
            ),
            BucketsError::DaysNotCovered(error) => TriggerError::from(error).into(),
            BucketsError::Backwards { .. } => bad(format!("query parameter to: {detail}")),
            BucketsError::TooMany(_) => bad(format!("query parameters from, to and step: {detail}")),
            BucketsError::Live(error) => error.into(),
        }
    }
}
