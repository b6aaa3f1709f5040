//! Timed work on connections: second dials, timeouts of dials, pings, idle timeouts, and warm connections.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::dial::Fault;
use super::hear::DIALS;
use super::{PooledConnection, StreamSet};
use crate::net::to_backends::connection::{SilenceAction, silence_limit};
use crate::net::to_backends::sockets::BackendSockets;
use crate::policy::query_slots::{QuerySlot, QuerySlots, SocketId, SocketSetId};

enum CheckAction {
    At(Instant),
    Dial,
    Double,
    AskForSign,
    End(Fault),
    Close,
}

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    /// Checks the connections if it is time. `p99` returns the 99th percentile of a backend's latency.
    pub fn check_connections(&mut self, now: Instant, p99: impl Fn(SocketSetId) -> Option<Duration>) {
        if self.connections.next_check().is_some_and(|at| at <= now) {
            self.check_all(now, p99);
        }
    }

    #[cold]
    #[inline(never)]
    fn check_all(&mut self, now: Instant, p99: impl Fn(SocketSetId) -> Option<Duration>) {
        self.connections.next_check = None;
        self.connections.now = now;
        let mut next: Option<Instant> = None;
        let mut not_before = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        for set in 0..self.sets.len() as u32 {
            let set_id = SocketSetId(set);
            let Some((stream, _)) = self.stream_mut(set_id) else { continue };
            stream.limit = silence_limit(p99(set_id));
            let numbers = stream.connections.clone();
            for number in numbers {
                self.run_timers(number, now);
                if let Some(at) = self.check_connection(set_id, number, now) {
                    not_before(self.next_timer(number).map_or(at, |timer| timer.min(at)));
                }
            }
            if let Some(until) = self.end_pause(set_id, now) {
                not_before(until);
            }
            if let Some(at) = self.keep_warm(set_id, now) {
                not_before(at);
            }
        }
        if let Some(at) = next {
            self.connections.check_at(at.max(now + SLACK));
        }
    }

    fn run_timers(&mut self, number: SocketId, now: Instant) {
        for which in 0..DIALS {
            let dial = |connection: &'_ mut PooledConnection| connection.dials.get_mut(which).and_then(Option::take);
            let Some(mut dial) = self.connections.get_mut(number).and_then(dial) else { continue };
            let is_due = dial.stream.next_timer().is_some_and(|at| at <= now);
            let ran = if is_due { dial.stream.on_timer(now) } else { Ok(()) };
            if is_due {
                // Epoll reports a broken connection.
                let _ = dial.write(now);
            }
            if let Some(connection) = self.connections.get_mut(number) {
                connection.dials[which] = Some(dial);
            }
            if let Err(broken) = ran {
                self.dial_ended(number, which, Fault::Broken(broken), now);
            }
        }
    }

    fn next_timer(&self, number: SocketId) -> Option<Instant> {
        let dials = self.connections.get(number)?.dials.iter().flatten();
        dials.filter_map(|dial| dial.stream.next_timer()).min()
    }

    /// Ends the pause that a backend requested. Returns its end if it is not over.
    fn end_pause(&mut self, set_id: SocketSetId, now: Instant) -> Option<Instant> {
        let (stream, _) = self.stream_mut(set_id)?;
        stream.paused_until = stream.paused_until.filter(|until| *until > now);
        stream.paused_until
    }

    fn check_connection(&mut self, set_id: SocketSetId, number: SocketId, now: Instant) -> Option<Instant> {
        match self.due(set_id, number, now)? {
            CheckAction::At(at) => return Some(at),
            CheckAction::Dial => match self.begin_dial(set_id, number, now) {
                Ok(dial) => {
                    let connection = self.connections.get_mut(number)?;
                    connection.dials = [Some(dial), None];
                    connection.begun = now;
                    return Some(now + SECOND_DIAL);
                }
                Err(error) => self.end_connection(number, Fault::Socket(error), now),
            },
            CheckAction::Double => {
                let second = self.begin_dial(set_id, number, now);
                let connection = self.connections.get_mut(number)?;
                connection.is_doubled = true;
                // If the second dial fails, the first may still succeed.
                if let (Ok(second), Some(place)) = (second, connection.dials.iter_mut().find(|dial| dial.is_none())) {
                    *place = Some(second);
                }
                return Some(connection.begun + self.stream(set_id)?.way.rules.connect_timeout);
            }
            CheckAction::AskForSign => {
                self.ask_for_sign(set_id, number, now);
                return Some(now + POLL);
            }
            CheckAction::End(fault) => self.end_connection(number, fault, now),
            CheckAction::Close => {
                let mut taken = Vec::new();
                self.close_connection(number, &mut taken, now);
                if let Some((stream, _)) = self.stream_mut(set_id) {
                    stream.connections.retain(|other| *other != number);
                }
            }
        }
        None
    }

    fn due(&self, set_id: SocketSetId, number: SocketId, now: Instant) -> Option<CheckAction> {
        let stream = self.stream(set_id)?;
        let (rules, connection) = (&stream.way.rules, self.connections.get(number)?);
        if !connection.is_open {
            if !connection.is_dialled() && !self.has_place(stream) {
                return Some(CheckAction::At(now + POLL));
            }
            return Some(connection.dial_due(rules.connect_timeout, now));
        }
        let suspicion = match connection.clock.judge(stream.limit, stream.way.health_timeout, now) {
            SilenceAction::None => None,
            SilenceAction::NotBefore(at) => Some(at),
            SilenceAction::AskForSign => return Some(CheckAction::AskForSign),
            SilenceAction::GiveUp => return Some(CheckAction::End(Fault::Timeout)),
            SilenceAction::Waits(_) if connection.is_stalled(now) => return Some(CheckAction::End(Fault::Stalled)),
            SilenceAction::Waits(at) => Some(at.min(now + POLL)),
        };
        if connection.taken_slots > 0 {
            return Some(CheckAction::At(suspicion.unwrap_or(now + rules.idle)));
        }
        let idle_until = connection.idle_since + stream.patience.idle(rules.idle);
        if !connection.is_retired && idle_until > now {
            return Some(CheckAction::At(suspicion.map_or(idle_until, |at| at.min(idle_until))));
        }
        let is_only = stream.connections.len() == 1;
        let is_kept_warm = rules.warm && !stream.way.names_clients;
        let warm_until = stream.last_query.filter(|_| is_kept_warm).map(|last| last + WARM);
        match warm_until.filter(|until| *until > now) {
            Some(until) if is_only && !connection.is_retired && !stream.patience.is_shorter(rules.idle) => {
                Some(CheckAction::At(suspicion.map_or(until, |at| at.min(until))))
            }
            Some(_) | None => Some(CheckAction::Close),
        }
    }

    /// Returns true if another dial is permitted. Up to half of the connections may be ending or silent.
    fn has_place(&self, stream: &StreamSet) -> bool {
        let is_dialled = |number: &&SocketId| self.connections.get(**number).is_some_and(PooledConnection::is_dialled);
        stream.connections.iter().filter(is_dialled).count() < 2 * usize::from(stream.way.rules.max)
    }

    fn ask_for_sign(&mut self, set_id: SocketSetId, number: SocketId, now: Instant) {
        let Some(mut message) = self.stream(set_id).map(|stream| stream.way.sign_of_life.clone()) else { return };
        let Self { connections, rng, slots, .. } = self;
        let Some(connection) = connections.get_mut(number) else { return };
        if connection.open_dial().is_some_and(|dial| dial.stream.ping()) {
            connection.clock.asked(None, now);
            connections.dirty.push(number);
            return self.flush_connections();
        }
        let id = connection.free_id(number, slots, rng);
        connection.clock.asked(Some(id), now);
        if self.push(number, id, &mut message, now).is_some() {
            self.flush_connections();
        }
    }

    fn keep_warm(&mut self, set_id: SocketSetId, now: Instant) -> Option<Instant> {
        let stream = self.stream(set_id)?;
        let is_kept_warm = stream.way.rules.warm && !stream.way.names_clients;
        let warm_until = stream.last_query.filter(|_| is_kept_warm)? + WARM;
        if !stream.connections.is_empty() || warm_until <= now {
            return None;
        }
        if let Some(until) = stream.backoff.until(now) {
            return Some(until);
        }
        let _ = self.begin_connection(set_id, None, now);
        Some(now + POLL)
    }
}

