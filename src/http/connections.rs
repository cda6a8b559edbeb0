//! The open connections: how many there may be, and which one makes room for another.
//!
//! A client that is honest sends its request at once and takes the answer as it comes. So where there is no room, the
//! connection that has kept us waiting longest is closed for the new one: any number of silent clients is nothing
//! that others have to wait for. Connections that we keep waiting are never closed for others.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, Id, JoinSet};

use super::presence::Presence;

/// File descriptors that connections leave to the rest of the process: sessions with Postgres, files of reports.
const DESCRIPTORS_LEFT: usize = 64;
/// Connections at least, however few descriptors there are.
const CONNECTIONS_MIN: usize = 8;
/// Who takes nothing of an answer for so long may be closed for somebody else.
const TAKING_GRACE: Duration = Duration::from_secs(1);
/// How often it is looked who may be closed by now, while a new connection waits for room.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Pause after the process has run out of file descriptors and nobody could be closed: the next accept would only find
/// that again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause for the descriptor of a connection that was closed to become free.
const CLOSING_PAUSE: Duration = Duration::from_millis(1);
/// Lines of the log about a lack of descriptors are so far apart at least.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// The open connections and the tasks that serve them.
pub(super) struct Connections {
    slots: Arc<Semaphore>,
    open: HashMap<Id, (Arc<Presence>, AbortHandle)>,
    tasks: JoinSet<()>,
    complained: Option<Instant>,
}

/// A connection with room for it.
pub(super) struct Seated {
    pub(super) stream: TcpStream,
    pub(super) presence: Arc<Presence>,
    pub(super) slot: OwnedSemaphorePermit,
}

/// Counts a connection for as long as it is open, however it ends.
struct Open;

impl Open {
    fn new() -> Self {
        metrics::counter!("uptally_http_connections_accepted_total").increment(1);
        metrics::gauge!("uptally_http_connections").increment(1.0);
        Open
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("uptally_http_connections").decrement(1.0);
    }
}

impl Connections {
    /// At most `connections_max`, and fewer if the process may not open that many files.
    pub(super) fn new(connections_max: usize) -> Self {
        let descriptors = getrlimit(Resource::Nofile).current;
        let descriptors = descriptors.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let affordable = descriptors.saturating_sub(DESCRIPTORS_LEFT).max(CONNECTIONS_MIN);
        if affordable < connections_max {
            tracing::warn!(
                descriptors,
                connections_max = affordable,
                "fewer connections than configured, for want of file descriptors (ulimit -n)"
            );
        }
        Connections {
            slots: Arc::new(Semaphore::new(connections_max.min(affordable))),
            open: HashMap::new(),
            tasks: JoinSet::new(),
            complained: None,
        }
    }

    /// The next connection, once there is room for it. One connection is accepted beyond the limit, to wait here.
    pub(super) async fn next(&mut self, listener: &TcpListener) -> Seated {
        let stream = self.accept(listener).await;
        let presence = Presence::opened_now();
        let slot = loop {
            self.forget_ended();
            if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
                break slot;
            }
            self.make_room();
            let soon = Arc::clone(&self.slots).acquire_owned();
            // An inner error would mean a closed semaphore; nobody closes it.
            if let Ok(Ok(slot)) = tokio::time::timeout(LOOK_EVERY, soon).await {
                break slot;
            }
        };
        Seated { stream, presence, slot }
    }

    /// Serves a connection by `task` until it ends or has to make room.
    pub(super) fn serve(
        &mut self,
        presence: Arc<Presence>,
        slot: OwnedSemaphorePermit,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let open = Open::new();
        let handle = self.tasks.spawn(async move {
            task.await;
            drop((slot, open));
        });
        self.open.insert(handle.id(), (presence, handle));
    }

    /// Connections that are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Closes what is left.
    pub(super) async fn close_all(&mut self) {
        self.tasks.shutdown().await;
        self.open.clear();
    }

    /// Goes on after every failure.
    async fn accept(&mut self, listener: &TcpListener) -> TcpStream {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return stream,
                // The client's doing: it is gone again.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    self.complain(&error);
                    self.forget_ended();
                    let pause = if self.make_room() { CLOSING_PAUSE } else { ACCEPT_PAUSE };
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Closes the connection that has kept us waiting longest. False if none does.
    fn make_room(&mut self) -> bool {
        let waiting = self.open.iter().filter_map(|(id, (presence, _))| {
            let since = presence.kept_waiting_since(TAKING_GRACE)?;
            Some((since, *id))
        });
        let Some((_, id)) = waiting.min_by_key(|(since, _)| *since) else {
            return false;
        };
        if let Some((_, task)) = self.open.remove(&id) {
            task.abort();
            metrics::counter!("uptally_http_connections_evicted_total").increment(1);
        }
        true
    }

    fn forget_ended(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            let id = ended.map_or_else(|broke_off| broke_off.id(), |(id, ())| id);
            self.open.remove(&id);
        }
    }

    fn complain(&mut self, error: &std::io::Error) {
        if self.complained.is_none_or(|at| at.elapsed() > COMPLAIN_EVERY) {
            tracing::warn!(%error, "cannot accept connections, trying again");
            self.complained = Some(Instant::now());
        }
    }
}
