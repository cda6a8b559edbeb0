//! Least privilege: the daemon's role does everything that the daemon does and nothing else, the pollers' role writes the
//! inputs and nothing else, and nobody gets a function or a table of his own called in place of one that we mean.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::process::Command;
use std::time::Duration;

use support::check::{reports_are_right, verify_is_clean};
use support::daemon::Following;
use support::fixture::{NOW, fill};
use support::serve::Serve;
use support::{TestDatabase, state_dir, within};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use uptally::clock::Clock;
use uptally::daemon::Settings;
use uptally::rollup::Limits;
use uptally::time::DAY_US;

/// A database with the three roles of the documentation, made the documented way. Roles are of the whole server, so
/// each test has its own.
struct Cast {
    server: TestDatabase,
    superuser: Client,
    installer: String,
    daemon: String,
    poller: String,
}

impl Cast {
    async fn start(tag: &str) -> Self {
        let server = TestDatabase::start_empty().await;
        let superuser = server.connect().await;
        let [installer, daemon, poller] = ["installer", "daemon", "poller"].map(|role| format!("{role}_{tag}"));
        for role in [&installer, &daemon, &poller] {
            superuser
                .batch_execute(&format!("CREATE ROLE {role} LOGIN"))
                .await
                .unwrap();
        }
        let name = server.name();
        let install = format!(
            "GRANT CREATE ON DATABASE {name} TO {installer}; GRANT USAGE, CREATE ON SCHEMA public TO {installer};
             REVOKE CREATE ON SCHEMA public FROM PUBLIC"
        );
        superuser.batch_execute(&install).await.unwrap();
        let cast = Cast {
            server,
            superuser,
            installer,
            daemon,
            poller,
        };
        // Again, as after an upgrade.
        for _ in 0..2 {
            let (code, told) = cast.uptally(&cast.installer, &cast.migrate());
            assert_eq!((code, told.as_str()), (Some(0), "the schema is up to date\n"));
        }
        cast
    }

    fn migrate(&self) -> [&str; 5] {
        ["migrate", "--grant-to", &self.daemon, "--grant-poller", &self.poller]
    }

    /// Runs a command as a role; returns its exit code and all that it says.
    fn uptally(&self, role: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_uptally"))
            .args(arguments)
            .current_dir(std::env::temp_dir())
            .env("DATABASE_URL", self.server.url_as(role))
            .output()
            .unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(told).unwrap())
    }

    async fn connect_as(&self, role: &str) -> Client {
        self.server.connect_as(role).await
    }
}

