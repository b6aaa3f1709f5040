//! The tasks of one thread, in sets that are polled, so that none ends unnoticed.
//!
//! A task that panics leaves its work undone, such as reading a socket, and tokio only catches the panic. So
//! every task runs in a set here with its [`TaskKind`], and the owner of the thread waits for a [`LostTask`]
//! one. [`Tasks`] may end when their work is done, [`Endless`] may not. `tests/tidy.rs` checks that no task
//! starts elsewhere, unless its set is polled as well.
//!
//! Each task is boxed first: a copy of the runtime's code per type of task would add 0.5 MB to the program.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::{pending, poll_fn};
use std::io;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet, spawn_blocking};

dns::labels! {
    /// The purpose of a task.
    pub enum TaskKind {
        /// Reads a UDP socket of clients.
        Listener = "listener",
        /// Accepts and serves TCP connections of clients.
        Connections = "connections",
        /// Reads the replies of backends.
        Replies = "replies",
        /// Handles queries that other workers hand over.
        HandOver = "hand-over",
        /// Queries a backend by TCP.
        Fetch = "fetch",
        /// Sends a zone to another server.
        Transfer = "transfer",
        /// Ends the intake of a worker.
        Drain = "drain",
        /// Runs a worker.
        Worker = "worker",
        /// Probes a backend.
        Probe = "probe",
        /// Keeps a zone of another server up to date.
        Secondary = "secondary",
        /// Notifies other servers of a new version of a zone.
        Notify = "notify",
        /// Serves the admin address and socket.
        Admin = "admin",
        /// Removes a pool's answers from the cache.
        CacheFlush = "cache-flush",
        /// Saves the cache.
        Persist = "persist",
        /// Reloads config and zones.
        Reload = "reload",
        /// Watches the files of the config.
        Watch = "watch",
        /// Handles signals.
        Signals = "signals",
        /// Writes the records of taps.
        Taps = "taps",
        /// Discovers pool members, and registers our own addresses.
        Discovery = "discovery",
        /// Queries replicas to compare their answers.
        Replicas = "replicas",
    }
}

impl TaskKind {
    /// Panics here in tests that lose a task of this kind; does nothing in other builds.
    pub fn begin(self) {
        #[cfg(feature = "faults")]
        crate::faults::on_task(self.label());
    }

    /// Describes a task of this kind that has panicked.
    pub fn panicked(self, panic: &(dyn Any + Send)) -> LostTask {
        LostTask { kind: self, how: format!("panicked: {}", message_of(panic)) }
    }

    /// Describes a task of this kind that has ended too early.
    pub fn ended(self, result: io::Result<()>) -> LostTask {
        let how = match result {
            Ok(()) => "ended".to_owned(),
            Err(error) => format!("ended: {error}"),
        };
        LostTask { kind: self, how }
    }
}

/// A task that has panicked, or ended too early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostTask {
    /// The purpose of the task.
    pub kind: TaskKind,
    /// The description of its end.
    pub how: String,
}

impl fmt::Display for LostTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a task ({}) {}", self.kind.label(), self.how)
    }
}

/// The tasks of one thread that may end when their work is done. Clones share the set.
#[derive(Clone, Default)]
pub struct Tasks(Rc<TaskSet>);

#[derive(Default)]
struct TaskSet {
    running: RefCell<JoinSet<()>>,
    kinds: RefCell<HashMap<Id, TaskKind>>,
    /// Notified of each added task, because an empty set wakes no waiter.
    added: Notify,
}

/// A running task, which ends when this is dropped.
#[derive(Debug)]
pub struct Task(AbortHandle);

impl Task {
    /// Returns true if the work is done.
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
    /// Starts a task that may end when its work is done. Must be called within a `LocalRuntime`.
    pub fn start(&self, kind: TaskKind, work: impl Future<Output = ()> + 'static) -> Task {
        Task(self.spawn(kind, work))
    }

    /// Starts a task that ends by itself, or with the thread.
    pub fn start_and_leave(&self, kind: TaskKind, work: impl Future<Output = ()> + 'static) {
        self.spawn(kind, work);
    }

    fn spawn(&self, kind: TaskKind, work: impl Future<Output = ()> + 'static) -> AbortHandle {
        let work: Pin<Box<dyn Future<Output = ()>>> = Box::pin(begun(kind, work));
        let handle = self.0.running.borrow_mut().spawn_local(work);
        self.0.kinds.borrow_mut().insert(handle.id(), kind);
        self.0.added.notify_one();
        handle
    }

    /// Waits until a task has panicked.
    pub async fn lost(&self) -> LostTask {
        loop {
            match poll_fn(|cx| self.0.running.borrow_mut().poll_join_next_with_id(cx)).await {
                None => self.0.added.notified().await,
                Some(Ok((id, ()))) => drop(self.0.kinds.borrow_mut().remove(&id)),
                Some(Err(error)) => {
                    let kind = self.0.kinds.borrow_mut().remove(&error.id());
                    if let (Some(kind), Ok(panic)) = (kind, error.try_into_panic()) {
                        return kind.panicked(&*panic);
                    }
                }
            }
        }
    }
}

