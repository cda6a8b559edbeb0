//! The schema: bringing it up to date, and asking whether it is.

use refinery::Target;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::{Database, DbError, wiring};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Key of the advisory lock under which the schema is changed, so that two daemons that start at once
/// do it one after the other. The bytes of `uptally` and a number.
const MIGRATION_LOCK: i64 = 0x0075_7074_616c_6c79;

impl Database {
    /// Brings the schema up to date, unless it is: a daemon whose role may not change it needs no more than that.
    pub async fn migrate_if_needed(&self) -> Result<(), DbError> {
        let session = self.connect("uptally migrate").await?;
        if Self::is_migrated(&session.client).await? {
            return Ok(());
        }
        self.migrate().await
    }

    /// Brings the schema up to date. Safe when several do it at once.
    pub async fn migrate(&self) -> Result<(), DbError> {
        self.migrate_as_owner().await.map_err(|error| match error {
            DbError::Postgres(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                DbError::MayNotMigrate(error.as_db_error().map_or("", |error| error.message()).to_owned())
            }
            other => other,
        })
    }

    async fn migrate_as_owner(&self) -> Result<(), DbError> {
        let mut session = self.connect("uptally migrate").await?;
        let client = &mut session.client;
        // Waiting for another daemon's migration is not a statement that hangs.
        client.batch_execute("SET statement_timeout = 0").await?;
        client
            .execute("SELECT pg_catalog.pg_advisory_lock($1)", &[&MIGRATION_LOCK])
            .await?;
        client.batch_execute("CREATE SCHEMA IF NOT EXISTS uptally").await?;
        let mut runner = embedded::migrations::runner()
            .set_target(Target::Latest)
            .set_grouped(true);
        runner.set_migration_table_name("uptally.schema_history");
        runner.run_async(client).await.map_err(Box::new)?;
        let names: Vec<&str> = chrono_tz::TZ_VARIANTS.iter().map(|tz| tz.name()).collect();
        client
            .execute(
                "INSERT INTO uptally.time_zone (name) SELECT unnest($1::text[]) ON CONFLICT (name) DO NOTHING",
                &[&names],
            )
            .await?;
        for mended in wiring::mend(client, &session.statements).await? {
            tracing::warn!("mended: {mended}");
        }
        client
            .execute("SELECT pg_catalog.pg_advisory_unlock($1)", &[&MIGRATION_LOCK])
            .await?;
        Ok(())
    }

    /// Whether the schema is there, in this version and with all time zones of this program.
    pub async fn is_migrated(client: &Client) -> Result<bool, DbError> {
        let there = client
            .query_one(
                "SELECT pg_catalog.to_regclass('uptally.schema_history') IS NOT NULL",
                &[],
            )
            .await?;
        if !there.try_get::<_, bool>(0)? {
            return Ok(false);
        }
        let latest = embedded::migrations::runner()
            .get_migrations()
            .iter()
            .map(refinery::Migration::version)
            .max();
        let row = client
            .query_one("SELECT max(version)::bigint FROM uptally.schema_history", &[])
            .await?;
        let have: Option<i64> = row.try_get(0)?;
        let zones = client.query_one("SELECT count(*) FROM uptally.time_zone", &[]).await?;
        let zones_known = i64::try_from(chrono_tz::TZ_VARIANTS.len()).unwrap_or(i64::MAX);
        Ok(have >= latest.map(i64::from) && zones.try_get::<_, i64>(0)? >= zones_known)
    }
}