/// Every kind of statement that a poller may use, on the fixture's stores.
const POLLER_AT_WORK: [&str; 15] = [
    "INSERT INTO public.store_activity VALUES ('chicago', '2023-11-08 11:31:00+00', 'inactive')",
    "INSERT INTO public.store_activity VALUES ('howe', '2023-11-08 11:32:00+00', 'inactive', '3')",
    "INSERT INTO public.store_activity VALUES ('chicago', '2023-11-08 11:31:00+00', 'active')
         ON CONFLICT (store_id, timestamp_utc) DO UPDATE SET status = excluded.status",
    "UPDATE public.store_activity SET timestamp_utc = timestamp_utc - interval '90 minutes', store_id = 'beirut'
         WHERE store_id = 'chicago' AND timestamp_utc > '2023-11-08 11:00:00+00'",
    "DELETE FROM public.store_activity WHERE store_id = 'kathmandu' AND timestamp_utc > '2023-11-08 09:00:00+00'",
    "INSERT INTO public.store_business_hours VALUES ('new', 2, '09:00', '17:00')",
    "UPDATE public.store_business_hours SET day = 3 WHERE store_id = 'new'",
    "DELETE FROM public.store_business_hours WHERE store_id = 'hours only'",
    "INSERT INTO public.store_closures VALUES ('new', '2023-11-02', '2023-11-03', 'holiday')",
    "UPDATE public.store_closures SET closed_to = '2023-11-04', store_id = 'howe' WHERE store_id = 'new'",
    "INSERT INTO public.store_closures VALUES ('*', '2023-11-01', '2023-11-01 12:00')",
    "DELETE FROM public.store_closures WHERE store_id = '*'",
    "INSERT INTO public.store_timezones VALUES ('new', 'Asia/Kolkata')",
    "UPDATE public.store_timezones SET timezone_str = 'Asia/Kathmandu' WHERE store_id = 'new'",
    "DELETE FROM public.store_timezones WHERE store_id = 'silent'",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_does_everything_as_a_role_that_owns_nothing() {
    let cast = Cast::start("whole").await;
    fill(&cast.superuser, 100).await;
    let (database, clock) = (cast.server.database_as(&cast.daemon), Clock::standing(NOW).0);
    // Months are made by the rebuild and dropped by retention.
    let settings = Settings {
        limits: Limits {
            retention_us: 40 * DAY_US,
            ..Limits::default()
        },
        flush_interval: Duration::from_millis(20),
        ..Settings::default()
    };
    let daemon = Following::start(&database, &clock, settings).await;
    let poller = cast.connect_as(&cast.poller).await;
    for sql in POLLER_AT_WORK {
        poller.batch_execute(sql).await.expect(sql);
    }
    reports_are_right(&daemon.handle, &cast.superuser, NOW, NOW).await;
    daemon.stop().await;
    let months =
        "SELECT min(relname::text), max(relname::text) FROM pg_class WHERE relname LIKE 'rollup\\_down\\_20__\\___'";
    let row = cast.superuser.query_one(months, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), ("rollup_down_2023_09", "rollup_down_2023_11"));

    // The program itself, with reports in public.reports, and the commands beside it and after it.
    let state = state_dir();
    let mut serve = Serve::spawn(state.path(), Some(&cast.server.url_as(&cast.daemon)));
    serve.wait_until_ready();
    assert!(serve.report(NOW).contains("\nkathmandu,"));
    for command in [&["report", "--as-of", "latest"][..], &["verify"], &["rebuild"]] {
        let (code, told) = cast.uptally(&cast.daemon, command);
        assert_eq!(code, Some(0), "{command:?}: {told}");
    }
    serve.kill();
    let (code, told) = cast.uptally(&cast.daemon, &["rebuild"]);
    assert_eq!(code, Some(0), "{told}");
    verify_is_clean(&database, NOW).await;

    // Importing needs both: to see what version the tables have, and to write the inputs.
    let both = format!(
        "CREATE ROLE importer_whole LOGIN IN ROLE {}, {}",
        cast.daemon, cast.poller
    );
    cast.superuser.batch_execute(&both).await.unwrap();
    let file = state.path().join("status.csv");
    std::fs::write(
        &file,
        "store_id,timestamp_utc,status\nimported,2023-11-08 10:00:00 UTC,inactive\n",
    )
    .unwrap();
    let (code, told) = cast.uptally("importer_whole", &["import", "--activity", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}");
}

/// What each role is refused, statement by statement.
#[tokio::test]
async fn no_role_can_do_more_than_it_must() {
    let cast = Cast::start("less").await;
    let (installer, daemon, poller) = (&cast.installer, &cast.daemon, &cast.poller);
    let of_the_daemon = [
        "CREATE TABLE public.x ()",
        "CREATE TABLE uptally.x ()",
        "CREATE SCHEMA x",
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION uptally.ring() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER t BEFORE INSERT ON public.store_activity FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE INDEX ON uptally.rollup_down (down_us)",
        "ALTER TABLE public.store_activity DISABLE TRIGGER uptally_inserted",
        "ALTER TABLE public.store_activity DISABLE TRIGGER ALL",
        "ALTER TABLE public.store_activity ADD COLUMN x int",
        "ALTER TABLE uptally.checkpoint RENAME TO c",
        "DROP TRIGGER uptally_inserted ON public.store_activity",
        "DROP TABLE public.reports",
        "DROP TABLE uptally.rollup_down",
        "DROP FUNCTION uptally.ring_doorbell()",
        "DROP SCHEMA uptally CASCADE",
        "INSERT INTO public.store_activity VALUES ('s', '2023-01-01', 'active')",
        "UPDATE public.store_activity SET status = 'active'",
        "DELETE FROM public.store_activity",
        "TRUNCATE public.store_activity",
        "DELETE FROM public.store_business_hours",
        "DELETE FROM public.store_closures",
        "DELETE FROM public.store_timezones",
        "DELETE FROM public.reports",
        "TRUNCATE public.reports",
        "DELETE FROM uptally.checkpoint",
        "UPDATE uptally.schema_history SET version = 0",
        "INSERT INTO uptally.time_zone VALUES ('Mars/Olympus_Mons')",
        "SET session_replication_role = replica",
        "COPY public.reports TO PROGRAM 'cat'",
        "COPY public.reports TO '/tmp/x'",
        "SELECT pg_read_file('PG_VERSION')",
        &format!("SET ROLE {installer}"),
        &format!("ALTER ROLE {daemon} SUPERUSER"),
    ];
    let of_the_poller = [
        "SELECT * FROM public.reports",
        "INSERT INTO public.reports (report_id, as_of_requested, windows, closed) VALUES (gen_random_uuid(), 'now', 'rolling', 'uptime')",
        "SELECT * FROM public.store_uptime_hourly",
        "SELECT * FROM uptally.checkpoint",
        "UPDATE uptally.checkpoint SET epoch = 0",
        "SELECT * FROM uptally.rollup_down",
        "INSERT INTO uptally.invalidation DEFAULT VALUES",
        "DELETE FROM uptally.invalidation",
        "SELECT uptally.ring_doorbell()",
        "SELECT uptally.drop_rollup_months_before(now())",
        "TRUNCATE public.store_activity",
        "TRUNCATE public.store_closures",
        "ALTER TABLE public.store_activity DISABLE TRIGGER uptally_inserted",
        "DROP TRIGGER uptally_deleted ON public.store_activity",
        "SET session_replication_role = replica",
        "CREATE TABLE public.x ()",
        &format!("SET ROLE {daemon}"),
    ];
    for (role, refused) in [(daemon, &of_the_daemon[..]), (poller, &of_the_poller)] {
        let client = cast.connect_as(role).await;
        for sql in refused {
            let error = client.batch_execute(sql).await.expect_err(sql);
            assert_eq!(
                error.code(),
                Some(&SqlState::INSUFFICIENT_PRIVILEGE),
                "{role}: {sql}: {error}"
            );
        }
        let (code, told) = cast.uptally(role, &cast.migrate());
        assert_eq!(code, Some(1));
        assert!(
            told.contains("run `uptally migrate` as the role that owns them"),
            "{told}"
        );
    }

    // Without the right to pass it on, a GRANT is a warning that nothing was granted.
    let client = cast.connect_as(daemon).await;
    let pass_on = format!("GRANT SELECT ON public.reports TO {poller}");
    client.batch_execute(&pass_on).await.unwrap();
    let sql = format!("SELECT has_table_privilege('{poller}', 'public.reports', 'SELECT')");
    assert!(!cast.superuser.query_one(&sql, &[]).await.unwrap().get::<_, bool>(0));

    // Who sees the schema still cannot put a function with the owner's rights behind a table of his own.
    let sees = format!("GRANT USAGE ON SCHEMA uptally TO {poller}");
    cast.superuser.batch_execute(&sees).await.unwrap();
    let client = cast.connect_as(poller).await;
    client
        .batch_execute("CREATE TEMP TABLE mine (store_id text)")
        .await
        .unwrap();
    for function in ["input_truncated", "schedule_deleted", "activity_row_announced", "ring"] {
        let sql = format!("CREATE TRIGGER t AFTER TRUNCATE ON mine EXECUTE FUNCTION uptally.{function}()");
        let error = client.batch_execute(&sql).await.expect_err(&sql);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}: {error}");
    }
}

