//! Some of the stores, in some order, a page of them.

use std::cmp::Ordering;

use chrono_tz::Tz;

use super::{Overview, State, StoreNow};
use crate::rollup::Sums;
use crate::window::ParseChoiceError;

/// What stores are ordered by. Of a window: 0 is the hour, 1 the day, 2 the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// The id, bytewise.
    Id,
    /// Active time as a part of opening time.
    Uptime(usize),
    /// Inactive time.
    Down(usize),
    /// When it was last observed.
    LastObserved,
}

impl Sort {
    /// The words that are read, each with what it says.
    pub const WORDS: [(&'static str, Sort); 8] = [
        ("id", Sort::Id),
        ("uptime_last_hour", Sort::Uptime(0)),
        ("uptime_last_day", Sort::Uptime(1)),
        ("uptime_last_week", Sort::Uptime(2)),
        ("down_last_hour", Sort::Down(0)),
        ("down_last_day", Sort::Down(1)),
        ("down_last_week", Sort::Down(2)),
        ("last_observed_at", Sort::LastObserved),
    ];

    /// Whether the order is descending where nothing else is asked for: the worst comes first.
    pub fn is_descending(self) -> bool {
        matches!(self, Sort::Down(_))
    }
}

impl std::str::FromStr for Sort {
    type Err = ParseChoiceError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let known = Sort::WORDS.into_iter().find(|(known, _)| *known == word);
        known.map(|(_, sort)| sort).ok_or(ParseChoiceError(
            "id, last_observed_at, or uptime_ or down_ with last_hour, last_day or last_week",
        ))
    }
}

/// Which stores, in which order, and which of those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Only those in this state.
    pub state: Option<State>,
    /// Only those whose id has this in it, whatever the case of ASCII letters.
    pub part_of_id: Option<String>,
    /// Only those in this zone.
    pub timezone: Option<Tz>,
    /// The order. Equals follow by id; those without a value come last.
    pub sort: Sort,
    /// The other way round.
    pub descending: bool,
    /// So many at most.
    pub limit: usize,
    /// Leaving out so many.
    pub offset: usize,
}

/// A page of stores.
#[derive(Debug)]
pub struct Listed<'a> {
    /// How many there are on all pages.
    pub total: usize,
    /// Those of this page.
    pub stores: Vec<StoreNow<'a>>,
}

impl Overview {
    /// The stores that are asked for. Linear in their number, since only the pages up to this one are sorted. Blocking.
    pub fn list(&self, query: &Query) -> Listed<'_> {
        let places = (0..).zip(&self.states);
        let mut matching: Vec<u32> = match query.state {
            Some(only) => places
                .filter(|(_, state)| **state == only)
                .map(|(place, _)| place)
                .collect(),
            None => places.map(|(place, _)| place).collect(),
        };
        if query.part_of_id.is_some() || query.timezone.is_some() {
            matching.retain(|&place| self.is_asked_for(place, query));
        }
        let total = matching.len();
        let end = query.offset.saturating_add(query.limit).min(total);
        let compare = |a: &u32, b: &u32| self.compare(*a, *b, query);
        if let Some(last) = end.checked_sub(1) {
            matching.select_nth_unstable_by(last, compare);
        }
        matching.truncate(end);
        matching.sort_unstable_by(compare);
        let page = matching.get(query.offset.min(end)..).unwrap_or_default();
        let stores = page.iter().filter_map(|&place| self.store(place as usize));
        Listed {
            total,
            stores: stores.collect(),
        }
    }

    fn is_asked_for(&self, place: u32, query: &Query) -> bool {
        let Some(store) = self.store(place as usize) else {
            return false;
        };
        let in_zone = |tz: Tz| store.zone.is_some_and(|zone| zone.name() == tz.name());
        query.timezone.is_none_or(in_zone)
            && query
                .part_of_id
                .as_deref()
                .is_none_or(|part| contains_ignoring_case(store.id, part))
    }

    fn compare(&self, a: u32, b: u32, query: &Query) -> Ordering {
        let ordered = |a: Option<Ordering>| {
            a.map_or(
                Ordering::Equal,
                |order| {
                    if query.descending { order.reverse() } else { order }
                },
            )
        };
        let none = Sums {
            down_us: [0; 3],
            whole_us: [0; 3],
        };
        let sums = |place: u32| self.sums.get(place as usize).unwrap_or(&none);
        let window = |all: [i64; 3], window: usize| all.get(window).copied().unwrap_or(0);
        let order = match query.sort {
            Sort::Id => ordered(Some(a.cmp(&b))),
            Sort::Down(w) => ordered(Some(window(sums(a).down_us, w).cmp(&window(sums(b).down_us, w)))),
            Sort::Uptime(w) => {
                let ratio = |place| {
                    let (down, open) = (window(sums(place).down_us, w), window(sums(place).whole_us, w));
                    (open > 0).then(|| (i128::from(open - down), i128::from(open)))
                };
                let (a, b) = (ratio(a), ratio(b));
                // up / open against up / open, without a division.
                let both = a
                    .zip(b)
                    .map(|((up_a, open_a), (up_b, open_b))| (up_a * open_b).cmp(&(up_b * open_a)));
                a.is_none().cmp(&b.is_none()).then(ordered(both))
            }
            Sort::LastObserved => {
                let last = |place: u32| {
                    self.snapshot
                        .stores_in(place as usize..place as usize + 1)
                        .next()?
                        .last()
                };
                let (a, b) = (last(a), last(b));
                let both = a.zip(b).map(|(a, b)| a.at.cmp(&b.at));
                a.is_none().cmp(&b.is_none()).then(ordered(both))
            }
        };
        order.then(a.cmp(&b))
    }
}

fn contains_ignoring_case(text: &str, part: &str) -> bool {
    part.is_empty()
        || text
            .as_bytes()
            .windows(part.len())
            .any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
}
