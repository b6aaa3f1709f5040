//! Octets through the records of TLS, both ways.

use std::io::{BufRead, Cursor};

use tokio_rustls::rustls::{ClientConnection, HandshakeKind};

use super::{Broken, Opened};
use crate::net::tls::tls_problem;

/// Moves what TLS has to say to `output`.
pub(super) fn take_records(tls: &mut ClientConnection, output: &mut Vec<u8>) {
    while tls.wants_write() {
        tls.write_tls(output).expect("a vector takes everything");
    }
}

/// Has TLS read octets, and moves what is in them to `input`.
pub(super) fn hear_records(tls: &mut ClientConnection, octets: &[u8], input: &mut Vec<u8>) -> Result<(), Broken> {
    let mut octets = Cursor::new(octets);
    loop {
        // After a close_notify nothing is taken, and nothing is to come.
        let Ok(1..) = tls.read_tls(&mut octets) else { return Ok(()) };
        tls.process_new_packets().map_err(|error| Broken::Tls(tls_problem(&error)))?;
        let mut reader = tls.reader();
        while let Ok(plain @ [_, ..]) = reader.fill_buf() {
            let taken = plain.len();
            input.extend_from_slice(plain);
            reader.consume(taken);
        }
    }
}

/// True if the backend has sent a close_notify: nothing comes after that (RFC 8446 section 6.1).
pub(super) fn has_ended(tls: &mut ClientConnection) -> bool {
    tls.process_new_packets().is_ok_and(|state| state.peer_has_closed())
}

/// How a handshake went, as far as is known.
pub(super) fn opened(tls: &ClientConnection) -> Opened {
    match tls.handshake_kind() {
        Some(HandshakeKind::Resumed) => Opened::Resumed,
        Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => Opened::Full,
    }
}
