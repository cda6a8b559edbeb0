//! What stands between a writer and the table: our triggers, others in their place, or none.
//!
//! All variants share one table in one database: the same pages, the same indexes, grown by the same rows, so that
//! between two of them only the triggers differ and whether the daemon runs. With a database for each, five copies
//! of the indexes would push each other out of the cache, and each would pay for its own first touch of a page after
//! a checkpoint. The price: before its turn, the daemon is started and reads what the others wrote; nobody waits with
//! a clock in his hand for that.

use anyhow::Context;
use uptally::db::Session;

use crate::daemon::Serve;
use crate::system::System;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// No trigger, no daemon.
    Plain,
    /// A statement trigger that does nothing, no daemon.
    Empty,
    /// Our triggers, and the daemon following.
    Following,
    /// Our triggers, no daemon: what the triggers alone cost. Nobody sleeps, so nobody is rung for.
    Alone,
    /// A statement trigger that always notifies, and one session that listens; no daemon.
    Notify,
}

/// A variant in place. Give it back with [`Ready::end`].
pub struct Ready {
    pub serve: Option<Serve>,
    _listener: Option<Session>,
}

impl Variant {
    pub fn name(self) -> &'static str {
        match self {
            Variant::Plain => "no trigger",
            Variant::Empty => "empty trigger",
            Variant::Following => "our trigger, daemon following",
            Variant::Alone => "our trigger, no daemon",
            Variant::Notify => "always NOTIFY",
        }
    }

    /// Puts it in place; with the daemon, returns when that has caught up and flushed.
    pub async fn prepare(self, system: &System, database: &str) -> anyhow::Result<Ready> {
        let session = system.connect(database).await?;
        self.switch(&session).await?;
        let serve = if self == Variant::Following {
            let serve = Serve::start(system, database).await?;
            serve.settle(system).await?;
            Some(serve)
        } else {
            None
        };
        let listener = if self == Variant::Notify {
            session.client.batch_execute("LISTEN bench").await?;
            Some(session)
        } else {
            None
        };
        Ok(Ready {
            serve,
            _listener: listener,
        })
    }

    /// Enables its triggers on the table and disables all others. Ours are those that the migrations made.
    async fn switch(self, session: &Session) -> anyhow::Result<()> {
        let sql = "SELECT tgname::text FROM pg_catalog.pg_trigger
                   WHERE tgrelid = 'public.store_activity'::regclass AND NOT tgisinternal";
        let mut actions = Vec::new();
        for row in session.client.query(sql, &[]).await? {
            let trigger: String = row.try_get(0)?;
            let enabled = match self {
                Variant::Plain => false,
                Variant::Empty => trigger == "bench_empty",
                Variant::Notify => trigger == "bench_notify",
                Variant::Following | Variant::Alone => !trigger.starts_with("bench_"),
            };
            let verb = if enabled { "ENABLE ALWAYS" } else { "DISABLE" };
            actions.push(format!("{verb} TRIGGER {trigger}"));
        }
        let sql = format!("ALTER TABLE public.store_activity {}", actions.join(", "));
        session
            .client
            .batch_execute(&sql)
            .await
            .context("cannot switch triggers")
    }
}

impl Ready {
    pub async fn end(self) -> anyhow::Result<()> {
        match self.serve {
            Some(serve) => serve.stop().await,
            None => Ok(()),
        }
    }
}

/// A database like the fleet's with the controls' triggers in it, disabled or not.
pub async fn copy_with_controls(system: &System, database: &str) -> anyhow::Result<()> {
    system.copy(database).await?;
    let session = system.connect(database).await?;
    session.client.batch_execute(CONTROLS).await?;
    Ok(())
}

const CONTROLS: &str = "
CREATE FUNCTION public.bench_empty() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END $$;
CREATE FUNCTION public.bench_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('bench', '');
    RETURN NULL;
END $$;
CREATE TRIGGER bench_empty AFTER INSERT ON public.store_activity
    FOR EACH STATEMENT EXECUTE FUNCTION public.bench_empty();
CREATE TRIGGER bench_notify AFTER INSERT ON public.store_activity
    FOR EACH STATEMENT EXECUTE FUNCTION public.bench_notify();";
