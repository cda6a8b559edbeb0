//! Every way of writing to the input tables while a daemon follows, each ending in right numbers: the daemon's reports
//! are the oracle's, and `verify` finds the rollup's tables to be what the raw rows say.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use support::TestDatabase;
use support::check::{KINDS, reports_are_right, same_report, verify_is_clean};
use support::daemon::{Following, is_asleep, is_flushed_to};
use support::fixture::{NOW, fill};
use support::raw::raw_stores;
use support::within;
use tokio_postgres::{Client, IsolationLevel};
use uptally::clock::{Clock, ClockHand};
use uptally::daemon::Settings;
use uptally::db::Database;
use uptally::feed::doorbell::Wake;
use uptally::feed::{Reading, Scope};
use uptally::oracle::report_csv;
use uptally::report::csv::render;
use uptally::rollup::Limits;
use uptally::time::{DAY_US, HOUR_US, MINUTE_US, Timestamp};

/// A daemon that follows a small fleet, by a clock that stands.
struct Feed {
    server: TestDatabase,
    database: Database,
    client: Client,
    clock: Clock,
    hand: ClockHand,
    settings: Settings,
    daemon: Following,
}

impl Feed {
    async fn start() -> Self {
        Self::follow(TestDatabase::start().await).await
    }

    async fn follow(server: TestDatabase) -> Self {
        let (database, client) = (server.database(), server.connect().await);
        fill(&client, 22).await;
        let (clock, hand) = Clock::standing(NOW);
        let settings = Settings {
            flush_interval: Duration::from_millis(10),
            ..Settings::default()
        };
        let daemon = Following::start(&database, &clock, settings).await;
        let feed = Feed {
            server,
            database,
            client,
            clock,
            hand,
            settings,
            daemon,
        };
        feed.check("the start").await;
        feed
    }

    /// Runs statements one after the other, each in a transaction of its own, and checks after each.
    async fn each(&self, statements: &[(&str, &str)]) {
        for (what, sql) in statements {
            self.run(what, sql).await;
        }
    }

    /// Runs SQL, in one transaction if it is several statements, and checks.
    async fn run(&self, what: &str, sql: &str) {
        let done = self.client.batch_execute(sql).await;
        done.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        self.check(what).await;
    }

