//! The rarer forms in which rows are written, each a transaction of its own: COPY, MERGE, moves, TRUNCATE, many
//! subtransactions, two-phase commit, sessions that fire no ordinary triggers, rows with the stamp of another database.

use std::fmt::Write as _;

use bytes::Bytes;
use fastrand::Rng;
use futures_util::SinkExt;
use tokio_postgres::{Client, Error};
use uptally::time::{DAY_US, HOUR_US, Timestamp};

/// Begin of the names of our prepared transactions.
pub const PREPARED: &str = "uptally test ";

/// All forms. The weights of a random choice are in [`Form::random`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One statement without a transaction around it.
    Autocommit,
    /// A batch by COPY.
    Copy,
    /// Upserts and deletions by MERGE; needs Postgres 15.
    Merge,
    /// A conflict that changes nothing, and an UPDATE of no row.
    Nothing,
    /// Rows moved by an hour, and to another store.
    Move,
    /// Rows deleted and written to another store in one statement.
    Handover,
    /// A table emptied.
    Truncate,
    /// More subtransactions than a server keeps in its snapshot's cache, by PL/pgSQL blocks of which some fail.
    Blocks,
    /// The same by savepoints, one inside the other.
    Savepoints,
    /// PREPARE TRANSACTION, a pause, and a decision.
    TwoPhase,
    /// A session that fires no ordinary triggers.
    Replica,
    /// Rows that carry the stamp of another database.
    Foreign,
}

/// All of them; the first eight are cheap.
pub const FORMS: [Form; 12] = [
    Form::Autocommit,
    Form::Copy,
    Form::Merge,
    Form::Nothing,
    Form::Move,
    Form::Handover,
    Form::Replica,
    Form::Foreign,
    Form::Truncate,
    Form::Blocks,
    Form::Savepoints,
    Form::TwoPhase,
];

impl Form {
    /// Often what is cheap, rarely what makes everything be read again.
    pub fn random(rng: &mut Rng) -> Self {
        match rng.u16(0..1000) {
            0..3 => Form::Truncate,
            3..60 => Form::TwoPhase,
            60..100 => Form::Blocks,
            100..140 => Form::Savepoints,
            _ => {
                let (cheap, _) = FORMS.split_at(8);
                *rng.choice(cheap).unwrap()
            }
        }
    }

    /// Writes something in this form to one of `stores` stores, in the days before `end`. False: rolled back, or
    /// not there on this server.
    pub async fn write(self, client: &mut Client, rng: &mut Rng, stores: u32, end: Timestamp) -> Result<bool, Error> {
        let mut text = Text { rng, stores, end };
        match self {
            Form::Autocommit => {
                let sql = text.insert();
                client.batch_execute(&sql).await?;
            }
            Form::Copy => return copy(client, &mut text).await,
            Form::Merge => {
                if server_version(client).await? < 150_000 {
                    return Ok(false);
                }
                let sql = text.merge();
                client.batch_execute(&sql).await?;
            }
            Form::Nothing => {
                let at = text.at();
                client
                    .batch_execute(&format!(
                        "INSERT INTO public.store_activity SELECT * FROM public.store_activity LIMIT 3 ON CONFLICT DO NOTHING;
                         UPDATE public.store_activity SET status = 'active' WHERE store_id = 'nobody' AND timestamp_utc = {at}"
                    ))
                    .await?;
            }
            Form::Move => {
                let sql = text.moves();
                client.batch_execute(&sql).await?;
            }
            Form::Handover => {
                let sql = text.handover();
                client.batch_execute(&sql).await?;
            }
            Form::Truncate => {
                let table = *text
                    .rng
                    .choice(&[
                        "store_activity",
                        "store_activity",
                        "store_business_hours",
                        "store_closures",
                        "store_timezones",
                    ])
                    .unwrap();
                client
                    .batch_execute(&format!(
                        "BEGIN; SET LOCAL lock_timeout = '300ms'; TRUNCATE public.{table}; COMMIT"
                    ))
                    .await?;
            }
            Form::Blocks => {
                let sql = text.blocks();
                client.batch_execute(&sql).await?;
            }
            Form::Savepoints => return savepoints(client, &mut text).await,
            Form::TwoPhase => return two_phase(client, &mut text).await,
            Form::Replica => {
                let sql = format!("{};{}", text.insert(), text.moves());
                client
                    .batch_execute(&format!(
                        "BEGIN; SET LOCAL session_replication_role = replica; {sql}; COMMIT"
                    ))
                    .await?;
            }
            Form::Foreign => {
                let (store, at, status) = (text.store(), text.at(), text.status());
                client
                    .batch_execute(&format!(
                        "INSERT INTO public.store_activity (store_id, timestamp_utc, status, change_xid)
                         VALUES ({store}, {at}, {status}, '5') ON CONFLICT DO NOTHING"
                    ))
                    .await?;
            }
        }
        Ok(true)
    }
}

