//! What pollers write over HTTP.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tokio_postgres::Client;
use uptally::clock::Clock;
use uptally::live::Settings;

use super::app::App;
use super::support::{TestDatabase, fixture};

const JSON_LINES: &str = "application/x-ndjson";

async fn start(database: &TestDatabase) -> App {
    App::start(database, &Clock::standing(fixture::NOW).0, Settings::default()).await
}

/// Counts of an answer: read, new, corrected, unchanged, rejected.
fn counts(answer: &Value) -> [u64; 5] {
    ["read", "new", "corrected", "unchanged", "rejected"].map(|name| answer[name].as_u64().unwrap())
}

async fn rows(client: &Client) -> Vec<(String, String, String)> {
    let sql = "SELECT store_id, timestamp_utc::text, status FROM public.store_activity ORDER BY 1, 2";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

fn line(id: &str, at: &str, status: &str) -> String {
    json!({"store_id": id, "timestamp_utc": at, "status": status}).to_string() + "\n"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_written_once_counted_exactly_and_known_at_once() {
    let database = TestDatabase::start().await;
    let client = database.connect().await;
    client.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    let mut app = start(&database).await;
    let body = [
        line("a", "2023-11-08T12:00:00Z", "inactive"),
        line("b,\"", "2023-11-08 12:00:00.5 UTC", "active"),
        line("a", "2023-11-08T12:10:00Z", "up"),
        line("a", "2023-11-08T13:00:00+01:00", "active"),
    ]
    .concat();
    let first = app.post("/api/v1/activity", JSON_LINES, body.clone()).await.json();
    assert_eq!(counts(&first), [4, 2, 0, 1, 1]);
    let problem = "expected active or inactive, found \"up\"";
    assert_eq!(
        first["rejects"],
        json!([{"line": 3, "field": "status", "problem": problem}])
    );
    let written = rows(&client).await;
    let row = |id: &str, at: &str, status: &str| (id.to_owned(), at.to_owned(), status.to_owned());
    assert_eq!(
        written,
        [
            row("a", "2023-11-08 12:00:00+00", "active"),
            row("b,\"", "2023-11-08 12:00:00.5+00", "active"),
        ]
    );
    // Whoever asks afterwards is told.
    let fleet = app.json("/api/v1/fleet").await;
    assert_eq!((&fleet["stores"], &fleet["counts"]["online"]), (&json!(2), &json!(2)));
    let xids = "SELECT max(change_xid::text::bigint) FROM public.store_activity";
    let xid: i64 = client.query_one(xids, &[]).await.unwrap().get(0);
    let again = app.post("/api/v1/activity", JSON_LINES, body).await.json();
    assert_eq!(counts(&again), [4, 0, 0, 3, 1]);
    assert_eq!(rows(&client).await, written);
    assert_eq!(
        client.query_one(xids, &[]).await.unwrap().get::<_, i64>(0),
        xid,
        "no row was touched"
    );
    // A CSV, with a correction, and a column that is of no use.
    let csv =
        "status,more,timestamp_utc,store_id\ninactive,x,2023-11-08 12:00:00 UTC,a\nactive,,2023-11-08 12:01:00 UTC,c\n";
    let third = app
        .post("/api/v1/activity", "Text/CSV; charset=utf-8", csv)
        .await
        .json();
    assert_eq!(counts(&third), [2, 1, 1, 0, 0]);
    let fleet = app.json("/api/v1/fleet").await;
    assert_eq!(
        (&fleet["counts"]["online"], &fleet["counts"]["offline"]),
        (&json!(2), &json!(1))
    );
    let nothing = app.post("/api/v1/activity", JSON_LINES, "").await.json();
    assert_eq!(
        nothing,
        json!({"read": 0, "new": 0, "corrected": 0, "unchanged": 0, "rejected": 0, "rejects": []})
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_body_as_a_whole_is_a_problem() {
    let database = TestDatabase::start().await;
    let mut app = start(&database).await;
    let post = async |content_type: &str, body: String| app.post("/api/v1/activity", content_type, body).await;
    for kind in ["application/json", "", "text/plain"] {
        post(kind, String::new()).await.problem(415, "about:blank");
    }
    let encoded = Request::post("/api/v1/activity")
        .header("content-type", JSON_LINES)
        .header("content-encoding", "gzip")
        .body(Body::from("x"));
    app.ask(encoded.unwrap()).await.problem(415, "about:blank");
    let headless = post("text/csv", "a,b\n".to_owned()).await.problem(400, "bad-body");
    assert!(headless.contains("no column store_id"), "{headless}");
    post("text/csv", String::new()).await.problem(400, "bad-body");
    let long = "x".repeat(100_001);
    let detail = post(JSON_LINES, long).await.problem(413, "about:blank");
    assert!(detail.contains("100000 bytes"), "{detail}");
    let many = line("a", "2023-11-08T12:00:00Z", "active").repeat(1_001);
    let detail = post(JSON_LINES, many).await.problem(413, "about:blank");
    assert!(detail.contains("1000 rows"), "{detail}");
    let query = app.post("/api/v1/activity?strict=1", JSON_LINES, "").await;
    assert!(query.problem(400, "bad-parameter").contains("strict"));
    let bad = post(JSON_LINES, "x\n".repeat(300)).await.json();
    assert_eq!(
        (counts(&bad), bad["rejects"].as_array().unwrap().len()),
        ([300, 0, 0, 0, 300], 100)
    );
    assert_eq!(rows(&database.connect().await).await, []);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bodies_at_once_lose_and_double_nothing() {
    let database = TestDatabase::start().await;
    let client = database.connect().await;
    let mut app = start(&database).await;
    // The same hundred keys in other orders, with other statuses.
    let body = |number: usize| {
        let keys = (0..100).map(|key| (key * 37 + number * 11) % 100);
        let line = |key: usize| {
            let status = if (key + number).is_multiple_of(3) {
                "inactive"
            } else {
                "active"
            };
            line(
                &format!("s{}", key % 10),
                &format!("2023-11-08T10:{:02}:00Z", key / 10),
                status,
            )
        };
        keys.map(line).collect::<String>()
    };
    let posts = (0..12).map(|number| app.post("/api/v1/activity", JSON_LINES, body(number)));
    let answers = futures_util::future::join_all(posts).await;
    let mut sums = [0; 5];
    for answer in answers {
        let counted = counts(&answer.json());
        assert_eq!(counted[0], counted[1..].iter().sum::<u64>());
        for (sum, count) in sums.iter_mut().zip(counted) {
            *sum += count;
        }
    }
    assert_eq!((sums[0], sums[1], sums[4]), (1200, 100, 0), "each key is new once");
    assert_eq!(rows(&client).await.len(), 100);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_write_says_so() {
    let database = TestDatabase::start().await;
    let superuser = database.connect().await;
    superuser.batch_execute("CREATE ROLE reads_only LOGIN").await.unwrap();
    let grants = uptally::db::Grants {
        daemon: Some("reads_only".parse().unwrap()),
        poller: None,
    };
    database.database().grant(&grants).await.unwrap();
    let mut app = App::start_as(
        &database.database_as("reads_only"),
        &database,
        &Clock::standing(fixture::NOW).0,
    )
    .await;
    let post = async || {
        app.post(
            "/api/v1/activity",
            JSON_LINES,
            line("a", "2023-11-08T12:00:00Z", "active"),
        )
        .await
    };
    let detail = post().await.problem(503, "writing-not-granted");
    assert!(detail.contains("uptally migrate --grant-poller"), "{detail}");
    let grants = uptally::db::Grants {
        daemon: None,
        poller: Some("reads_only".parse().unwrap()),
    };
    database.database().grant(&grants).await.unwrap();
    assert_eq!(counts(&post().await.json()), [1, 1, 0, 0, 0]);
    app.stop().await;
}
