//! The rows of `public.reports`, over one connection of their own.
//!
//! Statements are prepared once for each connection and pipelined; a connection that is lost, or
//! silent past [`DEADLINE`], is replaced at the next use.

use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{Mutex, watch};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::{AsOf, Due, Format, Rendered, ReportRequest};
use crate::time::Timestamp;
use crate::window::DateRange;

/// How long one statement, or connecting, may take: a half-open connection must not hold a report
/// for ever.
const DEADLINE: Duration = Duration::from_secs(10);

/// Rows that one pass over the unfinished reports reads at most.
pub(super) const UNFINISHED_MAX: usize = 1000;

/// Opens a session with the database and drives it in a task of its own.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, Result<Client, ConnectError>> + Send + Sync + 'static>;

/// Whatever kept a session from being opened.
pub type ConnectError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why the table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// No session.
    #[error("the database cannot be reached")]
    Connect(#[source] ConnectError),
    /// A statement failed, or the session with it.
    #[error("the database refused a statement on public.reports")]
    Statement(#[from] tokio_postgres::Error),
    /// Another daemon makes the report of a job.
    #[error("another daemon makes this report")]
    Taken,
    /// No answer in time.
    #[error("the database did not answer within {} s", DEADLINE.as_secs())]
    Deadline,
}

/// A row as far as the registry needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Recorded {
    Running,
    Complete {
        csv_bytes: u64,
        format: Format,
        made_of: MadeOf,
    },
    Failed {
        reason: String,
    },
}

/// What a report's bytes follow from, beside its options: where both are the same, so are the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MadeOf {
    pub(super) as_of: Option<Timestamp>,
    pub(super) cursors: Vec<String>,
}

/// A report as its row says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its name.
    pub report_id: Uuid,
    /// How far it is.
    pub state: ReportState,
    /// When it was triggered, by the database's clock.
    pub requested_at: Timestamp,
    /// The instant that it is as of; none while a `latest` report runs.
    pub as_of: Option<Timestamp>,
    /// The words of the request: a row may be of another version.
    pub windows: String,
    /// Likewise.
    pub closed: String,
    /// Likewise.
    pub format: String,
    /// Likewise.
    pub columns: String,
    /// The days that it is over, if it is over days.
    pub days: Option<(NaiveDate, NaiveDate)>,
    /// Rows of the file.
    pub stores: Option<u64>,
    /// Length of the file.
    pub bytes: Option<u64>,
    /// How long the run took, microseconds.
    pub duration_us: Option<u64>,
    /// When it ended, by the database's clock.
    pub finished_at: Option<Timestamp>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// The job that it was made for, and the instant at which it was due.
    pub due: Option<(String, Timestamp)>,
    /// When its file was removed, if it was.
    pub removed_at: Option<Timestamp>,
}

/// What is known of a due report of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempts {
    /// It is made.
    pub(super) complete: bool,
    /// It waits for its turn, or is being made.
    pub(super) running: bool,
    /// How often making it failed.
    pub(super) failed: i32,
    /// The time since the last failure, by the database's clock.
    pub(super) since_last_us: i64,
}

/// How far a report is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportState {
    /// It waits for its turn, or is being made.
    Running,
    /// Its file is there.
    Complete,
    /// It ended without a file.
    Failed,
}

/// What a row is changed to when its report is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    Complete {
        as_of: Timestamp,
        cursors: Vec<String>,
        stores: u64,
        csv_bytes: u64,
        format: Format,
        duration: Duration,
    },
    Failed {
        reason: String,
        duration: Duration,
    },
}

impl Ending {
    pub(super) fn complete(rendered: &Rendered, format: Format, duration: Duration) -> Self {
        Ending::Complete {
            as_of: rendered.as_of,
            cursors: rendered.cursors.clone(),
            stores: rendered.stores,
            csv_bytes: rendered.csv.bytes(),
            format,
            duration,
        }
    }
}

