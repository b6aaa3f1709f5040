//! Counts of results for the summary, the progress bar and the exit status.

use std::fmt;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressState, ProgressStyle};

use super::exchange::TryFailure;
use super::resolve::{LookupResolution, LookupVerdict};
use crate::cli::count;

/// Counts of results. Displays as the summary, without the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LookupTally {
    answered: u64,
    not_found: u64,
    /// Other response codes and unusable chains.
    errors: u64,
    timed_out: u64,
    /// The part of `timed_out` where ICMP or TCP reported that no server listens.
    unreachable: u64,
    /// A truncated reply by UDP, and none by TCP.
    truncated: u64,
    ignored: u64,
    /// The reason why the server is not trusted and got no queries.
    pub(super) untrusted: Option<String>,
}

impl LookupTally {
    pub(super) fn add(&mut self, resolution: &LookupResolution) {
        self.ignored += resolution.effort.ignored;
        match resolution.verdict {
            LookupVerdict::Answered => self.answered += 1,
            LookupVerdict::NotFound => self.not_found += 1,
            LookupVerdict::Failed(_) | LookupVerdict::ChainLoops | LookupVerdict::ChainTooLong => self.errors += 1,
            LookupVerdict::Lost(TryFailure::Silent) => self.timed_out += 1,
            LookupVerdict::Lost(TryFailure::Unreachable) => {
                self.timed_out += 1;
                self.unreachable += 1;
            }
            LookupVerdict::Lost(TryFailure::Truncated) => self.truncated += 1,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.timed_out == 0 && self.truncated == 0
    }

    pub(super) fn summary(&self, elapsed: Duration) -> String {
        // Round to milliseconds; to microseconds below 10 ms.
        let grain = if elapsed < Duration::from_millis(10) { 1_000 } else { 1_000_000 };
        let rounded = elapsed.as_nanos() / grain * grain;
        let elapsed = Duration::from_nanos(u64::try_from(rounded).unwrap_or(u64::MAX));
        format!("{self} in {elapsed:?}")
    }
}

impl fmt::Display for LookupTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.answered + self.not_found + self.errors + self.timed_out + self.truncated;
        let errors = count(self.errors as usize, "error", "errors");
        write!(f, "{}: {} answered", count(names as usize, "name", "names"), self.answered)?;
        write!(f, ", {} not found, {errors}, {} timed out", self.not_found, self.timed_out)?;
        if self.unreachable > 0 {
            write!(f, " ({} unreachable)", self.unreachable)?;
        }
        if self.truncated > 0 {
            write!(f, ", {} truncated", self.truncated)?;
        }
        if self.ignored > 0 {
            write!(f, ", {} ignored", count(self.ignored as usize, "datagram", "datagrams"))?;
        }
        Ok(())
    }
}

/// Returns a progress bar on stderr that vanishes at the end; hidden unless stderr is a terminal and there
/// are several names.
pub(super) fn progress_bar(names: usize) -> ProgressBar {
    if names < 2 || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} names{pace}")
        .expect("the template is well-formed")
        .with_key("pace", |state: &ProgressState, text: &mut dyn fmt::Write| {
            // The bar accepts no error, and a missing pace does no harm.
            let _ = text.write_str(&pace(state.pos(), state.len().unwrap_or(0), state.elapsed()));
        });
    ProgressBar::new(names as u64).with_style(style).with_finish(ProgressFinish::AndClear)
}

/// Formats the rate and the remaining time; empty before the first result. The rate is the mean since the
/// start, because timeouts end in bursts of a window, and a short-term rate would jump between none and
/// thousands.
fn pace(done: u64, all: u64, elapsed: Duration) -> String {
    if done == 0 || elapsed.is_zero() {
        return String::new();
    }
    let rate = done as f64 / elapsed.as_secs_f64();
    let left = Duration::from_secs((all.saturating_sub(done) as f64 / rate).ceil() as u64);
    let decimals = if rate < 10.0 { 1 } else { 0 };
    format!(", {rate:.decimals$} a second, {} left", humantime::format_duration(left))
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
        let quiet = LookupTally { answered: 1, ..LookupTally::default() };
        assert_eq!(
            quiet.summary(Duration::from_nanos(1_234_567)),
            "1 name: 1 answered, 0 not found, 0 errors, 0 timed out in 1.234ms"
        );
        let noisy = LookupTally {
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
