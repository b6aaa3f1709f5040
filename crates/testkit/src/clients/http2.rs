//! HTTP/2 as a script: a client that sends frames one by one, sound or not, and sees those that come back
//! (RFC 9113).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::PATIENCE;

/// A client of one connection in the clear, by prior knowledge.
pub struct Http2Client {
    stream: TcpStream,
}

/// A frame from the server.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The type of the frame.
    pub kind: u8,
    /// The flags of the frame.
    pub flags: u8,
    /// The ID of the stream.
    pub stream: u32,
    /// The rest of the frame.
    pub payload: Vec<u8>,
}

// Kinds of frames, and flags: RFC 9113 section 6.
/// The type of a DATA frame.
pub const DATA: u8 = 0;
/// The type of a HEADERS frame.
pub const HEADERS: u8 = 1;
/// The type of a RST_STREAM frame.
pub const RST_STREAM: u8 = 3;
/// The type of a SETTINGS frame.
pub const SETTINGS: u8 = 4;
/// The type of a PING frame.
pub const PING: u8 = 6;
/// The type of a GOAWAY frame.
pub const GOAWAY: u8 = 7;
/// The type of a WINDOW_UPDATE frame.
pub const WINDOW_UPDATE: u8 = 8;
/// The type of a CONTINUATION frame.
pub const CONTINUATION: u8 = 9;
/// The flag for the last frame of a stream.
pub const END_STREAM: u8 = 1;
/// The flag for an acknowledged SETTINGS or PING frame.
pub const ACK: u8 = 1;
/// The flag for the last part of a header block.
pub const END_HEADERS: u8 = 4;

/// The error by which a server rejects a client that asks too much (RFC 9113 section 7).
pub const ENHANCE_YOUR_CALM: u32 = 11;

impl Http2Client {
    /// A client that has begun, with these settings.
    pub fn with(server: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(server).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout above zero");
        stream.set_nodelay(true).expect("a socket");
        let mut this = Self { stream };
        this.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("the server takes it");
        let octets: Vec<u8> =
            settings.iter().flat_map(|(key, value)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        this.send(SETTINGS, 0, 0, &octets);
        this
    }

    /// Connects with the default settings.
    pub fn new(server: SocketAddr) -> Self {
        Self::with(server, &[])
    }

    /// Sends a frame. The server may have had enough already.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.write(&frame(kind, flags, stream, payload)).is_ok()
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets)
    }

    /// Begins a POST of a DNS message, whose body is to come.
    pub fn begin_post(&mut self, stream: u32) -> bool {
        self.send(HEADERS, END_HEADERS, stream, &post_fields())
    }

    /// Sends a POST of a DNS message.
    pub fn post(&mut self, stream: u32, message: &[u8]) -> bool {
        self.begin_post(stream) && self.send(DATA, END_STREAM, stream, message)
    }

    /// The next frame, if there is one; settings and signs of life are acknowledged.
    pub fn receive(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7FFF_FFFF;
        let frame = Frame { kind: head[3], flags: head[4], stream, payload };
        if matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK == 0 {
            let payload = if frame.kind == PING { frame.payload.clone() } else { Vec::new() };
            self.send(frame.kind, ACK, 0, &payload);
        }
        Some(frame)
    }

    /// The first frame that is looked for, if it comes.
    pub fn receive_until(&mut self, is_it: impl Fn(&Frame) -> bool) -> Option<Frame> {
        std::iter::from_fn(|| self.receive()).find(is_it)
    }

    /// The body of the response of a stream; what comes for others is passed by.
    pub fn body_of(&mut self, stream: u32) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let frame = self.receive()?;
            match frame.kind {
                RST_STREAM if frame.stream == stream => return None,
                DATA if frame.stream == stream => body.extend_from_slice(&frame.payload),
                _ => {}
            }
            if frame.stream == stream && matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
                return Some(body);
            }
        }
    }

    /// All frames until the server ends.
    pub fn rest(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.receive()).collect()
    }

    /// Returns the error that the server has ended with, if it names one.
    pub fn error_of_end(&mut self) -> Option<u32> {
        let frames = self.rest();
        let last = frames.iter().rev().find(|frame| frame.kind == GOAWAY)?;
        last.payload.get(4..8).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes)
    }
}

/// A frame as it goes over the wire.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The fields of a POST of a DNS message to the usual path.
pub fn post_fields() -> Vec<u8> {
    let mut fields = vec![0x83, 0x86];
    fields.extend(field(":path", "/dns-query"));
    fields.extend(field(":authority", "dns.example"));
    fields.extend(field("content-type", "application/dns-message"));
    fields
}

/// A field that stands in no table (RFC 7541 section 6.2.2).
pub fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0, length(name)][..], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// The length of a short text, which is not compressed.
fn length(text: &str) -> u8 {
    u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text")
}
