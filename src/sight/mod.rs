//! What an operator sees at a glance: whether all is well, what was, and who is slow.
//!
//! [`History`] takes the counters once a second and keeps what was added; [`verdict`] judges it by a table of rules; [`live`] is the
//! shape of the JSON that the page, `hedgerow top` and `hedgerow ctl` read. [`Sight`] is all of that together, driven by the control
//! thread. [`slow`] keeps races that were slow or failed, and says why; [`names`] counts the names asked for most; [`explain`] is what is
//! told of one question that an operator asks. Nothing here touches a clock or a socket: time comes as an argument.

pub mod divergence;
pub mod explain;
mod history;
mod kept;
pub mod live;
pub mod names;
pub mod serials;
pub mod slow;
pub mod verdict;

use std::time::{Duration, Instant};

pub use self::history::{History, MAX_OCTETS};
pub use self::kept::Event;
use self::kept::Kept;
use self::live::{Second, Verdict, VerdictState};
use crate::metrics::Snapshot;

/// What is seen of a running server.
#[derive(Debug)]
pub struct Sight {
    history: History,
    verdict: Verdict,
    latest: Second,
    kept: Kept,
}

impl Sight {
    /// Begins with what was counted so far, which is no part of it. `at`: the time since the epoch of Unix.
    pub fn new(now: Instant, at: Duration, snapshot: &Snapshot) -> Self {
        let history = History::new(now, snapshot);
        let seconds = at.as_secs();
        let verdict = Verdict { since: seconds, ..verdict::judge(&history.facts(at, snapshot)) };
        let latest = history.second(seconds, snapshot, verdict.clone());
        Self { history, verdict, latest, kept: Kept::new(seconds) }
    }

    /// Takes the second that ends now; none if the last one has ended just now.
    pub fn take(&mut self, now: Instant, at: Duration, snapshot: &Snapshot) -> Option<Event> {
        let seconds = at.as_secs();
        if !self.history.take(now, seconds, snapshot) {
            return None;
        }
        let verdict = verdict::judge(&self.history.facts(at, snapshot));
        self.history.note(verdict.state);
        let since = if verdict.state == self.verdict.state { self.verdict.since } else { seconds };
        self.verdict = Verdict { since, ..verdict };
        self.latest = self.history.second(seconds, snapshot, self.verdict.clone());
        let data = serde_json::to_string(&self.latest).expect("plain data");
        Some(self.kept.push(data))
    }

    /// The counters were given at once what another process has counted.
    pub fn carry(&mut self, given: &Snapshot) {
        self.history.carry(given);
    }

    /// Whether all is well.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// The same as a number: 0 well, 1 watch, 2 trouble.
    pub fn verdict_number(&self) -> u64 {
        match self.verdict.state {
            VerdictState::Well => 0,
            VerdictState::Watch => 1,
            VerdictState::Trouble => 2,
        }
    }

    /// The last second.
    pub fn latest(&self) -> &Second {
        &self.latest
    }

    /// What was.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What was told after the second of this number, the oldest first, as far as it is kept.
    pub fn missed(&self, id: u64) -> Vec<Event> {
        self.kept.after(id).cloned().collect()
    }

    /// The number of the last second that was told.
    pub fn latest_id(&self) -> u64 {
        self.kept.latest_id()
    }

    /// Octets that it takes.
    #[cfg(test)]
    fn octets(&self) -> usize {
        size_of::<Self>() + self.history.octets() + self.kept.octets()
    }
}

#[cfg(test)]
mod tests;