impl Ending {
    /// As a row would say it.
    pub(super) fn recorded(&self) -> Recorded {
        match self {
            Ending::Complete {
                as_of,
                cursors,
                csv_bytes,
                format,
                ..
            } => Recorded::Complete {
                csv_bytes: *csv_bytes,
                format: *format,
                made_of: MadeOf {
                    as_of: Some(*as_of),
                    cursors: cursors.clone(),
                },
            },
            Ending::Failed { reason, .. } => Recorded::Failed { reason: reason.clone() },
        }
    }
}

/// A row left `running`, as it was asked for.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) report_id: Uuid,
    /// The instant that was fixed at the trigger; none for `latest`.
    pub(super) as_of: Option<Timestamp>,
    /// The words of the request, unread: a row may be of another version.
    pub(super) windows: String,
    pub(super) closed: String,
    pub(super) format: String,
    pub(super) columns: String,
    pub(super) days: Option<(NaiveDate, NaiveDate)>,
}

impl Unfinished {
    /// As it was asked for; None if this version does not know how.
    pub(super) fn request(&self) -> Option<ReportRequest> {
        Some(ReportRequest {
            as_of: self.as_of.map_or(AsOf::Latest, AsOf::At),
            windows: self.windows.parse().ok()?,
            closed: self.closed.parse().ok()?,
            format: self.format.parse().ok()?,
            columns: self.columns.parse().ok()?,
            days: match self.days {
                Some((from, to)) => Some(DateRange::new(from, to).ok()?),
                None => None,
            },
        })
    }
}

pub(super) struct Table {
    connect: Connect,
    session: Mutex<Option<Arc<Session>>>,
    /// Counts the sessions that were opened: whoever watches it learns of each.
    sessions: watch::Sender<u64>,
}

/// A statement's parameters, borrowed for as long as the statement is awaited.
type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

struct Session {
    client: Client,
    insert: Statement,
    finish: Statement,
    find: Statement,
    report: Statement,
    newest: Statement,
    unfinished: Statement,
}

/// `now` is the database's clock, so that all daemons and pollers share one.
const INSERT: &str = "INSERT INTO public.reports \
     (report_id, state, requested_at, as_of_requested, windows, closed, as_of, format, columns, from_day, to_day, \
      job, due_at, attempt) \
     VALUES ($1, 'running', pg_catalog.clock_timestamp(), $2, $3, $4, \
       CASE WHEN $2 = 'now' THEN pg_catalog.clock_timestamp() ELSE $5 END, $6, $7, \
       $8::text::date, $9::text::date, $10, $11, $12) \
     ON CONFLICT (job, due_at, attempt) WHERE job IS NOT NULL DO NOTHING \
     RETURNING as_of";

/// Does not wait for the disk: the setting is local to this one-statement transaction. Should the
/// server crash within the second, the row is `running` again, and the registry, which goes over
/// such rows at every new session, writes its ending once more. The INSERT does wait.
const FINISH: &str = "UPDATE public.reports SET state = $2, as_of = COALESCE($3, as_of), \
       cursors = $4, stores = $5, csv_bytes = $6, duration_us = $7, failure = $8, \
       finished_at = pg_catalog.clock_timestamp() \
     WHERE report_id = $1 AND state = 'running' \
       AND pg_catalog.set_config('synchronous_commit', 'off', true) IS NOT NULL";

const FIND: &str = "SELECT state, csv_bytes, failure, as_of, cursors, format FROM public.reports WHERE report_id = $1";

const REPORT: &str = "SELECT report_id, state, requested_at, as_of, windows, closed, format, columns, stores, csv_bytes, \
       duration_us, finished_at, failure, from_day::text, to_day::text, job, due_at, removed_at \
     FROM public.reports WHERE report_id = $1";

const NEWEST: &str = "SELECT report_id, state, requested_at, as_of, windows, closed, format, columns, stores, csv_bytes, \
       duration_us, finished_at, failure, from_day::text, to_day::text, job, due_at, removed_at \
     FROM public.reports WHERE requested_at < $1 ORDER BY requested_at DESC, report_id DESC LIMIT $2";

const UNFINISHED: &str = "SELECT report_id, as_of, windows, closed, format, columns, \
       from_day::text, to_day::text FROM public.reports \
     WHERE state = 'running' ORDER BY requested_at LIMIT $1";

