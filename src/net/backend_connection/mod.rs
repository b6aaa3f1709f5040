//! A connection to a backend as a value: octets in, whole messages out; queries in, octets out. It has no socket and no clock.
//!
//! By TCP a message goes in its frame (RFC 7766 section 8), by TLS (RFC 7858) the same goes through records. What was queued before
//! the connection is open leaves when it is; all that is queued between two looks at [`output`](BackendConnection::output) leaves
//! together.
//!
//! ```text
//!            connected               the handshake is complete        close
//!   Dialling ─────────▶ Handshaking ───────────────────────────▶ Open ─────▶ Closing
//!        │                                                        ▲
//!        └──────────────────── connected, by TCP ─────────────────┘
//! ```

mod asked;
mod backoff;
mod patience;
mod quic;
mod silence_clock;
#[cfg(test)]
mod tests;

use std::io::{BufRead, Cursor, Write};

use tokio_rustls::rustls::{ClientConnection, HandshakeKind};

pub use self::asked::AskedIds;
pub use self::backoff::Backoff;
pub use self::patience::Patience;
pub use self::quic::{QuicConnection, QuicEnd};
pub use self::silence_clock::{SilenceClock, Suspicion, silence_limit};
use super::tls::tls_problem;
use crate::wire::{FRAME_PREFIX, HEADER_LEN, append_frame, first_message};

/// A connection to a backend.
pub struct BackendConnection {
    /// The records; `None` by TCP.
    tls: Option<Box<ClientConnection>>,
    state: ConnectionState,
    /// Frames that were queued and are not records yet.
    queued: Vec<u8>,
    /// What has come and is no whole message yet.
    input: Vec<u8>,
    /// What is to be written.
    output: Vec<u8>,
    /// How much of that was.
    written: usize,
    /// Something has come.
    has_heard: bool,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// There is no answer to the first segment.
    Dialling,
    /// TCP is there, TLS is not.
    Handshaking,
    /// Messages go.
    Open,
    /// Nothing more goes.
    Closing,
}

/// What has come is nothing that a backend may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// By the rules of TLS.
    Tls(String),
    /// By those of DNS: a frame that holds no reply.
    Protocol,
}

/// How a handshake went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// From the beginning, or there was none.
    Full,
    /// With what is known from an earlier one.
    Resumed,
    /// So, and queries went with the first flight.
    Early,
}

impl BackendConnection {
    /// One that is dialled; `tls` has said nothing yet.
    pub fn new(tls: Option<ClientConnection>) -> Self {
        let unlimited = |mut tls: ClientConnection| {
            // What waits is bounded before it comes here.
            tls.set_buffer_limit(None);
            Box::new(tls)
        };
        Self {
            tls: tls.map(unlimited),
            state: ConnectionState::Dialling,
            queued: Vec::new(),
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            has_heard: false,
        }
    }

    /// How far it is.
    pub fn state(&self) -> ConnectionState {
        self.state
    }

    /// Whether the backend has answered so far: by TCP to the dial, by TLS to the first record.
    pub fn is_answered(&self) -> bool {
        match self.state {
            ConnectionState::Dialling => false,
            ConnectionState::Handshaking => self.has_heard,
            ConnectionState::Open | ConnectionState::Closing => true,
        }
    }

    /// How its handshake went, as far as is known.
    pub fn opened(&self) -> Opened {
        match self.tls.as_ref().and_then(|tls| tls.handshake_kind()) {
            Some(HandshakeKind::Resumed) => Opened::Resumed,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => Opened::Full,
        }
    }

    /// TCP is there.
    pub fn connected(&mut self) {
        if self.state == ConnectionState::Dialling {
            self.state = if self.tls.is_some() { ConnectionState::Handshaking } else { ConnectionState::Open };
        }
    }

    /// Queues a message; `None` if it is longer than a frame.
    pub fn queue(&mut self, message: &[u8]) -> Option<()> {
        append_frame(message, &mut self.queued)
    }

    /// Queues frames of another connection that did not come to be.
    pub fn queue_frames(&mut self, frames: &[u8]) {
        self.queued.extend_from_slice(frames);
    }