#[tokio::test]
async fn the_grants_are_shown_and_excess_is_told() {
    let cast = Cast::start("told").await;
    let (code, told) = cast.uptally(&cast.daemon, &["migrate", "--grant-to", "a \"b", "--dry-run"]);
    assert_eq!(code, Some(0));
    assert!(
        told.lines()
            .all(|line| line.starts_with("GRANT ") && line.ends_with(" TO \"a \"\"b\";")),
        "{told}"
    );
    // What is shown is what is done.
    cast.superuser.batch_execute("CREATE ROLE \"a \"\"b\"").await.unwrap();
    cast.superuser.batch_execute(&told).await.unwrap();
    // Every table is there for the daemon's role to read, also those of later migrations.
    let unread = format!(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace = 'uptally'::regnamespace AND relkind IN ('r', 'p', 'v')
             AND NOT relispartition AND NOT has_table_privilege('{}', c.oid, 'SELECT')",
        cast.daemon
    );
    let unread = cast.superuser.query(&unread, &[]).await.unwrap();
    assert!(
        unread.is_empty(),
        "{:?}",
        unread.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    );

    for (role, expected) in [
        ("nobody_at_all", "role \"nobody_at_all\" does not exist"),
        ("public", "expected the name of a role"),
        ("uptally", "is a superuser"),
        (&cast.installer, "owns the tables"),
    ] {
        let (_, told) = cast.uptally(&cast.installer, &["migrate", "--grant-to", role]);
        assert!(told.contains(expected), "{told}");
    }
}

