//! How long one request takes its client: the time in which it must have come, and its response gone.
//!
//! ```text
//!           octets come              all of it is there          the response is made
//!   Idle ───────────────▶ Reading ──────────────────▶ Working ────────────────────▶ Writing
//!    ▲                                                                                 │
//!    └──────────────────────── all of it has left ─────────────────────────────────────┘
//! ```
//!
//! A response without end is Streaming instead of Writing: each piece of it must leave in time.
//!
//! What the client takes to send its request and to read the response counts; what we take to do what it asks does not. A
//! [`Turn`] is shared by the stream of a connection, which tells of octets, by whoever answers its requests, and by whoever decides
//! which connection makes room for another. Nothing here closes anything.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Where a connection is with its requests.
#[derive(Debug)]
pub(super) struct Turn {
    /// Now.
    phase: Cell<Phase>,
    /// Timed of each change.
    changed: Notify,
}

/// A state of a [`Turn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is no request.
    Idle {
        /// The last one was done then.
        since: Instant,
    },
    /// One has begun to come.
    Reading {
        /// The first of it came then.
        since: Instant,
    },
    /// It is there, and being carried out.
    Working {
        /// How long it took to come.
        spent: Duration,
    },
    /// Its response leaves.
    Writing {
        /// From this moment on.
        since: Instant,
        /// How long the request took to come.
        spent: Duration,
        /// Whether all of the response is in the buffer of the connection.
        is_whole: bool,
    },
    /// Its response has no end.
    Streaming {
        /// A piece of it has been waiting to leave since then.
        since: Option<Instant>,
    },
}

impl Turn {
    /// A connection that has just been accepted.
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self { phase: Cell::new(Phase::Idle { since: Instant::now() }), changed: Notify::new() })
    }

    /// All of a request is there.
    pub(super) fn is_read(&self) {
        let spent = match self.phase.get() {
            Phase::Reading { since } => since.elapsed(),
            // It came together with the one before.
            Phase::Idle { .. } | Phase::Working { .. } | Phase::Writing { .. } | Phase::Streaming { .. } => {
                Duration::ZERO
            }
        };
        self.set(Phase::Working { spent });
    }

    /// The response to the request is made. What is returned is dropped when all of it is in the buffer of the connection.
    pub(super) fn is_answered(self: &Rc<Self>) -> Handing {
        let spent = match self.phase.get() {
            Phase::Working { spent } => spent,
            // Refused before it was read.
            Phase::Reading { since } => since.elapsed(),
            Phase::Idle { .. } | Phase::Writing { .. } | Phase::Streaming { .. } => Duration::ZERO,
        };
        self.set(Phase::Writing { since: Instant::now(), spent, is_whole: false });
        Handing(Rc::clone(self))
    }

    /// The response to the request is made, and has no end. What is returned is dropped if it ends all the same.
    pub(super) fn is_streamed(self: &Rc<Self>) -> Handing {
        self.set(Phase::Streaming { since: Some(Instant::now()) });
        Handing(Rc::clone(self))
    }

    /// Whether its response has no end.
    pub(super) fn is_streaming(&self) -> bool {
        matches!(self.phase.get(), Phase::Streaming { .. })
    }

    /// Waits until the client has taken longer than it may.
    pub(super) async fn overdue(&self) {
        loop {
            match self.due() {
                None => self.changed.notified().await,
                Some(at) if timeout_at(at, self.changed.notified()).await.is_err() => return,
                Some(_) => {}
            }
        }
    }

    /// When the client will have taken too long, if it is its turn.
    fn due(&self) -> Option<Instant> {
        match self.phase.get() {
            Phase::Idle { .. } | Phase::Working { .. } => None,
            Phase::Reading { since } => Some(since + PATIENCE),
            Phase::Writing { since, spent, .. } => Some(since + PATIENCE.saturating_sub(spent)),
            Phase::Streaming { since } => since.map(|since| since + PATIENCE),
        }
    }

    /// How soon the connection makes room for another, the least first: those without a request, the longest idle of them first;
    /// then those whose clients take their time. None for one whose request is being carried out, or whose client listens.
    pub(super) fn claim(&self) -> Option<(bool, Instant)> {
        match self.phase.get() {
            Phase::Idle { since } => Some((false, since)),
            Phase::Reading { since } | Phase::Writing { since, .. } => Some((true, since)),
            Phase::Working { .. } | Phase::Streaming { .. } => None,
        }
    }

    /// Octets have come.
    fn hear(&self) {
        if let Phase::Idle { .. } = self.phase.get() {
            self.set(Phase::Reading { since: Instant::now() });
        }
    }

    /// The buffer of the connection is empty.
    fn flushed(&self) {
        match self.phase.get() {
            Phase::Writing { is_whole: true, .. } => self.set(Phase::Idle { since: Instant::now() }),
            Phase::Streaming { since: Some(_) } => self.set(Phase::Streaming { since: None }),
            Phase::Idle { .. }
            | Phase::Reading { .. }
            | Phase::Working { .. }
            | Phase::Writing { .. }
            | Phase::Streaming { since: None } => {}
        }
    }

    /// Goes on.
    fn set(&self, phase: Phase) {
        self.phase.set(phase);
        self.changed.notify_one();
    }
}

