//! The change feed: what changed in the input tables since a cursor.
//!
//! NOTIFY wakes ([`doorbell`]), the snapshot delta tells: rows carry the transaction that wrote them, and new are
//! those of transactions that were not visible at the cursor and are now. Everything is read in one
//! REPEATABLE READ transaction ([`Reading`]), so that what is applied is one point of the change stream.

pub mod doorbell;

mod by_store;
mod copy;
mod cursor;
mod one;
mod raw;
mod rebuild;
mod transaction;

pub use cursor::{Cursor, ParseCursorError};
pub use one::StoreRows;

use std::collections::BTreeMap;

use futures_util::{TryStreamExt, pin_mut};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use self::transaction::ReadTransaction;
use crate::db::wiring::Wiring;
use crate::db::{DbError, Session, Statements};
use crate::rollup::{Observation, ReadBack, Rollup, StoreIndex, StoreNo};
use crate::store::Status;
use crate::time::Timestamp;

/// Rows that wait for nothing between two looks at who else wants something.
const APPLY_ROWS: usize = 50_000;

/// Stores that are recomputed one by one in any case.
const ONE_BY_ONE_MAX: usize = 200;

/// Rows that a delta holds at most (24 bytes each, and the ids of stores that are new); beyond, everything is built anew from rows that are streamed.
const DELTA_ROWS_MAX: usize = 16_000_000;

/// Stores that one query reads back.
const STORES_PER_QUERY: usize = 500;

/// A consistent look at the input tables: everything read through it is of the same point.
pub struct Reading<'a> {
    transaction: ReadTransaction<'a>,
    statements: &'a Statements,
    cursor: Cursor,
}

/// The point that a transaction sees, and whether the server is a standby.
const POINT: &str = "SELECT pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_is_in_recovery()";

/// What changed since a cursor: `$1` is its xmax, `$2` the transactions that were running. One that stays open for
/// long costs this list, not a scan. No transaction from our own xmax on is visible: rows that say otherwise were
/// stamped by another database, and would be read again and again.
const INVALIDATIONS: &str = "
    SELECT store_id, from_utc, to_utc FROM uptally.invalidation
    WHERE change_xid >= $1::text::xid8
      AND change_xid < pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
       OR change_xid = ANY ($2::text[]::xid8[])";

const ROWS: &str = "
    SELECT store_id, timestamp_utc, status FROM public.store_activity
    WHERE change_xid >= $1::text::xid8
      AND change_xid < pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
    UNION ALL
    SELECT store_id, timestamp_utc, status FROM public.store_activity
    WHERE change_xid = ANY ($2::text[]::xid8[])";

/// Said of a server in recovery.
const IN_RECOVERY: &str = "the database is in recovery; only a primary can be followed";

/// Which tables a reading looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The input tables.
    Inputs,
    /// The rollup tables too.
    InputsAndRollup,
}

impl Scope {
    fn lock(self) -> &'static str {
        match self {
            Scope::Inputs => {
                "LOCK TABLE public.store_activity, public.store_business_hours, public.store_closures,
                            public.store_timezones
                 IN ACCESS SHARE MODE"
            }
            Scope::InputsAndRollup => {
                "LOCK TABLE public.store_activity, public.store_business_hours, public.store_closures,
                            public.store_timezones,
                            uptally.rollup_schedule, uptally.rollup_open, uptally.rollup_store, uptally.rollup_down, uptally.rollup_day,
                            uptally.checkpoint
                 IN ACCESS SHARE MODE"
            }
        }
    }
}

/// What is new since a cursor, not yet applied.
#[derive(Debug, Default)]
pub struct Delta {
    /// Rows of stores that the rollup knows.
    rows: Vec<(StoreNo, Observation)>,
    /// Rows of stores that it does not know, each by its store's place in `new_ids`.
    new_rows: Vec<(usize, Observation)>,
    new_ids: Vec<String>,
    /// Stretches in which rows went away.
    stretches: BTreeMap<String, (Timestamp, Timestamp)>,
    /// Stores whose hours, closures or zone changed.
    rescheduled: FxHashSet<String>,
    /// A table was emptied, or all stores were closed: everything is to be read again.
    everything: bool,
}

impl Delta {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0 && !self.has_invalidations()
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows.len() + self.new_rows.len()
    }

    /// Whether stores must be read from raw.
    pub fn has_invalidations(&self) -> bool {
        self.everything || !self.stretches.is_empty() || !self.rescheduled.is_empty()
    }

    /// Whether the rollup must be built anew instead of moved forward.
    pub fn wants_rebuild(&self) -> bool {
        self.everything
    }

    /// Has a store recomputed from the whole of its raw rows.
    pub fn recompute(&mut self, store_id: String) {
        self.rescheduled.insert(store_id);
    }

    /// From now on the rollup must be built anew.
    pub fn want_rebuild(&mut self) {
        self.everything = true;
    }

    fn decide(&mut self, stores: &StoreIndex) {
        self.everything |= is_much_of(stores.len(), self.rescheduled.len() + self.stretches.len());
    }

    fn take_rows(&mut self, from: Delta) {
        self.rows = from.rows;
        (self.new_rows, self.new_ids) = (from.new_rows, from.new_ids);
        self.everything |= from.everything;
    }
}

