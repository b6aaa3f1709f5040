//! A client by TCP or TLS, in DNS frames, HTTP/1.1, HTTP/2, or octets of no protocol.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use dns::first_message;
use net::proxy_protocol::ClientHeader;
use testkit::http2::{self, field, frame, post_fields};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, ClientConnection};

use super::settle;
use super::world::{Door, PROXY, Service};

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

trait Octets: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Octets for T {}

impl Io {
    fn pin(&mut self) -> Pin<&mut dyn Octets> {
        Pin::new(match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &mut **tls,
        })
    }
}

/// The protocol above TCP or TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Dns,
    Http1,
    Http2,
    /// Octets at a port of TLS, whose answers are records of TLS.
    Noise,
}

/// A client with a connection.
pub struct StreamClient {
    io: Io,
    language: Language,
    door: Door,
    /// The address by which the server knows the client; unknown behind a proxy.
    peer: Option<SocketAddr>,
    pub local: SocketAddr,
    sent: Vec<u8>,
    /// Octets that the next write sends first.
    held: Vec<u8>,
    received: Vec<u8>,
    bodies: HashMap<u32, Vec<u8>>,
    next_stream: u32,
    pub is_reading: bool,
}

/// How a client connects.
pub struct Manner {
    pub source: u8,
    pub has_small_window: bool,
    /// The TLS of the client, or octets of no protocol at a port of TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// The protocol at a port for HTTP without TLS.
    pub is_http2: bool,
    pub server_name: &'static str,
}

impl StreamClient {
    pub async fn connect(server: SocketAddr, door: Door, manner: Manner) -> Option<Self> {
        let socket = TcpSocket::new_v4().ok()?;
        let source: IpAddr = [127, 0, 0, 1 + manner.source % 4].into();
        socket.bind((source, 0).into()).ok()?;
        if manner.has_small_window {
            socket.set_recv_buffer_size(2048).ok()?;
        }
        let socket = timeout(PATIENCE, socket.connect(server)).await.ok()?.ok()?;
        let _ = socket.set_nodelay(true);
        // Without a listener, a socket on loopback that got the same port connects to itself.
        let local = socket.local_addr().ok().filter(|local| *local != server)?;
        let is_encrypted = matches!(door, Door::Tls | Door::Https | Door::Both);
        let (io, language) = match (is_encrypted, manner.tls) {
            (true, None) => (Io::Plain(socket), Language::Noise),
            (true, Some(config)) => {
                let name = manner.server_name.try_into().ok()?;
                let tls = timeout(PATIENCE, TlsConnector::from(config).connect(name, socket)).await.ok()?.ok()?;
                let language = match (tls.get_ref().1.alpn_protocol(), door) {
                    (Some(b"h2"), _) => Language::Http2,
                    (Some(b"http/1.1"), _) => Language::Http1,
                    // Without ALPN the script may have changed the protocols.
                    (None, Door::Https | Door::Both) => Language::Noise,
                    (Some(_) | None, _) => Language::Dns,
                };
                (Io::Tls(Box::new(tls)), language)
            }
            (false, _) if door == Door::Http && manner.is_http2 => (Io::Plain(socket), Language::Http2),
            (false, _) if door == Door::Http => (Io::Plain(socket), Language::Http1),
            (false, _) => (Io::Plain(socket), Language::Dns),
        };
        let is_behind_proxy = source == PROXY.parse::<IpAddr>().expect("an address");
        let (peer, bodies) = (Some(local).filter(|_| !is_behind_proxy), HashMap::new());
        let (sent, held, received) = (Vec::new(), Vec::new(), Vec::new());
        Some(Self { io, language, door, peer, local, sent, held, received, bodies, next_stream: 1, is_reading: true })
    }