    /// The numbers are right: in memory, and in the tables before and after the flush.
    async fn check(&self, what: &str) {
        println!("{what}");
        let now = self.clock.now();
        let last = "SELECT (pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)::text";
        let last: String = self.client.query_one(last, &[]).await.unwrap().get(0);
        let earliest = self.daemon.handle.point().await.unwrap().snapshot.earliest_as_of();
        for as_of in [now, NOW.plus(-9 * DAY_US).max(earliest)] {
            reports_are_right(&self.daemon.handle, &self.client, now, as_of).await;
        }
        verify_is_clean(&self.database, now).await;
        // What changed no number is not flushed at all.
        for _ in 0..20 {
            if is_flushed_to(&self.client, &last).await {
                verify_is_clean(&self.database, now).await;
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills the daemon and starts another one, which goes on from what was flushed.
    async fn restart(mut self) -> Self {
        self.daemon.kill().await;
        self.daemon = Following::start(&self.database, &self.clock, self.settings).await;
        self.check("a restart").await;
        self
    }

    /// Restarts once more, ends in order, and checks the tables that are left.
    async fn end(self) {
        let this = self.restart().await;
        this.daemon.stop().await;
        verify_is_clean(&this.database, this.clock.now()).await;
    }
}

#[tokio::test]
async fn rows_that_come_and_change() {
    let feed = Feed::start().await;
    feed.each(&[
        ("insert", "INSERT INTO public.store_activity VALUES ('chicago', '2023-11-08 12:03:04.567891+00', 'inactive')"),
        ("batch in no order", "INSERT INTO public.store_activity
            SELECT id, timestamptz '2023-11-08 12:10+00' - n * interval '7 min 1 us', (ARRAY['active', 'inactive'])[n % 2 + 1]
            FROM unnest(ARRAY['howe', 'beirut', 'new store', 'silent']) id, generate_series(1, 40) n ORDER BY hashint4(n)"),
        ("insert of a row that is there", "INSERT INTO public.store_activity
            VALUES ('chicago', '2023-11-08 12:03:04.567891+00', 'active') ON CONFLICT DO NOTHING"),
        ("correction", "INSERT INTO public.store_activity VALUES ('chicago', '2023-11-08 12:03:04.567891+00', 'active'),
                                                                 ('chicago', '2023-11-08 12:04+00', 'inactive')
            ON CONFLICT (store_id, timestamp_utc) DO UPDATE SET status = excluded.status"),
        ("update of the status", "UPDATE public.store_activity SET status = 'inactive'
            WHERE store_id IN ('howe', 'beirut') AND timestamp_utc BETWEEN '2023-11-06' AND '2023-11-07'"),
        ("update that changes nothing", "UPDATE public.store_activity SET status = status WHERE store_id = 'chicago'"),
        ("update of the time", "UPDATE public.store_activity SET timestamp_utc = timestamp_utc - interval '3 h 1 s'
            WHERE store_id = 'kathmandu' AND timestamp_utc > '2023-11-07 03:00+00'"),
        ("update of the store", "UPDATE public.store_activity SET store_id = 'sao paulo'
            WHERE store_id = 'beirut' AND timestamp_utc > '2023-11-05 12:00+00'"),
        ("update that moves all of a store to a new one", "UPDATE public.store_activity SET store_id = 'renamed'
            WHERE store_id = 'new store'"),
        ("two stores swap a row", "UPDATE public.store_activity
            SET store_id = CASE store_id WHEN 'chicago' THEN 'howe' ELSE 'chicago' END
            WHERE (store_id, timestamp_utc) IN (SELECT store_id, max(timestamp_utc) FROM public.store_activity
                                                WHERE store_id IN ('chicago', 'howe') GROUP BY store_id)"),
        ("writes, corrections and deletions of one row in one transaction", "
            INSERT INTO public.store_activity VALUES ('chicago', '2023-11-08 11:00:01+00', 'inactive');
            UPDATE public.store_activity SET status = 'active' WHERE timestamp_utc = '2023-11-08 11:00:01+00';
            DELETE FROM public.store_activity WHERE timestamp_utc = '2023-11-08 11:00:01+00';
            INSERT INTO public.store_activity VALUES ('chicago', '2023-11-08 11:00:01+00', 'inactive')"),
        ("rollback", "BEGIN; INSERT INTO public.store_activity VALUES ('never', '2023-11-08 11:00+00', 'inactive'); ROLLBACK"),
        ("savepoints", "BEGIN;
            INSERT INTO public.store_activity VALUES ('saved', '2023-11-08 09:00+00', 'inactive');
            SAVEPOINT a; INSERT INTO public.store_activity VALUES ('saved', '2023-11-08 10:00+00', 'active');
            SAVEPOINT b; DELETE FROM public.store_activity WHERE store_id = 'howe'; ROLLBACK TO b;
            INSERT INTO public.store_activity VALUES ('saved', '2023-11-08 11:00+00', 'inactive'); RELEASE a;
            SAVEPOINT c; INSERT INTO public.store_activity VALUES ('never', '2023-11-08 10:30+00', 'active'); ROLLBACK TO c;
            COMMIT"),
        ("insert by a session that replicates", "SET session_replication_role = replica;
            INSERT INTO public.store_activity VALUES ('howe', '2023-11-08 11:59+00', 'inactive');
            UPDATE public.store_activity SET status = 'inactive' WHERE store_id = 'saved';
            DELETE FROM public.store_activity WHERE store_id = 'sao paulo' AND timestamp_utc > '2023-11-08 06:00+00';
            SET session_replication_role = DEFAULT"),
    ])
    .await;
    if version(&feed.client).await >= 15 {
        feed.run("merge", "MERGE INTO public.store_activity a
            USING (VALUES ('howe', timestamptz '2023-11-08 11:59+00', 'active'), ('merged', '2023-11-08 08:00+00', 'inactive'),
                          ('saved', '2023-11-08 10:00+00', 'gone')) n (store_id, at, status)
            ON a.store_id = n.store_id AND a.timestamp_utc = n.at
            WHEN MATCHED AND n.status = 'gone' THEN DELETE
            WHEN MATCHED THEN UPDATE SET status = n.status
            WHEN NOT MATCHED THEN INSERT (store_id, timestamp_utc, status) VALUES (n.store_id, n.at, n.status)").await;
    }

    let copy = "COPY public.store_activity (store_id, status, timestamp_utc) FROM STDIN (FORMAT csv)";
    let lines = (0..3000).map(|n| format!("copied {},inactive,2023-11-07 00:00:00.{n:06} UTC\n", n % 7));
    let mut sink = Box::pin(feed.client.copy_in::<_, Bytes>(copy).await.unwrap());
    sink.send(lines.collect::<String>().into()).await.unwrap();
    assert_eq!(sink.as_mut().finish().await.unwrap(), 3000);
    feed.check("COPY").await;

    let mut writer = feed.server.connect().await;
    for (minute, level) in [(1, IsolationLevel::RepeatableRead), (2, IsolationLevel::Serializable)] {
        let transaction = writer.build_transaction().isolation_level(level).start().await.unwrap();
        // The snapshot is older than what the daemon does meanwhile.
        transaction
            .query("SELECT count(*) FROM public.store_activity", &[])
            .await
            .unwrap();
        within(Duration::from_secs(4), "it sleeps", async || {
            is_asleep(&feed.client).await
        })
        .await;
        let at = NOW.plus(-minute * MINUTE_US);
        let row = "INSERT INTO public.store_activity VALUES ('isolated', $1, 'inactive')";
        transaction.execute(row, &[&at]).await.unwrap();
        transaction.commit().await.unwrap();
        feed.check(&format!("{level:?}")).await;
    }
    feed.end().await;
}

#[tokio::test]
async fn rows_that_go() {
    let mut feed = Feed::start().await;
    feed.each(&[
        ("delete of one", "DELETE FROM public.store_activity WHERE store_id = 'chicago'
            AND timestamp_utc = (SELECT max(timestamp_utc) FROM public.store_activity WHERE timestamp_utc < '2023-11-07')"),
        ("delete of a stretch", "DELETE FROM public.store_activity WHERE store_id IN ('howe', 'chicago')
            AND timestamp_utc BETWEEN '2023-11-01' AND '2023-11-03'"),
        ("delete of the first", "DELETE FROM public.store_activity WHERE timestamp_utc < '2023-10-20'"),
        ("delete of the newest of all", "DELETE FROM public.store_activity WHERE timestamp_utc > '2023-11-08 03:00+00'"),
        ("delete of a store that has a zone", "DELETE FROM public.store_activity WHERE store_id = 'howe'"),
        ("delete and insert of the same rows", "
            CREATE TEMP TABLE t AS SELECT * FROM public.store_activity WHERE store_id = 'beirut';
            DELETE FROM public.store_activity WHERE store_id = 'beirut';
            INSERT INTO public.store_activity (store_id, timestamp_utc, status) SELECT store_id, timestamp_utc, status FROM t;
            DROP TABLE t"),
        ("a store vanishes from one table", "DELETE FROM public.store_timezones WHERE store_id = 'beirut'"),
        ("a store vanishes from all", "DELETE FROM public.store_activity WHERE store_id = 'beirut'"),
        ("a store without observations vanishes", "DELETE FROM public.store_timezones WHERE store_id = 'silent';
            DELETE FROM public.store_business_hours WHERE store_id = 'hours only'"),
        ("it comes back", "INSERT INTO public.store_activity VALUES ('beirut', '2023-11-08 01:00+00', 'inactive')"),
        ("truncate of hours", "TRUNCATE public.store_business_hours"),
        ("truncate of zones", "TRUNCATE public.store_timezones"),
        ("truncate and insert in one transaction", "BEGIN; TRUNCATE public.store_activity;
            INSERT INTO public.store_activity VALUES ('a', '2023-11-08 01:00+00', 'inactive'), ('b', '2023-11-01', 'active');
            COMMIT"),
        ("truncate rolled back", "BEGIN; TRUNCATE public.store_activity; ROLLBACK"),
    ])
    .await;
    feed = feed.restart().await;
    feed.each(&[
        ("truncate of the activity", "TRUNCATE public.store_activity"),
        (
            "rows after it",
            "INSERT INTO public.store_activity VALUES ('a', '2023-11-08 01:00+00', 'inactive')",
        ),
        (
            "truncate of everything",
            "TRUNCATE public.store_activity, public.store_business_hours, public.store_timezones",
        ),
    ])
    .await;
    assert_eq!(feed.daemon.stores_seen(), 0);
    feed.end().await;
}

#[tokio::test]
async fn schedules_that_change() {
    let feed = Feed::start().await;
    feed.each(&[
        (
            "more hours",
            "INSERT INTO public.store_business_hours VALUES ('chicago', 6, '10:00', '12:00')",
        ),
        (
            "hours for a store that had none",
            "INSERT INTO public.store_business_hours
            SELECT 'beirut', day, '20:00', '02:00' FROM generate_series(0, 6) day",
        ),
        (
            "other hours",
            "UPDATE public.store_business_hours SET end_time_local = '15:45' WHERE end_time_local = '13:00'",
        ),
        (
            "hours go to another store",
            "UPDATE public.store_business_hours SET store_id = 'sao paulo'
            WHERE store_id = 'howe' AND day > 2",
        ),
        ("fewer hours", "DELETE FROM public.store_business_hours WHERE day = 2"),
        (
            "no hours",
            "DELETE FROM public.store_business_hours WHERE store_id = 'kathmandu'",
        ),
        (
            "another zone, off the hour",
            "UPDATE public.store_timezones SET timezone_str = 'Asia/Kolkata' WHERE store_id = 'beirut'",
        ),
        (
            "another zone, by half hours",
            "UPDATE public.store_timezones SET timezone_str = 'Australia/Lord_Howe'
            WHERE store_id = 'kathmandu'",
        ),
        (
            "a zone for a store that had none",
            "INSERT INTO public.store_timezones VALUES ('chicago', 'Pacific/Apia')",
        ),
        ("no zone", "DELETE FROM public.store_timezones WHERE store_id = 'howe'"),
        (
            "zones swapped between stores",
            "UPDATE public.store_timezones
            SET store_id = CASE store_id WHEN 'sao paulo' THEN 'other' ELSE store_id END",
        ),
        (
            "hours, zone and rows of a new store",
            "INSERT INTO public.store_timezones VALUES ('n', 'America/St_Johns');
            INSERT INTO public.store_business_hours VALUES ('n', 1, '09:00', '17:00'), ('n', 1, '08:00', '10:00');
            INSERT INTO public.store_activity VALUES ('n', '2023-11-07 13:00+00', 'inactive')",
        ),
        (
            "hours and rows change together",
            "UPDATE public.store_business_hours SET start_time_local = '08:30' WHERE store_id = 'n'
                AND start_time_local = '09:00';
            INSERT INTO public.store_activity VALUES ('n', '2023-11-07 14:00+00', 'active');
            DELETE FROM public.store_activity WHERE store_id = 'n' AND timestamp_utc = '2023-11-07 13:00+00'",
        ),
    ])
    .await;
    feed.end().await;
}

/// The fixture's last Sunday is the one on which Chicago's clocks go back; its weeks are in the calendar windows.
#[tokio::test]
async fn closures_that_come_change_and_go() {
    let mut feed = Feed::start().await;
    feed.each(&[
        (
            "a closure over hours",
            "INSERT INTO public.store_closures VALUES ('chicago', '2023-11-03 11:30', '2023-11-04', 'water damage')",
        ),
        (
            "one over always open, with half-hour cells",
            "INSERT INTO public.store_closures VALUES ('howe', '2023-11-07', '2023-11-08 09:15:00.000001')",
        ),
        (
            "one that holds still, and one of the future",
            "INSERT INTO public.store_closures VALUES ('beirut', '2023-11-08 13:00', '2023-11-20'),
                ('kathmandu', '2023-12-25', '2023-12-26')",
        ),
        (
            "overlapping and touching ones",
            "INSERT INTO public.store_closures VALUES ('chicago', '2023-11-03 23:00', '2023-11-04 23:59'),
                ('chicago', '2023-11-05', '2023-11-05 01:30'), ('chicago', '2023-11-05 01:45', '2023-11-05 02:10')",
        ),
        (
            "late rows within closures, and a correction",
            "INSERT INTO public.store_activity VALUES ('chicago', '2023-11-04 00:30+00', 'inactive'),
                ('chicago', '2023-11-05 06:50+00', 'active'), ('howe', '2023-11-07 20:00+00', 'inactive'),
                ('beirut', '2023-11-08 12:00+00', 'inactive');
             UPDATE public.store_activity SET status = 'inactive'
             WHERE store_id = 'chicago' AND timestamp_utc BETWEEN '2023-11-04 04:00+00' AND '2023-11-04 08:00+00'",
        ),
        (
            "rows from before memory, in a closure from before memory",
            "INSERT INTO public.store_closures VALUES ('chicago', '2023-10-20', '2023-10-20 23:59');
             INSERT INTO public.store_activity VALUES ('chicago', '2023-10-20 17:00:00.5+00', 'inactive'),
                ('chicago', '2023-10-20 18:00:00.5+00', 'active')",
        ),
        (
            "a store that nothing else knows",
            "INSERT INTO public.store_closures VALUES ('closed only', '2023-11-06', '2023-11-07')",
        ),
    ])
    .await;
    assert_eq!(feed.daemon.handle.point().await.unwrap().snapshot.len(), 8);
    feed = feed.restart().await;
    feed.each(&[
        (
            "it has a row at last",
            "INSERT INTO public.store_activity VALUES ('closed only', '2023-11-06 12:00+00', 'inactive')",
        ),
        (
            "for longer",
            "UPDATE public.store_closures SET closed_to = '2023-11-04 12:00' WHERE reason = 'water damage'",
        ),
        (
            "for another store",
            "UPDATE public.store_closures SET store_id = 'sao paulo' WHERE store_id = 'howe'",
        ),
        (
            "for another reason",
            "UPDATE public.store_closures SET reason = 'fire' WHERE reason = 'water damage'",
        ),
        (
            "closed in another zone",
            "UPDATE public.store_timezones SET timezone_str = 'Australia/Lord_Howe' WHERE store_id = 'sao paulo'",
        ),
        (
            "open after all",
            "DELETE FROM public.store_closures WHERE store_id = 'chicago' AND closed_from >= '2023-11-05'",
        ),
        (
            "closed and open in one transaction",
            "INSERT INTO public.store_closures VALUES ('howe', '2023-11-01', '2023-11-02');
             DELETE FROM public.store_closures WHERE store_id = 'howe'",
        ),
        (
            "the same again, and one that is there",
            "INSERT INTO public.store_closures VALUES ('howe', '2023-11-07', '2023-11-08 09:15:00.000001');
             INSERT INTO public.store_closures SELECT * FROM public.store_closures ON CONFLICT DO NOTHING",
        ),
        (
            "by a session that replicates",
            "SET session_replication_role = replica;
             INSERT INTO public.store_closures VALUES ('kathmandu', '2023-11-02', '2023-11-03');
             DELETE FROM public.store_closures WHERE store_id = 'beirut'; SET session_replication_role = DEFAULT",
        ),
        (
            "a store goes with its last closure",
            "DELETE FROM public.store_activity WHERE store_id = 'closed only';
             DELETE FROM public.store_closures WHERE store_id = 'closed only'",
        ),
    ])
    .await;
    feed = feed.restart().await;
    feed.hand.set(NOW.plus(40 * HOUR_US));
    let rows = "INSERT INTO public.store_activity
        SELECT id, '2023-11-10 03:00+00', 'inactive' FROM unnest(ARRAY['chicago', 'howe', 'beirut', 'sao paulo']) id";
    feed.run("days go by", rows).await;
    feed.run("truncate", "TRUNCATE public.store_closures").await;
    feed.end().await;
}

/// A row with `*` closes every store by its own clock, also one that is new.
#[tokio::test]
async fn a_public_holiday_is_one_row() {
    let mut feed = Feed::start().await;
    feed.run(
        "a holiday",
        "INSERT INTO public.store_closures VALUES ('*', '2023-11-07', '2023-11-08', 'holiday')",
    )
    .await;
    let of_schedules = "SELECT count(DISTINCT base_no), count(*), (SELECT count(*) FROM uptally.rollup_open
        JOIN uptally.rollup_schedule g USING (schedule_no) WHERE g.closures <> '') FROM uptally.rollup_schedule";
    let counted = async |feed: &Feed| {
        let row = feed.client.query_one(of_schedules, &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2))
    };
    within(
        Duration::from_secs(4),
        "the rebuilt schedules are flushed",
        async || counted(&feed).await.1 > 8,
    )
    .await;
    // Each schedule twice; and of those that are closed, the two UTC days that the local one lies in.
    let (bases, all, own_days) = counted(&feed).await;
    assert_eq!(all, 2 * bases);
    assert!(own_days <= 2 * bases, "{own_days} days of {bases} schedules");
    feed.each(&[
        (
            "a new store",
            "INSERT INTO public.store_activity VALUES ('new', '2023-11-07 18:00+00', 'inactive')",
        ),
        (
            "a store with closures of its own",
            "INSERT INTO public.store_closures VALUES ('new', '2023-11-06 22:00', '2023-11-07 00:30')",
        ),
    ])
    .await;
    feed = feed.restart().await;
    feed.each(&[
        (
            "another new store",
            "INSERT INTO public.store_activity VALUES ('newer', '2023-11-07 18:00+00', 'inactive')",
        ),
        (
            "the holiday was another day",
            "UPDATE public.store_closures SET closed_from = '2023-11-02', closed_to = '2023-11-02 23:59' WHERE store_id = '*'",
        ),
        (
            "and a store that is called so",
            "INSERT INTO public.store_activity VALUES ('*', '2023-11-02 20:00+00', 'inactive');
             INSERT INTO public.store_business_hours VALUES ('*', 3, '08:00', '20:00')",
        ),
        ("it was none", "DELETE FROM public.store_closures WHERE store_id = '*'"),
    ])
    .await;
    feed.daemon.kill().await;
    let while_away = "INSERT INTO public.store_closures VALUES ('*', '2023-11-08', '2023-11-08 01:00');
        INSERT INTO public.store_activity VALUES ('newest', '2023-11-08 06:30+00', 'inactive')";
    feed.client.batch_execute(while_away).await.unwrap();
    feed.daemon = Following::start(&feed.database, &feed.clock, feed.settings).await;
    feed.check("one that came while nobody looked").await;
    feed.end().await;
}

/// As a restore or a replication of another database brings them.
#[tokio::test]
async fn rows_stamped_by_another_database() {
    let feed = Feed::start().await;
    feed.each(&[
        (
            "of the past",
            "INSERT INTO public.store_activity VALUES ('howe', '2023-11-08 11:59+00', 'inactive', '3')",
        ),
        (
            "of the past, a new store",
            "INSERT INTO public.store_activity VALUES ('x', '2023-11-08 09:00+00', 'inactive', '3')",
        ),
        (
            "of the future",
            "INSERT INTO public.store_activity VALUES ('howe', '2023-11-07 11:59+00', 'inactive', '9000000000'),
            ('y', '2023-11-08 09:00+00', 'inactive', '9000000000'), ('x', '2023-11-08 10:00+00', 'active', '3')",
        ),
        (
            "late",
            "INSERT INTO public.store_activity VALUES ('howe', '2023-09-07 11:59+00', 'inactive', '9000000000')",
        ),
        (
            "corrected",
            "UPDATE public.store_activity SET status = 'active', change_xid = '4' WHERE store_id = 'x'",
        ),
        ("deleted", "DELETE FROM public.store_activity WHERE store_id = 'y'"),
    ])
    .await;

    // Rows that are stamped with a transaction of the far future are not new over and over.
    let mut session = feed.database.connect("test").await.unwrap();
    let point = feed.daemon.handle.point().await.unwrap();
    let reading = Reading::start(&mut session, Scope::Inputs).await.unwrap();
    let delta = reading
        .delta(&point.cursor, &uptally::rollup::StoreIndex::default())
        .await
        .unwrap();
    assert_eq!(delta.rows(), 0);
    drop(reading);
    feed.end().await;
}

/// What is read back for a held row is of the present: it shows rows, and misses others, that the same look brings.
#[tokio::test]
async fn the_time_of_a_held_row_comes_together_with_changes_before_it() {
    let mut feed = Feed::start().await;
    let rows = "INSERT INTO public.store_timezones VALUES ('joined', 'Asia/Tokyo'), ('emptied', 'Asia/Tokyo');
        INSERT INTO public.store_activity VALUES
        ('joined', '2023-11-08 10:00+00', 'active'), ('joined', '2023-11-08 14:30+00', 'active'),
        ('emptied', '2023-11-08 08:00+00', 'inactive'), ('emptied', '2023-11-08 10:00+00', 'active'),
        ('emptied', '2023-11-08 14:30+00', 'active')";
    feed.run("rows, and some of the future", rows).await;
    feed.daemon.stop().await;
    let rows = "INSERT INTO public.store_activity VALUES ('joined', '2023-11-08 10:20+00', 'inactive');
                DELETE FROM public.store_activity WHERE store_id = 'emptied'";
    feed.client.batch_execute(rows).await.unwrap();
    feed.hand.set(NOW.plus(5 * HOUR_US));
    feed.daemon = Following::start(&feed.database, &feed.clock, feed.settings).await;
    feed.check("the future came while nobody looked").await;
}

#[tokio::test]
async fn rows_of_the_future_wait_for_their_time() {
    let mut feed = Feed::start().await;
    let ahead = |hours: i64| NOW.plus(hours * HOUR_US);
    let future = "INSERT INTO public.store_activity VALUES
        ('chicago', '2023-11-08 14:17+00', 'inactive'), ('chicago', '2023-11-08 15:00+00', 'active'),
        ('beirut', '2023-11-08 16:00+00', 'inactive'), ('beirut', '2023-11-08 13:00+00', 'inactive'),
        ('beirut', '2023-11-08 18:00+00', 'active'), ('tomorrow', '2023-11-09 12:00+00', 'inactive'),
        ('silent', '2023-11-08 16:30+00', 'inactive'), ('never', '2099-01-01', 'inactive')";
    feed.run("rows of the future", future).await;
    let newest = async |feed: &Feed| feed.daemon.handle.point().await.unwrap().snapshot.newest().unwrap();
    assert_eq!(newest(&feed).await, "2023-11-08T13:00:00Z".parse().unwrap());
    feed = feed.restart().await;
    assert_eq!(newest(&feed).await, "2023-11-08T13:00:00Z".parse().unwrap());
    feed.each(&[
        (
            "a held row is corrected",
            "UPDATE public.store_activity SET status = 'inactive' WHERE store_id = 'beirut'
            AND timestamp_utc = '2023-11-08 18:00+00'",
        ),
        (
            "a held row goes",
            "DELETE FROM public.store_activity WHERE timestamp_utc = '2023-11-08 15:00+00'",
        ),
        (
            "a held row moves",
            "UPDATE public.store_activity SET timestamp_utc = '2023-11-08 17:00+00'
            WHERE timestamp_utc = '2023-11-08 16:00+00'",
        ),
        (
            "a held row of a store without others moves",
            "UPDATE public.store_activity SET timestamp_utc = '2023-11-08 16:31+00'
            WHERE timestamp_utc = '2023-11-08 16:30+00'",
        ),
        (
            "a held row comes to the present",
            "UPDATE public.store_activity SET timestamp_utc = '2023-11-08 12:17+00'
            WHERE timestamp_utc = '2023-11-08 14:17+00'",
        ),
        (
            "a counted row goes to the future",
            "UPDATE public.store_activity SET timestamp_utc = '2023-11-08 17:20+00'
            WHERE timestamp_utc = '2023-11-08 12:17+00'",
        ),
    ])
    .await;
    for hours in [1, 4, 5, 30] {
        feed.hand.set(ahead(hours));
        feed.check(&format!("{hours} h later")).await;
    }
    feed.run(
        "all of the future goes",
        "DELETE FROM public.store_activity WHERE timestamp_utc > '2023-11-09'",
    )
    .await;
    feed.end().await;
}

#[tokio::test]
async fn rows_older_than_memory() {
    let feed = Feed::start().await;
    feed.each(&[
        (
            "two months old",
            "INSERT INTO public.store_activity
            SELECT id, '2023-09-04 05:06:07+00', 'inactive' FROM unnest(ARRAY['howe', 'silent', 'old store']) id",
        ),
        (
            "a year old, with younger ones",
            "INSERT INTO public.store_activity
            SELECT id, at, 'inactive' FROM unnest(ARRAY['howe', 'chicago']) id,
                unnest(ARRAY[timestamptz '2022-12-24 01:00+00', '2023-10-20 00:00+00', '2023-11-08 12:00+00']) at",
        ),
        (
            "corrected",
            "UPDATE public.store_activity SET status = 'active' WHERE timestamp_utc = '2022-12-24 01:00+00'",
        ),
        (
            "a stretch of weeks goes",
            "DELETE FROM public.store_activity WHERE store_id = 'howe'
            AND timestamp_utc BETWEEN '2023-09-01' AND '2023-11-07'",
        ),
    ])
    .await;
    let past: Timestamp = "2023-09-20T03:04:05Z".parse().unwrap();
    reports_are_right(&feed.daemon.handle, &feed.client, NOW, past).await;
    feed.run(
        "beyond retention",
        "INSERT INTO public.store_activity VALUES ('howe', '2021-01-01', 'inactive')",
    )
    .await;
    reports_are_right(&feed.daemon.handle, &feed.client, NOW, past).await;
    feed.end().await;
}

#[tokio::test]
async fn transactions_that_take_long() {
    let feed = Feed::follow(TestDatabase::start_alone(&[("max_prepared_transactions", "5")]).await).await;
    let insert = "INSERT INTO public.store_activity VALUES ($1, $2, 'inactive')";
    let before = feed.daemon.stores_seen();
    let seen_within_1_s = async |feed: &Feed, stores: usize| {
        let what = format!("{stores} stores are seen");
        within(Duration::from_secs(1), &what, async || {
            feed.daemon.stores_seen() == stores
        })
        .await;
    };
    let mut writer = feed.server.connect().await;
    let long = writer.transaction().await.unwrap();
    long.execute(insert, &[&"long", &NOW]).await.unwrap();
    long.execute("DELETE FROM public.store_activity WHERE store_id = 'howe'", &[])
        .await
        .unwrap();
    for n in 1..=100 {
        feed.client
            .execute(insert, &[&format!("short {n}"), &NOW.plus(-n)])
            .await
            .unwrap();
        seen_within_1_s(&feed, before + usize::try_from(n).unwrap()).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    feed.check("a long transaction is open").await;
    long.commit().await.unwrap();
    seen_within_1_s(&feed, before + 101).await;
    feed.check("it has committed").await;

    // PREPARE TRANSACTION refuses after a NOTIFY, so its users poll.
    let Feed { daemon, .. } = feed;
    daemon.stop().await;
    let settings = Settings {
        wake: Wake::Poll,
        poll_interval: Duration::from_millis(50),
        ..feed.settings
    };
    let daemon = Following::start(&feed.database, &feed.clock, settings).await;
    let feed = Feed {
        settings,
        daemon,
        ..feed
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    let prepare = "BEGIN; INSERT INTO public.store_activity VALUES ('prepared', '2023-11-08 12:00+00', 'inactive');
        PREPARE TRANSACTION 'one'";
    feed.run("PREPARE TRANSACTION", prepare).await;
    assert_eq!(feed.daemon.stores_seen(), before + 101);
    let feed = feed.restart().await;
    feed.client.batch_execute("COMMIT PREPARED 'one'").await.unwrap();
    seen_within_1_s(&feed, before + 102).await;
    feed.check("COMMIT PREPARED").await;
    feed.end().await;
}

/// Major version of the server.
async fn version(client: &Client) -> i32 {
    let version: String = client.query_one("SHOW server_version_num", &[]).await.unwrap().get(0);
    version.parse::<i32>().unwrap() / 10_000
}

/// In batches far smaller than the table: as they came, where few rows are late, and in no order at all, where so many
/// are that the server has to sort.
#[tokio::test]
async fn a_rebuild_in_batches_is_right_however_the_rows_lie() {
    let server = TestDatabase::start().await;
    let (database, client) = (server.database(), server.connect().await);
    for order in ["at", "md5(store || at::text)"] {
        let sql = format!(
            "TRUNCATE public.store_activity;
             INSERT INTO public.store_activity
             SELECT store, at, CASE WHEN hashtext(store || at::text) % 3 = 0 THEN 'inactive' ELSE 'active' END
             FROM (SELECT 's' || s AS store, '2023-11-06 00:00+00'::timestamptz + h * interval '1 hour' + s * interval '1 s' AS at
                   FROM generate_series(1, 300) s, generate_series(1, 40) h) rows
             ORDER BY {order}"
        );
        client.batch_execute(&sql).await.unwrap();
        let mut session = database.connect("test").await.unwrap();
        let reading = Reading::start(&mut session, Scope::Inputs).await.unwrap();
        let mut rollup = reading.rebuild(Limits::default(), NOW, 1_000, || ()).await.unwrap();
        let snapshot = rollup.snapshot();
        let stores = raw_stores(&client, NOW).await;
        assert_eq!(stores.len(), 300);
        for (windows, closed) in KINDS {
            let found = String::from_utf8(render(&snapshot, NOW, windows, closed).unwrap().to_vec()).unwrap();
            let expected = report_csv(&stores, NOW, windows, closed);
            same_report(
                &found,
                &expected,
                &format!("ordered by {order}, {windows:?}, {closed:?}"),
            );
        }
    }
}