// These are rare, and not prepared.
const ATTEMPTS: &str = "SELECT coalesce(bool_or(state = 'complete'), false), coalesce(bool_or(state = 'running'), false), \
       (count(*) FILTER (WHERE state = 'failed'))::integer, pg_catalog.clock_timestamp(), max(finished_at) \
     FROM public.reports WHERE job = $1 AND due_at = $2";

const OLD: &str = "SELECT report_id, format FROM ( \
       SELECT report_id, format, removed_at, requested_at, row_number() OVER (ORDER BY due_at DESC) AS place \
       FROM public.reports WHERE job = $1 AND state = 'complete') AS made \
     WHERE removed_at IS NULL AND place > 1 \
       AND (place > $2 OR requested_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(days => $3)) \
     ORDER BY place DESC LIMIT $4";

const REMOVED: &str = "UPDATE public.reports SET removed_at = pg_catalog.clock_timestamp() WHERE report_id = $1";

impl Table {
    pub(super) fn new(connect: Connect) -> Self {
        Table {
            connect,
            session: Mutex::new(None),
            sessions: watch::Sender::new(0),
        }
    }

    /// Tells of every session that is opened from now on; ends with the table.
    pub(super) fn sessions(&self) -> watch::Receiver<u64> {
        self.sessions.subscribe()
    }

