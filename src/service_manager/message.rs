//! A message to the service manager: lines `NAME=VALUE` and descriptors.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};

/// The kernel limit (`SCM_MAX_FD` of Linux).
pub(super) const MAX_FDS: usize = 253;

#[derive(Debug)]
pub(super) struct ManagerMessage {
    text: String,
    fds: Vec<OwnedFd>,
}

impl ManagerMessage {
    pub(super) fn new(lines: &[&str]) -> Self {
        Self::with_fds(lines, Vec::new())
    }

    pub(super) fn with_fds(lines: &[&str], fds: Vec<OwnedFd>) -> Self {
        Self { text: lines.join("\n"), fds }
    }

    pub(super) fn send(&self, socket: &UnixDatagram, path: &Path) -> io::Result<()> {
        let address = match path.as_os_str().as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            _ => SocketAddrUnix::new(path)?,
        };
        let fds: Vec<_> = self.fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("too many file descriptors for one message"));
        }
        sendmsg_addr(socket, &address, &[IoSlice::new(self.text.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}
