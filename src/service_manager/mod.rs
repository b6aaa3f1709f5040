//! The service manager, such as systemd: socket activation, descriptor store, and notifications (sd_notify).
//!
//! No call waits: unsent messages stay in order for the next [`ServiceManager::tick`]. A parent removes
//! [`VARIABLES`] from the environment of its children, and may hand over the [`Contact`].
//!
//! The crate sd-notify is not used: it blocks if the manager does not read, supports no abstract address, and
//! returns passed descriptors as bare numbers.

mod message;
mod passed;
mod store;

use std::collections::VecDeque;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, io, process};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use self::message::ManagerMessage;
pub use self::passed::passed_sockets;
use self::store::{DescriptorStore, StoreChange};
use crate::net::from_clients::listening::ListeningSocket;

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

/// The connection to the service manager, for a single process. Without a manager, messages are dropped.
#[derive(Debug)]
pub struct ServiceManager {
    contact: Contact,
    socket: Option<UnixDatagram>,
    waiting: VecDeque<ManagerMessage>,
    store: DescriptorStore,
    /// True if the log has reported that the manager does not read.
    is_reported: bool,
}

impl ServiceManager {
    /// Connects to the manager. It already keeps the sockets in `passed`.
    pub fn new(contact: Contact, passed: &[ListeningSocket]) -> Self {
        let socket = contact.socket.is_some().then(|| {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            io::Result::Ok(socket)
        });
        let socket = socket.and_then(|socket| match socket {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, "no socket can be opened, so the service manager gets no notifications");
                None
            }
        });
        let store = DescriptorStore::of(passed);
        Self { contact, socket, waiting: VecDeque::new(), store, is_reported: false }
    }

    /// Returns the contact, for the next process that uses it.
    pub fn contact(&self) -> &Contact {
        &self.contact
    }

    /// Returns the interval between calls of [`tick`](Self::tick), if there is a manager: at most a third of
    /// the watchdog timeout.
    pub fn interval(&self) -> Option<Duration> {
        let least = self.contact.watchdog.map_or(MAX_INTERVAL, |watchdog| watchdog / 3);
        self.socket.as_ref().map(|_| least.clamp(MIN_INTERVAL, MAX_INTERVAL))
    }

    /// Returns true if the manager keeps sockets for later processes.
    pub fn is_keeping(&self) -> bool {
        self.socket.is_some()
    }

    /// Sends pending messages, and the watchdog ping if all workers make progress.
    pub fn tick(&mut self, is_progress_made: bool) {
        self.send_waiting();
        // A ping after pending messages would be late anyway.
        if is_progress_made && self.contact.watchdog.is_some() && self.waiting.is_empty() {
            self.say(&["WATCHDOG=1"]);
        }
    }

    /// Reports that queries are answered.
    pub fn ready(&mut self, status: &str) {
        self.say(&["READY=1", &status_line(status)]);
    }

    /// Reports the start of a reload. [`ready`](Self::ready) must follow, even after a failure.
    pub fn reloading(&mut self) {
        let status = "STATUS=reloading";
        // After a succession, the unit keeps the result of the dead process, and systemd would stop it after
        // a reload.
        if self.contact.has_succeeded {
            return self.say(&[status]);
        }
        let now = clock_gettime(ClockId::Monotonic);
        let now = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.say(&["RELOADING=1", &format!("MONOTONIC_USEC={now}"), status]);
    }

    /// Reports that the process drains.
    pub fn stopping(&mut self) {
        self.say(&["STOPPING=1", "STATUS=draining"]);
    }

    /// Reports that this process is the new main process.
    pub fn succeed(&mut self) {
        self.contact.has_succeeded = true;
        self.say(&[&format!("MAINPID={}", process::id())]);
    }

    /// Makes the manager keep these listening sockets and no others. It already keeps those that it has
    /// passed. Sockets of the file system are left out, because their folder may be gone when they return.
    ///
    /// # Errors
    /// If a descriptor cannot be duplicated. The kept sockets then stay the same.
    pub fn keep(&mut self, sockets: &[ListeningSocket]) -> io::Result<()> {
        if self.socket.is_none() {
            return Ok(());
        }
        for change in self.store.change(sockets)? {
            self.queue(match change {
                StoreChange::Remove { name } => ManagerMessage::new(&["FDSTOREREMOVE=1", &format!("FDNAME={name}")]),
                StoreChange::Add { name, fds } => {
                    // FDPOLL=0: a socket error, which a client can provoke by ICMP, must not make the manager
                    // drop it.
                    ManagerMessage::with_fds(&["FDSTORE=1", &format!("FDNAME={name}"), "FDPOLL=0"], fds)
                }
            });
        }
        self.send_waiting();
        Ok(())
    }

    fn say(&mut self, lines: &[&str]) {
        self.queue(ManagerMessage::new(lines));
        self.send_waiting();
    }

    fn queue(&mut self, message: ManagerMessage) {
        if self.socket.is_some() {
            // The oldest messages go, because the newest describes the current state.
            if self.waiting.len() == MAX_WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(message);
        }
    }

    fn send_waiting(&mut self) {
        let (Some(socket), Some(path)) = (&self.socket, &self.contact.socket) else { return };
        while let Some(message) = self.waiting.front() {
            if let Err(error) = message.send(socket, path) {
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

fn status_line(status: &str) -> String {
    format!("STATUS={}", status.replace('\n', "; "))
}

const MAX_INTERVAL: Duration = Duration::from_secs(1);

const MIN_INTERVAL: Duration = Duration::from_millis(1);

const MAX_WAITING: usize = 64;

#[cfg(test)]
mod tests;
