//! The identity of a store, and whether it could be reached.
//!
//! A *store* is a shop; where data is kept is never called a store in this project.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;

/// Longest store id in bytes. The real ids are 64-bit integers and UUIDs; the limit keeps an index
/// row far below Postgres's own (2,704 bytes) and a hostile id out of every log line.
pub const STORE_ID_BYTES_MAX: usize = 200;

/// What stands for every store in the column `store_id` of `store_closures`, and there only.
pub const EVERY_STORE: &str = "*";

/// Checks a store id: 1 to [`STORE_ID_BYTES_MAX`] bytes of text without control characters. The
/// CHECK constraints of the tables say the same.
///
/// # Errors
/// [`StoreIdError`] says which of the rules is broken.
pub fn check_store_id(id: &str) -> Result<(), StoreIdError> {
    if id.is_empty() {
        Err(StoreIdError::Empty)
    } else if id.len() > STORE_ID_BYTES_MAX {
        Err(StoreIdError::TooLong(id.len()))
    } else if id.chars().any(char::is_control) {
        Err(StoreIdError::Control)
    } else {
        Ok(())
    }
}

/// Why a text is not a store id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreIdError {
    /// No text at all.
    #[error("expected a store id, found nothing")]
    Empty,
    /// Longer than [`STORE_ID_BYTES_MAX`]; holds the length in bytes.
    #[error("expected a store id of at most {STORE_ID_BYTES_MAX} bytes, found {0}")]
    TooLong(usize),
    /// A NUL, newline or other control character.
    #[error("expected a store id without control characters")]
    Control,
}

/// What a poll found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The store could be reached.
    Active,
    /// The store could not be reached.
    Inactive,
}

impl Status {
    /// The word in CSV files and in the table `store_activity`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::Inactive => "inactive",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The status word is not one that the model knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected active or inactive")]
pub struct ParseStatusError;

impl FromStr for Status {
    type Err = ParseStatusError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "active" => Ok(Status::Active),
            "inactive" => Ok(Status::Inactive),
            _ => Err(ParseStatusError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_printable_text() {
        for id in [
            "1481966498820158979",
            "00017c6a-7a77-4a95-bb2d-40647868aff6",
            "=cmd|x",
            "Café 🍰",
        ] {
            assert_eq!(check_store_id(id), Ok(()), "{id}");
        }
        assert_eq!(check_store_id(""), Err(StoreIdError::Empty));
        assert_eq!(check_store_id("a\0b"), Err(StoreIdError::Control));
        assert_eq!(check_store_id("a\nb"), Err(StoreIdError::Control));
        let long = "x".repeat(1 << 20);
        assert_eq!(check_store_id(&long), Err(StoreIdError::TooLong(1 << 20)));
    }

    #[test]
    fn a_status_is_one_of_two_words() {
        assert_eq!("active".parse(), Ok(Status::Active));
        assert_eq!("inactive".parse(), Ok(Status::Inactive));
        for word in ["", "Active", "up", "active "] {
            assert_eq!(word.parse::<Status>(), Err(ParseStatusError), "{word:?}");
        }
    }
}
