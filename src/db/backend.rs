//! The processes of the server that serve our sessions.

use std::fmt;
use std::time::Duration;

use tokio_postgres::Client;

use super::{DbError, Session};

/// One process of the server. Numbers of processes come again; together with its start it is one and no other, on
/// whatever server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    pid: i32,
    /// Microseconds since 1970, by the server's clock.
    started_us: i64,
}

impl Backend {
    /// The one that serves a session.
    pub async fn of(session: &Session) -> Result<Self, DbError> {
        let sql = "SELECT pid, (extract(epoch FROM backend_start) * 1000000)::bigint
                   FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()";
        let row = session.client.query_one(sql, &[]).await?;
        Ok(Backend {
            pid: row.try_get(0)?,
            started_us: row.try_get(1)?,
        })
    }

    /// Whether it has had nothing to do for so long, or is gone, as another session sees it. One that we wait for and that
    /// says so has not got the question, or we have not got its answer: it is frozen, or the line is broken.
    ///
    /// One that is frozen in the middle of a statement cannot be told from one that works.
    pub async fn has_idled(&self, witness: &Client, length: Duration) -> Result<bool, DbError> {
        let sql = "SELECT NOT EXISTS (
                     SELECT FROM pg_catalog.pg_stat_activity
                     WHERE pid = $1 AND (extract(epoch FROM backend_start) * 1000000)::bigint = $2
                       AND NOT coalesce(state LIKE 'idle%'
                             AND state_change < pg_catalog.clock_timestamp() - $3 * interval '1 second', false))";
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&self.pid, &self.started_us, &length.as_secs_f64()];
        Ok(witness.query_one(sql, &parameters).await?.try_get(0)?)
    }

    /// Ends those of `backends` that are still there, through another session of the same role: sessions that we have given
    /// up may not keep their locks until the server notices.
    pub async fn end(backends: &[Self], through: &Client) -> Result<(), DbError> {
        let sql = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
                   WHERE pid = $1 AND (extract(epoch FROM backend_start) * 1000000)::bigint = $2";
        for Backend { pid, started_us } in backends {
            through.execute(sql, &[pid, started_us]).await?;
        }
        Ok(())
    }
}

/// For people: the number under which the server's machine knows it.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)
    }
}