impl PooledConnection {
    /// Takes an ID that is not in use on the connection, without a slot.
    fn free_id<T: Copy, L: Copy>(&mut self, number: SocketId, slots: &QuerySlots<T, L>, rng: &mut StdRng) -> u16 {
        loop {
            let id = rng.random();
            if QuerySlot::new(number, id).is_some_and(|slot| !slots.has(slot)) && self.asked.insert(id) {
                return id;
            }
        }
    }

    fn is_dialled(&self) -> bool {
        self.dials.iter().any(Option::is_some)
    }

    fn dial_due(&self, connect_timeout: Duration, now: Instant) -> CheckAction {
        if !self.is_dialled() {
            return if now >= self.begun { CheckAction::Dial } else { CheckAction::At(self.begun) };
        }
        let end = self.begun + connect_timeout;
        if now >= end {
            return CheckAction::End(Fault::Timeout);
        }
        let is_answered = self.dials.iter().flatten().any(|dial| dial.stream.is_answered());
        let second = self.begun + SECOND_DIAL;
        match self.is_doubled || is_answered {
            true => CheckAction::At(end),
            false if now >= second => CheckAction::Double,
            false => CheckAction::At(second.min(end)),
        }
    }

    fn is_stalled(&self, now: Instant) -> bool {
        let is_silent = self.clock.lasts(now).is_some_and(|lasts| lasts >= UNACKNOWLEDGED);
        let unacknowledged = || self.dials.iter().flatten().find_map(|dial| dial.unacknowledged_for(now));
        is_silent && unacknowledged().is_some_and(|since| since >= UNACKNOWLEDGED)
    }
}

/// The kernel repeats a lost segment only after a second.
pub(super) const SECOND_DIAL: Duration = Duration::from_millis(250);

const UNACKNOWLEDGED: Duration = Duration::from_millis(500);

/// A backend that had no queries for this time need not stay warm.
const WARM: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(50);

const SLACK: Duration = Duration::from_millis(2);
