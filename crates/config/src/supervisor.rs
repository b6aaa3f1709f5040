//! `[supervisor]`: standby processes and the watchdog.

use std::time::Duration;

use super::limits;
use super::readers::{boolean, integer, text};
use super::words::{DURATION, Expectation, duration};

config_section! {
    /// `[supervisor]`.
    #[derive(Eq)]
    pub struct SupervisorConfig {
        /// The number of standby processes. With 2, a second crash right after the first still finds one
        /// ready.
        standbys: usize = 2, integer(limits::STANDBYS);
        /// The time without progress after which a process is killed. Slow disks and page faults take less
        /// than the default.
        watchdog: Option<Duration> = Some(Duration::from_secs(10)), text(read_watchdog);
        /// True if a standby replaces a dead supervisor.
        succession: bool = true, boolean;
    }
}

fn read_watchdog(text: &str) -> Result<Option<Duration>, Expectation> {
    match duration(text)? {
        Duration::ZERO => Ok(None),
        value if limits::WATCHDOG.holds(&value) => Ok(Some(value)),
        _ => {
            let what = format!("a duration {}, or 0s for never", limits::WATCHDOG.in_words());
            Err(Expectation::new(what).matching(DURATION))
        }
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
