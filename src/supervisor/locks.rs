//! The two locks that make one process the server and one the supervisor: record locks (fcntl) on memory
//! files (memfd) that all processes hold.
//!
//! A record lock belongs to a process. It is free within a millisecond of its owner's death, whatever
//! descriptors other processes hold. Children do not inherit it. It survives `exec` as long as its descriptor
//! does. **Closing any descriptor of its file frees it**, so each process opens the memory file once and
//! never closes it, and keeps open any further descriptor of it that another process sends ([`is_lock`]).
//! Locks of an open file description (F_OFD_SETLK) do not work here: all processes share the description, so
//! all would hold the lock, it would outlive its owner, and F_OFD_GETLK names no process.
//!
//! The server's lock has two bytes. The server holds the first. A newcomer takes the second, *next in line*,
//! before it asks the server to release the first; a standby waits for both at once. So the newcomer comes
//! next, however many processes stand by; if newcomer and server die, a standby gets both bytes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use libc::{F_RDLCK, F_UNLCK, F_WRLCK, SEEK_SET, flock};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{MemfdFlags, fstat, memfd_create};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use tokio::sync::oneshot;

use super::tree::Pid;

#[derive(Clone, Debug)]
pub(super) struct Lock(Arc<OwnedFd>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockPart {
    /// Held by the server.
    First,
    /// Held by the newcomer that is next in line.
    Second,
    Whole,
}

impl LockPart {
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
    pub(super) fn new(name: &str) -> io::Result<Self> {
        Ok(Self::passed(memfd_create(name, MemfdFlags::CLOEXEC)?))
    }

    /// Wraps a lock that another process has passed. Call it once per lock, which must never be closed.
    pub(super) fn passed(fd: OwnedFd) -> Self {
        FILES.lock().unwrap_or_else(PoisonError::into_inner).extend(file_of(fd.as_fd()));
        Self(Arc::new(fd))
    }

    /// Returns true if this process holds the lock now.
    pub(super) fn try_take(&self, part: LockPart) -> io::Result<bool> {
        match fcntl(&self.0, FcntlArg::F_SETLK(&part.record(F_WRLCK))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Blocks until this process holds the lock.
    ///
    /// The kernel takes all threads of a process for one. It reports a deadlock if a process that waits for
    /// both locks has got one, and the owner of the other waits for that one. The first process then becomes
    /// the supervisor and waits no more.
    pub(super) fn take(&self, part: LockPart) -> io::Result<()> {
        loop {
            match fcntl(&self.0, FcntlArg::F_SETLKW(&part.record(F_WRLCK))) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EDEADLK) => thread::sleep(RETRY),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for the lock in a thread, which does not end before it has the lock.
    pub(super) async fn wait(self, part: LockPart) -> io::Result<()> {
        let (sender, had) = oneshot::channel();
        thread::Builder::new().name("lock".to_owned()).spawn(move || drop(sender.send(self.take(part))))?;
        had.await.unwrap_or_else(|_| Err(io::Error::other("no thread waits for the lock any more")))
    }

    pub(super) fn release(&self, part: LockPart) -> io::Result<()> {
        fcntl(&self.0, FcntlArg::F_SETLK(&part.record(F_UNLCK)))?;
        Ok(())
    }

    pub(super) fn holder(&self, part: LockPart) -> Option<Pid> {
        let mut record = part.record(F_RDLCK);
        fcntl(&self.0, FcntlArg::F_GETLK(&mut record)).ok()?;
        let is_free = i32::from(record.l_type) == F_UNLCK;
        if is_free { None } else { Pid::try_from(record.l_pid).ok() }
    }

    /// Makes the lock survive `exec`, with all parts that this process holds.
    pub(super) fn keep_over_exec(&self) -> io::Result<()> {
        let flags = fcntl_getfd(&self.0)?;
        Ok(fcntl_setfd(&self.0, flags.difference(FdFlags::CLOEXEC))?)
    }
}

/// Returns true if closing this descriptor would free a lock of this process.
pub(super) fn is_lock(fd: BorrowedFd<'_>) -> bool {
    file_of(fd).is_some_and(|file| FILES.lock().unwrap_or_else(PoisonError::into_inner).contains(&file))
}

fn file_of(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// The pause between two attempts: nothing reports that a process has become the supervisor.
const RETRY: Duration = Duration::from_millis(1);

static FILES: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::stdin;
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::time::Instant;

    use super::super::channel::Channel;
    use super::*;

    /// A process that runs this test binary with a single test, because a record lock belongs to a process.
    /// Starting a child closes a descriptor of the lock, so the parent must not hold it.
    struct Other(Child);

    impl Other {
        /// Starts a process that takes these parts in order and keeps them.
        fn taking(lock: &Lock, parts: &str) -> Self {
            let mut command = Command::new(std::env::current_exe().expect("we run"));
            command.args(["--exact", "supervisor::locks::tests::another_process_takes_parts"]).env(PARTS, parts);
            let passed = lock.as_fd().try_clone_to_owned().expect("descriptors");
            Self(command.stdin(passed).stdout(Stdio::null()).spawn().expect("we can be run again"))
        }

        fn has(&self, lock: &Lock, part: LockPart) -> bool {
            lock.holder(part) == Some(self.0.id())
        }
    }

    impl Drop for Other {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// The environment variable that lists the parts for the child process.
    const PARTS: &str = "HEDGEROW_TEST_PARTS";

    fn until(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(15);
        while !holds() {
            assert!(Instant::now() < deadline, "never: {what}");
            thread::yield_now();
        }
    }

    /// Not a test by itself: the code of the child process of [`Other`].
    #[test]
    fn another_process_takes_parts() {
        let Ok(parts) = std::env::var(PARTS) else { return };
        let lock = Lock::passed(stdin().as_fd().try_clone_to_owned().expect("descriptors"));
        for part in parts.chars() {
            let part = match part {
                '1' => LockPart::First,
                '2' => LockPart::Second,
                '-' => {
                    until("another process has the other part", || lock.holder(LockPart::Whole).is_some());
                    continue;
                }
                _ => LockPart::Whole,
            };
            lock.take(part).expect("it is free in the end");
        }
        loop {
            thread::park();
        }
    }

    #[test]
    fn a_lock_stays_when_another_process_sends_its_descriptor() {
        let lock = Lock::new("test").expect("memory");
        let (sender, receiver) = Channel::pair().expect("descriptors");
        sender.send(&"sound", &[lock.as_fd()]).expect("the other end is open");
        sender.send(&["of another protocol"], &[sender.as_fd(), lock.as_fd()]).expect("the other end is open");
        assert!(lock.try_take(LockPart::Whole).expect("it is free"));
        for _ in 0..2 {
            let error = receiver.receive::<String>().expect_err("the message bears a lock");
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            // Only a lock of another kind conflicts with one of its own process.
            let mut record = LockPart::Whole.record(F_WRLCK);
            fcntl(&lock.0, FcntlArg::F_OFD_GETLK(&mut record)).expect("the kernel knows");
            assert_eq!(u32::try_from(record.l_pid), Ok(std::process::id()), "the lock is free");
        }
    }

    #[test]
    fn a_lock_is_another_ones_when_its_owner_is_killed() {
        let lock = Lock::new("test").expect("memory");
        let first = Other::taking(&lock, "w");
        until("the first has it", || first.has(&lock, LockPart::First) && first.has(&lock, LockPart::Second));
        assert!(!lock.try_take(LockPart::Whole).expect("it is known"));
        let second = Other::taking(&lock, "w");
        drop(first);
        until("the second has it", || second.has(&lock, LockPart::First));
        drop(second);
        until("the lock is free", || lock.holder(LockPart::Whole).is_none());
        assert!(lock.try_take(LockPart::Whole).expect("it is free"));
    }

    #[test]
    fn who_is_next_in_line_comes_before_those_who_stand_by() {
        let lock = Lock::new("test").expect("memory");
        let server = Other::taking(&lock, "1");
        until("the server has it", || server.has(&lock, LockPart::First));
        let standbys = [Other::taking(&lock, "w"), Other::taking(&lock, "w")];
        let newcomer = Other::taking(&lock, "21");
        until("the newcomer is next in line", || newcomer.has(&lock, LockPart::Second));
        drop(server);
        until("the newcomer has it", || newcomer.has(&lock, LockPart::First));
        drop(newcomer);
        until("one that stood by has it", || standbys.iter().any(|standby| standby.has(&lock, LockPart::First)));
    }

    #[test]
    fn a_circle_of_waits_is_no_error() {
        let lock = Lock::new("test").expect("memory");
        let other = Other::taking(&lock, "1-2");
        until("the other has a part", || other.has(&lock, LockPart::First));
        assert!(lock.try_take(LockPart::Second).expect("it is free"));
        let waits = || {
            let locks = std::fs::read_to_string("/proc/locks").expect("the kernel lists locks");
            let pid = format!(" {} ", other.0.id());
            locks.lines().any(|line| line.contains("->") && line.contains(&pid))
        };
        until("the other waits", waits);
        let circle = fcntl(&lock.0, FcntlArg::F_SETLKW(&LockPart::First.record(F_WRLCK)));
        assert_eq!(circle, Err(Errno::EDEADLK));
        let (waiting, begun) = (lock.clone(), Arc::new(AtomicBool::new(false)));
        let reported = Arc::clone(&begun);
        let taken = thread::spawn(move || {
            reported.store(true, Relaxed);
            waiting.take(LockPart::First)
        });
        until("this process waits", || begun.load(Relaxed));
        drop(other);
        taken.join().expect("no panic").expect("the other has ended");
    }
}
