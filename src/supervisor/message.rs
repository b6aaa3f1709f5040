//! What processes tell each other.
//!
//! ```text
//!   handover: on the standard input of a process that is started, or becomes another by exec; then its sockets
//!   introduction: from any process to whoever supervises, with the other end of its channel
//!   upward:   from a process to the supervisor
//!   downward: from the supervisor to a process
//! ```
//! A newer edition of the protocol may have messages that an older one does not know: who cannot read one leaves it aside.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use super::channel::{Channel, MAX_DESCRIPTORS};
use super::tree::{ChangeKind, Rules, Word};
use crate::config::User;
use crate::load::Confinement;
use crate::metrics::{ProcessesSnapshot, Role};
use crate::net::listening::ListeningSocket;
use crate::service_manager::Contact;

/// The edition of all this. Processes of different editions share sockets and locks, and nothing else.
pub(super) const PROTOCOL: u32 = 2;

/// What a process is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Part {
    /// The first server. It reads the config on the disk, and says by its exit status what is wrong.
    First,
    /// One that stands by with the config in force.
    Standby,
    /// One that takes over from the server, with the config on the disk.
    Newcomer {
        /// For what.
        kind: ChangeKind,
        /// Whether it begins without a cache.
        is_cold: bool,
    },
    /// The supervisor.
    Supervisor {
        /// Whether another one has died, or has only become another program.
        is_succession: bool,
    },
}

/// What a process begins with. With it come, in this order: the locks of who serves and who supervises, both ends of the way of
/// introductions, the text of the config in force if it is told of, what is known, and for a newcomer its way to the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Handover {
    pub(super) protocol: u32,
    pub(super) part: Part,
    /// How the first supervisor was started.
    pub(super) origin: Origin,
    pub(super) rules: Rules,
    pub(super) succession: bool,
    /// The config in force.
    pub(super) edition: Option<Edition>,
    /// Whether what is known of backends is told.
    pub(super) has_known: bool,
    pub(super) view: ProcessesSnapshot,
    /// The service manager.
    pub(super) contact: Contact,
    /// The rights that the sender has given up, and that its children lack therefore.
    pub(super) given_up: Option<GivenUp>,
    /// The rights that children of a supervisor give up that has its own.
    pub(super) to_give_up: GivenUp,
}

/// Rights that a process gives up for good.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct GivenUp {
    /// The user that it becomes.
    pub(super) user: Option<User>,
    /// The files that it can reach; none while no process has loaded a config.
    pub(super) confinement: Option<Confinement>,
    /// True if the config has `[xdp]`, which takes capabilities until it is prepared.
    pub(super) has_xdp: bool,
}

/// How the first supervisor was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Origin {
    /// The path of its program, for an upgrade.
    pub(super) path: PathBuf,
    /// Its arguments, with its name.
    pub(super) arguments: Vec<OsString>,
}

/// An edition of the config. The text travels as a memory file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Edition {
    pub(super) number: u64,
    /// Where the text was read from.
    pub(super) file: PathBuf,
    pub(super) rules: Rules,
}

/// The first message of a process to the supervisor. Its process ID comes from the kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Introduction {
    pub(super) protocol: u32,
    pub(super) version: String,
    pub(super) state: State,
}

/// The length of the path of a config, octets (PATH_MAX).
pub(super) const MAX_PATH: usize = 4096;

/// What a process is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) role: Option<Role>,
    /// Of the config that it has.
    pub(super) edition: u64,
    pub(super) problem: Option<String>,
    /// How long a server had the lock before it served, in microseconds.
    pub(super) took: u64,
}

impl State {
    /// Cuts a problem that is too long for a message to all processes.
    pub(super) fn shorten(&mut self) {
        if let Some(problem) = &mut self.problem {
            // JSON writes a control character as six octets.
            *problem = problem.replace(|character: char| character.is_control() && character != '\n', " ");
            shorten(problem, MAX_PROBLEM);
        }
    }
}

