//! The last events, and who has seen which.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::time::Timestamp;

/// Events that are kept for those who come back, or are slow.
pub(super) const EVENTS_MAX: usize = 256;

/// What an event tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fleet,
    Changes,
    Report,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Fleet => "fleet",
            Kind::Changes => "changes",
            Kind::Report => "report",
        }
    }
}

/// The events. Ids rise by one, from the microseconds of the start on.
#[derive(Debug)]
pub(super) struct Ring {
    kept: Mutex<Kept>,
    /// The newest id; None: closed.
    newest: watch::Sender<Option<u64>>,
    places: Arc<Semaphore>,
    subscribers_max: usize,
}

#[derive(Debug)]
struct Kept {
    /// As they are sent, each with its id; oldest first.
    events: VecDeque<(u64, Bytes)>,
    /// The last one of the fleet, which who is new begins with; None while nobody looks.
    fleet: Option<Bytes>,
}

/// One who listens.
#[derive(Debug)]
pub(super) struct Subscription {
    ring: Arc<Ring>,
    newest: watch::Receiver<Option<u64>>,
    /// The last id that was sent, or need not be.
    seen: u64,
    /// What is sent before anything else.
    first: Option<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Ring {
    /// Without events.
    pub(super) fn new(now: Timestamp, subscribers_max: usize) -> Self {
        let kept = Kept {
            events: VecDeque::new(),
            fleet: None,
        };
        Ring {
            kept: Mutex::new(kept),
            newest: watch::Sender::new(Some(u64::try_from(now.micros()).unwrap_or(0))),
            places: Arc::new(Semaphore::new(subscribers_max)),
            subscribers_max,
        }
    }

    /// Adds an event.
    pub(super) fn push(&self, kind: Kind, data: &impl Serialize) {
        // Our own types are JSON, always.
        let Ok(data) = serde_json::to_string(data) else { return };
        let mut kept = self.kept();
        self.newest.send_if_modified(|newest| {
            let Some(id) = newest else { return false };
            *id += 1;
            let event = text(*id, kind.as_str(), &data);
            if kind == Kind::Fleet {
                kept.fleet = Some(event.clone());
            }
            kept.events.push_back((*id, event));
            if kept.events.len() > EVENTS_MAX {
                kept.events.pop_front();
            }
            true
        });
    }

    /// What was told of the fleet may be old from now on.
    pub(super) fn forget_fleet(&self) {
        self.kept().fleet = None;
    }

    /// A place for one more, who has seen everything up to an id; None: is new. None if there is no place, or no more
    /// events will come.
    pub(super) fn subscribe(self: &Arc<Self>, last_seen: Option<u64>) -> Option<Subscription> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        // Under the lock, so that no event comes in between.
        let kept = self.kept();
        let newest = self.newest.subscribe();
        let newest_id = (*newest.borrow())?;
        let first_kept = kept.events.front().map_or(newest_id + 1, |(id, _)| *id);
        let goes_on = last_seen.filter(|&seen| seen <= newest_id && first_kept <= seen + 1);
        let first = match (goes_on, last_seen) {
            (Some(_), _) => None,
            (None, None) => kept.fleet.clone(),
            (None, Some(_)) => {
                let mut all = text(newest_id, "reset", "{}").to_vec();
                all.extend_from_slice(kept.fleet.as_deref().unwrap_or_default());
                Some(all.into())
            }
        };
        Some(Subscription {
            ring: Arc::clone(self),
            seen: goes_on.unwrap_or(newest_id),
            newest,
            first,
            _place: place,
        })
    }

    /// How many listen.
    pub(super) fn subscribers(&self) -> usize {
        self.subscribers_max - self.places.available_permits()
    }

    /// Returns when no more events will come.
    pub(super) async fn closed(&self) {
        // An error would mean that the ring is gone.
        let _ = self.newest.subscribe().wait_for(Option::is_none).await;
    }

