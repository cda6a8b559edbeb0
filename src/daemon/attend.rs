//! Waiting for the database without leaving anybody else waiting.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::{DaemonError, Point, Pulse, Request, asked};
use crate::db::{Backend, DbError};
use crate::feed::doorbell::Doorbell;

/// A request waits so long for a read that is under way: the read may have begun before what whoever asks has just
/// written, and the next one sees it. Later it gets the point before the read.
pub(super) const READ_PATIENCE: Duration = Duration::from_millis(100);

/// What comes from outside while the daemon follows, and what is seen of it there.
pub(super) struct Outside<'a> {
    /// Questions for a point.
    pub requests: &'a mut mpsc::Receiver<Request>,
    /// Who had the present read, and is to be answered with it.
    pub asked: Option<Request>,
    /// The order to stop.
    pub shutdown: &'a mut watch::Receiver<bool>,
    /// What shows there that the daemon gets on.
    pub pulse: &'a Pulse,
}

/// Why following ends.
#[derive(Debug)]
pub(super) enum Halt {
    /// It is to stop.
    Shutdown,
    /// It cannot go on.
    Failed(DaemonError),
}

impl<E: Into<DaemonError>> From<E> for Halt {
    fn from(error: E) -> Self {
        Halt::Failed(error.into())
    }
}

/// Waits for an answer of the database; meanwhile, after a moment, whoever asks for a point gets the one before it.
/// Gives up if the answer is late and the server is not even at work on it, and at once if the daemon is to stop. `work`:
/// who can tell, and the process that is to answer; None for a question that is never long.
pub(super) async fn attend<T>(
    answer_of_database: impl Future<Output = Result<T, DbError>>,
    outside: &mut Outside<'_>,
    began: Instant,
    answer_deadline: Duration,
    mut point: impl FnMut() -> Point,
    work: Option<(&Doorbell, Backend)>,
) -> Result<T, Halt> {
    let patience = tokio::time::sleep_until((began + READ_PATIENCE).into());
    let deadline = tokio::time::sleep_until((began + answer_deadline).into());
    tokio::pin!(answer_of_database, patience, deadline);
    loop {
        tokio::select! {
            biased;
            answered = &mut answer_of_database => {
                outside.pulse.beat();
                return Ok(answered?);
            }
            () = asked(outside.shutdown) => return Err(Halt::Shutdown),
            () = &mut patience, if !patience.is_elapsed() => {
                if let Some(request) = outside.asked.take() {
                    answer(request, &mut point);
                }
            }
            Some(request) = outside.requests.recv(), if patience.is_elapsed() => answer(request, &mut point),
            () = &mut deadline => {
                match work {
                    Some((doorbell, backend)) => is_at_work(doorbell, backend, answer_deadline).await?,
                    None => return Err(silent(answer_deadline).into()),
                }
                outside.pulse.beat();
                deadline.as_mut().reset((Instant::now() + answer_deadline).into());
            }
        }
    }
}

/// Waits for work that may take any time. The pulse beats as long as the server is at it. `server`: who can tell, and the
/// process that works.
pub(super) async fn working<T, E: Into<DaemonError>>(
    work: impl Future<Output = Result<T, E>>,
    pulse: &Pulse,
    answer_deadline: Duration,
    (doorbell, backend): (&Doorbell, Backend),
) -> Result<T, Halt> {
    let mut every = tokio::time::interval_at((Instant::now() + answer_deadline).into(), answer_deadline);
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                pulse.beat();
                return Ok(done?);
            }
            _ = every.tick() => {
                if !backend.has_idled(doorbell.client(), answer_deadline / 2).await? {
                    pulse.beat();
                }
            }
        }
    }
}

/// An error if a process of the server is not at work on what we have waited for since `answer_deadline`: for half of that
/// it has had nothing to do.
pub(super) async fn is_at_work(
    doorbell: &Doorbell,
    backend: Backend,
    answer_deadline: Duration,
) -> Result<(), DbError> {
    if backend.has_idled(doorbell.client(), answer_deadline / 2).await? {
        return Err(silent(answer_deadline));
    }
    Ok(())
}

fn silent(answer_deadline: Duration) -> DbError {
    DbError::Unexpected(format!("the database has not answered for {answer_deadline:?}"))
}

/// Answers a request, unless whoever asked has gone.
pub(super) fn answer(request: Request, point: impl FnOnce() -> Point) {
    if !request.is_closed() {
        let _ = request.send(point());
    }
}