/// Decides about what a crash left prepared.
pub async fn end_prepared(client: &Client, rng: &mut Rng) {
    let sql = "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = current_database() AND gid LIKE $1 || '%'";
    for row in client.query(sql, &[&PREPARED]).await.unwrap() {
        let (gid, word) = (row.get::<_, &str>(0), *rng.choice(&["COMMIT", "ROLLBACK"]).unwrap());
        client.batch_execute(&format!("{word} PREPARED '{gid}'")).await.unwrap();
    }
}

async fn copy(client: &mut Client, text: &mut Text<'_>) -> Result<bool, Error> {
    let sink = client
        .copy_in("COPY public.store_activity (store_id, timestamp_utc, status) FROM STDIN")
        .await?;
    futures_util::pin_mut!(sink);
    let mut lines = String::new();
    for _ in 0..text.rng.u32(1..60) {
        let line = format!("{}\t{}\t{}\n", text.store(), text.at(), text.status()).replace('\'', "");
        lines.push_str(&line);
    }
    sink.send(Bytes::from(lines)).await?;
    sink.finish().await?;
    Ok(true)
}

/// Deeper than 64, where a server stops to list subtransactions.
async fn savepoints(client: &mut Client, text: &mut Text<'_>) -> Result<bool, Error> {
    let mut sql = "BEGIN;".to_owned();
    for depth in 0..70 {
        write!(sql, "SAVEPOINT s{depth}; {};", text.insert()).unwrap();
    }
    write!(sql, "ROLLBACK TO s{};", text.rng.u8(35..69)).unwrap();
    let commits = text.rng.u8(0..8) > 0;
    sql += if commits { "COMMIT" } else { "ROLLBACK" };
    finish(client, &sql).await?;
    Ok(commits)
}

/// In a server without prepared transactions, or after a NOTIFY, PREPARE is refused.
async fn two_phase(client: &mut Client, text: &mut Text<'_>) -> Result<bool, Error> {
    let gid = format!("{PREPARED}{:016x}", text.rng.u64(..));
    let rows = format!("{}; {}", text.insert(), text.insert());
    finish(client, &format!("BEGIN; {rows}; PREPARE TRANSACTION '{gid}'")).await?;
    tokio::time::sleep(std::time::Duration::from_millis(text.rng.u64(0..30))).await;
    let commits = text.rng.u8(0..4) > 0;
    let word = if commits { "COMMIT" } else { "ROLLBACK" };
    client.batch_execute(&format!("{word} PREPARED '{gid}'")).await?;
    Ok(commits)
}

/// Executes statements of one transaction; leaves none open if one fails.
async fn finish(client: &Client, sql: &str) -> Result<(), Error> {
    let done = client.batch_execute(sql).await;
    if done.is_err() {
        client.batch_execute("ROLLBACK").await?;
    }
    done
}

