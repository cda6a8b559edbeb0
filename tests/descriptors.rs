//! The accept loop without file descriptors. Alone in its process, whose limit it changes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uptally::http::{ServeLimits, serve};

#[tokio::test(flavor = "multi_thread")]
async fn accepting_pauses_and_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Connected, asking, and not accepted yet: that is done by the kernel.
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        clients.push(client);
    }
    // The next descriptor is the first that is too many.
    let next = File::open("/").unwrap().as_raw_fd();
    let before = getrlimit(Resource::Nofile);
    let none_left = Rlimit {
        current: Some(u64::try_from(next).unwrap()),
        maximum: before.maximum,
    };
    setrlimit(Resource::Nofile, none_left).unwrap();
    let router = Router::new().route("/", get(async || "served"));
    let server = tokio::spawn(serve(listener, router, std::future::pending(), ServeLimits::default()));
    let mut first = clients.remove(0);
    let mut answer = String::new();
    let early = tokio::time::timeout(Duration::from_millis(500), first.read_to_string(&mut answer)).await;
    assert!(early.is_err(), "there is no descriptor for it: {answer}");

    setrlimit(Resource::Nofile, before).unwrap();
    let released = Instant::now();
    for mut client in [first].into_iter().chain(clients) {
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("served"), "{answer}");
    }
    assert!(released.elapsed() < Duration::from_secs(2), "{:?}", released.elapsed());
    server.abort();
}
