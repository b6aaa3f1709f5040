//! Queue of races for delivery: each waits until no late reply can arrive, then for a batch.
//!
//! A batch leaves when 100 races are settled, 5 s after the first of them was, or when the queue is full;
//! then the oldest races leave as they are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use engine::slow::{LATE_REPLIES, LateReply, ReportedRace, SlowAttempt, SlowRace, why};

#[derive(Debug, Default)]
pub(super) struct TraceQueue {
    waiting: VecDeque<QueuedTrace>,
    /// The end of the pause that the collector asked for.
    not_before: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct QueuedTrace {
    /// The trace ID, which stays the same when the race is sent again.
    id: u128,
    reported: ReportedRace,
    /// The time from which no late reply can arrive.
    settled_at: Instant,
    /// True if the collector has deferred the race once.
    is_put_off: bool,
}

impl QueuedTrace {
    pub(super) fn trace(&self) -> (u128, &SlowRace) {
        (self.id, &self.reported.race)
    }

    fn settle(mut self, now: Instant) -> Self {
        if self.settled_at <= now {
            self.reported.race.settle();
        }
        self
    }
}

impl TraceQueue {
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_QUEUED
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn insert(&mut self, mut reported: ReportedRace, id: u128, now: Instant) {
        reported.race.why = why(&reported.race);
        let settled_at = if may_be_late(&reported.race) { now + LATE_REPLIES } else { now };
        self.waiting.push_back(QueuedTrace { id, reported, settled_at, is_put_off: false });
    }

    /// Joins a late reply to its race, if that is in the queue.
    pub(super) fn join(&mut self, late: &LateReply, now: Instant) {
        let joined = self.waiting.iter_mut().rev().find_map(|waiting| waiting.reported.join(late).then_some(waiting));
        if let Some(waiting) = joined.filter(|waiting| !may_be_late(&waiting.reported.race)) {
            waiting.settled_at = waiting.settled_at.min(now);
        }
    }

    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let mut settled: Vec<Instant> = self.waiting.iter().map(|waiting| waiting.settled_at).collect();
        settled.sort_unstable();
        let by_time = *settled.first()? + EVERY;
        let by_count = settled.get(BATCH - 1).copied();
        let by_want_of_room = (!self.has_room()).then_some(now);
        let due = [by_count, by_want_of_room].into_iter().flatten().fold(by_time, Instant::min);
        Some(due.max(self.not_before.unwrap_or(due)))
    }

    /// Takes the oldest settled races; if the queue is full, the oldest of all.
    pub(super) fn take_batch(&mut self, now: Instant) -> Vec<QueuedTrace> {
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

    /// Takes the oldest races, even those that may still get a reply.
    pub(super) fn take_oldest(&mut self) -> Vec<QueuedTrace> {
        self.waiting.drain(..self.waiting.len().min(BATCH)).collect()
    }

    /// Puts a batch back for a later delivery. Returns the number of races that were sent twice and are
    /// dropped.
    pub(super) fn put_back(&mut self, batch: Vec<QueuedTrace>, now: Instant) -> u64 {
        self.not_before = Some(now + EVERY);
        let (dropped, again): (Vec<_>, Vec<_>) = batch.into_iter().partition(|waiting| waiting.is_put_off);
        for waiting in again.into_iter().rev() {
            self.waiting.push_front(QueuedTrace { is_put_off: true, ..waiting });
        }
        dropped.len() as u64
    }
}

fn may_be_late(race: &SlowRace) -> bool {
    race.attempts.iter().any(SlowAttempt::may_reply)
}

pub(super) const MAX_QUEUED: usize = 400;

/// The maximum size of a batch: some 200 KB.
const BATCH: usize = 100;

/// The time that a settled race waits for others.
const EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use config::Rank;
    use engine::slow::Fate;

    use super::*;
    use crate::control::observe::sight::sample_race;

    /// Returns a race with this hash and this fate of its first attempt.
    fn reported(hash: u64, fate: Fate) -> ReportedRace {
        let mut race = sample_race();
        race.attempts[0].fate = fate;
        ReportedRace { hash, race }
    }

    fn late(hash: u64) -> LateReply {
        let SlowRace { at, pool, .. } = sample_race();
        LateReply { hash, pool, backend: "ts1".to_owned(), asked_at: at, took_ms: 300.0, rank: Rank::Positive }
    }

    /// Returns a queue of `count` races with this fate.
    fn queue_of(count: usize, fate: Fate, now: Instant) -> TraceQueue {
        let mut queue = TraceQueue::default();
        (0..count).for_each(|number| queue.insert(reported(number as u64, fate), number as u128, now));
        queue
    }

    fn ids(batch: &[QueuedTrace]) -> Vec<u128> {
        batch.iter().map(|waiting| waiting.id).collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_race_waits_until_no_late_reply_can_come_and_then_for_others() {
        let now = Instant::now();
        let mut queue = TraceQueue::default();
        assert_eq!(queue.due(now), None);
        queue.insert(reported(1, Fate::Beaten), 1, now);
        assert_eq!(queue.due(now), Some(now + 10 * SECOND));
        queue.insert(reported(2, Fate::Failed), 2, now + SECOND);
        assert_eq!(queue.due(now), Some(now + 6 * SECOND));
        let batch = queue.take_batch(now + 6 * SECOND);
        assert_eq!(ids(&batch), [1, 2]);
        // An attempt without a reply by then was silent.
        assert_eq!(batch[0].reported.race.attempts[0].fate, Fate::Silent);
        assert!(batch[0].reported.race.why.starts_with("ts1 silent"), "{}", batch[0].reported.race.why);
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
        let race = &batch[0].reported.race;
        assert_eq!((race.attempts[0].fate, race.attempts[0].took_ms), (Fate::Late, Some(300.0)));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn a_hundred_go_at_once_and_a_full_queue_goes_as_it_is() {
        let now = Instant::now();
        let mut queue = queue_of(99, Fate::Failed, now);
        assert_eq!(queue.due(now), Some(now + 5 * SECOND));
        queue.insert(reported(99, Fate::Failed), 99, now);
        queue.insert(reported(100, Fate::Failed), 100, now);
        assert_eq!(queue.due(now), Some(now));
        assert_eq!(ids(&queue.take_batch(now)), (0..100).collect::<Vec<_>>());
        assert_eq!(queue.len(), 1);
        let mut queue = queue_of(MAX_QUEUED, Fate::Beaten, now);
        assert!(!queue.has_room());
        assert_eq!(queue.due(now), Some(now));
        let batch = queue.take_batch(now);
        assert_eq!(ids(&batch), (0..100).collect::<Vec<_>>());
        assert_eq!(batch[0].reported.race.attempts[0].fate, Fate::Beaten, "it may reply yet");
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
