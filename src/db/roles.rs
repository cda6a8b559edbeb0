//! Least privilege: what the daemon's role and the pollers' role need, and nothing more.
//!
//! The role that migrates owns the tables. The daemon needs no more than to read the inputs and to write rows of what
//! is its own; the functions that make and drop the rollup's months run with the owner's rights. Pollers write the
//! inputs; what their triggers leave behind is written with the owner's rights too.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use super::{Database, DbError};

/// What the daemon does, by statement: reading; reports; the rollup; the feed; the checkpoint.
const DAEMON: &[(&str, &str)] = &[
    ("USAGE", "SCHEMA public, uptally"),
    (
        "SELECT",
        "public.store_activity, public.store_business_hours, public.store_closures, public.store_timezones, \
         public.store_uptime_hourly, uptally.store_cell, uptally.schema_history, uptally.time_zone",
    ),
    ("SELECT, INSERT, UPDATE", "public.reports, uptally.checkpoint"),
    (
        "SELECT, INSERT, UPDATE, DELETE",
        "uptally.rollup_schedule, uptally.rollup_open, uptally.rollup_store, uptally.rollup_down, \
         uptally.rollup_day",
    ),
    ("SELECT, INSERT, DELETE", "uptally.invalidation"),
    (
        "EXECUTE",
        "FUNCTION uptally.ensure_rollup_month(timestamptz), uptally.drop_rollup_months_before(timestamptz), \
         uptally.ring_doorbell(), uptally.day_sums(text[], date[], timestamptz[], date, date, integer[])",
    ),
];

/// What writes status rows, hours, closures and zones. SELECT is for `WHERE` and `ON CONFLICT`.
const POLLER: &[(&str, &str)] = &[
    ("USAGE", "SCHEMA public"),
    (
        "SELECT, INSERT, UPDATE, DELETE",
        "public.store_activity, public.store_business_hours, public.store_closures, public.store_timezones",
    ),
];

/// The name of a role. 1 to 63 bytes without control characters, and not one of the words that SQL takes for something
/// else even in quotes. `Display` is the name in quotes, as SQL takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleName(String);

/// The text is no name of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the name of a role: 1 to 63 bytes, and neither public nor none nor a name of Postgres's own")]
pub struct RoleNameError;

impl FromStr for RoleName {
    type Err = RoleNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=63).contains(&text.len()) && !text.chars().any(char::is_control);
        // Quotes do not keep "public" from meaning everybody.
        if !fits || matches!(text, "public" | "none") || text.starts_with("pg_") {
            return Err(RoleNameError);
        }
        Ok(RoleName(text.to_owned()))
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

/// Whom to grant what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Runs `uptally serve`, `report`, `verify` and `rebuild`.
    pub daemon: Option<RoleName>,
    /// Writes the input tables.
    pub poller: Option<RoleName>,
}

impl Grants {
    /// Whether nobody gets anything.
    pub fn is_empty(&self) -> bool {
        self.daemon.is_none() && self.poller.is_none()
    }

    /// The statements, one a line. Granting twice changes nothing.
    pub fn sql(&self) -> String {
        let mut sql = String::new();
        for (role, rights) in [(&self.daemon, DAEMON), (&self.poller, POLLER)] {
            let Some(role) = role else { continue };
            for (what, on) in rights {
                // Writing to a String cannot fail.
                let _ = writeln!(sql, "GRANT {what} ON {on} TO {role};");
            }
        }
        sql
    }
}

impl Database {
    /// Grants, all or nothing; the caller must own the tables. Returns what makes a role more powerful than it should
    /// be, one sentence each.
    pub async fn grant(&self, grants: &Grants) -> Result<Vec<String>, DbError> {
        let client = self.connect("uptally migrate").await?.client;
        // One message is one transaction.
        client.batch_execute(&grants.sql()).await?;
        let mut warnings = Vec::new();
        for role in [&grants.daemon, &grants.poller].into_iter().flatten() {
            // A superuser may do everything anyway, and an owner most of it.
            let sql = "
                SELECT CASE WHEN r.rolsuper THEN 'is a superuser'
                            WHEN pg_catalog.pg_has_role(r.oid, t.relowner, 'MEMBER') THEN 'owns the tables'
                            WHEN pg_catalog.has_schema_privilege(r.oid, 'public', 'CREATE')
                                THEN 'may create objects in schema public (REVOKE CREATE ON SCHEMA public FROM PUBLIC)'
                            WHEN pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CREATE')
                                THEN 'may create schemas' END
                FROM pg_catalog.pg_roles r, pg_catalog.pg_class t
                WHERE r.rolname = $1::text::name AND t.oid = 'public.store_activity'::regclass";
            let row = client.query_one(sql, &[&role.0]).await?;
            if let Some(excess) = row.try_get::<_, Option<&str>>(0)? {
                warnings.push(format!("role {role} {excess}: it has more rights than it needs"));
            }
        }
        Ok(warnings)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed parse is a failed test")]

    use super::*;

    #[test]
    fn a_role_is_a_name_in_quotes() {
        assert_eq!("ann".parse::<RoleName>().unwrap().to_string(), "\"ann\"");
        assert_eq!(r#"a"; DROP"#.parse::<RoleName>().unwrap().to_string(), r#""a""; DROP""#);
        for text in ["", "public", "none", "pg_monitor", "a\nb", "a\0", &"x".repeat(64)] {
            assert!(text.parse::<RoleName>().is_err(), "{text}");
        }
    }
}
