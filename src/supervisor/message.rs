//! The messages between processes.
//!
//! ```text
//!   handover: on the standard input of a started process, or before an exec in place; then its sockets
//!   introduction: from any process to the supervisor, with the other end of its channel
//!   upward:   from a process to the supervisor
//!   downward: from the supervisor to a process
//! ```
//! A process ignores messages that it cannot read, because they may belong to a newer protocol.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use config::User;
use metrics::{ProcessesSnapshot, Role};
use net::from_clients::listening::ListeningSocket;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Resource, getrlimit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::channel::MAX_DESCRIPTORS;
use super::tree::{ChangeKind, ProcessOrder, TreeRules};
use crate::load::{ConfigText, Confinement};
use crate::service_manager::Contact;

/// The version of all messages. Processes of different versions share only sockets and locks.
pub(super) const PROTOCOL: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ProcessPart {
    /// The first server. It reads the config on the disk and reports errors by its exit status.
    First,
    Standby,
    /// A process that takes over from the server, with the config on the disk.
    Newcomer {
        kind: ChangeKind,
        is_cold: bool,
    },
    Supervisor {
        /// True if another supervisor has died, false if this one replaces its program.
        is_succession: bool,
    },
}

/// The start data of a process. These descriptors accompany it, in this order: the locks to serve and to
/// supervise, both ends of the introduction channel, the text of the active config if known, the states
/// of backends, their latency with the history, and a newcomer's channel to the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Handover {
    pub(super) protocol: u32,
    pub(super) part: ProcessPart,
    pub(super) edition: Option<Edition>,
    pub(super) has_known: bool,
    /// Missing from programs that do not save latency.
    #[serde(default)]
    pub(super) has_latency: bool,
    #[serde(flatten)]
    pub(super) facts: TreeFacts,
}

/// The knowledge that all processes of a tree share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TreeFacts {
    pub(super) origin: OriginalCommand,
    pub(super) rules: TreeRules,
    /// True if a standby may become the supervisor.
    pub(super) succession: bool,
    pub(super) view: ProcessesSnapshot,
    pub(super) contact: Contact,
    /// The rights that this process has given up.
    pub(super) given_up: Option<GivenUp>,
    /// The rights that children give up before they read data of another process.
    pub(super) to_give_up: GivenUp,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct GivenUp {
    pub(super) user: Option<User>,
    /// The reachable files; `None` while no process has loaded a config.
    pub(super) confinement: Option<Confinement>,
    /// True if the config has interfaces, which need capabilities until they are prepared.
    #[serde(rename = "has_xdp")]
    pub(super) has_interfaces: bool,
}

/// The command that started the first supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct OriginalCommand {
    /// The path of the program, for an upgrade.
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<OsString>,
}

/// The text travels in a memory file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Edition {
    pub(super) number: u64,
    pub(super) file: PathBuf,
    pub(super) rules: TreeRules,
}

impl Edition {
    pub(super) fn config(&self, text: &OwnedFd) -> io::Result<ConfigText> {
        Ok(ConfigText { file: self.file.clone(), octets: from_memory(text.as_fd())?.into() })
    }
}

/// The first message of a process to the supervisor. The kernel supplies the process ID.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Introduction {
    pub(super) protocol: u32,
    pub(super) version: String,
    pub(super) state: State,
}

/// The maximum length of the path of a config, bytes (PATH_MAX).
pub(super) const MAX_PATH: usize = 4096;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) role: Option<Role>,
    pub(super) edition: u64,
    pub(super) problem: Option<String>,
    /// The time between getting the lock and serving, in microseconds.
    pub(super) took: u64,
}

impl State {
    pub(super) fn shorten(&mut self) {
        if let Some(problem) = &mut self.problem {
            // JSON encodes a control character as six bytes.
            *problem = problem.replace(|character: char| character.is_control() && character != '\n', " ");
            shorten(problem, MAX_PROBLEM);
        }
    }
}