/// Tasks of one kind that never end by themselves. They end when this is dropped.
pub struct Endless {
    kind: TaskKind,
    running: JoinSet<io::Result<()>>,
}

impl Endless {
    /// Creates an empty set.
    pub fn new(kind: TaskKind) -> Self {
        Self { kind, running: JoinSet::new() }
    }

    /// Starts one more task. Must be called within a `LocalRuntime`.
    pub fn start(&mut self, work: impl Future<Output = io::Result<()>> + 'static) {
        let work: Pin<Box<dyn Future<Output = io::Result<()>>>> = Box::pin(begun(self.kind, work));
        self.running.spawn_local(work);
    }

    /// Polls for a lost task. Pending for ever if the set is empty.
    pub fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<LostTask> {
        match self.running.poll_join_next(cx) {
            Poll::Ready(Some(Ok(result))) => Poll::Ready(self.kind.ended(result)),
            Poll::Ready(Some(Err(error))) => Poll::Ready(match error.try_into_panic() {
                Ok(panic) => self.kind.panicked(&*panic),
                Err(error) => self.kind.ended(Err(error.into())),
            }),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Waits until a task is lost.
    pub async fn lost(&mut self) -> LostTask {
        poll_fn(|cx| self.poll_lost(cx)).await
    }

    /// Aborts the tasks. A panic of one of them is passed on.
    pub async fn stop(mut self) {
        self.running.abort_all();
        self.finish().await;
    }

    /// Waits until the tasks have ended by other means. A panic of one of them is passed on.
    pub async fn finish(mut self) {
        while let Some(ended) = self.running.join_next().await {
            pass_on(ended);
        }
    }
}

async fn begun<T>(kind: TaskKind, work: impl Future<Output = T>) -> T {
    kind.begin();
    work.await
}

/// Runs slow or disk-bound work on a separate thread. A panic is passed on.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => {
            pass_on::<()>(Err(error));
            pending().await
        }
    }
}

/// Runs slow or disk-bound work as a task.
pub async fn blocking_task<T: Send + 'static>(
    kind: TaskKind,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LostTask> {
    let work = move || {
        kind.begin();
        work()
    };
    spawn_blocking(work).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => kind.panicked(&*panic),
        Err(error) => kind.ended(Err(error.into())),
    })
}

/// Resumes the panic of a task that was awaited, so that the waiting task is the lost one.
pub(crate) fn pass_on<T>(ended: Result<T, JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        resume_unwind(panic);
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;
    use tokio::task::{LocalSet, yield_now};

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = Builder::new_current_thread().build().expect("a runtime needs nothing");
        LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn a_panic_is_told_and_an_end_is_not() {
        run(async {
            let tasks = Tasks::default();
            tasks.start_and_leave(TaskKind::Transfer, async {});
            let ended = tasks.start(TaskKind::Secondary, pending());
            let later = tasks.clone();
            tasks.start_and_leave(TaskKind::Notify, async move {
                // Another task starts one during the wait.
                yield_now().await;
                later.start_and_leave(TaskKind::Probe, async { panic!("number {}", 7) });
            });
            drop(ended);
            assert_eq!(tasks.lost().await.to_string(), "a task (probe) panicked: number 7");
        });
    }

    #[test]
    fn an_empty_set_hears_of_its_first_task() {
        run(async {
            let tasks = Tasks::default();
            let other = tasks.clone();
            let adder = tokio::task::spawn_local(async move {
                other.start_and_leave(TaskKind::Fetch, async { panic!("first") });
            });
            assert_eq!(tasks.lost().await, LostTask { kind: TaskKind::Fetch, how: "panicked: first".to_owned() });
            pass_on(adder.await);
        });
    }

    #[test]
    fn tasks_that_never_end_are_lost_however_they_end() {
        run(async {
            for (result, how) in [(Ok(()), "ended"), (Err(io::Error::other("gone")), "ended: gone")] {
                let mut tasks = Endless::new(TaskKind::Listener);
                tasks.start(pending());
                tasks.start(async { result });
                assert_eq!(tasks.lost().await, LostTask { kind: TaskKind::Listener, how: how.to_owned() });
                tasks.stop().await;
            }
            let mut tasks = Endless::new(TaskKind::Replies);
            tasks.start(async { panic!("no more") });
            assert_eq!(tasks.lost().await, LostTask { kind: TaskKind::Replies, how: "panicked: no more".to_owned() });
        });
    }

    #[test]
    fn what_is_done_elsewhere_panics_here() {
        run(async {
            assert_eq!(blocking(|| 7).await, 7);
            let tasks = Tasks::default();
            tasks.start_and_leave(TaskKind::CacheFlush, blocking(|| panic!("full")));
            assert_eq!(tasks.lost().await.to_string(), "a task (cache-flush) panicked: full");
        });
    }
}
