//! One client's connection: a task that reads queries, hands them over, and writes what comes back.
//!
//! Each turn, in plain lines:
//!
//! 1. Queries that are whole are handed over, while fewer than `in_flight` wait and there is room for their responses.
//! 2. Responses that have come are framed, up to [`WAITING`] octets, and written as far as the kernel takes them.
//! 3. That goes on until nothing of it can be done. Then the task waits for what comes first: a response, octets to read, room
//!    to write, the end of its address, a sign that it has to make room, or the end of its patience (`limit/timeouts.rs`).
//!
//! A client that sends without end and does not read is so slowed down by TCP itself. The connection ends when the client has
//! closed and every answer is written (a half-close loses nothing), when it leaves for another process (`moved.rs`), and when its
//! address is not served any more. Between two queries a connection holds no buffers.

use std::future::pending;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use socket2::SockRef;
use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tokio::time::sleep_until;

use super::moved::{MovedConnection, WayOut};
use super::responder::{Responder, Response, WayBack};
use super::served::Served;
use super::stream::Stream;
use super::table::{ConnectionSlot, Seat, WAITING};
use crate::address::ListenAddress;
use crate::limit::{Doing, Patience};
use crate::wire::{FRAME_PREFIX, Rcode, Rejected, Transport, first_message, read_query};

/// One client's connection.
pub(super) struct Connection {
    stream: Stream,
    /// Its place among all connections.
    place: ConnectionSlot,
    /// Octets read and not yet handled.
    input: Vec<u8>,
    /// Octets to be written.
    output: Output,
    /// A response in parts that is under way. Whatever else the client has asked waits meanwhile, since the order of responses
    /// is ours (RFC 7766 section 7).
    parts: Option<mpsc::Receiver<Vec<u8>>>,
    /// Queries that wait for their response.
    in_flight: usize,
    /// A sound query was handed over since the connection was last idle.
    is_asked: bool,
    /// Messages in a row that nobody can read.
    malformed: u32,
    /// The client, the end of its address or the end of its lifetime has ended the input.
    is_at_end: bool,
    /// It is served to its end by this process, whichever comes next.
    stays: bool,
    /// It is to go to another process: nothing more is read of it nor handed over.
    is_leaving: bool,
    /// How long it is waited for.
    patience: Patience,
}

impl Connection {
    /// A connection that another process has served, which has read `input` and not handled it.
    pub(super) fn adopted(stream: Stream, place: ConnectionSlot, input: Vec<u8>) -> Self {
        let mut connection = Self::new(stream, place, Instant::now());
        // Its client may be between two queries, and need not hurry.
        connection.patience.on_activity(Instant::now());
        Self { input, ..connection }
    }

    /// A fresh connection, which was accepted at this time.
    pub(super) fn new(stream: Stream, place: ConnectionSlot, accepted: Instant) -> Self {
        let socket = SockRef::from(stream.socket());
        // A response is written whole; waiting for more to send would only delay it.
        let _ = socket.set_tcp_nodelay(true);
        // The kernel would take megabytes for a client that does not read, and then say nothing until a third of them is gone,
        // which looks as if a slow client took nothing at all. What is on its way does not count.
        let _ = socket.set_tcp_notsent_lowat(UNSENT_IN_KERNEL);
        let output = Output { octets: Vec::new(), written: 0, seat: Arc::clone(&place.seat) };
        Self {
            stream,
            place,
            input: Vec::new(),
            output,
            parts: None,
            in_flight: 0,
            is_asked: false,
            malformed: 0,
            is_at_end: false,
            stays: false,
            is_leaving: false,
            patience: Patience::new(accepted),
        }
    }

    /// The same, to be served to its end by this process.
    pub(super) fn staying(self) -> Self {
        Self { stays: true, ..self }
    }

