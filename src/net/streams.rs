//! The way to the backends by TCP and back (RFC 7766): kept connections with several queries on each, and who waits for which
//! reply. What [`super::backend_sockets`] is for datagrams.
//!
//! One worker owns its streams. A caller opens connections and queues messages on them with data of its own (`user_data`, as io_uring calls it); the
//! ID is drawn here, replies come in whatever order the backend likes (RFC 7766 section 7), and that is found by the
//! connection and the ID. Neither names nor limits are known here: how many connections there may be, which one a message
//! takes and what follows when one ends, the caller decides.
//!
//! A connection is one task, from connecting to its end. It tells the caller of each message and of its end, and closes by
//! itself when nobody has waited on it for its idle time.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

use super::tasks::{TaskKind, Tasks};
use crate::wire::{append_frame, first_message};

/// The connections of one worker to its backends. `T` is the caller's data.
pub struct Streams<T> {
    /// By number; `None` is free.
    connections: Vec<Option<Connection<T>>>,
    /// How many were opened so far.
    opened: u32,
    /// Told of what comes.
    report: Rc<Reporter>,
    /// Where the task of each connection runs.
    tasks: Tasks,
    /// Source of IDs.
    rng: StdRng,
}

/// Takes what a connection has to report.
type Reporter = dyn Fn(StreamKey, Report<'_>);

/// Which connection. None is ever given to two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamKey {
    /// Its number among those that are open.
    index: u32,
    /// How many were opened before it.
    serial: u32,
}

/// What a connection reports.
#[derive(Debug)]
pub enum Report<'a> {
    /// A message has come.
    Message(&'a [u8]),
    /// It has ended.
    Ended(End),
}

/// Why a connection has ended.
#[derive(Debug)]
pub enum End {
    /// It could not be made.
    Unconnected(io::Error),
    /// The backend has closed it, or it broke.
    Lost(io::Error),
    /// We have closed it: nobody had waited on it for a while, or it was retired.
    Closed,
}

/// One connection as its owner sees it.
pub struct Connection<T> {
    serial: u32,
    /// The backend.
    address: SocketAddr,
    /// What it shares with its task.
    line: Rc<Line>,
    /// Who waits, by ID; the last is the youngest.
    waiting: Vec<Waiting<T>>,
    /// IDs of queries that nobody waits for any more: a late reply must not be taken for another's.
    late: Vec<u16>,
    /// Messages that have come.
    heard: u32,
    /// When the last of them came, or the connection was opened.
    heard_at: Instant,
    /// It gets no further queries.
    is_retired: bool,
}

/// A query that was queued, and whose reply has not come.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<T> {
    /// Its ID on this connection.
    pub id: u16,
    /// The caller's own.
    pub user_data: T,
    /// When it was queued.
    pub since: Instant,
}

/// What a connection and its task share.
struct Line {
    /// Octets to be written, frames included.
    outbox: RefCell<Vec<u8>>,
    waiting: Cell<usize>,
    /// Since when nobody does.
    idle_since: Cell<Instant>,
    /// How long it is kept so.
    idle: Duration,
    /// Its owner wants it closed.
    is_closing: Cell<bool>,
    /// Tells the task that something of this has changed.
    changed: Notify,
}

