//! The service manager that has started us, such as systemd: sockets that it passes (socket activation, descriptor store), and what it
//! is told (sd_notify): that we are ready, reload, stop, who the main process is, which sockets it is to keep, and that all
//! workers make progress (watchdog).
//!
//! Nothing here waits. What the manager does not take at once is kept, in order, for the next [`ServiceManager::tick`]; if nobody
//! reads at all, that is told once. The variables of the environment are for this process alone: whoever starts another one takes
//! [`VARIABLES`] out of its environment, and hands the [`Contact`] over if that process is to talk to the manager too.
//!
//! The crate sd-notify is not used: its messages wait for a manager that does not read, it knows no abstract address, and it hands out
//! passed descriptors as bare numbers. Crate listenfd makes owned descriptors of these.

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

use self::message::Message;
pub use self::passed::passed_sockets;
use self::store::{Store, StoreChange};
use crate::net::listening::ListeningSocket;

/// What a service manager puts into the environment of the process that it starts, and of no other.
pub const VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// How the service manager is reached, and what it expects. Can be handed to the process that talks to it next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Its datagram socket: a path, or an abstract name behind `@`; none if there is no such manager.
    socket: Option<PathBuf>,
    /// How long it waits for a sign that we make progress, if it does.
    watchdog: Option<Duration>,
    /// Whether the main process is another one than it has started.
    #[serde(default)]
    has_succeeded: bool,
}

impl Contact {
    /// Whether there is a manager.
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// What the environment of this process says.
    pub fn from_environment() -> Self {
        let number = |name| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let is_watched = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&span| is_watched && span > 0).map(Duration::from_micros);
        let socket = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()).map(PathBuf::from);
        Self { socket, watchdog, has_succeeded: false }
    }
}

/// The way to the service manager, for the one process that talks to it. Without a manager, all that is said goes nowhere.
#[derive(Debug)]
pub struct ServiceManager {
    contact: Contact,
    /// Unbound, and never blocks; none without a manager.
    socket: Option<UnixDatagram>,
    /// What it has not taken yet.
    waiting: VecDeque<Message>,
    /// What it keeps.
    store: Store,
    /// Whether the log has told that nobody reads.
    is_told: bool,
}

impl ServiceManager {
    /// The manager that this process was started by; `passed` are the sockets that it has passed, which it goes on to keep.
    pub fn new(contact: Contact, passed: &[ListeningSocket]) -> Self {
        let socket = contact.socket.is_some().then(|| {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            io::Result::Ok(socket)
        });
        let socket = socket.and_then(|socket| match socket {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, "no socket to be had: the service manager is told nothing");
                None
            }
        });
        let store = Store::of(passed);
        Self { contact, socket, waiting: VecDeque::new(), store, is_told: false }
    }

    /// How it is reached, for the process that talks to it next.
    pub fn contact(&self) -> &Contact {
        &self.contact
    }

    /// How often [`tick`](Self::tick) is to be called, if there is a manager: at least three times in the span of its watchdog.
    pub fn interval(&self) -> Option<Duration> {
        let least = self.contact.watchdog.map_or(MAX_INTERVAL, |watchdog| watchdog / 3);
        self.socket.as_ref().map(|_| least.clamp(MIN_INTERVAL, MAX_INTERVAL))
    }

    /// Whether it keeps sockets for whoever comes after this process.
    pub fn is_keeping(&self) -> bool {
        self.socket.is_some()
    }

    /// Sends what waits, and the sign for the watchdog if all workers make progress.
    pub fn tick(&mut self, is_progress_made: bool) {
        self.send_waiting();
        // One that waits is late anyhow.
        if is_progress_made && self.contact.watchdog.is_some() && self.waiting.is_empty() {
            self.say(&["WATCHDOG=1"]);
        }
    }

    /// Queries are answered.
    pub fn ready(&mut self, status: &str) {
        self.say(&["READY=1", &status_line(status)]);
    }

    /// A reload has begun; [`ready`](Self::ready) follows, whatever comes of it.
    pub fn reloading(&mut self) {
        let status = "STATUS=reloading";
        // A unit whose main process was succeeded keeps the result of the one that died: systemd would stop it once it is no longer
        // reloading.
        if self.contact.has_succeeded {
            return self.say(&[status]);
        }
        let now = clock_gettime(ClockId::Monotonic);
        let now = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.say(&["RELOADING=1", &format!("MONOTONIC_USEC={now}"), status]);
    }

    /// It drains.
    pub fn stopping(&mut self) {
        self.say(&["STOPPING=1", "STATUS=draining"]);
    }

    /// This process is the main process from here on, after another one.
    pub fn succeed(&mut self) {
        self.contact.has_succeeded = true;
        self.say(&[&format!("MAINPID={}", process::id())]);
    }

    /// Has the manager keep these listening sockets, and no others of ours. Those that it has passed itself it keeps already. A
    /// socket of the file system is not kept: its folder may be gone when it comes back.
    ///
    /// # Errors
    /// If a descriptor cannot be duplicated; then what was kept before still is.
    pub fn keep(&mut self, sockets: &[ListeningSocket]) -> io::Result<()> {
        if self.socket.is_none() {
            return Ok(());
        }
        for change in self.store.change(sockets)? {
            self.queue(match change {
                StoreChange::Remove { name } => Message::new(&["FDSTOREREMOVE=1", &format!("FDNAME={name}")]),
                StoreChange::Add { name, fds } => {
                    // An error of the socket must not end it: poll would see one that a client can provoke (ICMP).
                    Message::with_fds(&["FDSTORE=1", &format!("FDNAME={name}"), "FDPOLL=0"], fds)
                }
            });
        }
        self.send_waiting();
        Ok(())
    }

    /// Says something, after what still waits.
    fn say(&mut self, lines: &[&str]) {
        self.queue(Message::new(lines));
        self.send_waiting();
    }

    fn queue(&mut self, message: Message) {
        if self.socket.is_some() {
            // The newest says how things are.
            if self.waiting.len() == MAX_WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(message);
        }
    }

    /// Sends what waits, as far as the manager takes it.
    fn send_waiting(&mut self) {
        let (Some(socket), Some(path)) = (&self.socket, &self.contact.socket) else { return };
        while let Some(message) = self.waiting.front() {
            if let Err(error) = message.send(socket, path) {
                if !self.is_told {
                    self.is_told = true;
                    let path = path.display();
                    tracing::warn!(
                        "the service manager does not take what it is told at NOTIFY_SOCKET={path}: {error}; going on without"
                    );
                }
                return;
            }
            self.waiting.pop_front();
        }
    }
}

/// Status as a line of a message.
fn status_line(status: &str) -> String {
    format!("STATUS={}", status.replace('\n', "; "))
}

/// What the manager has not taken is tried again at least so often ...
const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// ... and at most so often, however short the span of the watchdog is.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// So many messages wait for a manager that does not read.
const MAX_WAITING: usize = 64;

#[cfg(test)]
mod tests;
