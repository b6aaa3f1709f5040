//! A modelled backend: decides the fate of each datagram that is sent to it.
//!
//! ```text
//!    sent ──▶ crashed? ──▶ lost? ──▶ waits for a server ──▶ service ──▶ delay ──▶ replies
//!               │            │        queue full │                                   │
//!             ICMP         nothing            nothing          a crash meanwhile: nothing
//! ```
//!
//! A stall holds up everything that would begin, end or leave during it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::delay::Delay;
use super::model::BackendModel;
use super::spells::{Spells, Unfolding, thawed};

#[derive(Debug)]
pub(super) struct SimulatedBackend<'a> {
    pub(super) model: &'a BackendModel,
    pub(super) rng: Xoshiro256PlusPlus,
    /// The factor of its site.
    pub(super) slow: Unfolding<'a, f64>,
    delay: Unfolding<'a, Delay>,
    loss: Unfolding<'a, f64>,
    stalls: Vec<Spells>,
    crashes: Vec<Spells>,
    servers: BinaryHeap<Reverse<Duration>>,
    /// The times at which the service of waiting datagrams begins.
    waiting: VecDeque<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueryFate {
    Lost,
    Unreachable(Duration),
    Replied(Duration),
}

impl<'a> SimulatedBackend<'a> {
    pub(super) fn new(model: &'a BackendModel, site_seed: u64, seeds: &mut impl FnMut() -> u64) -> Self {
        let mut site_seeds = Xoshiro256PlusPlus::seed_from_u64(site_seed);
        let servers = model.capacity.as_ref().map_or(0, |capacity| capacity.servers.max(1));
        Self {
            model,
            rng: Xoshiro256PlusPlus::seed_from_u64(seeds()),
            slow: Unfolding::new(&model.site.slow, &mut || site_seeds.random()),
            delay: Unfolding::new(&model.delay, seeds),
            loss: Unfolding::new(&model.loss, seeds),
            stalls: Spells::all(&model.stalls, seeds),
            crashes: Spells::all(&model.crashes, seeds),
            servers: (0..servers).map(|_| Reverse(Duration::ZERO)).collect(),
            waiting: VecDeque::new(),
        }
    }

    /// Takes a datagram that is sent now. `slow` multiplies all times.
    pub(super) fn ask(&mut self, now: Duration, slow: f64) -> QueryFate {
        if self.is_crashed(now) {
            return QueryFate::Unreachable(now + ICMP);
        }
        if self.loses(now) {
            return QueryFate::Lost;
        }
        self.reply(now, slow)
    }

    /// Takes a query that arrives now over a connection, on which nothing is lost.
    pub(super) fn ask_by_stream(&mut self, now: Duration, slow: f64) -> QueryFate {
        if self.is_crashed(now) { QueryFate::Lost } else { self.reply(now, slow) }
    }

    fn is_crashed(&mut self, now: Duration) -> bool {
        self.stalls.iter_mut().chain(&mut self.crashes).for_each(|spells| spells.forget(now));
        self.crashes.iter_mut().any(|crash| crash.at(now).is_some())
    }

    pub(super) fn loses(&mut self, now: Duration) -> bool {
        self.rng.random_bool(*self.loss.at(now))
    }

    /// Opens a connection, which takes a round trip. The client retransmits lost segments.
    pub(super) fn open(&mut self, now: Duration, slow: f64) -> QueryFate {
        if self.is_crashed(now) {
            return QueryFate::Unreachable(now + ICMP);
        }
        let again = if self.loses(now) { SECOND_DIAL } else { Duration::ZERO };
        let opened = now + again + self.delay.at(now).draw(&mut self.rng).mul_f64(slow);
        match thawed(&mut self.stalls, opened) {
            Some(opened) if opened <= now + CONNECT_TIMEOUT => QueryFate::Replied(opened),
            Some(_) | None => QueryFate::Lost,
        }
    }

    pub(super) fn next_crash(&mut self, time: Duration) -> Option<Duration> {
        self.crashes.iter_mut().filter_map(|crash| crash.next_start(time)).min()
    }

    fn reply(&mut self, now: Duration, slow: f64) -> QueryFate {
        let Some(served) = self.serve(now, slow) else { return QueryFate::Lost };
        let delay = self.delay.at(now).draw(&mut self.rng).mul_f64(slow);
        let Some(replied) = thawed(&mut self.stalls, served + delay) else { return QueryFate::Lost };
        let is_cut_off = self.crashes.iter_mut().any(|crash| crash.next(now).is_some_and(|next| next.start <= replied));
        if is_cut_off { QueryFate::Lost } else { QueryFate::Replied(replied) }
    }

    /// Returns the time at which a datagram has been served; `None` if never.
    fn serve(&mut self, now: Duration, slow: f64) -> Option<Duration> {
        let free = self.servers.peek().map_or(now, |Reverse(free)| now.max(*free));
        let begun = thawed(&mut self.stalls, free)?;
        while self.waiting.front().is_some_and(|begun| *begun <= now) {
            self.waiting.pop_front();
        }
        if begun > now {
            if self.waiting.len() >= QUEUE {
                return None;
            }
            self.waiting.push_back(begun);
        }
        let Some(capacity) = &self.model.capacity else { return Some(begun) };
        let service = capacity.service.draw(&mut self.rng).mul_f64(slow);
        let served = thawed(&mut self.stalls, begun + service)?;
        self.servers.pop();
        self.servers.push(Reverse(served));
        Some(served)
    }
}

