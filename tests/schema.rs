//! The schema by itself: what it refuses, the hourly view, who may write, and two migrations at once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;

use support::TestDatabase;
use support::check::verify_is_clean;
use support::daemon::Following;
use support::fixture::{NOW, fill};
use support::raw::raw_stores;
use tokio_postgres::error::SqlState;
use uptally::clock::Clock;
use uptally::daemon::Settings;
use uptally::db::Database;
use uptally::oracle::{cells, grid_phase_us};
use uptally::time::{HOUR_US, Span, Timestamp};

#[tokio::test]
async fn constraints_refuse_what_the_types_refuse() {
    let server = TestDatabase::start().await;
    let client = server.connect().await;
    let long = "(repeat('x', 1000000), '2023-01-01', 'active')".to_owned();
    let activity = [
        ("('s', '2023-01-01', 'up')", "status_is_active_or_inactive"),
        ("('s', '2023-01-01', '')", "status_is_active_or_inactive"),
        ("('s', '2023-01-01', 'Active')", "status_is_active_or_inactive"),
        ("('s', '2023-01-01', NULL)", "status"),
        ("('s', NULL, 'active')", "timestamp_utc"),
        ("(NULL, '2023-01-01', 'active')", "store_id"),
        ("('s', 'infinity', 'active')", "timestamp_utc_is_from_2000_to_2100"),
        ("('s', '-infinity', 'active')", "timestamp_utc_is_from_2000_to_2100"),
        ("('s', '294276-12-31', 'active')", "timestamp_utc_is_from_2000_to_2100"),
        (
            "('s', '1999-12-31 23:59:59.999999+00', 'active')",
            "timestamp_utc_is_from_2000_to_2100",
        ),
        ("('s', '2100-01-01+00', 'active')", "timestamp_utc_is_from_2000_to_2100"),
        ("('', '2023-01-01', 'active')", "store_id_is_short_printable_text"),
        (r"(E'a\nb', '2023-01-01', 'active')", "store_id_is_short_printable_text"),
        (
            r"(E'a\x7f', '2023-01-01', 'active')",
            "store_id_is_short_printable_text",
        ),
        (
            r"(E'a\u0085', '2023-01-01', 'active')",
            "store_id_is_short_printable_text",
        ),
        (
            "(repeat('x', 201), '2023-01-01', 'active')",
            "store_id_is_short_printable_text",
        ),
        (
            "(repeat('ü', 101), '2023-01-01', 'active')",
            "store_id_is_short_printable_text",
        ),
        (&long, "store_id_is_short_printable_text"),
    ];
    let hours = [
        ("('s', 7, '09:00', '17:00')", "day_is_0_monday_to_6_sunday"),
        ("('s', -1, '09:00', '17:00')", "day_is_0_monday_to_6_sunday"),
        ("('s', 0, '24:00', '17:00')", "start_is_before_24_00"),
        ("('s', NULL, '09:00', '17:00')", "day"),
        ("('s', 0, NULL, '17:00')", "start_time_local"),
        ("('s', 0, '09:00', NULL)", "end_time_local"),
        (r"(E'\t', 0, '09:00', '17:00')", "store_id_is_short_printable_text"),
    ];
    let closures = [
        ("('s', '2023-12-25', '2023-12-25')", "closed_from_is_before_closed_to"),
        ("('s', '2023-12-26', '2023-12-25')", "closed_from_is_before_closed_to"),
        ("('s', '1999-12-31', '2000-01-02')", "closed_from_2000_to_2100"),
        ("('s', '2099-12-31', '2100-01-01 00:00:01')", "closed_from_2000_to_2100"),
        ("('s', '-infinity', '2023-12-25')", "closed_from_2000_to_2100"),
        ("('s', '2023-12-25', 'infinity')", "closed_from_2000_to_2100"),
        ("('s', NULL, '2023-12-25')", "closed_from"),
        ("('s', '2023-12-25', NULL)", "closed_to"),
        ("(NULL, '2023-12-25', '2023-12-26')", "store_id"),
        ("('', '2023-12-25', '2023-12-26')", "store_id_is_short_printable_text"),
        ("('s', '2023-12-25', '2023-12-26', NULL)", "reason"),
        (
            r"('s', '2023-12-25', '2023-12-26', E'a\nb')",
            "reason_is_short_printable_text",
        ),
        (
            "('s', '2023-12-25', '2023-12-26', repeat('x', 201))",
            "reason_is_short_printable_text",
        ),
    ];
    let zones = [
        ("('s', 'Mars/Olympus_Mons')", "store_timezones_timezone_str_fkey"),
        ("('s', '')", "store_timezones_timezone_str_fkey"),
        ("('s', 'america/chicago')", "store_timezones_timezone_str_fkey"),
        ("('s', NULL)", "timezone_str"),
        ("('', 'America/Chicago')", "store_id_is_short_printable_text"),
    ];
    let tables: [(&str, &[(&str, &str)]); 4] = [
        ("store_activity", &activity),
        ("store_business_hours", &hours),
        ("store_closures", &closures),
        ("store_timezones", &zones),
    ];
    for (table, rows) in tables {
        for (row, expected) in rows {
            let error = client
                .batch_execute(&format!("INSERT INTO public.{table} VALUES {row}"))
                .await;
            let error = error.expect_err(row);
            let error = error.as_db_error().unwrap();
            let told = error.constraint().or(error.column());
            assert_eq!(told, Some(*expected), "{row}: {error}");
        }
        let count = client
            .query_one(&format!("SELECT count(*) FROM public.{table}"), &[])
            .await
            .unwrap();
        assert_eq!(count.get::<_, i64>(0), 0);
    }
    let nul = "INSERT INTO public.store_activity VALUES ($1, '2023-01-01', 'active')";
    let error = client.execute(nul, &[&"a\0b"]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::CHARACTER_NOT_IN_REPERTOIRE));

    let at_the_edge = "INSERT INTO public.store_activity VALUES
            (repeat('x', 200), '2000-01-01+00', 'active'), ('ü =,\"', '2099-12-31 23:59:59.999999+00', 'inactive');
        INSERT INTO public.store_business_hours VALUES ('s', 6, '23:59:59.999999', '24:00'), ('s', 0, '00:00', '00:00');
        INSERT INTO public.store_closures VALUES ('*', '2000-01-01', '2100-01-01', repeat('x', 200)),
            ('s', '2099-12-31 23:59:59.999999', '2100-01-01', '')";
    client.batch_execute(at_the_edge).await.unwrap();
}