/// The point at which the database is. Equal to a cursor: nothing changed since. Much cheaper than a reading.
pub async fn current(client: &Client) -> Result<Cursor, DbError> {
    let messages = client
        .simple_query("SELECT pg_catalog.pg_current_snapshot()::text")
        .await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    parse(row.unwrap_or_default())
}

/// The time by the database's clock.
pub async fn clock(client: &Client) -> Result<Timestamp, DbError> {
    Ok(client
        .query_one("SELECT pg_catalog.clock_timestamp()", &[])
        .await?
        .try_get(0)?)
}

fn parse(text: &str) -> Result<Cursor, DbError> {
    text.parse()
        .map_err(|_| DbError::Unexpected(format!("the database has a snapshot that is none: {text}")))
}

impl<'a> Reading<'a> {
    /// Starts a consistent look.
    pub async fn start(session: &'a mut Session, scope: Scope) -> Result<Self, DbError> {
        let Session { client, statements, .. } = session;
        let transaction = ReadTransaction::of(client);
        transaction.begin(scope).await?;
        let cursor = point(&transaction, statements).await?;
        Ok(Reading {
            transaction,
            statements,
            cursor,
        })
    }

    /// Starts a consistent look and reads what is new since `old`: the same as [`Reading::start`] and
    /// [`Reading::delta`], but everything goes to the server at once: one round trip.
    pub async fn look(session: &'a mut Session, old: &Cursor, stores: &StoreIndex) -> Result<(Self, Delta), DbError> {
        let Session { client, statements, .. } = session;
        let transaction = ReadTransaction::of(client);
        let mut delta = Delta::default();
        let mut rows = Delta::default();
        // They are sent in this order, so that the lock comes before the snapshot.
        let (began, cursor, invalidations, read) = futures_util::future::join4(
            transaction.begin(Scope::Inputs),
            point(&transaction, statements),
            read_invalidations(&transaction, statements, old, &mut delta),
            read_rows(&transaction, statements, old, stores, &mut rows),
        )
        .await;
        began?;
        let cursor = cursor?;
        invalidations?;
        read?;
        delta.take_rows(rows);
        delta.decide(stores);
        let reading = Reading {
            transaction,
            statements,
            cursor,
        };
        Ok((reading, delta))
    }

    /// The point that this reading sees.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The session inside the transaction, for reading other tables at the same point.
    pub fn transaction(&self) -> &Client {
        &self.transaction
    }

    /// What the feed hangs on, at this point.
    pub async fn wiring(&self) -> Result<Wiring, DbError> {
        Wiring::read(&*self.transaction, self.statements).await
    }

    /// Ends the look. Nothing was written, so nobody has to wait for the server's word on it.
    pub fn finish(self) -> Cursor {
        self.cursor
    }

    /// The prepared statement of a text.
    async fn statement(&self, sql: &'static str) -> Result<Statement, DbError> {
        self.statements.get(&*self.transaction, sql).await
    }

    /// Reads what is new since `old`. Touches no rollup.
    pub async fn delta(&self, old: &Cursor, stores: &StoreIndex) -> Result<Delta, DbError> {
        let mut delta = Delta::default();
        read_invalidations(&self.transaction, self.statements, old, &mut delta).await?;
        delta.decide(stores);
        if !delta.everything {
            read_rows(&self.transaction, self.statements, old, stores, &mut delta).await?;
        }
        Ok(delta)
    }

    /// Applies a delta, and what [`Rollup::set_now`] found to be due. In between, `pause` is called where the rollup
    /// is busy for long: whoever waits for something else gets a turn.
    ///
    /// What is read back is of this reading's point, so it comes last: a row of the delta that memory met there first,
    /// as the one before a stretch, would be taken for known although no cell has it.
    pub async fn apply(
        &self,
        delta: Delta,
        due: Vec<ReadBack>,
        rollup: &mut Rollup,
        mut pause: impl FnMut(),
    ) -> Result<(), DbError> {
        debug_assert!(!delta.everything, "the rollup is to be built anew");
        let Delta {
            mut rows,
            new_rows,
            new_ids,
            stretches,
            mut rescheduled,
            ..
        } = delta;
        let numbers: Vec<StoreNo> = new_ids.iter().map(|id| rollup.intern(id)).collect();
        let new_rows = new_rows.into_iter();
        rows.extend(new_rows.filter_map(|(place, observation)| Some((*numbers.get(place)?, observation))));
        // Sorted as a whole, rows are in order for every store, whatever order they were written in.
        rows.sort_unstable();
        let mut read_backs = due;
        for chunk in rows.chunks_mut(APPLY_ROWS) {
            read_backs.extend(rollup.apply(chunk));
            pause();
        }
        let gone: Vec<&String> = stretches.keys().collect();
        let unknown = self.unknown_stores(gone.into_iter().chain(&rescheduled)).await?;
        let unknown: FxHashSet<String> = unknown.into_iter().collect();
        for id in &unknown {
            rescheduled.remove(id);
            if let Some(store) = rollup.find(id) {
                rollup.remove(store);
            }
        }
        for (id, (from, to)) in stretches {
            if !unknown.contains(&id) && !rescheduled.contains(&id) {
                // New to us if all its rows came with the stamps of another database.
                let store = rollup.intern(&id);
                read_backs.extend(rollup.read_back(store, from, to));
            }
        }
        let rescheduled: Vec<String> = rescheduled.into_iter().collect();
        for ids in rescheduled.chunks(STORES_PER_QUERY) {
            self.reschedule(ids, rollup).await?;
            pause();
        }
        let read_backs = merged(read_backs, rollup);
        for read_backs in read_backs.chunks(STORES_PER_QUERY) {
            self.read_back(read_backs, rollup).await?;
            pause();
        }
        Ok(())
    }
}

