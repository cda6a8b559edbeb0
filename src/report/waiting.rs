//! The reports that wait for their turn, and who may share one.
//!
//! A report that waits has not asked for its point yet. Whoever asks for the same meanwhile can have it: it will contain
//! everything that was committed before either of them asked. A report leaves this list, under its lock, before it asks.
//!
//! A report that is complete is not shared, though nothing may have changed since. Whether something has is known to the
//! database only; asking first would lengthen every trigger by a round trip, which today passes while the row is
//! recorded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;
use uuid::Uuid;

use super::registry::{TriggerError, Triggered};
use super::{AsOf, ReportRequest};
use crate::time::Timestamp;
use crate::window::WINDOWS_STEP_US;

/// Bounded by the registry's admission.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Vec<Entry>>);

struct Entry {
    report_id: Uuid,
    request: ReportRequest,
    told: watch::Receiver<Option<Told>>,
}

/// The list, locked.
pub(super) struct Guard<'a> {
    all: &'a Arc<Waiting>,
    entries: MutexGuard<'a, Vec<Entry>>,
}

/// A report's place in the list; dropped, it leaves.
pub(super) struct Place {
    all: Arc<Waiting>,
    report_id: Uuid,
}

/// What is told to all who wait for a report's row.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) outcome: Result<Triggered, TriggerError>,
    /// The recorded instant of a report of now, and a time at which the database's clock had not passed it.
    now: Option<(Timestamp, Instant)>,
}

impl Told {
    /// `asked`: when the row was sent to the database.
    pub(super) fn new(requested: AsOf, asked: Instant, outcome: Result<Triggered, TriggerError>) -> Self {
        let as_of = outcome.as_ref().ok().and_then(|triggered| triggered.as_of);
        let now = as_of.filter(|_| requested == AsOf::Now).map(|as_of| (as_of, asked));
        Told { outcome, now }
    }

    /// Whether somebody who asked at `at` gets what they asked for: of a report of now, the windows must not have moved
    /// on. Only the time that has passed counts here; whether our clock and the database's agree does not.
    pub(super) fn serves(&self, at: Instant) -> bool {
        self.now.is_none_or(|(as_of, asked)| {
            let passed_us = at.saturating_duration_since(asked).as_micros();
            let latest = as_of.plus(i64::try_from(passed_us).unwrap_or(i64::MAX / 2));
            let step = |at: Timestamp| at.micros().div_euclid(WINDOWS_STEP_US);
            step(as_of) == step(latest)
        })
    }
}

impl Waiting {
    pub(super) fn lock(self: &Arc<Self>) -> Guard<'_> {
        Guard {
            all: self,
            entries: self.0.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl Guard<'_> {
    /// What will be told of a waiting report that is the one asked for at `at`. If its row is still being recorded,
    /// [`Told::serves`] has to be asked again.
    pub(super) fn find(&self, request: &ReportRequest, at: Instant) -> Option<watch::Receiver<Option<Told>>> {
        let serves = |told: &Option<Told>| told.as_ref().is_none_or(|told| told.serves(at));
        let same = self
            .entries
            .iter()
            .find(|entry| entry.request == *request && serves(&entry.told.borrow()));
        same.map(|entry| entry.told.clone())
    }

    pub(super) fn push(
        &mut self,
        report_id: Uuid,
        request: ReportRequest,
        told: watch::Receiver<Option<Told>>,
    ) -> Place {
        self.entries.push(Entry {
            report_id,
            request,
            told,
        });
        Place {
            all: Arc::clone(self.all),
            report_id,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut entries = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.report_id != self.report_id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_report_of_now_is_shared_until_its_windows_move_on() {
        let triggered = |as_of| {
            Ok(Triggered {
                report_id: Uuid::nil(),
                as_of,
            })
        };
        let before = Instant::now();
        let asked = before + Duration::from_millis(1);
        let as_of = Timestamp::from_micros(100 * WINDOWS_STEP_US - 1_000_000);
        let told = |requested| Told::new(requested, asked, triggered(Some(as_of)));
        for (requested, passed_ms, serves) in [
            (AsOf::Now, 0, true),
            (AsOf::Now, 999, true),
            (AsOf::Now, 1_000, false),
            (AsOf::At(as_of), 1_000_000, true),
        ] {
            let at = asked + Duration::from_millis(passed_ms);
            assert_eq!(told(requested).serves(at), serves, "{requested} {passed_ms}");
        }
        assert!(told(AsOf::Now).serves(before), "asked before the row was sent");
        assert!(Told::new(AsOf::Latest, asked, triggered(None)).serves(asked + Duration::from_secs(9_999)));
    }
}