/// The view's rows against the oracle's, hour by hour, over the end of summer time in three of the zones.
#[tokio::test]
async fn the_hourly_view_is_what_the_oracle_says() {
    let server = TestDatabase::start().await;
    let (database, client) = (server.database(), server.connect().await);
    fill(&client, 60).await;
    let closures = "INSERT INTO public.store_closures VALUES
        ('chicago', '2023-11-03 11:30', '2023-11-05 01:30'), ('howe', '2023-10-02 00:45', '2023-10-03'),
        ('*', '2023-09-29', '2023-09-30'), ('beirut', '2023-11-08', '2023-12-01')";
    client.batch_execute(closures).await.unwrap();
    Following::start(&database, &Clock::standing(NOW).0, Settings::default())
        .await
        .stop()
        .await;
    let bounds = client
        .query_one("SELECT covers_from, newest FROM uptally.checkpoint", &[])
        .await
        .unwrap();
    let covered = Span::new(bounds.get(0), bounds.get(1));
    assert!(covered.len_us() > 59 * 24 * HOUR_US);
    let own = "SELECT count(*) FROM uptally.rollup_open JOIN uptally.rollup_schedule g USING (schedule_no)
               WHERE g.base_no <> g.schedule_no";
    assert!(client.query_one(own, &[]).await.unwrap().get::<_, i64>(0) > 0);

    let mut view: BTreeMap<String, Vec<(Timestamp, i64, i64)>> = BTreeMap::new();
    let sql =
        "SELECT store_id, hour_start, up_us, down_us FROM public.store_uptime_hourly ORDER BY store_id, hour_start";
    for row in client.query(sql, &[]).await.unwrap() {
        let hours = view.entry(row.get(0)).or_default();
        hours.push((row.get(1), row.get(2), row.get(3)));
    }
    let stores = raw_stores(&client, NOW).await;
    assert_eq!(view.len(), stores.len());
    for store in stores {
        let hours = cells(&store, HOUR_US, grid_phase_us(store.zone), covered);
        let expected = hours
            .into_iter()
            .map(|(start, open_us, down_us)| (start, open_us - down_us, down_us));
        for (found, expected) in view[&store.id].iter().zip(expected.clone()) {
            assert_eq!(*found, expected, "{}: hour, up, down", store.id);
        }
        assert_eq!(view[&store.id].len(), expected.count(), "{}", store.id);
    }
}

