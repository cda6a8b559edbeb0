//! The `PromQL` of the alert rules and of the dashboard, read far enough to know what it is about.

use std::collections::BTreeSet;

use serde_json::Value;

use super::exported::Exported;
use super::read;

/// Labels that Prometheus itself adds, and the one of buckets.
const ADDED: [&str; 3] = ["job", "instance", "le"];

/// One expression, and texts that show labels of its result.
pub struct Query {
    place: String,
    text: String,
    shown: Vec<String>,
}

/// A series that an expression names.
struct Use {
    series: String,
    /// Label, operator, value.
    matchers: Vec<(String, String, String)>,
    /// The function that it is the argument of; empty if none.
    function: String,
}

pub fn all() -> Vec<Query> {
    let mut found = alerts(&read("config/alerts.yml"));
    let dashboard: Value = serde_json::from_str(&read("config/grafana-dashboard.json")).unwrap();
    panels(&dashboard, "dashboard", &mut found);
    found
}

/// Reads the rules, whose YAML is plain: one key a line, and `>-` for an expression of several lines.
fn alerts(text: &str) -> Vec<Query> {
    let rules = text.split("- alert: ").skip(1);
    let queries: Vec<Query> = rules
        .map(|rule| {
            let name = rule.lines().next().unwrap();
            let (_, expr) = rule.split_once("expr: ").unwrap_or_else(|| panic!("{name}: no expr"));
            let mut lines = expr.lines();
            let first = lines.next().unwrap();
            let text = if first == ">-" {
                let more: Vec<&str> = lines
                    .take_while(|line| line.starts_with("          "))
                    .map(str::trim)
                    .collect();
                more.join(" ")
            } else {
                first.to_owned()
            };
            for key in ["labels: {severity: ", "summary: ", "description: "] {
                assert!(rule.contains(key), "{name}: no {key}");
            }
            let shown = rule.split("$labels.").skip(1).map(identifier).collect();
            let place = format!("alert {name}");
            Query { place, text, shown }
        })
        .collect();
    let names: BTreeSet<&str> = queries.iter().map(|query| query.place.as_str()).collect();
    assert_eq!(names.len(), queries.len(), "a name twice");
    queries
}

fn panels(value: &Value, place: &str, found: &mut Vec<Query>) {
    match value {
        Value::Object(object) => {
            let title = object
                .get("title")
                .or_else(|| object.get("name"))
                .and_then(Value::as_str);
            let place = title.map_or(place.to_owned(), |title| format!("panel {title:?}"));
            let text = object
                .get("expr")
                .or_else(|| object.get("definition"))
                .and_then(Value::as_str);
            if let Some(text) = text {
                let legend = object.get("legendFormat").and_then(Value::as_str).unwrap_or_default();
                found.push(Query {
                    place: place.clone(),
                    text: text.to_owned(),
                    shown: legend.split("{{").skip(1).map(identifier).collect(),
                });
            }
            object.values().for_each(|inner| panels(inner, &place, found));
        }
        Value::Array(list) => list.iter().for_each(|inner| panels(inner, place, found)),
        _ => {}
    }
}

impl Query {
    /// What does not fit what a daemon exports.
    pub fn faults(&self, exported: &Exported) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut labels: BTreeSet<String> = ADDED.iter().map(|&label| label.to_owned()).collect();
        let uses = uses(&self.text);
        if uses.is_empty() {
            wrong.push("names no figure".to_owned());
        }
        for used in &uses {
            let Some((family, is_part)) = exported.family(&used.series) else {
                wrong.push(format!("{} is not exported", used.series));
                continue;
            };
            labels.extend(family.labels.keys().cloned());
            let counts = is_part || family.kind == "counter";
            let rated = ["rate", "increase"].contains(&used.function.as_str());
            if counts != rated {
                wrong.push(format!("{} ({}) in {:?}", used.series, family.kind, used.function));
            }
            for (label, operator, value) in &used.matchers {
                let values = match family.labels.get(label) {
                    Some(values) => values,
                    None if ADDED.contains(&label.as_str()) => continue,
                    None => {
                        wrong.push(format!("{} has no label {label}", used.series));
                        continue;
                    }
                };
                // A status that nobody has been answered with yet is none that is known.
                let open = label == "status" || label == "route";
                for value in value.split('|').filter(|_| operator != "!=" && !open) {
                    if !values.contains(value) {
                        wrong.push(format!("{}: {label} is never {value}", used.series));
                    }
                }
            }
        }
        for label in grouped(&self.text).iter().chain(&self.shown) {
            if !labels.contains(label) {
                wrong.push(format!("no label {label}"));
            }
        }
        wrong
            .iter()
            .map(|what| format!("{}: {what}: {}", self.place, self.text))
            .collect()
    }
}

