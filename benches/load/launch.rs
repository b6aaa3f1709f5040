//! Starting a server under load: on a port that was free, with a query sent again and again from before the
//! start, so that the time to the first right answer is known. A separate role does this from another
//! namespace.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::common::message::{self, Expect, Lengths};
use crate::common::process::{self, Process, Server};

/// How a server is started: a program with its arguments, in a folder that holds its config.
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    /// The command line. File names in it are relative to the folder.
    pub(crate) arguments: Vec<OsString>,
}

/// Asks a server that is about to start.
pub(crate) struct Knocker {
    /// The source of the queries.
    socket: UdpSocket,
    /// The server's future address.
    pub(crate) address: SocketAddr,
    /// Names before the first one comes again; 0: only when numbers run out.
    names: u32,
    lengths: Lengths,
    sent: u16,
}

/// A role: asks a server that is about to start from where this process is, and says whether it has answered.
#[derive(clap::Args)]
pub(crate) struct Knock {
    /// The server's future address.
    #[arg(long)]
    pub(crate) server: SocketAddr,
    /// Names before the first one comes again; 0: only when numbers run out.
    #[arg(long)]
    pub(crate) names: u32,
    #[arg(long)]
    pub(crate) lengths: Lengths,
}

impl Knock {
    /// Asks for a second at most.
    pub(crate) fn run(&self) -> io::Result<()> {
        let &Self { server, names, lengths } = self;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let mut knocker = Knocker { socket, address: server, names, lengths, sent: 0 };
        let until = process::now() + Duration::from_secs(1);
        let mut has_answered = false;
        while !has_answered && process::now() < until {
            has_answered = knocker.knock()?;
        }
        println!("{}", if has_answered { ANSWERED } else { "silent" });
        io::stdout().flush()
    }

    /// Asks from a namespace, and returns whether there was an answer.
    pub(crate) fn ask_inside(&self, command: &[String], core: usize) -> io::Result<bool> {
        let Self { server, names, lengths } = self;
        let arguments = format!("knock --server {server} --names {names} --lengths {}", lengths.word());
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        Ok(Process::role_under(command, &arguments, Some(core))?.1 == ANSWERED)
    }
}

/// The output of the role after an answer.
const ANSWERED: &str = "answered";

impl Knocker {
    /// Finds an address at which no server listens. Queries will be for this many names.
    pub(crate) fn new(names: u32, lengths: Lengths) -> io::Result<Self> {
        // In this order, or the system might give the socket the very port that is to be free.
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(Self { socket, address: free_address()?, names, lengths, sent: 0 })
    }

    /// Starts the server in a folder and waits for the first right answer. Also returns how long that took,
    /// from the moment at which the process became the program.
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

    /// Sends a query and waits a moment. Returns true if a right answer came.
    fn knock(&mut self) -> io::Result<bool> {
        let mut bytes = Vec::new();
        message::write_query(self.number(self.sent), self.lengths, false, self.sent, &mut bytes);
        self.sent = self.sent.wrapping_add(1);
        // The server may not listen yet: then the system returns an error, now or at the next call.
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
pub(crate) fn last_line(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or("it said nothing").to_owned()
}
