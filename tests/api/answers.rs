//! Every number that is answered, against the oracle.

use std::cmp::Ordering;

use serde_json::{Value, json};
use uptally::clock::Clock;
use uptally::live::Settings;
use uptally::oracle::RawStore;
use uptally::rollup::FUTURE_MAX_US;
use uptally::time::{DAY_US, HOUR_US, MINUTE_US, Span, Timestamp};
use uptally::window::Windows;

use super::app::App;
use super::expected::{
    Expected, day_start, expected, history, hours, local, local_date, next_change, observed, window_json, windows_json,
};
use super::made_up;
use super::support::raw::raw_stores;
use super::support::{TestDatabase, fixture, seed};

/// As a part of a path.
pub fn encoded(id: &str) -> String {
    id.bytes()
        .fold(String::new(), |text, byte| text + &format!("%{byte:02X}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_what_the_oracle_says() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let (database, now) = (TestDatabase::start().await, fixture::NOW.plus(rng.i64(0..200 * DAY_US)));
    let client = database.connect().await;
    made_up::fill(&client, &mut rng, 60, 20, now).await;
    let silent_after_us = rng.i64(MINUTE_US..DAY_US);
    let settings = Settings {
        silent_after: std::time::Duration::from_micros(silent_after_us.unsigned_abs()),
        as_of_latest: false,
    };
    let mut app = App::start(&database, &Clock::standing(now).0, settings).await;
    for round in 0..3 {
        if round > 0 {
            made_up::disturb(&client, &mut rng, now).await;
        }
        let stores = raw_stores(&client, now.plus(FUTURE_MAX_US)).await;
        assert!(stores.len() > 30, "most stores are known");
        for kind in [Windows::Rolling, Windows::Calendar] {
            let expected = expected(&stores, now, kind, silent_after_us);
            fleet_is_right(&app, &expected, kind, now).await;
            lists_are_right(&app, &expected, kind, &mut rng).await;
            for _ in 0..5 {
                let at = rng.usize(..stores.len());
                let store = stores.iter().find(|store| store.id == expected[at].id).unwrap();
                store_is_right(&app, store, &expected[at], kind, now, &stores).await;
            }
        }
        history_is_right(&app, &stores, now).await;
        for _ in 0..6 {
            let store = &stores[rng.usize(..stores.len())];
            buckets_are_right(&app, store, &stores, now, &mut rng).await;
        }
    }
    app.stop().await;
}

async fn fleet_is_right(app: &App, expected: &[Expected], kind: Windows, now: Timestamp) {
    let mut fleet = app.json(&format!("/api/v1/fleet?windows={kind}")).await;
    let count = |state| expected.iter().filter(|store| store.state == state).count();
    let (online, offline) = (count("online"), count("offline"));
    let mut totals = [(0, 0); 3];
    for store in expected {
        for (total, window) in totals.iter_mut().zip(store.windows) {
            *total = (total.0 + window.0, total.1 + window.1);
        }
    }
    assert!(fleet["feed"]["lag_us"].as_u64().unwrap() < 10_000_000, "{fleet}");
    fleet["feed"]["lag_us"] = json!(0);
    let newest = expected.iter().filter_map(|store| store.last).map(|(at, _)| at).max();
    let known = i64::try_from(online + offline).unwrap();
    assert_eq!(
        fleet,
        json!({
            "as_of": now.to_string(),
            "newest": newest.map(|at| at.to_string()),
            "stores": expected.len(),
            "counts": {
                "online": online, "offline": offline,
                "outside_hours": count("outside_hours"), "silent": count("silent"),
            },
            "uptime_now": super::expected::six_decimals(i64::try_from(online).unwrap(), known),
            "windows": windows_json(totals),
            "silent_after_us": fleet["silent_after_us"],
            "feed": {"ready": true, "reason": null, "lag_us": 0},
        })
    );
}

async fn history_is_right(app: &App, stores: &[RawStore], now: Timestamp) {
    for hours in [1, 24, 168] {
        let answer = app.json(&format!("/api/v1/fleet/history?hours={hours}")).await;
        let points = history(stores, now, hours).into_iter().map(|(start, open, down)| {
            let mut point = window_json((open, down));
            point["start"] = json!(start.to_string());
            point
        });
        let points: Vec<Value> = points.collect();
        assert_eq!(
            answer,
            json!({"as_of": now.to_string(), "step": "hour", "points": points})
        );
    }
}

async fn lists_are_right(app: &App, expected: &[Expected], kind: Windows, rng: &mut fastrand::Rng) {
    let defaults = app.json(&format!("/api/v1/stores?windows={kind}")).await;
    let worst = sorted(expected.to_vec(), "down_last_day", true);
    assert_eq!((&defaults["limit"], &defaults["offset"]), (&json!(50), &json!(0)));
    assert_eq!(
        ids(&defaults),
        worst.iter().take(50).map(|s| s.id.clone()).collect::<Vec<_>>()
    );
    for sort in [
        "id",
        "uptime_last_hour",
        "uptime_last_day",
        "uptime_last_week",
        "down_last_hour",
        "down_last_day",
        "down_last_week",
        "last_observed_at",
    ] {
        for order in ["", "asc", "desc"] {
            let state = *rng
                .choice(&["", "", "online", "offline", "outside_hours", "silent"])
                .unwrap();
            let zone = *rng.choice(&["", "", "", "Asia/Kolkata", "America/Chicago"]).unwrap();
            let part = *rng.choice(&["", "", "sTOrE a", "é 1", "none"]).unwrap();
            let (limit, offset) = (rng.usize(1..=200), *rng.choice(&[0, 0, 3, 1000]).unwrap());
            let given = [("state", state), ("timezone", zone), ("q", part), ("order", order)];
            let given: Vec<String> = given
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| format!("&{name}={}", encoded(value)))
                .collect();
            let given = given.concat();
            let path = format!("/api/v1/stores?windows={kind}&sort={sort}&limit={limit}&offset={offset}{given}");
            let answer = app.json(&path).await;
            let matching = expected.iter().filter(|store| {
                (state.is_empty() || store.state == state)
                    && (zone.is_empty() || store.zone.name() == zone)
                    && store.id.to_ascii_lowercase().contains(&part.to_ascii_lowercase())
            });
            let descending = order == "desc" || order.is_empty() && sort.starts_with("down");
            let all = sorted(matching.cloned().collect(), sort, descending);
            assert_eq!(answer["total"], all.len(), "{path}");
            let page: Vec<Value> = all.iter().skip(offset).take(limit).map(Expected::json).collect();
            assert_eq!(answer["stores"], Value::Array(page), "{path}");
        }
    }
}

fn ids(list: &Value) -> Vec<String> {
    let stores = list["stores"].as_array().unwrap().iter();
    stores
        .map(|store| store["store_id"].as_str().unwrap().to_owned())
        .collect()
}

/// `stores` are in the order of their ids, and the sort is stable.
fn sorted(mut stores: Vec<Expected>, sort: &str, descending: bool) -> Vec<Expected> {
    let window = ["hour", "day", "week"]
        .iter()
        .position(|window| sort.ends_with(window))
        .unwrap_or(0);
    stores.sort_by(|a, b| {
        let order = if sort == "id" {
            Some(a.id.as_bytes().cmp(b.id.as_bytes()))
        } else if sort.starts_with("down") {
            Some(a.windows[window].1.cmp(&b.windows[window].1))
        } else if sort.starts_with("uptime") {
            match (a.uptime(window), b.uptime(window)) {
                (None, b) => {
                    return if b.is_some() {
                        Ordering::Greater
                    } else {
                        Ordering::Equal
                    };
                }
                (_, None) => return Ordering::Less,
                (Some((up_a, open_a)), Some((up_b, open_b))) => {
                    let product = |a: i64, b: i64| i128::from(a) * i128::from(b);
                    Some(product(up_a, open_b).cmp(&product(up_b, open_a)))
                }
            }
        } else {
            match (a.last, b.last) {
                (None, b) => {
                    return if b.is_some() {
                        Ordering::Greater
                    } else {
                        Ordering::Equal
                    };
                }
                (_, None) => return Ordering::Less,
                (Some((a, _)), Some((b, _))) => Some(a.cmp(&b)),
            }
        };
        let order = order.unwrap();
        if descending { order.reverse() } else { order }
    });
    stores
}

async fn store_is_right(
    app: &App,
    raw: &RawStore,
    expected: &Expected,
    kind: Windows,
    now: Timestamp,
    all: &[RawStore],
) {
    let path = format!("/api/v1/stores/{}?windows={kind}", encoded(&raw.id));
    let mut answer = app.json(&path).await;
    let listed = answer["hours"].take();
    let mut shown: Vec<(u64, String, String)> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            (row["day"].as_u64().unwrap(), text("start"), text("end"))
        })
        .collect();
    let clock = |us: i64| {
        let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
        let text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        if fraction == 0 {
            text
        } else {
            format!("{text}.{fraction:06}")
        }
    };
    let mut rows: Vec<(u64, String, String)> = raw
        .hours
        .iter()
        .map(|row| {
            // 23:59 and later is the end of the day, and so is 00:00.
            let ends_the_day = row.end_us >= DAY_US - MINUTE_US || row.end_us == 0;
            let end = if ends_the_day { DAY_US } else { row.end_us };
            (u64::from(row.day), clock(row.start_us), clock(end))
        })
        .collect();
    shown.sort();
    rows.sort();
    assert_eq!(shown, rows, "{path}");
    let mut observations = raw.observations.clone();
    observations.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let newest = observations.iter().take(50).map(|&(at, status)| observed(at, status));
    let mut whole = expected.json();
    whole["as_of"] = json!(now.to_string());
    whole["always_open"] = json!(raw.hours.is_empty());
    whole["hours"] = json!(null);
    whole["next_change"] = json!(next_change(raw, now).map(|at| at.to_string()));
    whole["covered_from"] = json!(covered_from(all).to_string());
    whole["observations"] = newest.collect();
    assert_eq!(answer, whole, "{path}");
}

