//! Tables and lines of text for a terminal, without frames, so that `grep` and `awk` can read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{CellAlignment, Table, presets};

/// A table under construction, column by column. Each column has a head, and a function from a row to its
/// cell.
pub(in crate::cli) struct TextTable<R> {
    columns: Vec<(String, CellAlignment)>,
    rows: Vec<(R, Vec<String>)>,
}

impl<R> TextTable<R> {
    pub(in crate::cli) fn of(rows: impl IntoIterator<Item = R>) -> Self {
        Self { columns: Vec::new(), rows: rows.into_iter().map(|row| (row, Vec::new())).collect() }
    }

    pub(in crate::cli) fn left<C: ToString>(self, head: &str, cell: impl Fn(&R) -> C) -> Self {
        self.column(head, CellAlignment::Left, cell)
    }

    pub(in crate::cli) fn right<C: ToString>(self, head: &str, cell: impl Fn(&R) -> C) -> Self {
        self.column(head, CellAlignment::Right, cell)
    }

    fn column<C: ToString>(mut self, head: &str, alignment: CellAlignment, cell: impl Fn(&R) -> C) -> Self {
        self.columns.push((head.to_owned(), alignment));
        self.rows.iter_mut().for_each(|(row, cells)| cells.push(cell(row).to_string()));
        self
    }

    /// Formats the rows below their heads, with two blanks between columns and none at the end of a line.
    pub(in crate::cli) fn text(self) -> String {
        let mut table = Table::new();
        let heads = self.columns.iter().map(|(head, _)| head);
        let rows = self.rows.into_iter().map(|(_, cells)| cells);
        table.load_style(presets::NOTHING).set_header(heads).add_rows(rows);
        for (column, (_, alignment)) in table.column_iter_mut().zip(&self.columns) {
            column.set_padding((0, 2)).set_cell_alignment(*alignment);
        }
        table.trim_fmt()
    }
}

pub(in crate::cli) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

pub(super) fn millis(millis: Option<f64>) -> String {
    or_dash(millis.map(|millis| format!("{millis:.2}")))
}

/// Formats a duration by its two largest units.
pub(in crate::cli) fn time(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Returns the time of a Unix time that a server reported; the epoch if there is no such time.
pub(super) fn at(seconds: f64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).unwrap_or_default()).unwrap_or(UNIX_EPOCH)
}

/// Breaks a line at blanks to fit `width`; further lines begin with `indent`.
pub(super) fn wrap(line: &str, width: usize, indent: &str) -> String {
    let (blanks, text) = line.split_at(line.len() - line.trim_start().len());
    let mut words = text.split(' ');
    let mut lines = vec![format!("{blanks}{}", words.next().unwrap_or_default())];
    for word in words {
        match lines.last_mut() {
            Some(last) if last.chars().count() + 1 + word.chars().count() <= width => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines.join("\n")
}

/// Columns of a line of text.
pub(super) const WIDTH: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_at_blanks() {
        assert_eq!(wrap("  one two three", 9, "    "), "  one two\n    three");
        assert_eq!(wrap("one two", 7, ""), "one two");
        assert_eq!(wrap("one two", 6, " "), "one\n two");
        assert_eq!(wrap("seventeen letters", 4, ""), "seventeen\nletters");
    }
}
