//! TCP connections to backends (RFC 7766): persistent connections with several queries on each, and the
//! pending queries. The counterpart of [`crate::net::to_backends::sockets`] for streams.
//!
//! One worker owns its streams. A caller opens connections and queues messages with data of its own
//! (`user_data`, as in io_uring). The ID is drawn here; replies arrive in any order (RFC 7766 section 7) and
//! are matched by connection and ID. The caller decides about limits, the choice of a connection, and
//! retries.
//!
//! A connection is one task. It reports each message and its end, and closes after its idle time without a
//! pending query.

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

use crate::net::tasks::{TaskKind, Tasks};
use crate::wire::{append_frame, first_message};

/// The connections of one worker to its backends. `T` is the caller's data.
pub struct Streams<T> {
    /// Indexed by `StreamKey::index`; `None` is free.
    connections: Vec<Option<StreamConnection<T>>>,
    opened: u32,
    report: Rc<Reporter>,
    tasks: Tasks,
    rng: StdRng,
}

type Reporter = dyn Fn(StreamKey, StreamReport<'_>);

/// The key of a connection, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamKey {
    index: u32,
    serial: u32,
}

/// A report of a connection.
#[derive(Debug)]
pub enum StreamReport<'a> {
    /// A message has arrived.
    Message(&'a [u8]),
    /// The connection has ended.
    Ended(StreamEnd),
}

/// The reason for the end of a connection.
#[derive(Debug)]
pub enum StreamEnd {
    /// The connection failed to open.
    Unconnected(io::Error),
    /// The backend closed the connection, or it broke.
    Lost(io::Error),
    /// We closed the connection because it was idle or retired.
    Closed,
}

/// One connection, as seen by its owner.
pub struct StreamConnection<T> {
    serial: u32,
    address: SocketAddr,
    line: Rc<StreamState>,
    waiting: Vec<WaitingQuery<T>>,
    late: Vec<u16>,
    heard: u32,
    heard_at: Instant,
    is_retired: bool,
}

/// A queued query without a reply.
#[derive(Clone, Copy, Debug)]
pub struct WaitingQuery<T> {
    /// The ID on this connection.
    pub id: u16,
    /// The caller's data.
    pub user_data: T,
    /// The time when the query was queued.
    pub since: Instant,
}

struct StreamState {
    outbox: RefCell<Vec<u8>>,
    waiting: Cell<usize>,
    idle_since: Cell<Instant>,
    idle: Duration,
    is_closing: Cell<bool>,
    changed: Notify,
}

