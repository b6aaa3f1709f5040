//! Timed work on connections: second dials, timeouts of dials, pings, idle timeouts, and warm connections.

use std::time::{Duration, Instant};

use engine::query_slots::{SocketId, SocketSetId};
use rand::RngExt;

use super::dial::Fault;
use super::queue::SECOND_DIAL;
use super::{ConnectionPool, DIALS, Dials, PooledConnection, StreamSet, place_of};
use crate::to_backends::connection::{SilenceAction, silence_limit};

enum CheckAction {
    At(Instant),
    Dial,
    Double,
    AskForSign,
    Renew,
    Retire,
    End(Fault),
    Close,
}

impl ConnectionPool {
    /// Returns the time when [`check`](Self::check) has work.
    pub(crate) fn next_check(&self) -> Option<Instant> {
        self.next_check
    }

    /// Checks the connections if it is time. `p99` returns the 99th percentile of a backend's latency.
    pub fn check(&mut self, now: Instant, p99: impl Fn(SocketSetId) -> Option<Duration>) {
        if self.next_check.is_some_and(|at| at <= now) {
            self.check_all(now, p99);
        }
    }

    #[cold]
    #[inline(never)]
    fn check_all(&mut self, now: Instant, p99: impl Fn(SocketSetId) -> Option<Duration>) {
        self.next_check = None;
        self.now = now;
        let mut next: Option<Instant> = None;
        let mut not_before = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        for set_id in (0..self.sets.len() as u32).map(SocketSetId) {
            let Some(set) = self.set_mut(set_id) else { continue };
            set.limit = silence_limit(p99(set_id));
            for number in set.connections.clone() {
                self.run_timers(number, now);
                if let Some(at) = self.check_connection(set_id, number, now) {
                    not_before(self.next_timer(number).map_or(at, |timer| timer.min(at)));
                }
            }
            if let Some(set) = self.set_mut(set_id) {
                // A pause that the backend requested may be over.
                set.paused_until = set.paused_until.filter(|until| *until > now);
                set.paused_until.into_iter().for_each(&mut not_before);
            }
            self.keep_warm(set_id, now).into_iter().for_each(&mut not_before);
        }
        if let Some(at) = next {
            self.check_at(at.max(now + SLACK));
        }
    }

    fn run_timers(&mut self, number: SocketId, now: Instant) {
        for which in 0..DIALS {
            let dial = self.get_mut(number).and_then(|connection| connection.dials.get_mut(which));
            let Some(dial) = dial.filter(|dial| dial.stream.next_timer().is_some_and(|at| at <= now)) else { continue };
            let ran = dial.stream.on_timer(now);
            // Epoll reports a broken connection.
            let _ = dial.write(now);
            if let Err(broken) = ran {
                self.dial_ended(number, which, Fault::Broken(broken), now);
            }
        }
    }

    fn next_timer(&self, number: SocketId) -> Option<Instant> {
        self.get(number)?.dials.iter().filter_map(|dial| dial.stream.next_timer()).min()
    }

    fn check_connection(&mut self, set_id: SocketSetId, number: SocketId, now: Instant) -> Option<Instant> {
        match self.due(set_id, number, now)? {
            CheckAction::At(at) => return Some(at),
            CheckAction::Dial => match self.begin_dial(set_id, number, now) {
                Ok(dial) => {
                    let dials = &mut self.get_mut(number)?.dials;
                    dials.both = [Some(dial), None];
                    dials.begun = now;
                    return Some(now + SECOND_DIAL);
                }
                Err(error) => self.end(number, Fault::Socket(error), now),
            },
            CheckAction::Double => {
                let second = self.begin_dial(set_id, number, now);
                let dials = &mut self.get_mut(number)?.dials;
                dials.is_doubled = true;
                // If the second dial fails, the first may still succeed.
                if let (Ok(second), Some(place)) = (second, dials.both.iter_mut().find(|dial| dial.is_none())) {
                    *place = Some(second);
                }
                return Some(dials.begun + self.set(set_id)?.way.rules.connect_timeout);
            }
            CheckAction::AskForSign => {
                self.ask_for_sign(set_id, number, now);
                return Some(now + POLL);
            }
            CheckAction::Renew => {
                // After a failed dial, the back-off sets the time of the next one.
                let _ = self.begin_connection(set_id, None, now);
                return Some(now + POLL);
            }
            CheckAction::Retire => {
                self.get_mut(number)?.is_retired = true;
                return Some(now);
            }
            CheckAction::End(fault) => self.end(number, fault, now),
            CheckAction::Close => drop(self.close(number, now)),
        }
        None
    }

    fn due(&self, set_id: SocketSetId, number: SocketId, now: Instant) -> Option<CheckAction> {
        let action = self.due_by_use(set_id, number, now)?;
        let (set, connection) = (self.set(set_id)?, self.get(number)?);
        match (action, connection.renewal(&set.way.rules)) {
            (CheckAction::At(at), Some(renewal)) if renewal > now => Some(CheckAction::At(at.min(renewal))),
            (CheckAction::At(at), Some(_)) => Some(self.renew(set, connection, at, now)),
            (action, _) => Some(action),
        }
    }

