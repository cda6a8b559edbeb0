//! What an import did, for the terminal.

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

/// What an import did.
#[derive(Debug, Clone, Default)]
pub struct ImportSummary {
    /// `public.store_timezones`
    pub timezones: TableSummary,
    /// `public.store_business_hours`
    pub hours: TableSummary,
    /// `public.store_closures`
    pub closures: TableSummary,
    /// `public.store_activity`
    pub activity: TableSummary,
    /// For each input with columns of no use, its name and theirs.
    pub ignored_columns: Vec<(String, Vec<String>)>,
    /// Of which stores opening hours were only added, never deleted, because of rejected rows.
    pub deletions_withheld: Option<String>,
    /// The files that the rejected rows went to.
    pub rejects_files: Vec<PathBuf>,
}

impl ImportSummary {
    /// Rows that were set aside, of all tables.
    pub fn rejected(&self) -> u64 {
        [&self.timezones, &self.hours, &self.closures, &self.activity]
            .iter()
            .map(|table| table.rejected)
            .sum()
    }
}

/// What an import did to one table. `read = new + corrected + unchanged + rejected`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TableSummary {
    /// Rows of the inputs.
    pub read: u64,
    /// Rows inserted.
    pub new: u64,
    /// Rows whose value was another one, here or earlier in the inputs.
    pub corrected: u64,
    /// Rows that were there already, or that the same input says again.
    pub unchanged: u64,
    /// Rows set aside.
    pub rejected: u64,
    /// Rows deleted, as their store's file does not have them any more (opening hours only).
    pub deleted: u64,
    /// What it took.
    pub seconds: f64,
}

impl TableSummary {
    /// Ends the count of one input, read since `started`.
    pub(super) fn close(&mut self, started: Instant) {
        let accounted = self.new + self.corrected + self.rejected;
        self.unchanged = self.read.saturating_sub(accounted);
        self.seconds += started.elapsed().as_secs_f64();
    }
}

impl fmt::Display for ImportSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<22}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}{:>9}",
            "table", "read", "new", "corrected", "unchanged", "rejected", "deleted", "seconds"
        )?;
        for (name, t) in [
            ("store_timezones", &self.timezones),
            ("store_business_hours", &self.hours),
            ("store_closures", &self.closures),
            ("store_activity", &self.activity),
        ] {
            writeln!(
                f,
                "{name:<22}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}{:>9.2}",
                t.read, t.new, t.corrected, t.unchanged, t.rejected, t.deleted, t.seconds
            )?;
        }
        for (file, columns) in &self.ignored_columns {
            writeln!(f, "{file}: ignored the columns {}", columns.join(", "))?;
        }
        if let Some(stores) = &self.deletions_withheld {
            writeln!(f, "opening hours were only added, not deleted, for {stores}")?;
        }
        for path in &self.rejects_files {
            writeln!(f, "rejected rows are in {}", path.display())?;
        }
        Ok(())
    }
}
