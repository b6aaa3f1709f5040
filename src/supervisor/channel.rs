//! Channels between processes: unix sockets that keep messages apart (SOCK_SEQPACKET), each a JSON text and descriptors (SCM_RIGHTS).
//!
//! Nothing here blocks, whatever the flags of a socket are, since another process may have made it: a sender whose peer does not
//! read gets an error and gives the channel up. A process that hangs therefore delays no other; when it runs again it finds its
//! channel closed, and introduces itself anew.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{PeerCredentials, PeerPidfd};
use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::tree::Pid;

/// One end of a channel.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// The process that made a channel.
#[derive(Debug)]
pub(super) struct Maker {
    pub(super) pid: Pid,
    pub(super) uid: u32,
    /// The process itself, which no later process with its number can be (pidfd); none on Linux before 6.5.
    pub(super) process: Option<OwnedFd>,
}

/// What there is to read.
#[derive(Debug)]
pub(super) enum Received<M> {
    /// A message with its descriptors.
    Message(M, Vec<OwnedFd>),
    /// Nothing yet.
    Nothing,
    /// Nothing any more: the other end is closed.
    Closed,
}

impl Channel {
    /// A channel between two processes, which ends when either of them does. If many hold both ends, it never ends, and whoever reads
    /// reads what any of them has said.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(one), Self(other)))
    }

    /// Sends a message, or nothing at all.
    ///
    /// # Errors
    /// If the other end is closed, or does not read.
    pub(super) fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        loop {
            match sendmsg(&self.0, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the process that made this channel, by the word of the kernel alone (SO_PEERCRED, SO_PEERPIDFD); none if no process
    /// that this one can see did. nix reads it, for rustix has undefined behavior where the number is 0.
    pub(super) fn maker(&self) -> Option<Maker> {
        let peer = getsockopt(&self.0, PeerCredentials).ok()?;
        let process = match getsockopt(&self.0, PeerPidfd) {
            Ok(process) => Some(process),
            // Linux before 6.5.
            Err(nix::Error::ENOPROTOOPT) => None,
            Err(_) => return None,
        };
        let pid = Pid::try_from(peer.pid()).ok().filter(|pid| *pid > 0)?;
        // One that listens gets another maker by each process that has it listen again, so that the two answers may not agree.
        let listens = socket_acceptconn(&self.0).ok()?;
        if listens { None } else { Some(Maker { pid, uid: peer.uid(), process }) }
    }

    /// Takes the next message.
    ///
    /// # Errors
    /// If it is none of ours.
    pub(super) fn receive<M: DeserializeOwned>(&self) -> io::Result<Received<M>> {
        let mut text = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut text)], &mut control, flags) {
                // Reported once when the peer has ended with something unread; its earlier messages are still there.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                received => break received?,
            }
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(Received::Closed);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::other("a message of another process came cut off: are there descriptors left?"));
        }
        let message = serde_json::from_slice(text.get(..received.bytes).unwrap_or_default())?;
        Ok(Received::Message(message, descriptors))
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

/// Descriptors in one message: what Linux takes (SCM_MAX_FD).
pub(super) const MAX_DESCRIPTORS: usize = 253;

