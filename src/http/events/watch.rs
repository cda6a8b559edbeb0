//! The task that looks what happens in the fleet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use super::ring::{Kind, Ring};
use crate::http::v1::fleet::FleetNow;
use crate::http::v1::reports::ReportAnswer;
use crate::live::{Live, LiveError};
use crate::overview::{Overview, State, States};
use crate::report::Registry;
use crate::time::Timestamp;
use crate::window::Windows;

/// Looks are so far apart at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// And take at most this part of the time, as for fleets of millions each takes a while.
const PAUSE_FACTOR: u32 = 10;

/// How often it is looked whether somebody listens.
const IDLE: Duration = Duration::from_millis(50);

/// Changes that are listed in one event.
const CHANGES_LISTED_MAX: usize = 100;

/// Stores whose state is another than at the look before.
#[allow(clippy::struct_field_names, reason = "they are those of the event")]
#[derive(Debug, Serialize, JsonSchema)]
struct Changes {
    /// When it was looked.
    at: Timestamp,
    /// By id, at most 100.
    changes: Vec<Change>,
    /// How many more there are.
    more: u64,
}

/// A store whose state is another one; null where it was not there, or is not any more.
#[derive(Debug, Serialize, JsonSchema)]
struct Change {
    store_id: String,
    from: Option<State>,
    to: Option<State>,
}

/// Looks for as long as somebody listens, until no more events are wanted.
pub(super) async fn watch(ring: Arc<Ring>, live: Live) {
    let mut seen = Seen::default();
    let looking = async {
        loop {
            if ring.subscribers() == 0 {
                ring.forget_fleet();
                seen.fleet = None;
                tokio::time::sleep(IDLE).await;
                continue;
            }
            let began = Instant::now();
            seen.look(&ring, &live).await;
            tokio::time::sleep((began.elapsed() * PAUSE_FACTOR).max(LOOK_EVERY)).await;
        }
    };
    tokio::select! {
        () = looking => {}
        () = ring.closed() => {}
    }
}

/// Tells of reports that end, until no more events are wanted. Also while nobody listens: who comes back is told what ended
/// meanwhile.
pub(super) async fn watch_reports(ring: Arc<Ring>, registry: Registry) {
    let mut endings = registry.endings();
    let telling = async {
        loop {
            match endings.recv().await {
                // Its row says so already. A database that is away now is none that anybody hears from.
                Ok(report_id) => {
                    if let Ok(Some(report)) = registry.report(report_id).await {
                        ring.push(Kind::Report, &ReportAnswer::from(report));
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    };
    tokio::select! {
        () = telling => {}
        () = ring.closed() => {}
    }
}

/// What was told last.
#[derive(Debug, Default)]
struct Seen {
    fleet: Option<FleetNow>,
    states: Option<States>,
}

impl Seen {
    async fn look(&mut self, ring: &Ring, live: &Live) {
        let overview = tokio::time::timeout(LOOK_EVERY, live.overview(Windows::Rolling)).await;
        let fleet = match overview {
            Ok(Ok(overview)) => {
                self.tell_changes(ring, overview.clone()).await;
                FleetNow::of(&overview, live.feed())
            }
            // The numbers stay as they were; that they are old is told.
            Err(_) | Ok(Err(LiveError::NotFollowing(_) | LiveError::Db(_) | LiveError::BrokeOff)) => {
                let Some(fleet) = self.fleet.clone() else { return };
                FleetNow {
                    feed: live.feed().into(),
                    ..fleet
                }
            }
        };
        if self.fleet.as_ref().is_none_or(|before| differs(before, &fleet)) {
            ring.push(Kind::Fleet, &fleet);
            self.fleet = Some(fleet);
        }
    }

    async fn tell_changes(&mut self, ring: &Ring, overview: Arc<Overview>) {
        let before = self.states.take();
        let compare = move || {
            let states = overview.states();
            let changes = before.as_ref().map(|before| {
                let changes = states.since(before);
                let listed = changes.iter().take(CHANGES_LISTED_MAX).map(|change| Change {
                    store_id: change.id.to_owned(),
                    from: change.from,
                    to: change.to,
                });
                Changes {
                    at: overview.asked().as_of,
                    changes: listed.collect(),
                    more: changes.len().saturating_sub(CHANGES_LISTED_MAX) as u64,
                }
            });
            (states, changes)
        };
        // Broken off, the next look begins anew.
        let Ok((states, changes)) = crate::live::blocking(compare).await else {
            return;
        };
        self.states = Some(states);
        if let Some(changes) = changes.filter(|changes| !changes.changes.is_empty()) {
            ring.push(Kind::Changes, &changes);
        }
    }
}

/// Whether there is something to tell: that time has passed is nothing.
fn differs(before: &FleetNow, now: &FleetNow) -> bool {
    let told = |fleet: &FleetNow| {
        let feed = (fleet.feed.ready, fleet.feed.reason.clone());
        (fleet.newest, fleet.stores, fleet.counts, feed)
    };
    told(before) != told(now)
}
