//! Conversion between TLS records and plain bytes, and the bytes to be written.

use std::io::{BufRead, Cursor};

use tokio_rustls::rustls::{ClientConnection, HandshakeKind};

use super::{BackendHandshake, ConnectionFailure};
use crate::net::to_backends::tls::tls_problem;

/// Bytes to be written, of which the first are written.
#[derive(Default)]
pub(in crate::net) struct OutputBuffer {
    octets: Vec<u8>,
    written: usize,
}

impl OutputBuffer {
    /// Returns the bytes, to append others.
    pub(in crate::net) fn octets(&mut self) -> &mut Vec<u8> {
        if self.written == self.octets.len() {
            self.octets.clear();
            self.written = 0;
        }
        &mut self.octets
    }

    pub(in crate::net) fn rest(&self) -> &[u8] {
        self.octets.get(self.written..).unwrap_or_default()
    }

    pub(in crate::net) fn wrote(&mut self, octets: usize) {
        self.written = self.octets.len().min(self.written + octets);
        if self.written == self.octets.len() && self.octets.capacity() > MAX_KEPT {
            *self = Self::default();
        }
    }
}

const MAX_KEPT: usize = 64 * 1024;

pub(in crate::net) fn take_records(tls: &mut ClientConnection, output: &mut Vec<u8>) {
    while tls.wants_write() {
        tls.write_tls(output).expect("a vector takes everything");
    }
}

pub(in crate::net) fn hear_records(
    tls: &mut ClientConnection,
    octets: &[u8],
    input: &mut Vec<u8>,
) -> Result<(), ConnectionFailure> {
    let mut octets = Cursor::new(octets);
    loop {
        // After a close_notify TLS accepts no more input.
        let Ok(1..) = tls.read_tls(&mut octets) else { return Ok(()) };
        tls.process_new_packets().map_err(|error| ConnectionFailure::Tls(tls_problem(&error)))?;
        let mut reader = tls.reader();
        while let Ok(plain @ [_, ..]) = reader.fill_buf() {
            let taken = plain.len();
            input.extend_from_slice(plain);
            reader.consume(taken);
        }
    }
}

/// Returns true if the backend has sent close_notify: no data follows (RFC 8446 section 6.1).
pub(in crate::net) fn has_ended(tls: &mut ClientConnection) -> bool {
    tls.process_new_packets().is_ok_and(|state| state.peer_has_closed())
}

pub(in crate::net) fn opened(tls: &ClientConnection) -> BackendHandshake {
    match tls.handshake_kind() {
        Some(HandshakeKind::Resumed) => BackendHandshake::Resumed,
        Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => BackendHandshake::Full,
    }
}
