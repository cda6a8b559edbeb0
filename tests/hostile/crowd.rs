//! More clients than there is room for, and most of them up to no good.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::support::serve::Serve;
use super::support::state_dir;
use super::{descriptors, filled, memory_mb, open_files};

/// One request on a connection of its own: status, head, body.
async fn ask(address: &str, method: &str, path: &str) -> std::io::Result<(u16, String, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    let read = timeout(Duration::from_secs(5), stream.read_to_string(&mut answer));
    read.await.expect("an answer within 5 s")?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.unwrap_or(0), head.to_owned(), body.to_owned()))
}

/// How a client keeps a server busy for nothing.
#[derive(Clone, Copy)]
enum Malice {
    /// Says nothing.
    Silent,
    /// Sends a head, a byte each second.
    Drips,
    /// Sends a head and a byte of the body each second.
    DripsBody,
}

/// Does it for ever; closed, it comes back after a second.
async fn torment(address: String, malice: Malice) {
    let head = "POST /trigger_report HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4000\r\n\r\n";
    loop {
        if let Ok(mut stream) = TcpStream::connect(&address).await {
            let (mut reader, mut writer) = stream.split();
            let mut taken = [0; 64];
            let send = async {
                let mut sent = match malice {
                    Malice::DripsBody => head.len(),
                    Malice::Silent | Malice::Drips => 0,
                };
                let _ = writer.write_all(&head.as_bytes()[..sent]).await;
                loop {
                    sleep(Duration::from_secs(1)).await;
                    let byte = head.as_bytes().get(sent).copied().unwrap_or(b' ');
                    if !matches!(malice, Malice::Silent) && writer.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    sent += 1;
                }
            };
            // Whatever comes is the end.
            tokio::select! {
                () = send => {}
                _ = reader.read(&mut taken) => {}
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_silent_clients_hold_up_nobody() {
    let each = (descriptors().saturating_sub(200) / 3).min(500);
    let (database, state) = (filled().await, state_dir());
    let mut serve = Serve::spawn(state.path(), Some(database.url()));
    serve.wait_until_ready();
    let address = serve.address().to_owned();
    let (quiet_files, quiet_mb) = (open_files(serve.pid()), memory_mb(serve.pid()));
    let mut crowd = JoinSet::new();
    for malice in [Malice::Silent, Malice::Drips, Malice::DripsBody] {
        for _ in 0..each {
            crowd.spawn(torment(address.clone(), malice));
        }
    }
    sleep(Duration::from_millis(500)).await;
    let mut took_ms = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2500) {
        let asked = Instant::now();
        let (status, head, _) = ask(&address, "POST", "/trigger_report").await.unwrap();
        took_ms.push(asked.elapsed().as_millis());
        if status == 429 {
            // The disk may be slower than we trigger.
            sleep(Duration::from_millis(20)).await;
            continue;
        }
        assert_eq!(status, 202, "{head}");
        let asked = Instant::now();
        let location = head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
        let (status, head, _) = ask(&address, "GET", location).await.unwrap();
        assert!(status == 200 || status == 202, "{head}");
        took_ms.push(asked.elapsed().as_millis());
    }
    took_ms.sort_unstable();
    let count = took_ms.len();
    let (median, p99, worst) = (took_ms[count / 2], took_ms[count * 99 / 100], took_ms[count - 1]);
    let (files, mb) = (open_files(serve.pid()), memory_mb(serve.pid()));
    println!(
        "3 x {each} clients that are slow or silent: {count} other requests, median {median} ms, p99 {p99} ms, \
         worst {worst} ms; files {quiet_files:?} -> {files:?}, memory {quiet_mb:?} -> {mb:?} MB"
    );
    if let (Some(quiet), Some(files)) = (quiet_files, files) {
        assert!(files < quiet + 256 + 20, "{files} files");
    }
    if let (Some(quiet), Some(mb)) = (quiet_mb, mb) {
        assert!(mb < quiet + 50, "{mb} MB");
    }
    crowd.shutdown().await;
    serve.signal(Signal::TERM);
    assert_eq!(serve.exit_code(Duration::from_secs(10)), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn few_descriptors_and_a_thousand_connects() {
    let count = (descriptors() - 100).min(1000);
    let (database, state) = (filled().await, state_dir());
    let few = ["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"];
    let mut serve = Serve::spawn_by(&few, state.path(), Some(database.url()), &[]);
    serve.wait_until_ready();
    let address = serve.address().to_owned();
    let connects = (0..count).map(|_| timeout(Duration::from_secs(3), TcpStream::connect(&address)));
    let crowd: Vec<_> = join_all(connects).await.into_iter().flatten().flatten().collect();
    let asked = Instant::now();
    assert_eq!(ask(&address, "GET", "/readyz").await.unwrap().0, 200);
    println!(
        "{} silent clients, 64 files: a request in between took {:?}",
        crowd.len(),
        asked.elapsed()
    );
    // Sessions with Postgres and files of reports have descriptors left.
    let (status, head, body) = ask(&address, "POST", "/trigger_report").await.unwrap();
    assert_eq!(status, 202, "{body}");
    let location = head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
    let mut status = 202;
    for _ in 0..500 {
        status = ask(&address, "GET", location).await.unwrap().0;
        if status != 202 {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(status, 200);
    drop(crowd);
    let released = Instant::now();
    assert_eq!(ask(&address, "GET", "/readyz").await.unwrap().0, 200);
    assert!(released.elapsed() < Duration::from_secs(2), "{:?}", released.elapsed());
    let log = serve.log();
    assert!(
        log.iter()
            .any(|line| line.contains("fewer connections than configured")),
        "{log:#?}"
    );
    assert!(log.len() < 30, "{log:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_triggers_at_once_all_end() {
    let (database, state) = (filled().await, state_dir());
    let mut serve = Serve::spawn(state.path(), Some(database.url()));
    serve.wait_until_ready();
    let address = serve.address().to_owned();
    let quiet_mb = memory_mb(serve.pid());
    let mut ids = BTreeSet::new();
    let mut busy = 0;
    for same in [true, false] {
        let triggers = (0..200).map(|number| {
            let minute = if same { 0 } else { number };
            let path = format!(
                "/trigger_report?as_of=2023-11-08T{:02}:{:02}:00Z",
                10 + minute / 60,
                minute % 60
            );
            let address = address.clone();
            async move { ask(&address, "POST", &path).await.unwrap() }
        });
        let before = ids.len();
        for (status, head, body) in join_all(triggers).await {
            match status {
                202 => drop(ids.insert(body)),
                429 => {
                    assert!(head.contains("retry-after: "), "{head}");
                    assert!(!same, "the same needs no place of its own: {body}");
                    busy += 1;
                }
                _ => panic!("{head}\n{body}"),
            }
        }
        println!(
            "200 triggers at once, all the same: {same}; {} reports, {busy} refused",
            ids.len() - before
        );
    }
    for id in &ids {
        let id = id.split('"').nth(3).unwrap();
        let path = format!("/get_report?report_id={id}");
        let deadline = Instant::now() + Duration::from_secs(8);
        loop {
            match ask(&address, "GET", &path).await.unwrap() {
                (202, ..) if Instant::now() < deadline => sleep(Duration::from_millis(5)).await,
                (status, head, _) => break assert_eq!(status, 200, "{head}"),
            }
        }
    }
    let rows: i64 = database
        .connect()
        .await
        .query_one("SELECT count(*) FROM public.reports", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(
        usize::try_from(rows).unwrap(),
        ids.len(),
        "a row for each id that was given away, and no other"
    );
    if let (Some(quiet), Some(mb)) = (quiet_mb, memory_mb(serve.pid())) {
        assert!(mb < quiet + 50, "{quiet} -> {mb} MB");
    }
}
