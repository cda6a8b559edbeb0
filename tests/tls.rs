//! The way to a Postgres elsewhere: encrypted and verified, or not at all. A loopback address stands in for elsewhere
//! by asking for TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use support::check::verify_is_clean;
use support::daemon::Following;
use support::fixture::{NOW, fill};
use support::tls::{Authority, hba, loopback, present};
use support::within;
use uptally::clock::Clock;
use uptally::daemon::Settings;
use uptally::db::{Database, DbError, Parameters};

const PASSWORD: &str = "correct horse";

/// As the program would reach it.
fn reach(parameters: &str) -> Database {
    let parameters: Parameters = parameters.parse().unwrap();
    Database::new(parameters, Duration::from_secs(5), Duration::from_secs(30)).unwrap()
}

/// Why it cannot be reached, in a text that must hold no password.
async fn refused(parameters: &str) -> String {
    let error = reach(parameters)
        .connect("test")
        .await
        .expect_err(parameters)
        .to_string();
    assert!(!error.contains(PASSWORD), "{error}");
    error
}

/// A verified, encrypted session, its login bound to it, and a daemon that follows over such sessions.
#[tokio::test]
async fn only_the_server_that_was_asked_for_is_talked_to() {
    let Some(address) = loopback() else { return };
    let server = support::tls::start(address).await;
    let superuser = server.connect().await;
    let authority = Authority::new();
    present(&superuser, &authority.server("localhost"), &authority).await;
    let role = format!("CREATE ROLE ann SUPERUSER LOGIN PASSWORD '{PASSWORD}'");
    superuser.batch_execute(&role).await.unwrap();
    hba(&superuser, "hostssl all ann 127.0.0.0/8 scram-sha-256").await;
    let roots = authority.file();
    let place = |host: &str, roots: &std::path::Path, more: &str| {
        format!(
            "host={host} hostaddr={address} user=ann password='{PASSWORD}' dbname=uptally sslrootcert='{}' {more}",
            roots.display()
        )
    };

    let good = reach(&place(
        "localhost",
        &roots,
        "sslmode=verify-full channel_binding=require",
    ));
    let session = good.connect("test").await.unwrap();
    let sql = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let row = session.client.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), (true, "TLSv1.3"));
    // `require` is as strict.
    let required = reach(&place("localhost", &roots, "sslmode=require"));
    required.connect("test").await.unwrap();
    fill(&superuser, 2).await;
    let daemon = Following::start(&good, &Clock::standing(NOW).0, Settings::default()).await;
    daemon.stop().await;
    verify_is_clean(&good, NOW).await;

    let stranger = Authority::new();
    let port = format!("db.example:5432 ({address}) with sslmode=verify-full");
    for (parameters, expected) in [
        (place("localhost", &stranger.file(), ""), "UnknownIssuer"),
        (place("localhost", &stranger.file(), "sslmode=require"), "UnknownIssuer"),
        (place("db.example", &roots, ""), "not valid for name \"db.example\""),
        (place("db.example", &roots, ""), port.as_str()),
        (place("db.example", &roots, "sslmode=require"), "not valid for name"),
        // No name is given, so the address is the name.
        (
            place("localhost", &roots, "").replace("host=localhost ", ""),
            "not valid for name",
        ),
        // The machine's own authorities do not know it either.
        (place("localhost", &roots, "sslrootcert=system"), "UnknownIssuer"),
        (place("localhost", &roots, "sslmode=disable"), "no pg_hba.conf entry"),
    ] {
        let error = refused(&parameters).await;
        assert!(error.contains(expected), "{expected}: {error}");
    }

    present(&superuser, &authority.expired("localhost"), &authority).await;
    let expired = place("localhost", &roots, "");
    within(
        Duration::from_secs(5),
        "the server shows its new certificate",
        async || match reach(&expired).connect("test").await {
            Ok(_) => false,
            Err(error) => error.to_string().contains("certificate expired"),
        },
    )
    .await;
}

