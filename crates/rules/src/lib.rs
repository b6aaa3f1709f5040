//! The rules of a forwarder as one table: [`RuleTable`] finds the first [`Rule`] that matches a query,
//! [`NameSet`] holds the names of a file, and [`prove`] finds a query for each rule.
//!
//! This crate owns the conditions. The caller knows the results of rules, reads files, and passes bytes.

#![forbid(unsafe_code)]

mod clients;
mod name_set;
mod names_file;
mod pattern;
mod proof;
mod rule;
#[cfg(test)]
mod sample;
mod sets;
mod table;

pub use name_set::NameSet;
pub use names_file::{LineProblem, LineProblems, MAX_NAMES, MAX_SHOWN};
pub use pattern::{NamePattern, PatternError};
pub use proof::{ListenerSpace, Proof, QuerySpace, RuleVerdict, Witness, prove};
pub use rule::{MAX_RULES, Rule, RuleQuery};
pub use table::RuleTable;