    /// Sends octets, after those that an earlier write held back, except for the last `hold` of them.
    pub async fn write(&mut self, octets: &[u8], hold: usize) {
        self.held.extend_from_slice(octets);
        let end = self.held.len().saturating_sub(hold);
        let rest = self.held.split_off(end);
        let mut octets = std::mem::replace(&mut self.held, rest);
        for _ in 0..TRIES {
            if octets.is_empty() {
                break;
            }
            let io = &mut self.io;
            match poll_fn(|cx| Poll::Ready(io.pin().poll_write(cx, &octets))).await {
                Poll::Ready(Ok(count)) => {
                    self.sent.extend(octets.drain(..count));
                }
                Poll::Ready(Err(_)) => return,
                Poll::Pending => settle(2).await,
            }
        }
        let io = &mut self.io;
        let _ = poll_fn(|cx| Poll::Ready(io.pin().poll_flush(cx))).await;
        if !octets.is_empty() {
            // Only a part has left: the rest goes first next time.
            self.held.splice(..0, octets);
        }
    }

    pub async fn close_sending(&mut self) {
        let io = &mut self.io;
        let _ = poll_fn(|cx| Poll::Ready(io.pin().poll_shutdown(cx))).await;
    }

    /// Lets the kernel reset the connection when it is dropped.
    pub fn reset_at_end(&self) {
        let socket = match &self.io {
            Io::Plain(socket) => socket,
            Io::Tls(tls) => tls.get_ref().0,
        };
        let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }

