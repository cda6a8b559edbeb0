//! One HTTP connection, kept open, and a report over it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Pause between two looks at a report that is running. Tokio's own pauses are whole milliseconds.
const POLL_EVERY: Duration = Duration::from_micros(200);
const REPORT_PATIENCE: Duration = Duration::from_mins(1);

/// A connection.
pub struct Client {
    sender: http1::SendRequest<Empty<Bytes>>,
    host: String,
}

/// A report and what it took.
pub struct Report {
    pub id: String,
    pub csv: Bytes,
    /// From the trigger to its answer.
    pub answered: Duration,
    /// Of the GET that had the CSV.
    pub fetched: Duration,
    /// From the trigger to the last byte of the CSV.
    pub took: Duration,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client {
            sender,
            host: address.to_string(),
        })
    }

    /// Triggers a report and gets it.
    pub async fn report(&mut self) -> anyhow::Result<Report> {
        self.report_of("/trigger_report").await
    }

    /// The same with options: the path and query of the trigger.
    pub async fn report_of(&mut self, trigger: &str) -> anyhow::Result<Report> {
        let began = Instant::now();
        let triggered = self.send(Method::POST, trigger).await?;
        let (status, location) = (triggered.status(), triggered.headers().get("location").cloned());
        triggered.collect().await?;
        let answered = began.elapsed();
        ensure!(status == StatusCode::ACCEPTED, "POST {trigger}: {status}");
        let location = location.context("no Location")?.to_str()?.to_owned();
        loop {
            let asked = Instant::now();
            let answer = self.send(Method::GET, &location).await?;
            let status = answer.status();
            // Not put together before the clock is read: that is the client's own business.
            let body = answer.collect().await?;
            let (fetched, took) = (asked.elapsed(), began.elapsed());
            match status {
                StatusCode::OK => {
                    let id = location.rsplit('=').next().unwrap_or_default().to_owned();
                    let csv = body.to_bytes();
                    return Ok(Report {
                        id,
                        csv,
                        answered,
                        fetched,
                        took,
                    });
                }
                StatusCode::ACCEPTED if took < REPORT_PATIENCE => std::thread::sleep(POLL_EVERY),
                StatusCode::ACCEPTED => bail!("the report was not complete after {REPORT_PATIENCE:?}"),
                _ => bail!("GET {location}: {status} {}", String::from_utf8_lossy(&body.to_bytes())),
            }
        }
    }

    /// Status and text of an answer.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<(StatusCode, String)> {
        let answer = self.send(Method::GET, path).await?;
        let status = answer.status();
        let body = answer.collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    async fn send(&mut self, method: Method, path: &str) -> anyhow::Result<Response<Incoming>> {
        self.sender.ready().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .body(Empty::new())?;
        Ok(self.sender.send_request(request).await?)
    }
}
