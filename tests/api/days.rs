//! Stretches of days, from the running sums of the ledger and from memory, against the oracle.

use std::time::Duration;

use chrono::{Days, NaiveDate};
use serde_json::json;
use tokio_postgres::Client;
use uptally::clock::Clock;
use uptally::feed;
use uptally::live::Settings;
use uptally::oracle::{RawStore, days_csv, days_stretch, up_down_us};
use uptally::rollup::FUTURE_MAX_US;
use uptally::time::{DAY_US, Timestamp};
use uptally::window::DateRange;

use super::answers::encoded;
use super::app::App;
use super::expected::six_decimals;
use super::extended::{file, rows, rows_of_csv};
use super::made_up;
use super::support::check::{knows_all_of, verify_is_clean};
use super::support::raw::raw_stores;
use super::support::{TestDatabase, fixture, seed, within};

/// Half a year, which clocks change in, of a few stores.
const DAYS: i64 = 180;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_over_days_are_what_the_oracle_says() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let (database, now) = (TestDatabase::start().await, fixture::NOW.plus(rng.i64(0..200 * DAY_US)));
    let client = database.connect().await;
    made_up::fill(&client, &mut rng, 30, DAYS, now).await;
    let clock = Clock::standing(now).0;
    let mut app = App::start(&database, &clock, Settings::default()).await;
    for round in 0..4 {
        if round == 2 {
            app.stop().await;
            app = App::start(&database, &clock, Settings::default()).await;
        }
        if round > 0 {
            made_up::disturb(&client, &mut rng, now).await;
            // What takes long to read is not waited for by reports. The ledger may still lack it.
            let present = feed::current(&client).await.unwrap();
            within(Duration::from_secs(5), "memory is the present", async || {
                knows_all_of(&app.handle.point().await.unwrap().cursor, &present)
            })
            .await;
        }
        for _ in 0..4 {
            let stores = raw_stores(&client, now.plus(FUTURE_MAX_US)).await;
            let (from, to) = any_days(&mut rng, now, &stores);
            days_are_right(&app, &stores, (from, to), now).await;
            let store = &stores[rng.usize(..stores.len())];
            store_is_right(&app, store, (from, to), now).await;
        }
        let early = now.plus(-rng.i64(0..100 * DAY_US));
        let stores = raw_stores(&client, now.plus(FUTURE_MAX_US)).await;
        days_are_right(&app, &stores, any_days(&mut rng, early, &stores), early).await;
    }
    // Everything is flushed at the end.
    app.stop().await;
    app = App::start(&database, &clock, Settings::default()).await;
    sums_are_used(&app, &client, now).await;
    app.stop().await;
    let verdict = verify_is_clean(&database.database(), now).await;
    assert!(verdict.cells > 10_000);
    sums_are_verified(&database, &client, now).await;
}

/// Days before an instant, a few or many; now and then the day that is not over.
fn any_days(rng: &mut fastrand::Rng, as_of: Timestamp, stores: &[RawStore]) -> (NaiveDate, NaiveDate) {
    let observed = stores.iter().flat_map(|store| &store.observations);
    let first = observed.map(|(at, _)| *at).min().unwrap().to_chrono().date_naive();
    let today = as_of.to_chrono().date_naive();
    let to = today + Days::new(1) - Days::new(*rng.choice(&[0, 1, 1, 3, 20, 70]).unwrap());
    let from = to - Days::new(*rng.choice(&[1, 2, 7, 30, 75]).unwrap());
    (from.max(first), to.max(first + Days::new(1)))
}

fn days(from: NaiveDate, to: NaiveDate) -> DateRange {
    DateRange::new(from, to).unwrap()
}

