//! The deadline of one request: its reception and the sending of its response.
//!
//! ```text
//!           bytes arrive             request is complete         the response is made
//!   Idle ───────────────▶ Reading ──────────────────▶ Working ────────────────────▶ Writing
//!    ▲                                                                                 │
//!    └──────────────────────── all of it has left ─────────────────────────────────────┘
//! ```
//!
//! A response without end is Streaming instead of Writing: each piece must leave in time. The client's time
//! counts (sending the request and reading the response); the server's work does not. The stream of a
//! connection, its request handler and the eviction of connections share a [`RequestTurn`]. This module
//! closes nothing.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

#[derive(Debug)]
pub(super) struct RequestTurn {
    phase: Cell<TurnPhase>,
    has_answered: Cell<bool>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TurnPhase {
    Idle { since: Instant },
    Reading { since: Instant },
    Working { spent: Duration },
    Writing { since: Instant, spent: Duration, is_whole: bool },
    Streaming { since: Option<Instant> },
}

impl RequestTurn {
    pub(super) fn new() -> Rc<Self> {
        let phase = Cell::new(TurnPhase::Idle { since: Instant::now() });
        Rc::new(Self { phase, has_answered: Cell::new(false), changed: Notify::new() })
    }

    pub(super) fn note_read(&self) {
        self.set(TurnPhase::Working { spent: self.spent() });
    }

    /// Marks the response as made. The guard is dropped when the connection's buffer holds all of it; a
    /// stream has no end, but may end all the same.
    pub(super) fn note_answer(self: &Rc<Self>, is_stream: bool) -> Handing {
        let (now, spent) = (Instant::now(), self.spent());
        self.set(match is_stream {
            true => TurnPhase::Streaming { since: Some(now) },
            false => TurnPhase::Writing { since: now, spent, is_whole: false },
        });
        self.has_answered.set(true);
        Handing(Rc::clone(self))
    }

    /// Returns the time in which the client sent the request, which may be refused before it is complete.
    fn spent(&self) -> Duration {
        match self.phase.get() {
            TurnPhase::Reading { since } => since.elapsed(),
            TurnPhase::Working { spent } => spent,
            // It arrived together with the previous one.
            TurnPhase::Idle { .. } | TurnPhase::Writing { .. } | TurnPhase::Streaming { .. } => Duration::ZERO,
        }
    }

    /// Returns true if a response has been made on this connection.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.get()
    }

    pub(super) fn is_streaming(&self) -> bool {
        matches!(self.phase.get(), TurnPhase::Streaming { .. })
    }

    pub(super) async fn overdue(&self) {
        loop {
            match self.due() {
                None => self.changed.notified().await,
                Some(at) if timeout_at(at, self.changed.notified()).await.is_err() => return,
                Some(_) => {}
            }
        }
    }

    /// Returns the deadline of the client, if the client is the one to act.
    fn due(&self) -> Option<Instant> {
        match self.phase.get() {
            TurnPhase::Idle { .. } | TurnPhase::Working { .. } => None,
            TurnPhase::Reading { since } => Some(since + PATIENCE),
            TurnPhase::Writing { since, spent, .. } => Some(since + PATIENCE.saturating_sub(spent)),
            TurnPhase::Streaming { since } => since.map(|since| since + PATIENCE),
        }
    }

    /// Returns the eviction order, the least first: idle connections, longest idle first, then slow clients.
    /// `None` while a request is being carried out or a stream is open.
    pub(super) fn claim(&self) -> Option<(bool, Instant)> {
        match self.phase.get() {
            TurnPhase::Idle { since } => Some((false, since)),
            TurnPhase::Reading { since } | TurnPhase::Writing { since, .. } => Some((true, since)),
            TurnPhase::Working { .. } | TurnPhase::Streaming { .. } => None,
        }
    }

    fn hear(&self) {
        if let TurnPhase::Idle { .. } = self.phase.get() {
            self.set(TurnPhase::Reading { since: Instant::now() });
        }
    }

