//! Races that wait to be delivered: each until no late reply can come to it, then until there are enough for a batch, or for some
//! seconds.
//!
//! A batch goes when 100 races are settled, or 5 s after the first of them was, or when there is no room for more; then the oldest
//! go as they are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::sight::slow::{LATE_REPLIES, LateReply, SlowAttempt, SlowRace, ToldRace, why};

/// What waits, oldest first.
#[derive(Debug, Default)]
pub(super) struct TraceQueue {
    waiting: VecDeque<Waiting>,
    /// The collector has asked for time until then.
    not_before: Option<Instant>,
}

/// A race that waits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waiting {
    /// By what its trace is known: the same when it goes again.
    id: u128,
    told: ToldRace,
    /// When nothing more is to be heard of it.
    settled_at: Instant,
    /// Whether the collector has put it off already.
    is_put_off: bool,
}

impl Waiting {
    /// The race, and by what its trace is known.
    pub(super) fn trace(&self) -> (u128, &SlowRace) {
        (self.id, &self.told.race)
    }

    /// Says of attempts that have not replied, if they cannot any more, that they were silent.
    fn settle(mut self, now: Instant) -> Self {
        if self.settled_at <= now {
            self.told.race.settle();
        }
        self
    }
}

impl TraceQueue {
    /// Whether there is room for one more.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_QUEUED
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a race that has just ended, for a trace of this number.
    pub(super) fn insert(&mut self, mut told: ToldRace, id: u128, now: Instant) {
        told.race.why = why(&told.race);
        let settled_at = if may_be_late(&told.race) { now + LATE_REPLIES } else { now };
        self.waiting.push_back(Waiting { id, told, settled_at, is_put_off: false });
    }

    /// Joins a late reply to the race that it was for, if that is here.
    pub(super) fn join(&mut self, late: &LateReply, now: Instant) {
        let joined = self.waiting.iter_mut().rev().find_map(|waiting| waiting.told.join(late).then_some(waiting));
        if let Some(waiting) = joined.filter(|waiting| !may_be_late(&waiting.told.race)) {
            waiting.settled_at = waiting.settled_at.min(now);
        }
    }

    /// When the next batch is due, if any is.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let mut settled: Vec<Instant> = self.waiting.iter().map(|waiting| waiting.settled_at).collect();
        settled.sort_unstable();
        let by_time = *settled.first()? + EVERY;
        let by_count = settled.get(BATCH - 1).copied();
        let by_want_of_room = (!self.has_room()).then_some(now);
        let due = [by_count, by_want_of_room].into_iter().flatten().fold(by_time, Instant::min);
        Some(due.max(self.not_before.unwrap_or(due)))
    }

    /// Takes the oldest of those that are settled; where there is no room, the oldest.
    pub(super) fn take_batch(&mut self, now: Instant) -> Vec<Waiting> {
        self.not_before = None;
        if !self.has_room() {
            return self.take_oldest().into_iter().map(|waiting| waiting.settle(now)).collect();
        }
        let mut taken = 0;
        let (batch, rest): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|waiting| {
            let is_taken = waiting.settled_at <= now && taken < BATCH;
            taken += usize::from(is_taken);
            is_taken
        });
        self.waiting.extend(rest);
        batch.into_iter().map(|waiting| waiting.settle(now)).collect()
    }

    /// Takes the oldest, whatever may still be heard of them.
    pub(super) fn take_oldest(&mut self) -> Vec<Waiting> {
        self.waiting.drain(..self.waiting.len().min(BATCH)).collect()
    }

    /// Has a batch go again with the next one, but not soon. Returns how many have gone twice already, and are dropped.
    pub(super) fn put_back(&mut self, batch: Vec<Waiting>, now: Instant) -> u64 {
        self.not_before = Some(now + EVERY);
        let (dropped, again): (Vec<_>, Vec<_>) = batch.into_iter().partition(|waiting| waiting.is_put_off);
        for waiting in again.into_iter().rev() {
            self.waiting.push_front(Waiting { is_put_off: true, ..waiting });
        }
        dropped.len() as u64
    }
}

/// Whether a reply may still come.
fn may_be_late(race: &SlowRace) -> bool {
    race.attempts.iter().any(SlowAttempt::may_reply)
}

/// Races that wait at most.
pub(super) const MAX_QUEUED: usize = 400;

/// Races of one batch at most: some 200 KB.
const BATCH: usize = 100;