/// Cuts a text behind the last character that fits into so many octets.
pub(super) fn shorten(text: &mut String, octets: usize) {
    let end = (0..=octets.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
}

/// The length of a problem that other processes are told of, octets.
const MAX_PROBLEM: usize = 1024;

/// What a process tells the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Upward {
    /// It does something else now.
    Says(State),
    /// It makes progress.
    Pong,
    /// A server listens on these, which come along; `more` follow.
    Sockets(Sockets),
    /// This config is in force; its text comes along.
    Edition(Edition),
    /// This is known of the backends; it comes along.
    Known,
    /// A server has saved a zone that it got from another.
    ZoneSaved,
    /// An operator asks a server for this.
    Ask {
        /// A restart or an upgrade, or the end of all.
        kind: Option<ChangeKind>,
        /// Whether the next server begins without a cache.
        is_cold: bool,
    },
    /// A server was told to end by a signal.
    Leaving,
    /// A server begins to read the config again.
    Reloading,
    /// It has; what came of it.
    Reloaded(String),
    /// A newcomer cannot serve.
    GaveUp(String),
    /// A process that has read the config on the disk, and has not served yet, has given up these rights.
    Confined(GivenUp),
    /// A server reads nothing more: whoever else holds the sockets may close them at the end.
    Closed,
}

/// What the supervisor tells a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Downward {
    View(ProcessesSnapshot),
    Word(Word),
    /// Read the config again.
    Reload,
    /// These are listened on.
    Sockets(Sockets),
    /// This config is in force.
    Edition(Edition),
    /// This is known of the backends.
    Known,
    /// The server has saved a zone.
    ZoneSaved,
    /// A newcomer takes over; the way to it comes along.
    Successor,
    /// What has become of what was asked for.
    Changed(Result<(), String>),
    /// It cannot be now.
    Conflict(String),
}

/// The names of sockets that come along.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sockets {
    names: Vec<String>,
    /// Whether these are the first: those that were told before are no more.
    is_first: bool,
    more: bool,
}

impl Sockets {
    /// Sends all sockets by as many messages as that takes.
    ///
    /// # Errors
    /// If the other end is closed, or does not read.
    pub(super) fn send<M: Serialize>(
        channel: &Channel,
        sockets: &[ListeningSocket],
        message: impl Fn(Self) -> M,
    ) -> io::Result<()> {
        let mut rest = sockets;
        let mut is_first = true;
        loop {
            let (now, later) = rest.split_at(rest.len().min(MAX_DESCRIPTORS));
            let names = now.iter().map(|socket| socket.name.clone()).collect();
            let descriptors: Vec<_> = now.iter().map(ListeningSocket::as_fd).collect();
            channel.send(&message(Self { names, is_first, more: !later.is_empty() }), &descriptors)?;
            if later.is_empty() {
                return Ok(());
            }
            (rest, is_first) = (later, false);
        }
    }

    /// Adds what came to the sockets that came before; returns whether those are all.
    pub(super) fn add_to(self, sockets: &mut Vec<ListeningSocket>, descriptors: Vec<OwnedFd>) -> bool {
        if self.is_first {
            sockets.clear();
        }
        let room = max_sockets().saturating_sub(sockets.len());
        // What comes beyond is closed, so that no process fills the table of another.
        for (fd, name) in descriptors.into_iter().zip(self.names).take(room) {
            // What another process of ours listens on can be used.
            sockets.extend(ListeningSocket::inherited(fd, name, 0));
        }
        !self.more
    }
}

/// The most sockets that a process takes of another: a quarter of its descriptors, since it has the former ones until all have come.
fn max_sockets() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 4).unwrap_or(usize::MAX)
}

/// A text in a memory file, so that it may be of any size.
///
/// # Errors
/// If the system gives no memory.
pub(super) fn to_memory(text: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("hedgerow-text", MemfdFlags::CLOEXEC)?);
    file.write_all(text)?;
    Ok(file.into())
}

/// Returns the text of a memory file. Other processes may read it at the same time.
///
/// # Errors
/// If it is none, or larger than [`MAX_TEXT`].
pub(super) fn from_memory(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    // At places of our own: all descriptors of the file have one in common.
    let file = File::from(fd.try_clone_to_owned()?);
    let metadata = file.metadata()?;
    let length = usize::try_from(metadata.len()).ok().filter(|length| metadata.is_file() && *length <= MAX_TEXT);
    let length =
        length.ok_or_else(|| io::Error::other("another process passed no memory file, or one that is too large"))?;
    let mut text = vec![0; length];
    file.read_exact_at(&mut text, 0)?;
    Ok(text)
}

/// The largest text that one process passes to another, octets: far above a config, or what is known of thousands of backends.
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
        // As many as it takes, but one. The table of the test itself may be huge.
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