impl<T: Copy> Streams<T> {
    /// No connection yet. `report` is told of what comes on them, never from within a call to this value.
    ///
    /// # Errors
    /// If the operating system gives no randomness.
    pub fn new(tasks: Tasks, report: impl Fn(StreamKey, Report<'_>) + 'static) -> io::Result<Self> {
        Ok(Self {
            connections: Vec::new(),
            opened: 0,
            report: Rc::new(report),
            tasks,
            rng: StdRng::try_from_rng(&mut rand::rngs::SysRng).map_err(io::Error::other)?,
        })
    }

    /// Opens a connection, which is kept for `idle` while nobody waits on it, and begins with these octets. Queries may be queued at
    /// once; whether it can be made, its reports tell.
    pub fn open(&mut self, address: SocketAddr, idle: Duration, ahead: &[u8], now: Instant) -> StreamKey {
        let line = Rc::new(Line {
            outbox: RefCell::new(ahead.to_vec()),
            waiting: Cell::new(0),
            idle_since: Cell::new(now),
            idle,
            is_closing: Cell::new(false),
            changed: Notify::new(),
        });
        let free = self.connections.iter().position(Option::is_none).unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let key = StreamKey { index: free as u32, serial: self.opened };
        self.opened = self.opened.wrapping_add(1);
        let (task, report) = (Rc::clone(&line), Rc::clone(&self.report));
        self.tasks.start_and_leave(TaskKind::Fetch, async move {
            let end = task.run(address, |message| report(key, Report::Message(message))).await;
            report(key, Report::Ended(end));
        });
        self.connections[free] = Some(Connection {
            serial: key.serial,
            address,
            line,
            waiting: Vec::new(),
            late: Vec::new(),
            heard: 0,
            heard_at: now,
            is_retired: false,
        });
        key
    }

    /// Queues a message, which `fill` writes and whose first two octets become a fresh ID. Returns that, unless the
    /// connection is over or the message longer than a frame.
    pub fn queue(
        &mut self,
        key: StreamKey,
        user_data: T,
        now: Instant,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Option<u16> {
        let index = key.index as usize;
        let connection = self.connections.get_mut(index)?.as_mut().filter(|found| found.serial == key.serial)?;
        // RFC 7766 section 6.2.1: no two queries in flight on one connection have the same ID. Few are taken.
        let id = loop {
            let id = self.rng.random();
            if !connection.waiting.iter().any(|waiting| waiting.id == id) && !connection.late.contains(&id) {
                break id;
            }
        };
        let mut message = Vec::new();
        fill(&mut message);
        if let Some(first) = message.first_chunk_mut() {
            *first = id.to_be_bytes();
        }
        // RFC 7766 section 8: in one write with its length.
        append_frame(&message, &mut connection.line.outbox.borrow_mut())?;
        connection.waiting.push(Waiting { id, user_data, since: now });
        connection.tell(now);
        Some(id)
    }

    /// A connection, unless it is over.
    pub fn get(&self, key: StreamKey) -> Option<&Connection<T>> {
        self.connections.get(key.index as usize)?.as_ref().filter(|found| found.serial == key.serial)
    }

    fn get_mut(&mut self, key: StreamKey) -> Option<&mut Connection<T>> {
        self.connections.get_mut(key.index as usize)?.as_mut().filter(|found| found.serial == key.serial)
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = (StreamKey, &Connection<T>)> {
        let numbered = (0..).zip(&self.connections);
        numbered.filter_map(|(index, connection)| {
            let connection = connection.as_ref()?;
            Some((StreamKey { index, serial: connection.serial }, connection))
        })
    }

    /// A message has come: notes that the backend speaks. Returns who waits for a reply with this ID, if it is no late one.
    pub fn hear(&mut self, key: StreamKey, id: u16, now: Instant) -> Heard<T> {
        let Some(connection) = self.get_mut(key) else { return Heard::Unknown };
        connection.heard = connection.heard.saturating_add(1);
        connection.heard_at = now;
        if let Some(late) = connection.late.iter().position(|late| *late == id) {
            connection.late.swap_remove(late);
            return Heard::Late;
        }
        let waiting = connection.waiting.iter().find(|waiting| waiting.id == id);
        waiting.map_or(Heard::Unknown, |waiting| Heard::Waiting(waiting.user_data))
    }

    /// The reply came: the ID is free again.
    pub fn settle(&mut self, key: StreamKey, id: u16, now: Instant) {
        let Some(connection) = self.get_mut(key) else { return };
        connection.waiting.retain(|waiting| waiting.id != id);
        connection.tell(now);
    }

    /// Nobody needs the reply any more. The ID stays taken until it comes, or the connection ends.
    pub fn abandon(&mut self, key: StreamKey, id: u16, now: Instant) {
        let Some(connection) = self.get_mut(key) else { return };
        if connection.waiting.iter().any(|waiting| waiting.id == id) {
            connection.late.push(id);
            connection.waiting.retain(|waiting| waiting.id != id);
            connection.tell(now);
        }
    }

    /// Gives a connection no further queries. It is closed when nobody waits on it any more.
    pub fn retire(&mut self, key: StreamKey, now: Instant) {
        let Some(connection) = self.get_mut(key) else { return };
        connection.is_retired = true;
        connection.tell(now);
    }

    /// Takes out a connection that has ended, with those who still wait on it.
    pub fn remove(&mut self, key: StreamKey) -> Option<Connection<T>> {
        self.get(key)?;
        self.connections[key.index as usize].take()
    }
}

/// For whom a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<T> {
    /// For the one with this data, who may settle it or wait on.
    Waiting(T),
    /// For one who waits no more.
    Late,
    /// Nobody has asked.
    Unknown,
}

impl<T: Copy> Connection<T> {
    /// The backend.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who waits, in order of their queries.
    pub fn waiting(&self) -> &[Waiting<T>] {
        &self.waiting
    }

    /// How many replies were given up and have not come.
    pub fn late(&self) -> usize {
        self.late.len()
    }

    /// How many messages have come.
    pub fn heard(&self) -> u32 {
        self.heard
    }

    /// When the last message came; if none did, when it was opened.
    pub fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// Since when nobody waits on it; `None` if somebody does.
    pub fn idle_since(&self) -> Option<Instant> {
        self.waiting.is_empty().then(|| self.line.idle_since.get())
    }

    /// Whether it gets no further queries.
    pub fn is_retired(&self) -> bool {
        self.is_retired
    }

    /// How old it is among all: a greater number was opened later.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Tells the task what has changed.
    fn tell(&self, now: Instant) {
        if self.line.waiting.replace(self.waiting.len()) > 0 && self.waiting.is_empty() {
            self.line.idle_since.set(now);
        }
        self.line.is_closing.set(self.is_retired && self.waiting.is_empty());
        self.line.changed.notify_one();
    }
}

impl Line {
    /// Connects, and moves messages until the end.
    async fn run(&self, address: SocketAddr, hear: impl Fn(&[u8])) -> End {
        let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = match connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => stream,
            Err(error) => return End::Unconnected(error),
        };
        match self.exchange(stream, hear).await {
            Ok(()) => End::Closed,
            Err(error) => End::Lost(error),
        }
    }

    /// Writes what is queued and reads what comes, both at once: a backend that waits for us to read must not wait for ever.
    async fn exchange(&self, mut stream: TcpStream, hear: impl Fn(&[u8])) -> io::Result<()> {
        // A query is written whole; waiting for more to send would only delay it.
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.split();
        let (mut input, mut output, mut written) = (Vec::new(), Vec::new(), 0);
        while !self.is_closing.get() {
            if written == output.len() {
                output.clear();
                written = 0;
                std::mem::swap(&mut output, &mut *self.outbox.borrow_mut());
            }
            let idle_end = self.idle_since.get() + self.idle;
            tokio::select! {
                read = reader.read_buf(&mut input) => {
                    if read? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    take_messages(&mut input, &hear);
                }
                sent = writer.write(&output[written..]), if written < output.len() => written += sent?,
                () = self.changed.notified() => {}
                // A query may have been queued in the same moment.
                () = sleep_until(idle_end.into()), if self.waiting.get() == 0 => {
                    if self.waiting.get() == 0 && self.idle_since.get() + self.idle <= Instant::now() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Hands over every whole message.
fn take_messages(input: &mut Vec<u8>, hear: impl Fn(&[u8])) {
    let mut start = 0;
    while let Some((message, end)) = first_message(&input[start..]) {
        hear(message);
        start += end;
    }
    input.drain(..start);
    if input.is_empty() {
        input.shrink_to(INPUT_KEPT);
    }
}

/// How long a connection may take to be made. Longer than any way on Earth takes, with one SYN lost (RFC 6298: sent again after
/// 1 s); what waits for it has deadlines of its own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Octets of input buffer that a connection keeps between replies.
const INPUT_KEPT: usize = 4096;

#[cfg(test)]
mod tests;