/// The series that an expression names.
fn uses(text: &str) -> Vec<Use> {
    let mut found = Vec::new();
    for (start, _) in ["uptally_", "process_"]
        .iter()
        .flat_map(|prefix| text.match_indices(prefix))
    {
        let before = &text[..start];
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') || before.matches('"').count() % 2 == 1 {
            continue;
        }
        let series = identifier(&text[start..]);
        let after = &text[start + series.len()..];
        let matchers = after.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let function = before.strip_suffix('(').unwrap_or_default();
        found.push(Use {
            series,
            matchers: matchers.map(|(inside, _)| matchers_of(inside)).unwrap_or_default(),
            function: function
                .rsplit(|c: char| !(c.is_alphanumeric() || c == '_'))
                .next()
                .unwrap()
                .to_owned(),
        });
    }
    found
}

/// `a="b", c=~"d|e"`
fn matchers_of(text: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((head, after)) = rest.split_once('"') {
        let (value, after) = after.split_once('"').unwrap();
        let head = head.trim_matches([',', ' ']);
        let label = identifier(head);
        let operator = head[label.len()..].trim().to_owned();
        found.push((label, operator, value.to_owned()));
        rest = after;
    }
    found
}

/// Labels in `by (...)`, `without (...)` and `on (...)`.
fn grouped(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for word in ["by (", "without (", "on ("] {
        for rest in text.split(word).skip(1) {
            let inside = rest.split(')').next().unwrap();
            found.extend(inside.split(',').map(|label| label.trim().to_owned()));
        }
    }
    found
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn what_is_wrong_in_a_query_is_found() {
    let exported = Exported::read(
        "# HELP uptally_a_total a\n# TYPE uptally_a_total counter\nuptally_a_total{how=\"ok\"} 1\n\
         # HELP uptally_b b\n# TYPE uptally_b gauge\nuptally_b 1\n\
         # HELP uptally_c_seconds c\n# TYPE uptally_c_seconds histogram\nuptally_c_seconds_bucket{le=\"1\"} 1\n\
         uptally_c_seconds_sum 1\nuptally_c_seconds_count 1\n",
    );
    let faults = |text: &str, shown: &[&str]| {
        let query = Query {
            place: "here".to_owned(),
            text: text.to_owned(),
            shown: shown.iter().map(|&label| label.to_owned()).collect(),
        };
        query.faults(&exported).len()
    };
    for right in [
        "sum by (how, job) (rate(uptally_a_total{how=~\"ok\", job=\"x\"}[5m])) > 0 and on (instance) uptally_b == 1",
        "histogram_quantile(0.9, sum by (le) (rate(uptally_c_seconds_bucket[5m])))",
    ] {
        assert_eq!(faults(right, &["instance"]), 0, "{right}");
    }
    for wrong in [
        "1 + 1",
        "uptally_missing",
        "uptally_a_total > 1",
        "rate(uptally_b[5m])",
        "uptally_c_seconds > 1",
        "rate(uptally_a_total{why=\"ok\"}[5m])",
        "rate(uptally_a_total{how=~\"ok|failed\"}[5m])",
        "sum by (why) (uptally_b)",
    ] {
        assert_eq!(faults(wrong, &[]), 1, "{wrong}");
    }
    assert_eq!(faults("uptally_b", &["how"]), 1);
}