    /// Serves the connection to its end; to the end of its queries where `local`, which it was made to, is not served any more.
    pub(super) async fn run(
        mut self,
        peer: SocketAddr,
        local: ListenAddress,
        mut served: watch::Receiver<Served>,
        handle: &impl Fn(&[u8], &Responder),
    ) -> io::Result<()> {
        let rules = self.place.rules;
        let seat = Arc::clone(&self.place.seat);
        let mut pressure = self.place.pressure.clone();
        let mut way_out = self.place.way_out.clone();
        let asked = self.stream.socket().local_addr().ok();
        let way_back = WayBack { peer, asked, transport: self.stream.transport(), idle: rules.idle };
        let (responder, mut responses) = Responder::new(Arc::clone(&seat), way_back, rules.in_flight);
        // What came with the end of a handshake wakes nobody.
        if self.stream.transport() == Transport::Tls {
            self.read()?;
        }
        let mut turns = 0_u32;
        loop {
            turns = turns.wrapping_add(1);
            // What is at its end stays to its end, and so does a session that only this process can decrypt.
            let is_movable = matches!(self.stream, Stream::Plain(_)) && !self.stays && !self.is_at_end;
            self.is_leaving = way_out.borrow_and_update().is_some() && is_movable;
            if self.work(handle, &responder, &mut responses)? || turns.is_multiple_of(TURNS) {
                // There may be more, but others have their turn first.
                yield_now().await;
                continue;
            }
            if seat.is_closed() {
                return Ok(());
            }
            if self.is_finished() {
                return self.stream.shutdown(rules.idle).await;
            }
            if self.is_leaving && self.doing() == Doing::Reading {
                return self.leave(&way_out);
            }
            let doing = self.doing();
            let can_read = self.can_read();
            let end = self.patience.end(doing, &rules, *pressure.borrow_and_update());
            let end_of_queries = Some(self.patience.end_of_queries(&rules)).filter(|_| !self.is_at_end);
            let alarm = [end, end_of_queries].into_iter().flatten().min();
            tokio::select! {
                Some(response) = responses.recv(), if self.can_take_response() => self.take_response(response),
                part = next_part(&mut self.parts), if self.output.is_empty() => self.take_part(part),
                ready = self.stream.socket().readable(), if can_read => {
                    ready?;
                    self.read()?;
                }
                ready = self.stream.socket().writable(), if doing == Doing::Writing || self.stream.has_unwritten() => ready?,
                _ = served.wait_for(|served| !served.covers(local)), if !self.is_at_end && !self.is_leaving => {
                    // Told of both at once, it leaves.
                    if way_out.borrow().is_none() || !is_movable {
                        self.take_rest();
                    }
                }
                _ = way_out.changed() => {}
                () = seat.closed() => return Ok(()),
                _ = pressure.changed() => {}
                () = at(alarm) => {
                    let now = Instant::now();
                    if end.is_some_and(|end| end <= now) {
                        if doing == Doing::Reading {
                            self.stream.notify_end();
                        }
                        return if self.patience.is_fresh() { Err(ErrorKind::TimedOut.into()) } else { Ok(()) };
                    }
                    if end_of_queries.is_some_and(|end| end <= now) {
                        self.take_rest();
                    }
                }
            }
        }
    }

    /// Gives the socket up, with what was read and not handled.
    fn leave(self, way_out: &watch::Receiver<Option<WayOut>>) -> io::Result<()> {
        let Stream::Plain(socket) = self.stream else { return Ok(()) };
        // The runtime watches it no more; the other process may have it before we have closed our part of it.
        let socket = socket.into_std()?.into();
        if let Some(WayOut { section, to }) = &*way_out.borrow() {
            let _ = to.send(MovedConnection { section: section.clone(), input: self.input, socket });
        }
        Ok(())
    }

