//! Becoming the one active daemon of a database.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{DaemonError, FeedState, Settings, Standby, Status};
use crate::db::{Backend, Database, DbError};
use crate::feed::doorbell::Doorbell;

/// How often a daemon that stands by tries to take the lead, and after how many tries it looks who has it.
const TRY_EVERY: Duration = Duration::from_millis(100);
const TRIES_PER_LOOK: u32 = 10;

/// Opens the doorbell and takes the lead; waits, or refuses, while another daemon has it. `left`: processes of the server
/// that served our sessions before, which are ended, and those that do now.
pub(super) async fn lead(
    database: &Database,
    settings: Settings,
    status: &watch::Sender<Status>,
    left: &mut Vec<Backend>,
) -> Result<Doorbell, DaemonError> {
    let began = Instant::now();
    let mut doorbell = Doorbell::connect(database, settings.wake, settings.heartbeat).await?;
    // One that the server takes for alive still has the lead, and another one the row of the checkpoint.
    Backend::end(left, doorbell.client()).await?;
    *left = vec![doorbell.backend()];
    let lost = doorbell.lost();
    tokio::pin!(lost);
    let mut leader = String::new();
    let mut tries = 0_u32;
    loop {
        let led = async {
            if doorbell.try_to_lead(database).await? {
                return Ok(None);
            }
            let looks = tries.is_multiple_of(TRIES_PER_LOOK);
            let found = if looks { doorbell.leader().await? } else { None };
            // It may have gone just now.
            Ok::<_, DbError>(Some(found.unwrap_or_else(|| leader.clone())))
        };
        let led = tokio::select! {
            led = led => led?,
            error = &mut lost => return Err(error.into()),
        };
        let Some(found) = led else { return Ok(doorbell) };
        if settings.standby == Standby::Refuse && began.elapsed() > settings.lead_patience {
            return Err(DaemonError::AnotherDaemon(found));
        }
        if leader != found {
            tracing::info!(leader = found, "standing by: another daemon is active on this database");
            let reason = format!("standby: another daemon is active on this database ({found})");
            status.send_modify(|status| status.stopped(FeedState::Standby, &reason));
            leader = found;
        }
        tries += 1;
        tokio::time::sleep(TRY_EVERY).await;
    }
}