    fn flushed(&self) {
        match self.phase.get() {
            TurnPhase::Writing { is_whole: true, .. } => self.set(TurnPhase::Idle { since: Instant::now() }),
            TurnPhase::Streaming { since: Some(_) } => self.set(TurnPhase::Streaming { since: None }),
            TurnPhase::Idle { .. }
            | TurnPhase::Reading { .. }
            | TurnPhase::Working { .. }
            | TurnPhase::Writing { .. }
            | TurnPhase::Streaming { since: None } => {}
        }
    }

    fn set(&self, phase: TurnPhase) {
        self.phase.set(phase);
        self.changed.notify_one();
    }
}

/// A response on its way into the connection's buffer. Its body owns the guard until it is consumed.
#[derive(Debug)]
pub(super) struct Handing(Rc<RequestTurn>);

impl Handing {
    pub(super) fn hand(&self) {
        if let TurnPhase::Streaming { since: None } = self.0.phase.get() {
            self.0.set(TurnPhase::Streaming { since: Some(Instant::now()) });
        }
    }
}

impl Drop for Handing {
    fn drop(&mut self) {
        match self.0.phase.get() {
            TurnPhase::Writing { since, spent, .. } => self.0.set(TurnPhase::Writing { since, spent, is_whole: true }),
            TurnPhase::Streaming { since } => {
                let since = since.unwrap_or_else(Instant::now);
                self.0.set(TurnPhase::Writing { since, spent: Duration::ZERO, is_whole: true });
            }
            TurnPhase::Idle { .. } | TurnPhase::Reading { .. } | TurnPhase::Working { .. } => {}
        }
    }
}

pub(super) struct TimedStream<S> {
    stream: S,
    turn: Rc<RequestTurn>,
}

impl<S> TimedStream<S> {
    pub(super) fn new(stream: S, turn: Rc<RequestTurn>) -> Self {
        Self { stream, turn }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.turn.hear();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if polled.is_ready() {
            self.turn.flushed();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The time of one request: sending it and reading the response together.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_and_writing_share_one_deadline_and_work_does_not_count() {
        let turn = RequestTurn::new();
        assert_eq!(turn.due(), None, "nothing has come");
        turn.hear();
        let due = turn.due().expect("a request has begun");
        assert!(due <= Instant::now() + PATIENCE);
        turn.hear();
        assert_eq!(turn.due(), Some(due), "more of the same request");
        let spent = Duration::from_secs(9);
        turn.set(TurnPhase::Reading { since: Instant::now() - spent });
        turn.note_read();
        assert_eq!(turn.due(), None, "it is our turn");
        let handing = turn.note_answer(false);
        let left = turn.due().expect("it is the client's turn") - Instant::now();
        assert!(left <= PATIENCE - spent, "{left:?}");
        turn.flushed();
        assert!(turn.due().is_some(), "only a part of the response has left");
        drop(handing);
        assert!(turn.due().is_some(), "the rest is in the buffer");
        turn.flushed();
        assert_eq!(turn.due(), None, "all of it has left");
    }

    #[test]
    fn who_listens_must_take_each_piece_in_time() {
        let turn = RequestTurn::new();
        turn.hear();
        turn.note_read();
        let handing = turn.note_answer(true);
        assert!(turn.due().is_some_and(|due| due <= Instant::now() + PATIENCE), "its head is to leave");
        turn.flushed();
        assert_eq!((turn.due(), turn.claim()), (None, None), "there is nothing to take");
        handing.hand();
        let due = turn.due().expect("a piece is to leave");
        handing.hand();
        assert_eq!(turn.due(), Some(due), "the first piece still waits");
        turn.flushed();
        assert_eq!(turn.due(), None);
        drop(handing);
        assert!(turn.due().is_some() && !turn.is_streaming(), "its end is to leave");
        turn.flushed();
        assert!(turn.claim().is_some(), "idle again");
    }

    #[test]
    fn who_asks_nothing_makes_room_first_and_who_waits_for_us_never() {
        let (idle, reading, working) = (RequestTurn::new(), RequestTurn::new(), RequestTurn::new());
        reading.set(TurnPhase::Reading { since: Instant::now() - PATIENCE });
        assert!(idle.claim() < reading.claim());
        working.hear();
        working.note_read();
        assert_eq!(working.claim(), None);
        let _handing = working.note_answer(false);
        assert!(reading.claim() < working.claim(), "the longest under way");
    }
}
