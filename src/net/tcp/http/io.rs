//! What HTTP reads and writes: a connection, in the clear or encrypted, by the traits of the runtime. It also sees to two things that those
//! who parse do not know of: how much is read in one turn, and whether the client takes what it is sent.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::tcp::stream::Stream;

/// A connection as HTTP reads and writes it.
pub(super) struct HttpStream {
    stream: Stream,
    /// Octets that were read to see what they are.
    ahead: Vec<u8>,
    flow: Rc<Flow>,
    /// Octets that may still be discarded, once the sending side is shut down.
    discards: Option<usize>,
}

/// How octets come and go, for who serves the connection.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Octets that may still be read in this turn.
    left: Cell<usize>,
    /// Octets that were written since somebody asked.
    written: Cell<usize>,
    /// Whether the kernel takes no more at the moment.
    is_blocked: Cell<bool>,
    /// True if nothing more is sent, and what comes is discarded.
    is_shut: Cell<bool>,
}

impl Flow {
    /// Another turn begins.
    pub(super) fn begin_turn(&self) {
        self.left.set(READ_PER_TURN);
    }

    /// Octets that were written since this was last asked.
    pub(super) fn take_written(&self) -> usize {
        self.written.take()
    }

    /// Whether something is to be written that the kernel does not take.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked.get()
    }

    /// True if nothing more is sent, and the client is to end its side.
    pub(super) fn is_shut(&self) -> bool {
        self.is_shut.get()
    }
}

impl HttpStream {
    pub(super) fn new(stream: Stream) -> (Self, Rc<Flow>) {
        let flow = Rc::new(Flow::default());
        (Self { stream, ahead: Vec::new(), flow: Rc::clone(&flow), discards: None }, flow)
    }

    /// Whether a client that does not say so speaks HTTP/2, as it may do by prior knowledge (RFC 9113 section 3.3). What was read for
    /// that is read again.
    ///
    /// # Errors
    /// If the connection breaks before.
    pub(super) fn poll_is_http2(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
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
            // There may be more, but others have their turn first.
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
        // RFC 9112 section 9.6: octets that come after the close have the kernel reset the connection, and the client may never see the last
        // response. The clock of the connection ends the wait.
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
        // There may be more, but others have their turn first.
        this.discards = Some(left);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// What a client of HTTP/2 begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Octets that are read in one turn: some hundred queries, or 7,000 empty frames.
const READ_PER_TURN: usize = 64 << 10;

/// Octets of a client that are discarded after the last response.
const MAX_DISCARDED: usize = 1 << 20;

/// Chunks of 4096 octets that are discarded in one turn.
const CHUNKS_PER_TURN: u32 = 16;
