//! The shape of the fleet, and that it is the same each time.

use std::collections::{HashMap, HashSet};

use chrono_tz::Tz;

use super::store::ODD_ZONES;
use super::*;
use crate::import::Table;
use crate::import::record::Records;
use crate::store::{EVERY_STORE, Status, check_store_id};
use crate::time::{MINUTE_US, Span};

fn small() -> FleetOptions {
    FleetOptions {
        stores: 60,
        days: 3,
        ..FleetOptions::default()
    }
}

/// A share of a count, in whole percent.
fn percent(part: usize, of: usize) -> usize {
    part * 100 / of
}

#[test]
fn the_same_options_give_the_same_fleet_and_another_seed_another() {
    let text = |options| {
        let fleet = Fleet::generate(options);
        let mut out = Vec::new();
        fleet.write_timezones_csv(&mut out).unwrap();
        fleet.write_hours_csv(&mut out).unwrap();
        fleet.write_activity_csv(&mut out).unwrap();
        (out, fleet.live().take(100).collect::<Vec<_>>())
    };
    assert!(text(small()) == text(small()));
    assert!(text(small()) != text(FleetOptions { seed: 2, ..small() }));
}

#[test]
fn stores_have_the_zones_and_hours_of_the_real_ones() {
    let fleet = Fleet::generate(FleetOptions::default());
    let stores = fleet.stores();
    let ids: HashSet<&str> = stores.iter().map(|store| store.store_id.as_str()).collect();
    assert_eq!(ids.len(), 13_559);
    assert!(ids.iter().all(|id| check_store_id(id).is_ok()));
    let uuids = ids.iter().filter(|id| id.parse::<uuid::Uuid>().is_ok()).count();
    let integers = ids.iter().filter(|id| id.parse::<i64>().is_ok()).count();
    assert_eq!((percent(uuids, ids.len()), uuids + integers), (24, ids.len()));

    let mut zones: HashMap<Option<Tz>, usize> = HashMap::new();
    for store in stores {
        *zones.entry(store.zone).or_default() += 1;
    }
    let share = |zone| percent(zones.get(&zone).copied().unwrap_or(0), stores.len());
    assert!((57..=61).contains(&share(Some(Tz::America__New_York))), "{zones:?}");
    assert!((22..=25).contains(&share(Some(Tz::America__Los_Angeles))), "{zones:?}");
    assert!((1..=3).contains(&share(None)), "{zones:?}");
    assert!(
        ODD_ZONES.iter().all(|&zone| zones.get(&Some(zone)) == Some(&7)),
        "{zones:?}"
    );

    let with_hours = stores.iter().filter(|store| !store.hours.is_empty()).count();
    assert!((81..=83).contains(&percent(with_hours, stores.len())));
    let rows: Vec<_> = fleet.hours_rows().collect();
    let to_midnight = rows.iter().filter(|row| row.end_us >= DAY_US - MINUTE_US).count();
    assert!((29..=33).contains(&percent(to_midnight, rows.len())));
    assert!(rows.iter().any(|row| row.start_us > row.end_us), "overnight");
    assert!(rows.iter().any(|row| row.start_us == row.end_us), "the full 24 hours");
    let pairs = || {
        rows.iter()
            .zip(&rows[1..])
            .filter(|(a, b)| (a.store_id, a.day) == (b.store_id, b.day))
    };
    assert!(pairs().any(|(a, b)| a.end_us < b.start_us), "split");
    assert!(pairs().any(|(a, b)| a.end_us == b.start_us), "touching");
    assert!(pairs().any(|(a, b)| a.end_us > b.start_us), "overlapping");
    let days = |store: &FleetStore| store.hours.iter().map(|row| row.day).collect::<HashSet<_>>().len();
    assert!(stores.iter().any(|store| days(store) == 6), "a closed weekday");
    let distinct: HashSet<_> = rows.iter().map(|r| (r.store_id, r.day, r.start_us, r.end_us)).collect();
    assert_eq!(distinct.len(), rows.len(), "the table has a key over all columns");
}

#[test]
fn even_a_small_fleet_sees_every_rule() {
    let fleet = Fleet::generate(small());
    let zones: HashSet<_> = fleet.stores().iter().map(|store| store.zone).collect();
    assert!(ODD_ZONES.iter().all(|&zone| zones.contains(&Some(zone))) && zones.contains(&None));
    assert!(fleet.stores().iter().any(|store| store.hours.is_empty()));
}