    /// Records a new report, durably. Returns the instant that it is as of, none for `latest`.
    pub(super) async fn insert(
        &self,
        report_id: Uuid,
        request: &ReportRequest,
        due: Option<&Due>,
    ) -> Result<Option<Timestamp>, TableError> {
        let requested = request.as_of.to_string();
        let given = match request.as_of {
            AsOf::At(at) => Some(at),
            AsOf::Now | AsOf::Latest => None,
        };
        let (windows, closed) = (request.windows.as_str(), request.closed.as_str());
        let session = self.session().await?;
        let (format, columns) = (request.format.as_str(), request.columns.as_str());
        let day = |of: fn(DateRange) -> NaiveDate| request.days.map(|days| of(days).to_string());
        let (from, to) = (day(DateRange::from), day(DateRange::to));
        let (job, due_at) = (due.map(|due| &*due.job), due.map(|due| due.at));
        let attempt = due.map(|due| due.attempt);
        let params: Params<'_> = &[
            &report_id, &requested, &windows, &closed, &given, &format, &columns, &from, &to, &job, &due_at, &attempt,
        ];
        let row = session.client.query_opt(&session.insert, params);
        let row = self.within_deadline(&session, row).await?.ok_or(TableError::Taken)?;
        Ok(row.try_get(0)?)
    }

    /// Records how a report ended. A row that is not `running` is left as it is.
    pub(super) async fn finish(&self, report_id: Uuid, ending: &Ending) -> Result<(), TableError> {
        let session = self.session().await?;
        let (state, as_of, cursors, stores, csv_bytes, duration, failure) = match ending {
            Ending::Complete {
                as_of,
                cursors,
                stores,
                csv_bytes,
                duration,
                ..
            } => (
                "complete",
                Some(*as_of),
                Some(cursors),
                Some(to_bigint(*stores)),
                Some(to_bigint(*csv_bytes)),
                duration,
                None,
            ),
            Ending::Failed { reason, duration } => ("failed", None, None, None, None, duration, Some(reason)),
        };
        let duration_us = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        let params: Params<'_> = &[
            &report_id,
            &state,
            &as_of,
            &cursors,
            &stores,
            &csv_bytes,
            &duration_us,
            &failure,
        ];
        let done = session.client.execute(&session.finish, params);
        self.within_deadline(&session, done).await?;
        Ok(())
    }

    /// A report's row; `None` if there is none.
    pub(super) async fn find(&self, report_id: Uuid) -> Result<Option<Recorded>, TableError> {
        let session = self.session().await?;
        let params: Params<'_> = &[&report_id];
        let row = session.client.query_opt(&session.find, params);
        let row = self.within_deadline(&session, row).await?;
        row.map(|row| recorded(&row)).transpose()
    }

    /// A report; `None` if there is none.
    pub(super) async fn report(&self, report_id: Uuid) -> Result<Option<Report>, TableError> {
        let session = self.session().await?;
        let params: Params<'_> = &[&report_id];
        let row = session.client.query_opt(&session.report, params);
        let row = self.within_deadline(&session, row).await?;
        row.map(|row| report(&row)).transpose()
    }

    /// The newest reports of those that were triggered before an instant, newest first, at most `count`.
    pub(super) async fn newest(&self, before: Timestamp, count: u32) -> Result<Vec<Report>, TableError> {
        let session = self.session().await?;
        let count = i64::from(count);
        let params: Params<'_> = &[&before, &count];
        let rows = session.client.query(&session.newest, params);
        let rows = self.within_deadline(&session, rows).await?;
        rows.iter().map(report).collect()
    }

    /// What is known of a due report of a job.
    pub(super) async fn attempts(&self, job: &str, due: Timestamp) -> Result<Attempts, TableError> {
        let session = self.session().await?;
        let params: Params<'_> = &[&job, &due];
        let row = session.client.query_one(ATTEMPTS, params);
        let row = self.within_deadline(&session, row).await?;
        let (now, last): (Timestamp, Option<Timestamp>) = (row.try_get(3)?, row.try_get(4)?);
        Ok(Attempts {
            complete: row.try_get(0)?,
            running: row.try_get(1)?,
            failed: row.try_get(2)?,
            since_last_us: last.map_or(i64::MAX, |last| now.since(last)),
        })
    }

    /// Complete reports of a job whose files are there and are not to be kept, at most [`UNFINISHED_MAX`]: the newest one
    /// is, always.
    pub(super) async fn old(
        &self,
        job: &str,
        keep_max: u32,
        keep_days: u32,
    ) -> Result<Vec<(Uuid, Format)>, TableError> {
        let session = self.session().await?;
        let (count, days) = (i64::from(keep_max), i32::try_from(keep_days).unwrap_or(i32::MAX));
        let limit = to_bigint(UNFINISHED_MAX as u64);
        let params: Params<'_> = &[&job, &count, &days, &limit];
        let rows = session.client.query(OLD, params);
        let rows = self.within_deadline(&session, rows).await?;
        let read = |row: &Row| Ok((row.try_get(0)?, row.try_get::<_, &str>(1)?.parse().unwrap_or_default()));
        rows.iter().map(read).collect()
    }

    /// Records that a report's file was removed.
    pub(super) async fn removed(&self, report_id: Uuid) -> Result<(), TableError> {
        let session = self.session().await?;
        let params: Params<'_> = &[&report_id];
        let done = session.client.execute(REMOVED, params);
        self.within_deadline(&session, done).await?;
        Ok(())
    }

    /// The oldest rows that are `running`, at most [`UNFINISHED_MAX`].
    pub(super) async fn unfinished(&self) -> Result<Vec<Unfinished>, TableError> {
        let session = self.session().await?;
        let limit = to_bigint(UNFINISHED_MAX as u64);
        let rows = self
            .within_deadline(&session, session.client.query(&session.unfinished, &[&limit]))
            .await?;
        let read = |row: &Row| {
            Ok(Unfinished {
                report_id: row.try_get(0)?,
                as_of: row.try_get(1)?,
                windows: row.try_get(2)?,
                closed: row.try_get(3)?,
                format: row.try_get(4)?,
                columns: row.try_get(5)?,
                days: days(row, 6)?,
            })
        };
        rows.iter().map(read).collect()
    }

    async fn session(&self) -> Result<Arc<Session>, TableError> {
        // Held while connecting: whoever comes meanwhile waits for the same session.
        let mut slot = self.session.lock().await;
        if let Some(session) = slot.as_ref().filter(|s| !s.client.is_closed()) {
            return Ok(Arc::clone(session));
        }
        *slot = None;
        let open = async {
            let client = (self.connect)().await.map_err(TableError::Connect)?;
            Session::prepare(client).await
        };
        let session = tokio::time::timeout(DEADLINE, open)
            .await
            .map_err(|_| TableError::Deadline)??;
        let session = Arc::new(session);
        *slot = Some(Arc::clone(&session));
        self.sessions.send_modify(|count| *count += 1);
        Ok(session)
    }

    /// Awaits a statement; a session that does not answer in time is not used again.
    async fn within_deadline<T>(
        &self,
        session: &Arc<Session>,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, TableError> {
        if let Ok(done) = tokio::time::timeout(DEADLINE, statement).await {
            return Ok(done?);
        }
        let mut slot = self.session.lock().await;
        if slot.as_ref().is_some_and(|s| Arc::ptr_eq(s, session)) {
            *slot = None;
        }
        Err(TableError::Deadline)
    }
}

