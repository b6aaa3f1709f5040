//! Channels between processes: unix sockets that keep messages apart (SOCK_SEQPACKET). Each message is a JSON
//! text with descriptors (SCM_RIGHTS).
//!
//! No call blocks, whatever flags the other process has set. If a peer does not read, the sender gets an
//! error and drops the channel, so a hung process delays no other. When it runs again, it introduces itself
//! again.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{PeerCredentials, PeerPidfd};
use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, socket_acceptconn};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::locks::is_lock;
use super::tree::Pid;

#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

#[derive(Debug)]
pub(super) struct Maker {
    pub(super) pid: Pid,
    pub(super) uid: u32,
    /// A pidfd, which a later process with the same number cannot match; `None` on Linux before 6.5.
    pub(super) process: Option<OwnedFd>,
}

#[derive(Debug)]
pub(super) enum ChannelEvent<M> {
    Message(M, Vec<OwnedFd>),
    Nothing,
    Closed,
}

impl Channel {
    /// Creates a channel. It closes when either process ends; with several holders of both ends, it never
    /// closes.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(one), Self(other)))
    }

    pub(super) fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many file descriptors for one message"));
        }
        loop {
            match sendmsg(&self.0, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the process that made this channel, from kernel data alone (SO_PEERCRED, SO_PEERPIDFD), if it
    /// is visible. nix reads it, because rustix has undefined behavior for number 0.
    pub(super) fn maker(&self) -> Option<Maker> {
        let peer = getsockopt(&self.0, PeerCredentials).ok()?;
        let process = match getsockopt(&self.0, PeerPidfd) {
            Ok(process) => Some(process),
            // Linux before 6.5.
            Err(nix::Error::ENOPROTOOPT) => None,
            Err(_) => return None,
        };
        let pid = Pid::try_from(peer.pid()).ok().filter(|pid| *pid > 0)?;
        // Each process that calls listen becomes the new maker, so the two answers may differ.
        let listens = socket_acceptconn(&self.0).ok()?;
        if listens { None } else { Some(Maker { pid, uid: peer.uid(), process }) }
    }

    /// Receives the next message. PermissionDenied means that it carried a lock of this process: the caller
    /// must stop reading from the sender, because each such descriptor stays open.
    pub(super) fn receive<M: DeserializeOwned>(&self) -> io::Result<ChannelEvent<M>> {
        let mut text = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut text)], &mut control, flags) {
                // Reported once if the peer closed with unread data; its earlier messages can still be read.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(Errno::AGAIN) => return Ok(ChannelEvent::Nothing),
                received => break received?,
            }
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        for fd in &descriptors {
            // Closing a TCP socket that lingers blocks, even with O_NONBLOCK. Other descriptors ignore this.
            let _ = set_socket_linger(fd, None);
        }
        // Closing such a descriptor would release the lock.
        if descriptors.extract_if(.., |fd| is_lock(fd.as_fd())).map(mem::forget).count() > 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "a message of another process carries a lock of this one; other code may run in that process: investigate",
            ));
        }
        if received.bytes == 0 {
            return Ok(ChannelEvent::Closed);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::other(
                "a message of another process is truncated: check the limit of file descriptors",
            ));
        }
        let message = serde_json::from_slice(text.get(..received.bytes).unwrap_or_default())?;
        Ok(ChannelEvent::Message(message, descriptors))
    }
}

/// A channel whose messages a task awaits.
#[derive(Debug)]
pub(super) struct WatchedChannel {
    channel: Channel,
    /// The same socket. It keeps messages apart as a datagram socket does, and is only polled here.
    watched: UnixDatagram,
}

impl WatchedChannel {
    pub(super) fn new(channel: Channel) -> io::Result<Self> {
        Ok(Self { watched: UnixDatagram::from_std(channel.as_fd().try_clone_to_owned()?.into())?, channel })
    }

