//! Since when a connection has kept us waiting: for a request, or for the taking of an answer.
//!
//! Kept for each connection by what passes through it: the service sees requests come and go, [`WatchedRequest`] and
//! [`WatchedAnswer`] their bodies, and the stream below (module `stall`) the bytes that nobody takes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, Incoming, SizeHint};

/// What one connection is doing. Shared by the parts of the connection and by whoever looks for room.
#[derive(Debug)]
pub(super) struct Presence {
    opened: Instant,
    /// Nothing was read from it yet: what it has sent may lie there.
    unheard: AtomicBool,
    /// Since when we wait for (the rest of) a request.
    asking: Since,
    /// Since when we wait for the client to take bytes.
    taking: Since,
}

/// Microseconds after the opening of the connection, plus one; 0 for "not".
#[derive(Debug, Default)]
struct Since(AtomicU64);

impl Presence {
    /// A connection that was just opened.
    pub(super) fn opened_now() -> Arc<Self> {
        Arc::new(Presence {
            opened: Instant::now(),
            unheard: AtomicBool::new(true),
            asking: Since::default(),
            taking: Since::default(),
        })
    }

    /// There is nothing (more) to read. Says that a request is waited for only if none has come yet: later on, reading
    /// also finds out whether the client is still there.
    pub(super) fn is_silent(&self) {
        if self.unheard.swap(false, Ordering::Relaxed) {
            self.waits_for_request();
        }
    }

    pub(super) fn waits_for_request(&self) {
        self.asking.begin(self.opened);
    }

    pub(super) fn has_asked(&self) {
        self.unheard.store(false, Ordering::Relaxed);
        self.asking.end();
    }

    pub(super) fn waits_for_taking(&self) {
        self.taking.begin(self.opened);
    }

    pub(super) fn has_taken(&self) {
        self.taking.end();
        // An answer that is in one piece was handed on long before it is taken: only now may the next request come.
        if self.asking.get(self.opened).is_some() {
            self.asking.end();
            self.asking.begin(self.opened);
        }
    }

    /// When it began to keep us waiting, if it may be closed for that: one that asks at once, one that takes an answer
    /// after `grace`, so that a download over a slow line is not one of those.
    pub(super) fn kept_waiting_since(&self, grace: Duration) -> Option<Instant> {
        match self.taking.get(self.opened) {
            Some(since) => (since.elapsed() >= grace).then_some(since),
            None => self.asking.get(self.opened),
        }
    }
}

impl Since {
    fn begin(&self, opened: Instant) {
        let now = u64::try_from(opened.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        // One that waits already has been waiting for longer.
        let _ = self
            .0
            .compare_exchange(0, now + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn get(&self, opened: Instant) -> Option<Instant> {
        let since = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        opened.checked_add(Duration::from_micros(since))
    }
}

/// A request's body: who waits for a piece of it is kept waiting.
pub(super) struct WatchedRequest {
    body: Incoming,
    presence: Arc<Presence>,
}

impl WatchedRequest {
    pub(super) fn new(body: Incoming, presence: Arc<Presence>) -> Self {
        WatchedRequest { body, presence }
    }
}

impl hyper::body::Body for WatchedRequest {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.presence.waits_for_request();
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.presence.has_asked();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for WatchedRequest {
    fn drop(&mut self) {
        // Nobody waits for it any more.
        self.presence.has_asked();
    }
}

/// An answer's body: when it is over, the next request is waited for.
pub(super) struct WatchedAnswer {
    body: Body,
    presence: Arc<Presence>,
}

impl WatchedAnswer {
    pub(super) fn new(body: Body, presence: Arc<Presence>) -> Self {
        WatchedAnswer { body, presence }
    }
}

impl hyper::body::Body for WatchedAnswer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for WatchedAnswer {
    fn drop(&mut self) {
        self.presence.waits_for_request();
    }
}
