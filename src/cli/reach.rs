//! Which database a command works on: the one that is given, or the private one.

use crate::cluster::{self, ClusterError, ClusterOptions, PrivateCluster};
use crate::config::{Config, DatabaseUrl};
use crate::db::{Database, Parameters};

use super::{Exit, Refusal};

/// A database, and the private Postgres that must live as long as the command, if this process owns one.
pub(super) struct Reached {
    pub database: Database,
    pub cluster: Option<PrivateCluster>,
}

/// The database of a command that may share the private Postgres of a running `serve`; if none runs, it is
/// started for as long as the command takes.
pub(super) async fn reach(config: &Config) -> anyhow::Result<Reached> {
    let given = config.database.given()?;
    if given.is_none() {
        let running = cluster::find_running(&state_dir(config)).map_err(refusal)?;
        if let Some(connection) = running {
            tracing::debug!("using the private Postgres of a running process");
            let database = database(config, &connection)?;
            return Ok(Reached {
                database,
                cluster: None,
            });
        }
    }
    reach_given(config, given).await
}

/// The database of `serve`. A URL that is given and fails never falls back to the private Postgres.
pub(super) async fn reach_as_owner(config: &Config) -> anyhow::Result<Reached> {
    reach_given(config, config.database.given()?).await
}

async fn reach_given(config: &Config, given: Option<DatabaseUrl>) -> anyhow::Result<Reached> {
    if let Some(url) = given {
        let database = database(config, url.connection().clone())?;
        return Ok(Reached {
            database,
            cluster: None,
        });
    }
    let options = ClusterOptions::new(state_dir(config));
    let cluster = PrivateCluster::start(options).await.map_err(refusal)?;
    let database = database(config, cluster.connection())?;
    Ok(Reached {
        database,
        cluster: Some(cluster),
    })
}

impl Reached {
    /// Ends the private Postgres, if it is ours.
    pub async fn close(self) -> anyhow::Result<()> {
        drop(self.database);
        if let Some(cluster) = self.cluster {
            cluster.stop().await.map_err(refusal)?;
        }
        Ok(())
    }
}

fn state_dir(config: &Config) -> std::path::PathBuf {
    config.state.dir.clone().unwrap_or_else(cluster::default_state_dir)
}

pub(super) fn database(config: &Config, connection: impl Into<Parameters>) -> anyhow::Result<Database> {
    let config = &config.database;
    Ok(Database::new(
        connection,
        config.connect_timeout,
        config.statement_timeout,
    )?)
}

pub(super) fn refusal(error: ClusterError) -> Refusal {
    let exit = if error.exit_code() == 78 {
        Exit::NotInstalled
    } else {
        Exit::TryAgain
    };
    Refusal::new(exit, error)
}
