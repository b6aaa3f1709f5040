//! The byte stream of a connection: a TCP socket, or TLS over one. It limits how much one turn reads, and
//! records how much the client accepts; the TLS and HTTP libraries do neither.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

pub(crate) struct ClientStream {
    io: SocketOrTls,
    /// Input that the next reads return first.
    ahead: Vec<u8>,
    pub(crate) flow: Rc<Flow>,
    discards: Option<usize>,
}

pub(crate) enum SocketOrTls {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

trait ByteStream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> ByteStream for T {}

impl SocketOrTls {
    fn pin(&mut self) -> Pin<&mut dyn ByteStream> {
        Pin::new(match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &mut **tls,
        })
    }
}

/// The state of a stream that its owner needs while a library holds the stream.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    left: Cell<usize>,
    written: Cell<usize>,
    is_blocked: Cell<bool>,
    is_shut: Cell<bool>,
}

impl Flow {
    pub(crate) fn begin_turn(&self) {
        self.left.set(READ_PER_TURN);
    }

    /// Returns true if there may be more input, but other tasks run first.
    pub(crate) fn is_turn_over(&self) -> bool {
        self.left.get() == 0
    }

    pub(crate) fn take_written(&self) -> usize {
        self.written.take()
    }

    /// Returns true if the kernel accepts no more for now.
    pub(crate) fn is_blocked(&self) -> bool {
        self.is_blocked.get()
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.is_shut.get()
    }
}

impl ClientStream {
    /// `ahead` is input that was read from the socket before.
    pub(crate) fn new(io: SocketOrTls, ahead: Vec<u8>) -> Self {
        Self { io, ahead, flow: Rc::default(), discards: None }
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.io, SocketOrTls::Tls(_))
    }

    /// Returns the socket, unless the session makes it useless without this value.
    pub(crate) fn into_socket(self) -> Option<TcpStream> {
        match self.io {
            SocketOrTls::Plain(socket) => Some(socket),
            SocketOrTls::Tls(_) => None,
        }
    }

    /// Detects HTTP/2 with prior knowledge (RFC 9113 section 3.3).
    pub(crate) fn poll_is_http2(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.ahead.len() >= PREFACE.len() || !PREFACE.starts_with(&self.ahead) {
                return Poll::Ready(Ok(self.ahead.starts_with(PREFACE)));
            }
            let mut octets = [0; PREFACE.len()];
            let missing = PREFACE.len() - self.ahead.len();
            let mut buffer = ReadBuf::new(octets.get_mut(..missing).unwrap_or_default());
            ready!(self.poll_input(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.ahead.extend_from_slice(buffer.filled());
        }
    }

    /// Shuts down the sending side, after the end of a TLS session (RFC 8446 section 6.1).
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.pin().poll_shutdown(cx)
    }

    fn poll_input(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(self.io.pin().poll_read(cx, buffer)) {
            // An end without close_notify is a normal end: each message has its length.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.ahead.is_empty() {
            let count = this.ahead.len().min(buffer.remaining());
            buffer.put_slice(this.ahead.get(..count).unwrap_or_default());
            this.ahead.drain(..count);
            return Poll::Ready(Ok(()));
        }
        if this.flow.is_turn_over() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(this.poll_input(cx, buffer))?;
        this.flow.left.set(this.flow.left.get().saturating_sub(buffer.filled().len() - before));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = this.io.pin().poll_write(cx, octets);
        this.flow.is_blocked.set(written.is_pending());
        let written = ready!(written)?;
        this.flow.written.set(this.flow.written.get() + written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = this.io.pin().poll_flush(cx);
        this.flow.is_blocked.set(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut left = match this.discards {
            Some(left) => left,
            None => {
                ready!(this.poll_end(cx))?;
                this.flow.is_shut.set(true);
                MAX_DISCARDED
            }
        };
        // RFC 9112 section 9.6: if unread bytes arrive after the close, the kernel resets the connection and
        // the client may lose the last response. The clock of the connection bounds this wait.
        let mut octets = [0; 4096];
        for _ in 0..CHUNKS_PER_TURN {
            this.discards = Some(left);
            let mut buffer = ReadBuf::new(&mut octets);
            match this.poll_input(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && left > 0 => {
                    left = left.saturating_sub(buffer.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
        this.discards = Some(left);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The HTTP/2 client preface (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The byte limit of one turn: some thousand queries, or 7,000 empty frames of HTTP/2.
const READ_PER_TURN: usize = 64 << 10;

const MAX_DISCARDED: usize = 1 << 20;

const CHUNKS_PER_TURN: u32 = 16;
