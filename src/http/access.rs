//! Who is let in.
//!
//! With tokens, whoever sends one may do what its scope allows: as `Authorization: Bearer ...`, or as the password of any
//! user by `Authorization: Basic ...`, which is how a browser logs in by itself. A browser then sends it by itself too, also
//! for a page of a stranger: so by Basic nothing is changed unless the browser says that one of our own pages asks.
//!
//! Without tokens there is no login, so the server listens on loopback only; what is kept out then are pages in a browser
//! on this machine: one that reaches us under a name of its own (DNS rebinding), and one that sends us a form from elsewhere.
//!
//! | request | without tokens | with tokens |
//! |---|---|---|
//! | `/healthz`, `/readyz` | anybody on this machine | anybody; the reason for not being ready only with a token |
//! | to trigger a report | the same | scope trigger |
//! | to write observations | the same | scope write |
//! | everything else, any other path too | the same | scope read or trigger |
//!
//! Which path needs which scope stands in module `routes`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::matched;
use super::problem::Problem;
use super::routes::{Rule, Rules};

/// Characters of a token at least. 32 of base64 are 192 bits; even 32 hexadecimal digits are 128.
pub const TOKEN_CHARS_MIN: usize = 32;

/// What a request needs a token for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// To see numbers, reports and metrics.
    Read,
    /// To trigger a report. Who may do that may read too.
    Trigger,
    /// To write observations, and nothing else.
    Write,
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

/// The tokens of each scope. Several of one scope let an old and a new one hold while clients change over. A token may
/// stand in several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    /// They allow to read numbers, reports and metrics.
    pub read: Vec<Token>,
    /// They allow that, and to trigger reports.
    pub trigger: Vec<Token>,
    /// They allow to write observations, and nothing else.
    pub write: Vec<Token>,
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
struct Gate {
    /// None: there is no login.
    tokens: Option<Tokens>,
    /// Names, beside `localhost` and addresses, that we may be called by.
    hosts: Vec<String>,
}

/// What a request shows of whom it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presented {
    Nothing,
    /// What only a program of the caller's sends.
    Bearer(Token),
    /// What a browser sends for any page.
    Basic(Token),
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Granted {
    read: bool,
    trigger: bool,
    write: bool,
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
        let tokens = Some(tokens).filter(|tokens| *tokens != Tokens::default());
        if tokens.is_none() && !listen.ip().to_canonical().is_loopback() {
            return Err(OpenToAll(listen));
        }
        Ok(Access(Arc::new(Gate { tokens, hosts })))
    }

    /// Whether requests need a token.
    pub(super) fn has_login(&self) -> bool {
        self.0.tokens.is_some()
    }

    fn admit(&self, request: &Request, rule: Rule) -> Result<Caller, Problem> {
        let Gate { tokens, hosts } = &*self.0;
        let host = host(request)?;
        let ours = is_from_our_pages(request.headers(), host, hosts);
        let changes = !request.method().is_safe();
        if let Some(tokens) = tokens {
            let presented = presented(request.headers())?;
            let caller = by_token(tokens, presented, rule)?;
            let by_itself = matches!(presented, Presented::Basic(_));
            return if by_itself && changes && ours != Some(true) {
                Err(foreign_origin())
            } else {
                Ok(caller)
            };
        }
        let called = [request.uri().authority().map(Authority::as_str), host];
        if !called.into_iter().flatten().all(|name| is_ours(name, hosts)) {
            return Err(misdirected());
        }
        // A link that leads here is followed.
        let sent = changes || request.headers().contains_key(header::ORIGIN);
        if sent && ours == Some(false) {
            return Err(foreign_origin());
        }
        Ok(Caller { known: true })
    }
}

