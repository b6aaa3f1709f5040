//! The findings of a check of interfaces.

/// The abilities and problems of interfaces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// A description of each interface, and settings that would work.
    pub lines: Vec<String>,
    /// Oddities that do not prevent serving.
    pub warnings: Vec<String>,
    /// Reasons why the server would not start.
    pub problems: Vec<String>,
}