/// In the catalog: whatever the database calls by itself is of `pg_catalog` or ours, and looked up where we say.
#[tokio::test]
async fn functions_pin_where_they_look_and_are_for_nobody_else() {
    let server = TestDatabase::start().await;
    let client = server.connect().await;
    let count = async |sql: &str| {
        let rows = client.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    let unpinned =
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'uptally'::regnamespace AND prosecdef
                      AND NOT coalesce(proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)";
    assert_eq!(count(unpinned).await, [""; 0]);
    let open = "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'uptally'::regnamespace
                  AND has_function_privilege('public', oid, 'EXECUTE')";
    assert_eq!(count(open).await, [""; 0]);
    // What is of pg_catalog leaves no trace among the dependencies; so whatever is found is somebody else's.
    let strange = "
        SELECT pg_describe_object(d.classid, d.objid, d.objsubid) || ' uses '
            || pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
        FROM pg_depend d
        WHERE d.deptype <> 'i' AND d.classid IN ('pg_trigger'::regclass, 'pg_constraint'::regclass, 'pg_attrdef'::regclass,
                            'pg_rewrite'::regclass, 'pg_class'::regclass)
          AND (d.refclassid = 'pg_operator'::regclass OR d.refclassid = 'pg_proc'::regclass
               AND NOT EXISTS (SELECT FROM pg_proc p WHERE p.oid = d.refobjid
                                   AND p.pronamespace IN ('uptally'::regnamespace, 'information_schema'::regnamespace)))";
    assert_eq!(count(strange).await, [""; 0]);
}

/// Functions, operators, tables and types under the names that we use, where unqualified names would find them first:
/// in public and in the schema that each role's own `search_path` begins with. Each leaves a note when it is called.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hides_behind_our_names_is_never_called() {
    let cast = Cast::start("evil").await;
    let (daemon, poller) = (&cast.daemon, &cast.poller);
    let mut traps = vec![String::from(
        "CREATE SCHEMA evil; CREATE TABLE evil.called (what text); GRANT USAGE ON SCHEMA evil TO PUBLIC;
         CREATE TABLE evil.store_activity (); CREATE TABLE evil.reports (); CREATE DOMAIN evil.text AS int",
    )];
    for schema in ["evil", "public"] {
        for (name, arguments, result) in [
            ("pg_try_advisory_xact_lock_shared", "bigint", "boolean"),
            ("pg_try_advisory_lock", "bigint", "boolean"),
            ("pg_notify", "text, text", "void"),
            ("pg_current_xact_id", "", "xid8"),
            ("pg_current_snapshot", "", "pg_snapshot"),
            ("clock_timestamp", "", "timestamptz"),
            ("format", "text, text, text, text", "text"),
            ("to_char", "timestamptz, text", "text"),
            ("date_trunc", "text, timestamp", "timestamp"),
            ("unnest", "text[]", "SETOF text"),
            ("unnest", "int[]", "SETOF int"),
            ("octet_length", "text", "int"),
            ("is_not_equal", "text, text", "boolean"),
            ("is_not_equal", "xid8, xid8", "boolean"),
            ("is_not_equal", "timestamptz, timestamptz", "boolean"),
            ("current_database", "", "name"),
        ] {
            let back = if result.starts_with("SETOF") || result == "void" {
                "RETURN"
            } else {
                "RETURN NULL"
            };
            traps.push(format!(
                "CREATE FUNCTION {schema}.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql SECURITY DEFINER AS
                     $$ BEGIN INSERT INTO evil.called VALUES ('{schema}.{name}({arguments})'); {back}; END $$"
            ));
        }
        for (left, operators) in [
            ("text", "= <> < >"),
            ("xid8", "= <> < >="),
            ("timestamptz", "= <> < >="),
        ] {
            traps.extend(operators.split(' ').map(|operator| {
                format!(
                    "CREATE OPERATOR {schema}.{operator} (LEFTARG = {left}, RIGHTARG = {left}, FUNCTION = {schema}.is_not_equal)"
                )
            }));
        }
        let tables = [
            "fresh",
            "gone",
            "invalidation",
            "checkpoint",
            "rollup_down",
            "rollup_store",
            "time_zone",
        ];
        traps.extend(tables.map(|table| format!("CREATE TABLE {schema}.{table} (store_id text, name text)")));
    }
    for role in [daemon, poller] {
        traps.push(format!("ALTER ROLE {role} SET search_path = evil, public, pg_catalog"));
    }
    let called = async || {
        let rows = cast
            .superuser
            .query("SELECT DISTINCT what FROM evil.called", &[])
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    fill(&cast.superuser, 3).await;
    cast.superuser.batch_execute(&traps.join(";")).await.unwrap();

    let client = cast.connect_as(poller).await;
    // The traps are set: names without a schema do run into them.
    for sql in [
        "SELECT pg_current_xact_id()",
        "SELECT 'a'::pg_catalog.text <> 'b'::pg_catalog.text",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    assert_eq!(called().await.len(), 2);
    cast.superuser.batch_execute("TRUNCATE evil.called").await.unwrap();
    let tables = "CREATE TEMP TABLE fresh (store_id name); CREATE TEMP TABLE gone (store_id name);
                  CREATE TEMP TABLE invalidation (store_id name)";
    client.batch_execute(tables).await.unwrap();

    let (database, clock) = (cast.server.database_as(daemon), Clock::standing(NOW).0);
    let following = Following::start(&database, &clock, Settings::default()).await;
    for sql in POLLER_AT_WORK {
        // Its own WHERE is the poller's affair; what runs behind it is ours.
        let sql = format!("SET search_path = pg_catalog; {sql}");
        let own = "SET search_path = evil, public, pg_catalog";
        client.batch_execute(&sql).await.expect(&sql);
        client.batch_execute(own).await.unwrap();
    }
    let plain = [
        "INSERT INTO public.store_activity VALUES ('chicago', '2023-11-08 11:35:00+00', 'inactive', '3')",
        "UPDATE public.store_activity SET store_id = 'moved'",
        "DELETE FROM public.store_timezones",
        "UPDATE public.store_business_hours SET start_time_local = start_time_local + interval '1 minute'",
    ];
    for sql in plain {
        client.batch_execute(sql).await.expect(sql);
    }
    reports_are_right(&following.handle, &cast.superuser, NOW, NOW).await;
    following.stop().await;
    verify_is_clean(&database, NOW).await;
    let (code, told) = cast.uptally(daemon, &["rebuild"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(called().await, [""; 0]);
}

#[tokio::test]
async fn a_right_that_is_taken_away_is_named_and_missed_until_it_is_back() {
    let cast = Cast::start("taken").await;
    fill(&cast.superuser, 2).await;
    let (database, clock, daemon) = (
        cast.server.database_as(&cast.daemon),
        Clock::standing(NOW).0,
        &cast.daemon,
    );
    let settings = Settings {
        flush_interval: Duration::from_millis(20),
        ..Settings::default()
    };
    let mut following = Following::start(&database, &clock, settings).await;
    let poller = cast.connect_as(&cast.poller).await;
    for (minute, (right, table)) in [
        ("SELECT", "public.store_activity"),
        ("UPDATE", "uptally.checkpoint"),
        ("DELETE", "uptally.invalidation"),
    ]
    .into_iter()
    .enumerate()
    {
        let take = format!("REVOKE {right} ON {table} FROM {daemon}");
        cast.superuser.batch_execute(&take).await.unwrap();
        let row = format!(
            "INSERT INTO public.store_activity VALUES ('chicago', '2023-11-08 11:0{minute}:00+00', 'inactive')"
        );
        poller.batch_execute(&row).await.unwrap();
        let (_, name) = table.split_once('.').unwrap();
        let denied = format!("permission denied for table {name}");
        within(Duration::from_secs(4), &denied, async || {
            following
                .handle
                .status()
                .following
                .is_err_and(|reason| reason.contains(&denied))
        })
        .await;
        let give = format!("GRANT {right} ON {table} TO {daemon}");
        cast.superuser.batch_execute(&give).await.unwrap();
        let follows = tokio::time::timeout(Duration::from_secs(4), following.handle.following()).await;
        assert!(follows.expect("it follows again within 4 s"), "the daemon gave up");
    }
    reports_are_right(&following.handle, &cast.superuser, NOW, NOW).await;
    following.stop().await;
    verify_is_clean(&database, NOW).await;
}
