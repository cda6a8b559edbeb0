//! Openings of one schedule over a stretch of time, resolved once and asked often.

use super::Schedule;
use crate::time::{Span, Timestamp};

/// The openings of a schedule within `covers`: sorted, disjoint, not touching, clipped to it.
#[derive(Debug, Clone)]
pub struct Openings {
    covers: Span,
    spans: Box<[Span]>,
}

impl Openings {
    /// Resolves a schedule over a stretch.
    pub fn new(schedule: &Schedule, covers: Span) -> Self {
        Openings {
            covers,
            spans: schedule.openings(covers).into_boxed_slice(),
        }
    }

    /// The parts of `span` that are open. `span` must lie within what was resolved.
    pub fn within(&self, span: Span) -> impl Iterator<Item = Span> {
        debug_assert!(span.is_empty() || (self.covers.start <= span.start && span.end <= self.covers.end));
        let first = self.spans.partition_point(|opening| opening.end <= span.start);
        self.spans
            .iter()
            .skip(first)
            .take_while(move |opening| opening.start < span.end)
            .map(move |opening| opening.intersect(span))
    }

    /// Opening time inside `span` in microseconds.
    pub fn open_us(&self, span: Span) -> i64 {
        self.within(span).map(Span::len_us).sum()
    }

    /// Whether the schedule is open at an instant, which must lie within what was resolved.
    pub fn contains(&self, at: Timestamp) -> bool {
        let next = self.spans.partition_point(|opening| opening.end <= at);
        self.spans.get(next).is_some_and(|opening| opening.contains(at))
    }

    /// Whether a stretch lies within what was resolved.
    pub fn knows(&self, span: Span) -> bool {
        self.covers.start <= span.start && span.end <= self.covers.end
    }
}
