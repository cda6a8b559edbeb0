//! What happens, as it happens: `GET /api/v1/events`, server-sent events.
//!
//! One task looks at the fleet once a second while somebody subscribes, and puts what changed into a ring (module `ring`).
//! Subscribers have a place in that ring and nothing else: a slow one costs no memory, and is let go when the ring has
//! passed it by. Ids go on rising from one life of the daemon to the next, so that no old place is taken for a new one.

mod ring;
mod watch;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use serde_json::json;

use super::Api;
use super::problem::Problem;
use super::query::{Given, NUMBER_MAX, Param};
use crate::clock::Clock;
use crate::live::Live;
use crate::report::Registry;
use ring::{Ring, Subscription};

/// What `/api/v1/events` takes.
pub(super) const EVENTS: &[Param] = &[Param::new(
    "last_event_id",
    "The last id that was seen, for clients that cannot send the header Last-Event-ID.",
    || json!({"type": "integer", "minimum": 0, "maximum": NUMBER_MAX}),
)];

/// What the stream is.
pub(super) const WHAT: &str = "Events fleet (as /api/v1/fleet without windows), changes ({at, changes: [{store_id, from, to}], \
     more}; from or to is null where the store was not there), at most one of each a second; report (as \
     /api/v1/reports/{report_id}), when one has ended; and reset (some were missed: look at everything again). A comment \
     every 15 s.";

/// A comment is sent after so long without an event, so that nobody in between takes the line for dead.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// How long a browser waits before it comes back, milliseconds.
const RETRY_MS: u32 = 2_000;

/// The events of one daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events(Arc<Ring>);

impl Events {
    /// Without anybody who looks what happens. `subscribers_max`: so many at a time.
    pub fn new(clock: &Clock, subscribers_max: usize) -> Self {
        Events(Arc::new(Ring::new(clock.now(), subscribers_max)))
    }

    /// Starts to look, in tasks that end with [`Events::close`].
    pub fn watch(&self, live: Live, registry: Registry) {
        tokio::spawn(watch::watch(Arc::clone(&self.0), live));
        tokio::spawn(watch::watch_reports(Arc::clone(&self.0), registry));
    }

    /// Ends all streams, at once and for good.
    pub fn close(&self) {
        self.0.close();
    }
}

pub(super) async fn get_events(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let given = Given::read(request.uri(), EVENTS)?;
    let by_query = given.number("last_event_id", 0..=NUMBER_MAX)?;
    let by_header = request.headers().get("last-event-id").map(|value| {
        let id = value.to_str().ok().and_then(|text| text.parse().ok());
        // What is no id of ours is like one that was long ago.
        id.unwrap_or(0)
    });
    let last_seen = by_header.or(by_query.map(|id| id as u64));
    let subscription = api.events.0.subscribe(last_seen).ok_or_else(|| {
        let (status, kind) = (StatusCode::SERVICE_UNAVAILABLE, "too-many-subscribers");
        let detail = "as many subscribers as http.subscribers_max allows are there, or the service ends";
        Problem::new(status, kind, "Too many subscribers", detail).retry_after(5)
    })?;
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/event-stream"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        // Some proxies keep an answer until it is whole.
        ("x-accel-buffering", "no"),
    ];
    Ok((headers, Body::from_stream(text(subscription))).into_response())
}

/// A subscription as bytes, for as long as it goes on.
fn text(subscription: Subscription) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let hello = Bytes::from(format!("retry: {RETRY_MS}\n\n"));
    stream::unfold((Some(hello), subscription), async |(hello, mut subscription)| {
        let piece = match hello {
            Some(hello) => hello,
            None => match tokio::time::timeout(COMMENT_EVERY, subscription.next()).await {
                Ok(events) => events?,
                Err(_) => Bytes::from_static(b":\n\n"),
            },
        };
        Some((Ok(piece), (None, subscription)))
    })
}
