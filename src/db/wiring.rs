//! What the change feed hangs on in the database: the tables, the triggers and their functions.
//!
//! Whoever drops, disables or changes one of them makes the feed miss rows without a word. So all of it is looked at
//! at every start and every few seconds, at the same point as the rows: what is not as it must be is a [`Fault`],
//! with which nothing can be followed; what is as it must be but not as it was (a trigger that was off for a while, a
//! table that was rewritten) may have let rows through, which only a rebuild from raw finds.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{Client, GenericClient, Row};

use super::{DbError, Statements};

/// Every function and trigger as it must be.
const DEFINITIONS: &str = include_str!("wiring.sql");

/// The tables: those that people write to, and the one that triggers write to.
const TABLES: [&str; 5] = [
    "public.store_activity",
    "public.store_business_hours",
    "public.store_closures",
    "public.store_timezones",
    "uptally.invalidation",
];

/// The tables with a `change_xid`, by which rows are found to be new.
const STAMPED: [&str; 2] = ["public.store_activity", "uptally.invalidation"];
const STAMP: &str = "pg_current_xact_id()";

/// Every table with what would make its rows invisible to the feed. The mark: any ALTER TABLE or GRANT leaves another xmin,
/// any rewrite another relfilenode, any rule another row of `pg_rewrite`.
const TABLES_NOW: &str = "
    SELECT w.name, c.relkind::text, c.relpersistence::text,
           c.relispartition OR EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)),
           row_security_active(c.oid), EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid = c.oid),
           a.attnotnull AND pg_get_expr(d.adbin, d.adrelid) = $2,
           EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indkey[0] = a.attnum
                   AND i.indpred IS NULL),
           concat_ws(' ', c.oid, c.relfilenode, c.xmin, d.xmin,
                     (SELECT string_agg(concat(r.oid, '.', r.xmin), ' ' ORDER BY r.oid) FROM pg_rewrite r
                      WHERE r.ev_class = c.oid))
    FROM unnest($1::text[]) WITH ORDINALITY w (name, n)
    LEFT JOIN pg_class c ON c.oid = to_regclass(w.name)
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'change_xid' AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    ORDER BY w.n";

/// Our triggers and functions: name, definition, how it is enabled, mark.
const OBJECTS_NOW: &str = "
    SELECT t.tgname || ' on ' || t.tgrelid::regclass::text, pg_get_triggerdef(t.oid), t.tgenabled::text,
           concat_ws(' ', t.oid, t.xmin, t.tgenabled)
    FROM pg_trigger t
    WHERE t.tgrelid IN (SELECT to_regclass(name) FROM unnest($1::text[]) name)
      AND NOT t.tgisinternal AND t.tgname LIKE 'uptally\\_%'
    UNION ALL
    SELECT 'uptally.' || p.proname, p.prosrc, NULL, concat_ws(' ', p.oid, p.xmin)
    FROM pg_proc p
    WHERE p.pronamespace = to_regnamespace('uptally') AND p.proname = ANY ($2) AND p.pronargs = 0
    ORDER BY 1";

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The object and what is wrong with it.
    pub what: String,
    /// The statements that mend it; none where only its owner can decide.
    mend: Option<String>,
}

impl Fault {
    fn new(what: String, mend: Option<String>) -> Self {
        Fault { what, mend }
    }
}

/// The wiring of a database at one point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    faults: Vec<Fault>,
    /// `name: mark`, one for each object. Equal marks: nobody touched it in between.
    marks: Vec<String>,
}

impl Wiring {
    /// Looks at the database. In a transaction, the answer is of the point of that transaction.
    pub async fn read(client: &impl GenericClient, statements: &Statements) -> Result<Self, DbError> {
        let definitions = definitions();
        let functions: Vec<&str> = definitions
            .iter()
            .filter_map(|d| d.name.strip_prefix("uptally."))
            .collect();
        let (tables, objects) = (
            statements.get(client, TABLES_NOW).await?,
            statements.get(client, OBJECTS_NOW).await?,
        );
        let (tables, objects) = futures_util::future::try_join(
            client.query(&tables, &[&TABLES.as_slice(), &STAMP]),
            client.query(&objects, &[&TABLES.as_slice(), &functions]),
        )
        .await?;
        let mut wiring = Wiring {
            faults: Vec::new(),
            marks: Vec::new(),
        };
        for row in &tables {
            wiring.take_table(row)?;
        }
        wiring.take_objects(&objects, &definitions)?;
        Ok(wiring)
    }

