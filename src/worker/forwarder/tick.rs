//! Ticks of the event loop: the worker wakes, reads the backends' replies, lets the engine handle due races,
//! and sends everything that was queued.

use std::net::SocketAddr;
use std::time::Instant;

use dns::first_message;
use engine::query_slots::SocketId;
use engine::{Outstanding, RaceRef};
use metrics::{DropReason, FetchResult};
use net::sys::batch::RecvBatch;
use net::to_backends::sockets::{ConnectionEnd, EndedConnection, Event, RecvError, UnsentMessage};

use super::Forwarder;
use super::fetches::WholeReply;
use super::outside::not_sent;

impl Forwarder {
    /// Handles the events of backend sockets: replies, ICMP errors, the alarm.
    pub fn hear_backends(&mut self, events: &mut Vec<Event>, batch: &mut RecvBatch, now: Instant) -> bool {
        let has_more = self.outside.backend_sockets.ready(events);
        events.append(&mut self.unread);
        let mut is_time = false;
        for event in events.drain(..) {
            match event {
                Event::Alarm => is_time = true,
                Event::Socket(socket) => self.drain_socket(socket, batch, now),
                Event::Connection(connection) => self.drain_connection(connection, now),
            }
        }
        // Last, because otherwise a hedge would be sent for an attempt whose reply has already arrived. The
        // alarm may be late while replies are frequent.
        if is_time || self.engine.is_race_due(now) {
            self.tick(now).on_time();
        }
        self.end_tick(now);
        has_more || !self.unread.is_empty()
    }

    /// Reads a backend socket until it is empty or its share of the tick is used. The poller does not report
    /// the socket again, so an unfinished one is noted for the next tick.
    fn drain_socket(&mut self, socket: SocketId, batch: &mut RecvBatch, now: Instant) {
        for _ in 0..BATCHES_A_TICK {
            match self.outside.backend_sockets.udp.recv(socket, batch) {
                Ok(has_more) => {
                    batch.each_chunk(|chunk| self.take_replies(socket, chunk, now));
                    if !has_more {
                        return;
                    }
                }
                Err(RecvError::Unreachable) => self.on_unreachable(socket, now),
                Err(RecvError::Other) => {}
            }
        }
        self.unread.push(Event::Socket(socket));
    }

    fn on_unreachable(&mut self, socket: SocketId, now: Instant) {
        let mut struck = Vec::new();
        if let Some(sockets) = self.outside.backend_sockets.udp.report_struck(socket, &mut struck) {
            self.tick(now).on_unreachable(sockets, &struck);
        }
    }

    /// Reads a connection until it is empty or its share of the tick is used.
    #[cold]
    #[inline(never)]
    fn drain_connection(&mut self, connection: SocketId, now: Instant) {
        let mut messages = std::mem::take(&mut self.messages);
        let mut has_more = true;
        for _ in 0..READS_A_TICK {
            messages.clear();
            has_more = self.outside.backend_sockets.connections.hear(connection, &mut messages, now);
            let mut rest = messages.as_slice();
            while let Some((message, end)) = first_message(rest) {
                self.tick(now).on_reply(connection, message);
                rest = rest.get(end..).unwrap_or_default();
            }
            if !has_more {
                break;
            }
        }
        self.messages = messages;
        if has_more {
            self.unread.push(Event::Connection(connection));
        }
    }

    fn take_replies(&mut self, socket: SocketId, batch: &RecvBatch, now: Instant) {
        for index in 0..batch.len() {
            match batch.datagram(index) {
                Some(datagram) if !datagram.is_truncated => {
                    self.tick(now).on_reply(socket, datagram.bytes);
                }
                _ => self.outside.counters.dropped(DropReason::Malformed),
            }
        }
    }

    /// Handles a datagram that bypassed the kernel, and returns true if a backend sent it to a port of this
    /// forwarder. The caller [ends](Self::end_tick) the tick after the whole batch.
    pub fn take_reply(&mut self, from: SocketAddr, to: SocketAddr, message: &[u8], now: Instant) -> bool {
        let Some(socket) = self.outside.backend_sockets.udp.socket_between(to, from) else { return false };
        self.tick(now).on_reply(socket, message);
        true
    }

