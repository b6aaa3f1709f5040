//! `[supervisor]`: how many processes stand by, and when one is taken for hung.

use std::time::Duration;

use super::section::Section;
use super::words::{DURATION, Expected, duration};
use super::{SupervisorConfig, limits};

impl SupervisorConfig {
    /// The default of `standbys`: with one alone, a second crash in the moments that it takes to start another would be waited for.
    pub const STANDBYS: usize = 2;

    /// The default of `watchdog`: far beyond what a busy disk or a swapped page takes, and about as long as clients try.
    pub const WATCHDOG: Duration = Duration::from_secs(10);

    /// The default of `succession`: what is left brings back the rest.
    pub const SUCCESSION: bool = true;
}

impl Default for SupervisorConfig {
    /// The section without a key.
    fn default() -> Self {
        Self { standbys: Self::STANDBYS, watchdog: Some(Self::WATCHDOG), succession: Self::SUCCESSION }
    }
}

/// Reads `[supervisor]`.
pub(super) fn read(mut section: Section<'_>) -> SupervisorConfig {
    let standbys = section.integer("standbys", limits::STANDBYS, SupervisorConfig::STANDBYS);
    let watchdog = section.parsed("watchdog", read_watchdog, Some(SupervisorConfig::WATCHDOG));
    let succession = section.boolean("succession", SupervisorConfig::SUCCESSION);
    section.finish();
    SupervisorConfig { standbys, watchdog, succession }
}

/// Reads a duration within bounds, or none at all, which is never.
fn read_watchdog(text: &str) -> Result<Option<Duration>, Expected> {
    match duration(text) {
        Ok(Duration::ZERO) => Ok(None),
        Ok(value) if limits::WATCHDOG.holds(&value) => Ok(Some(value)),
        Ok(_) => {
            let (min, max) = (limits::WATCHDOG.min, limits::WATCHDOG.max);
            let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
            Err(Expected::new(format!("a duration from {min} to {max}, or 0s for never")).matching(DURATION))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::super::tests::check;
    use super::*;

    /// Something to run.
    const REST: &str = "[authorities.a]\nlisten = [\"127.0.0.1:5301\"]\nzones = [\"a.txt\"]\n";

    /// Checks what is read from a section with this content.
    fn check_read(content: &str, standbys: usize, watchdog: Option<Duration>, succession: bool) {
        let text = format!("[supervisor]\n{content}\n{REST}");
        let config = Config::parse(&text, "c.toml", Path::new("")).unwrap_or_else(|p| panic!("{text}\n{p}"));
        assert_eq!(config.supervisor, Some(SupervisorConfig { standbys, watchdog, succession }), "{content}");
    }

    #[test]
    fn supervisor_is_read() {
        let usual = Some(Duration::from_secs(10));
        check_read("", 2, usual, true);
        check_read("standbys = 0", 0, usual, true);
        check_read("standbys = 8\nsuccession = false", 8, usual, false);
        check_read("watchdog = \"0s\"", 2, None, true);
        check_read("watchdog = \"1s\"", 2, Some(Duration::from_secs(1)), true);
        check_read("watchdog = \"10m\"", 2, Some(Duration::from_secs(600)), true);
    }

    #[test]
    fn without_the_section_there_is_one_process() {
        let config = Config::parse(REST, "c.toml", Path::new("")).expect("a config");
        assert_eq!(config.supervisor, None);
    }

    #[test]
    fn supervisor_is_checked() {
        for (line, expected) in [
            ("standbys = 9", "2:12: supervisor.standbys: invalid value 9: expected an integer from 0 to 8"),
            ("standbys = -1", "2:12: supervisor.standbys: invalid value -1: expected an integer from 0 to 8"),
            (
                "watchdog = \"1ms\"",
                "2:12: supervisor.watchdog: invalid value \"1ms\": expected a duration from 1s to 10m, or 0s for never",
            ),
            (
                "watchdog = \"11m\"",
                "2:12: supervisor.watchdog: invalid value \"11m\": expected a duration from 1s to 10m, or 0s for never",
            ),
            ("succession = \"no\"", "2:14: supervisor.succession: expected true or false, not a string"),
            ("standby = 1", "2:1: supervisor: unknown key \"standby\", did you mean \"standbys\"?"),
        ] {
            check(&format!("[supervisor]\n{line}\n{REST}"), &[expected]);
        }
    }
}