async fn days_are_right(app: &App, stores: &[RawStore], (from, to): (NaiveDate, NaiveDate), as_of: Timestamp) {
    let query = format!("as_of={as_of}&from={from}&to={to}");
    let csv = file(app, &query).await;
    assert_eq!(csv, days_csv(stores, days(from, to), as_of), "{query}");
    let as_json = file(app, &format!("{query}&format=json")).await;
    assert_eq!(rows(&as_json), rows_of_csv(&csv), "{query}");
}

async fn store_is_right(app: &App, store: &RawStore, (from, to): (NaiveDate, NaiveDate), now: Timestamp) {
    let id = encoded(&store.id);
    let answer = app
        .json(&format!("/api/v1/stores/{id}/uptime?from={from}&to={to}"))
        .await;
    let stretch = days_stretch(store.zone, days(from, to), now);
    let (up, down) = up_down_us(store, stretch);
    let expected = json!({
        "store_id": store.id, "timezone": store.zone.name(), "from": from.to_string(), "to": to.to_string(),
        "start": stretch.start.to_string(), "end": stretch.end.to_string(), "as_of": now.to_string(),
        "open_us": up + down, "up_us": up, "down_us": down, "uptime": six_decimals(up, up + down),
    });
    assert_eq!(answer, expected);
}

/// What is in `rollup_day` is what reports are made of: one that is wrong makes a wrong report.
async fn sums_are_used(app: &App, client: &Client, now: Timestamp) {
    let to = now.to_chrono().date_naive() - Days::new(40);
    let query = format!("as_of={now}&from={}&to={to}", to - Days::new(60));
    let before = file(app, &query).await;
    let (more, less) = ("down_us + 3600000000", "down_us - 3600000000");
    let change = |change: &str| format!("UPDATE uptally.rollup_day SET down_us = {change} WHERE day = '{to}'");
    let changed = client.execute(&change(more), &[]).await.unwrap();
    assert!(changed > 10, "most stores were down at some time");
    let wrong = file(app, &query).await;
    let downtime = |csv: &str| -> f64 {
        let rows = rows_of_csv(csv);
        rows.iter().map(|row| row["downtime_hours"].as_f64().unwrap()).sum()
    };
    let added = downtime(&wrong) - downtime(&before);
    #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
    let expected = changed as f64;
    assert!((added - expected).abs() < 0.01, "{added} h were added, not {expected}");
    client.execute(&change(less), &[]).await.unwrap();
    assert_eq!(file(app, &query).await, before);
}