    /// What is wrong, in one text for people; None: nothing.
    pub fn fault(&self) -> Option<String> {
        let told = self.faults.iter().map(|fault| match fault.mend {
            Some(_) => format!("{} (`uptally migrate` mends it)", fault.what),
            None => fault.what.clone(),
        });
        let told: Vec<String> = told.collect();
        (!told.is_empty()).then(|| format!("changes of rows may be missed: {}", told.join("; ")))
    }

    /// To be kept with what was made from the rows, see [`Wiring::touched_since`].
    pub fn marks(&self) -> &[String] {
        &self.marks
    }

    /// The objects that were touched, made or dropped since these marks were taken.
    pub fn touched_since(&self, marks: &[String]) -> Vec<String> {
        let (then, now): (BTreeSet<&String>, BTreeSet<&String>) = (marks.iter().collect(), self.marks.iter().collect());
        let names = then
            .symmetric_difference(&now)
            .filter_map(|mark| Some(mark.rsplit_once(": ")?.0.to_owned()));
        names.collect::<BTreeSet<String>>().into_iter().collect()
    }

    fn take_table(&mut self, row: &Row) -> Result<(), DbError> {
        let name: &str = row.try_get(0)?;
        let mut fault = |what: &str, mend: Option<String>| self.faults.push(Fault::new(format!("{name} {what}"), mend));
        let Some(kind) = row.try_get::<_, Option<&str>>(1)? else {
            fault("is missing", None);
            return Ok(());
        };
        match kind {
            "r" => {}
            "p" => fault(
                "is partitioned, which is not supported: make it an ordinary table",
                None,
            ),
            "f" => fault("is a foreign table: its rows can change elsewhere", None),
            _ => fault("is not a table", None),
        }
        if row.try_get::<_, &str>(2)? != "p" {
            fault("is unlogged, a crash would empty it: ALTER TABLE ... SET LOGGED", None);
        }
        if kind == "r" && row.try_get(3)? {
            fault(
                "inherits, is inherited from or is a partition: rows written by way of the other table are not followed; \
                 detach it",
                None,
            );
        }
        if row.try_get(4)? {
            fault(
                "hides rows from this role by row-level security: give the role BYPASSRLS or disable it",
                None,
            );
        }
        if row.try_get(5)? {
            fault(
                "is written by a subscription of logical replication, which fires no statement triggers: run the daemon \
                 on the publisher, or drop the subscription",
                None,
            );
        }
        if STAMPED.contains(&name) && kind == "r" {
            if row.try_get::<_, Option<bool>>(6)? != Some(true) {
                let mend = format!(
                    "ALTER TABLE {name} ADD COLUMN IF NOT EXISTS change_xid xid8 DEFAULT pg_catalog.pg_current_xact_id();
                     ALTER TABLE {name} ALTER COLUMN change_xid SET DEFAULT pg_catalog.pg_current_xact_id(),
                                        ALTER COLUMN change_xid SET NOT NULL"
                );
                fault(
                    "has no column change_xid that is NOT NULL and by default the current transaction",
                    Some(mend),
                );
            }
            if !row.try_get::<_, bool>(7)? {
                fault(
                    "has no valid index on change_xid",
                    Some(format!("CREATE INDEX ON {name} (change_xid)")),
                );
            }
        }
        self.marks.push(format!("{name}: {}", row.try_get::<_, &str>(8)?));
        Ok(())
    }