pub(super) fn shorten(text: &mut String, octets: usize) {
    let end = (0..=octets.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
}

const MAX_PROBLEM: usize = 1024;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Upward {
    Says(State),
    Pong,
    /// The descriptors accompany the message.
    Sockets(Sockets),
    /// The active config, whose text accompanies the message.
    Edition(Edition),
    /// Manual changes and states of backends, in a memory file.
    Known,
    /// The saved latency of backends and the history, in a memory file.
    Latency,
    /// The server has saved a zone that it received by transfer.
    ZoneSaved,
    Ask {
        /// `None` means that all processes end.
        kind: Option<ChangeKind>,
        is_cold: bool,
    },
    Leaving,
    Reloading,
    Reloaded(String),
    GaveUp(String),
    /// The rights given up by a process that has read the config on the disk and has not served yet.
    Confined(GivenUp),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Downward {
    View(ProcessesSnapshot),
    Word(ProcessOrder),
    Reload,
    Sockets(Sockets),
    Edition(Edition),
    Known,
    Latency,
    ZoneSaved,
    /// A newcomer takes over. Its channel accompanies the message.
    Successor,
    Changed(Result<(), String>),
    Conflict(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sockets {
    names: Vec<String>,
    is_first: bool,
    more: bool,
}

impl Sockets {
    /// Passes each part of the list, with its descriptors, to `send`.
    pub(super) fn send(
        sockets: &[ListeningSocket],
        send: impl Fn(Self, &[BorrowedFd<'_>]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut rest = sockets;
        loop {
            let (now, later) = rest.split_at(rest.len().min(MAX_DESCRIPTORS));
            let names = now.iter().map(|socket| socket.name.clone()).collect();
            let descriptors: Vec<_> = now.iter().map(ListeningSocket::as_fd).collect();
            let is_first = rest.len() == sockets.len();
            send(Self { names, is_first, more: !later.is_empty() }, &descriptors)?;
            if later.is_empty() {
                return Ok(());
            }
            rest = later;
        }
    }

    /// Adds received sockets to the earlier ones. Returns true if the list is complete.
    pub(super) fn add_to(self, sockets: &mut Vec<ListeningSocket>, descriptors: Vec<OwnedFd>) -> bool {
        if self.is_first {
            sockets.clear();
        }
        let room = max_sockets().saturating_sub(sockets.len());
        // Further sockets are closed, so that no process fills the descriptor table of another.
        for (fd, name) in descriptors.into_iter().zip(self.names).take(room) {
            // Drops an unusable socket without an error. Another process of the tree listens on all of them,
            // so none should be.
            sockets.extend(ListeningSocket::inherited(fd, name, 0));
        }
        !self.more
    }
}

/// A quarter of the descriptors, because a process keeps the previous sockets until all have arrived.
fn max_sockets() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 4).unwrap_or(usize::MAX)
}

pub(super) fn to_memory(text: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("hedgerow-text", MemfdFlags::CLOEXEC)?);
    file.write_all(text)?;
    Ok(file.into())
}

/// Writes a value as JSON to a memory file.
pub(super) fn pack(value: &impl Serialize) -> io::Result<OwnedFd> {
    to_memory(&serde_json::to_vec(value)?)
}

pub(super) fn unpack<T: DeserializeOwned>(memory: &OwnedFd) -> io::Result<T> {
    Ok(serde_json::from_slice(&from_memory(memory.as_fd())?)?)
}

/// Returns the text of a memory file, at most [`MAX_TEXT`]. Other processes may read it at the same time.
pub(super) fn from_memory(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    // Read at explicit offsets, because all descriptors of the file share one position.
    let file = File::from(fd.try_clone_to_owned()?);
    let metadata = file.metadata()?;
    let length = usize::try_from(metadata.len()).ok().filter(|length| metadata.is_file() && *length <= MAX_TEXT);
    let length =
        length.ok_or_else(|| io::Error::other("another process passed no memory file, or one that is too large"))?;
    let mut text = vec![0; length];
    file.read_exact_at(&mut text, 0)?;
    Ok(text)
}

/// In bytes: far more than a config or the state of thousands of backends.
const MAX_TEXT: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn sockets_of_another_process_leave_most_descriptors_free() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port of loopback");
        let (most, mut taken) = (max_sockets(), Vec::new());
        let stand_in = ListeningSocket::inherited(socket.try_clone().expect("descriptors").into(), "a".to_owned(), 0);
        let stand_in = stand_in.expect("it listens");
        // All but one of the sockets that fit. The descriptor limit of the test process may be huge.
        if most > 1 << 14 {
            return eprintln!("not tested: this process may open {most} descriptors");
        }
        for _ in 1..most {
            let copy = stand_in.as_fd().try_clone_to_owned().expect("descriptors");
            taken.extend(ListeningSocket::inherited(copy, "a".to_owned(), 0));
        }
        let copies = || (0..3).map(|_| OwnedFd::from(socket.try_clone().expect("descriptors"))).collect();
        let sockets = |is_first| Sockets { names: vec!["a".to_owned(); 3], is_first, more: false };
        assert!(sockets(false).add_to(&mut taken, copies()));
        assert_eq!(taken.len(), most);
        assert!(sockets(true).add_to(&mut taken, copies()));
        assert_eq!(taken.len(), 3, "the first ones replace all others");
    }
}
