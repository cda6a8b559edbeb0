//! The accept loop: connections, their limits and their end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use super::connections::{Connections, Seated};
use super::presence::{Presence, WatchedAnswer, WatchedRequest};
use super::stall::StallGuard;

/// Headers of one request at most; more are answered with 431.
const HEADERS_MAX: usize = 64;
/// Bytes of one request's head at most; more are answered with 431.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// What the server does not go beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeLimits {
    /// Open connections. For a further one, the one that has kept us waiting longest is closed; if none does, it waits.
    pub connections_max: usize,
    /// Longest time from the opening of a connection, or from the last answer, to the end of the
    /// next request's head: slow and silent clients are closed after it.
    pub header_max: Duration,
    /// Longest time that a client may take nothing of what it is sent.
    pub stall_max: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        ServeLimits {
            connections_max: 256,
            header_max: Duration::from_secs(10),
            stall_max: Duration::from_secs(30),
        }
    }
}

/// Serves `router` on `listener` until `shutdown` completes, then closes the listener and idle
/// connections and lets running answers finish, at most until the instant that `shutdown` gave.
/// Returns whether all did; those that did not are cut off.
///
/// HTTP/1 only, and not by protocol detection: the read that detects has no time limit.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = Instant>,
    limits: ServeLimits,
) -> bool {
    let mut http = http1::Builder::new();
    // Without a timer hyper's time limits do nothing.
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_max)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let graceful = GracefulShutdown::new();
    let mut connections = Connections::new(limits.connections_max);
    let mut shutdown = std::pin::pin!(shutdown);
    let cut_off_at = loop {
        let Seated { stream, presence, slot } = tokio::select! {
            biased;
            cut_off_at = &mut shutdown => break cut_off_at,
            seated = connections.next(&listener) => seated,
        };
        // An answer is written whole; waiting for more to send would only delay it.
        let _ = stream.set_nodelay(true);
        let io = TokioIo::new(StallGuard::new(stream, limits.stall_max, Arc::clone(&presence)));
        let service = Watched {
            router: TowerToHyperService::new(router.clone()),
            presence: Arc::clone(&presence),
        };
        let connection = graceful.watch(http.serve_connection(io, service));
        connections.serve(presence, slot, async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended early");
            }
        });
    };
    drop(listener);
    let drained = tokio::time::timeout_at(cut_off_at.into(), graceful.shutdown()).await;
    if drained.is_err() {
        tracing::warn!(open = connections.len(), "cutting off unfinished answers");
    }
    connections.close_all().await;
    drained.is_ok()
}

/// The routes, and the presence of the one connection that they are served to.
struct Watched {
    router: TowerToHyperService<Router>,
    presence: Arc<Presence>,
}

impl Service<Request<Incoming>> for Watched {
    type Response = Response<WatchedAnswer>;
    type Error = Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.presence.has_asked();
        let presence = Arc::clone(&self.presence);
        let request = request.map(|body| Body::new(WatchedRequest::new(body, Arc::clone(&presence))));
        let answer = self.router.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            Ok(answer.map(|body| WatchedAnswer::new(body, presence)))
        })
    }
}
