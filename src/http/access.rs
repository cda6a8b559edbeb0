//! Who is let in.
//!
//! With tokens, whoever sends one as `Authorization: Bearer ...` may do what its scope allows. Without tokens there is
//! no login, so the server listens on loopback only; what is kept out then are pages in a browser on this machine:
//! one that reaches us under a name of its own (DNS rebinding), and one that sends us a form from elsewhere.
//!
//! | request | without tokens | with tokens |
//! |---|---|---|
//! | `/healthz`, `/readyz` | anybody on this machine | anybody; the reason for not being ready only with a token |
//! | `/get_report`, `/metrics`, any other path | the same | scope read or trigger |
//! | `/trigger_report` | the same | scope trigger |

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::problem::Problem;

/// Characters of a token at least. 32 of base64 are 192 bits; even 32 hexadecimal digits are 128.
pub const TOKEN_CHARS_MIN: usize = 32;

/// What a token allows. A later scope includes the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    /// Reports and metrics.
    Read,
    /// Reports, metrics, and triggering.
    Trigger,
}

/// A bearer token. Only its SHA-256 is kept, so that neither a log line nor a core file shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token([u8; 32]);

/// The text cannot be a token. Says nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected tokens of at least {TOKEN_CHARS_MIN} letters, digits and signs, without spaces (openssl rand -hex 32 makes one)"
)]
pub struct ParseTokenError;

impl FromStr for Token {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() < TOKEN_CHARS_MIN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ParseTokenError);
        }
        Ok(Token::digest(text.as_bytes()))
    }
}

impl Token {
    fn digest(text: &[u8]) -> Self {
        Token(Sha256::digest(text).into())
    }

    /// Whether it is one of `tokens`. Takes the same time whichever it is, or none.
    fn is_among(&self, tokens: &[Token]) -> Choice {
        let none = Choice::from(0);
        tokens.iter().fold(none, |found, token| found | token.0.ct_eq(&self.0))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The tokens of each scope. Several of one scope let an old and a new one hold while clients change over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    /// They allow to read reports and metrics.
    pub read: Vec<Token>,
    /// They allow that, and to trigger reports.
    pub trigger: Vec<Token>,
}

/// The address is one that others reach, and there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "http.listen is {0}, which other machines may reach, and there is no token: set http.trigger_tokens_file or \
     http.read_tokens_file (or UPTALLY__HTTP__TRIGGER_TOKENS), or listen on 127.0.0.1"
)]
pub struct OpenToAll(SocketAddr);

/// The rule by which requests are let in. Cheap to clone.
///
/// Invariant: without tokens only for a loopback address; there is no other way to make one.
#[derive(Debug, Clone)]
pub struct Access(Arc<Gate>);

#[derive(Debug)]
enum Gate {
    Tokens(Tokens),
    /// Names, beside `localhost` and addresses, that we may be called by.
    Loopback(Vec<String>),
}

/// Who asks, for the routes: known by a token or because there is no login.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) known: bool,
}

impl Access {
    /// The rule for a server on `listen`. `hosts` are the names that a browser or a reverse proxy may call it by on
    /// loopback, beside `localhost` and any address.
    pub fn new(listen: SocketAddr, tokens: Tokens, hosts: Vec<String>) -> Result<Self, OpenToAll> {
        if tokens != Tokens::default() {
            return Ok(Access(Arc::new(Gate::Tokens(tokens))));
        }
        if !listen.ip().to_canonical().is_loopback() {
            return Err(OpenToAll(listen));
        }
        Ok(Access(Arc::new(Gate::Loopback(hosts))))
    }

    fn admit(&self, request: &Request) -> Result<Caller, Problem> {
        let host = host(request)?;
        match &*self.0 {
            Gate::Tokens(tokens) => by_token(tokens, request),
            Gate::Loopback(hosts) => {
                let called = [request.uri().authority().map(Authority::as_str), host];
                if !called.into_iter().flatten().all(|name| is_ours(name, hosts)) {
                    return Err(misdirected());
                }
                if let Some(origin) = request.headers().get(header::ORIGIN) {
                    same_origin(origin, host, hosts)?;
                }
                Ok(Caller { known: true })
            }
        }
    }
}

