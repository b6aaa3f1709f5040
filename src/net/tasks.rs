//! The tasks of one thread, in a set that somebody polls: none of them ends unseen.
//!
//! A task that panics takes its part of the work with it: a socket that nobody reads any more, a zone that is not looked after. tokio
//! catches the panic and says nothing, so who starts tasks keeps them here, and whoever owns the thread waits for
//! [`Tasks::lost`].

use std::any::Any;
use std::cell::RefCell;
use std::future::poll_fn;
use std::panic::resume_unwind;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinError, JoinSet};

/// The tasks of one thread. Clones are the same set.
#[derive(Clone, Default)]
pub struct Tasks(Rc<Set>);

/// What clones share.
#[derive(Default)]
struct Set {
    /// Those that run.
    running: RefCell<JoinSet<()>>,
    /// Told of each that is added: an empty set wakes nobody.
    added: Notify,
}

/// A running task. It ends when this is dropped.
#[derive(Debug)]
pub struct Task(AbortHandle);

impl Task {
    /// Whether its work is done.
    pub fn is_over(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Tasks {
    /// Starts a task, which may end when its work is done. Must be called within a `LocalSet`.
    pub fn start(&self, work: impl Future<Output = ()> + 'static) -> Task {
        Task(self.spawn(work))
    }

    /// Starts a task that ends by itself, or with the thread.
    pub fn start_and_leave(&self, work: impl Future<Output = ()> + 'static) {
        self.spawn(work);
    }

    /// Adds a task.
    fn spawn(&self, work: impl Future<Output = ()> + 'static) -> AbortHandle {
        let handle = self.0.running.borrow_mut().spawn_local(work);
        self.0.added.notify_one();
        handle
    }

    /// Waits until one of them has panicked, and tells with what message.
    pub async fn lost(&self) -> String {
        loop {
            match poll_fn(|cx| self.0.running.borrow_mut().poll_join_next(cx)).await {
                None => self.0.added.notified().await,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    if let Some(message) = panic_of(error) {
                        return message;
                    }
                }
            }
        }
    }
}

/// What a task panicked with; none if it was ended from outside.
pub fn panic_of(error: JoinError) -> Option<String> {
    error.try_into_panic().ok().map(|panic| message_of(&*panic))
}

/// Goes on with the panic of a task that was waited for: it is then whoever waited that is lost.
pub fn pass_on<T>(ended: Result<T, JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        resume_unwind(panic);
    }
}

/// The message of a panic.
pub fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;
    use tokio::task::{LocalSet, yield_now};

    use super::*;

    /// Runs a test within a `LocalSet`.
    fn run(test: impl Future<Output = ()>) {
        let runtime = Builder::new_current_thread().build().expect("a runtime needs nothing");
        LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn a_panic_is_told_and_an_end_is_not() {
        run(async {
            let tasks = Tasks::default();
            tasks.start_and_leave(async {});
            let ended = tasks.start(std::future::pending());
            let later = tasks.clone();
            tasks.start_and_leave(async move {
                // One that is started while somebody waits already, by another task.
                yield_now().await;
                later.start_and_leave(async { panic!("number {}", 7) });
            });
            drop(ended);
            assert_eq!(tasks.lost().await, "number 7");
        });
    }

    #[test]
    fn an_empty_set_hears_of_its_first_task() {
        run(async {
            let tasks = Tasks::default();
            let other = tasks.clone();
            let adder = tokio::task::spawn_local(async move { other.start_and_leave(async { panic!("first") }) });
            assert_eq!(tasks.lost().await, "first");
            pass_on(adder.await);
        });
    }
}
