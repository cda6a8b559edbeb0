//! The newest observations of one store, and what one more changes.
//!
//! The status is a step function: an observation holds until the next one, and before the first the
//! store is active. So inserting one observation can only flip the stretch up to the next one, and
//! only if the status before it differs. That one rule serves rows in order, late rows and
//! corrections, and applying a row twice changes nothing.

use super::Observation;
use crate::schedule::Grid;
use crate::store::Status;
use crate::time::{Span, Timestamp};

/// How many observations are kept per store: this many polls back a late row is settled in memory.
/// 8 are 64 bytes, whatever the polling rate.
pub const RECENT_MAX: usize = 8;

/// The newest observations of a store, oldest first.
///
/// Invariant: strictly ascending in time, and without holes: every observation of the store that is
/// not older than the first one kept is kept. If `complete`, these are all it ever had.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Microseconds times two, plus one if inactive.
    recent: [i64; RECENT_MAX],
    len: u8,
    complete: bool,
}

/// What an observation changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observed {
    /// False: it was known already.
    pub changed: bool,
    /// Cells that follow from the status before and were not kept so far: inactive throughout.
    pub settle: Option<Span>,
    /// A stretch of kept cells in which the status becomes this one, from the other.
    pub flip: Option<(Span, Status)>,
}

/// No observation yet, and that is all there is.
impl Default for Timeline {
    fn default() -> Self {
        Timeline {
            recent: [0; RECENT_MAX],
            len: 0,
            complete: true,
        }
    }
}

impl Timeline {
    /// The last observations of a list in order of time. `complete`: the list holds all there are.
    pub fn from_newest(observations: &[Observation], complete: bool) -> Self {
        let skipped = observations.len().saturating_sub(RECENT_MAX);
        let mut timeline = Timeline {
            complete: complete && skipped == 0,
            ..Timeline::default()
        };
        for &observation in observations.iter().skip(skipped) {
            timeline.insert_at(usize::from(timeline.len), observation);
        }
        timeline
    }

    /// The newest observation.
    pub fn last(&self) -> Option<Observation> {
        self.kept().last().map(|&word| decode(word))
    }

    /// Something from each end of it, which has the whole of it fetched.
    pub(super) fn touch(&self) -> i64 {
        let [first, ..] = self.recent;
        first ^ i64::from(self.len)
    }

    /// Whether a change at `at` touches what is kept here.
    pub fn reaches(&self, at: Timestamp) -> bool {
        self.complete || self.kept().first().is_none_or(|&word| decode(word).at <= at)
    }

    /// Inserts an observation. None, and nothing changed: it lies before what is kept here, or flips a cell
    /// before `known_from`, whose old value nobody holds.
    pub(super) fn insert(&mut self, observation: Observation, grid: Grid, known_from: i32) -> Option<Observed> {
        let place = self.kept().partition_point(|&word| decode(word).at < observation.at);
        let before = place.checked_sub(1).and_then(|i| self.get(i));
        let next = self.get(place);
        let known = next.filter(|n| n.at == observation.at);
        if before.is_none() && known.is_none() && !self.complete {
            return None;
        }
        let old_status = match (known, before) {
            (Some(known), _) => known.status,
            (None, Some(before)) => before.status,
            (None, None) => Status::Active,
        };
        let after = if known.is_some() { self.get(place + 1) } else { next };
        let end = after.map_or_else(|| grid.cell_end_after(observation.at), |n| n.at);
        let flip = (old_status != observation.status).then(|| (Span::new(observation.at, end), observation.status));
        // The first observation in a cell starts from what the status before makes of it: known without
        // being held.
        let cell = grid.cell_of(observation.at);
        let fresh = next.is_none() && before.is_none_or(|b| grid.cell_of(b.at) < cell);
        if flip.is_some() && cell < known_from && !fresh {
            return None;
        }
        if known.is_some() {
            if let Some(word) = self.recent.get_mut(place) {
                *word = encode(observation);
            }
            return Some(Observed {
                changed: flip.is_some(),
                settle: None,
                flip,
            });
        }
        let settle = before
            .filter(|b| next.is_none() && b.status == Status::Inactive)
            .map(|b| Span::new(grid.cell_end_after(b.at), grid.cell_end_after(observation.at)))
            .filter(|span| !span.is_empty());
        self.insert_at(place, observation);
        Some(Observed {
            changed: true,
            settle,
            flip,
        })
    }