    /// Reads all that has arrived, and checks it.
    pub async fn read(&mut self, service: &Service) {
        if !self.is_reading {
            return;
        }
        let mut chunk = vec![0; 16 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut chunk);
            let io = &mut self.io;
            match poll_fn(|cx| Poll::Ready(io.pin().poll_read(cx, &mut buffer))).await {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.received.extend_from_slice(buffer.filled()),
                _ => break,
            }
        }
        self.check(service);
    }

    fn check(&mut self, service: &Service) {
        let language = match self.door {
            // The first octets decide (RFC 9113 section 3.3).
            Door::Http if self.sent.starts_with(PREFACE) => Language::Http2,
            Door::Http => Language::Http1,
            _ => self.language,
        };
        let taken = match language {
            Language::Dns => {
                self.check_asked(service);
                self.check_frames(service)
            }
            Language::Http1 => self.check_http1(service),
            Language::Http2 => self.check_http2(service),
            Language::Noise => self.received.len(),
        };
        self.received.drain(..taken);
    }

    /// Checks that the service got the first messages of those that were sent, and nothing else.
    fn check_asked(&self, service: &Service) {
        let asked = service.asked.borrow();
        let Some(asked) = self.peer.and_then(|peer| asked.get(&peer)) else { return };
        let mut rest = &self.sent[..];
        for (number, message) in asked.iter().enumerate() {
            let Some((sent, end)) = first_message(rest) else {
                panic!("{:?}, {:?}: message {number} of {asked:?} was not sent, {:?}", self.door, self.local, self.sent)
            };
            assert_eq!(sent, message, "message {number}");
            rest = &rest[end..];
        }
    }

    fn check_frames(&self, service: &Service) -> usize {
        let mut taken = 0;
        while let Some((message, end)) = first_message(&self.received[taken..]) {
            self.check_response(service, message);
            taken += end;
        }
        taken
    }

    fn check_response(&self, service: &Service, message: &[u8]) {
        let local = self.local;
        assert!(service.take_given(self.peer, message), "{local} has got what is not for it: {message:?}");
    }

    fn check_http1(&self, service: &Service) -> usize {
        let mut taken = 0;
        loop {
            let rest = &self.received[taken..];
            let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else { break };
            let head = str::from_utf8(&rest[..end]).expect("a head in ASCII");
            assert!(head.starts_with("HTTP/1."), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(0, |length| length.parse().expect("a number"));
            let Some(body) = rest.get(end..end + length) else { break };
            if head[8..].starts_with(" 200") {
                self.check_response(service, body);
            } else {
                assert!(body.is_empty(), "{head}");
            }
            taken += end + length;
        }
        taken
    }

    fn check_http2(&mut self, service: &Service) -> usize {
        let mut taken = 0;
        loop {
            let rest = &self.received[taken..];
            let Some((&[a, b, c, kind, flags, stream @ ..], _)) = rest.split_first_chunk::<9>() else { break };
            let end = 9 + usize::from(a) * 65_536 + usize::from(b) * 256 + usize::from(c);
            assert!(end <= 9 + 16_384, "a frame of {end} octets");
            let Some(payload) = rest.get(9..end) else { break };
            let stream = u32::from_be_bytes(stream);
            if kind == http2::DATA {
                self.bodies.entry(stream).or_default().extend_from_slice(payload);
                if flags & http2::END_STREAM != 0 {
                    let body = self.bodies.remove(&stream).unwrap_or_default();
                    self.check_response(service, &body);
                }
            }
            taken += end;
        }
        taken
    }

    /// Sends a message as a well-formed query of the language, in a form that the script chooses.
    pub async fn ask(&mut self, message: &[u8], form: u8, hold: usize) {
        let octets = match self.language {
            Language::Dns | Language::Noise => testkit::framed(message),
            Language::Http1 => request(message, form),
            Language::Http2 => {
                let stream = self.next_stream;
                self.next_stream = stream.wrapping_add(2) & 0x7fff_ffff;
                requests(message, form, stream)
            }
        };
        self.write(&octets, hold).await;
    }

    /// Sends a frame of HTTP/2 that is no request.
    pub async fn send_frame(&mut self, form: u8, value: u16, stream: u32) {
        let stream = if stream == 0 { self.next_stream.saturating_sub(2) } else { stream };
        let wide = u32::from(value).to_be_bytes();
        let octets = match form % 10 {
            0 => [PREFACE, &frame(http2::SETTINGS, 0, 0, &[])].concat(),
            // The window of new streams.
            1 => [PREFACE, &frame(http2::SETTINGS, 0, 0, &[&[0, 4][..], &wide].concat())].concat(),
            2 => frame(http2::RST_STREAM, 0, stream, &[0, 0, 0, 8]),
            3 => frame(http2::PING, 0, 0, &[7; 8]),
            4 => frame(http2::GOAWAY, 0, 0, &[0; 8]),
            5 => frame(http2::WINDOW_UPDATE, 0, 0, &wide),
            6 => frame(http2::WINDOW_UPDATE, 0, stream, &wide),
            7 => frame(http2::DATA, (value & 1) as u8, stream, &vec![0; usize::from(value >> 1).min(16_384)]),
            8 => frame(http2::SETTINGS, http2::ACK, 0, &[]),
            _ => frame((value >> 8) as u8, value as u8, stream, &wide),
        };
        self.write(&octets, 0).await;
    }

    /// Sends a PROXY header, which names a client.
    pub async fn name_client(&mut self, form: u8) {
        let client: Option<SocketAddr> = match form % 4 {
            0 => None,
            1 => Some("192.0.2.7:4000"),
            2 => Some("0.0.0.0:4000"),
            _ => Some("127.0.0.1:4000"),
        }
        .map(|text| text.parse().expect("an address"));
        let header = ClientHeader::new(client.map(|client| (client, self.local)), true).octets;
        self.write(&header, usize::from(form >> 4)).await;
    }

    /// Sends the first octets of a ClientHello.
    pub async fn begin_hello(&mut self, config: &Arc<ClientConfig>, length: usize) {
        let name = "dns.example".try_into().expect("a name");
        let mut session = ClientConnection::new(Arc::clone(config), name).expect("a good config");
        let mut hello = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut hello).expect("a buffer takes all");
        }
        hello.truncate(length);
        self.write(&hello, 0).await;
    }
}

