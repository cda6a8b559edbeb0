//! `/openapi.json`: the committed copy, and answers held against it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use uptally::clock::Clock;
use uptally::live::Settings;

use super::app::App;
use super::support::{TestDatabase, fixture};

#[test]
fn the_committed_description_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let description = uptally::http::description();
    if std::env::var_os("RENEW").is_some() {
        fs::write(&path, &description).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == description,
        "docs/openapi.json is not what the code says: look at what differs after \
         RENEW=1 cargo test --features failpoints --test api the_committed_description"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_have_the_shape_that_is_described() {
    let database = TestDatabase::start().await;
    fixture::fill(&database.connect().await, 3).await;
    let mut app = App::start(&database, &Clock::standing(fixture::NOW).0, Settings::default()).await;
    let description = app.json("/openapi.json").await;
    for (path, template) in [
        ("/api/v1/fleet", "/api/v1/fleet"),
        ("/api/v1/fleet/history", "/api/v1/fleet/history"),
        ("/api/v1/stores", "/api/v1/stores"),
        ("/api/v1/stores/silent", "/api/v1/stores/{store_id}"),
        ("/api/v1/stores/chicago", "/api/v1/stores/{store_id}"),
        (
            "/api/v1/stores/chicago/hours?step=day",
            "/api/v1/stores/{store_id}/hours",
        ),
    ] {
        let answer = app.json(path).await;
        let answers = &description["paths"][template]["get"]["responses"];
        fits(
            &answer,
            &answers["200"]["content"]["application/json"]["schema"],
            &description,
            path,
        );
    }
    let problem = app.get("/api/v1/fleet?no=1").await.json();
    let answers = &description["paths"]["/api/v1/fleet"]["get"]["responses"];
    let schema = &answers["400"]["content"]["application/problem+json"]["schema"];
    fits(&problem, schema, &description, "a problem");
    // The check itself finds what is wrong.
    let wrong = std::panic::catch_unwind(|| fits(&json!({"status": "400"}), schema, &description, "wrong"));
    assert!(wrong.is_err());
    app.stop().await;
}

/// As much of JSON schema as the description uses. Members that no schema knows do not fit.
fn fits(value: &Value, schema: &Value, description: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').unwrap();
        let schema = description.pointer(pointer).unwrap_or_else(|| panic!("no {reference}"));
        return fits(value, schema, description, at);
    }
    if let Some(any) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let fitting = any
            .iter()
            .filter(|schema| std::panic::catch_unwind(|| fits(value, schema, description, at)).is_ok());
        assert_eq!(fitting.count(), 1, "{at}: {value} against {schema}");
        return;
    }
    if let Some(only) = schema.get("const") {
        return assert_eq!(value, only, "{at}");
    }
    if let Some(words) = schema["enum"].as_array() {
        return assert!(words.contains(value), "{at}: {value} of {words:?}");
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds: Vec<&str> = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(|kind| kind.as_str().unwrap()).collect(),
        kind => vec![kind.as_str().unwrap_or_else(|| panic!("{at}: no type in {schema}"))],
    };
    assert!(kinds.contains(&kind), "{at}: {value} is none of {kinds:?}");
    match value {
        Value::Array(items) => {
            for item in items {
                fits(item, &schema["items"], description, at);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let schema = schema["properties"].get(name);
                let schema = schema.unwrap_or_else(|| panic!("{at}: {name} is not described"));
                fits(member, schema, description, &format!("{at} {name}"));
            }
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(members.contains_key(name.as_str().unwrap()), "{at}: no {name}");
            }
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_for_people_needs_nothing_from_elsewhere() {
    let database = TestDatabase::start().await;
    let mut app = App::start(&database, &Clock::standing(fixture::NOW).0, Settings::default()).await;
    let page = app.get("/docs/api").await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    let text = page.text();
    for inline in ["<style", " style=", "onclick", "<script>"] {
        assert!(!text.contains(inline), "{inline}");
    }
    let named = text
        .split(['"'])
        .filter(|part| part.starts_with("/docs/") || part.contains("://"));
    let named: Vec<String> = named.map(str::to_owned).collect();
    assert_eq!(named, ["/docs/api/page.css", "/docs/api/page.js"]);
    for (path, kind) in named.iter().zip(["text/css", "text/javascript"]) {
        let file = app.get(path).await;
        assert!(file.headers["content-type"].to_str().unwrap().starts_with(kind));
        let text = file.text();
        assert!(
            !text.contains("://") && !text.contains("innerHTML") && !text.contains("eval"),
            "{path}"
        );
    }
    app.stop().await;
}
