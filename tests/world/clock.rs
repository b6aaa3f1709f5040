//! What all parts of the world share: the clock, the chance, the queue of events, the network and the story.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::checks::Truth;
use super::etcd::Etcd;
use super::host::HostId;
use super::network::{Datagram, Links, StreamEvent};

/// Something that happens at its time, once.
#[derive(Debug)]
pub(crate) enum Event {
    /// A datagram arrives.
    Arrives(Datagram),
    /// The sender of a datagram gets an ICMP error.
    Unreachable(Datagram),
    /// An end of a stream gets news.
    Stream(StreamEvent),
    /// A client sends its query.
    Ask(usize),
    /// A fault begins.
    Fault(usize),
    /// A fault ends.
    Heal(usize),
    /// The service manager starts a host that has ended.
    Boot(usize),
}

/// The state around all hosts.
pub(crate) struct Around {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) rng: Xoshiro256PlusPlus,
    events: BTreeMap<(Instant, u64), Event>,
    number: u64,
    pub(crate) links: Links,
    pub(crate) truth: Truth,
    pub(crate) etcd: Etcd,
    /// By how many seconds the wall clock of each host is wrong.
    pub(crate) wrong_by: BTreeMap<HostId, i64>,
    /// The lines of the story; `None` if it is not printed.
    story: Option<Vec<String>>,
}

impl Around {
    pub(crate) fn new(seed: u64, is_logged: bool) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: start,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            events: BTreeMap::new(),
            number: 0,
            links: Links::default(),
            truth: Truth::default(),
            etcd: Etcd::default(),
            wrong_by: BTreeMap::new(),
            story: is_logged.then(Vec::new),
        }
    }

    pub(crate) fn schedule(&mut self, at: Instant, event: Event) {
        self.number += 1;
        self.events.insert((at.max(self.now), self.number), event);
    }

    pub(crate) fn after(&mut self, wait: Duration, event: Event) {
        self.schedule(self.now + wait, event);
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn pop_due(&mut self) -> Option<Event> {
        let entry = self.events.first_entry().filter(|entry| entry.key().0 <= self.now)?;
        Some(entry.remove())
    }

    /// Returns the wall clock of a host, seconds since 1970.
    pub(crate) fn wall(&self, host: HostId) -> u64 {
        let wrong_by = self.wrong_by.get(&host).copied().unwrap_or(0);
        (1_790_000_000 + (self.now - self.start).as_secs()).saturating_add_signed(wrong_by)
    }

    /// Draws a random time of up to `most` milliseconds.
    pub(crate) fn millis(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.rng.random_range(0..=most * 1000))
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.random_bool(share)
    }

    pub(crate) fn log(&mut self, line: fmt::Arguments<'_>) {
        let at = self.now - self.start;
        if let Some(story) = &mut self.story {
            story.push(format!("{:>9.3} ms  {line}", at.as_secs_f64() * 1e3));
        }
    }

    pub(crate) fn take_story(&mut self) -> Vec<String> {
        self.story.take().unwrap_or_default()
    }
}
