//! The accept loop on a loopback socket: slow clients, a full house, draining.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use uptally::http::{ServeLimits, serve};

const GET: &[u8] = b"GET /quick HTTP/1.1\r\nhost: x\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(5);

struct Server {
    at: SocketAddr,
    /// Told when to cut off what is still running.
    stop: oneshot::Sender<Instant>,
    /// Whether all answers were finished.
    done: JoinHandle<bool>,
}

fn limits() -> ServeLimits {
    ServeLimits {
        connections_max: 8,
        header_max: Duration::from_millis(300),
        stall_max: Duration::from_millis(300),
    }
}

async fn start(limits: ServeLimits) -> Server {
    let slow = async || {
        sleep(Duration::from_millis(600)).await;
        "slow but whole"
    };
    let router = Router::new()
        .route("/quick", get(async || "quick"))
        .route("/slow", get(slow))
        .route("/body", post(async |body: String| body))
        .route("/endless", get(async || std::future::pending::<()>().await))
        .route("/big", get(async || Body::from(vec![b'x'; 64 << 20])));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async { stopped.await.unwrap_or_else(|_| Instant::now()) };
    let done = tokio::spawn(serve(listener, router, shutdown, limits));
    Server { at, stop, done }
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.at).await.unwrap()
}

/// Everything until the server closes; an abrupt end counts as one.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = stream.read_to_end(&mut text);
    let _ = timeout(PATIENCE, read).await.expect("the server closes");
    String::from_utf8_lossy(&text).into_owned()
}

async fn read_some(stream: &mut TcpStream) -> String {
    let mut buffer = [0; 1024];
    let read = timeout(PATIENCE, stream.read(&mut buffer)).await;
    let count = read.expect("an answer").unwrap();
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

#[tokio::test]
async fn silent_slow_and_idle_clients_are_closed() {
    let server = start(limits()).await;
    let started = Instant::now();
    let mut silent = connect(&server).await;
    let mut slow = connect(&server).await;
    let mut idle = connect(&server).await;
    idle.write_all(GET).await.unwrap();
    assert!(read_some(&mut idle).await.contains("200 OK"));
    let drip = async {
        for byte in GET {
            if slow.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(40)).await;
        }
        read_all(&mut slow).await
    };
    let (_, answer, _) = tokio::join!(read_all(&mut silent), drip, read_all(&mut idle));
    assert!(!answer.contains("200 OK"), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let server = start(limits()).await;
    for head in [
        format!("GET /quick HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65)),
        format!("GET /quick HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(20 << 10)),
    ] {
        let mut client = connect(&server).await;
        let _ = client.write_all(head.as_bytes()).await;
        let answer = read_all(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed() {
    let server = start(limits()).await;
    let mut client = connect(&server).await;
    let request = b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n";
    client.write_all(request).await.unwrap();
    sleep(Duration::from_millis(1500)).await;
    let body = read_all(&mut client).await;
    assert!(body.len() < 64 << 20, "{} bytes came", body.len());
}

fn room_for(connections_max: usize) -> ServeLimits {
    ServeLimits {
        connections_max,
        header_max: PATIENCE,
        stall_max: PATIENCE,
    }
}

#[tokio::test]
async fn a_connection_that_waits_for_us_is_not_closed_for_others() {
    let server = start(room_for(1)).await;
    let mut first = connect(&server).await;
    first.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let mut second = connect(&server).await;
    second.write_all(GET).await.unwrap();
    let early = timeout(Duration::from_millis(200), second.readable()).await;
    assert!(early.is_err(), "not served while the first is");
    assert!(read_some(&mut first).await.contains("slow but whole"));
    assert!(read_some(&mut second).await.contains("200 OK"));
    assert_eq!(read_all(&mut first).await, "", "idle since, it made room");
}

#[tokio::test]
async fn who_kept_us_waiting_longest_makes_room() {
    let server = start(room_for(3)).await;
    let mut silent = connect(&server).await;
    sleep(Duration::from_millis(20)).await;
    let mut body = connect(&server).await;
    body.write_all(b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx")
        .await
        .unwrap();
    sleep(Duration::from_millis(20)).await;
    let mut idle = connect(&server).await;
    idle.write_all(GET).await.unwrap();
    assert!(read_some(&mut idle).await.contains("200 OK"));
    for waited_longest in [&mut silent, &mut body, &mut idle] {
        let mut other = connect(&server).await;
        other.write_all(GET).await.unwrap();
        assert!(read_some(&mut other).await.contains("200 OK"));
        assert_eq!(read_all(waited_longest).await, "");
        // Stays, idle, as the one that waits for the shortest time.
        std::mem::forget(other);
    }
}

#[tokio::test]
async fn readers_that_take_nothing_make_room_after_a_second() {
    let server = start(room_for(2)).await;
    let mut readers = Vec::new();
    for _ in 0..2 {
        let mut reader = connect(&server).await;
        reader.write_all(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        readers.push(reader);
    }
    sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    let mut other = connect(&server).await;
    other.write_all(GET).await.unwrap();
    assert!(read_some(&mut other).await.contains("200 OK"));
    let waited = began.elapsed();
    assert!(
        waited > Duration::from_millis(300),
        "a download has a second: {waited:?}"
    );
    assert!(waited < Duration::from_millis(2500), "{waited:?}");
}

#[tokio::test]
async fn stopping_lets_a_running_answer_finish_and_takes_no_more() {
    let server = start(limits()).await;
    let mut running = connect(&server).await;
    let mut idle = connect(&server).await;
    idle.write_all(GET).await.unwrap();
    read_some(&mut idle).await;
    let request = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";
    running.write_all(request).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    server.stop.send(Instant::now() + PATIENCE).unwrap();
    let answer = read_all(&mut running).await;
    assert!(answer.ends_with("slow but whole"), "{answer}");
    assert_eq!(read_all(&mut idle).await, "");
    assert!(server.done.await.unwrap());
    assert!(TcpStream::connect(server.at).await.is_err());
}

#[tokio::test]
async fn draining_has_an_end() {
    let server = start(limits()).await;
    let mut stuck = connect(&server).await;
    let request = b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n";
    stuck.write_all(request).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    server.stop.send(Instant::now() + Duration::from_millis(200)).unwrap();
    assert_eq!(read_all(&mut stuck).await, "");
    assert!(!server.done.await.unwrap());
}
