//! The transaction of a reading, begun without waiting for the server's word on it.

use std::ops::Deref;

use futures_util::FutureExt;
use tokio_postgres::Client;

use super::Scope;

/// A read-only transaction on a session, rolled back when dropped.
///
/// The library's own transaction waits for the answer to its START before the first question can be sent. This one is
/// begun by the first question itself, [`ReadTransaction::begin`], and everything else is sent right behind it.
pub(super) struct ReadTransaction<'a>(&'a mut Client);

impl<'a> ReadTransaction<'a> {
    /// Of a session that is in no transaction. Nothing is sent yet.
    pub fn of(client: &'a mut Client) -> Self {
        ReadTransaction(client)
    }

    /// Begins, and locks the tables before a snapshot exists: TRUNCATE does not respect snapshots, and with the lock it
    /// has either committed before ours or waits until we are done. Sent when first polled; what is sent after it
    /// belongs to the transaction, or fails with it.
    pub async fn begin(&self, scope: Scope) -> Result<(), tokio_postgres::Error> {
        let lock = scope.lock();
        let begin = format!("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; {lock}");
        self.0.batch_execute(&begin).await
    }
}

impl Deref for ReadTransaction<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.0
    }
}

impl Drop for ReadTransaction<'_> {
    fn drop(&mut self) {
        // The first poll sends it. Nothing was written, so nobody has to wait for the server's word; if the transaction
        // never began, the server only remarks on that.
        let _ = self.0.batch_execute("ROLLBACK").now_or_never();
    }
}
