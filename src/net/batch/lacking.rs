//! What kernels and sandboxes may lack, for one test at a time: the switches are those of its thread.

use std::cell::Cell;
use std::io;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacking {
    /// `recvmmsg` and `sendmmsg`: ENOSYS.
    Batches,
    /// The socket option of GSO.
    Gso,
    /// What is to be cut into segments is refused so.
    Segments(i32),
}

/// Runs something without that. Returns how many calls met it.
pub(super) fn without(lacking: Lacking, run: impl FnOnce()) -> usize {
    LACKING.set(Some((lacking, 0)));
    run();
    LACKING.take().map_or(0, |(_, met)| met)
}

/// Fails if there is no such call.
pub(super) fn check_recvmmsg() -> io::Result<()> {
    meet(|lacking| (lacking == Lacking::Batches).then_some(libc::ENOSYS))
}

/// Fails if there is no such call, or if it does not take the first of these.
pub(super) fn check_sendmmsg(headers: &[libc::mmsghdr]) -> io::Result<()> {
    let is_gso = headers.first().is_some_and(|header| header.msg_hdr.msg_iovlen > 1);
    meet(|lacking| match lacking {
        Lacking::Batches => Some(libc::ENOSYS),
        Lacking::Segments(errno) if is_gso => Some(errno),
        Lacking::Segments(_) | Lacking::Gso => None,
    })
}

/// Whether the kernel does not know GSO.
pub(super) fn is_gso_unknown() -> bool {
    meet(|lacking| (lacking == Lacking::Gso).then_some(libc::ENOPROTOOPT)).is_err()
}

/// Fails with the error that what is lacking has for a call.
fn meet(errno: impl FnOnce(Lacking) -> Option<i32>) -> io::Result<()> {
    let Some((lacking, met)) = LACKING.get() else { return Ok(()) };
    let Some(errno) = errno(lacking) else { return Ok(()) };
    LACKING.set(Some((lacking, met + 1)));
    Err(io::Error::from_raw_os_error(errno))
}

thread_local! {
    /// What is lacking, and how many calls have met that.
    static LACKING: Cell<Option<(Lacking, usize)>> = const { Cell::new(None) };
}