    /// Returns the next action for a connection that must be replaced.
    fn renew(&self, set: &StreamSet, connection: &PooledConnection, at: Instant, now: Instant) -> CheckAction {
        let is_used = connection.heard > 0 || !connection.taken.is_empty();
        let is_kept_warm = set.connections.len() == 1 && set.warm_until().is_some_and(|until| until > now);
        // The next query of a named client dials, as its first one did.
        if set.way.names_clients || !is_used && !is_kept_warm {
            return CheckAction::Retire;
        }
        let is_dialled = |number: &SocketId| self.get(*number).is_some_and(|connection| !connection.is_open());
        let is_full = set.connections.len() >= 2 * usize::from(set.way.rules.max);
        let waits_until = set.backoff.until(now).max(set.paused_until.filter(|until| *until > now));
        match waits_until {
            Some(until) => CheckAction::At(at.min(until)),
            None if is_full || set.connections.iter().any(is_dialled) => CheckAction::At(at.min(now + POLL)),
            None => CheckAction::Renew,
        }
    }

    fn due_by_use(&self, set_id: SocketSetId, number: SocketId, now: Instant) -> Option<CheckAction> {
        let set = self.set(set_id)?;
        let (rules, connection) = (&set.way.rules, self.get(number)?);
        if !connection.is_open() {
            if !connection.dials.are_begun() && !self.has_place(set) {
                return Some(CheckAction::At(now + POLL));
            }
            return Some(connection.dials.due(rules.connect_timeout, now));
        }
        let suspicion = match connection.clock.judge(set.limit, set.way.health_timeout, now) {
            SilenceAction::None => None,
            SilenceAction::NotBefore(at) => Some(at),
            SilenceAction::AskForSign => return Some(CheckAction::AskForSign),
            SilenceAction::GiveUp => return Some(CheckAction::End(Fault::Timeout)),
            SilenceAction::Waits(_) if connection.is_stalled(now) => return Some(CheckAction::End(Fault::Stalled)),
            SilenceAction::Waits(at) => Some(at.min(now + POLL)),
        };
        let not_after = |at: Instant| Some(CheckAction::At(suspicion.map_or(at, |suspicion| suspicion.min(at))));
        if !connection.taken.is_empty() {
            return Some(CheckAction::At(suspicion.unwrap_or(now + rules.idle)));
        }
        let idle_until = connection.idle_since + set.patience.idle(rules.idle);
        if !connection.is_retired && idle_until > now {
            return not_after(idle_until);
        }
        let may_stay = set.connections.len() == 1 && !connection.is_retired && !set.patience.is_shorter(rules.idle);
        match set.warm_until().filter(|until| *until > now && may_stay) {
            Some(until) => not_after(until),
            None => Some(CheckAction::Close),
        }
    }

    /// Returns true if another dial is permitted. Up to half of the connections may be ending or silent.
    fn has_place(&self, set: &StreamSet) -> bool {
        let is_dialled = |number: &&SocketId| self.get(**number).is_some_and(|connection| connection.dials.are_begun());
        set.connections.iter().filter(is_dialled).count() < 2 * usize::from(set.way.rules.max)
    }

    fn ask_for_sign(&mut self, set_id: SocketSetId, number: SocketId, now: Instant) {
        let Some(mut message) = self.set(set_id).map(|set| set.way.sign_of_life.clone()) else { return };
        let Self { places, rng, .. } = self;
        let connection = place_of(number).and_then(|place| places.get_mut(place)?.as_mut());
        let Some(connection) = connection else { return };
        if connection.open_dial().is_some_and(|dial| dial.stream.ping()) {
            connection.clock.asked(None, now);
            self.note_queued(number);
            return self.flush();
        }
        let id = loop {
            let id = rng.random();
            if !connection.taken.contains(&id) && connection.asked.insert(id) {
                break id;
            }
        };
        connection.clock.asked(Some(id), now);
        if self.push(number, id, &mut message, now).is_some() {
            self.flush();
        }
    }

    fn keep_warm(&mut self, set_id: SocketSetId, now: Instant) -> Option<Instant> {
        let set = self.set(set_id)?;
        if !set.connections.is_empty() || set.warm_until()? <= now {
            return None;
        }
        if let Some(until) = set.backoff.until(now) {
            return Some(until);
        }
        let _ = self.begin_connection(set_id, None, now);
        Some(now + POLL)
    }
}

impl Dials {
    fn due(&self, connect_timeout: Duration, now: Instant) -> CheckAction {
        if !self.are_begun() {
            return if now >= self.begun { CheckAction::Dial } else { CheckAction::At(self.begun) };
        }
        let end = self.begun + connect_timeout;
        if now >= end {
            return CheckAction::End(Fault::Timeout);
        }
        let is_answered = self.iter().any(|dial| dial.stream.is_answered());
        let second = self.begun + SECOND_DIAL;
        match self.is_doubled || is_answered {
            true => CheckAction::At(end),
            false if now >= second => CheckAction::Double,
            false => CheckAction::At(second.min(end)),
        }
    }
}

const POLL: Duration = Duration::from_millis(50);

const SLACK: Duration = Duration::from_millis(2);