/// How long a race that is settled waits for others.
const EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Rank;
    use crate::sight::slow::Fate;

    /// A race of this hash whose first attempt has come to this.
    fn told(hash: u64, fate: Fate) -> ToldRace {
        let mut race = SlowRace::sample();
        race.attempts[0].fate = fate;
        ToldRace { hash, race }
    }

    /// A reply to that.
    fn late(hash: u64) -> LateReply {
        let SlowRace { at, pool, .. } = SlowRace::sample();
        LateReply { hash, pool, backend: "ts1".to_owned(), asked_at: at, took_ms: 300.0, rank: Rank::Positive }
    }

    /// A queue that has so many, all of them settled or none.
    fn queue_of(count: usize, fate: Fate, now: Instant) -> TraceQueue {
        let mut queue = TraceQueue::default();
        (0..count).for_each(|number| queue.insert(told(number as u64, fate), number as u128, now));
        queue
    }

    fn ids(batch: &[Waiting]) -> Vec<u128> {
        batch.iter().map(|waiting| waiting.id).collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_race_waits_until_no_late_reply_can_come_and_then_for_others() {
        let now = Instant::now();
        let mut queue = TraceQueue::default();
        assert_eq!(queue.due(now), None);
        queue.insert(told(1, Fate::Beaten), 1, now);
        assert_eq!(queue.due(now), Some(now + 10 * SECOND));
        queue.insert(told(2, Fate::Failed), 2, now + SECOND);
        assert_eq!(queue.due(now), Some(now + 6 * SECOND));
        let batch = queue.take_batch(now + 6 * SECOND);
        assert_eq!(ids(&batch), [1, 2]);
        // Who has not replied by then was silent.
        assert_eq!(batch[0].told.race.attempts[0].fate, Fate::Silent);
        assert!(batch[0].told.race.why.starts_with("ts1 silent"), "{}", batch[0].told.race.why);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_late_reply_settles_its_race() {
        let now = Instant::now();
        let mut queue = queue_of(3, Fate::Beaten, now);
        queue.join(&late(1), now + SECOND);
        queue.join(&late(7), now + SECOND);
        assert_eq!(queue.due(now), Some(now + 6 * SECOND));
        assert!(queue.take_batch(now + SECOND / 2).is_empty(), "nothing is settled");
        let batch = queue.take_batch(now + SECOND);
        assert_eq!(ids(&batch), [1]);
        let race = &batch[0].told.race;
        assert_eq!((race.attempts[0].fate, race.attempts[0].took_ms), (Fate::Late, Some(300.0)));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn a_hundred_go_at_once_and_a_full_queue_goes_as_it_is() {
        let now = Instant::now();
        let mut queue = queue_of(99, Fate::Failed, now);
        assert_eq!(queue.due(now), Some(now + 5 * SECOND));
        queue.insert(told(99, Fate::Failed), 99, now);
        queue.insert(told(100, Fate::Failed), 100, now);
        assert_eq!(queue.due(now), Some(now));
        assert_eq!(ids(&queue.take_batch(now)), (0..100).collect::<Vec<_>>());
        assert_eq!(queue.len(), 1);
        let mut queue = queue_of(MAX_QUEUED, Fate::Beaten, now);
        assert!(!queue.has_room());
        assert_eq!(queue.due(now), Some(now));
        let batch = queue.take_batch(now);
        assert_eq!(ids(&batch), (0..100).collect::<Vec<_>>());
        assert_eq!(batch[0].told.race.attempts[0].fate, Fate::Beaten, "it may reply yet");
        assert!(queue.has_room());
        assert_eq!(queue.due(now), Some(now + 5 * SECOND));
    }

    #[test]
    fn what_was_put_off_goes_once_more_before_others_but_not_soon() {
        let now = Instant::now();
        let mut queue = queue_of(101, Fate::Failed, now);
        let batch = queue.take_batch(now);
        assert_eq!(queue.put_back(batch, now), 0);
        assert_eq!(queue.due(now), Some(now + 5 * SECOND));
        let later = now + 5 * SECOND;
        let batch = queue.take_batch(later);
        assert_eq!(ids(&batch), (0..100).collect::<Vec<_>>(), "by the same numbers");
        assert_eq!(queue.put_back(batch, later), 100);
        let batch = queue.take_batch(later + 5 * SECOND);
        assert_eq!(ids(&batch), [100]);
        assert_eq!(queue.put_back(batch, later), 0);
    }
}
