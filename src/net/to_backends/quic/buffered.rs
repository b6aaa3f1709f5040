//! A QUIC connection with its next datagram and the time of the last call, as the connection pool needs it.

use std::time::{Duration, Instant};

use super::{QuicConnection, QuicEnd};
use crate::net::to_backends::connection::{
    BackendConnection, BackendHandshake, ConnectionEvents, ConnectionFailure, ConnectionState, FailedQuery,
};

pub(in crate::net) struct BufferedQuic {
    quic: QuicConnection,
    output: Vec<u8>,
    now: Instant,
    timer: Option<Instant>,
}

impl BufferedQuic {
    pub(in crate::net) fn new(quic: QuicConnection, now: Instant) -> Self {
        Self { quic, output: Vec::new(), now, timer: None }
    }

    fn advance(&mut self, now: Instant) -> Result<(), ConnectionFailure> {
        self.now = now;
        let advanced = self.quic.advance(now);
        self.timer = self.quic.next_timeout();
        advanced.map_err(|end| match end {
            QuicEnd::Closed => ConnectionFailure::Ended,
            QuicEnd::Reset => ConnectionFailure::Reset,
            QuicEnd::TimedOut => ConnectionFailure::TimedOut,
            QuicEnd::Tls(problem) => ConnectionFailure::Tls(problem),
            QuicEnd::Protocol => ConnectionFailure::Protocol,
        })
    }
}

impl BackendConnection for BufferedQuic {
    fn state(&self) -> ConnectionState {
        self.quic.state()
    }

    fn is_answered(&self) -> bool {
        self.quic.is_answered()
    }

    fn opened(&self) -> BackendHandshake {
        self.quic.opened()
    }

    fn connected(&mut self) {}

    fn queue(&mut self, message: &[u8]) -> Option<()> {
        self.quic.queue(id_of(message), message, self.now)
    }

    fn queue_early(&mut self, message: &[u8]) {
        self.quic.queue_early(id_of(message), message, self.now);
    }

    fn queue_frames(&mut self, frames: &[u8]) {
        self.quic.queue_frames(frames, self.now);
    }

    fn idle_timeout(&self) -> Option<Duration> {
        self.quic.idle_timeout()
    }

    fn output(&mut self, now: Instant) -> &[u8] {
        self.now = now;
        if self.output.is_empty() {
            self.quic.next_datagram(&mut self.output, now);
            self.timer = self.quic.next_timeout();
        }
        &self.output
    }

    fn wrote(&mut self, _octets: usize) {
        self.output.clear();
    }

    fn unwritten(&self) -> usize {
        self.quic.unsent()
    }

    fn hear(&mut self, octets: &[u8], now: Instant) -> Result<(), ConnectionFailure> {
        self.quic.hear(octets, now);
        self.advance(now)
    }

    fn take_messages(&mut self, messages: &mut Vec<u8>) {
        self.quic.take_messages(messages);
    }

    fn is_amid_message(&self) -> bool {
        self.quic.is_amid_message()
    }

    fn take_news(&mut self) -> Option<ConnectionEvents> {
        let failed = self.quic.take_failed().into_iter().map(|(id, code)| FailedQuery {
            id,
            problem: format!("it reset the stream with the error code {:#x}", code.into_inner()),
        });
        let pause = self.quic.take_overload().then_some(PAUSE);
        ConnectionEvents { failed: failed.collect(), lost: Vec::new(), pause, has_sign: self.quic.take_sign() }.some()
    }

    fn has_room(&self) -> bool {
        self.quic.has_room()
    }

    fn may_hold(&self) -> bool {
        true
    }

    fn ping(&mut self) -> bool {
        self.quic.ask_for_sign(self.now);
        true
    }

    fn forget(&mut self, id: u16) -> bool {
        self.quic.cancel(id)
    }

    fn next_timer(&self) -> Option<Instant> {
        self.timer
    }

    fn on_timer(&mut self, now: Instant) -> Result<(), ConnectionFailure> {
        self.advance(now)
    }

    fn unacknowledged_for(&self, now: Instant) -> Option<Duration> {
        self.quic.unacknowledged_for(now)
    }

    fn close(&mut self, now: Instant) {
        self.quic.close(now);
    }
}

fn id_of(message: &[u8]) -> u16 {
    message.first_chunk().map_or(0, |id| u16::from_be_bytes(*id))
}

/// Pause of a server that reports DOQ_EXCESSIVE_LOAD: the protocol carries no time.
const PAUSE: Duration = Duration::from_secs(1);
