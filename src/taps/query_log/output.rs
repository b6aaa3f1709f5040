//! Outputs of lines: a file, the standard error stream, or a unix socket. No write blocks.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::record::QueryRecord;
use super::super::writer::Outlet;
use super::QueryLog;
use super::file::LogFile;
use super::line::{self, MAX_LINE};
use crate::config::LogTarget;
use crate::metrics::Tap;

#[derive(Debug)]
pub(in crate::taps) struct QueryLogLines {
    log: Arc<QueryLog>,
    output: QueryLogOutput,
    /// The pending lines; the first one may be incomplete.
    waiting: Vec<u8>,
    lines: u64,
}

#[derive(Debug)]
enum QueryLogOutput {
    File(LogFile),
    Stderr,
    Unix(Datagrams),
}

impl QueryLogLines {
    /// Creates the output, which opens nothing before the first line.
    pub(in crate::taps) fn new(log: Arc<QueryLog>) -> Self {
        let output = match &log.config.to {
            LogTarget::File(path) => {
                let rotate = log.config.rotate.map(|octets| octets as u64);
                QueryLogOutput::File(LogFile::new(path.clone(), rotate, log.config.keep))
            }
            LogTarget::Stderr => QueryLogOutput::Stderr,
            LogTarget::Unix(path) => QueryLogOutput::Unix(Datagrams { path: path.clone(), socket: None }),
        };
        Self { log, output, waiting: Vec::with_capacity(AT_ONCE + 4 * MAX_LINE), lines: 0 }
    }
}

impl Outlet for QueryLogLines {
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
            QueryLogOutput::File(file) => file.write(&self.waiting)?,
            QueryLogOutput::Stderr => write_stderr(&self.waiting)?,
            QueryLogOutput::Unix(datagrams) => datagrams.send(&self.waiting)?,
        };
        let lines = self.waiting.get(..taken).map_or(0, lines_in);
        self.waiting.drain(..taken);
        self.lines -= lines;
        Ok(lines)
    }

    fn blocked_on(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let blocked = match &self.output {
            QueryLogOutput::File(file) => file.blocked_on(),
            // The descriptor stays open as long as the process runs.
            QueryLogOutput::Stderr => Some(rustix::stdio::stderr()),
            QueryLogOutput::Unix(datagrams) => datagrams.socket.as_ref().map(AsFd::as_fd),
        };
        blocked.map(|fd| (fd, PollFlags::OUT))
    }

    fn reopen(&mut self) {
        match &mut self.output {
            QueryLogOutput::File(file) => file.reopen(),
            QueryLogOutput::Stderr => {}
            QueryLogOutput::Unix(datagrams) => datagrams.socket = None,
        }
    }

    fn is_shared(&self) -> bool {
        Arc::strong_count(&self.log) > 1
    }
}

fn lines_in(octets: &[u8]) -> u64 {
    octets.iter().filter(|octet| **octet == b'\n').count() as u64
}

/// Writes as many lines to the standard error stream as it takes atomically, so that log messages only come
/// between lines.
fn write_stderr(lines: &[u8]) -> io::Result<usize> {
    let stderr = io::stderr();
    let mut fd = [PollFd::new(&stderr, PollFlags::OUT)];
    // pipe(7): a writable pipe has room for `PIPE_BUF` bytes, so the write does not block.
    if poll(&mut fd, Some(&Timespec::default()))? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let ends = |octets: &[u8]| octets.iter().rposition(|octet| *octet == b'\n').map(|end| end + 1);
    let whole = lines.get(..PIPE_BUF.min(lines.len())).and_then(ends).unwrap_or(lines.len());
    stderr.lock().write_all(&lines[..whole])?;
    Ok(whole)
}

#[derive(Debug)]
struct Datagrams {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Datagrams {
    /// Sends each line as a datagram without its line feed, until the reader has no room. Returns the bytes
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

const AT_ONCE: usize = 128 << 10;

/// The bytes that a pipe takes atomically (POSIX has 512 at least; Linux has 4096).
const PIPE_BUF: usize = 4096;
