//! A connection to a dnstap collector, which is opened again when it is lost.
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

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use config::DnstapTarget;
use hedge::backoff::Backoff;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, Socket, Type};

use super::super::dnstap::frames::{ControlFrame, DnstapFrame, MAX_CONTROL, control_frame, read_control};
use super::Sink;

#[derive(Debug)]
pub(in crate::control::observe::taps) struct Collector {
    to: DnstapTarget,
    link: CollectorLink,
    back_off: Backoff,
}

#[derive(Debug)]
enum CollectorLink {
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
}

impl Collector {
    pub(in crate::control::observe::taps) fn new(to: DnstapTarget) -> Self {
        Self { to, link: CollectorLink::Closed(None), back_off: Backoff::new(FIRST_BACK_OFF) }
    }

    /// Continues to open the link, and sends what an open one accepts. Returns the number of bytes.
    fn send(&mut self, octets: &[u8], now: Instant) -> io::Result<usize> {
        let not_yet = || Err(io::ErrorKind::WouldBlock.into());
        match &mut self.link {
            CollectorLink::Closed(Some(at)) if now < *at => not_yet(),
            CollectorLink::Closed(_) => {
                let socket = self.connect()?;
                let until = now + HANDSHAKE;
                self.link = CollectorLink::ShakingHands { socket, has_said: false, heard: Vec::new(), until };
                not_yet()
            }
            CollectorLink::ShakingHands { socket, has_said, heard, until } => {
                if !shake_hands(socket, has_said, heard, now >= *until)? {
                    return not_yet();
                }
                if let CollectorLink::ShakingHands { socket, .. } =
                    std::mem::replace(&mut self.link, CollectorLink::Closed(None))
                {
                    self.link = CollectorLink::Open(socket);
                }
                self.back_off.reset();
                self.send(octets, now)
            }
            CollectorLink::Open(socket) => {
                // The reader sends nothing more, so a read only shows that it is gone.
                match read(socket, &mut Vec::new())? {
                    true => Err(nonsense()),
                    false => socket.write(octets),
                }
            }
        }
    }

    fn connect(&self) -> io::Result<Socket> {
        let address = match &self.to {
            DnstapTarget::Unix(path) => SockAddr::unix(path)?,
            DnstapTarget::Tcp(address) => (*address).into(),
            DnstapTarget::File(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        let socket = Socket::new(Domain::from(i32::from(address.family())), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            Ok(()) | Err(_) => Ok(socket),
        }
    }
}

impl Sink for Collector {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let now = Instant::now();
        let sent = self.send(octets, now);
        if sent.as_ref().is_err_and(|error| !is_not_yet(error)) {
            self.link = CollectorLink::Closed(Some(now + self.back_off.wait(MAX_BACK_OFF)));
        }
        sent
    }

    fn blocked_on(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.link {
            CollectorLink::Closed(_) => None,
            CollectorLink::ShakingHands { socket, has_said: true, .. } => Some((socket.as_fd(), PollFlags::IN)),
            CollectorLink::ShakingHands { socket, .. } | CollectorLink::Open(socket) => {
                Some((socket.as_fd(), PollFlags::OUT))
            }
        }
    }

    /// Waits until the collector has read everything.
    fn end(&mut self, until: Instant) {
        let CollectorLink::Open(socket) = &mut self.link else { return };
        let until = until.min(Instant::now() + FINISH);
        let mut heard = Vec::new();
        let mut is_open = say(socket, ControlFrame::Stop).is_ok();
        while is_open && read_control(&heard) == DnstapFrame::Part {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let is_ready = poll(&mut [PollFd::new(&*socket, PollFlags::IN)], Some(&left));
            is_open = is_ready.is_ok_and(|ready| ready > 0) && read(socket, &mut heard).is_ok_and(|is_read| is_read);
        }
    }
}

/// Continues the handshake. Returns true once it is complete.
fn shake_hands(socket: &mut Socket, has_said: &mut bool, heard: &mut Vec<u8>, is_late: bool) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    if !*has_said && socket.peer_addr().is_ok() {
        say(socket, ControlFrame::Ready)?;
        *has_said = true;
    }
    if is_late {
        let problem = "the collector does not finish the Frame Streams handshake";
        return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
    }
    if !read(socket, heard)? {
        return Ok(false);
    }
    match read_control(heard) {
        DnstapFrame::Part => Ok(false),
        DnstapFrame::Control(ControlFrame::Accept) => say(socket, ControlFrame::Start).map(|()| true),
        DnstapFrame::Control(_) | DnstapFrame::Nonsense => Err(nonsense()),
    }
}

/// Appends the received bytes. Returns false if there are none yet.
fn read(socket: &mut Socket, heard: &mut Vec<u8>) -> io::Result<bool> {
    let mut room = [0; MAX_CONTROL];
    match socket.read(&mut room) {
        Ok(0) => Err(io::ErrorKind::ConnectionReset.into()),
        Ok(octets) => {
            heard.extend_from_slice(&room[..octets]);
            Ok(true)
        }
        Err(error) if is_not_yet(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends a control frame. A socket has room for so few bytes, or the reader is too slow.
fn say(socket: &mut Socket, control: ControlFrame) -> io::Result<()> {
    let frame = control_frame(control);
    match socket.write(&frame)? {
        taken if taken == frame.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the collector does not support Frame Streams or dnstap")
}

const HANDSHAKE: Duration = Duration::from_secs(5);

const FINISH: Duration = Duration::from_millis(200);

const FIRST_BACK_OFF: Duration = Duration::from_millis(100);

/// The longest back-off, short enough to find a returned collector soon.
const MAX_BACK_OFF: Duration = Duration::from_secs(10);