/// Lets a request through to its route, or answers it.
pub(super) async fn admit(
    State((access, rules)): State<(Access, Arc<Rules>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let rule = rules.of(matched(&request), request.method());
    match access.admit(&request, rule) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

impl Granted {
    fn to(token: Token, tokens: &Tokens) -> Self {
        // All are always looked through.
        let [read, trigger, write] = [&tokens.read, &tokens.trigger, &tokens.write].map(|all| token.is_among(all));
        Granted {
            read: bool::from(read | trigger),
            trigger: trigger.into(),
            write: write.into(),
        }
    }

    fn allows(self, scope: Scope) -> bool {
        match scope {
            Scope::Read => self.read,
            Scope::Trigger => self.trigger,
            Scope::Write => self.write,
        }
    }

    fn is_known(self) -> bool {
        self.read || self.write
    }
}

fn by_token(tokens: &Tokens, presented: Presented, rule: Rule) -> Result<Caller, Problem> {
    let granted = match presented {
        Presented::Nothing => None,
        Presented::Bearer(token) | Presented::Basic(token) => Some(Granted::to(token, tokens)),
    };
    let known = granted.is_some_and(Granted::is_known);
    let Some(needed) = rule.scope else {
        return Ok(Caller { known });
    };
    match granted {
        Some(granted) if granted.allows(needed) => Ok(Caller { known }),
        Some(_) if known => {
            let (detail, challenge) = match needed {
                Scope::Read => (
                    "this token is for writing; reading needs another one",
                    r#"Bearer realm="uptally", error="insufficient_scope", scope="read""#,
                ),
                Scope::Trigger => (
                    "this token is not for triggering; that needs another one",
                    r#"Bearer realm="uptally", error="insufficient_scope", scope="trigger""#,
                ),
                Scope::Write => (
                    "this token is not for writing; that needs another one",
                    r#"Bearer realm="uptally", error="insufficient_scope", scope="write""#,
                ),
            };
            let problem = Problem::new(StatusCode::FORBIDDEN, "scope-too-small", "Scope too small", detail);
            Err(problem.challenge(challenge))
        }
        Some(_) => Err(unauthorized(
            "this token is not known",
            r#"Bearer realm="uptally", error="invalid_token""#,
            rule,
        )),
        None => Err(unauthorized(
            "expected the header Authorization: Bearer and a token",
            r#"Bearer realm="uptally""#,
            rule,
        )),
    }
}

/// What a request shows. A header of another scheme is nothing.
fn presented(headers: &HeaderMap) -> Result<Presented, Problem> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else {
        return Ok(Presented::Nothing);
    };
    if all.next().is_some() {
        // Which of them holds would be a guess, and a proxy in between may have guessed otherwise.
        return Err(bad("expected the header Authorization once, found it twice"));
    }
    let value = value.as_bytes();
    let space = value.iter().position(|&byte| byte == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at_checked(space).unwrap_or((value, b""));
    Ok(if scheme.eq_ignore_ascii_case(b"Bearer") && !rest.is_empty() {
        Presented::Bearer(Token::digest(rest.trim_ascii()))
    } else if scheme.eq_ignore_ascii_case(b"Basic") && !rest.is_empty() {
        // What is no user and password has a password that nobody has.
        let decoded = BASE64_STANDARD.decode(rest.trim_ascii()).unwrap_or_default();
        let password = decoded.splitn(2, |&byte| byte == b':').nth(1);
        Presented::Basic(Token::digest(password.unwrap_or_default()))
    } else {
        Presented::Nothing
    })
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

/// Whether a browser says that one of our own pages asks; None if none says anything.
///
/// No page can set these headers. Browsers send the first one over TLS and on loopback only, the second with everything
/// that can change something.
fn is_from_our_pages(headers: &HeaderMap, host: Option<&str>, hosts: &[String]) -> Option<bool> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site == Some(b"same-origin") {
        return Some(true);
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        return Some(authority.is_some_and(|(_, authority)| {
            let name = authority.parse::<Authority>();
            host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
                || name.is_ok_and(|name| is_listed(name.host(), hosts))
        }));
    }
    // "none": not a page, but somebody at the keyboard.
    site.filter(|site| *site != b"none").map(|_| false)
}

/// Refuses what a page of another origin sends. (Reading the answer is forbidden to it by the browser.)
fn foreign_origin() -> Problem {
    let detail = "pages of other origins may send nothing here (http.hosts lists the names that may), and a program sends its \
                  token as Bearer";
    let (status, kind) = (StatusCode::FORBIDDEN, "foreign-origin");
    Problem::new(status, kind, "Foreign origin", detail)
}

fn misdirected() -> Problem {
    let detail = "without a login, only localhost, addresses and the names in http.hosts are answered";
    let status = StatusCode::MISDIRECTED_REQUEST;
    Problem::new(status, "foreign-host", "Foreign host", detail)
}

fn unauthorized(detail: &str, challenge: &'static str, rule: Rule) -> Problem {
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "no-token", "Token needed", detail).challenge(challenge);
    if rule.for_browsers {
        problem.challenge(r#"Basic realm="uptally", charset="UTF-8""#)
    } else {
        problem
    }
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
    const WRITE: &str = "w-0123456789012345678901234567890";
    const WRITES: &str = "/api/v1/activity";

    fn with_tokens() -> Access {
        let tokens = Tokens {
            read: vec![READ.parse().unwrap(), OLD.parse().unwrap()],
            trigger: vec![TRIGGER.parse().unwrap()],
            write: vec![WRITE.parse().unwrap()],
        };
        Access::new("0.0.0.0:1".parse().unwrap(), tokens, vec!["proxied.example".to_owned()]).unwrap()
    }

    fn loopback() -> Access {
        let listen = "[::1]:1".parse().unwrap();
        Access::new(listen, Tokens::default(), vec!["uptally.example".to_owned()]).unwrap()
    }

    /// The refusal of a request, if it is refused.
    fn refusal(access: &Access, method: &str, path: &str, headers: &[(&str, &str)]) -> Option<Response> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let rule = Rules::new().of(Some(request.uri().path()), request.method());
        let refused = access.admit(&request, rule).err();
        refused.map(IntoResponse::into_response)
    }

    /// The status of the refusal, or 200. What triggers is a POST.
    fn status(access: &Access, path: &str, headers: &[(&str, &str)]) -> u16 {
        let method = match path {
            "/trigger_report" | WRITES => "POST",
            _ => "GET",
        };
        refusal(access, method, path, headers).map_or(200, |refusal| refusal.status().as_u16())
    }

    fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
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
        for (token, get_report, trigger, write) in [
            ("", 401, 401, 401),
            ("Bearer", 401, 401, 401),
            ("Bearer ", 401, 401, 401),
            (&format!("Bearer {READ}"), 200, 403, 403),
            (&format!("Bearer {OLD}"), 200, 403, 403),
            (&format!("bearer   {TRIGGER}"), 200, 200, 403),
            (&format!("Bearer {WRITE}"), 403, 403, 200),
            (&format!("Bearer {READ}x"), 401, 401, 401),
            (&format!("Bearer {}", &READ[..32]), 401, 401, 401),
            (&basic("", READ), 200, 403, 403),
            (&basic("anybody", TRIGGER), 200, 200, 403),
            (&basic("any", WRITE), 403, 403, 200),
            (&basic(READ, ""), 401, 401, 401),
            (&basic("a:b", READ), 401, 401, 401),
            (&format!("Basic {READ}"), 401, 401, 401),
            ("Basic", 401, 401, 401),
            ("Basic Og==", 401, 401, 401),
            (READ, 401, 401, 401),
        ] {
            let headers = [
                ("host", "anything.example"),
                ("authorization", token),
                ("sec-fetch-site", "same-origin"),
            ];
            let ask = |path| status(&access, path, &headers);
            assert_eq!(ask(WRITES), write, "{token}");
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
    fn what_a_browser_sends_by_itself_changes_nothing_for_strangers() {
        let access = with_tokens();
        let (by_browser, by_program) = (basic("me", TRIGGER), format!("Bearer {TRIGGER}"));
        for (told, expected) in [
            (&[("origin", "http://up.example")][..], 200),
            (&[("sec-fetch-site", "same-origin")], 200),
            (&[("sec-fetch-site", "same-origin"), ("origin", "null")], 200),
            (&[("origin", "https://proxied.example")], 200),
            (&[], 403),
            (&[("origin", "null")], 403),
            (&[("origin", "http://evil.example")], 403),
            (&[("origin", "http://up.example.evil.example")], 403),
            (&[("sec-fetch-site", "none")], 403),
            (&[("sec-fetch-site", "cross-site")], 403),
            (&[("sec-fetch-site", "same-site")], 403),
        ] {
            let with = |token| [&[("host", "up.example"), ("authorization", token)], told].concat();
            assert_eq!(
                status(&access, "/trigger_report", &with(&by_browser)),
                expected,
                "{told:?}"
            );
            assert_eq!(status(&access, "/trigger_report", &with(&by_program)), 200, "{told:?}");
            assert_eq!(status(&access, "/get_report", &with(&by_browser)), 200, "{told:?}");
        }
    }

    #[test]
    fn a_browser_is_told_how_to_log_in_where_people_look() {
        let access = with_tokens();
        for (path, basic) in [("/get_report", true), ("/metrics", false), ("/elsewhere", false)] {
            let refusal = refusal(&access, "GET", path, &[("host", "x")]).unwrap();
            let challenges = refusal.headers().get_all(header::WWW_AUTHENTICATE).iter();
            let schemes: Vec<&[u8]> = challenges.map(|challenge| &challenge.as_bytes()[..5]).collect();
            let expected: &[&[u8]] = if basic { &[b"Beare", b"Basic"] } else { &[b"Beare"] };
            assert_eq!(schemes, expected, "{path}");
        }
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
            assert_eq!(status(&access, "/metrics", &headers), expected, "{origin}");
        }
        for (site, trigger) in [
            ("same-origin", 200),
            ("none", 200),
            ("same-site", 403),
            ("cross-site", 403),
        ] {
            let headers = [("host", "localhost:8080"), ("sec-fetch-site", site)];
            assert_eq!(status(&access, "/trigger_report", &headers), trigger, "{site}");
            assert_eq!(status(&access, "/metrics", &headers), 200, "a link from {site}");
        }
    }
}