async fn server_version(client: &Client) -> Result<i32, Error> {
    let sql = "SELECT current_setting('server_version_num')::int";
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// Statements as text, for forms that take no parameters.
struct Text<'a> {
    rng: &'a mut Rng,
    stores: u32,
    end: Timestamp,
}

impl Text<'_> {
    fn store(&mut self) -> String {
        format!("'store {}'", self.rng.u32(0..self.stores))
    }

    /// Half of them lately.
    fn at(&mut self) -> String {
        let reach_us = if self.rng.bool() { 3 * HOUR_US } else { 20 * DAY_US };
        format!("'{}'", self.end.plus(-self.rng.i64(0..reach_us)))
    }

    fn status(&mut self) -> &'static str {
        if self.rng.bool() { "'active'" } else { "'inactive'" }
    }

    fn insert(&mut self) -> String {
        let (store, at, status) = (self.store(), self.at(), self.status());
        format!(
            "INSERT INTO public.store_activity (store_id, timestamp_utc, status) VALUES ({store}, {at}, {status})
             ON CONFLICT (store_id, timestamp_utc) DO UPDATE SET status = excluded.status"
        )
    }

    fn moves(&mut self) -> String {
        let (from, to, at) = (self.store(), self.store(), self.at());
        let by = *self.rng.choice(&["1 hour 1 us", "-31 minutes", "25 hours"]).unwrap();
        format!(
            "UPDATE public.store_activity SET timestamp_utc = timestamp_utc + interval '{by}'
             WHERE store_id = {from} AND timestamp_utc BETWEEN {at} AND {at}::timestamptz + interval '2 hours'
               AND timestamp_utc + interval '{by}' < '{end}';
             UPDATE public.store_activity SET store_id = {to}
             WHERE store_id = {from} AND timestamp_utc BETWEEN {at} AND {at}::timestamptz + interval '1 hour'",
            end = self.end
        )
    }

    fn handover(&mut self) -> String {
        let (from, to, at, status) = (self.store(), self.store(), self.at(), self.status());
        format!(
            "WITH gone AS (DELETE FROM public.store_activity WHERE store_id = {from}
                             AND timestamp_utc BETWEEN {at} AND {at}::timestamptz + interval '1 hour'
                           RETURNING timestamp_utc)
             INSERT INTO public.store_activity (store_id, timestamp_utc, status)
             SELECT {to}, timestamp_utc, {status} FROM gone ON CONFLICT DO NOTHING"
        )
    }

    fn merge(&mut self) -> String {
        let (store, at, status) = (self.store(), self.at(), self.status());
        format!(
            "MERGE INTO public.store_activity a
             USING (SELECT {store} AS s, {at}::timestamptz + n * interval '10 minutes' AS at FROM generate_series(-5, 0) n
                    UNION SELECT store_id, timestamp_utc FROM public.store_activity WHERE store_id = {store} AND random() < 0.01) n
             ON a.store_id = n.s AND a.timestamp_utc = n.at
             WHEN MATCHED AND a.status = 'active' THEN DELETE
             WHEN MATCHED THEN UPDATE SET status = {status}
             WHEN NOT MATCHED THEN INSERT (store_id, timestamp_utc, status) VALUES (n.s, n.at, {status})"
        )
    }

    /// Each block is a subtransaction; those that raise undo what they wrote.
    fn blocks(&mut self) -> String {
        let (store, at, status) = (self.store(), self.at(), self.status());
        format!(
            "DO $$ BEGIN
               FOR n IN 1..80 LOOP
                 BEGIN
                   INSERT INTO public.store_activity (store_id, timestamp_utc, status)
                   VALUES ({store}, {at}::timestamptz - n * interval '7 minutes', {status});
                   IF n % 5 = 0 THEN RAISE EXCEPTION 'undone'; END IF;
                 EXCEPTION WHEN OTHERS THEN NULL;
                 END;
               END LOOP;
             END $$"
        )
    }
}
