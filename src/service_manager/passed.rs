//! Takes the sockets that the service manager has passed (`LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`).

use std::os::fd::OwnedFd;
use std::{env, fs, process};

use listenfd::ListenFd;
use net::from_clients::listening::{ListeningSocket, PassedSocketError};
use rustix::net::{AddressFamily, SocketType as Kind};
use rustix::process::{Resource, getrlimit};

/// Takes all passed sockets. Call it once, before opening anything that stays open.
///
/// # Errors
/// If a descriptor is no socket that can listen.
pub fn passed_sockets() -> Result<Vec<ListeningSocket>, PassedSocketError> {
    let number = |name| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    // Without the process ID, the variables might be for another process, such as the parent of a shell.
    let (Some(count), Some(pid)) = (number("LISTEN_FDS"), number("LISTEN_PID")) else { return Ok(Vec::new()) };
    if pid != u64::from(process::id()) {
        return Ok(Vec::new());
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    if let Some(limit) = getrlimit(Resource::Nofile).maximum.filter(|&limit| count > limit) {
        return Err(PassedSocketError::closed(i32::try_from(limit).unwrap_or(i32::MAX), String::new()));
    }
    let mut passed = ListenFd::from_env();
    let take = |place: usize| {
        let number = FIRST + i32::try_from(place).expect("no process has so many");
        let name = names.next().unwrap_or_default();
        let mut kinds = FAMILIES.iter().flat_map(|family| KINDS.iter().map(move |kind| (family, kind)));
        let fd = kinds.find_map(|(family, kind)| {
            let (family, kind) = (i32::from(family.as_raw()), i32::try_from(kind.as_raw()).ok()?);
            passed.take_custom::<OwnedFd>(place, family, kind, "socket").ok().flatten()
        });
        match fd {
            Some(fd) => ListeningSocket::inherited(fd, name, number),
            None if fs::read_link(format!("/proc/self/fd/{number}")).is_ok() => {
                Err(PassedSocketError::no_socket(number, name))
            }
            None => Err(PassedSocketError::closed(number, name)),
        }
    };
    let count = usize::try_from(count).expect("a process has fewer descriptors");
    let mut sockets = (0..count).map(take).collect::<Result<Vec<_>, _>>()?;
    sockets.iter_mut().for_each(|socket| socket.is_kept = true);
    Ok(sockets)
}

/// The value of `SD_LISTEN_FDS_START`.
const FIRST: i32 = 3;

/// IPv6 sockets match IPv4 too. The last families only serve the error message.
const FAMILIES: [AddressFamily; 4] =
    [AddressFamily::INET, AddressFamily::UNIX, AddressFamily::NETLINK, AddressFamily::VSOCK];

const KINDS: [Kind; 4] = [Kind::DGRAM, Kind::STREAM, Kind::SEQPACKET, Kind::RAW];
