//! The abilities of the terminal (colors, Unicode), and figures as short text.

use std::env;
use std::ffi::OsStr;

use ratatui::style::{Color, Modifier, Style};

use crate::control::observe::sight::live::VerdictState;

#[derive(Clone, Copy, Debug)]
pub(super) struct TerminalStyle {
    pub(super) has_colors: bool,
    /// True if only ASCII may be drawn.
    pub(super) is_ascii: bool,
}

impl TerminalStyle {
    /// Reads the environment: `NO_COLOR` (no-color.org), `TERM`, and the locale from its first variable that
    /// is set.
    pub(super) fn of(is_ascii: bool) -> Self {
        let value = |name| env::var_os(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(value);
        Self {
            has_colors: value("NO_COLOR").is_none() && !value("TERM").is_some_and(|term| is_monochrome(&term)),
            is_ascii: is_ascii || !locale.is_some_and(|locale| is_utf8(&locale)),
        }
    }

    /// Replaces characters that the terminal cannot show, including control characters.
    pub(super) fn text(&self, text: &str) -> String {
        let shown = |c: char| match c {
            c if c.is_control() || self.is_ascii && !c.is_ascii() => '?',
            c => c,
        };
        text.chars().map(shown).collect()
    }

    /// Draws a curve of the last values with one column each, the newest at the right. Missing values are
    /// blank.
    pub(super) fn curve(&self, values: impl DoubleEndedIterator<Item = Option<f64>>, width: usize) -> String {
        let mut last: Vec<Option<f64>> = values.rev().take(width).collect();
        last.resize(width, None);
        last.reverse();
        let largest = last.iter().flatten().copied().fold(0.0, f64::max);
        let bars: &[char] = if self.is_ascii { &ASCII_BARS } else { &BARS };
        let bar = |value: Option<f64>| match value {
            None => ' ',
            Some(value) if largest <= 0.0 || value <= 0.0 => bars[0],
            // The float is within the table, because it is a share of the largest.
            Some(value) => bars[((value / largest * (bars.len() - 1) as f64).ceil() as usize).min(bars.len() - 1)],
        };
        last.into_iter().map(bar).collect()
    }

    pub(super) fn ellipsis(&self) -> &'static str {
        if self.is_ascii { "..." } else { "\u{2026}" }
    }

    pub(super) fn verdict(&self, state: VerdictState) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        let color = match state {
            VerdictState::Well => Color::Green,
            VerdictState::Watch => Color::Yellow,
            VerdictState::Trouble => Color::Red,
        };
        match (self.has_colors, state) {
            (true, _) => style.fg(color),
            (false, VerdictState::Well) => style,
            (false, _) => style.add_modifier(Modifier::REVERSED),
        }
    }

    pub(super) fn backend(&self, state: &str) -> Style {
        let verdict = match state {
            "up" => return Style::new(),
            "down" => VerdictState::Trouble,
            _ => VerdictState::Watch,
        };
        self.verdict(verdict)
    }

    pub(super) fn dim(&self) -> Style {
        if self.has_colors { Style::new().fg(Color::DarkGray) } else { Style::new() }
    }

    pub(super) fn head(&self) -> Style {
        Style::new().add_modifier(Modifier::UNDERLINED)
    }
}

/// The levels of a curve; the lowest is a measured zero.
const BARS: [char; 8] =
    ['\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];

const ASCII_BARS: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

fn is_monochrome(term: &OsStr) -> bool {
    let term = term.to_string_lossy();
    ["vt1", "vt2", "vt5", "dumb"].iter().any(|start| term.starts_with(start))
}

fn is_utf8(locale: &OsStr) -> bool {
    let locale = locale.to_string_lossy().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Formats milliseconds in seven columns at most.
pub(super) fn ms(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < 10.0 => format!("{value:.2}"),
        Some(value) if value < 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

/// Formats a count in six columns at most.
pub(super) fn count(value: u64) -> String {
    match value {
        0..1_000_000 => value.to_string(),
        1_000_000..1_000_000_000 => format!("{:.1}M", value as f64 / 1e6),
        _ => format!("{:.0}G", value as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: TerminalStyle = TerminalStyle { has_colors: false, is_ascii: true };

    #[test]
    fn curves_end_with_the_newest_and_leave_blank_what_was_not_measured() {
        let values = [Some(9.0), None, Some(0.0), Some(4.0), Some(8.0)];
        assert_eq!(PLAIN.curve(values.into_iter(), 4), " _=#");
        assert_eq!(PLAIN.curve(values.into_iter(), 7), "  # _=#");
        assert_eq!(PLAIN.curve([Some(0.0); 3].into_iter(), 3), "___");
        let full = TerminalStyle { has_colors: true, is_ascii: false };
        assert_eq!(full.curve([Some(1.0), Some(2.0)].into_iter(), 2), "\u{2585}\u{2588}");
    }

    #[test]
    fn nothing_from_elsewhere_steers_the_terminal() {
        assert_eq!(PLAIN.text("a\u{1b}[2Jb\nc\u{e9}"), "a?[2Jb?c?");
        assert_eq!(TerminalStyle { has_colors: true, is_ascii: false }.text("\u{7}\u{e9}\u{9b}"), "?\u{e9}?");
    }

    #[test]
    fn figures_are_short() {
        for (value, expected) in [(0.4, "0.40"), (9.99, "9.99"), (42.0, "42.0"), (2_500.0, "2500")] {
            assert_eq!(ms(Some(value)), expected);
        }
        assert_eq!(ms(None), "-");
        for (value, expected) in [(0, "0"), (999_999, "999999"), (1_200_000, "1.2M"), (3_000_000_000, "3G")] {
            assert_eq!(count(value), expected);
        }
    }

    #[test]
    fn locales_and_terminals_are_known() {
        assert!(is_utf8(OsStr::new("C.UTF-8")) && is_utf8(OsStr::new("de_DE.utf8")) && !is_utf8(OsStr::new("C")));
        assert!(is_monochrome(OsStr::new("vt100")) && !is_monochrome(OsStr::new("xterm-256color")));
    }
}