    /// No more events.
    pub(super) fn close(&self) {
        self.newest.send_replace(None);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// The events that were not sent yet, once there are some. None: it is over, because no more come, or because too many
    /// came while nobody took them.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let newest = *self.newest.wait_for(|newest| *newest != Some(self.seen)).await.ok()?;
        newest?;
        let kept = self.ring.kept();
        let seen = self.seen;
        let mut all = Vec::new();
        for (id, event) in kept.events.iter().filter(|(id, _)| *id > seen) {
            if *id != self.seen + 1 {
                return None;
            }
            self.seen = *id;
            all.extend_from_slice(event);
        }
        Some(all.into())
    }
}

fn text(id: u64, kind: &str, data: &str) -> Bytes {
    let mut event = String::with_capacity(data.len() + 64);
    // Writing to a String cannot fail. JSON on one line has no line end in it.
    let _ = write!(event, "id: {id}\nevent: {kind}\ndata: {data}\n\n");
    event.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use super::*;

    fn ring() -> Arc<Ring> {
        Arc::new(Ring::new(Timestamp::from_micros(1_000), 3))
    }

    async fn next(subscription: &mut Subscription) -> Option<String> {
        let next = tokio::time::timeout(std::time::Duration::from_millis(50), subscription.next());
        let next = next.await.ok()??;
        Some(String::from_utf8(next.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn who_is_new_begins_with_the_fleet_and_who_comes_back_goes_on() {
        let ring = ring();
        let mut early = ring.subscribe(None).unwrap();
        assert_eq!(next(&mut early).await, None, "nothing has happened");
        ring.push(Kind::Fleet, &1);
        ring.push(Kind::Changes, &2);
        let all = "id: 1001\nevent: fleet\ndata: 1\n\nid: 1002\nevent: changes\ndata: 2\n\n";
        assert_eq!(next(&mut early).await.unwrap(), all);
        let mut late = ring.subscribe(None).unwrap();
        assert_eq!(next(&mut late).await.unwrap(), "id: 1001\nevent: fleet\ndata: 1\n\n");
        assert_eq!(next(&mut late).await, None);
        drop(late);
        let mut back = ring.subscribe(Some(1001)).unwrap();
        assert_eq!(next(&mut back).await.unwrap(), "id: 1002\nevent: changes\ndata: 2\n\n");
        drop(back);
        let mut back = ring.subscribe(Some(1000)).unwrap();
        assert_eq!(next(&mut back).await.unwrap(), all, "from before the first");
        drop(back);
        for unknown in [0, 999, 1003, u64::MAX - 1, u64::MAX] {
            let mut lost = ring.subscribe(Some(unknown)).unwrap();
            let told = next(&mut lost).await.unwrap();
            assert!(
                told.starts_with("id: 1002\nevent: reset\ndata: {}\n\nid: 1001\nevent: fleet"),
                "{told}"
            );
            assert_eq!(next(&mut lost).await, None);
        }
    }

    #[tokio::test]
    async fn the_slow_are_let_go_and_the_end_is_at_once() {
        let ring = ring();
        let mut slow = ring.subscribe(None).unwrap();
        let mut quick = ring.subscribe(None).unwrap();
        for number in 0..=EVENTS_MAX {
            ring.push(Kind::Changes, &number);
            assert!(next(&mut quick).await.is_some());
        }
        assert_eq!(next(&mut slow).await, None);
        assert!(
            ring.subscribe(None).is_some_and(|_| ring.subscribe(None).is_none()),
            "three places"
        );
        let told = ring.subscribe(Some(1_000)).unwrap().first.unwrap();
        assert!(told.starts_with(b"id: 1257\nevent: reset"), "the oldest went");
        let waiting = tokio::spawn(async move { quick.next().await });
        tokio::task::yield_now().await;
        ring.close();
        assert_eq!(waiting.await.unwrap(), None);
        assert!(ring.subscribe(None).is_none());
        ring.closed().await;
    }
}
