//! Output of dnstap frames: a connection to a collector, which is reopened when it is lost, or a file.
//!
//! ```text
//!             connect          READY, then ACCEPT is heard        START
//!   Closed ───────────▶ Shaking hands ───────────────────▶ Open ◀─── frames
//!      ▲                     │  5 s, nonsense                │  lost
//!      └──── back-off ◀──────┴───────────────────────────────┘
//! ```
//!
//! A frame counts as written when the system has accepted all of it. A frame cut by the loss of a connection
//! is sent again on the next one.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use super::super::writer::Outlet;
use super::Dnstap;
use super::frames::{
    ControlFrame, DnstapFrame, MAX_CONTROL, control_frame, data_frame_len, read_control, write_data_frame,
};
use crate::backoff::Backoff;
use crate::config::DnstapTarget;
use crate::metrics::Tap;

/// The writer's part of dnstap: pending frames and their output.
#[derive(Debug)]
pub(in crate::taps) struct Frames {
    dnstap: Arc<Dnstap>,
    link: DnstapLink,
    waiting: Vec<u8>,
    frames: u64,
    /// The part of the first frame that was sent.
    sent: usize,
    back_off: Backoff,
}

#[derive(Debug)]
enum DnstapLink {
    /// Not connected, until the next attempt at this time.
    Closed(Option<Instant>),
    /// Connected; the reader must answer before `until`.
    ShakingHands {
        socket: Socket,
        has_said: bool,
        heard: Vec<u8>,
        until: Instant,
    },
    Open(Socket),
    /// A file with the length of its complete frames.
    File {
        file: File,
        len: u64,
    },
}

impl Frames {
    /// Creates the output, which opens nothing before the first frame.
    pub(in crate::taps) fn new(dnstap: Arc<Dnstap>) -> Self {
        let waiting = Vec::with_capacity(AT_ONCE + ROOM);
        Self {
            dnstap,
            link: DnstapLink::Closed(None),
            waiting,
            frames: 0,
            sent: 0,
            back_off: Backoff::new(FIRST_BACK_OFF),
        }
    }

    fn close(&mut self, now: Instant) {
        self.link = DnstapLink::Closed(Some(now + self.back_off.wait(MAX_BACK_OFF)));
        self.sent = 0;
    }

    /// Continues to open the link. Returns true once it is open.
    fn open(&mut self, now: Instant) -> io::Result<bool> {
        match &mut self.link {
            DnstapLink::Open(_) | DnstapLink::File { .. } => Ok(true),
            DnstapLink::Closed(Some(at)) if now < *at => Ok(false),
            DnstapLink::Closed(_) => {
                self.link = match &self.dnstap.config.to {
                    DnstapTarget::File(path) => open_file(path)?,
                    DnstapTarget::Unix(path) => connect(&SockAddr::unix(path)?, now)?,
                    DnstapTarget::Tcp(address) => connect(&(*address).into(), now)?,
                };
                Ok(matches!(self.link, DnstapLink::File { .. }))
            }
            DnstapLink::ShakingHands { socket, has_said, heard, until } => {
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
                if !*has_said && socket.peer_addr().is_ok() {
                    // A new connection has room for so few bytes.
                    send(socket, &control_frame(ControlFrame::Ready))?;
                    *has_said = true;
                }
                if now >= *until {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the collector does not finish the Frame Streams handshake",
                    ));
                }
                let mut room = [0; MAX_CONTROL];
                match socket.read(&mut room) {
                    Ok(0) => return Err(io::ErrorKind::ConnectionReset.into()),
                    Ok(octets) => heard.extend_from_slice(&room[..octets]),
                    Err(error) if is_not_yet(&error) => return Ok(false),
                    Err(error) => return Err(error),
                }
                match read_control(heard) {
                    DnstapFrame::Part => return Ok(false),
                    DnstapFrame::Control(ControlFrame::Accept) => {}
                    DnstapFrame::Control(_) | DnstapFrame::Nonsense => return Err(nonsense()),
                }
                send(socket, &control_frame(ControlFrame::Start))?;
                if let DnstapLink::ShakingHands { socket, .. } =
                    std::mem::replace(&mut self.link, DnstapLink::Closed(None))
                {
                    self.link = DnstapLink::Open(socket);
                }
                self.back_off.reset();
                Ok(true)
            }
        }
    }

    /// Writes what the link accepts now. Returns the number of bytes.
    fn send(&mut self) -> io::Result<usize> {
        let octets = self.waiting.get(self.sent..).unwrap_or_default();
        match &mut self.link {
            DnstapLink::Closed(_) | DnstapLink::ShakingHands { .. } => Err(io::ErrorKind::WouldBlock.into()),
            DnstapLink::Open(socket) => {
                // The reader sends nothing more, so a read only shows that it is gone.
                match socket.read(&mut [0]) {
                    Ok(0) => return Err(io::ErrorKind::ConnectionReset.into()),
                    Ok(_) => return Err(nonsense()),
                    Err(error) if is_not_yet(&error) => {}
                    Err(error) => return Err(error),
                }
                socket.write(octets)
            }
            DnstapLink::File { file, len } => {
                let taken = file.write(octets)?;
                let whole = whole_frames(octets, taken).1;
                if whole < taken {
                    // The disk is full. The incomplete frame is cut off, so that the file has only complete
                    // frames.
                    file.set_len(*len + whole as u64)?;
                }
                *len += whole as u64;
                if whole == 0 { Err(Errno::NOSPC.into()) } else { Ok(whole) }
            }
        }
    }
}