impl<T: Copy> Streams<T> {
    /// Creates a value without connections. `report` handles their events, never from within a call to this
    /// value.
    pub fn new(tasks: Tasks, report: impl Fn(StreamKey, StreamReport<'_>) + 'static) -> io::Result<Self> {
        Ok(Self {
            connections: Vec::new(),
            opened: 0,
            report: Rc::new(report),
            tasks,
            rng: StdRng::try_from_rng(&mut rand::rngs::SysRng).map_err(io::Error::other)?,
        })
    }

    /// Opens a connection with an idle timeout, which begins with the bytes `ahead`. Queries may be queued at
    /// once; a report follows if the connection fails.
    pub fn open(&mut self, address: SocketAddr, idle: Duration, ahead: &[u8], now: Instant) -> StreamKey {
        let line = Rc::new(StreamState {
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
            let end = task.run(address, |message| report(key, StreamReport::Message(message))).await;
            report(key, StreamReport::Ended(end));
        });
        self.connections[free] = Some(StreamConnection {
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

    /// Queues a message, which `fill` writes and whose first two bytes become a fresh ID. Returns the ID, or
    /// `None` if the connection is over or the message longer than a frame.
    pub fn queue(
        &mut self,
        key: StreamKey,
        user_data: T,
        now: Instant,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Option<u16> {
        let index = key.index as usize;
        let connection = self.connections.get_mut(index)?.as_mut().filter(|found| found.serial == key.serial)?;
        // RFC 7766 section 6.2.1: queries in flight on one connection have different IDs. Few are taken.
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
        connection.waiting.push(WaitingQuery { id, user_data, since: now });
        connection.notify(now);
        Some(id)
    }

    /// Returns a connection, unless it is over.
    pub fn get(&self, key: StreamKey) -> Option<&StreamConnection<T>> {
        self.connections.get(key.index as usize)?.as_ref().filter(|found| found.serial == key.serial)
    }

    fn get_mut(&mut self, key: StreamKey) -> Option<&mut StreamConnection<T>> {
        self.connections.get_mut(key.index as usize)?.as_mut().filter(|found| found.serial == key.serial)
    }

    /// Iterates over all connections.
    pub fn iter(&self) -> impl Iterator<Item = (StreamKey, &StreamConnection<T>)> {
        let numbered = (0..).zip(&self.connections);
        numbered.filter_map(|(index, connection)| {
            let connection = connection.as_ref()?;
            Some((StreamKey { index, serial: connection.serial }, connection))
        })
    }

    /// Records a message of the backend, and returns the pending query with this ID.
    pub fn hear(&mut self, key: StreamKey, id: u16, now: Instant) -> StreamMatch<T> {
        let Some(connection) = self.get_mut(key) else { return StreamMatch::Unknown };
        connection.heard = connection.heard.saturating_add(1);
        connection.heard_at = now;
        if let Some(late) = connection.late.iter().position(|late| *late == id) {
            connection.late.swap_remove(late);
            return StreamMatch::Late;
        }
        let waiting = connection.waiting.iter().find(|waiting| waiting.id == id);
        waiting.map_or(StreamMatch::Unknown, |waiting| StreamMatch::Waiting(waiting.user_data))
    }

    /// Removes an answered query and frees its ID.
    pub fn settle(&mut self, key: StreamKey, id: u16, now: Instant) {
        let Some(connection) = self.get_mut(key) else { return };
        connection.waiting.retain(|waiting| waiting.id != id);
        connection.notify(now);
    }

    /// Abandons a query. Its ID stays taken until the reply arrives, or the connection ends.
    pub fn abandon(&mut self, key: StreamKey, id: u16, now: Instant) {
        let Some(connection) = self.get_mut(key) else { return };
        if connection.waiting.iter().any(|waiting| waiting.id == id) {
            connection.late.push(id);
            connection.waiting.retain(|waiting| waiting.id != id);
            connection.notify(now);
        }
    }

    /// Stops using a connection for new queries. It closes when no query is pending.
    pub fn retire(&mut self, key: StreamKey, now: Instant) {
        let Some(connection) = self.get_mut(key) else { return };
        connection.is_retired = true;
        connection.notify(now);
    }

    /// Removes a connection that has ended, and returns it with its pending queries.
    pub fn remove(&mut self, key: StreamKey) -> Option<StreamConnection<T>> {
        self.get(key)?;
        self.connections[key.index as usize].take()
    }
}

/// The receiver of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamMatch<T> {
    /// A pending query with this data. The caller may settle it or continue to wait.
    Waiting(T),
    /// An abandoned query.
    Late,
    /// No query has this ID.
    Unknown,
}

impl<T: Copy> StreamConnection<T> {
    /// Returns the address of the backend.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the pending queries in order.
    pub fn waiting(&self) -> &[WaitingQuery<T>] {
        &self.waiting
    }

    /// Returns the number of abandoned queries without a reply.
    pub fn late(&self) -> usize {
        self.late.len()
    }

    /// Returns the number of messages received.
    pub fn heard(&self) -> u32 {
        self.heard
    }

    /// Returns the time of the last message, or of the opening if there was none.
    pub fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// Returns the time since when no query is pending, or `None` if one is.
    pub fn idle_since(&self) -> Option<Instant> {
        self.waiting.is_empty().then(|| self.line.idle_since.get())
    }

    /// Returns true if the connection gets no further queries.
    pub fn is_retired(&self) -> bool {
        self.is_retired
    }

    /// Returns the sequence number: a greater number was opened later.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    fn notify(&self, now: Instant) {
        if self.line.waiting.replace(self.waiting.len()) > 0 && self.waiting.is_empty() {
            self.line.idle_since.set(now);
        }
        self.line.is_closing.set(self.is_retired && self.waiting.is_empty());
        self.line.changed.notify_one();
    }
}

impl StreamState {
    async fn run(&self, address: SocketAddr, hear: impl Fn(&[u8])) -> StreamEnd {
        let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = match connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => stream,
            Err(error) => return StreamEnd::Unconnected(error),
        };
        match self.exchange(stream, hear).await {
            Ok(()) => StreamEnd::Closed,
            Err(error) => StreamEnd::Lost(error),
        }
    }

    /// Reads and writes at the same time: a backend that waits for us to read must not block us.
    async fn exchange(&self, mut stream: TcpStream, hear: impl Fn(&[u8])) -> io::Result<()> {
        // A query is written whole, so Nagle's algorithm would only delay it.
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
                // A query may have been queued at the same moment.
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

/// The time limit of a connect: longer than any path on Earth takes with one SYN lost (RFC 6298: resent after
/// 1 s). Pending queries have deadlines of their own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

const INPUT_KEPT: usize = 4096;

#[cfg(test)]
mod tests;
