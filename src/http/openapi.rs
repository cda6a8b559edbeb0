//! `/openapi.json`, made from the table of routes and the types of the answers.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::{Map, Value, json};

use super::access::Scope;
use super::problem::Problem;
use super::query::Param;
use super::routes::{Doc, Route, routes};

/// Problems that any route may answer with.
const EVERYWHERE: [(u16, &str); 8] = [
    (400, "The head of the request is not clear."),
    (401, "No token, or one that is not known."),
    (
        403,
        "The token is for something else, or a page of another origin asks.",
    ),
    (405, "The method is not for this path."),
    (421, "The request is for another host."),
    (431, "The head of the request is too long."),
    (500, "An internal error."),
    (503, "No answer was found in time."),
];

/// The description of the API as `OpenAPI` 3.1 has it, with a line end.
pub fn description() -> String {
    let mut schemas = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
        .with_transform(RecursiveTransform(without_formats_of_numbers))
        .into_generator();
    let problem = schemas.subschema_for::<Problem>().to_value();
    let mut paths = Map::new();
    for route in routes() {
        let Some(doc) = &route.doc else { continue };
        let operation = operation(&route, doc, &mut schemas, &problem);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(route.method.as_str().to_lowercase(), operation);
        }
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Uptally",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
            "description": "How long each store was up and down in its last hour, day and week, inside its opening \
                hours. Instants are RFC 3339 in UTC, durations (`_us`) microseconds, `uptime` a part of 1. The numbers of \
                an answer are of one point: they know everything that was committed before the request.",
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}, {"password": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {
                    "type": "http", "scheme": "basic",
                    "description": "Any user, the token as password. What changes something must come from our own pages.",
                },
            },
        },
    });
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

/// `GET /openapi.json`.
pub(super) async fn document() -> impl IntoResponse {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| description().into());
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone())
}

fn operation(route: &Route, doc: &Doc, schemas: &mut SchemaGenerator, problem: &Value) -> Value {
    let mut parameters: Vec<Value> = doc.query.iter().map(parameter).collect();
    if let Some(part) = doc.in_path {
        let schema = (part.schema)();
        parameters.insert(
            0,
            json!({"name": part.name, "in": "path", "description": part.what, "required": true, "schema": schema}),
        );
    }
    let mut responses = Map::new();
    for answer in &doc.answers {
        let schema = answer
            .schema
            .map_or_else(|| json!({}), |schema| schema(schemas).to_value());
        // Several of one status are several kinds of it.
        let response = responses
            .entry(answer.status.to_string())
            .or_insert_with(|| json!({"description": answer.what}));
        if !answer.media_type.is_empty() {
            response["content"][answer.media_type] = json!({"schema": schema});
        }
    }
    for (status, what) in doc.problems.iter().chain(&EVERYWHERE) {
        let response = json!({
            "description": what,
            "content": {"application/problem+json": {"schema": problem}},
        });
        responses.entry(status.to_string()).or_insert(response);
    }
    let mut operation = json!({
        "operationId": doc.id,
        "summary": doc.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if !doc.body.is_empty() {
        let content = doc.body.iter().map(|(media_type, what)| {
            let schema = json!({"type": "string", "description": what});
            ((*media_type).to_owned(), json!({"schema": schema}))
        });
        operation["requestBody"] = json!({"required": true, "content": content.collect::<Map<_, _>>()});
    }
    let scope = match route.rule.scope {
        None => "Anybody may ask.",
        Some(Scope::Read) => "With tokens configured: a token to read or to trigger.",
        Some(Scope::Trigger) => "With tokens configured: a token to trigger.",
        Some(Scope::Write) => "With tokens configured: a token to write.",
    };
    operation["description"] = scope.into();
    if route.rule.scope.is_none() {
        operation["security"] = json!([]);
    }
    operation
}

fn parameter(param: &Param) -> Value {
    json!({
        "name": param.name,
        "in": "query",
        "description": param.what,
        "required": param.required,
        "schema": (param.schema)(),
    })
}

/// Rust's words for the widths of numbers are no formats that others know.
fn without_formats_of_numbers(schema: &mut schemars::Schema) {
    let known = ["date-time", "uuid", "int64", "double"];
    let format = schema.get("format").and_then(Value::as_str);
    if format.is_some_and(|format| !known.contains(&format)) {
        schema.remove("format");
    }
}
