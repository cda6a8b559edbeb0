//! What a report is asked for with.

use std::fmt;
use std::str::FromStr;

use crate::time::{ParseTimestampError, Timestamp};
use crate::window::{ClosedTime, DateRange, ParseChoiceError, Windows};

/// The options of one report. The default is `now`, `calendar`, `uptime`, a CSV of the default columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportRequest {
    /// The instant that the windows count back from.
    pub as_of: AsOf,
    /// Calendar or rolling windows.
    pub windows: Windows,
    /// What closed time counts as.
    pub closed: ClosedTime,
    /// What kind of file it is.
    pub format: Format,
    /// Which columns it has.
    pub columns: Columns,
    /// These days in place of the windows.
    pub days: Option<DateRange>,
}

/// The kind of a report's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// A header and a row for each store.
    #[default]
    Csv,
    /// A list of objects, one for each store and one a line.
    Json,
}

/// The columns of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Columns {
    /// Uptime and downtime.
    #[default]
    Default,
    /// And how well the store was observed.
    Extended,
}

impl Format {
    /// The word in queries and tables; what the file's name ends in.
    pub const fn as_str(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Json => "json",
        }
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Format::Csv => "text/csv; charset=utf-8",
            Format::Json => "application/json",
        }
    }
}

impl FromStr for Format {
    type Err = ParseChoiceError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "csv" => Ok(Format::Csv),
            "json" => Ok(Format::Json),
            _ => Err(ParseChoiceError("csv or json")),
        }
    }
}

impl Columns {
    /// The word in queries and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Columns::Default => "default",
            Columns::Extended => "extended",
        }
    }
}

impl FromStr for Columns {
    type Err = ParseChoiceError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "default" => Ok(Columns::Default),
            "extended" => Ok(Columns::Extended),
            _ => Err(ParseChoiceError("default or extended")),
        }
    }
}

/// The instant of a report, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AsOf {
    /// The database's clock at the trigger.
    #[default]
    Now,
    /// The newest observation when the report runs: for data sets that stand still.
    Latest,
    /// A given instant.
    At(Timestamp),
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AsOf::Now => f.write_str("now"),
            AsOf::Latest => f.write_str("latest"),
            AsOf::At(at) => at.fmt(f),
        }
    }
}

/// Why a text is not an [`AsOf`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseAsOfError {
    /// Neither a word that is known nor an instant.
    #[error("expected now, latest or an RFC 3339 instant such as 2023-01-25T09:03:00Z")]
    Form,
    /// An instant that no table accepts.
    #[error(transparent)]
    Range(ParseTimestampError),
}

impl FromStr for AsOf {
    type Err = ParseAsOfError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "now" => Ok(AsOf::Now),
            "latest" => Ok(AsOf::Latest),
            at => match at.parse() {
                Ok(at) => Ok(AsOf::At(at)),
                Err(ParseTimestampError::Form) => Err(ParseAsOfError::Form),
                Err(range @ ParseTimestampError::Range) => Err(ParseAsOfError::Range(range)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_as_of_is_a_word_or_an_instant() {
        let at = Timestamp::from_micros(1_674_637_380_000_000);
        for (text, expected) in [
            ("now", AsOf::Now),
            ("latest", AsOf::Latest),
            ("2023-01-25T09:03:00Z", AsOf::At(at)),
        ] {
            assert_eq!(text.parse(), Ok(expected));
            assert_eq!(expected.to_string(), text);
        }
        assert_eq!("2023-01-25T10:03:00+01:00".parse(), Ok(AsOf::At(at)));
        for text in ["", "Now", "yesterday", "2023-01-25"] {
            assert_eq!(text.parse::<AsOf>(), Err(ParseAsOfError::Form), "{text:?}");
        }
        assert_eq!(
            "1970-01-01T00:00:00Z".parse::<AsOf>(),
            Err(ParseAsOfError::Range(ParseTimestampError::Range))
        );
    }
}
