//! Texts that are never shown: not in the log, not in an error, not by `Debug`.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use tokio_postgres::config::Host;

use crate::db::{Parameters, ParametersError};

/// A text that may hold a password. `Debug` shows `***`; there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself. Never hand it to a log line or an error.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Secret(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where the database is and how to log in: a URL `postgres://user:password@host:5432/database` or
/// the key/value form `host=... user=... password=... dbname=...`.
///
/// Shown by `Display` and `Debug` as a URL with `***` for the password, and with the `sslmode` that holds if it is not
/// plaintext on this machine. What is shown is built from the parts that are known not to be secret, never by cutting
/// the password out of the text.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(Parameters);

impl DatabaseUrl {
    /// The parameters of the connection, the password included (their `Debug` hides it).
    pub fn connection(&self) -> &Parameters {
        &self.0
    }
}

impl FromStr for DatabaseUrl {
    type Err = ParametersError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(DatabaseUrl)
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.0.driver();
        f.write_str("postgres://")?;
        if let Some(user) = config.get_user() {
            f.write_str(user)?;
        }
        if config.get_password().is_some() {
            f.write_str(":***")?;
        }
        if config.get_user().is_some() || config.get_password().is_some() {
            f.write_char('@')?;
        }
        for (index, host) in shown_hosts(config).iter().enumerate() {
            let ports = config.get_ports();
            let port = ports.get(index).or(ports.first()).unwrap_or(&5432);
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{host}:{port}")?;
        }
        write!(f, "/{}", config.get_dbname().unwrap_or_default())?;
        match self.0.tls() {
            Some(_) => f.write_str("?sslmode=verify-full"),
            None if self.0.is_local() => Ok(()),
            None => f.write_str("?sslmode=disable"),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn shown_hosts(config: &tokio_postgres::Config) -> Vec<String> {
    let shown = |host: &Host| match host {
        Host::Tcp(name) if name.contains(':') => format!("[{name}]"),
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string().replace('/', "%2F"),
    };
    config.get_hosts().iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed parse is a failed test")]

    use super::*;

    #[test]
    fn the_password_is_masked_the_rest_is_shown() {
        for (text, shown) in [
            (
                "postgres://ann:hunter2@db.example/uptime",
                "postgres://ann:***@db.example:5432/uptime?sslmode=verify-full",
            ),
            (
                "postgresql://ann:hun%40ter2@db.example:6543/uptime?sslmode=require",
                "postgres://ann:***@db.example:6543/uptime?sslmode=verify-full",
            ),
            (
                "postgres://ann@db.example/uptime?password=hunter2",
                "postgres://ann:***@db.example:5432/uptime?sslmode=verify-full",
            ),
            (
                "host=/run/pg user=ann password='hunter2' dbname=uptime port=5433",
                "postgres://ann:***@%2Frun%2Fpg:5433/uptime",
            ),
            ("postgres://[::1]/uptime", "postgres://[::1]:5432/uptime"),
            (
                "host=a,b port=1,2 user=ann sslmode=disable",
                "postgres://ann@a:1,b:2/?sslmode=disable",
            ),
            (
                "hostaddr=::2 sslcert=/crt sslkey=/key",
                "postgres://[::2]:5432/?sslmode=verify-full",
            ),
        ] {
            let url: DatabaseUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
            assert!(!format!("{:?}", url.connection()).contains("hunter2"));
        }
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "***");
    }

    #[test]
    fn what_is_refused_is_not_quoted() {
        for text in [
            "",
            "hunter2",
            "mysql://ann:hunter2@db.example/uptime",
            "postgres:///uptime",
            "postgres://ann:hun@ter2@db.example/uptime",
            "postgres://ann:hun@t/er2@db.example/uptime",
            "host=db.example user=ann password=hun ter2",
            "postgres://ann:hunter2@db.example:port/uptime",
        ] {
            let error = text.parse::<DatabaseUrl>().unwrap_err();
            assert!(!error.to_string().contains("ter2"), "{text}");
        }
    }
}
