//! A connection by QUIC as whoever keeps connections drives it: with the datagram that is to be sent next, and the time when it was
//! looked at last.

use std::time::{Duration, Instant};

use super::{QuicConnection, QuicEnd};
use crate::net::backend_connection::{BackendConnection, Broken, ConnectionState, FailedQuery, News, Opened};

/// A connection by QUIC, and what it is to send next.
pub(in super::super) struct BufferedQuic {
    quic: QuicConnection,
    /// The datagram that is to be sent; empty, if none was asked for.
    output: Vec<u8>,
    /// When it was looked at last.
    now: Instant,
    /// When something is due.
    timer: Option<Instant>,
}

impl BufferedQuic {
    /// One that is about to be dialled.
    pub(in super::super) fn new(quic: QuicConnection, now: Instant) -> Self {
        Self { quic, output: Vec::new(), now, timer: None }
    }

    fn advance(&mut self, now: Instant) -> Result<(), Broken> {
        self.now = now;
        let advanced = self.quic.advance(now);
        self.timer = self.quic.next_timeout();
        advanced.map_err(|end| match end {
            QuicEnd::Closed => Broken::Ended,
            QuicEnd::Reset => Broken::Reset,
            QuicEnd::TimedOut => Broken::TimedOut,
            QuicEnd::Tls(problem) => Broken::Tls(problem),
            QuicEnd::Protocol => Broken::Protocol,
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

    fn opened(&self) -> Opened {
        self.quic.opened()
    }

    /// There is nothing below it that has to be there first.
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

    fn hear(&mut self, octets: &[u8], now: Instant) -> Result<(), Broken> {
        self.quic.hear(octets, now);
        self.advance(now)
    }

    fn take_messages(&mut self, messages: &mut Vec<u8>) {
        self.quic.take_messages(messages);
    }

    fn is_amid_message(&self) -> bool {
        self.quic.is_amid_message()
    }

    fn take_news(&mut self) -> Option<News> {
        let failed = self.quic.take_failed().into_iter().map(|(id, code)| FailedQuery {
            id,
            problem: format!("it reset the stream with the error code {:#x}", code.into_inner()),
        });
        let pause = self.quic.take_overload().then_some(PAUSE);
        News { failed: failed.collect(), lost: Vec::new(), pause, has_sign: self.quic.take_sign() }.some()
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

    fn on_timer(&mut self, now: Instant) -> Result<(), Broken> {
        self.advance(now)
    }

    fn unacknowledged_for(&self, now: Instant) -> Option<Duration> {
        self.quic.unacknowledged_for(now)
    }

    fn close(&mut self, now: Instant) {
        self.quic.close(now);
    }
}

/// The ID of a message.
fn id_of(message: &[u8]) -> u16 {
    message.first_chunk().map_or(0, |id| u16::from_be_bytes(*id))
}

/// For how long a server that is asked too much (DOQ_EXCESSIVE_LOAD) gets no query: it cannot say itself.
const PAUSE: Duration = Duration::from_secs(1);
