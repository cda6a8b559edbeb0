//! Where the follower is in the change stream: a snapshot of the database's transactions.

use std::fmt;
use std::str::FromStr;

/// A `pg_snapshot`: which transactions are visible at a point.
///
/// Transactions before `xmin` are; those from `xmax` on are not; of those between, all but `running`.
/// A sequence number cannot say this: transactions do not commit in the order in which they take
/// their numbers, so a cursor of the kind `id > last` loses rows.
///
/// Invariant: `xmin <= xmax`; `running` ascends within `xmin..xmax`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    xmin: u64,
    xmax: u64,
    running: Vec<u64>,
}

impl Cursor {
    /// All transactions before this one are visible.
    pub fn xmin(&self) -> u64 {
        self.xmin
    }

    /// No transaction from this one on is visible.
    pub fn xmax(&self) -> u64 {
        self.xmax
    }

    /// The transactions between that were running, and so are not visible.
    pub fn running(&self) -> &[u64] {
        &self.running
    }

    /// Whether a transaction that has committed by now is new since this point.
    pub fn is_new(&self, xid: u64) -> bool {
        xid >= self.xmax || self.running.binary_search(&xid).is_ok()
    }
}

/// The text form of `pg_snapshot`: `xmin:xmax:running,running`.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (i, xid) in self.running.iter().enumerate() {
            write!(f, "{}{xid}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The text is not a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a snapshot as xmin:xmax:running,…")]
pub struct ParseCursorError;

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if digits {
                text.parse().map_err(|_| ParseCursorError)
            } else {
                Err(ParseCursorError)
            }
        };
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().ok_or(ParseCursorError);
        let (xmin, xmax, running) = (number(part()?)?, number(part()?)?, part()?);
        let running: Vec<u64> = match running {
            "" => Vec::new(),
            list => list.split(',').map(number).collect::<Result<_, _>>()?,
        };
        let ascends = running.is_sorted_by(|a, b| a < b);
        let within = running.iter().all(|xid| (xmin..xmax).contains(xid));
        if xmin <= xmax && ascends && within {
            Ok(Cursor { xmin, xmax, running })
        } else {
            Err(ParseCursorError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_reads_back() {
        for text in ["10:10:", "10:20:10,14,15", "795:812:795"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "10",
            "10:20",
            "20:10:",
            "10:20:9",
            "10:20:20",
            "10:20:15,14",
            "10:20:,",
            "a:b:",
            "+1:2:",
            "1:2:1:",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(ParseCursorError), "{text}");
        }
    }

    #[test]
    fn new_is_what_was_running_or_came_later() {
        let cursor: Cursor = "10:20:10,14".parse().unwrap();
        for (xid, new) in [(9, false), (10, true), (13, false), (14, true), (19, false), (20, true)] {
            assert_eq!(cursor.is_new(xid), new, "{xid}");
        }
    }
}
