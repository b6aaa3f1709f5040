//! Where frames go: a connection to a collector, which is made anew when it is lost, or a file.
//!
//! ```text
//!             connect          READY, then ACCEPT is heard        START
//!   Closed ───────────▶ Shaking hands ───────────────────▶ Open ◀─── frames
//!      ▲                     │  5 s, nonsense                │  lost
//!      └──── back-off ◀──────┴───────────────────────────────┘
//! ```
//!
//! A frame counts as written when the system has taken all of it. One that was cut by the loss of a connection goes out whole by the next.

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
use super::frames::{Control, Heard, MAX_CONTROL, control_frame, data_frame_len, read_control, write_data_frame};
use crate::config::DnstapTarget;
use crate::metrics::Tap;

/// The writer's part of dnstap: frames that wait, and where they go.
#[derive(Debug)]
pub(in crate::taps) struct Frames {
    dnstap: Arc<Dnstap>,
    link: Link,
    /// Frames that were not taken whole.
    waiting: Vec<u8>,
    /// How many they are.
    frames: u64,
    /// How much of the first one was taken.
    sent: usize,
    /// How long is waited before the next connection is tried.
    back_off: Duration,
}

/// The way to the reader.
#[derive(Debug)]
enum Link {
    /// There is none; it is tried again then.
    Closed(Option<Instant>),
    /// It was made, and the reader is to say until then what it takes.
    ShakingHands { socket: Socket, has_said: bool, heard: Vec<u8>, until: Instant },
    /// The reader takes frames.
    Open(Socket),
    /// A file, and how many octets it has of whole frames.
    File { file: File, len: u64 },
}

impl Frames {
    /// Nothing is opened before there is something to write.
    pub(in crate::taps) fn new(dnstap: Arc<Dnstap>) -> Self {
        let waiting = Vec::with_capacity(AT_ONCE + ROOM);
        Self { dnstap, link: Link::Closed(None), waiting, frames: 0, sent: 0, back_off: FIRST_BACK_OFF }
    }

    /// Gives the link up, and waits longer before the next.
    fn close(&mut self, now: Instant) {
        self.link = Link::Closed(Some(now + self.back_off));
        self.back_off = (self.back_off * 2).min(MAX_BACK_OFF);
        self.sent = 0;
    }

    /// Goes on with making a way to the reader. Returns whether there is one.
    fn open(&mut self, now: Instant) -> io::Result<bool> {
        match &mut self.link {
            Link::Open(_) | Link::File { .. } => Ok(true),
            Link::Closed(Some(at)) if now < *at => Ok(false),
            Link::Closed(_) => {
                self.link = match &self.dnstap.config.to {
                    DnstapTarget::File(path) => open_file(path)?,
                    DnstapTarget::Unix(path) => connect(&SockAddr::unix(path)?, now)?,
                    DnstapTarget::Tcp(address) => connect(&(*address).into(), now)?,
                };
                Ok(matches!(self.link, Link::File { .. }))
            }
            Link::ShakingHands { socket, has_said, heard, until } => {
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
                if !*has_said && socket.peer_addr().is_ok() {
                    // A new connection has room for so little.
                    send(socket, &control_frame(Control::Ready))?;
                    *has_said = true;
                }
                if now >= *until {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the collector does not say what it takes"));
                }
                let mut room = [0; MAX_CONTROL];
                match socket.read(&mut room) {
                    Ok(0) => return Err(io::ErrorKind::ConnectionReset.into()),
                    Ok(octets) => heard.extend_from_slice(&room[..octets]),
                    Err(error) if is_not_yet(&error) => return Ok(false),
                    Err(error) => return Err(error),
                }
                match read_control(heard) {
                    Heard::Part => return Ok(false),
                    Heard::Control(Control::Accept) => {}
                    Heard::Control(_) | Heard::Nonsense => return Err(nonsense()),
                }
                send(socket, &control_frame(Control::Start))?;
                if let Link::ShakingHands { socket, .. } = std::mem::replace(&mut self.link, Link::Closed(None)) {
                    self.link = Link::Open(socket);
                }
                self.back_off = FIRST_BACK_OFF;
                Ok(true)
            }
        }
    }

