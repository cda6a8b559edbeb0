//! Reports of other forms: how well stores were observed, against brute force; and the same as JSON.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Map, Value};
use uptally::clock::Clock;
use uptally::live::Settings;
use uptally::oracle::{RawStore, openings, report_csv, windows};
use uptally::rollup::FUTURE_MAX_US;
use uptally::time::{DAY_US, HOUR_US, Span, Timestamp};
use uptally::window::{ClosedTime, Windows};

use super::app::App;
use super::made_up;
use super::support::raw::raw_stores;
use super::support::{TestDatabase, fixture, seed, within};

/// The daemon's default.
const VALID_US: i64 = 2 * HOUR_US;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extended_columns_are_what_brute_force_says() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let (database, now) = (TestDatabase::start().await, fixture::NOW.plus(rng.i64(0..200 * DAY_US)));
    let client = database.connect().await;
    made_up::fill(&client, &mut rng, 40, 30, now).await;
    let mut app = App::start(&database, &Clock::standing(now).0, Settings::default()).await;
    for (windows, closed) in [
        (Windows::Calendar, ClosedTime::Uptime),
        (Windows::Rolling, ClosedTime::Excluded),
    ] {
        made_up::disturb(&client, &mut rng, now).await;
        let stores = raw_stores(&client, now.plus(FUTURE_MAX_US)).await;
        let newest = stores
            .iter()
            .flat_map(|store| &store.observations)
            .map(|(at, _)| *at)
            .max()
            .unwrap();
        // Of the newest observation, of now, and of a day in the past, to the microsecond of an observation.
        let any = stores.iter().find(|store| store.observations.len() > 5).unwrap();
        let past = any.observations[any.observations.len() / 2]
            .0
            .max(now.plus(-13 * DAY_US));
        for (asked, as_of) in [("latest".to_owned(), newest), (past.to_string(), past)] {
            let query = format!("as_of={asked}&windows={windows}&closed={closed}&columns=extended");
            let csv = file(&app, &query).await;
            let expected = expected(&stores, as_of, windows, closed);
            let found: Vec<&str> = csv.lines().collect();
            assert_eq!(
                found[0],
                format!("{}{COLUMNS}", report_csv(&[], as_of, windows, closed).trim_end())
            );
            assert_eq!(found[1..], expected, "{query}");
            let plain = file(&app, &format!("as_of={asked}&windows={windows}&closed={closed}")).await;
            for (plain, extended) in plain.lines().zip(csv.lines()) {
                assert!(extended.starts_with(&format!("{plain},")), "{plain}: {extended}");
            }
            let json = file(&app, &format!("{query}&format=json")).await;
            assert_eq!(rows(&json), rows_of_csv(&csv), "{query}");
            let json = file(
                &app,
                &format!("as_of={asked}&windows={windows}&closed={closed}&format=json"),
            )
            .await;
            assert_eq!(rows(&json), rows_of_csv(&plain));
        }
    }
    app.stop().await;
}

const COLUMNS: &str = ",last_observation_utc,observations_last_hour,observations_last_day,observations_last_week,\
                       coverage_last_hour,coverage_last_day,coverage_last_week";

/// The lines of a report, but for its header.
fn expected(stores: &[RawStore], as_of: Timestamp, kind: Windows, closed: ClosedTime) -> Vec<String> {
    let plain = report_csv(stores, as_of, kind, closed);
    let mut stores: Vec<&RawStore> = stores.iter().collect();
    stores.sort_by(|a, b| a.id.as_bytes().cmp(b.id.as_bytes()));
    let lines = plain.lines().skip(1).zip(stores);
    lines
        .map(|(line, store)| {
            let known = store.observations.iter().map(|(at, _)| *at).filter(|at| *at <= as_of);
            let known: Vec<Timestamp> = known.collect();
            let last = known.iter().max().map(ToString::to_string).unwrap_or_default();
            let spans = windows(store.zone, as_of, kind);
            let counts = spans.map(|window| known.iter().filter(|at| window.contains(**at)).count().to_string());
            let coverages = spans.map(|window| coverage(store, &known, window));
            [&[line.to_owned(), last][..], &counts, &coverages].concat().join(",")
        })
        .collect()
}

/// The part of the opening time of a window that lies at most so long after an observation; minute by minute would be too
/// coarse, so by pieces between all instants at which anything begins or ends.
fn coverage(store: &RawStore, observations: &[Timestamp], window: Span) -> String {
    let open = openings(store.zone, &store.hours, &store.closures, window);
    let fresh: Vec<Span> = observations
        .iter()
        .map(|at| Span::new(*at, at.plus(VALID_US)))
        .collect();
    let mut edges: Vec<Timestamp> = open
        .iter()
        .chain(&fresh)
        .flat_map(|span| [span.start, span.end])
        .collect();
    edges.sort();
    let (mut open_us, mut covered_us) = (0_i128, 0_i128);
    for piece in edges.windows(2) {
        let length = i128::from(piece[1].since(piece[0]));
        if open.iter().any(|span| span.contains(piece[0])) {
            open_us += length;
            if fresh.iter().any(|span| span.contains(piece[0])) {
                covered_us += length;
            }
        }
    }
    if open_us == 0 {
        return String::new();
    }
    let parts = (covered_us * 10_000 * 2 + open_us) / (open_us * 2);
    format!("{}.{:04}", parts / 10_000, parts % 10_000)
}

/// The file of a report, once it is there.
pub async fn file(app: &App, query: &str) -> String {
    let asked = Request::post(format!("/api/v1/reports?{query}")).body(Body::empty());
    let triggered = app.ask(asked.unwrap()).await;
    assert_eq!(triggered.status, 202, "{query}: {}", triggered.text());
    let path = triggered.json()["file"].as_str().unwrap().to_owned();
    let mut answer = app.get(&path).await;
    within(Duration::from_secs(8), "the report is complete", async || {
        answer = app.get(&path).await;
        answer.status != 202
    })
    .await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let is_json = query.contains("format=json");
    let kind = if is_json {
        "application/json"
    } else {
        "text/csv; charset=utf-8"
    };
    assert_eq!(answer.headers["content-type"], kind);
    let name = answer.headers["content-disposition"].to_str().unwrap();
    assert!(name.ends_with(if is_json { ".json\"" } else { ".csv\"" }), "{name}");
    answer.text()
}

pub fn rows(json: &str) -> Vec<Map<String, Value>> {
    serde_json::from_str(json).unwrap()
}

/// The same of a CSV. An id that a spreadsheet would run has an apostrophe in front there.
pub fn rows_of_csv(text: &str) -> Vec<Map<String, Value>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().unwrap().clone();
    let row = |record: csv::StringRecord| {
        let fields = header.iter().zip(&record).map(|(name, field)| {
            let value = match name {
                _ if field.is_empty() => Value::Null,
                "store_id" => Value::from(field.strip_prefix('\'').unwrap_or(field)),
                "last_observation_utc" => Value::from(field),
                _ => serde_json::from_str(field).unwrap(),
            };
            (name.to_owned(), value)
        });
        fields.collect()
    };
    reader.records().map(|record| row(record.unwrap())).collect()
}
