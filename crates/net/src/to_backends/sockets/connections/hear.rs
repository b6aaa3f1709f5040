//! Input of connections: opening, messages and the end.

use std::io;
use std::time::{Duration, Instant};

use dns::{first_message, stated_keepalive};
use engine::query_slots::{QuerySlot, SocketId, SocketSetId};
use metrics::{ConnectionKind, LostCause};
use rand::RngExt;

use super::dial::Fault;
use super::{ConnectionEnd, ConnectionPool, DIALS, EndedConnection, PooledConnection, place_of};
use crate::refusal::is_unreachable;
use crate::to_backends::connection::{BackendHandshake, ConnectionEvents, ConnectionFailure, ConnectionState};

impl ConnectionPool {
    /// Reads once from a reported connection. `messages`, which must be empty, gets the frames of the
    /// replies. Returns true if there may be more; the connection is then not reported again.
    pub fn hear(&mut self, number: SocketId, messages: &mut Vec<u8>, now: Instant) -> bool {
        let mut has_more = false;
        self.now = now;
        for which in 0..DIALS {
            let mut room = std::mem::take(&mut self.room);
            let dial = self.get_mut(number).and_then(|connection| connection.dials.get_mut(which));
            let advanced = dial.map(|dial| {
                let advanced = dial.advance(&mut room, now);
                (advanced, dial.is_by_udp(), dial.state(), dial.stream.next_timer())
            });
            self.room = room;
            let Some((advanced, is_by_udp, state, timer)) = advanced else { continue };
            if is_by_udp {
                self.note_queued(number);
            }
            let more = match advanced {
                Ok(more) => more,
                Err(fault) => {
                    // A backend that ends the connection may also report overload.
                    self.take_news(number, which, now);
                    self.dial_ended(number, which, fault, now);
                    continue;
                }
            };
            has_more |= more;
            if let Some(at) = timer {
                self.check_at(at);
            }
            if state == ConnectionState::Open {
                self.note_open(number, which, now);
                if let Err(fault) = self.take_messages(number, which, messages, now) {
                    messages.clear();
                    self.end(number, fault, now);
                    return false;
                }
                self.take_news(number, which, now);
            }
        }
        has_more
    }

    fn note_open(&mut self, number: SocketId, which: usize, now: Instant) {
        let lifetime = self.rng.random_range(LIFETIME);
        let Some(connection) = self.get_mut(number).filter(|connection| !connection.is_open()) else { return };
        let set_id = connection.set_id;
        connection.lifetime = lifetime;
        let waiting = std::mem::take(&mut connection.dials.waiting);
        let Some(dial) = connection.dials.get_mut(which) else { return };
        connection.opened = Some(now);
        connection.idle_since = now;
        let (opened, took) = (dial.stream.opened(), now.saturating_duration_since(dial.began));
        let idle_timeout = dial.stream.idle_timeout();
        if !waiting.is_empty() {
            dial.stream.queue_frames(&waiting);
            connection.clock.sent(now);
        }
        // Epoll reports a broken connection.
        let _ = dial.write(now);
        if let Some(mut other) = connection.dials.take(DIALS - 1 - which) {
            other.say_good_bye(now);
        }
        let Some(set) = self.set_mut(set_id) else { return };
        if let Some(keeps) = idle_timeout {
            set.patience.set_stated(keeps);
        }
        set.was_refused = false;
        let counters = &set.way.counters;
        counters.open.increment();
        counters.handshakes.record(took);
        counters.made(match opened {
            BackendHandshake::Full => ConnectionKind::Full,
            BackendHandshake::Resumed => ConnectionKind::Resumed,
            BackendHandshake::Early => ConnectionKind::Early,
        });
        let suspicious_at = now + set.limit;
        self.check_at(suspicious_at);
        self.retire_oldest(set_id, now);
        self.dial_next(set_id, now);
    }

    /// Retires the connection in place of which another one has been opened.
    fn retire_oldest(&mut self, set_id: SocketSetId, now: Instant) {
        let Some(set) = self.set(set_id).filter(|set| set.way.rules.max_age.is_some()) else { return };
        let rules = &set.way.rules;
        let renewals = set.connections.iter().filter_map(|number| Some((self.get(*number)?.renewal(rules)?, *number)));
        let Some((renewal, oldest)) = renewals.min_by_key(|(renewal, _)| *renewal) else { return };
        if renewal <= now
            && let Some(connection) = self.get_mut(oldest)
        {
            connection.is_retired = true;
            self.check_at(now);
        } else {
            self.check_at(renewal);
        }
    }

