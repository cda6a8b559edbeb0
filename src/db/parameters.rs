//! Connection parameters: what the driver takes, and how the way to the server is secured.
//!
//! The rules are libpq's where that is safe, and stricter where it is not:
//!
//! | `sslmode` | to this machine | to another one |
//! |---|---|---|
//! | not given | plaintext; TLS if a certificate is given | TLS, verified |
//! | `verify-full`, `require` | TLS, verified | TLS, verified |
//! | `disable` | plaintext | plaintext |
//! | `prefer`, `allow` | plaintext | refused: whoever is in between chooses plaintext |
//! | `verify-ca` | refused | refused: it leaves the name unchecked |
//!
//! Verified means: the server's certificate is valid, of a trusted authority, and for the host that was asked for.
//! There is no TLS over a unix socket.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// How to reach a server.
///
/// Invariants: the driver's own `sslmode` says what [`Parameters::tls`] says, and it tries no other way; a host that
/// TLS is spoken with has a name to verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    driver: Config,
    tls: Option<TlsFiles>,
}

/// Which certificates are used. Files are read for each new session, so that they may be renewed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that are trusted, in PEM; None: those of the machine.
    pub roots: Option<PathBuf>,
    /// Our own certificate and its key, in PEM, for servers that ask for one.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// The text gives no connection parameters. Says nothing of the text: any part of it may be a password, and the
/// driver's own message quotes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParametersError {
    /// Neither a URL nor pairs of keys and values, or a parameter that is not known.
    #[error(
        "expected postgres://user:password@host:5432/database or host=... user=... password=... dbname=... \
         (in a URL, characters such as @ and / in a password are written %40 and %2F)"
    )]
    Malformed,
    /// `sslmode` is another word.
    #[error("expected sslmode to be disable, prefer, allow, require or verify-full")]
    Mode,
    /// `sslmode=verify-ca`.
    #[error("expected sslmode=verify-full: verify-ca would accept any server of the same authority")]
    VerifyCa,
    /// `prefer` or `allow` for a server elsewhere.
    #[error(
        "expected sslmode=verify-full for a server on another machine, or disable to send everything in plaintext: \
         prefer and allow would go on in plaintext as soon as somebody in between asks for it"
    )]
    Prefer,
    /// One of the two without the other.
    #[error("expected sslcert and sslkey together")]
    HalfAnIdentity,
    /// TLS is asked for, and one of several hosts cannot speak it.
    #[error("expected either unix sockets or hosts with TLS, found both")]
    Mixed,
}

/// What is said of TLS.
#[derive(Debug, Default)]
struct Said {
    mode: Option<Mode>,
    files: TlsFiles,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    /// `sslrootcert` or a certificate was given, so TLS is meant.
    any_file: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Verify,
}

impl Parameters {
    /// Combines the driver's parameters with what was said of TLS.
    fn new(mut driver: Config, mut said: Said) -> Result<Self, ParametersError> {
        said.files.own = match (said.certificate, said.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(ParametersError::HalfAnIdentity),
        };
        name_addresses(&mut driver);
        let sockets = driver.get_hosts().iter().filter(|host| is_socket(host)).count();
        let only_sockets = driver.get_hostaddrs().is_empty() && sockets == driver.get_hosts().len();
        let verified = match said.mode {
            _ if only_sockets => false,
            Some(Mode::Disable) => false,
            Some(Mode::Verify) => true,
            Some(Mode::Prefer) if is_local(&driver) => false,
            Some(Mode::Prefer) => return Err(ParametersError::Prefer),
            None => said.any_file || !is_local(&driver),
        };
        if verified && sockets > 0 {
            return Err(ParametersError::Mixed);
        }
        driver.ssl_mode(if verified { SslMode::Require } else { SslMode::Disable });
        Ok(Parameters {
            driver,
            tls: verified.then_some(said.files),
        })
    }

    /// What the driver takes, the password included (its `Debug` hides it).
    pub fn driver(&self) -> &Config {
        &self.driver
    }

    /// The certificates, if TLS is spoken; None: plaintext.
    pub fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    /// Whether nothing can leave this machine.
    pub fn is_local(&self) -> bool {
        is_local(&self.driver)
    }