impl Outlet for Frames {
    fn tap(&self) -> Tap {
        Tap::Dnstap
    }

    fn file(&self) -> Option<&Path> {
        match &self.dnstap.config.to {
            DnstapTarget::File(path) => Some(path),
            DnstapTarget::Unix(_) | DnstapTarget::Tcp(_) => None,
        }
    }

    fn take(&mut self, record: &[u8]) {
        write_data_frame(record, &mut self.waiting);
        self.frames += 1;
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < AT_ONCE
    }

    fn waiting(&self) -> u64 {
        self.frames
    }

    fn write(&mut self) -> io::Result<u64> {
        let now = Instant::now();
        let taken = match self.open(now) {
            Ok(true) => self.send(),
            Ok(false) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error),
        };
        match taken {
            Ok(taken) => {
                let (frames, whole) = whole_frames(&self.waiting, self.sent + taken);
                self.sent = self.sent + taken - whole;
                self.waiting.drain(..whole);
                self.frames -= frames;
                Ok(frames)
            }
            Err(error) => {
                let is_file = matches!(self.link, DnstapLink::File { .. });
                if !is_file && !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                    self.close(now);
                }
                Err(error)
            }
        }
    }

    fn blocked_on(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.link {
            DnstapLink::Closed(_) | DnstapLink::File { .. } => None,
            DnstapLink::ShakingHands { socket, has_said: false, .. } => Some((socket.as_fd(), PollFlags::OUT)),
            DnstapLink::ShakingHands { socket, .. } => Some((socket.as_fd(), PollFlags::IN)),
            DnstapLink::Open(socket) => Some((socket.as_fd(), PollFlags::OUT)),
        }
    }

    /// Keeps a connection, and a file unless its path names another one now.
    fn reopen(&mut self) {
        let DnstapTarget::File(path) = &self.dnstap.config.to else { return };
        if let DnstapLink::File { file, .. } = &mut self.link
            && !is_at(file, path)
        {
            let _ = file.write_all(&control_frame(ControlFrame::Stop));
            self.link = DnstapLink::Closed(None);
        }
    }

    fn is_shared(&self) -> bool {
        Arc::strong_count(&self.dnstap) > 1
    }

    fn end(&mut self, until: Instant) {
        match &mut self.link {
            DnstapLink::File { file, .. } => drop(file.write_all(&control_frame(ControlFrame::Stop))),
            // A control frame cannot go inside a data frame.
            DnstapLink::Open(socket) if self.sent == 0 => {
                if send(socket, &control_frame(ControlFrame::Stop)).is_ok() {
                    wait_for_finish(socket, until.min(Instant::now() + FINISH));
                }
            }
            DnstapLink::Open(_) | DnstapLink::Closed(_) | DnstapLink::ShakingHands { .. } => {}
        }
    }
}

/// Returns the number and the length of complete frames in the first `taken` bytes.
fn whole_frames(octets: &[u8], taken: usize) -> (u64, usize) {
    let (mut frames, mut whole) = (0, 0);
    while let Some(len) = octets.get(whole..).and_then(data_frame_len)
        && whole + len <= taken
    {
        (frames, whole) = (frames + 1, whole + len);
    }
    (frames, whole)
}

fn connect(address: &SockAddr, now: Instant) -> io::Result<DnstapLink> {
    let socket = Socket::new(Domain::from(i32::from(address.family())), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(DnstapLink::ShakingHands { socket, has_said: false, heard: Vec::new(), until: now + HANDSHAKE })
}

/// Creates a file. A file of an earlier run is renamed to `.1`.
fn open_file(path: &Path) -> io::Result<DnstapLink> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0) {
        let mut kept = path.as_os_str().to_owned();
        kept.push(".1");
        fs::rename(path, PathBuf::from(kept))?;
    }
    let mut file = File::options().append(true).create(true).mode(MODE).open(path)?;
    let start = control_frame(ControlFrame::Start);
    file.write_all(&start)?;
    Ok(DnstapLink::File { file, len: start.len() as u64 })
}

fn send(socket: &mut Socket, octets: &[u8]) -> io::Result<()> {
    match socket.write(octets)? {
        taken if taken == octets.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Waits until the collector has read everything.
fn wait_for_finish(socket: &mut Socket, until: Instant) {
    let mut heard = Vec::new();
    while read_control(&heard) == DnstapFrame::Part {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        if !poll(&mut [PollFd::new(&*socket, PollFlags::IN)], Some(&left)).is_ok_and(|ready| ready > 0) {
            return;
        }
        let mut room = [0; MAX_CONTROL];
        match socket.read(&mut room) {
            Ok(0) | Err(_) => return,
            Ok(octets) => heard.extend_from_slice(&room[..octets]),
        }
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the collector does not support Frame Streams or dnstap")
}

/// Returns true if the open file is the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().is_ok_and(|open| fs::metadata(path).is_ok_and(|there| place(there) == place(open)))
}

const AT_ONCE: usize = 128 << 10;

/// Room for the last frame.
const ROOM: usize = 72 << 10;

const HANDSHAKE: Duration = Duration::from_secs(5);

const FINISH: Duration = Duration::from_millis(200);

const FIRST_BACK_OFF: Duration = Duration::from_millis(100);

/// The longest back-off, short enough to find a returned collector soon.
const MAX_BACK_OFF: Duration = Duration::from_secs(10);

/// Write access for the owner, read access for the group.
const MODE: u32 = 0o640;