    /// Writes what the open link takes. Returns how many octets it has taken.
    fn send(&mut self) -> io::Result<usize> {
        let octets = self.waiting.get(self.sent..).unwrap_or_default();
        match &mut self.link {
            Link::Closed(_) | Link::ShakingHands { .. } => Err(io::ErrorKind::WouldBlock.into()),
            Link::Open(socket) => {
                // It says nothing more, unless it goes away.
                match socket.read(&mut [0]) {
                    Ok(0) => return Err(io::ErrorKind::ConnectionReset.into()),
                    Ok(_) => return Err(nonsense()),
                    Err(error) if is_not_yet(&error) => {}
                    Err(error) => return Err(error),
                }
                socket.write(octets)
            }
            Link::File { file, len } => {
                let taken = file.write(octets)?;
                let whole = whole_frames(octets, taken).1;
                if whole < taken {
                    // The disk is full. What is there of the last frame goes, so that readers find whole ones.
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
                let is_file = matches!(self.link, Link::File { .. });
                if !is_file && !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                    self.close(now);
                }
                Err(error)
            }
        }
    }

    fn blocked_on(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.link {
            Link::Closed(_) | Link::File { .. } => None,
            Link::ShakingHands { socket, has_said: false, .. } => Some((socket.as_fd(), PollFlags::OUT)),
            Link::ShakingHands { socket, .. } => Some((socket.as_fd(), PollFlags::IN)),
            Link::Open(socket) => Some((socket.as_fd(), PollFlags::OUT)),
        }
    }

    /// A connection is kept, and a file unless somebody has moved it away.
    fn reopen(&mut self) {
        let DnstapTarget::File(path) = &self.dnstap.config.to else { return };
        if let Link::File { file, .. } = &mut self.link
            && !is_at(file, path)
        {
            let _ = file.write_all(&control_frame(Control::Stop));
            self.link = Link::Closed(None);
        }
    }

    fn is_shared(&self) -> bool {
        Arc::strong_count(&self.dnstap) > 1
    }

    fn end(&mut self, until: Instant) {
        match &mut self.link {
            Link::File { file, .. } => drop(file.write_all(&control_frame(Control::Stop))),
            // Within a frame nothing else can be said.
            Link::Open(socket) if self.sent == 0 => {
                if send(socket, &control_frame(Control::Stop)).is_ok() {
                    wait_for_finish(socket, until.min(Instant::now() + FINISH));
                }
            }
            Link::Open(_) | Link::Closed(_) | Link::ShakingHands { .. } => {}
        }
    }
}

/// How many frames there are whole in the first `taken` octets, and how many octets those are.
fn whole_frames(octets: &[u8], taken: usize) -> (u64, usize) {
    let (mut frames, mut whole) = (0, 0);
    while let Some(len) = octets.get(whole..).and_then(data_frame_len)
        && whole + len <= taken
    {
        (frames, whole) = (frames + 1, whole + len);
    }
    (frames, whole)
}

/// Begins to connect to a collector.
fn connect(address: &SockAddr, now: Instant) -> io::Result<Link> {
    let socket = Socket::new(Domain::from(i32::from(address.family())), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(Link::ShakingHands { socket, has_said: false, heard: Vec::new(), until: now + HANDSHAKE })
}

/// Begins a file. What is there already, from another run, stays beside it as `.1`.
fn open_file(path: &Path) -> io::Result<Link> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0) {
        let mut kept = path.as_os_str().to_owned();
        kept.push(".1");
        fs::rename(path, PathBuf::from(kept))?;
    }
    let mut file = File::options().append(true).create(true).mode(MODE).open(path)?;
    let start = control_frame(Control::Start);
    file.write_all(&start)?;
    Ok(Link::File { file, len: start.len() as u64 })
}

/// Sends a few octets whole.
fn send(socket: &mut Socket, octets: &[u8]) -> io::Result<()> {
    match socket.write(octets)? {
        taken if taken == octets.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Waits until the collector has read all.
fn wait_for_finish(socket: &mut Socket, until: Instant) {
    let mut heard = Vec::new();
    while read_control(&heard) == Heard::Part {
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
    io::Error::new(io::ErrorKind::InvalidData, "the collector does not speak Frame Streams, or takes no dnstap")
}

/// Whether an open file is the one at a path.
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().is_ok_and(|open| fs::metadata(path).is_ok_and(|there| place(there) == place(open)))
}

/// Octets of frames that are written at a time.
const AT_ONCE: usize = 128 << 10;

/// Room for the last of them.
const ROOM: usize = 72 << 10;

/// How long a collector is waited for that has been connected to.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long a collector is waited for that is to say that it has read all.
const FINISH: Duration = Duration::from_millis(200);

/// How long is waited after the first connection in a row that has come to nothing.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);

/// The longest of those waits. A collector that is back is to be found soon.
const MAX_BACK_OFF: Duration = Duration::from_secs(10);

/// Its owner writes it, its group may read it.
const MODE: u32 = 0o640;
