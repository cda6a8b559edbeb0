//! Requests that mean harm, byte by byte.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::filled;
use super::support::serve::Serve;
use super::support::state_dir;

/// In place of a status: closed without an answer.
const CLOSED: u16 = 0;

/// What comes back until the server closes.
fn exchange(address: &str, sent: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // The server may have answered and closed before it took everything.
    let _ = stream.write_all(sent);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of each answer in what came back.
fn statuses(answers: &str) -> Vec<u16> {
    let starts = answers.split("HTTP/1.").skip(1);
    starts
        .map(|answer| answer.split(' ').nth(1).unwrap().parse().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn words_that_mean_harm_do_none() {
    let (database, state) = (filled().await, state_dir());
    let mut serve = Serve::spawn(state.path(), Some(database.url()));
    serve.wait_until_ready();
    let address = serve.address().to_owned();
    fs::write(state.path().join("canary"), "the canary sings").unwrap();
    fs::write(state.path().join("csvs/canary.csv"), "the canary sings").unwrap();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let report = |id: &str| get(&format!("/get_report?report_id={id}"));
    let post = |rest: &str| format!("POST /trigger_report HTTP/1.1\r\nhost: localhost\r\n{rest}");
    let long = "x".repeat(1 << 20);
    let many = "2\r\n{}\r\n".repeat(10_000);
    let endless_size = format!("{}\r\n\r\n", "0".repeat(64 << 10));
    let extension = format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "y".repeat(64 << 10));
    let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    let chunked = |body: &str| post(&format!("transfer-encoding: chunked\r\n\r\n{body}"));
    let cases: Vec<(&str, String, &[u16])> = vec![
        ("traversal", report("../canary"), &[400]),
        ("traversal of an id", report("../csvs/canary"), &[400]),
        ("a name in the directory", report("canary"), &[400]),
        ("encoded", report("%2e%2e%2fcanary"), &[400]),
        ("encoded twice", report("%252e%252e%252fcanary"), &[400]),
        ("NUL", report("6a2f41a3-c54c-fce8-32d2-0324e1c32e22%00"), &[400]),
        ("raw NUL", report("6a2f41a3\0"), &[400]),
        ("1 MiB", report(&long), &[414, 431]),
        (
            "braces",
            report("%7B6a2f41a3-c54c-fce8-32d2-0324e1c32e22%7D"),
            &[400, 404],
        ),
        ("unknown", report("6a2f41a3-c54c-fce8-32d2-0324e1c32e22"), &[404]),
        ("path", get("/../canary"), &[404]),
        ("encoded path", get("/csvs/%2e%2e/canary"), &[404]),
        ("no route", get("/csvs/canary.csv"), &[404]),
        (
            "method",
            "DELETE /get_report HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".into(),
            &[405],
        ),
        (
            "made up method",
            "HACK /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".into(),
            &[405],
        ),
        (
            "CONNECT",
            "CONNECT evil.example:80 HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n".into(),
            &[421],
        ),
        (
            "another host",
            "GET /metrics HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n".into(),
            &[421],
        ),
        (
            "no host",
            "GET /metrics HTTP/1.1\r\nconnection: close\r\n\r\n".into(),
            &[400],
        ),
        ("HTTP/1.0", "GET /healthz HTTP/1.0\r\n\r\n".into(), &[200]),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), &[CLOSED]),
        ("HTTP/0.9", "GET /healthz\r\n".into(), &[400]),
        ("nonsense", "\u{16}\u{3}\u{1}\u{2}".repeat(100), &[400]),
        (
            "header with NUL",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\na: \0\r\n\r\n".into(),
            &[400],
        ),
        (
            "folded header",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\na: b\r\n c\r\n\r\n".into(),
            &[400],
        ),
        (
            "space before the colon",
            "GET /healthz HTTP/1.1\r\nhost : localhost\r\n\r\n".into(),
            &[400],
        ),
        (
            "foreign page",
            post("origin: https://evil.example\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
            &[403],
        ),
        (
            "large body",
            post(&format!("content-length: {}\r\n\r\n{long}", long.len())),
            &[413],
        ),
        (
            "lengths that differ",
            post("content-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
            &[400],
        ),
        ("no length", post("content-length: -1\r\n\r\n"), &[400]),
        ("many chunks", chunked(&many), &[413]),
        (
            "a chunk without end",
            chunked(&format!("ffffffffffffff\r\n{long}")),
            &[413],
        ),
        ("a size that wraps", chunked("fffffffffffffffff\r\n"), &[400]),
        ("a size without end", chunked(&endless_size), &[400, 202]),
        ("a chunk's extension", chunked(&extension), &[400, 413]),
        ("trailers without end", chunked(&trailers), &[400, 413]),
        ("another coding", post("transfer-encoding: gzip\r\n\r\n"), &[400]),
        (
            "chunked in HTTP/1.0",
            "POST /trigger_report HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            &[400],
        ),
    ];
    for (name, request, expected) in &cases {
        let began = Instant::now();
        let answer = exchange(&address, request.as_bytes());
        let found = statuses(&answer);
        assert!(found.len() <= 1, "{name}: {answer}");
        let status = found.first().copied().unwrap_or(CLOSED);
        assert!(expected.contains(&status), "{name}: {answer}");
        assert!(!answer.contains("sings"), "{name}: {answer}");
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{name} took {:?}",
            began.elapsed()
        );
        // What hyper refuses by itself has no body.
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let problem = body.is_empty() || answer.contains("application/problem+json");
        assert!(problem || status < 300, "{name}: {answer}");
    }

    // Pipelined requests are answered one after the other, in their order.
    let three = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(2) + &get("/nowhere");
    assert_eq!(statuses(&exchange(&address, three.as_bytes())), [200, 200, 404]);

    // Two lengths: whatever a proxy in between takes for the body, no second request comes out of it.
    let smuggled = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for (headers, body) in [
        (
            "content-length: 51\r\ntransfer-encoding: chunked\r\n",
            format!("0\r\n\r\n{smuggled}"),
        ),
        (
            "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
            format!("0\r\n\r\n{smuggled}"),
        ),
        ("transfer-encoding: chunked\r\n", format!("0\r\n\r\n{smuggled}")),
    ] {
        let answer = exchange(&address, post(&format!("{headers}\r\n{body}")).as_bytes());
        assert_eq!(statuses(&answer).len(), 1, "{answer}");
        assert!(!answer.contains("uptally_http_requests_total"), "{answer}");
    }
    assert_eq!(fs::read(state.path().join("canary")).unwrap(), b"the canary sings");
    assert_eq!(
        fs::read(state.path().join("csvs/canary.csv")).unwrap(),
        b"the canary sings"
    );
    assert_eq!(serve.request("GET", "/readyz").0, 200);
    let panics = serve
        .log()
        .iter()
        .filter(|line| line.contains("internal error"))
        .count();
    assert_eq!(panics, 0, "{:#?}", serve.log());
}
