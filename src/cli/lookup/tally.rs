//! What became of all names: the counts behind the summary, the progress bar and the exit status.

use std::fmt;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::exchange::Lost;
use super::resolve::{Resolution, Verdict};

/// Counts of results. Displays as the summary, without the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Names with records.
    answered: u64,
    /// NXDOMAIN or NODATA.
    not_found: u64,
    /// Other response codes and chains that lead nowhere.
    errors: u64,
    /// The server never replied.
    timed_out: u64,
    /// Of those: nobody serves there, as ICMP or TCP said.
    unreachable: u64,
    /// Truncated by UDP, nothing by TCP.
    truncated: u64,
    /// Datagrams that did not match or did not parse.
    ignored: u64,
    /// Why the server was not asked at all, if it was not the one that is meant.
    pub(super) untrusted: Option<String>,
}

impl Tally {
    /// Counts one result.
    pub(super) fn add(&mut self, resolution: &Resolution) {
        self.ignored += resolution.ignored;
        match resolution.verdict {
            Verdict::Answered => self.answered += 1,
            Verdict::NotFound => self.not_found += 1,
            Verdict::Failed(_) | Verdict::ChainLoops | Verdict::ChainTooLong => self.errors += 1,
            Verdict::Lost(Lost::Silent) => self.timed_out += 1,
            Verdict::Lost(Lost::Unreachable) => {
                self.timed_out += 1;
                self.unreachable += 1;
            }
            Verdict::Lost(Lost::Truncated) => self.truncated += 1,
        }
    }

    /// Whether every name got an answer of any response code.
    pub(super) fn is_complete(&self) -> bool {
        self.timed_out == 0 && self.truncated == 0
    }

    /// The summary: one line.
    pub(super) fn summary(&self, elapsed: Duration) -> String {
        // Milliseconds are as fine as anybody reads; below them, microseconds.
        let grain = if elapsed < Duration::from_millis(10) { 1_000 } else { 1_000_000 };
        let rounded = elapsed.as_nanos() / grain * grain;
        let elapsed = Duration::from_nanos(u64::try_from(rounded).unwrap_or(u64::MAX));
        format!("{self} in {elapsed:?}")
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.answered + self.not_found + self.errors + self.timed_out + self.truncated;
        let plural = |count, one, many| if count == 1 { one } else { many };
        write!(f, "{names} {}: {} answered", plural(names, "name", "names"), self.answered)?;
        write!(f, ", {} not found", self.not_found)?;
        write!(f, ", {} {}", self.errors, plural(self.errors, "error", "errors"))?;
        write!(f, ", {} timed out", self.timed_out)?;
        if self.unreachable > 0 {
            write!(f, " ({} unreachable)", self.unreachable)?;
        }
        if self.truncated > 0 {
            write!(f, ", {} truncated", self.truncated)?;
        }
        if self.ignored > 0 {
            write!(f, ", {} {} ignored", self.ignored, plural(self.ignored, "datagram", "datagrams"))?;
        }
        Ok(())
    }
}

/// A bar on stderr while there is something to wait for; hidden unless stderr is a terminal and there are
/// several names.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// A bar for `names` names.
    pub(super) fn new(names: usize) -> Self {
        if names < 2 || !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} names{pace}")
            .expect("the template is well-formed")
            .with_key("pace", |state: &ProgressState, text: &mut dyn fmt::Write| {
                // The bar takes no error, and a pace that is not shown is no harm.
                let _ = text.write_str(&pace(state.pos(), state.len().unwrap_or(0), state.elapsed()));
            });
        Self(ProgressBar::new(names as u64).with_style(style))
    }

    /// Counts one result.
    pub(super) fn advance(&self) {
        self.0.inc(1);
    }

    /// Takes the bar off the terminal while `write` writes there.
    pub(super) fn make_way<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }
}

/// How fast it goes, and how long it may still take; nothing while nothing is done. A mean from the start on: names that
/// nobody has come in bursts, one window per timeout, and what is made of the last moment jumps between none and thousands.
fn pace(done: u64, all: u64, elapsed: Duration) -> String {
    if done == 0 || elapsed.is_zero() {
        return String::new();
    }
    let rate = done as f64 / elapsed.as_secs_f64();
    let left = Duration::from_secs((all.saturating_sub(done) as f64 / rate).ceil() as u64);
    let decimals = if rate < 10.0 { 1 } else { 0 };
    format!(", {rate:.decimals$} a second, {} left", humantime::format_duration(left))
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_a_mean_from_the_start_on() {
        let check = |done, all, seconds, expected| assert_eq!(pace(done, all, Duration::from_secs(seconds)), expected);
        check(0, 600, 2, "");
        check(90, 600, 3, ", 30 a second, 17s left");
        check(1, 600, 3, ", 0.3 a second, 29m 57s left");
        check(600, 600, 3, ", 200 a second, 0s left");
    }

    #[test]
    fn the_summary_names_what_happened() {
        let quiet = Tally { answered: 1, ..Tally::default() };
        assert_eq!(
            quiet.summary(Duration::from_nanos(1_234_567)),
            "1 name: 1 answered, 0 not found, 0 errors, 0 timed out in 1.234ms"
        );
        let noisy = Tally {
            answered: 5,
            not_found: 2,
            errors: 1,
            timed_out: 3,
            unreachable: 2,
            truncated: 1,
            ignored: 4,
            untrusted: None,
        };
        assert_eq!(
            noisy.summary(Duration::from_micros(1_234_567)),
            "12 names: 5 answered, 2 not found, 1 error, 3 timed out (2 unreachable), 1 truncated, \
             4 datagrams ignored in 1.234s"
        );
        assert!(quiet.is_complete() && !noisy.is_complete());
    }
}