/// The delay of an ICMP error, about as in one rack.
const ICMP: Duration = Duration::from_micros(100);

/// The wait without an answer before a second connection attempt runs beside the first.
const SECOND_DIAL: Duration = Duration::from_millis(250);

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The datagrams that can wait: Linux gives the receive buffer of a socket 212,992 bytes, and charges a small
/// datagram 768.
const QUEUE: usize = 277;

#[cfg(test)]
mod tests {
    use super::super::model::Capacity;
    use super::super::spells::{Course, When};
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Sends queries at these times and compares the times of the replies, all in ms.
    fn check(model: &BackendModel, asked: &[u64], expected: &[Option<u64>]) {
        let mut backend = SimulatedBackend::new(model, 1, &mut || 1);
        let fate = |at: &u64| match backend.ask(ms(*at), 1.0) {
            QueryFate::Replied(at) => Some(at.as_millis() as u64),
            QueryFate::Unreachable(at) => panic!("unreachable at {at:?}"),
            QueryFate::Lost => None,
        };
        assert_eq!(asked.iter().map(fate).collect::<Vec<_>>(), expected, "{model:?}");
    }

    fn between(from: u64, to: u64) -> Vec<When> {
        vec![When::Between { from: ms(from), to: ms(to) }]
    }

    #[test]
    fn one_that_is_well_replies_after_its_delay() {
        check(&BackendModel::default(), &[0, 0, 5], &[Some(1), Some(1), Some(6)]);
    }

    #[test]
    fn a_shift_changes_the_delay_for_a_time() {
        let shift = (Delay::Constant(ms(20)), When::Between { from: ms(10), to: ms(20) });
        let delay = Course { usual: Delay::Constant(ms(1)), at_times: vec![shift] };
        check(&BackendModel { delay, ..BackendModel::default() }, &[9, 10, 20], &[Some(10), Some(30), Some(21)]);
    }

    #[test]
    fn what_comes_during_a_stall_waits_for_its_end() {
        let model = BackendModel { stalls: between(10, 50), ..BackendModel::default() };
        check(&model, &[8, 9, 10, 49, 50], &[Some(9), Some(50), Some(51), Some(51), Some(51)]);
        let for_ever = vec![When::Between { from: ms(10), to: Duration::MAX }];
        check(&BackendModel { stalls: for_ever, ..BackendModel::default() }, &[5, 10], &[Some(6), None]);
    }

    #[test]
    fn a_queue_is_served_in_turn_and_has_an_end() {
        let capacity = Some(Capacity { servers: 2, service: Delay::Constant(ms(10)) });
        let model = BackendModel { capacity, ..BackendModel::default() };
        check(&model, &[0, 0, 0, 5, 100], &[Some(11), Some(11), Some(21), Some(21), Some(111)]);
        let mut backend = SimulatedBackend::new(&model, 1, &mut || 1);
        let lost = (0..300).filter(|_| backend.ask(ms(0), 1.0) == QueryFate::Lost).count();
        assert_eq!(lost, 300 - 2 - QUEUE);
    }

    #[test]
    fn a_crash_says_so_and_takes_with_it_what_was_not_replied_to() {
        let model = BackendModel { crashes: between(10, 20), ..BackendModel::default() };
        let mut backend = SimulatedBackend::new(&model, 1, &mut || 1);
        assert_eq!(backend.ask(ms(8), 1.0), QueryFate::Replied(ms(9)));
        assert_eq!(backend.ask(ms(9), 1.0), QueryFate::Lost);
        assert_eq!(backend.ask(ms(10), 1.0), QueryFate::Unreachable(ms(10) + ICMP));
        assert_eq!(backend.ask(ms(20), 1.0), QueryFate::Replied(ms(21)));
    }

    #[test]
    fn slowness_makes_everything_take_longer() {
        let capacity = Some(Capacity { servers: 1, service: Delay::Constant(ms(2)) });
        let mut backend = BackendModel { capacity, ..BackendModel::default() };
        backend.delay = Course::always(Delay::Constant(ms(1)));
        let mut backend = SimulatedBackend::new(&backend, 1, &mut || 1);
        assert_eq!(backend.ask(ms(0), 10.0), QueryFate::Replied(ms(30)));
    }

    #[test]
    fn so_many_are_lost_as_the_chance_says() {
        let model = BackendModel { loss: Course::always(0.05), ..BackendModel::default() };
        let mut backend = SimulatedBackend::new(&model, 1, &mut || 1);
        let lost = (0..100_000).filter(|at| backend.ask(ms(*at), 1.0) == QueryFate::Lost).count();
        assert!(lost.abs_diff(5_000) < 300, "{lost}");
    }
}
