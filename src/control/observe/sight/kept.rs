//! The last events, for clients that reconnect.

use std::collections::VecDeque;
use std::sync::Arc;

/// A second as an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The number. The first one is the time of the start, so that those of a later process are greater.
    pub id: u64,
    /// A [`Second`](super::live::Second) as JSON.
    pub data: Arc<str>,
}

/// The last seconds, at most [`MAX_EVENTS`] and [`MAX_OCTETS`].
#[derive(Debug)]
pub(super) struct RecentEvents {
    events: VecDeque<Event>,
    octets: usize,
    next: u64,
}

impl RecentEvents {
    pub(super) fn new(first: u64) -> Self {
        Self { events: VecDeque::with_capacity(MAX_EVENTS), octets: 0, next: first }
    }

    pub(super) fn push(&mut self, data: String) -> Event {
        let event = Event { id: self.next, data: data.into() };
        self.next += 1;
        self.octets += event.data.len();
        self.events.push_back(event.clone());
        while self.events.len() > MAX_EVENTS || self.octets > MAX_OCTETS && self.events.len() > 1 {
            self.octets -= self.events.pop_front().map_or(0, |oldest| oldest.data.len());
        }
        event
    }

    pub(super) fn latest_id(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    pub(super) fn after(&self, id: u64) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.id > id)
    }

    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        self.events.capacity() * size_of::<Event>() + self.octets
    }
}

const MAX_EVENTS: usize = 600;
/// The bytes of their data: ten minutes of some ten backends, a minute of a site of hundreds.
const MAX_OCTETS: usize = 640 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_gets_what_was_missed() {
        let mut kept = RecentEvents::new(1_000);
        (0..700).for_each(|second| drop(kept.push(second.to_string())));
        let ids = |after| kept.after(after).map(|event| event.id).collect::<Vec<_>>();
        assert_eq!(ids(1_697), [1_698, 1_699]);
        assert_eq!(ids(1_699), [0_u64; 0]);
        assert_eq!((ids(0).len(), ids(0)[0]), (600, 1_100), "no more than ten minutes");
        assert_eq!(kept.after(1_698).next().map(|event| &*event.data), Some("699"));
    }

    #[test]
    fn many_octets_are_kept_for_less_time() {
        let mut kept = RecentEvents::new(0);
        (0..700).for_each(|_| drop(kept.push("x".repeat(16 << 10))));
        assert_eq!(kept.after(0).count(), 40);
        let enormous = kept.push("x".repeat(2 << 20));
        assert_eq!(kept.after(0).cloned().collect::<Vec<_>>(), [enormous], "the latest is kept whatever it takes");
    }
}
