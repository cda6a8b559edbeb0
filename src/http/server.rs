//! The accept loop: connections, their limits and their end.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::stall::StallGuard;

/// Headers of one request at most; more are answered with 431.
const HEADERS_MAX: usize = 64;
/// Bytes of one request's head at most; more are answered with 431.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Pause after the process has run out of file descriptors, which the next accept would only find
/// again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server does not go beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeLimits {
    /// Open connections. Further ones wait in the kernel's queue, unaccepted.
    pub connections_max: usize,
    /// Longest time from the opening of a connection, or from the last answer, to the end of the
    /// next request's head: slow and silent clients are closed after it.
    pub header_max: Duration,
    /// Longest time that a client may take nothing of what it is sent.
    pub stall_max: Duration,
    /// Longest wait for running answers once the server stops.
    pub drain_max: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        ServeLimits {
            connections_max: 256,
            header_max: Duration::from_secs(10),
            stall_max: Duration::from_secs(30),
            drain_max: Duration::from_secs(10),
        }
    }
}

/// Serves `router` on `listener` until `shutdown` completes, then closes the listener and idle
/// connections and lets running answers finish, at most `drain_max`. Returns whether all did; those
/// that did not are cut off.
///
/// HTTP/1 only, and not by protocol detection: the read that detects has no time limit.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
    limits: ServeLimits,
) -> bool {
    let mut http = http1::Builder::new();
    // Without a timer hyper's time limits do nothing.
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_max)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (stream, slot) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        // An answer is written whole; waiting for more to send would only delay it.
        let _ = stream.set_nodelay(true);
        let io = TokioIo::new(StallGuard::new(stream, limits.stall_max));
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(http.serve_connection(io, service));
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended early");
            }
            drop(slot);
        });
        // Forget those that have ended, or the set would grow for ever.
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let drained = tokio::time::timeout(limits.drain_max, graceful.shutdown()).await;
    if drained.is_err() {
        tracing::warn!(open = connections.len(), "cutting off unfinished answers");
    }
    connections.shutdown().await;
    drained.is_ok()
}

/// The next connection, once there is room for it. Goes on after every failure.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // `None` would mean a closed semaphore; nobody closes it.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            // The client's doing: it is gone again.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections, trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