/// Lets a request through to its route, or answers it.
pub(super) async fn admit(State(access): State<Access>, mut request: Request, next: Next) -> Response {
    match access.admit(&request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// The scope that a path needs; none for those that anybody may ask. The paths are those of the routes, byte by byte:
/// what is spelt otherwise reaches no route.
fn needed(path: &str) -> Option<Scope> {
    match path {
        "/healthz" | "/readyz" => None,
        "/trigger_report" => Some(Scope::Trigger),
        _ => Some(Scope::Read),
    }
}

fn by_token(tokens: &Tokens, request: &Request) -> Result<Caller, Problem> {
    let presented = bearer(request.headers())?;
    let granted = presented.and_then(|token| {
        // Both are always looked through.
        let (read, trigger) = (token.is_among(&tokens.read), token.is_among(&tokens.trigger));
        let read = bool::from(read).then_some(Scope::Read);
        bool::from(trigger).then_some(Scope::Trigger).or(read)
    });
    let known = granted.is_some();
    match needed(request.uri().path()) {
        None => Ok(Caller { known }),
        Some(needed) if granted >= Some(needed) => Ok(Caller { known }),
        Some(_) if known => {
            let detail = "this token is for reading; triggering needs another one";
            let problem = Problem::new(StatusCode::FORBIDDEN, "scope-too-small", "Scope too small", detail);
            Err(problem.challenge(r#"Bearer realm="uptally", error="insufficient_scope", scope="trigger""#))
        }
        Some(_) if presented.is_some() => {
            Err(unauthorized("this token is not known").challenge(r#"Bearer realm="uptally", error="invalid_token""#))
        }
        Some(_) => Err(unauthorized("expected the header Authorization: Bearer and a token")
            .challenge(r#"Bearer realm="uptally""#)),
    }
}

/// The token of a request, if it has one. A header of another scheme is none.
fn bearer(headers: &HeaderMap) -> Result<Option<Token>, Problem> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        // Which of them holds would be a guess, and a proxy in between may have guessed otherwise.
        return Err(bad("expected the header Authorization once, found it twice"));
    }
    let value = value.as_bytes();
    let Some((scheme, token)) = value.split_at_checked("Bearer ".len()) else {
        return Ok(None);
    };
    Ok(scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| Token::digest(token.trim_ascii())))
}

/// The Host header, which HTTP/1.1 demands and nobody may send twice.
fn host(request: &Request) -> Result<Option<&str>, Problem> {
    let mut all = request.headers().get_all(header::HOST).iter();
    match (all.next(), all.next()) {
        (Some(host), None) => match host.to_str() {
            Ok(host) => Ok(Some(host)),
            Err(_) => Err(bad("expected a Host header of readable characters")),
        },
        (Some(_), Some(_)) => Err(bad("expected the header Host once, found it twice")),
        (None, _) if request.version() == Version::HTTP_11 => Err(bad("expected the header Host, found none")),
        (None, _) => Ok(None),
    }
}

/// Whether `authority` (a name or address, and perhaps a port) is one that we may be called by. Any address is: a page
/// can give itself our address by a name of its own only.
fn is_ours(authority: &str, hosts: &[String]) -> bool {
    let Ok(parsed) = authority.parse::<Authority>() else {
        return false;
    };
    let host = parsed.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    !authority.contains('@')
        && (address.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost") || is_listed(host, hosts))
}

fn is_listed(host: &str, hosts: &[String]) -> bool {
    hosts.iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// Refuses what a page of another origin sends. (Reading the answer is forbidden to it by the browser.)
fn same_origin(origin: &HeaderValue, host: Option<&str>, hosts: &[String]) -> Result<(), Problem> {
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let ours = authority.is_some_and(|(_, authority)| {
        let name = authority.parse::<Authority>();
        host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
            || name.is_ok_and(|name| is_listed(name.host(), hosts))
    });
    if ours {
        return Ok(());
    }
    let detail = "pages of other origins may send nothing here; http.hosts lists the names that may";
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "foreign-origin",
        "Foreign origin",
        detail,
    ))
}

fn misdirected() -> Problem {
    let detail = "without a login, only localhost, addresses and the names in http.hosts are answered";
    let status = StatusCode::MISDIRECTED_REQUEST;
    Problem::new(status, "foreign-host", "Foreign host", detail)
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "no-token", "Token needed", detail)
}

fn bad(detail: &str) -> Problem {
    Problem::plain(StatusCode::BAD_REQUEST, detail)
}

/// Whether a body's length is told chunk by chunk. Where a proxy in between reads the length otherwise, what follows
/// the body would be taken for a request of somebody else: such a connection is not used again.
pub(super) fn is_chunked(request: &Request) -> bool {
    request.headers().contains_key(header::TRANSFER_ENCODING)
}

/// The header that ends a connection after its answer.
pub(super) const CLOSE: (HeaderName, HeaderValue) = (header::CONNECTION, HeaderValue::from_static("close"));

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed parse is a failed test")]

    use axum::body::Body;

    use super::*;

    const READ: &str = "r-0123456789012345678901234567890";
    const OLD: &str = "o-0123456789012345678901234567890";
    const TRIGGER: &str = "t-0123456789012345678901234567890";

    fn with_tokens() -> Access {
        let tokens = Tokens {
            read: vec![READ.parse().unwrap(), OLD.parse().unwrap()],
            trigger: vec![TRIGGER.parse().unwrap()],
        };
        Access::new("0.0.0.0:1".parse().unwrap(), tokens, Vec::new()).unwrap()
    }

    fn loopback() -> Access {
        let listen = "[::1]:1".parse().unwrap();
        Access::new(listen, Tokens::default(), vec!["uptally.example".to_owned()]).unwrap()
    }

    /// The status of the refusal, or 200.
    fn status(access: &Access, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let refused = access.admit(&request.body(Body::empty()).unwrap()).err();
        refused.map_or(200, |problem| problem.into_response().status().as_u16())
    }

    #[test]
    fn tokens_are_long_and_shown_nowhere() {
        for text in ["", "short", &"x".repeat(31), &"x ".repeat(32), &"ä".repeat(32)] {
            assert_eq!(text.parse::<Token>(), Err(ParseTokenError), "{text}");
        }
        let access = with_tokens();
        assert!(!format!("{access:?}").contains("0123"), "{access:?}");
        assert!(format!("{access:?}").contains("***"));
    }

    #[test]
    fn other_machines_are_let_in_by_token_only() {
        for listen in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            let listen: SocketAddr = listen.parse().unwrap();
            let refused = Access::new(listen, Tokens::default(), Vec::new()).unwrap_err();
            assert!(refused.to_string().contains("http.trigger_tokens_file"), "{refused}");
        }
        for listen in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(Access::new(listen.parse().unwrap(), Tokens::default(), Vec::new()).is_ok());
        }
    }

    #[test]
    fn each_scope_opens_its_routes() {
        let access = with_tokens();
        for (token, get_report, trigger) in [
            ("", 401, 401),
            ("Bearer", 401, 401),
            (&format!("Bearer {READ}"), 200, 403),
            (&format!("Bearer {OLD}"), 200, 403),
            (&format!("bearer   {TRIGGER}"), 200, 200),
            (&format!("Bearer {READ}x"), 401, 401),
            (&format!("Bearer {}", &READ[..32]), 401, 401),
            (&format!("Basic {READ}"), 401, 401),
            (READ, 401, 401),
        ] {
            let host = ("host", "anything.example");
            let ask = |path| status(&access, path, &[host, ("authorization", token)]);
            assert_eq!(ask("/get_report"), get_report, "{token}");
            assert_eq!(ask("/metrics"), get_report, "{token}");
            assert_eq!(ask("/elsewhere"), get_report, "{token}");
            assert_eq!(ask("/trigger_report"), trigger, "{token}");
            assert_eq!(ask("/healthz"), 200, "{token}");
            assert_eq!(ask("/readyz"), 200, "{token}");
        }
        let read = format!("Bearer {READ}");
        let twice = [("host", "x"), ("authorization", &*read), ("authorization", &*read)];
        assert_eq!(status(&access, "/get_report", &twice), 400);
    }

    #[test]
    fn without_login_only_our_own_names_are_answered() {
        let access = loopback();
        for (host, expected) in [
            ("127.0.0.1:8080", 200),
            ("[::1]:8080", 200),
            ("192.168.1.7", 200),
            ("LocalHost:1", 200),
            ("uptally.example:8080", 200),
            ("evil.example:8080", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("evil.example@127.0.0.1", 421),
            ("", 421),
        ] {
            assert_eq!(status(&access, "/metrics", &[("host", host)]), expected, "{host}");
        }
        assert_eq!(status(&access, "/metrics", &[]), 400, "HTTP/1.1 has a host");
        assert_eq!(
            status(&access, "/metrics", &[("host", "localhost"), ("host", "localhost")]),
            400
        );
        assert_eq!(
            status(&access, "http://evil.example/metrics", &[("host", "localhost")]),
            421
        );
    }

    #[test]
    fn without_login_pages_of_other_origins_send_nothing() {
        let access = loopback();
        for (origin, expected) in [
            ("http://localhost:8080", 200),
            ("https://uptally.example", 200),
            ("http://localhost:3000", 403),
            ("https://evil.example", 403),
            ("null", 403),
        ] {
            let headers = [("host", "localhost:8080"), ("origin", origin)];
            assert_eq!(status(&access, "/trigger_report", &headers), expected, "{origin}");
        }
    }
}
