//! Settings that are one of a few words.

use std::str::FromStr;

pub use crate::report::AsOf;
pub use crate::window::{ClosedTime, Windows};

/// The text is none of the words; says which they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseWordError(&'static str);

pub use crate::feed::doorbell::Wake;

impl FromStr for Wake {
    type Err = ParseWordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "notify" => Ok(Wake::Notify),
            "poll" => Ok(Wake::Poll),
            _ => Err(ParseWordError("expected notify or poll")),
        }
    }
}

pub use crate::daemon::Standby;

impl FromStr for Standby {
    type Err = ParseWordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "wait" => Ok(Standby::Wait),
            "refuse" => Ok(Standby::Refuse),
            _ => Err(ParseWordError("expected wait or refuse")),
        }
    }
}

/// The form of log lines (`log.format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

impl FromStr for LogFormat {
    type Err = ParseWordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(ParseWordError("expected text or json")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed parse is a failed test")]

    use super::*;

    #[test]
    fn every_word_reads_and_nothing_else_does() {
        fn check<T: FromStr<Err: std::fmt::Display>>(words: [&str; 2]) {
            for word in words {
                assert!(word.parse::<T>().is_ok(), "{word}");
                let error = word.to_uppercase().parse::<T>().err().unwrap();
                assert!(error.to_string().contains(word), "{error}");
            }
        }
        check::<Wake>(["notify", "poll"]);
        check::<Standby>(["wait", "refuse"]);
        check::<LogFormat>(["text", "json"]);
        check::<Windows>(["calendar", "rolling"]);
        check::<ClosedTime>(["uptime", "excluded"]);
    }

    #[test]
    fn as_of_reads_what_it_shows() {
        for text in ["now", "latest", "2023-01-25T18:13:22Z"] {
            assert_eq!(text.parse::<AsOf>().unwrap().to_string(), text);
        }
        for text in ["", "Now", "2023-01-25", "1999-01-01T00:00:00Z"] {
            assert!(text.parse::<AsOf>().is_err(), "{text}");
        }
    }
}