    /// The hosts with their ports and how they are spoken with, for an error or the log.
    pub fn place(&self) -> impl fmt::Display + '_ {
        Place(self)
    }
}

/// A private Postgres, and others that are reached by a unix socket or at this machine. Elsewhere it means TLS.
impl From<&Config> for Parameters {
    fn from(driver: &Config) -> Self {
        let mut driver = driver.clone();
        name_addresses(&mut driver);
        let verified = !is_local(&driver);
        driver.ssl_mode(if verified { SslMode::Require } else { SslMode::Disable });
        Parameters {
            driver,
            tls: verified.then(TlsFiles::default),
        }
    }
}

impl FromStr for Parameters {
    type Err = ParametersError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The driver ends the password at the first @, so that the rest of a password with an @ in
        // it would be taken for the host, and shown.
        if text.contains("://") && text.matches('@').count() > 1 {
            return Err(ParametersError::Malformed);
        }
        let mut said = Said::default();
        let rest = if text.contains("://") {
            said.take_from_url(text)?
        } else {
            said.take_from_pairs(text)?
        };
        let driver: Config = rest.parse().map_err(|_| ParametersError::Malformed)?;
        if driver.get_hosts().is_empty() && driver.get_hostaddrs().is_empty() {
            return Err(ParametersError::Malformed);
        }
        Parameters::new(driver, said)
    }
}

impl Said {
    /// Takes a parameter that is about TLS; false: it is the driver's.
    fn take(&mut self, key: &str, value: &str) -> Result<bool, ParametersError> {
        match key {
            "sslmode" => {
                self.mode = Some(match value {
                    "disable" => Mode::Disable,
                    "prefer" | "allow" => Mode::Prefer,
                    "require" | "verify-full" => Mode::Verify,
                    "verify-ca" => return Err(ParametersError::VerifyCa),
                    _ => return Err(ParametersError::Mode),
                });
                return Ok(true);
            }
            "sslrootcert" => self.files.roots = (value != "system").then(|| PathBuf::from(value)),
            "sslcert" => self.certificate = Some(PathBuf::from(value)),
            "sslkey" => self.key = Some(PathBuf::from(value)),
            _ => return Ok(false),
        }
        self.any_file = true;
        Ok(true)
    }

    /// Takes its parameters out of a URL.
    fn take_from_url(&mut self, text: &str) -> Result<String, ParametersError> {
        // A question mark before the @ belongs to the password.
        let (login, place) = text.split_once('@').map_or(("", text), |(login, place)| (login, place));
        let Some((place, query)) = place.split_once('?') else {
            return Ok(text.to_owned());
        };
        let mut kept: Vec<&str> = Vec::new();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').ok_or(ParametersError::Malformed)?;
            if !self.take(&decoded(key)?, &decoded(value)?)? {
                kept.push(pair);
            }
        }
        let at = if login.is_empty() { "" } else { "@" };
        let mark = if kept.is_empty() { "" } else { "?" };
        Ok(format!("{login}{at}{place}{mark}{}", kept.join("&")))
    }

    /// Takes its parameters out of `key=value` pairs.
    fn take_from_pairs(&mut self, text: &str) -> Result<String, ParametersError> {
        let mut kept = String::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (key, value, after) = pair(rest).ok_or(ParametersError::Malformed)?;
            if !self.take(key, &value)? {
                kept.push_str(rest.strip_suffix(after).unwrap_or(rest));
                kept.push(' ');
            }
            rest = after.trim_start();
        }
        Ok(kept)
    }
}

/// The first `key = value` of a text, the value unquoted, and what comes after it. Quotes and backslashes as libpq
/// has them.
fn pair(text: &str) -> Option<(&str, String, &str)> {
    let (key, _) = text.split_once(|c: char| c == '=' || c.is_whitespace())?;
    let after = text.strip_prefix(key)?.trim_start().strip_prefix('=')?.trim_start();
    let (quoted, body) = after.strip_prefix('\'').map_or((false, after), |body| (true, body));
    let mut value = String::new();
    let mut rest = body.chars();
    loop {
        let before = rest.as_str();
        match rest.next() {
            None if quoted => return None,
            None => break,
            Some('\'') if quoted => break,
            Some(char) if !quoted && char.is_whitespace() => return Some((key, value, before)),
            Some('\\') => value.extend(rest.next()),
            Some(char) => value.push(char),
        }
    }
    Some((key, value, rest.as_str()))
}