    fn take_objects(&mut self, rows: &[Row], definitions: &[Definition]) -> Result<(), DbError> {
        let mut found = BTreeMap::new();
        for row in rows {
            let name: &str = row.try_get(0)?;
            found.insert(name, row);
            self.marks.push(format!("{name}: {}", row.try_get::<_, &str>(3)?));
        }
        for definition in definitions {
            let name = &definition.name;
            let mut fault = |what: &str, mend: String| {
                let kind = if definition.table.is_some() {
                    "trigger"
                } else {
                    "function"
                };
                self.faults
                    .push(Fault::new(format!("{kind} {name} {what}"), Some(mend)));
            };
            let always = definition.table.map(|table| {
                let (trigger, _) = name.split_once(' ').unwrap_or((name, ""));
                format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}")
            });
            let made = definition
                .statement
                .replacen("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1);
            // Whoever fires a trigger need not be allowed to call its function.
            let revoked = || format!("REVOKE ALL ON FUNCTION {name}() FROM PUBLIC");
            let made = format!("{made} {}", always.clone().unwrap_or_else(revoked));
            let Some(row) = found.get(name.as_str()) else {
                fault("is missing", made);
                continue;
            };
            if row.try_get::<_, Option<&str>>(1)? != Some(definition.text) {
                fault("is not as this version made it", made);
                continue;
            }
            match (row.try_get::<_, Option<&str>>(2)?, always) {
                (None | Some("A"), _) | (_, None) => {}
                (Some("D"), Some(always)) => fault("is disabled", always),
                (_, Some(always)) => fault("is not enabled ALWAYS", always),
            }
        }
        Ok(())
    }
}

/// Puts back what can be put back, in one transaction. Touches nothing that is as it must be. Returns what it mended.
pub async fn mend(client: &mut Client, statements: &Statements) -> Result<Vec<String>, DbError> {
    let transaction = client.transaction().await?;
    let mut mended = Vec::new();
    for fault in Wiring::read(&transaction, statements).await?.faults {
        if let Some(mend) = &fault.mend {
            transaction.batch_execute(mend).await?;
            mended.push(fault.what);
        }
    }
    transaction.commit().await?;
    Ok(mended)
}

/// One function or trigger as it must be.
#[derive(Debug)]
struct Definition {
    /// `uptally.ring`, or `uptally_inserted on public.store_activity`.
    name: String,
    /// Of a trigger.
    table: Option<&'static str>,
    /// The body of a function; the definition of a trigger.
    text: &'static str,
    statement: &'static str,
}

fn definitions() -> Vec<Definition> {
    let statements = DEFINITIONS.split("\n\n").map(str::trim);
    statements
        .filter_map(|statement| {
            if let Some(rest) = statement.strip_prefix("CREATE OR REPLACE FUNCTION ") {
                return Some(Definition {
                    name: rest.split_once('(')?.0.to_owned(),
                    table: None,
                    text: statement.split("$$").nth(1)?,
                    statement,
                });
            }
            let trigger = statement.strip_prefix("CREATE TRIGGER ")?.split_once(' ')?.0;
            let table = statement.split_once(" ON ")?.1.split_once(' ')?.0;
            Some(Definition {
                name: format!("{trigger} on {table}"),
                table: Some(table),
                text: statement.trim_end_matches(';'),
                statement,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use super::*;

    #[test]
    fn every_statement_of_the_file_is_a_definition() {
        let statements = DEFINITIONS.matches("\nCREATE ").count();
        let definitions = definitions();
        assert_eq!(definitions.len(), statements);
        for definition in &definitions {
            let trigger = definition.text.split_once("EXECUTE FUNCTION ");
            if let Some((_, function)) = trigger {
                let function = function.strip_suffix("()").unwrap();
                assert!(definitions.iter().any(|d| d.name == function), "{function}");
            }
        }
    }

    #[test]
    fn what_was_touched_is_named_once() {
        let wiring = |marks: &[&str]| Wiring {
            faults: Vec::new(),
            marks: marks.iter().map(|&mark| mark.to_owned()).collect(),
        };
        let now = wiring(&["a on public.t: 1 2", "b: 3", "d: 5"]);
        assert_eq!(now.touched_since(now.marks()), [""; 0]);
        let then = wiring(&["a on public.t: 1 1", "b: 3", "c: 4"]);
        assert_eq!(now.touched_since(then.marks()), ["a on public.t", "c", "d"]);
    }
}
