//! Input of connections: opening, messages and the end.

use std::io;
use std::time::{Duration, Instant};

use super::dial::Fault;
use super::{ConnectionEnd, EndedConnection};
use crate::metrics::{ConnectionKind, LostCause};
use crate::net::refusal::is_unreachable;
use crate::net::to_backends::connection::{BackendHandshake, ConnectionEvents, ConnectionFailure, ConnectionState};
use crate::net::to_backends::sockets::BackendSockets;
use crate::policy::query_slots::{QuerySlot, SlotState, SocketId, SocketSetId};
use crate::wire::{first_message, stated_keepalive};

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    /// Reads once from a reported connection. `messages`, which must be empty, gets the frames of the
    /// replies. Returns true if there may be more; the connection is then not reported again.
    pub fn hear_connection(&mut self, number: SocketId, messages: &mut Vec<u8>, now: Instant) -> bool {
        let mut has_more = false;
        for which in 0..DIALS {
            let Self { connections, .. } = self;
            connections.now = now;
            let mut room = std::mem::take(&mut connections.room);
            let dial = connections.get_mut(number).and_then(|connection| connection.dials.get_mut(which)?.as_mut());
            let is_by_udp = dial.as_ref().is_some_and(|dial| dial.is_by_udp());
            let advanced = dial.map(|dial| (dial.advance(&mut room, now), dial.state(), dial.stream.next_timer()));
            connections.room = room;
            if is_by_udp {
                connections.note_queued(number);
            }
            if let Some((Ok(_), _, Some(at))) = advanced {
                connections.check_at(at);
            }
            match advanced {
                Some((Ok(more), ConnectionState::Open, _)) => {
                    has_more |= more;
                    self.opened(number, which, now);
                    if let Err(fault) = self.take_messages(number, which, messages, now) {
                        messages.clear();
                        self.end_connection(number, fault, now);
                        return false;
                    }
                    self.take_news(number, which, now);
                }
                Some((Ok(more), ..)) => has_more |= more,
                Some((Err(fault), ..)) => {
                    // A backend that ends the connection may also report overload.
                    self.take_news(number, which, now);
                    self.dial_ended(number, which, fault, now);
                }
                None => {}
            }
        }
        has_more
    }

    fn opened(&mut self, number: SocketId, which: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(number).filter(|connection| !connection.is_open) else {
            return;
        };
        let set_id = connection.set_id;
        let Some(dial) = connection.dials.get_mut(which).and_then(Option::as_mut) else { return };
        connection.is_open = true;
        connection.opened = Some(now);
        connection.idle_since = now;
        let (opened, took) = (dial.stream.opened(), now.saturating_duration_since(dial.began));
        let idle_timeout = dial.stream.idle_timeout();
        if !connection.waiting.is_empty() {
            dial.stream.queue_frames(&std::mem::take(&mut connection.waiting));
            connection.clock.sent(now);
        }
        // Epoll reports a broken connection.
        let _ = dial.write(now);
        if let Some(mut other) = connection.dials.get_mut(DIALS - 1 - which).and_then(Option::take) {
            other.say_good_bye(now);
        }
        let Some((stream, connections)) = self.stream_mut(set_id) else { return };
        if let Some(keeps) = idle_timeout {
            stream.patience.set_stated(keeps);
        }
        stream.was_refused = false;
        let counters = &stream.way.counters;
        counters.open.increment();
        counters.handshakes.record(took);
        counters.made(match opened {
            BackendHandshake::Full => ConnectionKind::Full,
            BackendHandshake::Resumed => ConnectionKind::Resumed,
            BackendHandshake::Early => ConnectionKind::Early,
        });
        connections.check_at(now + stream.limit);
        self.dial_next(set_id, now);
    }

    fn take_messages(
        &mut self,
        number: SocketId,
        which: usize,
        messages: &mut Vec<u8>,
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(connection) = self.connections.get_mut(number) else { return Ok(()) };
        let Some(dial) = connection.dials.get_mut(which).and_then(Option::as_mut) else { return Ok(()) };
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
        if connection.taken_slots == 0 {
            connection.idle_since = now;
        }
        // RFC 7828 section 3.4: 0 requires closing after the pending replies.
        connection.is_retired |= keepalive.is_some_and(|keeps| keeps.is_zero());
        if let Some((stream, connections)) = self.stream_mut(set_id) {
            stream.backoff.succeeded();
            stream.barren = 0;
            if let Some(keeps) = keepalive {
                if !keeps.is_zero() {
                    stream.patience.set_stated(keeps);
                }
                connections.check_at(now);
            }
        }
        Ok(())
    }

    fn take_news(&mut self, number: SocketId, which: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(number) else { return };
        let Some(dial) = connection.dials.get_mut(which).and_then(Option::as_mut) else { return };
        if dial.stream.is_ending() && !connection.is_retired {
            connection.is_retired = true;
            self.connections.check_at(now);
        }
        let Some(connection) = self.connections.get_mut(number) else { return };
        let news = connection.open_dial().and_then(|dial| dial.stream.take_news());
        if let Some(news) = news {
            self.take_all_news(number, news, now);
        }
    }

    #[cold]
    fn take_all_news(&mut self, number: SocketId, news: ConnectionEvents, now: Instant) {
        let ConnectionEvents { failed, lost, pause, has_sign } = news;
        let Some(connection) = self.connections.get_mut(number) else { return };
        let set_id = connection.set_id;
        let is_ending = connection.open_dial().is_some_and(|dial| dial.stream.is_ending());
        if has_sign || !failed.is_empty() {
            connection.clock.heard();
            connection.heard = connection.heard.saturating_add(1);
        }
        for id in failed.iter().map(|failed| failed.id).chain(lost.iter().copied()) {
            connection.asked.remove(id);
        }
        let Some((stream, connections)) = self.stream_mut(set_id) else { return };
        if has_sign || !failed.is_empty() {
            stream.backoff.succeeded();
            stream.barren = 0;
        }
        if let Some(pause) = pause {
            let until = now + pause.min(MAX_PAUSE);
            stream.paused_until = Some(stream.paused_until.map_or(until, |paused| paused.max(until)));
            connections.check_at(until);
        }
        if is_ending && !lost.is_empty() {
            stream.way.counters.lost(LostCause::Goaway);
        }
        if let Some(problem) = failed.first().map(|failed| failed.problem.clone()) {
            let taken = self.take_slots(number, failed.iter().map(|failed| failed.id), now);
            self.connections.ended.push(EndedConnection {
                socket_set: set_id,
                taken,
                how: ConnectionEnd::Rejected(problem),
            });
        }
        if !lost.is_empty() {
            let cause = if is_ending { LostCause::Goaway } else { LostCause::Reset };
            let taken = self.take_slots(number, lost.iter().copied(), now);
            self.connections.ended.push(EndedConnection {
                socket_set: set_id,
                taken,
                how: ConnectionEnd::Lost(cause, None),
            });
        }
    }

    fn take_slots(&mut self, number: SocketId, ids: impl Iterator<Item = u16>, now: Instant) -> Vec<SlotState<T, L>> {
        let mut taken = Vec::new();
        for slot in ids.filter_map(|id| QuerySlot::new(number, id)) {
            if let Some(state) = self.slots.remove(slot) {
                taken.push(state);
                self.free_on_connection(slot, Some(now));
            }
        }
        taken
    }

    /// Handles the end of a dial or a connection. Another dial may still become the connection.
    pub(super) fn dial_ended(&mut self, number: SocketId, which: usize, fault: Fault, now: Instant) {
        let Some(connection) = self.connections.get_mut(number) else { return };
        let has_other = connection.dials.get(DIALS - 1 - which).is_some_and(Option::is_some);
        if connection.is_open || !has_other {
            return self.end_connection(number, fault, now);
        }
        if let Some(mut dial) = connection.dials.get_mut(which).and_then(Option::take) {
            dial.say_good_bye(now);
        }
    }

    pub(super) fn dial_failed(&mut self, set_id: SocketSetId, error: &io::Error, now: Instant) {
        let Self { sets, rng, .. } = self;
        let set = sets.get_mut(set_id.0 as usize).and_then(Option::as_mut);
        let Some(stream) = set.and_then(|set| set.stream.as_deref_mut()) else { return };
        stream.way.counters.made(ConnectionKind::Failed);
        stream.was_refused = is_unreachable(error);
        stream.backoff.failed(stream.way.health_interval, now, rng);
    }
}

pub(super) const DIALS: usize = 2;

/// Maximum pause that a backend may request: it may have recovered by then.
const MAX_PAUSE: Duration = Duration::from_secs(10);

const HEARD_FOR_KEEPALIVE: u32 = 4;
