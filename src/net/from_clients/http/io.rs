//! The byte stream of an HTTP connection, plain or encrypted. It limits how much one turn reads, and records
//! how much the client accepts; the HTTP libraries do neither.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::from_clients::tcp::stream::ClientStream;

pub(crate) struct HttpStream {
    stream: ClientStream,
    ahead: Vec<u8>,
    flow: Rc<Flow>,
    discards: Option<usize>,
}

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

    pub(crate) fn take_written(&self) -> usize {
        self.written.take()
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.is_blocked.get()
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.is_shut.get()
    }
}

impl HttpStream {
    pub(crate) fn new(stream: ClientStream) -> (Self, Rc<Flow>) {
        let flow = Rc::new(Flow::default());
        (Self { stream, ahead: Vec::new(), flow: Rc::clone(&flow), discards: None }, flow)
    }

    /// Detects HTTP/2 with prior knowledge (RFC 9113 section 3.3). The bytes read for that are returned again
    /// by the next reads.
    pub(crate) fn poll_is_http2(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.ahead.len() >= PREFACE.len() || !PREFACE.starts_with(&self.ahead) {
                return Poll::Ready(Ok(self.ahead.starts_with(PREFACE)));
            }
            let mut octets = [0; PREFACE.len()];
            let missing = PREFACE.len() - self.ahead.len();
            let mut buffer = ReadBuf::new(octets.get_mut(..missing).unwrap_or_default());
            ready!(self.stream.poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.ahead.extend_from_slice(buffer.filled());
        }
    }
}

impl AsyncRead for HttpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.ahead.is_empty() {
            let count = this.ahead.len().min(buffer.remaining());
            buffer.put_slice(this.ahead.get(..count).unwrap_or_default());
            this.ahead.drain(..count);
            return Poll::Ready(Ok(()));
        }
        let left = this.flow.left.get();
        if left == 0 {
            // More input may be available, but other tasks run first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(this.stream.poll_read(cx, buffer))?;
        this.flow.left.set(left.saturating_sub(buffer.filled().len() - before));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HttpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = this.stream.poll_write(cx, octets);
        this.flow.is_blocked.set(written.is_pending());
        let written = ready!(written)?;
        this.flow.written.set(this.flow.written.get() + written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = this.stream.poll_flush(cx);
        this.flow.is_blocked.set(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut left = match this.discards {
            Some(left) => left,
            None => {
                ready!(this.stream.poll_shutdown(cx))?;
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
            match this.stream.poll_read(cx, &mut buffer) {
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

/// The byte limit of one turn: some hundred queries, or 7,000 empty frames.
const READ_PER_TURN: usize = 64 << 10;

const MAX_DISCARDED: usize = 1 << 20;

const CHUNKS_PER_TURN: u32 = 16;
