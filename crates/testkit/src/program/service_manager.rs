//! The side of a service manager such as systemd: a notify socket, a store of descriptors, and processes that
//! are started with these and with other sockets. Only for tests that run in a process of their own
//! ([`alone`](crate::namespace::alone)): what is opened for one child another would get as well.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

use crate::{PATIENCE, Process, Server, ms, program};

/// A service manager, and the files of the service.
pub struct ServiceManager {
    /// Holds the notify socket, the config and the zones.
    folder: TempDir,
    notify: UnixDatagram,
    /// The stored descriptors, each with its name.
    pub(crate) store: Vec<(String, OwnedFd)>,
    /// The lines of each message received from the process.
    pub reported: Vec<Vec<String>>,
    /// Environment variables besides the usual ones.
    pub environment: Vec<(&'static str, String)>,
}

impl ServiceManager {
    /// One that runs `hedgerow serve` with this config and these files.
    pub fn new(config: &str, files: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        for (name, content) in files.iter().chain([&("config.toml", config)]) {
            std::fs::write(folder.path().join(name), content).expect("our own folder");
        }
        let notify = UnixDatagram::bind(folder.path().join("notify")).expect("our own folder");
        notify.set_read_timeout(Some(ms(20))).expect("a timeout above zero");
        Self { folder, notify, store: Vec::new(), reported: Vec::new(), environment: Vec::new() }
    }

    /// Where a file of the config's folder is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the server with what is in the store, and waits until it says that it is ready.
    pub fn start(&mut self) -> Server {
        let store = self.store.iter().map(|(name, fd)| (name.as_str(), fd.try_clone().expect("a descriptor")));
        let process = self.run(store.collect());
        let server = Server::ready(process, TempDir::new().expect("a temporary folder"));
        self.wait_for("READY=1");
        server
    }

    /// Starts the server with these sockets.
    pub fn run(&self, sockets: Vec<(&str, OwnedFd)>) -> Process {
        let names: Vec<_> = sockets.iter().map(|(name, _)| *name).collect();
        self.run_with(sockets.iter().map(|(_, fd)| fd).collect(), sockets.len(), &names.join(":"))
    }

    /// Runs a process with variables that may differ from the sockets passed.
    pub fn run_with(&self, sockets: Vec<&OwnedFd>, count: usize, names: &str) -> Process {
        // A shell moves them from where they are free to where they are expected, and knows the number of the
        // process.
        let mut script = String::new();
        let mut inherited = Vec::new();
        for (place, socket) in sockets.into_iter().enumerate() {
            let inheritable = fcntl_dupfd_cloexec(socket, 100).expect("a descriptor");
            fcntl_setfd(&inheritable, FdFlags::empty()).expect("a flag");
            let (from, to) = (inheritable.as_raw_fd(), 3 + place);
            script.push_str(&format!("exec {to}<&{from} {from}<&-; "));
            inherited.push(inheritable);
        }
        // The process that runs the tests may have left a descriptor open here.
        script.push_str(&format!("exec {}<&-; ", 3 + inherited.len()));
        script.push_str("export LISTEN_PID=${OTHER_PID:-$$}; exec \"$@\"");
        let mut command = Command::new("bash");
        command.args(["-c", &script, "bash"]).arg(program()).args(["serve", "-c"]);
        command.arg(self.path("config.toml"));
        Process::run_by(command, |command| {
            command.env("LISTEN_FDS", count.to_string()).env("LISTEN_FDNAMES", names);
            command.env("NOTIFY_SOCKET", self.path("notify"));
            command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        })
    }

    /// Reads until this line comes, and returns the message that holds it; earlier messages do not count.
    pub fn wait_for(&mut self, line: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(message) = self.read()
                && message.iter().any(|reported| reported == line)
            {
                return message;
            }
            assert!(Instant::now() < deadline, "did not get {line:?}, but {:?}", self.reported);
        }
    }

    /// Reads what is there to be read.
    pub fn read_all(&mut self) {
        while self.read().is_some() {}
    }

    /// The names of what it keeps, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.store.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// Reads a message, if one comes soon, and obeys it.
    fn read(&mut self) -> Option<Vec<String>> {
        let mut text = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut text)];
        let length = recvmsg(self.notify.as_fd(), &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?.bytes;
        let fds: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        let text = String::from_utf8(text[..length].to_vec()).expect("UTF-8");
        let message: Vec<String> = text.lines().map(str::to_owned).collect();
        let name = message.iter().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
        if message.iter().any(|line| line == "FDSTOREREMOVE=1") {
            self.store.retain(|(stored, _)| *stored != name);
        }
        match message.iter().any(|line| line == "FDSTORE=1") {
            // Two descriptors of one socket count once.
            true => {
                for fd in fds {
                    let is_known = self.store.iter().any(|(_, stored)| is_same(stored, &fd));
                    if !is_known {
                        self.store.push((name.clone(), fd));
                    }
                }
            }
            false => assert!(fds.is_empty(), "descriptors that are not to be stored: {message:?}"),
        }
        self.reported.push(message.clone());
        Some(message)
    }
}

/// Returns true if two descriptors are of one socket.
fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let inode = |fd| rustix::fs::fstat(fd).expect("it is open").st_ino;
    inode(one) == inode(other)
}
