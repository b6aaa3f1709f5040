//! Messages in frames (RFC 7766 section 8), over plain TCP or over TLS (RFC 7858).
//!
//! ```text
//!            connected               the handshake is complete        close
//!   Dialling ─────────▶ Handshaking ───────────────────────────▶ Open ─────▶ Closing
//!        │                                                        ▲
//!        └──────────────────── connected, by TCP ─────────────────┘
//! ```

#[cfg(test)]
mod tests;

use std::io::Write;
use std::time::Instant;

use tokio_rustls::rustls::ClientConnection;

use super::connection::{BackendConnection, BackendHandshake, ConnectionFailure, ConnectionState};
use crate::net::to_backends::connection::records::{OutputBuffer, has_ended, hear_records, opened, take_records};
use crate::wire::{FRAME_PREFIX, HEADER_LEN, append_frame, first_message};

pub(in crate::net) struct FrameConnection {
    tls: Option<Box<ClientConnection>>,
    state: ConnectionState,
    queued: Vec<u8>,
    input: Vec<u8>,
    output: OutputBuffer,
    has_heard: bool,
}

impl FrameConnection {
    pub(in crate::net) fn new(tls: Option<ClientConnection>) -> Self {
        let unlimited = |mut tls: ClientConnection| {
            tls.set_buffer_limit(None);
            Box::new(tls)
        };
        Self {
            tls: tls.map(unlimited),
            state: ConnectionState::Dialling,
            queued: Vec::new(),
            input: Vec::new(),
            output: OutputBuffer::default(),
            has_heard: false,
        }
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
        self.state
    }

    fn is_answered(&self) -> bool {
        self.state.is_answered(self.has_heard)
    }

    fn opened(&self) -> BackendHandshake {
        self.tls.as_deref().map_or(BackendHandshake::Full, opened)
    }

    fn connected(&mut self) {
        if self.state == ConnectionState::Dialling {
            self.state = if self.tls.is_some() { ConnectionState::Handshaking } else { ConnectionState::Open };
        }
    }

    fn queue(&mut self, message: &[u8]) -> Option<()> {
        append_frame(message, &mut self.queued)
    }

    fn queue_frames(&mut self, frames: &[u8]) {
        self.queued.extend_from_slice(frames);
    }

    fn output(&mut self, _now: Instant) -> &[u8] {
        let output = self.output.octets();
        let is_open = self.state == ConnectionState::Open;
        match &mut self.tls {
            Some(tls) if self.state != ConnectionState::Dialling => {
                if is_open {
                    let mut rest = self.queued.as_slice();
                    // Each frame has its own record, all in one write: NSD 4.6 leaves a frame that shares a
                    // record unread until more arrives.
                    while let Some((_, end)) = first_message(rest) {
                        let (frame, others) = rest.split_at(end);
                        tls.writer().write_all(frame).expect("without a limit it takes everything");
                        rest = others;
                        take_records(tls, output);
                    }
                    self.queued.clear();
                }
                take_records(tls, output);
            }
            None if is_open && output.is_empty() => std::mem::swap(output, &mut self.queued),
            None if is_open => output.append(&mut self.queued),
            Some(_) | None => {}
        }
        self.output.rest()
    }

    fn wrote(&mut self, octets: usize) {
        self.output.wrote(octets);
    }

    fn unwritten(&self) -> usize {
        self.queued.len() + self.output.rest().len()
    }

    fn hear(&mut self, octets: &[u8], now: Instant) -> Result<(), ConnectionFailure> {
        self.has_heard = true;
        let heard = match &mut self.tls {
            Some(_) if self.state == ConnectionState::Dialling => Err(ConnectionFailure::Protocol),
            Some(tls) => {
                let heard = hear_records(tls, octets, &mut self.input);
                if heard.is_ok() && !tls.is_handshaking() && self.state == ConnectionState::Handshaking {
                    self.state = ConnectionState::Open;
                }
                heard
            }
            None => {
                self.input.extend_from_slice(octets);
                Ok(())
            }
        };
        let heard = heard.and_then(|()| self.check_frames());
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
        self.tls.as_deref_mut().is_some_and(has_ended)
    }

    fn close(&mut self, _now: Instant) {
        if let (Some(tls), ConnectionState::Handshaking | ConnectionState::Open) = (&mut self.tls, self.state) {
            tls.send_close_notify();
            take_records(tls, self.output.octets());
        }
        self.queued.clear();
        self.state = ConnectionState::Closing;
    }
}