#[tokio::test]
async fn migrations_at_once_and_again_are_safe() {
    let server = TestDatabase::start_empty().await;
    let database = server.database();
    let (one, two) = tokio::join!(database.migrate(), database.migrate());
    one.unwrap();
    two.unwrap();
    database.migrate_if_needed().await.unwrap();
    let client = server.connect().await;
    assert!(Database::is_migrated(&client).await.unwrap());
    let migrations = std::fs::read_dir("migrations").unwrap().count();
    let count = "SELECT (SELECT count(*) FROM uptally.schema_history), (SELECT count(*) FROM uptally.checkpoint),
                        (SELECT count(*) FROM uptally.time_zone WHERE name = 'America/Chicago')";
    let row = client.query_one(count, &[]).await.unwrap();
    let migrations = i64::try_from(migrations).unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (migrations, 1_i64, 1_i64));
}

#[tokio::test]
async fn a_role_that_may_only_insert_can_insert() {
    let server = TestDatabase::start().await;
    let (database, client) = (server.database(), server.connect().await);
    let clock = Clock::standing(NOW).0;
    let daemon = Following::start(&database, &clock, Settings::default()).await;
    let roles = "CREATE ROLE poller LOGIN; GRANT INSERT ON public.store_activity TO poller;
        CREATE ROLE clerk LOGIN;
        GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON public.store_business_hours, public.store_closures,
            public.store_timezones TO clerk;
        GRANT SELECT, UPDATE, DELETE ON public.store_activity TO clerk";
    client.batch_execute(roles).await.unwrap();
    let poller = server.connect_as("poller").await;
    let rows = "INSERT INTO public.store_activity VALUES ('a', '2023-11-08 10:00+00', 'inactive'), ('b', '2023-11-08 11:00+00', 'active');
        INSERT INTO public.store_activity VALUES ('c', '2023-11-08 10:00+00', 'inactive', '3')";
    poller.batch_execute(rows).await.unwrap();
    let refused = poller
        .batch_execute("SELECT * FROM public.store_activity")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));

    let clerk = server.connect_as("clerk").await;
    for sql in [
        "INSERT INTO public.store_business_hours VALUES ('a', 0, '09:00', '17:00')",
        "UPDATE public.store_business_hours SET day = 2",
        "INSERT INTO public.store_timezones VALUES ('b', 'Asia/Kolkata')",
        "UPDATE public.store_timezones SET timezone_str = 'Asia/Kathmandu'",
        "DELETE FROM public.store_business_hours",
        "INSERT INTO public.store_closures VALUES ('a', '2023-11-08', '2023-11-08 05:00')",
        "UPDATE public.store_closures SET closed_to = '2023-11-09'",
        "DELETE FROM public.store_closures",
        "TRUNCATE public.store_closures",
        "TRUNCATE public.store_timezones",
        "UPDATE public.store_activity SET timestamp_utc = timestamp_utc - interval '1 hour' WHERE store_id = 'a'",
        "DELETE FROM public.store_activity WHERE store_id = 'b'",
    ] {
        clerk.batch_execute(sql).await.expect(sql);
    }
    assert_eq!(daemon.handle.point().await.unwrap().snapshot.len(), 2);
    daemon.stop().await;
    verify_is_clean(&database, NOW).await;
}
