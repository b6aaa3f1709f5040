//! The transport below DNS frames and HTTP/2: TCP or TLS, without a socket.
//!
//! ```text
//!            connected               the handshake is complete        close
//!   Dialling ─────────▶ Handshaking ───────────────────────────▶ Open ─────▶ Closing
//!        │                                                        ▲
//!        └──────────────────── connected, by TCP ─────────────────┘
//! ```

use std::io::{BufRead, Cursor, Write};

use dns::first_message;
use tokio_rustls::rustls::{ClientConnection, HandshakeKind};

use super::{BackendHandshake, ConnectionFailure, ConnectionState};
use crate::to_backends::tls::tls_problem;

/// Plain bytes to and from TCP or TLS.
pub(crate) struct StreamTransport {
    tls: Option<Box<ClientConnection>>,
    is_http2: bool,
    state: ConnectionState,
    has_heard: bool,
    output: Vec<u8>,
    /// The number of output bytes that are written.
    written: usize,
}

impl StreamTransport {
    /// Creates a transport that is being dialled. For HTTP/2, the server must accept its ALPN protocol.
    pub(crate) fn new(mut tls: Option<ClientConnection>, is_http2: bool) -> Self {
        if let Some(tls) = &mut tls {
            tls.set_buffer_limit(None);
        }
        let (tls, state) = (tls.map(Box::new), ConnectionState::Dialling);
        Self { tls, is_http2, state, has_heard: false, output: Vec::new(), written: 0 }
    }

    pub(crate) fn state(&self) -> ConnectionState {
        self.state
    }

    pub(crate) fn is_answered(&self) -> bool {
        match self.state {
            ConnectionState::Dialling => false,
            ConnectionState::Handshaking => self.has_heard,
            ConnectionState::Open | ConnectionState::Closing => true,
        }
    }

    pub(crate) fn opened(&self) -> BackendHandshake {
        match self.tls.as_deref().and_then(|tls| tls.handshake_kind()) {
            Some(HandshakeKind::Resumed) => BackendHandshake::Resumed,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => BackendHandshake::Full,
        }
    }

    pub(crate) fn connected(&mut self) {
        if self.state == ConnectionState::Dialling {
            self.state = if self.tls.is_some() { ConnectionState::Handshaking } else { ConnectionState::Open };
        }
    }

    /// Adds plain bytes to the output, for TLS in records of their own.
    pub(crate) fn send(&mut self, octets: &[u8]) {
        match &mut self.tls {
            Some(tls) => {
                tls.writer().write_all(octets).expect("without a limit it takes everything");
                self.take_records();
            }
            None => self.output().extend_from_slice(octets),
        }
    }

    /// Moves DNS frames to the output. By TLS each has its own record, all in one write: NSD 4.6 leaves a
    /// frame that shares a record unread until more arrives.
    pub(crate) fn send_frames(&mut self, frames: &mut Vec<u8>) {
        if self.tls.is_none() {
            self.send(frames);
        } else {
            let mut rest = frames.as_slice();
            while let Some((_, end)) = first_message(rest) {
                let (frame, others) = rest.split_at(end);
                self.send(frame);
                rest = others;
            }
        }
        frames.clear();
    }

    /// Adds the records of the handshake to the output.
    pub(crate) fn take_records(&mut self) {
        self.output();
        if let (Some(tls), true) = (&mut self.tls, self.state != ConnectionState::Dialling) {
            while tls.wants_write() {
                tls.write_tls(&mut self.output).expect("a vector takes everything");
            }
        }
    }

    fn output(&mut self) -> &mut Vec<u8> {
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        }
        &mut self.output
    }

    /// Returns the output that is not written.
    pub(crate) fn rest(&self) -> &[u8] {
        self.output.get(self.written..).unwrap_or_default()
    }

    pub(crate) fn wrote(&mut self, octets: usize) {
        self.written = self.output.len().min(self.written + octets);
        if self.written == self.output.len() && self.output.capacity() > MAX_KEPT {
            (self.output, self.written) = (Vec::new(), 0);
        }
    }

    #[cfg(test)]
    pub(crate) fn output_capacity(&self) -> usize {
        self.output.capacity()
    }

    /// Appends the plain bytes of received ones to `input`.
    pub(crate) fn hear(&mut self, octets: &[u8], input: &mut Vec<u8>) -> Result<(), ConnectionFailure> {
        self.has_heard = true;
        let Some(tls) = &mut self.tls else {
            input.extend_from_slice(octets);
            return Ok(());
        };
        if self.state == ConnectionState::Dialling {
            return Err(ConnectionFailure::Protocol);
        }
        let mut octets = Cursor::new(octets);
        // After a close_notify TLS accepts no more input.
        while let Ok(1..) = tls.read_tls(&mut octets) {
            tls.process_new_packets().map_err(|error| ConnectionFailure::Tls(tls_problem(&error)))?;
            let mut reader = tls.reader();
            while let Ok(plain @ [_, ..]) = reader.fill_buf() {
                let taken = plain.len();
                input.extend_from_slice(plain);
                reader.consume(taken);
            }
        }
        if self.state == ConnectionState::Handshaking && !tls.is_handshaking() {
            if self.is_http2 && tls.alpn_protocol() != Some(b"h2") {
                return Err(ConnectionFailure::Tls("it does not speak HTTP/2 (ALPN)".to_owned()));
            }
            self.state = ConnectionState::Open;
        }
        Ok(())
    }

    /// Returns true if the backend has sent close_notify: no data follows (RFC 8446 section 6.1).
    pub(crate) fn has_ended(&mut self) -> bool {
        let tls = self.tls.as_deref_mut();
        tls.is_some_and(|tls| tls.process_new_packets().is_ok_and(|state| state.peer_has_closed()))
    }

    pub(crate) fn close(&mut self) {
        if let (Some(tls), ConnectionState::Handshaking | ConnectionState::Open) = (&mut self.tls, self.state) {
            tls.send_close_notify();
            self.take_records();
        }
        self.state = ConnectionState::Closing;
    }
}

const MAX_KEPT: usize = 64 * 1024;