/// A response on its way into the buffer of its connection: goes with its body, and is dropped when that has been taken whole.
#[derive(Debug)]
pub(super) struct Handing(Rc<Turn>);

impl Handing {
    /// A piece of it is in the buffer of the connection.
    pub(super) fn hand(&self) {
        if let Phase::Streaming { since: None } = self.0.phase.get() {
            self.0.set(Phase::Streaming { since: Some(Instant::now()) });
        }
    }
}

impl Drop for Handing {
    fn drop(&mut self) {
        match self.0.phase.get() {
            Phase::Writing { since, spent, .. } => self.0.set(Phase::Writing { since, spent, is_whole: true }),
            Phase::Streaming { since } => {
                let since = since.unwrap_or_else(Instant::now);
                self.0.set(Phase::Writing { since, spent: Duration::ZERO, is_whole: true });
            }
            Phase::Idle { .. } | Phase::Reading { .. } | Phase::Working { .. } => {}
        }
    }
}

/// A stream that tells its [`Turn`] what comes and what has left.
pub(super) struct Timed<S> {
    stream: S,
    /// Who is told.
    turn: Rc<Turn>,
}

impl<S> Timed<S> {
    /// A stream, and who is to be told of it.
    pub(super) fn new(stream: S, turn: Rc<Turn>) -> Self {
        Self { stream, turn }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.turn.hear();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
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

/// How long one request may take its client, sending it and reading the response together.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_and_writing_share_one_deadline_and_work_does_not_count() {
        let turn = Turn::new();
        assert_eq!(turn.due(), None, "nothing has come");
        turn.hear();
        let due = turn.due().expect("a request has begun");
        assert!(due <= Instant::now() + PATIENCE);
        turn.hear();
        assert_eq!(turn.due(), Some(due), "more of the same request");
        let spent = Duration::from_secs(9);
        turn.set(Phase::Reading { since: Instant::now() - spent });
        turn.is_read();
        assert_eq!(turn.due(), None, "it is our turn");
        let handing = turn.is_answered();
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
        let turn = Turn::new();
        turn.hear();
        turn.is_read();
        let handing = turn.is_streamed();
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
        let (idle, reading, working) = (Turn::new(), Turn::new(), Turn::new());
        reading.set(Phase::Reading { since: Instant::now() - PATIENCE });
        assert!(idle.claim() < reading.claim());
        working.hear();
        working.is_read();
        assert_eq!(working.claim(), None);
        let _handing = working.is_answered();
        assert!(reading.claim() < working.claim(), "the longest under way");
    }
}
