//! A few sessions with the database for single requests, opened when needed and used again.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::db::{Database, DbError, Session};

/// Sessions at most. Who finds none free waits: a crowd that looks at single stores must not take the server's connections.
const SESSIONS_MAX: usize = 4;

/// The sessions.
#[derive(Debug)]
pub struct Sessions {
    database: Database,
    name: &'static str,
    permits: Semaphore,
    idle: Mutex<Vec<Session>>,
}

/// A session that is lent. Dropped, it goes away; [`Lent::give_back`] keeps it for the next one.
#[derive(Debug)]
pub struct Lent<'a> {
    sessions: &'a Sessions,
    session: Session,
    _permit: SemaphorePermit<'a>,
}

impl Sessions {
    /// None is opened yet. `name` is what `pg_stat_activity` shows.
    pub fn new(database: Database, name: &'static str) -> Self {
        Sessions {
            database,
            name,
            permits: Semaphore::new(SESSIONS_MAX),
            idle: Mutex::default(),
        }
    }

    /// A session that is in no transaction.
    pub async fn lend(&self) -> Result<Lent<'_>, DbError> {
        let permit = self.permits.acquire().await;
        let permit = permit.map_err(|_| DbError::Unexpected("no session is lent any more".to_owned()))?;
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|session| !session.is_closed());
            idle.pop()
        };
        let session = match idle {
            Some(session) => session,
            None => self.database.connect(self.name).await?,
        };
        Ok(Lent {
            sessions: self,
            session,
            _permit: permit,
        })
    }
}

impl Lent<'_> {
    /// Keeps the session for the next one. Only after success, and outside a transaction: what failed may be broken.
    pub fn give_back(self) {
        let Lent { sessions, session, .. } = self;
        sessions
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(session);
    }
}

impl Deref for Lent<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}
