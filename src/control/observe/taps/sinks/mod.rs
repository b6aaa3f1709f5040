//! The outputs of taps. No write blocks.

mod collector;
mod file;

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(super) use self::collector::Collector;
pub(super) use self::file::RecordFile;
use super::dnstap::frames::data_frame_len;

/// An output of records. It opens nothing before the first record.
pub(super) trait Sink: Send {
    /// Writes as much as possible without blocking. Returns the number of bytes. After an error, the record
    /// that was cut is written again.
    fn write(&mut self, octets: &[u8]) -> io::Result<usize>;

    /// Returns the descriptor to wait for after a write would have blocked.
    fn blocked_on(&self) -> Option<(BorrowedFd<'_>, PollFlags)>;

    fn file(&self) -> Option<&Path> {
        None
    }

    /// Opens a file anew, because the config was loaded again.
    fn reopen(&mut self) {}

    /// Ends the output after a whole record: informs the reader, which takes until `until` at most.
    fn end(&mut self, _until: Instant) {}
}

/// The form of records in an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Each ends with a line feed.
    Lines,
    /// The data frames of Frame Streams.
    Frames,
}

impl Framing {
    /// Returns the whole records in some bytes, with their line feed or length.
    pub(super) fn records(self, mut octets: &[u8]) -> impl Iterator<Item = &[u8]> {
        std::iter::from_fn(move || {
            let len = match self {
                Self::Lines => octets.iter().position(|octet| *octet == b'\n').map(|end| end + 1),
                Self::Frames => data_frame_len(octets),
            };
            let (record, rest) = octets.split_at_checked(len?)?;
            octets = rest;
            Some(record)
        })
    }

    /// Returns the number and the length of the whole records in some bytes.
    pub(super) fn whole(self, octets: &[u8]) -> (u64, usize) {
        self.records(octets).fold((0, 0), |(records, whole), record| (records + 1, whole + record.len()))
    }
}

/// The standard error stream, which stays open as long as the process runs.
pub(super) struct Stderr;

impl Sink for Stderr {
    /// Writes as many lines as the stream takes atomically, so that log messages only come between lines.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        let mut fd = [PollFd::new(&stderr, PollFlags::OUT)];
        // pipe(7): a writable pipe has room for `PIPE_BUF` bytes, so the write does not block.
        if poll(&mut fd, Some(&Timespec::default()))? == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (_, whole) = Framing::Lines.whole(&lines[..PIPE_BUF.min(lines.len())]);
        let whole = if whole == 0 { lines.len() } else { whole };
        stderr.lock().write_all(&lines[..whole])?;
        Ok(whole)
    }

    fn blocked_on(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        Some((rustix::stdio::stderr(), PollFlags::OUT))
    }
}

/// A unix socket that takes each line as a datagram, without its line feed.
pub(super) struct Datagrams {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Datagrams {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, socket: None }
    }

    fn connected(&mut self) -> io::Result<&UnixDatagram> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(&self.path)?;
                socket
            }
        };
        Ok(self.socket.insert(socket))
    }
}

impl Sink for Datagrams {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        for line in lines.split_inclusive(|octet| *octet == b'\n') {
            match self.connected().and_then(|socket| socket.send(line.trim_ascii_end())) {
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

    fn blocked_on(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.socket.as_ref().map(|socket| (socket.as_fd(), PollFlags::OUT))
    }

    fn reopen(&mut self) {
        self.socket = None;
    }
}

/// The bytes that a pipe takes atomically (POSIX has 512 at least; Linux has 4096).
const PIPE_BUF: usize = 4096;
