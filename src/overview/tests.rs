use super::*;
use crate::rollup::{Limits, Rollup};
use crate::schedule::{DEFAULT_ZONE, Schedule, WeeklyHours};
use crate::time::{HOUR_US, MINUTE_US};

const NOW: Timestamp = Timestamp::from_micros(1_699_445_820_000_000);

fn observed(minutes_ago: i64, status: Status) -> Observation {
    let at = NOW.plus(-minutes_ago * MINUTE_US);
    Observation { at, status }
}

#[test]
fn a_state_is_the_first_that_applies() {
    use Status::{Active, Inactive};
    for (is_open, last, expected) in [
        (false, None, State::OutsideHours),
        (false, Some(observed(1, Inactive)), State::OutsideHours),
        (true, None, State::Silent),
        (true, Some(observed(121, Inactive)), State::Silent),
        (true, Some(observed(120, Inactive)), State::Offline),
        (true, Some(observed(120, Active)), State::Online),
        (true, Some(observed(-30, Active)), State::Online),
    ] {
        let state = State::of(is_open, last, NOW, 2 * HOUR_US);
        assert_eq!(state, expected, "{is_open} {last:?}");
        assert_eq!(state.as_str().parse(), Ok(state));
    }
    assert!("open".parse::<State>().is_err());
}

fn states(rollup: &mut Rollup) -> States {
    let asked = Asked {
        as_of: NOW,
        windows: Windows::Rolling,
        silent_after_us: HOUR_US,
    };
    Overview::new(rollup.snapshot(), asked).states()
}

#[test]
fn changes_are_those_of_stores_that_stay_come_and_go() {
    let mut rollup = Rollup::new(Limits::default(), NOW);
    let always = Schedule::new(DEFAULT_ZONE, WeeklyHours::always_open());
    let [b, d] = ["b", "d"].map(|id| rollup.enroll(id, &always));
    let see = |rollup: &mut Rollup, store, status| {
        let observation = observed(1, status);
        assert_eq!(rollup.apply(&mut [(store, observation)]), []);
    };
    see(&mut rollup, b, Status::Active);
    let first = states(&mut rollup);
    assert_eq!(first.since(&first), []);
    see(&mut rollup, b, Status::Inactive);
    let second = states(&mut rollup);
    let change = |id, from, to| Change { id, from, to };
    let (online, offline, silent) = (Some(State::Online), Some(State::Offline), Some(State::Silent));
    assert_eq!(second.since(&first), [change("b", online, offline)]);
    let a = rollup.enroll("a", &always);
    rollup.enroll("c", &always);
    see(&mut rollup, a, Status::Active);
    rollup.remove(d);
    see(&mut rollup, b, Status::Active);
    let third = states(&mut rollup);
    assert_eq!(
        third.since(&second),
        [
            change("a", None, online),
            change("b", offline, online),
            change("c", None, silent),
            change("d", silent, None),
        ]
    );
    assert_eq!(second.since(&third).len(), 4, "and back");
}
