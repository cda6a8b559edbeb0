//! Every key that there is, with its default. Units are the last word of a key's name.
//!
//! Invariant: `config/uptally.toml` shows the same keys, defaults and ranges (a test compares them).

use KeyKind::{Integer, Optional, Text};

/// The keys, in the order in which they are shown.
pub(super) const KEYS: &[Key] = &[
    Key::new("database.url", Optional).secret(),
    Key::new("database.url_file", Optional),
    Key::new("database.connect_timeout_ms", integer(5_000, 100, 600_000)),
    Key::new("database.statement_timeout_ms", integer(30_000, 100, 86_400_000)),
    Key::new("state.dir", Optional),
    Key::new("http.listen", Text("127.0.0.1:8080")),
    Key::new("http.read_tokens", Optional).masked(),
    Key::new("http.read_tokens_file", Optional),
    Key::new("http.trigger_tokens", Optional).masked(),
    Key::new("http.trigger_tokens_file", Optional),
    Key::new("http.write_tokens", Optional).masked(),
    Key::new("http.write_tokens_file", Optional),
    Key::new("http.hosts", Optional),
    Key::new("http.header_timeout_ms", integer(10_000, 100, 600_000)),
    Key::new("http.connections_max", integer(256, 1, 65_536)),
    Key::new("http.subscribers_max", integer(64, 1, 65_536)),
    Key::new("http.drain_timeout_ms", integer(6_000, 0, 600_000)),
    Key::new("activity.body_bytes_max", integer(10_000_000, 1_000, 100_000_000)),
    Key::new("activity.rows_max", integer(100_000, 1, 1_000_000)),
    Key::new("fleet.silent_after_ms", integer(7_200_000, 1_000, 31_536_000_000)),
    Key::new("report.as_of", Text("now")),
    Key::new("report.windows", Text("calendar")),
    Key::new("report.closed", Text("uptime")),
    // A URL with a password in it is refused, and then not shown either.
    Key::new("report.output_url", Text("csvs")).secret(),
    Key::new("report.running_max", integer(1, 1, 64)),
    Key::new("report.queue_max", integer(16, 1, 10_000)),
    Key::new("jobs.reports", Optional),
    Key::new("jobs.grace_ms", integer(86_400_000, 60_000, 31_536_000_000)),
    Key::new("jobs.keep_max", integer(100, 1, 1_000_000)),
    Key::new("jobs.keep_days", integer(400, 1, 36_500)),
    Key::new("feed.wake", Text("notify")),
    Key::new("feed.poll_interval_ms", integer(1_000, 10, 60_000)),
    Key::new("feed.awake_interval_ms", integer(2, 1, 1_000)),
    Key::new("feed.awake_for_ms", integer(250, 0, 60_000)),
    Key::new("feed.standby", Text("wait")),
    Key::new("feed.check_interval_ms", integer(10_000, 100, 60_000)),
    Key::new("feed.batch_rows_max", integer(4_000_000, 1_000, 100_000_000)),
    Key::new("rollup.flush_interval_ms", integer(1_000, 10, 60_000)),
    // The calendar week before last midnight reaches back 14 days, the zones add one on each side.
    Key::new("rollup.retention_days", integer(400, 16, 36_500)),
    Key::new("rollup.lag_ready_ms_max", integer(5_000, 10, 3_600_000)),
    Key::new("audit.interval_ms", integer(10_000, 0, 3_600_000)),
    Key::new("log.format", Text("text")),
    Key::new("log.filter", Text("info")),
];

/// One key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// `section.name`.
    pub(super) name: &'static str,
    pub(super) kind: KeyKind,
    /// Errors do not quote the value.
    pub(super) secret: bool,
    /// The value is shown nowhere.
    pub(super) masked: bool,
}

/// What a key holds, and its default.
#[derive(Debug, Clone, Copy)]
pub(super) enum KeyKind {
    /// A whole number from `min` to `max`, both included.
    Integer { default: i64, min: i64, max: i64 },
    /// A text; the reader of the key checks what it says.
    Text(&'static str),
    /// A text that may be absent, and is by default.
    Optional,
}

impl Key {
    const fn new(name: &'static str, kind: KeyKind) -> Self {
        Key {
            name,
            kind,
            secret: false,
            masked: false,
        }
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    const fn masked(mut self) -> Self {
        self.masked = true;
        self.secret()
    }

    /// The key called `name`.
    pub(super) fn find(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The key whose name takes the fewest edits to reach from `name`.
    pub(super) fn nearest(name: &str) -> &'static str {
        KEYS.iter()
            .map(|key| key.name)
            .min_by_key(|known| edits(name, known))
            .unwrap_or_default()
    }
}

const fn integer(default: i64, min: i64, max: i64) -> KeyKind {
    Integer { default, min, max }
}

/// Levenshtein distance in characters. Row by row: `costs[j]` is the distance between the part of
/// `from` read so far and the first `j` characters of `to`.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut costs: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut above_left = i;
        let mut left = i + 1;
        for (cost, b) in costs.iter_mut().skip(1).zip(&to) {
            let above = *cost;
            left = (above_left + usize::from(a != *b)).min(left + 1).min(above + 1);
            *cost = left;
            above_left = above;
        }
        if let Some(first) = costs.first_mut() {
            *first = i + 1;
        }
    }
    costs.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (from, to, count) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("listn", "listen", 1),
        ] {
            assert_eq!(edits(from, to), count, "{from} {to}");
        }
    }

    #[test]
    fn the_nearest_key_is_found() {
        assert_eq!(Key::nearest("http.listn"), "http.listen");
        assert_eq!(Key::nearest("http.header_timeout"), "http.header_timeout_ms");
        assert_eq!(Key::nearest("listen"), "http.listen");
    }

    #[test]
    fn names_are_unique_and_numbers_carry_their_unit() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(!KEYS[..index].iter().any(|other| other.name == key.name));
            if let Integer { default, min, max } = key.kind {
                assert!((min..=max).contains(&default), "{}", key.name);
                assert!(
                    ["_ms", "_max", "_days"].iter().any(|unit| key.name.ends_with(unit)),
                    "{}",
                    key.name
                );
            }
        }
    }
}
