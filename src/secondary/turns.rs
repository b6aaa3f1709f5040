//! Turns: of thousands of zones that a catalog lists a few ask and transfer at a time, those first of which a primary has told that
//! they have changed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

/// Turns to do one thing. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Turns(Rc<RefCell<Queues>>);

/// Who waits.
#[derive(Debug)]
struct Queues {
    /// Turns that nobody has.
    free: usize,
    /// Those of which something was heard, the first one first.
    urgent: VecDeque<oneshot::Sender<Turn>>,
    /// The others.
    usual: VecDeque<oneshot::Sender<Turn>>,
}

/// A turn, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Turn(Turns);

impl Turns {
    /// So many at a time.
    pub(super) fn new(free: usize) -> Self {
        Self(Rc::new(RefCell::new(Queues { free, urgent: VecDeque::new(), usual: VecDeque::new() })))
    }

    /// Waits for a turn; `heard` tells that something was heard of the zone meanwhile, which brings it forward.
    pub(super) async fn take(&self, is_urgent: bool, heard: &Notify) -> Turn {
        if !is_urgent {
            tokio::select! {
                biased;
                turn = self.wait(false) => return turn,
                () = heard.notified() => {}
            }
        }
        self.wait(true).await
    }

    /// Waits in one of the queues.
    async fn wait(&self, is_urgent: bool) -> Turn {
        let turn = {
            let mut queues = self.0.borrow_mut();
            if queues.free > 0 {
                queues.free -= 1;
                return Turn(self.clone());
            }
            let (sender, turn) = oneshot::channel();
            let queue = if is_urgent { &mut queues.urgent } else { &mut queues.usual };
            // Those that have given up are passed over when they are called, and cleared away when they are many.
            if queue.len() > MANY && queue.len() == queue.capacity() {
                queue.retain(|waiting| !waiting.is_closed());
            }
            queue.push_back(sender);
            turn
        };
        turn.await.expect("who waits is called, or is never polled again")
    }
}

impl Drop for Turn {
    /// Gives it to whoever is next.
    fn drop(&mut self) {
        let mut queues = self.0.0.borrow_mut();
        loop {
            match queues.urgent.pop_front().or_else(|| queues.usual.pop_front()) {
                None => return queues.free += 1,
                Some(next) if next.is_closed() => {}
                Some(next) => {
                    // Its drop, if nobody takes it after all, must find the queues free.
                    drop(queues);
                    let _ = next.send(Self(self.0.clone()));
                    return;
                }
            }
        }
    }
}

/// Lines of the log on primaries of such zones: one primary that is away would fill it by all zones at once. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Complaints(Rc<Cell<Option<(Instant, u32)>>>);

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Complaint {
    /// It is told.
    Told,
    /// It is left out, and that is told.
    FirstLeftOut,
    /// It is left out.
    LeftOut,
}

impl Complaints {
    /// One more line.
    pub(super) fn add(&self, now: Instant) -> Complaint {
        let (since, told) = match self.0.get() {
            Some((since, told)) if now.saturating_duration_since(since) < MINUTE => (since, told),
            Some(_) | None => (now, 0),
        };
        self.0.set(Some((since, told.saturating_add(1))));
        match told {
            0..MAX_TOLD => Complaint::Told,
            MAX_TOLD => Complaint::FirstLeftOut,
            _ => Complaint::LeftOut,
        }
    }
}

/// Lines that are told in a minute.
const MAX_TOLD: u32 = 10;

/// How long lines are counted together.
const MINUTE: Duration = Duration::from_secs(60);

/// As many that have given up may be in a queue before that is cleared.
const MANY: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    fn poll(future: Pin<&mut impl Future<Output = Turn>>) -> Option<Turn> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_was_heard_of_comes_first() {
        let (turns, silent, heard) = (Turns::new(1), Notify::new(), Notify::new());
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
            let counts = [Complaint::Told, Complaint::FirstLeftOut, Complaint::LeftOut].map(count);
            assert_eq!(counts, [10, 1, 89], "{after:?}");
        }
    }

    #[test]
    fn who_gives_up_takes_nobodys_turn() {
        let (turns, silent) = (Turns::new(1), Notify::new());
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