    /// Dials the next connection for waiting queries.
    fn dial_next(&mut self, set_id: SocketSetId, now: Instant) {
        let Some(set) = self.set(set_id) else { return };
        let is_next = |number: &&SocketId| {
            self.get(**number).is_some_and(|connection| !connection.is_open() && !connection.dials.are_begun())
        };
        let next = set.connections.iter().find(is_next).copied();
        if let Some(connection) = next.and_then(|number| self.get_mut(number)) {
            connection.dials.begun = now;
            self.check_at(now);
        }
    }

    fn take_messages(
        &mut self,
        number: SocketId,
        which: usize,
        messages: &mut Vec<u8>,
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(connection) = self.get_mut(number) else { return Ok(()) };
        let Some(dial) = connection.dials.get_mut(which) else { return Ok(()) };
        dial.stream.take_messages(messages);
        if messages.is_empty() {
            return Ok(());
        }
        let set_id = connection.set_id;
        let sign = connection.clock.sign();
        let asks = connection.heard < HEARD_FOR_KEEPALIVE;
        let mut keepalive = None;
        let mut at = 0;
        while let Some((message, length)) = messages.get(at..).and_then(first_message) {
            let id = message.first_chunk().map(|id| u16::from_be_bytes(*id));
            if !id.is_some_and(|id| connection.asked.remove(id)) {
                return Err(Fault::Broken(ConnectionFailure::Protocol));
            }
            if asks {
                keepalive = stated_keepalive(message).or(keepalive);
            }
            connection.heard = connection.heard.saturating_add(1);
            if id == sign {
                messages.drain(at..at + length);
            } else {
                at += length;
            }
        }
        connection.clock.heard();
        if connection.taken.is_empty() {
            connection.idle_since = now;
        }
        // RFC 7828 section 3.4: 0 requires closing after the pending replies.
        connection.is_retired |= keepalive.is_some_and(|keeps| keeps.is_zero());
        if let Some(set) = self.set_mut(set_id) {
            set.note_useful();
            if let Some(keeps) = keepalive {
                if !keeps.is_zero() {
                    set.patience.set_stated(keeps);
                }
                self.check_at(now);
            }
        }
        Ok(())
    }

    fn take_news(&mut self, number: SocketId, which: usize, now: Instant) {
        let Some(connection) = self.get_mut(number) else { return };
        let Some(dial) = connection.dials.get_mut(which) else { return };
        let is_retired_now = dial.stream.is_ending() && !connection.is_retired;
        connection.is_retired |= is_retired_now;
        let news = connection.open_dial().and_then(|dial| dial.stream.take_news());
        if is_retired_now {
            self.check_at(now);
        }
        if let Some(news) = news {
            self.take_all_news(number, news, now);
        }
    }

    #[cold]
    fn take_all_news(&mut self, number: SocketId, news: ConnectionEvents, now: Instant) {
        let ConnectionEvents { failed, lost, pause, has_sign } = news;
        let Some(connection) = self.get_mut(number) else { return };
        let set_id = connection.set_id;
        let is_ending = connection.open_dial().is_some_and(|dial| dial.stream.is_ending());
        let is_useful = has_sign || !failed.is_empty();
        if is_useful {
            connection.clock.heard();
            connection.heard = connection.heard.saturating_add(1);
        }
        for id in failed.iter().map(|failed| failed.id).chain(lost.iter().copied()) {
            connection.asked.remove(id);
        }
        let Some(set) = self.set_mut(set_id) else { return };
        if is_useful {
            set.note_useful();
        }
        if is_ending && !lost.is_empty() {
            set.way.counters.lost(LostCause::Goaway);
        }
        if let Some(pause) = pause {
            let until = now + pause.min(MAX_PAUSE);
            set.paused_until = set.paused_until.max(Some(until));
            self.check_at(until);
        }
        if let Some(problem) = failed.first().map(|failed| failed.problem.clone()) {
            let ids = failed.iter().map(|failed| failed.id);
            self.report_ended(set_id, number, ids, ConnectionEnd::Rejected(problem));
        }
        if !lost.is_empty() {
            let cause = if is_ending { LostCause::Goaway } else { LostCause::Reset };
            self.report_ended(set_id, number, lost.into_iter(), ConnectionEnd::Lost(cause, None));
        }
    }

    fn report_ended(
        &mut self,
        socket_set: SocketSetId,
        number: SocketId,
        ids: impl Iterator<Item = u16>,
        how: ConnectionEnd,
    ) {
        let slots = ids.filter_map(|id| QuerySlot::new(number, id)).collect();
        self.ended.push(EndedConnection { socket_set, slots, how });
    }

