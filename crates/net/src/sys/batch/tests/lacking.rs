//! Simulates missing features of kernels and sandboxes, per test thread.

use std::cell::Cell;
use std::io;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacking {
    Batches,
    Gso,
    Segments(i32),
}

/// Runs a closure without a feature. Returns how many calls failed.
pub(crate) fn without(lacking: Lacking, run: impl FnOnce()) -> usize {
    LACKING.set(Some((lacking, 0)));
    run();
    LACKING.take().map_or(0, |(_, met)| met)
}

pub(crate) fn check_recvmmsg() -> io::Result<()> {
    meet(|lacking| (lacking == Lacking::Batches).then_some(libc::ENOSYS))
}

pub(crate) fn check_sendmmsg(headers: &[libc::mmsghdr]) -> io::Result<()> {
    let is_gso = headers.first().is_some_and(|header| header.msg_hdr.msg_iovlen > 1);
    meet(|lacking| match lacking {
        Lacking::Batches => Some(libc::ENOSYS),
        Lacking::Segments(errno) if is_gso => Some(errno),
        Lacking::Segments(_) | Lacking::Gso => None,
    })
}

pub(crate) fn is_gso_unknown() -> bool {
    meet(|lacking| (lacking == Lacking::Gso).then_some(libc::ENOPROTOOPT)).is_err()
}

fn meet(errno: impl FnOnce(Lacking) -> Option<i32>) -> io::Result<()> {
    let Some((lacking, met)) = LACKING.get() else { return Ok(()) };
    let Some(errno) = errno(lacking) else { return Ok(()) };
    LACKING.set(Some((lacking, met + 1)));
    Err(io::Error::from_raw_os_error(errno))
}

thread_local! {
    static LACKING: Cell<Option<(Lacking, usize)>> = const { Cell::new(None) };
}
