//! `[supervisor]`: standby processes and the watchdog.

use std::time::Duration;

use super::section::ConfigSection;
use super::words::{DURATION, Expectation, duration};
use super::{SupervisorConfig, limits};

impl SupervisorConfig {
    /// The default of `standbys`: a second crash right after the first still finds one ready.
    pub const STANDBYS: usize = 2;

    /// The default of `watchdog`: longer than slow disks and page faults take.
    pub const WATCHDOG: Duration = Duration::from_secs(10);

    /// The default of `succession`: the surviving processes restore the rest.
    pub const SUCCESSION: bool = true;
}

impl Default for SupervisorConfig {
    fn default() -> Self {
        Self { standbys: Self::STANDBYS, watchdog: Some(Self::WATCHDOG), succession: Self::SUCCESSION }
    }
}

pub(super) fn read(mut section: ConfigSection<'_>) -> SupervisorConfig {
    let standbys = section.integer("standbys", limits::STANDBYS, SupervisorConfig::STANDBYS);
    let watchdog = section.parsed("watchdog", read_watchdog, Some(SupervisorConfig::WATCHDOG));
    let succession = section.boolean("succession", SupervisorConfig::SUCCESSION);
    section.finish();
    SupervisorConfig { standbys, watchdog, succession }
}

fn read_watchdog(text: &str) -> Result<Option<Duration>, Expectation> {
    match duration(text) {
        Ok(Duration::ZERO) => Ok(None),
        Ok(value) if limits::WATCHDOG.holds(&value) => Ok(Some(value)),
        Ok(_) => {
            let (min, max) = (limits::WATCHDOG.min, limits::WATCHDOG.max);
            let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
            Err(Expectation::new(format!("a duration from {min} to {max}, or 0s for never")).matching(DURATION))
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

    const REST: &str = "[authorities.a]\nlisten = [\"127.0.0.1:5301\"]\nzones = [\"a.txt\"]\n";

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
