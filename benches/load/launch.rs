//! Starting a server under load: on a port that was free, with a query sent again and again from before the start, so that
//! the time to the first right answer is known.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::common::message::{self, Expect, Lengths};
use crate::common::process::{self, Process, Server};

/// How a server is started: a program with its arguments, in a folder that holds its config.
pub(crate) struct Launch {
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments. File names among them are relative to the folder.
    pub(crate) arguments: Vec<OsString>,
}

/// Asks a server that is about to start.
pub(crate) struct Knocker {
    /// Where the queries come from.
    socket: UdpSocket,
    /// Where the server is to listen.
    pub(crate) address: SocketAddr,
    /// Names before the first one comes again; 0: only when numbers run out.
    names: u32,
    /// How long they are.
    lengths: Lengths,
    /// Queries sent.
    sent: u16,
}

impl Knocker {
    /// Finds an address that nobody listens at. Queries will be for so many names.
    pub(crate) fn new(names: u32, lengths: Lengths) -> io::Result<Self> {
        // In this order, or the system might give the socket the very port that is to be free.
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(Self { socket, address: free_address()?, names, lengths, sent: 0 })
    }

    /// Starts the server in a folder and waits for the first right answer. Also returns how long that took, from the
    /// moment at which the process became the program.
    pub(crate) fn start(
        mut self,
        launch: &Launch,
        folder: &Path,
        core: Option<usize>,
        longest: Duration,
    ) -> io::Result<(Server, Duration)> {
        let log = folder.join(LOG);
        let Launch { program, arguments } = launch;
        let stderr = Stdio::from(File::create(&log)?);
        let until = process::now() + longest;
        let mut process = Process::program(program, arguments, folder, core, stderr)?;
        while !self.knock()? {
            if process.child.try_wait()?.is_some() || process::now() > until {
                return Err(io::Error::other(format!("did not start: {}", last_line(&log))));
            }
        }
        let answered = process::now();
        let first_answer = answered.saturating_sub(process.began()?);
        Ok((Server { process, address: self.address }, first_answer))
    }

    /// Sends a query and waits a moment. Whether a right answer came.
    fn knock(&mut self) -> io::Result<bool> {
        let mut bytes = Vec::new();
        message::write_query(self.number(self.sent), self.lengths, false, self.sent, &mut bytes);
        self.sent = self.sent.wrapping_add(1);
        // Nobody may listen yet: then the system refuses, now or at the next call.
        let _ = self.socket.send_to(&bytes, self.address);
        let next = process::now() + GAP;
        loop {
            let wait = next.saturating_sub(process::now());
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
            let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
            if rustix::io::retry_on_intr(|| poll(&mut ready, Some(&timeout)))? == 0 {
                return Ok(false);
            }
            let mut response = [0; 512];
            let Ok(length) = self.socket.recv(&mut response) else { continue };
            let Some(id) = response.first_chunk().map(|id| u16::from_be_bytes(*id)) else { continue };
            if message::is_right(&response[..length], self.number(id), self.lengths, false, Expect::Answer) {
                return Ok(true);
            }
        }
    }

    /// The number in the query with an ID: none that a load begins with.
    fn number(&self, id: u16) -> u32 {
        let number = u32::MAX - u32::from(id);
        number.checked_rem(self.names).unwrap_or(number)
    }
}

/// How often a server is asked whether it is up.
const GAP: Duration = Duration::from_micros(500);

/// The file that takes what a server prints.
pub(crate) const LOG: &str = "log";

/// An address of this machine with a port that is free for UDP and TCP.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    loop {
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
}

/// The last line of a log that says anything.
fn last_line(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or("it said nothing").to_owned()
}