#[test]
fn the_feed_has_the_gaps_and_outages_of_the_real_one() {
    let options = FleetOptions {
        stores: 2_000,
        ..FleetOptions::default()
    };
    let fleet = Fleet::generate(options);
    let polls: Vec<Poll> = fleet.backfill().collect();
    assert!(polls.is_sorted_by_key(|poll| poll.at));
    let keys: HashSet<_> = polls.iter().map(|poll| (poll.store, poll.at)).collect();
    assert_eq!(keys.len(), polls.len(), "one observation per store and instant");
    let span = Span::new(options.end.plus(-8 * DAY_US), options.end);
    assert!(polls.iter().all(|poll| span.contains(poll.at)));
    assert!((70..=71).contains(&percent(polls.len(), 2_000 * 8 * 24)));
    // 2.2 outages of 4 hours (mean of the lognormal) in 8 days are 4.6 % of the time.
    let down = polls.iter().filter(|poll| poll.status == Status::Inactive).count();
    assert!(
        (4..=5).contains(&percent(down, polls.len())),
        "{down} of {}",
        polls.len()
    );
}

#[test]
fn the_live_feed_goes_on_where_the_backfill_ends() {
    let fleet = Fleet::generate(small());
    let end = fleet.options().end;
    let live: Vec<Poll> = fleet.live().take_while(|poll| poll.at < end.plus(DAY_US)).collect();
    assert!(live.is_sorted() && live.iter().all(|poll| poll.at >= end));
    // A feed that began earlier tells the same.
    let slots = Feed::starting(&fleet, -72).filter(|poll| poll.at >= end);
    assert!(slots.take(live.len()).eq(live.iter().copied()));
}

#[test]
fn by_store_the_backfill_is_the_same() {
    // Longer than a block of outages, and an interval that does not divide it.
    let fleet = Fleet::generate(FleetOptions {
        stores: 20,
        days: 20,
        poll_interval_us: 97 * MINUTE_US,
        ..FleetOptions::default()
    });
    let mut polls: Vec<Poll> = fleet.backfill_by_store().collect();
    assert!(polls.is_sorted_by_key(|poll| (poll.store, poll.at)));
    polls.sort_unstable();
    assert!(fleet.backfill().eq(polls));
}

#[test]
fn an_instant_is_spelled_as_the_feed_spells_it() {
    for micros in [
        0,
        1,
        1_674_389_379_388_884,
        1_674_670_402_479_220,
        4_102_444_799_999_999,
    ] {
        let at = Timestamp::from_micros(micros);
        let mut line = Vec::new();
        push_utc(&mut line, at);
        let expected = at.to_chrono().format("%Y-%m-%d %H:%M:%S%.6f UTC").to_string();
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }
}

#[test]
fn a_feed_that_can_hold_nothing_ends() {
    let none = Fleet::generate(FleetOptions { stores: 0, ..small() });
    assert_eq!(none.live().next(), None);
    let silent = Fleet::generate(FleetOptions {
        missing: 1.0,
        ..small()
    });
    assert_eq!(silent.backfill().next(), None);
}

#[test]
fn what_is_written_is_what_the_importer_reads() {
    let fleet = Fleet::generate(small());
    let mut csv = Vec::new();
    fleet.write_activity_csv(&mut csv).unwrap();
    let mut records = Records::open(&csv[..], "a.csv", Table::Activity).unwrap();
    for row in fleet.activity_rows() {
        let record = records.next_record().unwrap().unwrap().unwrap();
        assert_eq!(ActivityRow::parse(&record).unwrap(), row);
    }
    assert!(records.next_record().unwrap().is_none());

    csv.clear();
    fleet.write_hours_csv(&mut csv).unwrap();
    let mut records = Records::open(&csv[..], "h.csv", Table::Hours).unwrap();
    for row in fleet.hours_rows() {
        let record = records.next_record().unwrap().unwrap().unwrap();
        assert_eq!(HoursRow::parse(&record).unwrap(), row);
    }

    let many = Fleet::generate(FleetOptions { stores: 400, ..small() });
    csv.clear();
    let closed = many.write_closures_csv(&mut csv).unwrap();
    let mut records = Records::open(&csv[..], "c.csv", Table::Closures).unwrap();
    for row in many.closure_rows() {
        let record = records.next_record().unwrap().unwrap().unwrap();
        assert_eq!(ClosureRow::parse(&record).unwrap(), row);
    }
    let of_all = many.closure_rows().filter(|row| row.store_id == EVERY_STORE).count();
    assert!(of_all == 1 && closed > 1, "{closed} closures");

    csv.clear();
    fleet.write_timezones_csv(&mut csv).unwrap();
    let mut records = Records::open(&csv[..], "t.csv", Table::Timezones).unwrap();
    for row in fleet.timezone_rows() {
        let record = records.next_record().unwrap().unwrap().unwrap();
        assert_eq!(TimezoneRow::parse(&record).unwrap(), row);
    }
}