/// Octets of a message. Texts of configs and the like travel as memory files (memfd).
const MAX_MESSAGE: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    use rustix::pipe::pipe;

    use super::*;

    #[test]
    fn messages_stay_apart_and_bring_their_descriptors() {
        let (one, other) = Channel::pair().expect("descriptors");
        let (reader, writer) = pipe().expect("descriptors");
        one.send(&"first", &[writer.as_fd()]).expect("the other end is open");
        one.send(&vec![1, 2], &[]).expect("the other end is open");
        drop(writer);
        let Received::Message(text, mut passed) = other.receive::<String>().expect("a message") else {
            panic!("nothing came");
        };
        assert_eq!((text.as_str(), passed.len()), ("first", 1));
        File::from(passed.remove(0)).write_all(b"x").expect("it is the pipe");
        let mut read = String::new();
        File::from(reader).read_to_string(&mut read).expect("all writers are gone");
        assert_eq!(read, "x");
        assert!(matches!(other.receive::<Vec<u8>>(), Ok(Received::Message(numbers, _)) if numbers == [1, 2]));
        assert!(matches!(other.receive::<Vec<u8>>(), Ok(Received::Nothing)));
        one.send(&"last", &[]).expect("the other end is open");
        drop(one);
        assert!(matches!(other.receive::<String>(), Ok(Received::Message(text, _)) if text == "last"));
        assert!(matches!(other.receive::<String>(), Ok(Received::Closed)));
        assert!(other.send(&"too late", &[]).is_err());
    }

    #[test]
    fn last_words_are_heard_even_of_one_that_has_not_read_all() {
        let (one, other) = Channel::pair().expect("descriptors");
        other.send(&"unread", &[]).expect("the other end is open");
        one.send(&"last words", &[]).expect("the other end is open");
        drop(one);
        assert!(matches!(other.receive::<String>(), Ok(Received::Message(text, _)) if text == "last words"));
        assert!(matches!(other.receive::<String>(), Ok(Received::Closed)));
    }

    #[test]
    fn who_does_not_read_keeps_nobody_waiting() {
        let (one, other) = Channel::pair().expect("descriptors");
        let sent = (0..100_000).take_while(|number| one.send(number, &[]).is_ok()).count();
        assert!((10..100_000).contains(&sent), "{sent}");
        for number in 0..sent {
            assert!(matches!(other.receive::<usize>(), Ok(Received::Message(found, _)) if found == number));
        }
    }

    #[test]
    fn nothing_blocks_on_a_socket_that_blocks() {
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (one, other) = socketpair(kind.0, kind.1, SocketFlags::CLOEXEC, None).expect("descriptors");
        let (one, other) = (Channel(one), Channel(other));
        assert!(matches!(other.receive::<u8>(), Ok(Received::Nothing)));
        assert!((0..100_000).any(|number| one.send(&number, &[]).is_err()));
    }

    #[test]
    fn kernel_names_the_maker_of_a_channel() {
        let (one, other) = Channel::pair().expect("descriptors");
        one.send(&0, &[Channel::pair().expect("descriptors").0.as_fd()]).expect("the other end is open");
        let Ok(Received::Message(0, mut passed)) = other.receive::<u8>() else { panic!("nothing came") };
        let maker = Channel::from(passed.remove(0)).maker().expect("this process made it");
        assert_eq!((maker.pid, maker.uid), (std::process::id(), rustix::process::geteuid().as_raw()));
        // No process made these, as far as the kernel knows: a socket without a peer, and one that has no processes.
        for family in [AddressFamily::UNIX, AddressFamily::INET] {
            let lonely = rustix::net::socket(family, SocketType::STREAM, None).expect("descriptors");
            assert!(Channel::from(lonely).maker().is_none());
        }
        let (pipe, _writer) = pipe().expect("descriptors");
        assert!(Channel::from(pipe).maker().is_none());
    }

    #[test]
    fn as_many_descriptors_travel_as_the_kernel_takes() {
        let (one, other) = Channel::pair().expect("descriptors");
        let (reader, _writer) = pipe().expect("descriptors");
        one.send(&0, &vec![reader.as_fd(); MAX_DESCRIPTORS]).expect("as many as it takes");
        assert!(matches!(other.receive::<u8>(), Ok(Received::Message(0, passed)) if passed.len() == MAX_DESCRIPTORS));
        assert!(one.send(&0, &vec![reader.as_fd(); MAX_DESCRIPTORS + 1]).is_err());
    }

    #[test]
    fn what_is_sent_on_a_way_that_many_hold_waits_for_the_next_reader() {
        let (sender, reader) = Channel::pair().expect("descriptors");
        sender.send(&7, &[]).expect("the other end is open");
        let next_reader = Channel::from(reader.as_fd().try_clone_to_owned().expect("descriptors"));
        drop(reader);
        assert!(matches!(next_reader.receive::<u8>(), Ok(Received::Message(7, _))));
    }
}
