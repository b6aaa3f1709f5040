//! Why a message could not be sent: no way leads to whom it is for, or something of our own was wanting.
//!
//! The difference is what a client is told in the end. That nobody is there says something about the backend; that we had no
//! descriptor left does not, and must never be taken for the backend's failure.

use std::io;

use crate::metrics::Want;

/// Why a message could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody listens there, or no way leads there.
    Unreachable,
    /// It never left, for want of this.
    Unsent(Want),
    /// As many wait on each connection there, or for one, as may.
    Full,
    /// It has said that it wants no queries for a while.
    Paused,
}

impl Refusal {
    /// What an error of a socket, or of the attempt to have one, means.
    pub fn of(error: &io::Error) -> Self {
        match (error.kind(), error.raw_os_error()) {
            (
                io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable,
                _,
            ) => Self::Unreachable,
            (_, Some(libc::EMFILE | libc::ENFILE)) => Self::Unsent(Want::Descriptors),
            // Of the IDs on the ports that are open, too many are taken.
            (io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable | io::ErrorKind::ResourceBusy, _) => {
                Self::Unsent(Want::Ports)
            }
            (_, Some(libc::EMSGSIZE)) => Self::Unsent(Want::Size),
            // ENOBUFS, ENOMEM, EAGAIN of a full buffer, EPERM of a firewall, and whatever else the system has against it.
            _ => Self::Unsent(Want::System),
        }
    }
}

/// Why there is no connection to a server, "it", as status and log show it.
pub fn connect_problem(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "it takes no connections (connection refused)".to_owned(),
        _ => error.to_string(),
    }
}

/// Whether an error proves that nobody listens there or no way leads there.
pub fn is_unreachable(error: &io::Error) -> bool {
    Refusal::of(error) == Refusal::Unreachable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_mean_the_backend_or_our_own_want() {
        let check = |number: i32, expected: Refusal| {
            assert_eq!(Refusal::of(&io::Error::from_raw_os_error(number)), expected, "{number}");
        };
        for number in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ENETUNREACH] {
            check(number, Refusal::Unreachable);
        }
        for (number, want) in [
            (libc::EMFILE, Want::Descriptors),
            (libc::ENFILE, Want::Descriptors),
            (libc::EADDRINUSE, Want::Ports),
            (libc::EADDRNOTAVAIL, Want::Ports),
            (libc::EMSGSIZE, Want::Size),
            (libc::ENOBUFS, Want::System),
            (libc::ENOMEM, Want::System),
            (libc::EPERM, Want::System),
            (libc::EACCES, Want::System),
            (libc::EAGAIN, Want::System),
            (libc::ENETDOWN, Want::System),
        ] {
            check(number, Refusal::Unsent(want));
        }
        assert_eq!(Refusal::of(&io::ErrorKind::ResourceBusy.into()), Refusal::Unsent(Want::Ports));
    }
}