impl Session {
    async fn prepare(client: Client) -> Result<Self, TableError> {
        use tokio_postgres::types::Type;
        let (text, instant) = (Type::TEXT, Type::TIMESTAMPTZ);
        let [as_of, windows, closed, format, columns, from, to, job] = [(); 8].map(|()| text.clone());
        let due_at = instant.clone();
        let insert_types = [
            Type::UUID,
            as_of,
            windows,
            closed,
            instant,
            format,
            columns,
            from,
            to,
            job,
            due_at,
            Type::INT4,
        ];
        Ok(Session {
            insert: client.prepare_typed(INSERT, &insert_types).await?,
            finish: client.prepare(FINISH).await?,
            find: client.prepare(FIND).await?,
            report: client.prepare(REPORT).await?,
            newest: client.prepare(NEWEST).await?,
            unfinished: client.prepare(UNFINISHED).await?,
            client,
        })
    }
}

fn recorded(row: &Row) -> Result<Recorded, TableError> {
    let state: &str = row.try_get(0)?;
    Ok(match state {
        "running" => Recorded::Running,
        "complete" => {
            // A length that is missing or negative matches no file, so nothing wrong is served.
            Recorded::Complete {
                csv_bytes: unsigned(row, 1)?.unwrap_or(u64::MAX),
                // Another version's is not here under the name of a CSV either.
                format: row.try_get::<_, &str>(5)?.parse().unwrap_or_default(),
                made_of: MadeOf {
                    as_of: row.try_get(3)?,
                    cursors: row.try_get::<_, Option<_>>(4)?.unwrap_or_default(),
                },
            }
        }
        _ => {
            let reason: Option<String> = row.try_get(2)?;
            Recorded::Failed {
                reason: reason.unwrap_or_else(|| "no reason was recorded".to_owned()),
            }
        }
    })
}

fn report(row: &Row) -> Result<Report, TableError> {
    Ok(Report {
        report_id: row.try_get(0)?,
        state: match row.try_get::<_, &str>(1)? {
            "running" => ReportState::Running,
            "complete" => ReportState::Complete,
            _ => ReportState::Failed,
        },
        requested_at: row.try_get(2)?,
        as_of: row.try_get(3)?,
        windows: row.try_get(4)?,
        closed: row.try_get(5)?,
        format: row.try_get(6)?,
        columns: row.try_get(7)?,
        stores: unsigned(row, 8)?,
        bytes: unsigned(row, 9)?,
        duration_us: unsigned(row, 10)?,
        finished_at: row.try_get(11)?,
        failure: row.try_get(12)?,
        days: days(row, 13)?,
        due: row.try_get::<_, Option<String>>(15)?.zip(row.try_get(16)?),
        removed_at: row.try_get(17)?,
    })
}

/// The days of a report, in two columns.
fn days(row: &Row, column: usize) -> Result<Option<(NaiveDate, NaiveDate)>, tokio_postgres::Error> {
    let day = |column: usize| -> Result<Option<NaiveDate>, tokio_postgres::Error> {
        let text: Option<&str> = row.try_get(column)?;
        // The type of the column is date.
        Ok(text.and_then(|text| text.parse().ok()))
    };
    Ok(day(column)?.zip(day(column + 1)?))
}

/// A number of a column, which is not negative.
fn unsigned(row: &Row, column: usize) -> Result<Option<u64>, tokio_postgres::Error> {
    let number: Option<i64> = row.try_get(column)?;
    Ok(number.and_then(|number| u64::try_from(number).ok()))
}

fn to_bigint(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