#[tokio::test]
async fn a_server_may_ask_for_our_certificate() {
    let Some(address) = loopback() else { return };
    let server = support::tls::start(address).await;
    let superuser = server.connect().await;
    let authority = Authority::new();
    present(&superuser, &authority.server("localhost"), &authority).await;
    superuser
        .batch_execute("CREATE ROLE bob LOGIN; CREATE ROLE eve LOGIN")
        .await
        .unwrap();
    hba(&superuser, "hostssl all all 127.0.0.0/8 cert").await;
    let place = |role: &str, own: Option<&(std::path::PathBuf, std::path::PathBuf)>| {
        let roots = authority.file();
        let own =
            own.map(|(certificate, key)| format!(" sslcert='{}' sslkey='{}'", certificate.display(), key.display()));
        format!(
            "host=localhost hostaddr={address} user={role} dbname=uptally sslrootcert='{}'{}",
            roots.display(),
            own.unwrap_or_default()
        )
    };
    let bob = authority.client("bob");
    reach(&place("bob", Some(&bob))).connect("test").await.unwrap();
    // Another's certificate, and none.
    for parameters in [place("eve", Some(&bob)), place("bob", None)] {
        let error = reach(&parameters).connect("test").await.unwrap_err();
        assert!(matches!(&error, DbError::LoginRefused(_)), "{error}");
    }
}

/// A server that answers the first message with `answer` and keeps everything that comes.
fn fake_server(answer: &'static [u8]) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut heard = vec![0; 8];
        stream.read_exact(&mut heard).unwrap();
        stream.write_all(answer).unwrap();
        // To the end of the connection, which the client closes; by a reset where it left some of the answer unread.
        let _ = stream.read_to_end(&mut heard);
        heard
    });
    (port, heard)
}

/// Length 8, and the number that stands for a request to speak TLS.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

#[tokio::test]
async fn nothing_is_said_in_plaintext() {
    for sslmode in ["require", "verify-full"] {
        // N: no TLS here. E: an error, from before there was TLS, or from somebody in between.
        for answer in [b"N".as_slice(), b"E", b"R\0\0\0\x08\0\0\0\0"] {
            let (port, heard) = fake_server(answer);
            let parameters = format!(
                "host=localhost hostaddr=127.0.0.1 port={port} user=ann password='{PASSWORD}' sslmode={sslmode}"
            );
            let error = refused(&parameters).await;
            assert!(error.contains("server does not support TLS"), "{error}");
            assert!(
                error.contains(&format!("localhost:{port} (127.0.0.1) with sslmode=verify-full")),
                "{error}"
            );
            assert_eq!(heard.join().unwrap(), SSL_REQUEST);
        }
        // Somebody who says yes and then talks plaintext, to be told the password.
        let (port, heard) = fake_server(b"SR\0\0\0\x08\0\0\0\x03");
        refused(&format!(
            "host=localhost hostaddr=127.0.0.1 port={port} user=ann password='{PASSWORD}' sslmode={sslmode}"
        ))
        .await;
        let heard = heard.join().unwrap();
        let (request, hello) = heard.split_at(8);
        // After the request a TLS record of kind handshake, or an alert; and no name of the user.
        assert_eq!(request, SSL_REQUEST);
        assert!(matches!(hello.first(), Some(0x16)), "{hello:?}");
        assert!(!heard.windows(3).any(|bytes| bytes == b"ann"));
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused_and_the_daemon_says_so() {
    let Some(address) = loopback() else { return };
    let server = support::tls::start(address).await;
    let superuser = server.connect().await;
    hba(&superuser, "host all all 127.0.0.0/8 trust").await;
    let place = format!("host=localhost hostaddr={address} user=uptally dbname=uptally");
    // Reachable in plaintext, so that a fall-back would work.
    reach(&place).connect("test").await.unwrap();
    let database = reach(&format!("{place} sslmode=verify-full"));
    let daemon = Following::launch(&database, &Clock::standing(NOW).0, Settings::default());
    within(Duration::from_secs(5), "the status says why", async || {
        let reason = daemon.handle.status().following.unwrap_err();
        reason.contains("sslmode=verify-full") && reason.contains("server does not support TLS")
    })
    .await;
    daemon.stop().await;
}

#[test]
fn a_wish_that_is_unsafe_is_a_wrong_configuration() {
    for (parameters, expected) in [
        ("sslmode=prefer", "expected sslmode=verify-full"),
        ("sslmode=verify-ca", "verify-ca would accept any server"),
        ("sslrootcert=/nowhere/ca.pem", "sslrootcert: /nowhere/ca.pem: "),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_uptally"))
            .arg("verify")
            .env(
                "DATABASE_URL",
                format!("postgres://ann:{PASSWORD}@192.0.2.1/d?{parameters}"),
            )
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(expected), "{told}");
        assert!(!told.contains(PASSWORD), "{told}");
        assert_ne!(output.status.code(), Some(0));
    }
}
