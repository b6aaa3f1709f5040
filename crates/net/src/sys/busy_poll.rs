//! Busy polling: a loop polls for more work for a while before it sleeps (`busy_poll` in the config).
//!
//! Sleep and wakeup cost microseconds, on a virtual machine dozens, and each query that arrives meanwhile
//! waits. The loop polls through the runtime, which checks all sockets and runs every other ready task, so no
//! task starves.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::task::yield_now;

/// The busy-poll state of one loop.
#[derive(Clone, Copy, Debug)]
pub struct BusyPoll {
    /// The time awake after the last work; zero disables busy polling.
    span: Duration,
    end: Option<Instant>,
}

impl BusyPoll {
    /// Creates the state with this time awake after each work.
    pub fn new(span: Duration) -> Self {
        Self { span, end: None }
    }

    /// Restarts the time awake after some work.
    pub fn renew(&mut self) {
        if !self.span.is_zero() {
            // Not the time of the turn: a full batch may take longer than the whole span.
            self.end = Some(Instant::now() + self.span);
        }
    }

    /// Waits for `ready`, awake at first and then asleep.
    pub async fn wait<T>(&self, ready: impl Future<Output = T>) -> T {
        let mut ready = pin!(ready);
        while self.end.is_some_and(|end| Instant::now() < end) {
            if let Poll::Ready(value) = poll_fn(|context| Poll::Ready(ready.as_mut().poll(context))).await {
                return value;
            }
            yield_now().await;
        }
        ready.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use tokio::runtime::Builder;
    use tokio::sync::Notify;
    use tokio::task::LocalSet;

    /// Waits until the thread goes to sleep. Returns the time and the number of polls before.
    fn wait_for_sleep(busy_poll: BusyPoll) -> (Duration, usize) {
        let asleep = Arc::new(Notify::new());
        let sleeper = Arc::clone(&asleep);
        let runtime = Builder::new_current_thread().on_thread_park(move || sleeper.notify_one()).build();
        let (began, mut looks) = (Instant::now(), 0);
        LocalSet::new().block_on(&runtime.expect("a runtime needs nothing"), async {
            let mut asleep = pin!(asleep.notified());
            let ready = poll_fn(|context| {
                looks += 1;
                asleep.as_mut().poll(context)
            });
            busy_poll.wait(ready).await;
        });
        (began.elapsed(), looks)
    }

    #[test]
    fn sleep_comes_when_the_span_is_over() {
        let span = Duration::from_millis(20);
        let mut busy_poll = BusyPoll::new(span);
        busy_poll.renew();
        let (time, looks) = wait_for_sleep(busy_poll);
        assert!(time >= span, "{time:?}");
        assert!(looks > 2, "{looks}");
    }

    #[test]
    fn sleep_comes_at_once_without_work_and_without_a_span() {
        let mut without_span = BusyPoll::new(Duration::ZERO);
        without_span.renew();
        for busy_poll in [BusyPoll::new(Duration::from_secs(60)), without_span] {
            // Before the sleep and after it.
            assert_eq!(wait_for_sleep(busy_poll).1, 2);
        }
    }

    #[test]
    fn others_have_their_turn_meanwhile() {
        let runtime = Builder::new_current_thread().build().expect("a runtime needs nothing");
        let span = Duration::from_secs(60);
        let began = Instant::now();
        LocalSet::new().block_on(&runtime, async {
            let other = tokio::task::spawn_local(async {
                for _ in 0..100 {
                    yield_now().await;
                }
            });
            let mut busy_poll = BusyPoll::new(span);
            busy_poll.renew();
            busy_poll.wait(other).await.expect("it ends");
        });
        assert!(began.elapsed() < span);
    }
}
