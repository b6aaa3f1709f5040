//! The service manager, such as systemd: socket activation, descriptor store, and notifications (sd_notify).
//!
//! No call waits: unsent messages stay in order for the next [`ServiceManager::tick`]. A parent removes
//! [`VARIABLES`] from the environment of its children, and may hand over the [`Contact`].
//!
//! The crate sd-notify is not used: it blocks if the manager does not read, supports no abstract address, and
//! returns passed descriptors as bare numbers.

mod passed;
mod store;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, io, process};

use net::from_clients::listening::ListeningSocket;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

pub use self::passed::passed_sockets;
use self::store::DescriptorStore;

/// The environment variables that a service manager sets for the process that it starts.
pub const VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// The address and the expectations of the service manager. A process can hand them to the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// A path, or an abstract name after `@`; `None` without a manager.
    socket: Option<PathBuf>,
    watchdog: Option<Duration>,
    /// True if the manager did not start the current main process.
    #[serde(default)]
    has_succeeded: bool,
}

impl Contact {
    /// Returns true if there is a manager.
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Reads the contact from the environment of this process.
    pub fn from_environment() -> Self {
        let number = |name| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let is_watched = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&span| is_watched && span > 0).map(Duration::from_micros);
        let socket = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()).map(PathBuf::from);
        Self { socket, watchdog, has_succeeded: false }
    }
}

/// The conversation with the service manager, for a single process. Without a manager, messages are dropped.
#[derive(Debug)]
pub struct ServiceManager {
    contact: Contact,
    /// Open from the start, so that a lack of descriptors later stops no watchdog ping.
    socket: UnixDatagram,
    waiting: VecDeque<ManagerMessage>,
    store: DescriptorStore,
    /// True if the log has reported that the manager does not read.
    is_reported: bool,
}

/// Lines `NAME=VALUE`, and descriptors.
#[derive(Debug)]
struct ManagerMessage {
    text: String,
    fds: Vec<OwnedFd>,
}

impl ServiceManager {
    /// Begins the conversation. The manager already keeps the sockets in `passed`.
    ///
    /// # Errors
    /// If no socket can be opened.
    pub fn new(contact: Contact, passed: &[ListeningSocket]) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { contact, socket, waiting: VecDeque::new(), store: DescriptorStore::of(passed), is_reported: false })
    }

    /// Returns the contact, for the next process that uses it.
    pub fn contact(&self) -> &Contact {
        &self.contact
    }

    /// Returns the interval between calls of [`tick`](Self::tick), if there is a manager: at most a third of
    /// the watchdog timeout.
    pub fn interval(&self) -> Option<Duration> {
        let least = self.contact.watchdog.map_or(MAX_INTERVAL, |watchdog| watchdog / 3);
        self.contact.is_there().then(|| least.clamp(MIN_INTERVAL, MAX_INTERVAL))
    }

    /// Sends pending messages, and the watchdog ping if all workers make progress.
    pub fn tick(&mut self, is_progress_made: bool) {
        self.send_waiting();
        // A ping after pending messages would be late anyway.
        if is_progress_made && self.contact.watchdog.is_some() && self.waiting.is_empty() {
            self.say("WATCHDOG=1");
        }
    }

    /// Reports that queries are answered.
    pub fn ready(&mut self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={}", status.replace('\n', "; ")));
    }

    /// Reports the start of a reload. [`ready`](Self::ready) must follow, even after a failure.
    pub fn reloading(&mut self) {
        // After a succession, the unit keeps the result of the dead process, and systemd would stop it after
        // a reload.
        if self.contact.has_succeeded {
            return self.say("STATUS=reloading");
        }
        let now = clock_gettime(ClockId::Monotonic);
        let now = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reloading"));
    }

    /// Reports that the process drains.
    pub fn stopping(&mut self) {
        self.say("STOPPING=1\nSTATUS=draining");
    }

    /// Reports that this process is the new main process.
    pub fn succeed(&mut self) {
        self.contact.has_succeeded = true;
        self.say(&format!("MAINPID={}", process::id()));
    }

    /// Makes the manager keep these listening sockets and no others. It already keeps those that it has
    /// passed. Sockets of the file system are left out, because their folder may be gone when they return.
    ///
    /// # Errors
    /// If a descriptor cannot be duplicated. The kept sockets then stay the same.
    pub fn keep(&mut self, sockets: &[ListeningSocket]) -> io::Result<()> {
        if self.contact.is_there() {
            self.store.change(sockets)?.into_iter().for_each(|message| self.queue(message));
            self.send_waiting();
        }
        Ok(())
    }

    fn say(&mut self, text: &str) {
        self.queue(ManagerMessage { text: text.to_owned(), fds: Vec::new() });
        self.send_waiting();
    }

    fn queue(&mut self, message: ManagerMessage) {
        if self.contact.is_there() {
            // The oldest messages go, because the newest describes the current state.
            if self.waiting.len() == MAX_WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(message);
        }
    }

    fn send_waiting(&mut self) {
        let Some(path) = &self.contact.socket else { return };
        while let Some(message) = self.waiting.front() {
            if let Err(error) = message.send(&self.socket, path) {
                if !self.is_reported {
                    self.is_reported = true;
                    let path = path.display();
                    tracing::warn!(
                        "notifications to the service manager at NOTIFY_SOCKET={path} fail: {error}; continuing without them"
                    );
                }
                return;
            }
            self.waiting.pop_front();
        }
    }
}

impl ManagerMessage {
    fn send(&self, socket: &UnixDatagram, path: &Path) -> io::Result<()> {
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

const MAX_INTERVAL: Duration = Duration::from_secs(1);

const MIN_INTERVAL: Duration = Duration::from_millis(1);

const MAX_WAITING: usize = 64;

/// The most descriptors of a message (`SCM_MAX_FD` of Linux).
const MAX_FDS: usize = 253;

#[cfg(test)]
mod tests;
