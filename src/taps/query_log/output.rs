//! Where lines go: a file, the standard error stream, or a unix socket. None of them is waited for.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::record::QueryRecord;
use super::super::writer::Outlet;
use super::QueryLog;
use super::file::LogFile;
use super::line::{self, MAX_LINE};
use crate::config::LogTarget;
use crate::metrics::Tap;

/// The writer's part of a query log: lines that wait, and where they go.
#[derive(Debug)]
pub(in crate::taps) struct Lines {
    log: Arc<QueryLog>,
    output: Output,
    /// Lines that were not taken yet; of the first one perhaps its end.
    waiting: Vec<u8>,
    /// How many end there.
    lines: u64,
}

/// Where lines go.
#[derive(Debug)]
enum Output {
    File(LogFile),
    Stderr,
    Unix(Datagrams),
}

impl Lines {
    /// Nothing is opened before there is something to write.
    pub(in crate::taps) fn new(log: Arc<QueryLog>) -> Self {
        let output = match &log.config.to {
            LogTarget::File(path) => {
                let rotate = log.config.rotate.map(|octets| octets as u64);
                Output::File(LogFile::new(path.clone(), rotate, log.config.keep))
            }
            LogTarget::Stderr => Output::Stderr,
            LogTarget::Unix(path) => Output::Unix(Datagrams { path: path.clone(), socket: None }),
        };
        Self { log, output, waiting: Vec::with_capacity(AT_ONCE + 4 * MAX_LINE), lines: 0 }
    }
}

impl Outlet for Lines {
    fn tap(&self) -> Tap {
        Tap::QueryLog
    }

    fn file(&self) -> Option<&Path> {
        match &self.log.config.to {
            LogTarget::File(path) => Some(path),
            LogTarget::Stderr | LogTarget::Unix(_) => None,
        }
    }

    fn take(&mut self, record: &[u8]) {
        if let Some(record) = QueryRecord::read(record) {
            line::write(self.log.config.format, &record, self.log.weight(), &mut self.waiting);
            self.lines += 1;
        }
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < AT_ONCE
    }

    fn waiting(&self) -> u64 {
        self.lines
    }

    fn write(&mut self) -> io::Result<u64> {
        let taken = match &mut self.output {
            Output::File(file) => file.write(&self.waiting)?,
            Output::Stderr => write_stderr(&self.waiting)?,
            Output::Unix(datagrams) => datagrams.send(&self.waiting)?,
        };
        let lines = self.waiting.get(..taken).map_or(0, lines_in);
        self.waiting.drain(..taken);
        self.lines -= lines;
        Ok(lines)
    }

    fn blocked_on(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let blocked = match &self.output {
            Output::File(file) => file.blocked_on(),
            // Its descriptor is open as long as there is a process.
            Output::Stderr => Some(rustix::stdio::stderr()),
            Output::Unix(datagrams) => datagrams.socket.as_ref().map(AsFd::as_fd),
        };
        blocked.map(|fd| (fd, PollFlags::OUT))
    }

    fn reopen(&mut self) {
        match &mut self.output {
            Output::File(file) => file.reopen(),
            Output::Stderr => {}
            Output::Unix(datagrams) => datagrams.socket = None,
        }
    }

    fn is_shared(&self) -> bool {
        Arc::strong_count(&self.log) > 1
    }

    fn end(&mut self, _until: Instant) {}
}

/// How many lines end there.
fn lines_in(octets: &[u8]) -> u64 {
    octets.iter().filter(|octet| **octet == b'\n').count() as u64
}

/// Writes as many lines to the standard error stream as it takes at once: in one piece, so that the log comes between lines only.
fn write_stderr(lines: &[u8]) -> io::Result<usize> {
    let stderr = io::stderr();
    let mut fd = [PollFd::new(&stderr, PollFlags::OUT)];
    // Pipe(7): one that may be written to has room for `PIPE_BUF` octets, so this does not wait.
    if poll(&mut fd, Some(&Timespec::default()))? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let ends = |octets: &[u8]| octets.iter().rposition(|octet| *octet == b'\n').map(|end| end + 1);
    let whole = lines.get(..PIPE_BUF.min(lines.len())).and_then(ends).unwrap_or(lines.len());
    stderr.lock().write_all(&lines[..whole])?;
    Ok(whole)
}

/// A unix socket for datagrams.
#[derive(Debug)]
struct Datagrams {
    path: PathBuf,
    /// Connected to the reader, if that was there.
    socket: Option<UnixDatagram>,
}

impl Datagrams {
    /// Sends lines, each as a datagram without its line feed, until the reader has no room. Returns the octets of those that were
    /// sent.
    fn send(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        for line in lines.split_inclusive(|octet| *octet == b'\n') {
            let result = self.connected().and_then(|socket| socket.send(line.trim_ascii_end()));
            match result {
                Ok(_) => sent += line.len(),
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        self.socket = None;
                    }
                    return if sent > 0 { Ok(sent) } else { Err(error) };
                }
            }
        }
        Ok(sent)
    }

    fn connected(&mut self) -> io::Result<&UnixDatagram> {
        match &mut self.socket {
            Some(_) => {}
            none => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(&self.path)?;
                *none = Some(socket);
            }
        }
        self.socket.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// Octets of lines that are written at a time.
const AT_ONCE: usize = 128 << 10;

/// Octets that a pipe takes in one piece (POSIX has 512 at least; Linux has 4096).
const PIPE_BUF: usize = 4096;
