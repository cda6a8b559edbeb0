//! How well a store was observed in the windows of a report.

use super::Observation;
use super::snapshot::{Plan, StoreView};
use crate::time::{Span, Timestamp};

/// How well one store was observed in the windows hour, day and week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ObservedWindows {
    /// Its newest observation at or before the report's instant.
    pub last: Option<Timestamp>,
    /// How often.
    pub count: [u32; 3],
    /// Opening time that lies so soon after an observation that it still counts. Microseconds.
    pub covered_us: [i64; 3],
    /// Opening time. Microseconds.
    pub open_us: [i64; 3],
}

impl StoreView<'_> {
    /// How well it was observed. `observations`: in order of time, those from `valid_us` before the first window to the
    /// instant of the plan, which is of the same snapshot. An observation is good for `valid_us`.
    pub fn observed(&self, plan: &Plan, observations: &[Observation], valid_us: i64) -> Option<ObservedWindows> {
        let (windows, openings) = plan.of(self)?;
        let mut observed = ObservedWindows {
            open_us: windows.map(|window| openings.open_us(window)),
            ..ObservedWindows::default()
        };
        // Until here is counted already: what follows soon adds the rest only.
        let mut covered_to = Timestamp::MIN;
        for &Observation { at, .. } in observations {
            observed.last = Some(at);
            let fresh = Span::new(at.max(covered_to), at.plus(valid_us));
            covered_to = fresh.end;
            let each = observed.count.iter_mut().zip(&mut observed.covered_us).zip(windows);
            for ((count, covered_us), window) in each {
                *count += u32::from(window.contains(at));
                let part = fresh.intersect(window);
                if !part.is_empty() {
                    *covered_us += openings.open_us(part);
                }
            }
        }
        Some(observed)
    }
}