    /// Takes a reported end of queries, which no longer wait.
    pub fn pop_ended(&mut self, now: Instant) -> Option<EndedConnection> {
        let ended = self.ended.pop()?;
        ended.slots.iter().for_each(|slot| self.free_slot(*slot, Some(now)));
        Some(ended)
    }

    /// Handles the end of a dial or a connection. Another dial may still become the connection.
    pub(super) fn dial_ended(&mut self, number: SocketId, which: usize, fault: Fault, now: Instant) {
        let Some(connection) = self.get_mut(number) else { return };
        let has_other = connection.dials.get_mut(DIALS - 1 - which).is_some();
        if connection.is_open() || !has_other {
            return self.end(number, fault, now);
        }
        if let Some(mut dial) = connection.dials.take(which) {
            dial.say_good_bye(now);
        }
    }

    pub(super) fn dial_failed(&mut self, set_id: SocketSetId, error: &io::Error, now: Instant) {
        let Self { sets, rng, .. } = self;
        let Some(set) = sets.get_mut(set_id.0 as usize).and_then(Option::as_mut) else { return };
        set.way.counters.made(ConnectionKind::Failed);
        set.was_refused = is_unreachable(error);
        set.backoff.failed(set.way.health_interval, now, rng);
    }

    /// Closes all connections to a backend, and lists the slots that were taken.
    #[cold]
    #[inline(never)]
    pub(crate) fn close_all(&mut self, set_id: SocketSetId, lost: &mut Vec<QuerySlot>) {
        let numbers = self.set(set_id).map(|set| set.connections.clone()).unwrap_or_default();
        let now = self.now;
        for number in numbers {
            let taken = self.close(number, now).map(|connection| connection.taken).unwrap_or_default();
            lost.extend(taken.into_iter().filter_map(|id| QuerySlot::new(number, id)));
        }
    }

    pub(super) fn close(&mut self, number: SocketId, now: Instant) -> Option<Box<PooledConnection>> {
        let mut connection = self.places.get_mut(place_of(number)?)?.take()?;
        self.closed.push(number);
        connection.dials.iter_mut().for_each(|dial| dial.say_good_bye(now));
        let is_open = connection.is_open();
        if let Some(set) = self.set_mut(connection.set_id) {
            set.connections.retain(|other| *other != number);
            if is_open {
                set.way.counters.open.subtract(1);
            }
        }
        Some(connection)
    }

    pub(super) fn end(&mut self, number: SocketId, fault: Fault, now: Instant) {
        let Some(connection) = self.close(number, now) else { return };
        let Self { sets, rng, .. } = self;
        let Some(set) = sets.get_mut(connection.set_id.0 as usize).and_then(Option::as_mut) else { return };
        let counters = &set.way.counters;
        let how = if connection.is_open() {
            let (cause, problem) = fault.lost();
            if !connection.taken.is_empty() {
                counters.lost(cause);
            }
            if connection.asked.is_empty() && matches!(cause, LostCause::Closed | LostCause::Reset) {
                set.patience.closed_after(now.saturating_duration_since(connection.idle_since));
            }
            // Repeated useless connections count as failed dials. A single one is dialled again at once,
            // because its lost queries may have no other backend.
            set.barren = if connection.heard == 0 { set.barren.saturating_add(1) } else { 0 };
            if set.barren > FREE_BARREN {
                set.backoff.failed(set.way.health_interval, now, rng);
            }
            ConnectionEnd::Lost(cause, problem)
        } else {
            counters.made(ConnectionKind::Failed);
            set.backoff.failed(set.way.health_interval, now, rng);
            let (problem, is_refused) = fault.failed();
            set.was_refused = is_refused;
            ConnectionEnd::Failed { problem, is_refused }
        };
        self.check_at(now);
        let is_reported = match &how {
            ConnectionEnd::Lost(_, problem) => !connection.taken.is_empty() || problem.is_some(),
            ConnectionEnd::Failed { .. } | ConnectionEnd::Rejected(_) => true,
        };
        if is_reported {
            self.report_ended(connection.set_id, number, connection.taken.iter().copied(), how);
        }
    }
}

/// The rest of `max_age` is for the dial.
const LIFETIME: std::ops::Range<f32> = 0.8..0.9;

/// Maximum pause that a backend may request: it may have recovered by then.
const MAX_PAUSE: Duration = Duration::from_secs(10);

const HEARD_FOR_KEEPALIVE: u32 = 4;

/// Connections in a row that may end without any input before the back-off starts.
const FREE_BARREN: u8 = 2;
