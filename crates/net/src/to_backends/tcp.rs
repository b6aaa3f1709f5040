//! Messages in frames (RFC 7766 section 8), over plain TCP or over TLS (RFC 7858).

#[cfg(test)]
mod tests;

use std::time::Instant;

use dns::{FRAME_PREFIX, HEADER_LEN, append_frame};
use tokio_rustls::rustls::ClientConnection;

use super::connection::transport::StreamTransport;
use super::connection::{BackendConnection, BackendHandshake, ConnectionFailure, ConnectionState};

pub(crate) struct FrameConnection {
    transport: StreamTransport,
    queued: Vec<u8>,
    input: Vec<u8>,
}

impl FrameConnection {
    pub(crate) fn new(tls: Option<ClientConnection>) -> Self {
        Self { transport: StreamTransport::new(tls, false), queued: Vec::new(), input: Vec::new() }
    }

    /// Checks that each frame, even an unfinished one, may hold a reply. This bounds the memory.
    fn check_frames(&self) -> Result<(), ConnectionFailure> {
        let mut rest = self.input.as_slice();
        while let Some((length, _)) = rest.split_first_chunk::<FRAME_PREFIX>() {
            let length = usize::from(u16::from_be_bytes(*length));
            // RFC 1035 section 4.1.1: QR is the first bit behind the ID.
            if length < HEADER_LEN || rest.get(FRAME_PREFIX + 2).is_some_and(|flags| flags & 0x80 == 0) {
                return Err(ConnectionFailure::Protocol);
            }
            rest = rest.get(FRAME_PREFIX + length..).unwrap_or_default();
        }
        Ok(())
    }
}

impl BackendConnection for FrameConnection {
    fn state(&self) -> ConnectionState {
        self.transport.state()
    }

    fn is_answered(&self) -> bool {
        self.transport.is_answered()
    }

    fn opened(&self) -> BackendHandshake {
        self.transport.opened()
    }

    fn connected(&mut self) {
        self.transport.connected();
    }

    fn queue(&mut self, message: &[u8]) -> Option<()> {
        append_frame(message, &mut self.queued)
    }

    fn queue_frames(&mut self, frames: &[u8]) {
        self.queued.extend_from_slice(frames);
    }

    fn output(&mut self, _now: Instant) -> &[u8] {
        if self.state() == ConnectionState::Open {
            self.transport.send_frames(&mut self.queued);
        }
        self.transport.take_records();
        self.transport.rest()
    }

    fn wrote(&mut self, octets: usize) {
        self.transport.wrote(octets);
    }

    fn unwritten(&self) -> usize {
        self.queued.len() + self.transport.rest().len()
    }

    fn hear(&mut self, octets: &[u8], now: Instant) -> Result<(), ConnectionFailure> {
        let heard = self.transport.hear(octets, &mut self.input).and_then(|()| self.check_frames());
        if heard.is_err() {
            self.close(now);
        }
        heard
    }

    fn take_messages(&mut self, messages: &mut Vec<u8>) {
        let mut whole = 0;
        while let Some((length, _)) = self.input.get(whole..).and_then(|rest| rest.split_first_chunk::<FRAME_PREFIX>())
        {
            let end = whole + FRAME_PREFIX + usize::from(u16::from_be_bytes(*length));
            if end > self.input.len() {
                break;
            }
            whole = end;
        }
        if whole == 0 {
            return;
        }
        std::mem::swap(&mut self.input, messages);
        self.input.clear();
        self.input.extend_from_slice(messages.get(whole..).unwrap_or_default());
        messages.truncate(whole);
    }

    fn has_ended(&mut self) -> bool {
        self.transport.has_ended()
    }

    fn close(&mut self, _now: Instant) {
        self.transport.close();
        self.queued.clear();
    }
}