async fn point(transaction: &Client, statements: &Statements) -> Result<Cursor, DbError> {
    let statement = statements.get(transaction, POINT).await?;
    let row = transaction.query_one(&statement, &[]).await?;
    if row.try_get(1)? {
        // On a standby a running transaction reads as committed.
        return Err(DbError::Unexpected(IN_RECOVERY.to_owned()));
    }
    parse(row.try_get(0)?)
}

async fn read_invalidations(
    transaction: &Client,
    statements: &Statements,
    old: &Cursor,
    delta: &mut Delta,
) -> Result<(), DbError> {
    let (from, running) = bounds(old);
    let statement = statements.get(transaction, INVALIDATIONS).await?;
    let parameters: [&(dyn ToSql + Sync); 2] = [&from, &running];
    // There is one for every row that a statement moved: never all in memory, only what they say of each store.
    let rows = transaction.query_raw(&statement, parameters).await?;
    pin_mut!(rows);
    while let Some(row) = rows.try_next().await? {
        let (from, to): (Option<Timestamp>, Option<Timestamp>) = (row.try_get(1)?, row.try_get(2)?);
        match (row.try_get::<_, Option<String>>(0)?, from.zip(to)) {
            (None, _) => delta.everything = true,
            (Some(store), None) => {
                delta.rescheduled.insert(store);
            }
            (Some(store), Some((from, to))) => {
                let stretch = delta.stretches.entry(store).or_insert((from, to));
                *stretch = (stretch.0.min(from), stretch.1.max(to));
            }
        }
    }
    Ok(())
}

async fn read_rows(
    transaction: &Client,
    statements: &Statements,
    old: &Cursor,
    stores: &StoreIndex,
    delta: &mut Delta,
) -> Result<(), DbError> {
    let (from, running) = bounds(old);
    let statement = statements.get(transaction, ROWS).await?;
    let parameters: [&(dyn ToSql + Sync); 2] = [&from, &running];
    let rows = transaction.query_raw(&statement, parameters).await?;
    pin_mut!(rows);
    let mut places: FxHashMap<String, usize> = FxHashMap::default();
    while let Some(row) = rows.try_next().await? {
        let id: &str = row.try_get(0)?;
        let observation = observation(row.try_get(1)?, row.try_get(2)?);
        if let Some(store) = stores.find(id) {
            delta.rows.push((store, observation));
        } else {
            let place = places.get(id).copied().unwrap_or_else(|| {
                let place = delta.new_ids.len();
                places.insert(id.to_owned(), place);
                delta.new_ids.push(id.to_owned());
                place
            });
            delta.new_rows.push((place, observation));
        }
        if delta.rows() > DELTA_ROWS_MAX {
            delta.everything = true;
            return Ok(());
        }
    }
    Ok(())
}

/// The parameters of [`INVALIDATIONS`] and [`ROWS`].
fn bounds(old: &Cursor) -> (String, Vec<String>) {
    let running = old.running().iter().map(u64::to_string).collect();
    (old.xmax().to_string(), running)
}

/// Whether so many stores are to be recomputed that reading all rows once is cheaper than store by store.
fn is_much_of(stores: usize, recomputed: usize) -> bool {
    recomputed > ONE_BY_ONE_MAX && recomputed * 4 > stores
}

/// One read-back per store: they are computed against the whole of it.
fn merged(read_backs: Vec<ReadBack>, rollup: &Rollup) -> Vec<ReadBack> {
    let mut by_store: BTreeMap<StoreNo, (Timestamp, Timestamp)> = BTreeMap::new();
    for ReadBack { store, from, to, .. } in read_backs {
        let stretch = by_store.entry(store).or_insert((from, to));
        *stretch = (stretch.0.min(from), stretch.1.max(to));
    }
    by_store
        .into_iter()
        .filter_map(|(store, (from, to))| rollup.read_back(store, from, to))
        .collect()
}

/// A row's observation. The table's CHECK lets no other status in.
fn observation(at: Timestamp, status: &str) -> Observation {
    let status = if status == Status::Inactive.as_str() {
        Status::Inactive
    } else {
        Status::Active
    };
    Observation { at, status }
}
