//! One client's QUIC connection. It is a value; the task that owns it (`worker.rs`) passes in datagrams,
//! responses and time. Its streams are in `streams.rs`.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dns::Transport;
use limit::{Doing, TableFullness};
use metrics::{ConnectionFate, Counters, ShakenBy};
use quinn_proto::{ConnectionError, ConnectionHandle, Endpoint, Event};

use super::streams::{Code, ConnectionClose, QuicStreams};
use super::worker::Tools;
use crate::from_clients::tcp::ConnectionSlot;
use crate::sys::batch::LocalAddress;

pub(super) struct QuicServerConnection {
    pub(super) quic: quinn_proto::Connection,
    pub(super) handle: ConnectionHandle,
    /// `None` once the connection is over, and QUIC only waits for late datagrams.
    pub(super) open: Option<QuicStreams>,
    pub(super) local: Option<LocalAddress>,
    /// True if the handshake used a valid ticket.
    pub(super) is_resumed: bool,
    /// The number of handshake datagrams at the gate.
    pub(super) steps: u32,
    pub(super) alarm: Option<Instant>,
    /// True if the connection counts as one in a handshake.
    pub(super) is_shaking: bool,
    /// True if the connection counts as one that is over.
    pub(super) is_lingering: bool,
    /// True if the connection is in the worker's `working` list.
    pub(super) has_work: bool,
    /// True if the connection is in the worker's `sending` list.
    pub(super) is_sending: bool,
}

impl QuicServerConnection {
    pub(super) fn new(
        (handle, quic): (ConnectionHandle, quinn_proto::Connection),
        number: u64,
        slot: ConnectionSlot,
        counters: &Arc<Counters>,
        local: Option<LocalAddress>,
        now: Instant,
    ) -> Self {
        Self {
            quic,
            handle,
            open: Some(QuicStreams::new(number, slot, Arc::clone(counters), now)),
            local,
            is_resumed: false,
            steps: 0,
            alarm: None,
            is_shaking: true,
            is_lingering: false,
            has_work: false,
            is_sending: false,
        }
    }

    /// Handles QUIC events and hands over queries. Returns true if QUIC has finished with the connection.
    pub(super) fn work(&mut self, tools: &mut Tools<'_>) -> (bool, Result<(), ConnectionClose>) {
        let mut result = Ok(());
        while let Some(event) = self.quic.poll() {
            let done = self.on_event(event, tools);
            result = result.and(done);
        }
        if let Some(open) = &mut self.open {
            result = result.and_then(|()| open.work(&mut self.quic, tools));
        }
        (self.notify_endpoint(tools.endpoint), result)
    }

    /// Passes events to the endpoint. Returns true if one of them says that the connection is drained.
    fn notify_endpoint(&mut self, endpoint: &mut Endpoint) -> bool {
        let mut is_drained = false;
        while let Some(event) = self.quic.poll_endpoint_events() {
            is_drained |= event.is_drained();
            if let Some(answer) = endpoint.handle_event(self.handle, event) {
                self.quic.handle_event(answer);
            }
        }
        is_drained
    }

    fn on_event(&mut self, event: Event, tools: &mut Tools<'_>) -> Result<(), ConnectionClose> {
        match (event, &mut self.open) {
            (Event::Connected, open) => {
                let by = match (self.quic.has_0rtt(), self.is_resumed) {
                    (true, _) => ShakenBy::Early,
                    (false, true) => ShakenBy::Resumed,
                    (false, false) => ShakenBy::Full,
                };
                tools.counters.connections.shaken(Transport::Quic, by);
                if let Some(open) = open {
                    open.release_held(&self.quic, tools);
                }
                Ok(())
            }
            (Event::ConnectionLost { reason }, _) => {
                self.on_lost(&reason, tools.counters);
                Ok(())
            }
            (Event::Stream(event), Some(open)) => open.on_event(&mut self.quic, event, tools.now),
            (Event::Stream(_), None)
            | (Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked, _) => Ok(()),
        }
    }

    fn on_lost(&mut self, reason: &ConnectionError, counters: &Counters) {
        if self.open.as_ref().is_some_and(|open| open.account.clock.is_fresh()) {
            let fate = match reason {
                ConnectionError::TimedOut => Some(ConnectionFate::TimedOut),
                ConnectionError::TransportError(_) | ConnectionError::ConnectionClosed(_) => {
                    Some(ConnectionFate::HandshakeFailed)
                }
                ConnectionError::VersionMismatch
                | ConnectionError::ApplicationClosed(_)
                | ConnectionError::Reset
                | ConnectionError::LocallyClosed
                | ConnectionError::CidsExhausted => None,
            };
            fate.into_iter().for_each(|fate| counters.connections.fate(Transport::Quic, fate));
        }
        tracing::trace!(%reason, "a connection by QUIC is lost");
        self.open = None;
    }

    pub(super) fn due(&mut self, pressure: TableFullness) -> Option<Instant> {
        let own = self.open.as_ref().and_then(|open| open.due(pressure));
        [self.quic.poll_timeout(), own].into_iter().flatten().min()
    }

    pub(super) fn on_alarm(&mut self, pressure: TableFullness, now: Instant) -> Result<(), ConnectionClose> {
        self.quic.handle_timeout(now);
        self.open.as_mut().map_or(Ok(()), |open| open.on_alarm(pressure, now))
    }

    /// Returns true if the end of the listener closes an open connection: it has no query yet, or is
    /// finished.
    pub(super) fn is_closable(&self, reads: bool, now: Instant) -> bool {
        self.open.as_ref().is_some_and(|open| self.quic.is_handshaking() || open.is_finished(reads, now))
    }

    pub(super) fn pushed_out(&self) -> ConnectionClose {
        match self.open.as_ref().map(QuicStreams::doing) {
            None | Some(Doing::Reading) => ConnectionClose { code: Code::NoError, reason: "room for others" },
            Some(Doing::Answering | Doing::Writing) => {
                ConnectionClose { code: Code::ExcessiveLoad, reason: "too much to read" }
            }
        }
    }

    pub(super) fn close(&mut self, ConnectionClose { code, reason }: ConnectionClose, now: Instant) {
        tracing::trace!(?code, reason, "a connection by QUIC is closed");
        self.quic.close(now, code.to_wire(), Bytes::from_static(reason.as_bytes()));
        self.open = None;
    }
}