    /// What is to be written now.
    pub fn output(&mut self) -> &[u8] {
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        }
        let is_open = self.state == ConnectionState::Open;
        match &mut self.tls {
            Some(tls) if self.state != ConnectionState::Dialling => {
                if is_open {
                    let mut rest = self.queued.as_slice();
                    // Each in a record of its own, all in one write: NSD 4.6 leaves those lie that share a record with another until
                    // more comes.
                    while let Some((_, end)) = first_message(rest) {
                        let (frame, others) = rest.split_at(end);
                        tls.writer().write_all(frame).expect("without a limit it takes everything");
                        rest = others;
                        take_records(tls, &mut self.output);
                    }
                    self.queued.clear();
                }
                take_records(tls, &mut self.output);
            }
            // The frames as they are, without a copy.
            None if is_open && self.output.is_empty() => std::mem::swap(&mut self.output, &mut self.queued),
            None if is_open => self.output.append(&mut self.queued),
            Some(_) | None => {}
        }
        self.output.get(self.written..).unwrap_or_default()
    }

    /// So much of it was written.
    pub fn wrote(&mut self, octets: usize) {
        self.written = self.output.len().min(self.written + octets);
        if self.written == self.output.len() && self.output.capacity() > MAX_KEPT {
            self.output = Vec::new();
            self.written = 0;
        }
    }

    /// Octets that wait to be written.
    pub fn unwritten(&self) -> usize {
        self.queued.len() + self.output.len() - self.written
    }

    /// Octets have come. What messages are whole then, [`take_messages`](Self::take_messages) gives.
    ///
    /// # Errors
    /// If it is nothing that a backend may say: nothing more is heard, and [`output`](Self::output) is the alert, if one is due.
    pub fn hear(&mut self, octets: &[u8]) -> Result<(), Broken> {
        self.has_heard = true;
        let heard = match &mut self.tls {
            Some(_) if self.state == ConnectionState::Dialling => Err(Broken::Protocol),
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
            self.close();
        }
        heard
    }

    /// Whether each frame may hold a reply, the unfinished one included: then no more is kept than is needed.
    fn check_frames(&self) -> Result<(), Broken> {
        let mut rest = self.input.as_slice();
        while let Some((length, _)) = rest.split_first_chunk::<FRAME_PREFIX>() {
            let length = usize::from(u16::from_be_bytes(*length));
            // RFC 1035 section 4.1.1: QR is the first bit behind the ID.
            if length < HEADER_LEN || rest.get(FRAME_PREFIX + 2).is_some_and(|flags| flags & 0x80 == 0) {
                return Err(Broken::Protocol);
            }
            rest = rest.get(FRAME_PREFIX + length..).unwrap_or_default();
        }
        Ok(())
    }

    /// Moves the frames of all whole messages that have come to `messages`, which is empty.
    pub fn take_messages(&mut self, messages: &mut Vec<u8>) {
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

    /// Whether half a message has come.
    pub fn is_amid_message(&self) -> bool {
        !self.input.is_empty()
    }

    /// Says good-bye, if that is due (RFC 7858 section 3.4, RFC 8446 section 6.1): what was queued does not leave any more.
    pub fn close(&mut self) {
        if let (Some(tls), ConnectionState::Handshaking | ConnectionState::Open) = (&mut self.tls, self.state) {
            tls.send_close_notify();
            take_records(tls, &mut self.output);
        }
        self.queued.clear();
        self.state = ConnectionState::Closing;
    }
}

/// Moves what TLS has to say to `output`.
fn take_records(tls: &mut ClientConnection, output: &mut Vec<u8>) {
    while tls.wants_write() {
        tls.write_tls(output).expect("a vector takes everything");
    }
}

/// Has TLS read octets, and moves what is in them to `input`.
fn hear_records(tls: &mut ClientConnection, octets: &[u8], input: &mut Vec<u8>) -> Result<(), Broken> {
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

/// Octets that the room for output may keep.
const MAX_KEPT: usize = 64 * 1024;
