//! Turns: of thousands of member zones only a few ask and transfer at a time. Zones with a hint of a primary
//! come first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

/// Turns of one kind. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct SecondaryTurns(Rc<RefCell<Queues>>);

#[derive(Debug)]
struct Queues {
    free: usize,
    /// Zones with a hint, first come first served.
    urgent: VecDeque<oneshot::Sender<SecondaryTurn>>,
    usual: VecDeque<oneshot::Sender<SecondaryTurn>>,
}

/// A turn, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct SecondaryTurn(SecondaryTurns);

impl SecondaryTurns {
    pub(super) fn new(free: usize) -> Self {
        Self(Rc::new(RefCell::new(Queues { free, urgent: VecDeque::new(), usual: VecDeque::new() })))
    }

    /// Waits for a turn. A signal of `heard` moves the zone to the urgent queue.
    pub(super) async fn take(&self, is_urgent: bool, heard: &Notify) -> SecondaryTurn {
        if !is_urgent {
            tokio::select! {
                biased;
                turn = self.wait(false) => return turn,
                () = heard.notified() => {}
            }
        }
        self.wait(true).await
    }

    async fn wait(&self, is_urgent: bool) -> SecondaryTurn {
        let turn = {
            let mut queues = self.0.borrow_mut();
            if queues.free > 0 {
                queues.free -= 1;
                return SecondaryTurn(self.clone());
            }
            let (sender, turn) = oneshot::channel();
            let queue = if is_urgent { &mut queues.urgent } else { &mut queues.usual };
            // A cancelled waiter is skipped at its turn, and removed when there are many.
            if queue.len() > MANY && queue.len() == queue.capacity() {
                queue.retain(|waiting| !waiting.is_closed());
            }
            queue.push_back(sender);
            turn
        };
        turn.await.expect("who waits is called, or is never polled again")
    }
}

impl Drop for SecondaryTurn {
    fn drop(&mut self) {
        let mut queues = self.0.0.borrow_mut();
        loop {
            match queues.urgent.pop_front().or_else(|| queues.usual.pop_front()) {
                None => return queues.free += 1,
                Some(next) if next.is_closed() => {}
                Some(next) => {
                    // If the receiver is gone, the drop of its turn needs the queues unborrowed.
                    drop(queues);
                    let _ = next.send(Self(self.0.clone()));
                    return;
                }
            }
        }
    }
}

/// Limits log lines about primaries of member zones: one absent primary would fill the log. Clones count
/// together.
#[derive(Clone, Debug, Default)]
pub(super) struct Complaints(Rc<Cell<Option<(Instant, u32)>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Complaint {
    Logged,
    /// The line is left out, and the log notes that.
    FirstLeftOut,
    LeftOut,
}

impl Complaints {
    pub(super) fn add(&self, now: Instant) -> Complaint {
        let (since, count) = match self.0.get() {
            Some((since, count)) if now.saturating_duration_since(since) < MINUTE => (since, count),
            Some(_) | None => (now, 0),
        };
        self.0.set(Some((since, count.saturating_add(1))));
        match count {
            0..MAX_REPORTS => Complaint::Logged,
            MAX_REPORTS => Complaint::FirstLeftOut,
            _ => Complaint::LeftOut,
        }
    }
}

/// The largest number of lines in a minute.
const MAX_REPORTS: u32 = 10;

const MINUTE: Duration = Duration::from_secs(60);

/// The queue length from which cancelled waiters are removed.
const MANY: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    fn poll(future: Pin<&mut impl Future<Output = SecondaryTurn>>) -> Option<SecondaryTurn> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_was_heard_of_comes_first() {
        let (turns, silent, heard) = (SecondaryTurns::new(1), Notify::new(), Notify::new());
        let first = poll(pin!(turns.take(false, &silent))).expect("it is free");
        let mut usual = pin!(turns.take(false, &silent));
        let mut brought_forward = pin!(turns.take(false, &heard));
        let mut urgent = pin!(turns.take(true, &silent));
        assert!(poll(usual.as_mut()).is_none());
        assert!(poll(brought_forward.as_mut()).is_none() && poll(urgent.as_mut()).is_none());
        heard.notify_one();
        assert!(poll(brought_forward.as_mut()).is_none());
        drop(first);
        assert!(poll(usual.as_mut()).is_none() && poll(brought_forward.as_mut()).is_none());
        let second = poll(urgent.as_mut()).expect("it waited first of those");
        drop(second);
        assert!(poll(usual.as_mut()).is_none());
        let third = poll(brought_forward.as_mut()).expect("its turn");
        drop(third);
        assert!(poll(usual.as_mut()).is_some());
    }

    #[test]
    fn a_few_lines_a_minute_are_told() {
        let (complaints, now) = (Complaints::default(), Instant::now());
        let many = |after| (0..100).map(move |_| after).map(|after| complaints.clone().add(now + after));
        for after in [Duration::ZERO, MINUTE, MINUTE * 3] {
            let all: Vec<_> = many(after).collect();
            let count = |what| all.iter().filter(|complaint| **complaint == what).count();
            let counts = [Complaint::Logged, Complaint::FirstLeftOut, Complaint::LeftOut].map(count);
            assert_eq!(counts, [10, 1, 89], "{after:?}");
        }
    }

    #[test]
    fn who_gives_up_takes_nobodys_turn() {
        let (turns, silent) = (SecondaryTurns::new(1), Notify::new());
        let first = poll(pin!(turns.take(false, &silent))).expect("it is free");
        {
            let mut called = pin!(turns.take(false, &silent));
            let mut never_called = pin!(turns.take(false, &silent));
            assert!(poll(called.as_mut()).is_none() && poll(never_called.as_mut()).is_none());
            drop(first);
        }
        assert!(poll(pin!(turns.take(false, &silent))).is_some());
    }
}
