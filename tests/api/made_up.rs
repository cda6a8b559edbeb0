//! Random stores in the tables: zones on the hour, on the half and the quarter, with half-hour cells; hours of every form; polls
//! with gaps; stores that no poll has seen.

use std::fmt::Write as _;

use fastrand::Rng;
use tokio_postgres::Client;
use uptally::time::{DAY_US, HOUR_US, MINUTE_US, Timestamp};

const ZONES: [&str; 10] = [
    "America/Chicago",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Norfolk",
    "America/St_Johns",
    "Europe/Berlin",
    "Pacific/Apia",
    "America/Caracas",
    "America/Havana",
];

/// Fills the tables with stores that were polled for `days` before `now`.
pub async fn fill(client: &Client, rng: &mut Rng, stores: usize, days: i64, now: Timestamp) {
    let mut sql = String::from("SET TimeZone = 'UTC';");
    for store in 0..stores {
        // Bytewise order is not the order of the numbers.
        let id = format!("Store {} {store}", ["é", "a/b", "=1", "B%"][store % 4]);
        if rng.u8(..4) > 0 {
            let zone = ZONES[rng.usize(..ZONES.len())];
            writeln!(sql, "INSERT INTO public.store_timezones VALUES ('{id}', '{zone}');").unwrap();
        }
        for (day, start, end) in hours(rng) {
            writeln!(
                sql,
                "INSERT INTO public.store_business_hours VALUES ('{id}', {day}, '{start}', '{end}') ON CONFLICT DO NOTHING;"
            )
            .unwrap();
        }
        if rng.u8(..6) == 0 {
            // Never seen; and known to no table, if it has neither hours nor a zone.
            continue;
        }
        let first = now.plus(-rng.i64(1..days * DAY_US));
        // Some are silent for days.
        let last = now.plus(-*rng.choice(&[0, 0, 0, 3 * HOUR_US, 3 * DAY_US]).unwrap());
        let mut at = first;
        let mut values = Vec::new();
        let mut down = false;
        while at < last {
            down ^= rng.u8(..4) == 0;
            values.push(row(&id, at, down));
            let pause_max = *rng
                .choice(&[5 * MINUTE_US, 90 * MINUTE_US, 90 * MINUTE_US, DAY_US])
                .unwrap();
            at = at.plus(rng.i64(1..pause_max));
        }
        // One that is dated ahead, some of them too far to count.
        if rng.u8(..4) == 0 {
            values.push(row(&id, now.plus(rng.i64(1..2 * HOUR_US)), rng.bool()));
        }
        if !values.is_empty() {
            let values = values.join(",");
            writeln!(
                sql,
                "INSERT INTO public.store_activity VALUES {values} ON CONFLICT DO NOTHING;"
            )
            .unwrap();
        }
    }
    client.batch_execute(&sql).await.unwrap();
}

/// Rows that come late, corrections, deletions, and another schedule for some.
pub async fn disturb(client: &Client, rng: &mut Rng, now: Timestamp) {
    let ids = client
        .query("SELECT DISTINCT store_id FROM public.store_activity", &[])
        .await;
    let ids: Vec<String> = ids.unwrap().iter().map(|row| row.get(0)).collect();
    let mut sql = String::from("SET TimeZone = 'UTC';");
    for _ in 0..40 {
        let id = &ids[rng.usize(..ids.len())];
        let at = now.plus(-rng.i64(0..12 * DAY_US));
        let late = row(id, at, rng.bool());
        writeln!(
            sql,
            "INSERT INTO public.store_activity VALUES {late} ON CONFLICT DO NOTHING;"
        )
        .unwrap();
    }
    sql.push_str(
        "UPDATE public.store_activity SET status = CASE status WHEN 'active' THEN 'inactive' ELSE 'active' END
             WHERE hashtext(store_id || timestamp_utc) % 23 = 0;
         DELETE FROM public.store_activity WHERE hashtext(store_id || timestamp_utc) % 29 = 0
             AND timestamp_utc > (SELECT min(timestamp_utc) FROM public.store_activity);
         UPDATE public.store_timezones SET timezone_str = 'Asia/Kolkata' WHERE hashtext(store_id) % 7 = 0;
         DELETE FROM public.store_business_hours WHERE hashtext(store_id) % 11 = 0;",
    );
    client.batch_execute(&sql).await.unwrap();
}

fn row(id: &str, at: Timestamp, down: bool) -> String {
    let status = if down { "inactive" } else { "active" };
    format!("('{id}', '{at}', '{status}')")
}

/// Rows of hours.
fn hours(rng: &mut Rng) -> Vec<(u8, &'static str, &'static str)> {
    const FORMS: [&[(&str, &str)]; 6] = [
        &[("09:00", "17:00")],
        &[("08:10:30.5", "12:00"), ("13:00", "23:59")],
        &[("22:15", "06:45")],
        &[("10:00", "10:00")],
        &[("00:00", "24:00")],
        &[("01:30", "02:30"), ("02:15", "05:00")],
    ];
    let form = match rng.usize(..8) {
        form if form < FORMS.len() => FORMS[form],
        _ => return Vec::new(),
    };
    let days = (0..7).filter(|_| rng.u8(..5) > 0).collect::<Vec<u8>>();
    let rows = days
        .into_iter()
        .flat_map(|day| form.iter().map(move |(start, end)| (day, *start, *end)));
    rows.collect()
}
