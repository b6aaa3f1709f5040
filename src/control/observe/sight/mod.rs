//! The operator's view: health, history, and slow backends.
//!
//! [`History`] takes the counters once a second and keeps the growth; [`verdict`] judges it by a table of
//! rules; [`live`] defines the JSON. [`Sight`] combines them and runs on the control thread. Nothing here
//! reads a clock or a socket: time is an argument.

pub mod divergence;
mod history;
mod kept;
pub mod live;
pub mod names;
pub mod serials;
pub mod verdict;

use std::time::{Duration, Instant};

use metrics::Snapshot;

pub use self::history::{History, MAX_OCTETS, SavedHistory};
pub use self::kept::Event;
use self::kept::RecentEvents;
use self::live::{Second, Verdict};

/// The view of a running server.
#[derive(Debug)]
pub struct Sight {
    history: History,
    verdict: Verdict,
    latest: Second,
    kept: RecentEvents,
}

impl Sight {
    /// Starts the view; the counts so far are not part of it. `at` is the Unix time.
    pub fn new(now: Instant, at: Duration, snapshot: &Snapshot) -> Self {
        let history = History::new(now, snapshot);
        let seconds = at.as_secs();
        let verdict = Verdict { since: seconds, ..verdict::judge(&history.facts(at, snapshot)) };
        let latest = history.second(seconds, snapshot, verdict.clone());
        Self { history, verdict, latest, kept: RecentEvents::new(seconds) }
    }

    /// Takes the second that ends now; `None` if the last one has just ended.
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

    /// Adds the counts of another process to the baselines, because the totals have grown by them at once. So
    /// they do not appear as new.
    pub fn carry(&mut self, given: &Snapshot) {
        self.history.carry(given);
    }

    /// Puts the history of a previous process before this one.
    pub fn restore(&mut self, now: Instant, at: Duration, snapshot: &Snapshot, saved: &SavedHistory) {
        self.history.restore(now, at.as_secs(), snapshot, saved);
    }

    /// Returns the current verdict.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Returns the verdict as a number: 0 well, 1 watch, 2 trouble.
    pub fn verdict_number(&self) -> u64 {
        self.verdict.state as u64
    }

    /// Returns the last second.
    pub fn latest(&self) -> &Second {
        &self.latest
    }

    /// Returns the history.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Returns the kept events after this number, the oldest first.
    pub fn missed(&self, id: u64) -> Vec<Event> {
        self.kept.after(id).cloned().collect()
    }

    /// Returns the number of the last event.
    pub fn latest_id(&self) -> u64 {
        self.kept.latest_id()
    }

    #[cfg(test)]
    fn octets(&self) -> usize {
        size_of::<Self>() + self.history.octets() + self.kept.octets()
    }
}

#[cfg(test)]
mod tests;

/// Returns a slow race for tests: a silent backend, a denied hedge, and a late winner.
#[cfg(test)]
pub(crate) fn sample_race() -> engine::slow::SlowRace {
    let json = include_str!("../../../../crates/engine/src/slow/tests/race.json");
    serde_json::from_str(json).expect("the JSON of a race")
}
