//! The windows that a report sums over, and what it does with closed time.

use std::fmt;
use std::str::FromStr;

/// Which hour, day and week a report's columns cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Windows {
    /// The last full clock hour, the local calendar day before, the local Monday-to-Sunday week before.
    #[default]
    Calendar,
    /// The last 1, 24 and 168 complete clock hours.
    Rolling,
}

impl Windows {
    /// The word in queries, options and the table `reports`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Windows::Calendar => "calendar",
            Windows::Rolling => "rolling",
        }
    }
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is not the name of a kind of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected calendar or rolling")]
pub struct ParseWindowsError;

impl FromStr for Windows {
    type Err = ParseWindowsError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "calendar" => Ok(Windows::Calendar),
            "rolling" => Ok(Windows::Rolling),
            _ => Err(ParseWindowsError),
        }
    }
}

/// What a report's uptime columns count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ClosedTime {
    /// Closed time counts as uptime: the window's length minus downtime.
    #[default]
    Uptime,
    /// Closed time counts as nothing: only active time inside opening hours.
    Excluded,
}

impl ClosedTime {
    /// The word in queries, options and the table `reports`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ClosedTime::Uptime => "uptime",
            ClosedTime::Excluded => "excluded",
        }
    }
}

impl fmt::Display for ClosedTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word does not say what to do with closed time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected uptime or excluded")]
pub struct ParseClosedTimeError;

impl FromStr for ClosedTime {
    type Err = ParseClosedTimeError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "uptime" => Ok(ClosedTime::Uptime),
            "excluded" => Ok(ClosedTime::Excluded),
            _ => Err(ParseClosedTimeError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for windows in [Windows::Calendar, Windows::Rolling] {
            assert_eq!(windows.to_string().parse(), Ok(windows));
        }
        for closed in [ClosedTime::Uptime, ClosedTime::Excluded] {
            assert_eq!(closed.to_string().parse(), Ok(closed));
        }
        assert_eq!("Calendar".parse::<Windows>(), Err(ParseWindowsError));
        assert_eq!("".parse::<ClosedTime>(), Err(ParseClosedTimeError));
    }
}