    pub(super) fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.channel.send(message, descriptors)
    }

    /// Sends a message as soon as there is room for it. Cancel safe.
    pub(super) async fn send_in_turn(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.watched.async_io(Interest::WRITABLE, || self.channel.send(message, descriptors)).await
    }

    /// Returns a message that has arrived, if there is one.
    pub(super) fn arrived<M: DeserializeOwned>(&self) -> Option<(M, Vec<OwnedFd>)> {
        match self.channel.receive() {
            Ok(ChannelEvent::Message(message, descriptors)) => Some((message, descriptors)),
            Ok(ChannelEvent::Nothing | ChannelEvent::Closed) | Err(_) => None,
        }
    }

    /// Returns the next message; `None` if the channel has closed. Cancel safe.
    pub(super) async fn next<M: DeserializeOwned>(&self) -> Option<(M, Vec<OwnedFd>)> {
        loop {
            self.watched.readable().await.ok()?;
            let received = self.watched.try_io(Interest::READABLE, || match self.channel.receive() {
                Ok(ChannelEvent::Nothing) => Err(io::ErrorKind::WouldBlock.into()),
                received => Ok(received),
            });
            match received {
                Ok(Ok(ChannelEvent::Message(message, descriptors))) => return Some((message, descriptors)),
                Ok(Ok(ChannelEvent::Nothing)) | Err(_) => {}
                Ok(Ok(ChannelEvent::Closed)) => return None,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a message of another process cannot be read");
                    return None;
                }
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

pub(super) fn bears_lock(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Returns true if the receiver does not read. After its end, earlier messages can still be read.
pub(super) fn is_full(error: &io::Error) -> bool {
    // The receiver has closed with unread messages.
    !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// The kernel limit (SCM_MAX_FD of Linux).
pub(super) const MAX_DESCRIPTORS: usize = 253;

/// In bytes. Longer texts travel in memory files (memfd).
const MAX_MESSAGE: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};
    use std::time::Duration;

    use rustix::net::sockopt::socket_linger;
    use rustix::pipe::pipe;

    use super::*;

    #[test]
    fn messages_stay_apart_and_bring_their_descriptors() {
        let (one, other) = Channel::pair().expect("descriptors");
        let (reader, writer) = pipe().expect("descriptors");
        one.send(&"first", &[writer.as_fd()]).expect("the other end is open");
        one.send(&vec![1, 2], &[]).expect("the other end is open");
        drop(writer);
        let ChannelEvent::Message(text, mut passed) = other.receive::<String>().expect("a message") else {
            panic!("nothing came");
        };
        assert_eq!((text.as_str(), passed.len()), ("first", 1));
        File::from(passed.remove(0)).write_all(b"x").expect("it is the pipe");
        let mut read = String::new();
        File::from(reader).read_to_string(&mut read).expect("all writers are gone");
        assert_eq!(read, "x");
        assert!(matches!(other.receive::<Vec<u8>>(), Ok(ChannelEvent::Message(numbers, _)) if numbers == [1, 2]));
        assert!(matches!(other.receive::<Vec<u8>>(), Ok(ChannelEvent::Nothing)));
        one.send(&"last", &[]).expect("the other end is open");
        drop(one);
        assert!(matches!(other.receive::<String>(), Ok(ChannelEvent::Message(text, _)) if text == "last"));
        assert!(matches!(other.receive::<String>(), Ok(ChannelEvent::Closed)));
        assert!(other.send(&"too late", &[]).is_err());
    }

    #[test]
    fn last_words_are_heard_even_of_one_that_has_not_read_all() {
        let (one, other) = Channel::pair().expect("descriptors");
        other.send(&"unread", &[]).expect("the other end is open");
        one.send(&"last words", &[]).expect("the other end is open");
        drop(one);
        assert!(matches!(other.receive::<String>(), Ok(ChannelEvent::Message(text, _)) if text == "last words"));
        assert!(matches!(other.receive::<String>(), Ok(ChannelEvent::Closed)));
    }

    #[test]
    fn who_does_not_read_keeps_nobody_waiting() {
        let (one, other) = Channel::pair().expect("descriptors");
        let sent = (0..100_000).take_while(|number| one.send(number, &[]).is_ok()).count();
        assert!((10..100_000).contains(&sent), "{sent}");
        for number in 0..sent {
            assert!(matches!(other.receive::<usize>(), Ok(ChannelEvent::Message(found, _)) if found == number));
        }
    }

    #[test]
    fn nothing_blocks_on_a_socket_that_blocks() {
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (one, other) = socketpair(kind.0, kind.1, SocketFlags::CLOEXEC, None).expect("descriptors");
        let (one, other) = (Channel(one), Channel(other));
        assert!(matches!(other.receive::<u8>(), Ok(ChannelEvent::Nothing)));
        assert!((0..100_000).any(|number| one.send(&number, &[]).is_err()));
    }

    #[test]
    fn kernel_names_the_maker_of_a_channel() {
        let (one, other) = Channel::pair().expect("descriptors");
        one.send(&0, &[Channel::pair().expect("descriptors").0.as_fd()]).expect("the other end is open");
        let Ok(ChannelEvent::Message(0, mut passed)) = other.receive::<u8>() else { panic!("nothing came") };
        let maker = Channel::from(passed.remove(0)).maker().expect("this process made it");
        assert_eq!((maker.pid, maker.uid), (std::process::id(), rustix::process::geteuid().as_raw()));
        // A socket without a peer, and one of a family without peer credentials, have no known maker.
        for family in [AddressFamily::UNIX, AddressFamily::INET] {
            let lonely = rustix::net::socket(family, SocketType::STREAM, None).expect("descriptors");
            assert!(Channel::from(lonely).maker().is_none());
        }
        let (pipe, _writer) = pipe().expect("descriptors");
        assert!(Channel::from(pipe).maker().is_none());
    }

    #[test]
    fn no_socket_that_is_received_lingers() {
        let (one, other) = Channel::pair().expect("descriptors");
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("descriptors");
        set_socket_linger(&socket, Some(Duration::from_secs(60))).expect("a TCP socket");
        one.send(&0, &[socket.as_fd()]).expect("the other end is open");
        let Ok(ChannelEvent::Message(0, passed)) = other.receive::<u8>() else { panic!("nothing came") };
        assert_eq!(socket_linger(&passed[0]), Ok(None));
    }

    #[test]
    fn as_many_descriptors_travel_as_the_kernel_takes() {
        let (one, other) = Channel::pair().expect("descriptors");
        let (reader, _writer) = pipe().expect("descriptors");
        one.send(&0, &vec![reader.as_fd(); MAX_DESCRIPTORS]).expect("as many as it takes");
        assert!(
            matches!(other.receive::<u8>(), Ok(ChannelEvent::Message(0, passed)) if passed.len() == MAX_DESCRIPTORS)
        );
        assert!(one.send(&0, &vec![reader.as_fd(); MAX_DESCRIPTORS + 1]).is_err());
    }

    #[test]
    fn what_is_sent_on_a_way_that_many_hold_waits_for_the_next_reader() {
        let (sender, reader) = Channel::pair().expect("descriptors");
        sender.send(&7, &[]).expect("the other end is open");
        let next_reader = Channel::from(reader.as_fd().try_clone_to_owned().expect("descriptors"));
        drop(reader);
        assert!(matches!(next_reader.receive::<u8>(), Ok(ChannelEvent::Message(7, _))));
    }
}
