//! Figures as they come: markdown tables on stdout, JSON lines to a file.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::machine::Machine;

/// One figure: the column's name and a number or a text.
pub type Cell = (&'static str, Value);

/// What one run found.
pub struct Results {
    json: Option<PathBuf>,
    lines: Vec<Value>,
    title: String,
    /// Of the table that is being printed; empty: none.
    columns: Vec<&'static str>,
}

impl Results {
    pub fn new(json: Option<PathBuf>) -> Self {
        Results {
            json,
            lines: Vec::new(),
            title: String::new(),
            columns: Vec::new(),
        }
    }

    /// Says what is measured, where, and how to do it again.
    pub fn begin(&mut self, title: &str, machine: &Machine) {
        println!("\n### {title}\n\n{machine}\n");
        title.clone_into(&mut self.title);
        self.lines.push(machine.json(title));
    }

    /// A line of text under the table or above it.
    pub fn note(&mut self, text: &str) {
        println!("\n{text}");
        self.columns.clear();
    }

    /// A row of the table. Other columns than those of the row before begin a new one.
    pub fn row(&mut self, cells: &[Cell]) {
        let columns: Vec<&str> = cells.iter().map(|&(column, _)| column).collect();
        if columns != self.columns {
            println!("\n| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()));
            self.columns = columns;
        }
        let texts: Vec<String> = cells.iter().map(|(_, value)| text(value)).collect();
        println!("| {} |", texts.join(" | "));
        let title = ("measured".to_owned(), Value::from(self.title.as_str()));
        let named = cells
            .iter()
            .map(|(column, value)| ((*column).to_owned(), value.clone()));
        let object: Map<String, Value> = std::iter::once(title).chain(named).collect();
        self.lines.push(Value::Object(object));
    }

    /// Appends what was found to the file.
    pub fn finish(self) -> anyhow::Result<()> {
        let Some(path) = self.json else { return Ok(()) };
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        for line in self.lines {
            writeln!(file, "{line}")?;
        }
        Ok(())
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.abs() < 10.0 => format!("{float:.2}"),
            Some(float) if number.is_f64() && float.abs() < 1_000.0 => format!("{float:.1}"),
            Some(float) if number.is_f64() => format!("{float:.0}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}
