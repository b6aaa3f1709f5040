//! What comes on a connection: it is opened, brings messages, ends.

use std::io;
use std::time::Instant;

use super::dial::Fault;
use crate::metrics::ConnectionKind;
use crate::net::backend_connection::{Broken, ConnectionState, Opened};
use crate::net::backend_sockets::BackendSockets;
use crate::net::refusal::is_unreachable;
use crate::policy::query_slots::{SocketId, SocketSetId};
use crate::wire::{first_message, told_keepalive};

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    /// Goes on with a connection that was reported: one read at the most. `messages`, which is empty, gets the frames of the replies that
    /// have come. Returns whether there may be more; then it is not reported again.
    pub fn hear_connection(&mut self, number: SocketId, messages: &mut Vec<u8>, now: Instant) -> bool {
        let mut has_more = false;
        for which in 0..DIALS {
            let Self { connections, .. } = self;
            let mut room = std::mem::take(&mut connections.room);
            let dial = connections.get_mut(number).and_then(|connection| connection.dials.get_mut(which)?.as_mut());
            let advanced = dial.map(|dial| (dial.advance(&mut room), dial.stream.state()));
            connections.room = room;
            match advanced {
                Some((Ok(more), ConnectionState::Open)) => {
                    has_more |= more;
                    self.opened(number, which, now);
                    if let Err(fault) = self.take_messages(number, which, messages, now) {
                        messages.clear();
                        self.end_connection(number, fault, now);
                        return false;
                    }
                }
                Some((Ok(more), _)) => has_more |= more,
                Some((Err(fault), _)) => self.dial_ended(number, which, fault, now),
                None => {}
            }
        }
        has_more
    }

    /// A dial is through: it is the connection, if there is none yet.
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
        if !connection.waiting.is_empty() {
            dial.stream.queue_frames(&std::mem::take(&mut connection.waiting));
            connection.clock.sent(now);
        }
        // If it is broken already, epoll says so.
        let _ = dial.write();
        if let Some(mut other) = connection.dials.get_mut(DIALS - 1 - which).and_then(Option::take) {
            other.say_good_bye();
        }
        let Some((stream, connections)) = self.stream_mut(set_id) else { return };
        stream.was_refused = false;
        let counters = &stream.way.counters;
        counters.open.increment();
        counters.handshakes.record(took);
        counters.made(match opened {
            Opened::Full => ConnectionKind::Full,
            Opened::Resumed => ConnectionKind::Resumed,
            Opened::Early => ConnectionKind::Early,
        });
        connections.check_at(now + stream.limit);
    }

    /// Takes the messages that have come whole.
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
        // Nobody has told of its patience while these come.
        let asks = connection.heard < HEARD_FOR_KEEPALIVE;
        let mut keepalive = None;
        let mut at = 0;
        while let Some((message, length)) = messages.get(at..).and_then(first_message) {
            let id = message.first_chunk().map(|id| u16::from_be_bytes(*id));
            if !id.is_some_and(|id| connection.asked.remove(id)) {
                return Err(Fault::Broken(Broken::Protocol));
            }
            if asks {
                keepalive = told_keepalive(message).or(keepalive);
            }
            connection.heard = connection.heard.saturating_add(1);
            if id == sign {
                // It has said what it was to say, and nobody else wants to know.
                messages.drain(at..at + length);
            } else {
                at += length;
            }
        }
        connection.clock.heard();
        if connection.taken_slots == 0 {
            connection.idle_since = now;
        }
        // RFC 7828 section 3.4: 0 means that it is to be closed when what waits is answered.
        connection.is_retired |= keepalive.is_some_and(|keeps| keeps.is_zero());
        if let Some((stream, connections)) = self.stream_mut(set_id) {
            stream.backoff.succeeded();
            stream.barren = 0;
            if let Some(keeps) = keepalive {
                if !keeps.is_zero() {
                    stream.patience.told(keeps);
                }
                connections.check_at(now);
            }
        }
        Ok(())
    }

    /// A dial or a connection is over. Another dial may still become the connection.
    fn dial_ended(&mut self, number: SocketId, which: usize, fault: Fault, now: Instant) {
        let Some(connection) = self.connections.get_mut(number) else { return };
        let has_other = connection.dials.get(DIALS - 1 - which).is_some_and(Option::is_some);
        if connection.is_open || !has_other {
            return self.end_connection(number, fault, now);
        }
        if let Some(mut dial) = connection.dials.get_mut(which).and_then(Option::take) {
            dial.say_good_bye();
        }
    }

    /// A dial could not even begin.
    pub(super) fn dial_failed(&mut self, set_id: SocketSetId, error: &io::Error, now: Instant) {
        let Self { sets, rng, .. } = self;
        let set = sets.get_mut(set_id.0 as usize).and_then(Option::as_mut);
        let Some(stream) = set.and_then(|set| set.stream.as_deref_mut()) else { return };
        stream.way.counters.made(ConnectionKind::Failed);
        stream.was_refused = is_unreachable(error);
        stream.backoff.failed(stream.way.health_interval, now, rng);
    }
}

/// Dials of one connection.
const DIALS: usize = 2;

/// The first replies of a connection, which are searched for the backend's word on how long it is kept.
const HEARD_FOR_KEEPALIVE: u32 = 4;