/// The hour before that of the earliest observation.
fn covered_from(stores: &[RawStore]) -> Timestamp {
    let first = stores
        .iter()
        .flat_map(|store| &store.observations)
        .map(|(at, _)| *at)
        .min()
        .unwrap();
    first.plus(-first.micros().rem_euclid(HOUR_US) - HOUR_US)
}

async fn buckets_are_right(app: &App, store: &RawStore, all: &[RawStore], now: Timestamp, rng: &mut fastrand::Rng) {
    let path = format!("/api/v1/stores/{}/hours", encoded(&store.id));
    let covered = covered_from(all);
    let phase = uptally::oracle::grid_phase_us(store.zone);
    let hour_start = |at: Timestamp| at.plus(-(at.micros() - phase).rem_euclid(HOUR_US));
    let counted = |from: Timestamp, to: Timestamp| {
        let within = store.observations.iter().filter(|(at, _)| (from..to).contains(at));
        within.count()
    };
    let bucket = |start: Timestamp, end: Timestamp, open: i64, down: i64| {
        json!({
            "start": start.to_string(), "local": local(store.zone, start),
            "open_us": open, "up_us": open - down, "down_us": down, "observations": counted(start, end),
        })
    };
    let answered = |step: &str, from: Timestamp, to: Timestamp, buckets: Vec<Value>| {
        json!({
            "store_id": store.id, "timezone": store.zone.name(), "step": step, "as_of": now.to_string(),
            "from": from.to_string(), "to": to.to_string(), "buckets": buckets,
        })
    };
    let hourly = |from: Timestamp, to: Timestamp| {
        let buckets = hours(store, Span::new(from, to)).into_iter();
        let buckets = buckets.map(|(start, open, down)| bucket(start, start.plus(HOUR_US), open, down));
        answered("hour", from, to, buckets.collect())
    };
    let week = hour_start(now.plus(-7 * DAY_US).max(covered));
    assert_eq!(app.json(&path).await, hourly(week, hour_start(now)), "{path}");
    // Anywhere in what is covered, over the present too.
    let from = covered.plus(rng.i64(0..now.since(covered)));
    let to = from.plus(rng.i64(1..10 * DAY_US));
    let end = if to < now {
        hour_start(to.plus(HOUR_US - 1))
    } else {
        hour_start(now)
    };
    let end = if end > now { hour_start(now) } else { end };
    let path_of = |step: &str| format!("{path}?step={step}&from={from}&to={to}");
    if hour_start(from) < end {
        assert_eq!(
            app.json(&path_of("hour")).await,
            hourly(hour_start(from), end),
            "{}",
            path_of("hour")
        );
    }
    let mut date = local_date(store.zone, from);
    let mut edges = Vec::new();
    loop {
        let edge = day_start(store.zone, date);
        if edge <= now {
            edges.push(edge);
        }
        if edge >= to.min(now) {
            break;
        }
        date = date.succ_opt().unwrap();
    }
    edges.dedup();
    if edges.len() > 1 {
        let days = edges.windows(2).map(|edge| {
            let (up, down) = uptally::oracle::up_down_us(store, Span::new(edge[0], edge[1]));
            bucket(edge[0], edge[1], up + down, down)
        });
        let expected = answered("day", edges[0], *edges.last().unwrap(), days.collect());
        assert_eq!(app.json(&path_of("day")).await, expected, "{}", path_of("day"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_stands_still_is_shown_as_of_its_newest_observation() {
    let database = TestDatabase::start().await;
    let client = database.connect().await;
    fixture::fill(&client, 20).await;
    let settings = Settings {
        as_of_latest: true,
        ..Settings::default()
    };
    // Years later.
    let now = fixture::NOW.plus(1000 * DAY_US);
    let mut app = App::start(&database, &Clock::standing(now).0, settings).await;
    let stores = raw_stores(&client, now).await;
    let newest = stores
        .iter()
        .flat_map(|store| &store.observations)
        .map(|(at, _)| *at)
        .max()
        .unwrap();
    let expected = expected(&stores, newest, Windows::Rolling, 2 * HOUR_US);
    fleet_is_right(&app, &expected, Windows::Rolling, newest).await;
    let known = stores.iter().find(|store| store.id == "chicago").unwrap();
    let place = expected.iter().find(|store| store.id == "chicago").unwrap();
    store_is_right(&app, known, place, Windows::Rolling, newest, &stores).await;
    history_is_right(&app, &stores, newest).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_answered_says_why() {
    let database = TestDatabase::start().await;
    fixture::fill(&database.connect().await, 3).await;
    let mut app = App::start(&database, &Clock::standing(fixture::NOW).0, Settings::default()).await;
    for (path, named) in [
        ("/api/v1/fleet?window=rolling", "window"),
        ("/api/v1/fleet?windows=weekly", "calendar or rolling"),
        (
            "/api/v1/fleet/history?hours=0",
            "hours: expected a whole number from 1 to 168",
        ),
        ("/api/v1/fleet/history?hours=169", "hours"),
        ("/api/v1/fleet/history?hours=%2B7", "hours"),
        (
            "/api/v1/stores?limit=201",
            "limit: expected a whole number from 1 to 200",
        ),
        ("/api/v1/stores?offset=-1", "offset: expected a whole number from 0 on"),
        ("/api/v1/stores?state=open", "online, offline, outside_hours or silent"),
        ("/api/v1/stores?sort=uptime", "last_observed_at"),
        ("/api/v1/stores?order=down", "asc or desc"),
        ("/api/v1/stores?timezone=Mars/Olympus", "timezone"),
        ("/api/v1/stores?q=a&q=b", "once"),
        ("/api/v1/stores/chicago?limit=1", "limit"),
        ("/api/v1/stores/chicago/hours?step=week", "hour or day"),
        ("/api/v1/stores/chicago/hours?from=yesterday", "from"),
        (
            "/api/v1/stores/chicago/hours?from=2023-11-07T00:00:00Z&to=2023-11-06T00:00:00Z",
            "to",
        ),
        ("/api/v1/events?last_event_id=x", "last_event_id"),
    ] {
        let detail = app.get(path).await.problem(400, "bad-parameter");
        assert!(detail.contains(named), "{path}: {detail}");
    }
    let early = app.get("/api/v1/stores/chicago/hours?from=2022-01-01T00:00:00Z").await;
    let detail = early.problem(422, "from-not-covered");
    assert!(
        detail.contains("expected an instant from 2023-11-05T11:00:00Z on"),
        "{detail}"
    );
    for id in ["nobody", "a%00b", "%0A", &"x".repeat(201)] {
        app.get(&format!("/api/v1/stores/{id}"))
            .await
            .problem(404, "unknown-store");
        app.get(&format!("/api/v1/stores/{id}/hours"))
            .await
            .problem(404, "unknown-store");
    }
    app.get("/api/v1/stores/%FF").await.problem(400, "about:blank");
    app.get("/api/v1/stores/").await.problem(404, "about:blank");
    app.stop().await;
    app.get("/api/v1/fleet").await.problem(503, "not-ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_buckets_are_the_most() {
    let database = TestDatabase::start().await;
    let client = database.connect().await;
    // A year and a half, polled once a week.
    let polls = "SET TimeZone = 'UTC'; INSERT INTO public.store_activity
        SELECT 's', '2022-05-01'::timestamptz + n * interval '7 days', CASE n % 2 WHEN 0 THEN 'active' ELSE 'inactive' END
        FROM generate_series(0, 79) n";
    client.batch_execute(polls).await.unwrap();
    let mut app = App::start(&database, &Clock::standing(fixture::NOW).0, Settings::default()).await;
    let stores = raw_stores(&client, fixture::NOW).await;
    let from = fixture::NOW.plus(-10_000 * HOUR_US);
    let first = from.plus(-from.micros().rem_euclid(HOUR_US));
    let path = |from: Timestamp| format!("/api/v1/stores/s/hours?from={from}");
    let app_stores = app.json("/api/v1/stores/s").await;
    assert!(
        app_stores["covered_from"].as_str().unwrap() < first.to_string().as_str(),
        "{app_stores}"
    );
    let answer = app.json(&path(first)).await;
    let buckets = answer["buckets"].as_array().unwrap();
    assert_eq!(buckets.len(), 10_000);
    let end = first.plus(10_000 * HOUR_US);
    for (bucket, (start, open, down)) in buckets.iter().zip(hours(&stores[0], Span::new(first, end))) {
        let expected = [json!(start.to_string()), json!(open), json!(down)];
        assert_eq!(
            [&bucket["start"], &bucket["open_us"], &bucket["down_us"]],
            expected.each_ref()
        );
    }
    let detail = app.get(&path(first.plus(-1))).await.problem(400, "bad-parameter");
    assert!(detail.contains("at most 10000 buckets, found 10001"), "{detail}");
    app.stop().await;
}
