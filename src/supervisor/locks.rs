//! The two locks by which the kernel says who serves and who supervises: record locks (fcntl) on memory files (memfd) that all
//! processes hold.
//!
//! A record lock belongs to a process: it is free within a millisecond of its owner's death, whatever descriptors others have; no
//! child inherits it; it stays over `exec`, as long as the descriptor does. **Closing any descriptor of its file frees it**, so that
//! a memory file is opened once a process and never closed.
//!
//! The lock of who serves has two octets. The server holds the first. A newcomer takes the second, *next in line*, before it asks the
//! server to give up the first; a standby waits for both at once. So when the server lets go, it is the newcomer's turn, however
//! many stand by; and if newcomer and server are dead, a standby has both.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use libc::{F_RDLCK, F_UNLCK, F_WRLCK, SEEK_SET, flock};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use tokio::sync::mpsc::UnboundedSender;

use super::tree::Pid;

/// A lock that all processes of a tree know.
#[derive(Clone, Debug)]
pub(super) struct Lock(Arc<OwnedFd>);

/// Which octets of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What the server has.
    First,
    /// What a newcomer has that is next in line.
    Second,
    Whole,
}

impl Part {
    /// This part as the system call has it.
    fn record(self, kind: i32) -> flock {
        let (start, length) = match self {
            Self::First => (0, 1),
            Self::Second => (1, 1),
            Self::Whole => (0, 2),
        };
        flock { l_type: kind as i16, l_whence: SEEK_SET as i16, l_start: start, l_len: length, l_pid: 0 }
    }
}

impl Lock {
    /// A new lock, which nobody has.
    ///
    /// # Errors
    /// If the system gives no memory file.
    pub(super) fn new(name: &str) -> io::Result<Self> {
        Ok(Self(Arc::new(memfd_create(name, MemfdFlags::CLOEXEC)?)))
    }

    /// The lock that another process has passed; to be called once for each lock, since it is never to be closed.
    pub(super) fn passed(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }

    /// Takes it if nobody else has it; says whether it is ours.
    ///
    /// # Errors
    /// If the system has no room for locks.
    pub(super) fn try_take(&self, part: Part) -> io::Result<bool> {
        match fcntl(&self.0, FcntlArg::F_SETLK(&part.record(F_WRLCK))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it is ours.
    ///
    /// # Errors
    /// If the system has no room for locks, or sees that this could wait for ever (EDEADLK).
    pub(super) fn take(&self, part: Part) -> io::Result<()> {
        loop {
            match fcntl(&self.0, FcntlArg::F_SETLKW(&part.record(F_WRLCK))) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has a thread wait for it, which then tells `had`. If the process ends before, so does the thread.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(super) fn await_in_thread<T: Send + 'static>(
        &self,
        part: Part,
        had: UnboundedSender<T>,
        told: impl FnOnce(io::Result<()>) -> T + Send + 'static,
    ) -> io::Result<()> {
        let lock = self.clone();
        thread::Builder::new().name("lock".to_owned()).spawn(move || drop(had.send(told(lock.take(part)))))?;
        Ok(())
    }

    /// Gives it up.
    ///
    /// # Errors
    /// None that is known of.
    pub(super) fn release(&self, part: Part) -> io::Result<()> {
        fcntl(&self.0, FcntlArg::F_SETLK(&part.record(F_UNLCK)))?;
        Ok(())
    }

    /// The other process that has it.
    pub(super) fn holder(&self, part: Part) -> Option<Pid> {
        let mut record = part.record(F_RDLCK);
        fcntl(&self.0, FcntlArg::F_GETLK(&mut record)).ok()?;
        let is_free = i32::from(record.l_type) == F_UNLCK;
        if is_free { None } else { Pid::try_from(record.l_pid).ok() }
    }

    /// Has it outlast `exec`, with all that is ours of it.
    ///
    /// # Errors
    /// None that is known of.
    pub(super) fn keep_over_exec(&self) -> io::Result<()> {
        let flags = fcntl_getfd(&self.0)?;
        Ok(fcntl_setfd(&self.0, flags.difference(FdFlags::CLOEXEC))?)
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::stdin;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// A record lock belongs to a process, so that these are processes: this program, asked for one test alone. To start one closes a
    /// descriptor of the lock, so whoever does that has no part of it.
    struct Other(Child);

    impl Other {
        /// A process that takes these parts, one after the other, and keeps them.
        fn taking(lock: &Lock, parts: &str) -> Self {
            let mut command = Command::new(std::env::current_exe().expect("we run"));
            command.args(["--exact", "supervisor::locks::tests::another_process_takes_parts"]).env(PARTS, parts);
            let passed = lock.as_fd().try_clone_to_owned().expect("descriptors");
            Self(command.stdin(passed).stdout(Stdio::null()).spawn().expect("we can be run again"))
        }

        fn has(&self, lock: &Lock, part: Part) -> bool {
            lock.holder(part) == Some(self.0.id())
        }
    }

    impl Drop for Other {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Which parts the process takes that is asked for the test below.
    const PARTS: &str = "HEDGEROW_TEST_PARTS";

    fn until(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(15);
        while !holds() {
            assert!(Instant::now() < deadline, "never: {what}");
            thread::yield_now();
        }
    }

    /// Not a test by itself: what [`Other`] does.
    #[test]
    fn another_process_takes_parts() {
        let Ok(parts) = std::env::var(PARTS) else { return };
        let lock = Lock::passed(stdin().as_fd().try_clone_to_owned().expect("descriptors"));
        for part in parts.chars() {
            let part = match part {
                '1' => Part::First,
                '2' => Part::Second,
                _ => Part::Whole,
            };
            lock.take(part).expect("it is free in the end");
        }
        loop {
            thread::park();
        }
    }

    #[test]
    fn a_lock_is_another_ones_when_its_owner_is_killed() {
        let lock = Lock::new("test").expect("memory");
        let first = Other::taking(&lock, "w");
        until("the first has it", || first.has(&lock, Part::First) && first.has(&lock, Part::Second));
        assert!(!lock.try_take(Part::Whole).expect("it is known"));
        let second = Other::taking(&lock, "w");
        drop(first);
        until("the second has it", || second.has(&lock, Part::First));
        drop(second);
        until("nobody has it", || lock.holder(Part::Whole).is_none());
        assert!(lock.try_take(Part::Whole).expect("it is free"));
    }

    #[test]
    fn who_is_next_in_line_comes_before_those_who_stand_by() {
        let lock = Lock::new("test").expect("memory");
        let server = Other::taking(&lock, "1");
        until("the server has it", || server.has(&lock, Part::First));
        let standbys = [Other::taking(&lock, "w"), Other::taking(&lock, "w")];
        let newcomer = Other::taking(&lock, "21");
        until("the newcomer is next in line", || newcomer.has(&lock, Part::Second));
        drop(server);
        until("the newcomer has it", || newcomer.has(&lock, Part::First));
        drop(newcomer);
        until("one that stood by has it", || standbys.iter().any(|standby| standby.has(&lock, Part::First)));
    }
}
