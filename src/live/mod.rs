//! What the stores do now, for whoever asks: the overview of all of them from the daemon's memory, one of them from its raw
//! rows.
//!
//! Every answer is of one point and knows everything that was committed before it was asked for. What takes long for large
//! fleets is made once for all who wait for it (`shared`), and never kept beyond that: so nothing is
//! stale, and no old snapshot makes the daemon copy what it changes.
//!
//! Not here: status codes and JSON (module `http`).

mod sessions;
mod shared;
mod store;

use std::sync::Arc;
use std::time::Duration;

pub use sessions::{Lent, Sessions};
pub use store::{BUCKETS_MAX, Bucket, Buckets, BucketsError, Step, StoreDays, StoreDetail};

use crate::clock::Clock;
use crate::daemon::{Handle, Point, Status};
use crate::db::{Database, DbError};
use crate::overview::{Asked, Overview};
use crate::report::Source;
use crate::rollup::OpenDown;
use crate::time::Timestamp;
use crate::window::Windows;
use shared::Shared;

/// UTC hours of a history at most: a week.
pub const HISTORY_HOURS_MAX: usize = 168;

/// What counts as the present, and when a store is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// An open store that was not observed for longer is silent.
    pub silent_after: Duration,
    /// The present is the newest observation, not what the clock says: for data sets that stand still.
    pub as_of_latest: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            silent_after: Duration::from_hours(2),
            as_of_latest: false,
        }
    }
}

impl Settings {
    /// The same in microseconds.
    pub fn silent_after_us(self) -> i64 {
        i64::try_from(self.silent_after.as_micros()).unwrap_or(i64::MAX)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// Memory is not there, or not now; holds what is being waited for.
    #[error("{0}")]
    NotFollowing(String),
    /// The raw rows could not be read.
    #[error(transparent)]
    Db(#[from] DbError),
    /// Something of ours broke off.
    #[error("an internal error")]
    BrokeOff,
}

/// Whether memory is the present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// Why it is not, if it is not.
    pub fault: Option<String>,
    /// How long ago it was last known to be. None: never yet.
    pub lag: Option<Duration>,
}

/// The UTC hours of the whole fleet, each with its start.
#[derive(Debug)]
pub struct History {
    /// The instant that they end before.
    pub as_of: Timestamp,
    /// Oldest first.
    pub hours: Vec<(Timestamp, OpenDown)>,
}

/// Answers about the present. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    handle: Handle,
    clock: Clock,
    settings: Settings,
    sessions: Sessions,
    rolling: Shared<Overview>,
    calendar: Shared<Overview>,
    history: Shared<History>,
}

impl Live {
    /// Of the database that `handle`'s daemon follows.
    pub fn new(database: Database, handle: Handle, clock: Clock, settings: Settings) -> Self {
        Live(Arc::new(Inner {
            handle,
            clock,
            settings,
            sessions: Sessions::new(database, "uptally api"),
            rolling: Shared::default(),
            calendar: Shared::default(),
            history: Shared::default(),
        }))
    }

    /// What it goes by.
    pub fn settings(&self) -> Settings {
        self.0.settings
    }

    /// Sessions with the database, for statements of single requests.
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// How the daemon is.
    pub fn feed(&self) -> Feed {
        let handle = &self.0.handle;
        Feed {
            fault: handle.readiness().err(),
            lag: handle.status().current_at.map(|at| at.elapsed()),
        }
    }

    /// All stores now.
    pub async fn overview(&self, windows: Windows) -> Result<Arc<Overview>, LiveError> {
        let shared = match windows {
            Windows::Rolling => &self.0.rolling,
            Windows::Calendar => &self.0.calendar,
        };
        shared
            .get(async || {
                let point = self.point().await?;
                let asked = Asked {
                    as_of: self.as_of(point.snapshot.newest()),
                    windows,
                    silent_after_us: self.0.settings.silent_after_us(),
                };
                blocking(move || Overview::new(point.snapshot, asked)).await
            })
            .await
    }

    /// The last week of the fleet by UTC hours.
    pub async fn history(&self) -> Result<Arc<History>, LiveError> {
        let make = async || {
            let point = self.point().await?;
            let as_of = self.as_of(point.snapshot.newest());
            blocking(move || History {
                as_of,
                hours: point.snapshot.utc_hours(as_of, HISTORY_HOURS_MAX),
            })
            .await
        };
        self.0.history.get(make).await
    }

    /// The daemon's status, if memory can be asked.
    fn following(&self) -> Result<Status, LiveError> {
        let status = self.0.handle.status();
        match &status.following {
            Ok(()) => Ok(status),
            Err(reason) => Err(LiveError::NotFollowing(reason.clone())),
        }
    }

    async fn point(&self) -> Result<Point, LiveError> {
        // Asked of a daemon that is only starting, the question would wait.
        self.following()?;
        let point = self.0.handle.point().await;
        point.ok_or_else(|| LiveError::NotFollowing("the daemon is not following the database".to_owned()))
    }

    /// The instant that is the present, for what is not read from a point.
    async fn present(&self) -> Result<Timestamp, LiveError> {
        // The status may not know yet of the newest observation that is committed; a point does.
        let newest = if self.0.settings.as_of_latest {
            self.point().await?.snapshot.newest()
        } else {
            None
        };
        Ok(self.as_of(newest))
    }

    fn as_of(&self, newest: Option<Timestamp>) -> Timestamp {
        let newest = newest.filter(|_| self.0.settings.as_of_latest);
        newest.unwrap_or_else(|| self.0.clock.now())
    }
}

/// Computes away from the threads that answer requests.
pub(crate) async fn blocking<T: Send + 'static>(compute: impl FnOnce() -> T + Send + 'static) -> Result<T, LiveError> {
    let computed = tokio::task::spawn_blocking(compute).await;
    computed.map_err(|_| LiveError::BrokeOff)
}
