//! A small fleet with something odd about every store, and a clock that stands.

use tokio_postgres::Client;
use uptally::time::Timestamp;

/// 2023-11-08T12:17:00Z, a Wednesday. The calendar week before it holds the end of summer time in Chicago.
pub const NOW: Timestamp = Timestamp::from_micros(1_699_445_820_000_000);

/// Zones off the hour, split and overnight hours, a closed weekday, no hours, no zone, no observations.
const STORES: &str = "
    INSERT INTO public.store_timezones VALUES
        ('kathmandu', 'Asia/Kathmandu'), ('howe', 'Australia/Lord_Howe'), ('beirut', 'Asia/Beirut'),
        ('sao paulo', 'America/Sao_Paulo'), ('silent', 'Asia/Kolkata');
    INSERT INTO public.store_business_hours
        SELECT 'chicago', day, t.s::time, t.e::time
        FROM generate_series(0, 5) day, (VALUES ('00:30', '13:00'), ('14:00', '23:59')) t (s, e)
        UNION ALL SELECT 'kathmandu', day, '22:30', '06:15' FROM generate_series(0, 6) day
        UNION ALL SELECT 'howe', day, '00:00', '00:00' FROM generate_series(0, 4) day
        UNION ALL SELECT 'hours only', 0, '09:00', '17:00'";

/// About one poll an hour, one of three of them inactive; the same rows every time.
const ACTIVITY: &str = "
    INSERT INTO public.store_activity (store_id, timestamp_utc, status)
    SELECT id, hour + abs(hashtext(id || hour)) % 3600000000 * interval '1 us',
           CASE WHEN hashtext(hour || id) % 3 = 0 THEN 'inactive' ELSE 'active' END
    FROM unnest(ARRAY['chicago', 'kathmandu', 'howe', 'beirut', 'sao paulo']) id,
         generate_series($1::timestamptz, $2::timestamptz - interval '1 hour', interval '1 hour') hour";

/// Fills the tables with polls of some days before [`NOW`].
pub async fn fill(client: &Client, days: i64) {
    client.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    client.batch_execute(STORES).await.unwrap();
    let from = NOW.plus(-days * uptally::time::DAY_US);
    client.execute(ACTIVITY, &[&from, &NOW]).await.unwrap();
}