    /// Hands over, takes and writes until there is nothing left to do, or enough was done for one turn; whether that is so.
    fn work(
        &mut self,
        handle: &impl Fn(&[u8], &Responder),
        responder: &Responder,
        responses: &mut mpsc::Receiver<Response>,
    ) -> io::Result<bool> {
        for _ in 0..ROUNDS {
            let handed_over = self.hand_over(handle, responder);
            let mut is_taken = false;
            while self.can_take_response()
                && let Ok(response) = responses.try_recv()
            {
                self.take_response(response);
                is_taken = true;
            }
            let is_written = self.write()?;
            self.note_standing();
            if !(handed_over || is_taken || is_written) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hands over the messages that are whole, as far as the client may have more in flight; whether there were any.
    fn hand_over(&mut self, handle: &impl Fn(&[u8], &Responder), responder: &Responder) -> bool {
        let (mut start, mut is_active) = (0, false);
        while self.can_hand_over()
            && let Some((message, end)) = first_message(&self.input[start..])
        {
            self.in_flight += 1;
            if is_sound(message) {
                (is_active, self.malformed) = (true, 0);
            } else {
                self.malformed += 1;
            }
            handle(message, responder);
            start += end;
            if self.malformed >= MALFORMED {
                // Nobody asks anything here, and RFC 7766 section 6.2.3 leaves it to the server when to close.
                self.is_at_end = true;
                start = self.input.len();
            }
        }
        if is_active {
            let now = Instant::now();
            self.is_asked = true;
            self.patience.on_activity(now);
            self.place.seat.set_standing(true, now);
        }
        self.input.drain(..start);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        start > 0
    }

    /// Whether a message may be handed over, if there is one.
    fn can_hand_over(&self) -> bool {
        !self.is_leaving
            && self.in_flight < self.place.rules.in_flight
            && self.parts.is_none()
            && self.place.seat.has_room()
    }

    /// Whether there is a use for more octets of the client.
    fn can_read(&self) -> bool {
        !self.is_at_end && self.can_hand_over()
    }

    /// Whether one more response may be taken to the output.
    fn can_take_response(&self) -> bool {
        self.parts.is_none() && self.output.octets.len() < WAITING
    }

    /// Whether nothing is left to do: the input has ended, and what was asked is answered and written.
    fn is_finished(&self) -> bool {
        self.is_at_end && self.in_flight == 0 && self.output.is_empty()
    }

    /// What the connection waits for.
    fn doing(&self) -> Doing {
        if !self.output.is_empty() {
            Doing::Writing
        } else if self.in_flight > 0 {
            Doing::Answering
        } else {
            Doing::Reading
        }
    }

    /// Takes note of when the connection becomes idle.
    fn note_standing(&mut self) {
        if self.is_asked && self.doing() == Doing::Reading {
            self.is_asked = false;
            let now = Instant::now();
            self.patience.on_activity(now);
            self.place.seat.set_standing(false, now);
        }
    }

    /// Reads what has come, at most [`READ`] octets, or as many as have come already of a longer message.
    fn read(&mut self) -> io::Result<()> {
        let announced = self.input.first_chunk().map_or(0, |length| 2 + usize::from(u16::from_be_bytes(*length)));
        let missing = announced.saturating_sub(self.input.len());
        self.input.reserve_exact(missing.min(self.input.len()).max(READ));
        match self.stream.try_read(&mut self.input) {
            Ok(octets) => self.is_at_end = octets == 0,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// No more is read from now on than what the client has sent so far. Read from the kernel itself: of a connection that has
    /// just been accepted the runtime does not know yet that there is something to read.
    fn take_rest(&mut self) {
        self.is_at_end = true;
        loop {
            match self.stream.try_read_unwatched(&mut self.input) {
                Ok(1..) if self.input.len() < DRAIN_INPUT => {}
                Ok(_) => break,
                // Of TLS a part of a record has come, and there may be more.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }

    /// Takes a response to the output.
    fn take_response(&mut self, response: Response) {
        match response {
            Response::Whole(message) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                self.frame(message.take());
            }
            Response::Parts(parts) => self.parts = Some(parts),
        }
    }

    /// Takes the next part of a response to the output, or its end.
    fn take_part(&mut self, part: Option<Vec<u8>>) {
        match part {
            Some(part) => {
                // Bounded by the number of transfers, and not to be broken off for what others do.
                self.place.seat.add(part.len());
                self.frame(part);
            }
            None => {
                self.in_flight = self.in_flight.saturating_sub(1);
                self.parts = None;
            }
        }
    }

    /// Appends a message to the output, unless there is none.
    fn frame(&mut self, message: Vec<u8>) {
        if self.output.is_empty() {
            self.patience.on_unwritten(Instant::now());
        }
        self.output.frame(&message);
    }

    /// Writes as much of the output as the kernel takes; whether it took any.
    fn write(&mut self) -> io::Result<bool> {
        let mut is_written = false;
        self.stream.flush()?;
        while !self.output.is_empty() {
            match self.stream.try_write(self.output.unwritten()) {
                Ok(octets) => {
                    self.output.took(octets);
                    self.patience.on_written(octets, &self.place.rules, Instant::now());
                    is_written = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(is_written)
    }
}

/// Octets to be written, frames included, which count as waiting until the kernel has taken them.
struct Output {
    /// All that was framed since it was last empty.
    octets: Vec<u8>,
    /// How many of these the kernel has taken.
    written: usize,
    /// Where they count.
    seat: Arc<Seat>,
}

impl Output {
    /// Whether all of it is written.
    fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// What is to be written next.
    fn unwritten(&self) -> &[u8] {
        self.octets.get(self.written..).unwrap_or_default()
    }

    /// Appends a message, the octets of which count already.
    fn frame(&mut self, message: &[u8]) {
        let Ok(length @ 1..) = u16::try_from(message.len()) else { return self.seat.settle(message.len()) };
        self.seat.add(FRAME_PREFIX);
        self.octets.extend(length.to_be_bytes());
        self.octets.extend(message);
    }

    /// The kernel has taken octets.
    fn took(&mut self, octets: usize) {
        self.seat.settle(octets);
        self.written += octets;
        if self.written >= self.octets.len() {
            (self.octets, self.written) = (Vec::new(), 0);
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.seat.settle(self.octets.len() - self.written);
    }
}

/// Whether a message is one that a client sends who wants to know something: it can be read, whatever it is answered with.
pub(super) fn is_sound(message: &[u8]) -> bool {
    match read_query(message) {
        Ok(_) => true,
        Err(Rejected::Answer(rcode)) => rcode != Rcode::FORMERR,
        Err(Rejected::Short | Rejected::NotAQuery) => false,
    }
}

/// The next part of a response in parts; never, if there is none.
async fn next_part(parts: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match parts {
        Some(parts) => parts.recv().await,
        None => pending().await,
    }
}

/// Returns at this moment; never, if there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => pending().await,
    }
}

/// Octets read at a time: some hundred queries.
const READ: usize = 4096;

/// Octets read at most from one connection when it takes no more queries.
const DRAIN_INPUT: usize = 64 << 10;

/// Octets that the kernel takes for a client beyond what is on its way to it.
pub(super) const UNSENT_IN_KERNEL: u32 = 64 << 10;

/// Messages in a row that cannot be read after which nothing more is read: a client that is out of step never comes to its
/// senses, and empty frames are nothing but work.
pub(super) const MALFORMED: u32 = 100;

/// Rounds of handing over, taking and writing that one turn has at most.
const ROUNDS: u32 = 4;

/// Turns after which others have theirs, even if there always is something to do.
const TURNS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_out_of_their_frames() {
        for (octets, message) in [
            (&b""[..], None),
            (b"\0", None),
            (b"\0\0", Some((&b""[..], 2))),
            (b"\0\x02a", None),
            (b"\0\x02abc", Some((b"ab", 4))),
            (b"\xff\xff0", None),
        ] {
            assert_eq!(first_message(octets), message, "{octets:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_query() {
        let query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01";
        let mut update = *query;
        update[2] |= 5 << 3;
        let mut reply = *query;
        reply[2] |= 0x80;
        for (message, sound) in [
            (&query[..], true),
            // NOTIMP is an answer to somebody.
            (&update, true),
            (&reply, false),
            (&query[..16], false),
            (&query[..11], false),
            (b"", false),
        ] {
            assert_eq!(is_sound(message), sound, "{message:?}");
        }
    }
}
