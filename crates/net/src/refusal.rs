//! The reasons why a message could not be sent: the backend is unreachable, or a local resource is missing. A
//! missing local resource must never count as a failure of the backend.

use std::io;

use metrics::Want;

/// The reason why a message could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendRefusal {
    /// The port is closed, or there is no route.
    Unreachable,
    /// A local resource was missing, so the message never left.
    Unsent(Want),
    /// Each connection, or the only one, has its maximum of pending queries.
    Full,
    /// The backend has asked for a pause.
    Paused,
}

impl SendRefusal {
    /// Classifies an error of a socket, or of opening one.
    pub(crate) fn of(error: &io::Error) -> Self {
        match (error.kind(), error.raw_os_error()) {
            (
                io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable,
                _,
            ) => Self::Unreachable,
            (_, Some(libc::EMFILE | libc::ENFILE)) => Self::Unsent(Want::Descriptors),
            // Too many IDs are taken on the open ports.
            (io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable | io::ErrorKind::ResourceBusy, _) => {
                Self::Unsent(Want::Ports)
            }
            (_, Some(libc::EMSGSIZE)) => Self::Unsent(Want::Size),
            // ENOBUFS, ENOMEM, EAGAIN of a full buffer, EPERM of a firewall, and other system errors.
            _ => Self::Unsent(Want::System),
        }
    }
}

/// Returns the reason of a failed connection, with "it" for the server, for status and log.
pub fn connect_problem(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "it takes no connections (connection refused)".to_owned(),
        _ => error.to_string(),
    }
}

/// Returns true if an error proves that the port is closed or that there is no route.
pub fn is_unreachable(error: &io::Error) -> bool {
    SendRefusal::of(error) == SendRefusal::Unreachable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_mean_the_backend_or_our_own_want() {
        let check = |number: i32, expected: SendRefusal| {
            assert_eq!(SendRefusal::of(&io::Error::from_raw_os_error(number)), expected, "{number}");
        };
        for number in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ENETUNREACH] {
            check(number, SendRefusal::Unreachable);
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
            check(number, SendRefusal::Unsent(want));
        }
        assert_eq!(SendRefusal::of(&io::ErrorKind::ResourceBusy.into()), SendRefusal::Unsent(Want::Ports));
    }
}
