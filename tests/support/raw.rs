//! The raw tables as the oracle takes them, read without any of the program's own reading.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use uptally::oracle::{RawClosure, RawInterval, RawStore};
use uptally::schedule::DEFAULT_ZONE;
use uptally::time::Timestamp;

/// Every store that any table knows, each with the closures of every store. Observations from `before` on do not count (yet).
pub async fn raw_stores(client: &Client, before: Timestamp) -> Vec<RawStore> {
    // One statement, so one snapshot, even beside writers.
    let sql = "
        SELECT store_id, timezone_str, NULL::int, NULL::bigint, NULL::bigint, NULL::bigint, NULL
        FROM public.store_timezones
        UNION ALL
        SELECT store_id, NULL, day, (extract(epoch FROM start_time_local) * 1000000)::bigint,
               (extract(epoch FROM end_time_local) * 1000000)::bigint, NULL, NULL
        FROM public.store_business_hours
        UNION ALL
        SELECT store_id, NULL, NULL, (extract(epoch FROM closed_from) * 1000000)::bigint,
               (extract(epoch FROM closed_to) * 1000000)::bigint, NULL, NULL
        FROM public.store_closures
        UNION ALL
        SELECT store_id, NULL, NULL, NULL, NULL, (extract(epoch FROM timestamp_utc) * 1000000)::bigint, status
        FROM public.store_activity";
    let mut everywhere = Vec::new();
    let mut stores: BTreeMap<String, RawStore> = BTreeMap::new();
    for row in client.query(sql, &[]).await.unwrap() {
        let id: String = row.get(0);
        let (day, start_us) = (row.get::<_, Option<i32>>(2), row.get::<_, Option<i64>>(3));
        let closure = start_us.filter(|_| day.is_none()).map(|from_us| RawClosure {
            from_us,
            to_us: row.get(4),
        });
        if id == "*" && closure.is_some() {
            everywhere.extend(closure);
            continue;
        }
        let store = stores.entry(id.clone()).or_insert_with(|| RawStore {
            id,
            zone: DEFAULT_ZONE,
            hours: Vec::new(),
            closures: Vec::new(),
            observations: Vec::new(),
        });
        if let Some(zone) = row.get::<_, Option<&str>>(1) {
            store.zone = zone.parse().unwrap();
        }
        store.closures.extend(closure);
        if let Some(day) = day {
            store.hours.push(RawInterval {
                day: u8::try_from(day).unwrap(),
                start_us: row.get(3),
                end_us: row.get(4),
            });
        }
        if let Some(at) = row.get::<_, Option<i64>>(5).map(Timestamp::from_micros)
            && at < before
        {
            store.observations.push((at, row.get::<_, &str>(6).parse().unwrap()));
        }
    }
    let mut stores: Vec<RawStore> = stores.into_values().collect();
    for store in &mut stores {
        store.closures.extend(&everywhere);
    }
    stores
}