    pub(super) fn on_fetch_over(&mut self, race: RaceRef, result: Result<WholeReply, FetchResult>) {
        let now = Instant::now();
        match &result {
            Ok(WholeReply { message, is_ad_trusted }) => {
                let Ok(reply) = dns::read_reply(message) else { return };
                let reply = if *is_ad_trusted { reply } else { reply.without_authentic() };
                self.tick(now).on_fetched(race, &reply);
            }
            Err(failure) => self.tick(now).on_fetch_failed(race, *failure),
        }
        self.end_tick(now);
    }

    pub(super) fn on_reply_by_tcp(&mut self, attempt: Outstanding, reply: Option<Vec<u8>>) {
        let now = Instant::now();
        let reply = reply.as_ref().and_then(|reply| dns::read_reply(reply).ok());
        self.tick(now).on_reply_by_tcp(attempt, reply.as_ref());
        self.end_tick(now);
    }

    /// Refreshes the state of all backends.
    pub fn refresh_all(&mut self, now: Instant) {
        self.tick(now).refresh_pools();
        self.end_tick(now);
    }

    /// Ends a tick: sends everything that was queued, and sets the alarm for the next timer.
    pub fn end_tick(&mut self, now: Instant) {
        let Self { engine, outside, .. } = self;
        outside.backend_sockets.connections.check(now, |sockets| engine.p99(sockets));
        loop {
            self.outside.backend_sockets.flush(&mut self.outside.refused);
            if let Some(ended) = self.outside.backend_sockets.connections.pop_ended(now) {
                self.on_ended(ended, now);
            } else if let Some(socket) = self.outside.backend_sockets.pop_struck() {
                self.on_unreachable(socket, now);
            } else if let Some(UnsentMessage { slot, socket_set, why }) = self.outside.refused.pop() {
                self.tick(now).on_unsent(socket_set, slot, not_sent(why));
            } else if !self.take_follow_up(now) {
                break;
            }
        }
        self.tick(now).end();
        let Self { engine, outside, .. } = self;
        outside.way.flush(&outside.counters, now);
        outside.backend_sockets.udp.bypass().flush();
        outside.taps.end_turn();
        outside.backend_sockets.udp.tidy(now);
        let next = [engine.next_due(), outside.backend_sockets.next_tidy(), outside.way.paced.next_due()];
        if let Some(next) = next.into_iter().flatten().min() {
            outside.backend_sockets.poller.wake_at(next, now);
        }
        if self.is_idle() {
            self.idle.notify_waiters();
        }
    }

    #[cold]
    #[inline(never)]
    fn on_ended(&mut self, ended: EndedConnection, now: Instant) {
        let EndedConnection { socket_set, slots, how } = ended;
        let address = self.outside.backend_sockets.address(socket_set).map(tracing::field::display);
        let queries = slots.len();
        match how {
            ConnectionEnd::Lost(cause, problem) => {
                tracing::debug!(address, cause = cause.label(), problem, queries, "connection to backend lost");
                self.tick(now).on_connection_lost(socket_set, &slots);
            }
            ConnectionEnd::Rejected(problem) => {
                tracing::debug!(address, problem, queries, "the backend has sent an error instead of a DNS reply");
                self.tick(now).on_rejected(socket_set, &slots);
            }
            ConnectionEnd::Failed { problem, is_refused } => {
                tracing::debug!(address, problem, queries, "no connection to backend");
                let backend = self.outside.backend_of(socket_set).filter(|_| is_refused);
                if let Some(backend) = backend.filter(|backend| backend.note_connection_problem(Some(&problem))) {
                    tracing::warn!(backend = backend.name, problem, "cannot connect");
                }
                self.tick(now).on_connection_failed(socket_set, &slots, is_refused);
            }
        }
    }
}

/// Batches read from one backend socket in a tick: some 500 replies, or half a millisecond.
const BATCHES_A_TICK: usize = 8;

/// Reads from one connection in a tick: at most 128 KiB.
const READS_A_TICK: usize = 8;
