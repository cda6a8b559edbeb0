//! Reports.

pub mod csv;
