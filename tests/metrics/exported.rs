//! What `/metrics` says, read.

use std::collections::{BTreeMap, BTreeSet};

/// All figures of one answer.
pub struct Exported {
    pub families: BTreeMap<String, Family>,
    /// By name and labels, as they are written.
    samples: BTreeMap<String, f64>,
}

/// The series of one name.
#[derive(Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
    /// Each label with its values; without `le`.
    pub labels: BTreeMap<String, BTreeSet<String>>,
}

/// What a histogram's series have behind its name.
pub const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];

impl Exported {
    pub fn read(text: &str) -> Self {
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                help.clone_into(&mut families.entry(name.to_owned()).or_default().help);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                kind.clone_into(&mut families.entry(name.to_owned()).or_default().kind);
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(
                    samples.insert(series.to_owned(), value.parse().unwrap()).is_none(),
                    "twice: {series}"
                );
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                let of = if families.contains_key(name) {
                    name
                } else {
                    family_of(name)
                };
                let family = families.get_mut(of).unwrap_or_else(|| panic!("{name} has no type"));
                for (label, value) in labels_of(labels.trim_end_matches('}')) {
                    if label != "le" {
                        family.labels.entry(label).or_default().insert(value);
                    }
                }
            }
        }
        Exported { families, samples }
    }

    /// The family of a series, and whether the series is a part of a histogram.
    pub fn family(&self, series: &str) -> Option<(&Family, bool)> {
        if let Some(family) = self.families.get(series).filter(|family| family.kind != "histogram") {
            return Some((family, false));
        }
        let name = PARTS.iter().find_map(|part| series.strip_suffix(part))?;
        let family = self.families.get(name).filter(|family| family.kind == "histogram")?;
        Some((family, true))
    }

    /// The value of one series, which must be there.
    pub fn value(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("no {series}"))
    }

    /// The values of all series of a name together.
    pub fn sum(&self, name: &str) -> f64 {
        let of_name = |series: &&String| series.split('{').next() == Some(name);
        self.samples
            .iter()
            .filter(|(series, _)| of_name(series))
            .map(|(_, value)| value)
            .sum()
    }
}

fn family_of(series: &str) -> &str {
    PARTS
        .iter()
        .find_map(|part| series.strip_suffix(part))
        .unwrap_or(series)
}

/// `a="b",c="d"`; values of ours have no quotes in them.
pub fn labels_of(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((label, after)) = rest.split_once("=\"") {
        let (value, after) = after.split_once('"').unwrap();
        found.push((label.trim_matches([',', ' ']).to_owned(), value.to_owned()));
        rest = after;
    }
    found
}
