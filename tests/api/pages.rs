//! The pages as they are sent. What a browser makes of them is in `tests/web`.

use axum::body::Body;
use axum::http::Request;
use uptally::clock::Clock;
use uptally::live::Settings;

use super::app::{Answer, App};
use super::support::{TestDatabase, fixture};

async fn start(database: &TestDatabase) -> App {
    fixture::fill(&database.connect().await, 3).await;
    App::start(database, &Clock::standing(fixture::NOW).0, Settings::default()).await
}

async fn open(app: &App, path: &str) -> Answer {
    let request = Request::get(path).header("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    app.ask(request.body(Body::empty()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_run_nothing_but_our_own_files_and_escape_what_is_not_theirs() {
    let database = TestDatabase::start().await;
    let mut app = start(&database).await;
    let hostile = "<script>alert('1')</script>\"&";
    let row = serde_json::json!({"store_id": hostile, "timestamp_utc": fixture::NOW.to_string(), "status": "active"});
    let taken = app
        .post("/api/v1/activity", "application/x-ndjson", row.to_string())
        .await;
    assert_eq!(taken.json()["new"], 1, "{}", taken.text());
    let own = "/stores/%3Cscript%3Ealert%28%271%27%29%3C%2Fscript%3E%22%26";
    for path in ["/", "/?span=7d", "/?span=", "/stores?q=alert&state=", own, "/reports"] {
        let page = open(&app, path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text());
        assert_eq!(page.headers["content-type"], "text/html; charset=utf-8", "{path}");
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        let text = page.text();
        assert!(!text.contains("<script>") && !text.contains("style="), "{path}: {text}");
        assert!(text.len() < 60_000, "{path}: {} bytes", text.len());
    }
    let list = open(&app, "/stores?q=alert").await.text();
    assert!(list.contains(&format!("href=\"{own}\"")), "{list}");
    assert!(
        list.contains("&lt;script&gt;alert('1')&lt;/script&gt;&quot;&amp;"),
        "{list}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn problems_are_pages_for_browsers_and_problems_for_programs() {
    let database = TestDatabase::start().await;
    let mut app = start(&database).await;
    for (path, status) in [
        ("/nothing", 404),
        ("/stores/nobody", 404),
        ("/stores?state=asleep", 400),
        ("/stores?state=online&state=offline", 400),
        ("/reports/1", 404),
        ("/assets/0/app.js", 404),
    ] {
        let page = open(&app, path).await;
        assert_eq!(page.status, status, "{path}");
        assert_eq!(page.headers["content-type"], "text/html; charset=utf-8", "{path}");
        assert!(page.text().contains("role=\"alert\""), "{path}: {}", page.text());
        let problem = app.get(path).await;
        assert_eq!(problem.status, status, "{path}");
        assert_eq!(problem.headers["content-type"], "application/problem+json", "{path}");
    }
    let api = open(&app, "/api/v1/stores?state=asleep").await;
    assert_eq!(
        api.headers["content-type"], "application/problem+json",
        "the API speaks one language"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_kept_by_browsers_until_they_change() {
    let database = TestDatabase::start().await;
    let mut app = start(&database).await;
    let page = open(&app, "/").await.text();
    let path = page.split('"').find(|part| part.ends_with("/app.css")).unwrap();
    let file = app.get(path).await;
    assert_eq!(file.headers["content-type"], "text/css; charset=utf-8");
    assert!(file.headers["cache-control"].to_str().unwrap().contains("immutable"));
    let again = Request::get(path)
        .header("if-none-match", &file.headers["etag"])
        .body(Body::empty());
    let again = app.ask(again.unwrap()).await;
    assert_eq!(again.status, 304);
    assert!(again.body.is_empty());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_makes_a_report_or_says_why_not() {
    let database = TestDatabase::start().await;
    let mut app = start(&database).await;
    let form = "application/x-www-form-urlencoded";
    let made = app.post("/reports", form, "as_of=latest&windows=rolling&closed=").await;
    assert_eq!(made.status, 303, "{}", made.text());
    let report = made.headers["location"]
        .to_str()
        .unwrap()
        .replace("/reports/", "/api/v1/reports/");
    assert_eq!(app.json(&report).await["windows"], "rolling");
    let refused = app.post("/reports", form, "as_of=%3Cb%3E&windows=rolling").await;
    assert_eq!(refused.status, 400);
    let text = refused.text();
    assert!(text.contains("value=\"&lt;b&gt;\""), "{text}");
    assert!(text.contains("<option value=\"rolling\" selected>"), "{text}");
    app.stop().await;
}