    fn kept(&self) -> &[i64] {
        self.recent.get(..usize::from(self.len)).unwrap_or(&self.recent)
    }

    fn get(&self, i: usize) -> Option<Observation> {
        self.kept().get(i).map(|&word| decode(word))
    }

    /// Puts an observation before the `place`-th; the oldest goes if there is no room.
    fn insert_at(&mut self, place: usize, observation: Observation) {
        let word = encode(observation);
        if usize::from(self.len) < RECENT_MAX {
            self.recent.copy_within(place..usize::from(self.len), place + 1);
            self.len += 1;
            if let Some(slot) = self.recent.get_mut(place) {
                *slot = word;
            }
        } else {
            self.complete = false;
            if let Some(slot) = place.checked_sub(1) {
                self.recent.copy_within(1..place, 0);
                if let Some(slot) = self.recent.get_mut(slot) {
                    *slot = word;
                }
            }
        }
    }
}

fn encode(observation: Observation) -> i64 {
    observation.at.micros() * 2 + i64::from(observation.status == Status::Inactive)
}

fn decode(word: i64) -> Observation {
    Observation {
        at: Timestamp::from_micros(word >> 1),
        status: if word & 1 == 1 {
            Status::Inactive
        } else {
            Status::Active
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Zone;
    use crate::time::HOUR_US;

    const T0: Timestamp = Timestamp::from_micros(1_674_000_000_000_000); // 00:00:00 UTC

    fn grid() -> Grid {
        Zone::of(chrono_tz::UTC).grid()
    }

    fn hours(h: i64) -> Timestamp {
        T0.plus(h * HOUR_US)
    }

    fn obs(h: i64, status: Status) -> Observation {
        Observation {
            at: hours(h).plus(1),
            status,
        }
    }

    use Status::{Active, Inactive};

    #[test]
    fn an_inactive_row_flips_its_own_cell_and_settles_the_silence_after_it() {
        let mut t = Timeline::default();
        let first = t.insert(obs(0, Inactive), grid(), i32::MIN).unwrap();
        assert_eq!(first.flip, Some((Span::new(hours(0).plus(1), hours(1)), Inactive)));
        let second = t.insert(obs(3, Active), grid(), i32::MIN).unwrap();
        assert_eq!(second.settle, Some(Span::new(hours(1), hours(4))));
        assert_eq!(second.flip, Some((Span::new(hours(3).plus(1), hours(4)), Active)));
    }

    #[test]
    fn a_row_twice_changes_nothing_and_a_correction_flips_back() {
        let mut t = Timeline::default();
        t.insert(obs(0, Inactive), grid(), i32::MIN);
        t.insert(obs(1, Active), grid(), i32::MIN);
        assert!(!t.insert(obs(0, Inactive), grid(), i32::MIN).unwrap().changed);
        let corrected = t.insert(obs(0, Active), grid(), i32::MIN).unwrap();
        assert_eq!(
            corrected.flip,
            Some((Span::new(hours(0).plus(1), hours(1).plus(1)), Active))
        );
    }

    #[test]
    fn before_what_is_kept_is_late_unless_the_history_is_complete() {
        let mut t = Timeline::default();
        for h in 1..=8 {
            t.insert(obs(h, Active), grid(), i32::MIN);
        }
        // Complete: the store was active before hour 1.
        assert!(
            t.clone()
                .insert(obs(0, Inactive), grid(), i32::MIN)
                .unwrap()
                .flip
                .is_some()
        );
        t.insert(obs(9, Active), grid(), i32::MIN);
        assert_eq!(t.insert(obs(1, Inactive), grid(), i32::MIN), None);
        assert!(t.insert(obs(2, Inactive), grid(), i32::MIN).unwrap().flip.is_some());
        assert!(!t.reaches(hours(2)) && t.reaches(hours(3)));
    }

    #[test]
    fn a_row_in_between_pushes_the_oldest_out() {
        let mut t = Timeline::default();
        for h in (0..16).step_by(2) {
            t.insert(obs(h, Active), grid(), i32::MIN);
        }
        t.insert(obs(5, Inactive), grid(), i32::MIN);
        let kept: Vec<_> = t.kept().iter().map(|&w| decode(w).at).collect();
        let expected: Vec<_> = [2, 4, 5, 6, 8, 10, 12, 14].map(|h| hours(h).plus(1)).into();
        assert_eq!(kept, expected);
    }
}
