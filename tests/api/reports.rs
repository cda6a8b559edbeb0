//! Reports by the API: triggered, listed, shown; their files whole, in part, encoded, and not at all.

use std::io::Read as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use uptally::clock::Clock;
use uptally::live::Settings;

use super::app::{Answer, App};
use super::support::{TestDatabase, fixture, within};

async fn start(database: &TestDatabase) -> App {
    fixture::fill(&database.connect().await, 3).await;
    App::start(database, &Clock::standing(fixture::NOW).0, Settings::default()).await
}

/// A report that has ended.
async fn report(app: &App, query: &str) -> Value {
    let asked = Request::post(format!("/api/v1/reports?as_of=latest{query}")).body(Body::empty());
    let triggered = app.ask(asked.unwrap()).await;
    assert_eq!(triggered.status, 202, "{}", triggered.text());
    let place = triggered.headers["location"].to_str().unwrap().to_owned();
    let first = triggered.json();
    assert_eq!(
        place,
        format!("/api/v1/reports/{}", first["report_id"].as_str().unwrap())
    );
    let mut report = first;
    within(Duration::from_secs(8), "the report ends", async || {
        report = app.json(&place).await;
        report["state"] != "running"
    })
    .await;
    report
}

async fn file(app: &App, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.ask(request.body(Body::empty()).unwrap()).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_is_its_row_and_the_list_has_all_of_them() {
    let database = TestDatabase::start().await;
    let mut app = start(&database).await;
    assert_eq!(app.json("/api/v1/reports").await, json!({"reports": []}));
    let mut reports = Vec::new();
    for query in ["", "&windows=rolling", "&closed=excluded&windows=rolling"] {
        reports.insert(0, report(&app, query).await);
    }
    let newest = &reports[0];
    let file = app.get(newest["file"].as_str().unwrap()).await;
    assert_eq!(newest["state"], "complete");
    assert_eq!([&newest["windows"], &newest["closed"]], ["rolling", "excluded"]);
    assert_eq!([&newest["format"], &newest["columns"]], ["csv", "default"]);
    assert_eq!(
        (&newest["bytes"], &newest["stores"]),
        (&json!(file.body.len()), &json!(7))
    );
    assert_eq!(newest["failure"], Value::Null);
    assert!(newest["duration_us"].as_u64().unwrap() > 0 && newest["finished_at"].is_string());
    assert_eq!(app.json("/api/v1/reports").await, json!({"reports": reports}));
    assert_eq!(app.json("/api/v1/reports?limit=1").await, json!({"reports": [newest]}));
    let before = newest["requested_at"].as_str().unwrap();
    let page = app.json(&format!("/api/v1/reports?limit=5&before={before}")).await;
    assert_eq!(page, json!({"reports": &reports[1..]}));
    for (path, status, kind) in [
        ("/api/v1/reports?limit=101", 400, "bad-parameter"),
        ("/api/v1/reports?before=now", 400, "bad-parameter"),
        (
            "/api/v1/reports/6a2f41a3-c54c-fce8-32d2-0324e1c32e22",
            404,
            "unknown-report",
        ),
        (
            "/api/v1/reports/6A2F41A3-C54C-FCE8-32D2-0324E1C32E22",
            404,
            "unknown-report",
        ),
        ("/api/v1/reports/x/file", 404, "unknown-report"),
    ] {
        app.get(path).await.problem(status, kind);
    }
    let asked = Request::post("/api/v1/reports?as_of=1999-01-01T00:00:00Z").body(Body::empty());
    app.ask(asked.unwrap()).await.problem(400, "bad-parameter");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_comes_in_every_form_that_is_asked_for() {
    let database = TestDatabase::start().await;
    let mut app = start(&database).await;
    let report = report(&app, "").await;
    let path = report["file"].as_str().unwrap();
    let old = format!("/get_report?report_id={}", report["report_id"].as_str().unwrap());
    // Neither takes the file from whoever fetches it first.
    assert_eq!(file(&app, "HEAD", path, &[]).await.status, 200);
    let whole = file(&app, "GET", path, &[]).await;
    assert!(whole.text().starts_with("store_id,uptime_last_hour"));
    let (tag, length) = (header(&whole, "etag").to_owned(), whole.body.len());
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 20, "{tag}");
    assert_eq!(header(&whole, "vary"), "accept-encoding");
    assert_eq!(header(&whole, "accept-ranges"), "bytes");
    for path in [path, &old] {
        let again = file(&app, "GET", path, &[("if-none-match", &tag)]).await;
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
        assert_eq!(header(&again, "etag"), tag);
        for (coding, decode) in [
            ("gzip", gunzip as fn(&[u8]) -> Vec<u8>),
            ("zstd", unzstd as fn(&[u8]) -> Vec<u8>),
        ] {
            let accepts = [("accept-encoding", coding)];
            let encoded = file(&app, "GET", path, &accepts).await;
            assert_eq!(header(&encoded, "content-encoding"), coding);
            assert_eq!(header(&encoded, "content-length"), "");
            assert!(decode(&encoded.body) == whole.body, "{coding}");
            let its_tag = header(&encoded, "etag").to_owned();
            assert_ne!(its_tag, tag, "other bytes, another tag");
            let head = file(&app, "HEAD", path, &accepts).await;
            assert_eq!((header(&head, "etag"), head.body.len()), (its_tag.as_str(), 0));
            let again = file(&app, "GET", path, &[accepts[0], ("if-none-match", &its_tag)]).await;
            assert_eq!(again.status, 304);
        }
        // Parts put together are the whole, whatever else is accepted.
        let mut all = Vec::new();
        while all.len() < length {
            let range = format!("bytes={}-{}", all.len(), all.len() + 99);
            let asked = [("range", &*range), ("if-range", &tag), ("accept-encoding", "zstd")];
            let part = file(&app, "GET", path, &asked).await;
            assert_eq!(part.status, 206);
            let last = (all.len() + 100).min(length) - 1;
            assert_eq!(
                header(&part, "content-range"),
                format!("bytes {}-{last}/{length}", all.len())
            );
            assert_eq!(header(&part, "content-length"), part.body.len().to_string());
            assert_eq!(
                (header(&part, "content-encoding"), header(&part, "etag")),
                ("", tag.as_str())
            );
            all.extend(part.body);
        }
        assert!(all == whole.body);
        let past = file(&app, "GET", path, &[("range", &format!("bytes={length}-"))]).await;
        past.problem(416, "range-not-there");
        assert_eq!(header(&past, "content-range"), format!("bytes */{length}"));
        let other = file(&app, "GET", path, &[("range", "bytes=0-1"), ("if-range", "\"other\"")]).await;
        assert_eq!((other.status.as_u16(), other.body.len()), (200, length));
        file(&app, "GET", path, &[("if-match", "\"other\"")])
            .await
            .problem(412, "another-file");
        let head = file(&app, "HEAD", path, &[("range", "bytes=0-1")]).await;
        assert_eq!(
            (head.status.as_u16(), header(&head, "content-length")),
            (200, &*length.to_string())
        );
    }
    // Another report of the same is the same file with another name; one of other windows is not.
    let rolling = self::report(&app, "&windows=rolling").await;
    let asked = [("if-none-match", tag.as_str())];
    assert_eq!(
        file(&app, "GET", rolling["file"].as_str().unwrap(), &asked)
            .await
            .status,
        200
    );
    app.stop().await;
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

fn unzstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::decode_all(bytes).unwrap()
}