fn decoded(text: &str) -> Result<String, ParametersError> {
    let decoded = percent_decode_str(text).decode_utf8();
    Ok(decoded.map_err(|_| ParametersError::Malformed)?.into_owned())
}

/// Where there are addresses only, they are the names to verify, as libpq has it.
fn name_addresses(driver: &mut Config) {
    if driver.get_hosts().is_empty() {
        for address in driver.get_hostaddrs().to_vec() {
            driver.host(address.to_string());
        }
    }
}

/// Whether nothing can leave this machine. Where the driver has addresses, those decide, not the names.
fn is_local(driver: &Config) -> bool {
    if driver.get_hostaddrs().is_empty() {
        return driver.get_hosts().iter().all(|host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => {
                name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            }
        });
    }
    driver.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

fn is_socket(host: &Host) -> bool {
    matches!(host, Host::Unix(_))
}

struct Place<'a>(&'a Parameters);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let driver = &self.0.driver;
        for (index, host) in driver.get_hosts().iter().enumerate() {
            let ports = driver.get_ports();
            let port = ports.get(index).or(ports.first()).unwrap_or(&5432);
            f.write_str(if index > 0 { ", " } else { "" })?;
            match host {
                Host::Tcp(name) if name.contains(':') => write!(f, "[{name}]:{port}")?,
                Host::Tcp(name) => write!(f, "{name}:{port}")?,
                Host::Unix(path) => write!(f, "{}:{port}", path.display())?,
            }
            if let Some(address) = driver.get_hostaddrs().get(index) {
                write!(f, " ({address})")?;
            }
        }
        match self.0.tls {
            Some(_) => f.write_str(" with sslmode=verify-full"),
            None if is_local(driver) => Ok(()),
            None => f.write_str(" with sslmode=disable"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed parse is a failed test")]

    use super::*;

    fn read(text: &str) -> Result<Parameters, ParametersError> {
        text.parse()
    }

    #[test]
    fn a_server_elsewhere_is_verified_unless_plaintext_is_asked_for() {
        for text in [
            "postgres://ann:pw@db.example/uptime",
            "postgresql://ann:pw@db.example/uptime?sslmode=verify-full",
            "postgres://db.example/uptime?sslmode=require",
            "postgres://db.example/uptime?ssl%6Dode=verify%2Dfull&application_name=a%26b",
            "host=db.example user=ann",
            "host=db.example sslmode=require user=ann",
            "host = db.example  sslmode = 'verify-full'",
            "hostaddr=10.0.0.5",
            // The address decides, not the name.
            "host=localhost hostaddr=10.0.0.5",
            "postgres://localhost/uptime?hostaddr=10.0.0.5",
            // Names that only look like this machine.
            "host=127.0.0.1.example",
            "host=127.evil.example",
            "host=localhost.example",
            "host=localhost,db.example",
            "host=::2",
        ] {
            let parameters = read(text).unwrap();
            assert_eq!(parameters.tls(), Some(&TlsFiles::default()), "{text}");
            assert_eq!(parameters.driver().get_ssl_mode(), SslMode::Require, "{text}");
        }
        for text in [
            "postgres://ann:pw@db.example/uptime?sslmode=disable",
            "host=db.example sslmode=disable",
            "hostaddr=10.0.0.5 sslmode=disable",
        ] {
            assert_eq!(read(text).unwrap().tls(), None, "{text}");
        }
    }

    #[test]
    fn this_machine_is_plaintext_unless_tls_is_asked_for() {
        for text in [
            "host=/run/postgresql",
            "host=/run/postgresql sslmode=verify-full",
            "postgres://%2Frun%2Fpostgresql/uptime?sslmode=require",
            "postgres://localhost/uptime",
            "postgres://LOCALHOST/uptime?sslmode=prefer",
            "host=127.0.0.2 sslmode=allow",
            "postgres://[::1]/uptime",
            "host=db.example hostaddr=127.0.0.1",
        ] {
            let parameters = read(text).unwrap();
            assert_eq!(parameters.tls(), None, "{text}");
            assert_eq!(parameters.driver().get_ssl_mode(), SslMode::Disable, "{text}");
        }
        for text in [
            "postgres://localhost/uptime?sslmode=verify-full",
            "host=localhost sslmode=require",
            "host=localhost sslrootcert=system",
        ] {
            assert_eq!(read(text).unwrap().tls(), Some(&TlsFiles::default()), "{text}");
        }
    }

    #[test]
    fn certificates_are_read_in_both_forms() {
        let roots = |path: &str| TlsFiles {
            roots: Some(path.into()),
            own: None,
        };
        let own = TlsFiles {
            roots: Some("/etc/ca".into()),
            own: Some(("/etc/crt".into(), "/etc/key".into())),
        };
        for (text, expected) in [
            ("postgres://h/d?sslrootcert=/etc/ca%20s.pem", roots("/etc/ca s.pem")),
            ("postgres://a:p?w@h/d?sslrootcert=/etc/ca", roots("/etc/ca")),
            (r"host=h sslrootcert='/etc/it\'s ca' user=a", roots("/etc/it's ca")),
            ("host=localhost sslrootcert=/etc/ca", roots("/etc/ca")),
            (
                "postgres://h/d?sslcert=/etc/crt&sslrootcert=/etc/ca&sslkey=/etc/key",
                own,
            ),
        ] {
            assert_eq!(read(text).unwrap().tls(), Some(&expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_about_tls_goes_on_to_the_driver() {
        let parameters =
            read("postgres://ann:p?w%40@db.example:6543/uptime?sslmode=require&options=-c%20a%3Db").unwrap();
        let driver = parameters.driver();
        assert_eq!(driver.get_user(), Some("ann"));
        assert_eq!(driver.get_password(), Some(b"p?w@".as_slice()));
        assert_eq!(driver.get_ports(), [6543]);
        assert_eq!(driver.get_dbname(), Some("uptime"));
        assert_eq!(driver.get_options(), Some("-c a=b"));
        let parameters = read(r"user=ann sslmode=require password='p\'w x' host=db.example options='-c a=b'").unwrap();
        assert_eq!(parameters.driver().get_password(), Some(b"p'w x".as_slice()));
        assert_eq!(parameters.driver().get_options(), Some("-c a=b"));
    }

    #[test]
    fn unsafe_and_unclear_wishes_are_refused() {
        use ParametersError::{HalfAnIdentity, Malformed, Mixed, Mode, Prefer, VerifyCa};
        for (text, expected) in [
            ("postgres://db.example/d?sslmode=prefer", Prefer),
            ("host=db.example sslmode=allow", Prefer),
            ("host=localhost hostaddr=10.0.0.5 sslmode=prefer", Prefer),
            ("host=localhost,db.example sslmode=prefer", Prefer),
            ("postgres://db.example/d?sslmode=verify-ca", VerifyCa),
            ("postgres://localhost/d?sslmode=verify-ca", VerifyCa),
            ("postgres://db.example/d?sslmode=Verify-Full", Mode),
            ("postgres://db.example/d?sslmode=", Mode),
            ("host=db.example sslcert=/etc/crt", HalfAnIdentity),
            ("host=db.example sslkey=/etc/key", HalfAnIdentity),
            ("host=/run/pg,db.example", Mixed),
            ("postgres://db.example/d?sslmode", Malformed),
            ("postgres://db.example/d?sslcompression=1", Malformed),
            ("host=db.example sslmode='verify-full", Malformed),
            ("host=db.example sslmode", Malformed),
        ] {
            assert_eq!(read(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn the_place_says_how_the_server_is_spoken_with() {
        for (text, expected) in [
            (
                "postgres://ann:pw@db.example/d",
                "db.example:5432 with sslmode=verify-full",
            ),
            (
                "host=db.example port=1 sslmode=disable",
                "db.example:1 with sslmode=disable",
            ),
            (
                "host=localhost hostaddr=10.0.0.5",
                "localhost:5432 (10.0.0.5) with sslmode=verify-full",
            ),
            ("host=/run/pg", "/run/pg:5432"),
            ("host=::1,127.0.0.1", "[::1]:5432, 127.0.0.1:5432"),
        ] {
            assert_eq!(read(text).unwrap().place().to_string(), expected);
        }
    }
}