/// A sum that is not what the cells say is found.
async fn sums_are_verified(database: &TestDatabase, client: &Client, now: Timestamp) {
    let wrong = "UPDATE uptally.rollup_day SET down_us = down_us + 1
                 WHERE (day, store_no) = (SELECT day, store_no FROM uptally.rollup_day ORDER BY day DESC, store_no LIMIT 1)";
    assert_eq!(client.execute(wrong, &[]).await.unwrap(), 1);
    let limits = uptally::rollup::Limits::default();
    let verdict = uptally::verify::verify(&database.database(), limits, now, 4_000_000)
        .await
        .unwrap();
    assert_eq!(verdict.difference_count, 1, "{:?}", verdict.differences);
    assert_eq!(verdict.differences[0].what, "rollup_day in us");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_that_cannot_be_reported_are_refused() {
    let database = TestDatabase::start().await;
    fixture::fill(&database.connect().await, 3).await;
    let mut app = App::start(&database, &Clock::standing(fixture::NOW).0, Settings::default()).await;
    let today = fixture::NOW.to_chrono().date_naive();
    let (soon, long_ago) = (today + Days::new(3), today - Days::new(3000));
    for (query, status, kind, said) in [
        (
            "from=2023-01-20".to_owned(),
            400,
            "bad-parameter",
            "expected the query parameter to beside from",
        ),
        (
            "to=2023-01-20".to_owned(),
            400,
            "bad-parameter",
            "expected the query parameter from beside to",
        ),
        (
            "from=2023-01-20&to=2023-01-20".to_owned(),
            400,
            "bad-parameter",
            "parameter to: expected a date after 2023-01-20",
        ),
        (
            "from=2023-1-20&to=2023-01-21".to_owned(),
            400,
            "bad-parameter",
            "parameter from: expected a date such as",
        ),
        (
            "from=1999-12-31&to=2023-01-21".to_owned(),
            400,
            "bad-parameter",
            "parameter from: expected a date of the years",
        ),
        (
            "from=2023-01-20&to=3000-01-21".to_owned(),
            400,
            "bad-parameter",
            "parameter to: expected a date of the years",
        ),
        (
            format!("from={today}&to={soon}"),
            422,
            "days-not-covered",
            "parameters from and to: expected days from",
        ),
        (
            format!("from={long_ago}&to={today}"),
            422,
            "days-not-covered",
            "parameters from and to: expected days from",
        ),
    ] {
        let asked = axum::http::Request::post(format!("/trigger_report?{query}")).body(axum::body::Body::empty());
        let refused = app.ask(asked.unwrap()).await;
        let detail = refused.problem(status, kind);
        assert!(detail.contains(said), "{query}: {detail}");
        let refused = app.get(&format!("/api/v1/stores/chicago/uptime?{query}")).await;
        assert!(refused.problem(status, kind).contains(said), "{query}");
    }
    for other in ["windows=rolling", "closed=excluded", "columns=default"] {
        let asked = axum::http::Request::post(format!("/api/v1/reports?from=2023-01-20&to=2023-01-21&{other}"));
        let refused = app.ask(asked.body(axum::body::Body::empty()).unwrap()).await;
        let detail = refused.problem(400, "bad-parameter");
        assert!(detail.contains("beside from and to"), "{detail}");
    }
    assert!(
        app.get("/api/v1/stores/chicago/uptime")
            .await
            .problem(400, "bad-parameter")
            .contains("found none")
    );
    let unknown = app
        .get(&format!(
            "/api/v1/stores/nobody/uptime?from={}&to={today}",
            today - Days::new(1)
        ))
        .await;
    unknown.problem(404, "unknown-store");
    app.stop().await;
}

/// What was committed before the question counts, and the newest observation is the present where that is asked for: for
/// what is refused, for reports, and for single stores.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_observation_is_the_one_that_was_committed_last() {
    let database = TestDatabase::start().await;
    let client = database.connect().await;
    fixture::fill(&client, 3).await;
    let now = fixture::NOW.plus(100 * DAY_US);
    let settings = Settings {
        as_of_latest: true,
        ..Settings::default()
    };
    let mut app = App::start(&database, &Clock::standing(now).0, settings).await;
    let insert = "INSERT INTO public.store_activity VALUES ('chicago', $1, 'inactive')";
    for day in 4..40 {
        let newest = fixture::NOW.plus(2 * day * DAY_US);
        let date = newest.to_chrono().date_naive();
        let (from, to) = (date - Days::new(2), date + Days::new(1));
        let asked = format!("as_of=latest&from={from}&to={to}");
        let post = || axum::http::Request::post(format!("/trigger_report?{asked}")).body(axum::body::Body::empty());
        let refused = app.ask(post().unwrap()).await;
        refused.problem(422, "days-not-covered");
        client.execute(insert, &[&newest]).await.unwrap();
        let stores = raw_stores(&client, now).await;
        let path = match day % 4 {
            0 => format!("/api/v1/stores/chicago/uptime?from={from}&to={to}"),
            1 => "/api/v1/stores/chicago".to_owned(),
            2 => "/api/v1/stores/chicago/hours?step=day".to_owned(),
            _ => {
                assert_eq!(
                    file(&app, &asked).await,
                    days_csv(&stores, days(from, to), newest),
                    "{newest}"
                );
                continue;
            }
        };
        assert_eq!(app.json(&path).await["as_of"], newest.to_string(), "{path}");
    }
    app.stop().await;
}