/// Returns a request by HTTP/1.1.
fn request(message: &[u8], form: u8) -> Vec<u8> {
    let (text, length) = (BASE64URL_NOPAD.encode(message), message.len());
    let post = |path: &str, more: &str| {
        let kind = "content-type: application/dns-message";
        [format!("POST {path} HTTP/1.1\r\nhost: dns.example\r\n{kind}\r\n{more}\r\n").as_bytes(), message].concat()
    };
    let get = |start: &str| format!("{start} HTTP/1.1\r\nhost: dns.example\r\n\r\n").into_bytes();
    match form % 14 {
        0 => get(&format!("GET /dns-query?dns={text}")),
        1 => post("/dns-query", &format!("content-length: {length}\r\n")),
        2 => post("/other", &format!("content-length: {length}\r\n")),
        3 => get("PUT /dns-query"),
        4 => get("GET /dns-query?dns=*"),
        5 => post("/dns-query", "content-length: 65536\r\n"),
        6 => post("/dns-query", &format!("expect: 100-continue\r\ncontent-length: {length}\r\n")),
        7 => [post("/dns-query", "transfer-encoding: chunked\r\n"), b"\r\n0\r\n\r\n".to_vec()].concat(),
        8 => {
            let chunk = format!("{length:x}\r\n");
            [&chunked_head()[..], chunk.as_bytes(), message, b"\r\n0\r\n\r\n"].concat()
        }
        9 => format!("GET /dns-query?dns={text} HTTP/1.1\r\nconnection: close\r\n\r\n").into_bytes(),
        // A body that is longer than any message.
        10 => [chunked_head(), long_chunk()].concat(),
        11 => b"POST /dns-query HTTP/1.1\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n".to_vec(),
        12 => get("GET /dns-query?a=b"),
        _ => get("GET http://dns.example/dns-query?dns="),
    }
}

fn chunked_head() -> Vec<u8> {
    let kind = "content-type: application/dns-message";
    format!("POST /dns-query HTTP/1.1\r\n{kind}\r\ntransfer-encoding: chunked\r\n\r\n").into_bytes()
}

fn long_chunk() -> Vec<u8> {
    [b"11000\r\n".to_vec(), vec![0; 0x11000], b"\r\n0\r\n\r\n".to_vec()].concat()
}

/// Returns a request by HTTP/2.
fn requests(message: &[u8], form: u8, stream: u32) -> Vec<u8> {
    let text = BASE64URL_NOPAD.encode(message);
    let fields = |method: u8, path: &str| {
        let mut fields = vec![method, 0x86];
        fields.extend(field(":path", &path[..path.len().min(126)]));
        fields.extend(field(":authority", "dns.example"));
        fields
    };
    let (end, all) = (http2::END_STREAM, http2::END_HEADERS);
    let post = |parts: &[(&[u8], u8)]| {
        let head = frame(http2::HEADERS, all, stream, &post_fields());
        let parts = parts.iter().flat_map(|(part, flags)| frame(http2::DATA, *flags, stream, part));
        head.into_iter().chain(parts).collect::<Vec<_>>()
    };
    let half = message.len() / 2;
    match form % 12 {
        0 => frame(http2::HEADERS, all | end, stream, &fields(0x82, &format!("/dns-query?dns={text}"))),
        1 => post(&[(message, end)]),
        2 => post(&[(&message[..half], 0), (&message[half..], end)]),
        // A body without its end.
        3 => post(&[(message, 0)]),
        4 => frame(http2::HEADERS, all | end, stream, &fields(0x82, "/other")),
        // The refusal waits for the end of the body.
        5 => {
            let head = frame(http2::HEADERS, all, stream, &fields(0x83, "/other"));
            [head, frame(http2::DATA, end, stream, message)].concat()
        }
        6 => frame(http2::HEADERS, all | end, stream, &post_fields()),
        7 => {
            let length = field("content-length", "70000");
            frame(http2::HEADERS, all, stream, &[post_fields(), length].concat())
        }
        // More than any message has.
        8 => post(&[(&[0; 16_384], 0), (&[0; 16_384], 0), (&[0; 16_384], 0), (&[0; 16_384], end)]),
        9 => {
            let long = (0..60).flat_map(|number| field(&format!("x-{number}"), &"y".repeat(120)));
            frame(http2::HEADERS, all, stream, &post_fields().into_iter().chain(long).collect::<Vec<_>>())
        }
        10 => [post(&[(&message[..half], 0)]), frame(http2::RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat(),
        _ => {
            let long = (0..20).flat_map(|number| field(&format!("x-{number}"), &"y".repeat(120)));
            let fields = fields(0x82, &format!("/dns-query?dns={text}"));
            frame(http2::HEADERS, all | end, stream, &fields.into_iter().chain(long).collect::<Vec<_>>())
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const TRIES: u32 = 24;

const PATIENCE: Duration = Duration::from_secs(5);
