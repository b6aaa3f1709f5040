//! One client's connection: a task that reads queries, hands them over, and writes the responses.
//!
//! Each turn:
//!
//! 1. Hand over complete queries, while fewer than `in_flight` are pending and there is room for their
//!    responses.
//! 2. Frame the available responses, up to [`WAITING`] bytes, and write as much as the kernel accepts.
//! 3. Repeat until there is no progress. Then wait for the first of: a response, input, room to write, the
//!    end of the address, a request to make room, a timeout (`limit/timeouts.rs`).
//!
//! TCP slows down a client that sends without reading. The connection ends when the client has closed and
//! every answer is written (a half-close loses nothing), when it moves to another process (`moved.rs`), and
//! when its address is no longer served. An idle connection holds no buffers.

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
use super::responder::{Responder, ResponseOutput, WayBack};
use super::served::ServedAddresses;
use super::stream::ClientStream;
use super::table::{Seat, WAITING};
use crate::address::ListenAddress;
use crate::limit::{Doing, TableFullness};
use crate::net::from_clients::account::{ConnectionAccount, DueAction};
use crate::wire::{FRAME_PREFIX, QueryRejection, Rcode, Transport, first_message, read_query};

pub(crate) struct DnsConnection {
    stream: ClientStream,
    account: ConnectionAccount,
    input: Vec<u8>,
    output: ConnectionOutput,
    /// The current response in parts. Other queries wait until it ends, because the order of responses is
    /// ours (RFC 7766 section 7).
    parts: Option<mpsc::Receiver<Vec<u8>>>,
    stays: bool,
    /// True if the connection is moving to another process: it reads and hands over nothing more.
    is_leaving: bool,
}

impl DnsConnection {
    /// `stays` is true if this process serves the connection to its end, even if a successor starts.
    pub(crate) fn new(stream: ClientStream, account: ConnectionAccount, input: Vec<u8>, stays: bool) -> Self {
        let socket = SockRef::from(stream.socket());
        // A response is written whole, so Nagle's algorithm would only delay it.
        let _ = socket.set_tcp_nodelay(true);
        // The kernel would buffer megabytes for a client that does not read, and report nothing until a third
        // of them is gone, so a slow client would seem to read nothing. Bytes in transit do not count.
        let _ = socket.set_tcp_notsent_lowat(UNSENT_IN_KERNEL);
        let output = ConnectionOutput { octets: Vec::new(), written: 0, seat: Arc::clone(&account.slot.seat) };
        Self { stream, account, input, output, parts: None, stays, is_leaving: false }
    }

    /// Serves the connection until it ends, or until its queries are answered once `served` no longer covers
    /// `local`.
    pub(crate) async fn run(
        mut self,
        peer: SocketAddr,
        local: ListenAddress,
        mut served: watch::Receiver<ServedAddresses>,
        handle: &impl Fn(&[u8], &Responder),
    ) -> io::Result<()> {
        let slot = &self.account.slot;
        let (rules, seat) = (slot.rules, Arc::clone(&slot.seat));
        let (mut pressure, mut way_out) = (slot.pressure.clone(), slot.way_out.clone());
        let (responder, mut responses) = Responder::new(slot, self.way_back(peer));
        // Data that arrived with the end of the handshake causes no wakeup.
        if self.stream.transport() == Transport::Tls {
            self.read()?;
        }
        let mut turns = 0_u32;
        loop {
            turns = turns.wrapping_add(1);
            let is_movable = self.is_movable();
            self.is_leaving = way_out.borrow_and_update().is_some() && is_movable;
            if self.work(handle, &responder, &mut responses)? || turns.is_multiple_of(TURNS) {
                yield_now().await;
                continue;
            }
            if seat.is_closed() {
                return Ok(());
            }
            if self.is_finished() {
                return self.stream.shutdown(rules.idle).await;
            }
            let doing = self.doing();
            if self.is_leaving && doing == Doing::Reading {
                return self.leave(&way_out);
            }
            let can_read = !self.account.is_ending() && self.can_hand_over();
            let fullness = *pressure.borrow_and_update();
            let alarm = self.account.due(doing, fullness);
            tokio::select! {
                Some(response) = responses.recv(), if self.can_take_response() => self.take_response(response),
                part = next_part(&mut self.parts), if self.output.is_empty() => self.take_part(part),
                ready = self.stream.socket().readable(), if can_read => {
                    ready?;
                    self.read()?;
                }
                ready = self.stream.socket().writable(), if doing == Doing::Writing || self.stream.has_unwritten() => ready?,
                _ = served.wait_for(|served| !served.covers(local)), if !self.account.is_ending() && !self.is_leaving => {
                    // If both happen at once, the connection moves.
                    if way_out.borrow().is_none() || !is_movable {
                        self.take_rest();
                    }
                }
                _ = way_out.changed() => {}
                () = seat.closed() => return Ok(()),
                _ = pressure.changed() => {}
                () = at(alarm) => if let Some(ended) = self.on_alarm(doing, fullness) {
                    return ended;
                },
            }
        }
    }

    fn way_back(&self, peer: SocketAddr) -> WayBack {
        let asked = self.stream.socket().local_addr().ok();
        WayBack { peer, asked, transport: self.stream.transport(), idle: self.account.rules().idle }
    }

    /// A connection at its end stays, and so does a TLS session, because only this process can decrypt it.
    fn is_movable(&self) -> bool {
        matches!(self.stream, ClientStream::Plain(_)) && !self.stays && !self.account.is_ending()
    }

    fn on_alarm(&mut self, doing: Doing, fullness: TableFullness) -> Option<io::Result<()>> {
        match self.account.on_alarm(doing, fullness, Instant::now()) {
            DueAction::Nothing => None,
            DueAction::EndQueries => {
                self.take_rest();
                None
            }
            DueAction::Close => {
                if doing == Doing::Reading {
                    self.stream.notify_end();
                }
                Some(if self.account.is_fresh() { Err(ErrorKind::TimedOut.into()) } else { Ok(()) })
            }
        }
    }

    fn leave(self, way_out: &watch::Receiver<Option<WayOut>>) -> io::Result<()> {
        let ClientStream::Plain(socket) = self.stream else { return Ok(()) };
        // The runtime must stop watching the socket, because the other process may use it before our copy is
        // closed.
        let socket = socket.into_std()?.into();
        if let Some(WayOut { section, to }) = &*way_out.borrow() {
            let _ = to.send(MovedConnection { section: section.clone(), input: self.input, socket });
        }
        Ok(())
    }

    /// Hands over, collects and writes until there is no progress. Returns true at the limit of a turn.
    fn work(
        &mut self,
        handle: &impl Fn(&[u8], &Responder),
        responder: &Responder,
        responses: &mut mpsc::Receiver<ResponseOutput>,
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
            self.account.note_idle(self.doing(), Instant::now);
            if !(handed_over || is_taken || is_written) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn hand_over(&mut self, handle: &impl Fn(&[u8], &Responder), responder: &Responder) -> bool {
        let (mut start, mut is_active) = (0, false);
        while self.can_hand_over()
            && let Some((message, end)) = first_message(&self.input[start..])
        {
            let is_sound = is_sound(message);
            is_active |= is_sound;
            self.account.begin_query(is_sound);
            handle(message, responder);
            start += end;
            if self.account.is_noise() {
                self.account.end_queries(Instant::now());
                start = self.input.len();
            }
        }
        if is_active {
            self.account.on_queries(Instant::now());
        }
        self.input.drain(..start);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        start > 0
    }

    fn can_hand_over(&self) -> bool {
        !self.is_leaving && self.parts.is_none() && self.account.has_room()
    }

    fn can_take_response(&self) -> bool {
        self.parts.is_none() && self.output.octets.len() < WAITING
    }

    fn is_finished(&self) -> bool {
        self.account.is_ending() && self.doing() == Doing::Reading
    }

    fn doing(&self) -> Doing {
        self.account.doing(!self.output.is_empty())
    }

    fn read(&mut self) -> io::Result<()> {
        let announced = self.input.first_chunk().map_or(0, |length| 2 + usize::from(u16::from_be_bytes(*length)));
        let missing = announced.saturating_sub(self.input.len());
        self.input.reserve_exact(missing.min(self.input.len()).max(READ));
        match self.stream.try_read(&mut self.input) {
            Ok(0) => self.account.end_queries(Instant::now()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Reads only the input that has already arrived, and ends the input. It asks the kernel directly,
    /// because the runtime does not yet know about the input of a connection that was just accepted.
    fn take_rest(&mut self) {
        self.account.end_queries(Instant::now());
        loop {
            match self.stream.try_read_unwatched(&mut self.input) {
                Ok(1..) if self.input.len() < DRAIN_INPUT => {}
                Ok(_) => break,
                // Only a part of a TLS record has arrived; there may be more.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }

    fn take_response(&mut self, response: ResponseOutput) {
        match response {
            ResponseOutput::Whole(message) => {
                self.account.end_query();
                self.frame(message.take());
            }
            ResponseOutput::Parts(parts) => self.parts = Some(parts),
        }
    }

    fn take_part(&mut self, part: Option<Vec<u8>>) {
        match part {
            Some(part) => {
                // The number of transfers bounds this, and load by other clients must not abort a transfer.
                self.account.slot.seat.add(part.len());
                self.frame(part);
            }
            None => {
                self.account.end_query();
                self.parts = None;
            }
        }
    }

    fn frame(&mut self, message: Vec<u8>) {
        if self.output.is_empty() {
            self.account.on_unwritten(Instant::now());
        }
        self.output.frame(&message);
    }

    fn write(&mut self) -> io::Result<bool> {
        let mut is_written = false;
        self.stream.flush()?;
        while !self.output.is_empty() {
            match self.stream.try_write(self.output.unwritten()) {
                Ok(octets) => {
                    self.output.took(octets);
                    self.account.on_written(octets, Instant::now());
                    is_written = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(is_written)
    }
}

struct ConnectionOutput {
    octets: Vec<u8>,
    written: usize,
    seat: Arc<Seat>,
}

impl ConnectionOutput {
    fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    fn unwritten(&self) -> &[u8] {
        self.octets.get(self.written..).unwrap_or_default()
    }

    fn frame(&mut self, message: &[u8]) {
        let Ok(length @ 1..) = u16::try_from(message.len()) else { return self.seat.settle(message.len()) };
        self.seat.add(FRAME_PREFIX);
        self.octets.extend(length.to_be_bytes());
        self.octets.extend(message);
    }

    fn took(&mut self, octets: usize) {
        self.seat.settle(octets);
        self.written += octets;
        if self.written >= self.octets.len() {
            (self.octets, self.written) = (Vec::new(), 0);
        }
    }
}

impl Drop for ConnectionOutput {
    fn drop(&mut self) {
        self.seat.settle(self.octets.len() - self.written);
    }
}

/// Returns true if a message is a readable request, whatever its answer is.
pub(crate) fn is_sound(message: &[u8]) -> bool {
    match read_query(message) {
        Ok(_) => true,
        Err(QueryRejection::Answer(rcode)) => rcode != Rcode::FORMERR,
        Err(QueryRejection::Short | QueryRejection::NotAQuery) => false,
    }
}

async fn next_part(parts: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match parts {
        Some(parts) => parts.recv().await,
        None => pending().await,
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => pending().await,
    }
}

/// The size of one read: some hundred queries.
const READ: usize = 4096;

const DRAIN_INPUT: usize = 64 << 10;

pub(crate) const UNSENT_IN_KERNEL: u32 = 64 << 10;

const ROUNDS: u32 = 4;

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
            // NOTIMP is a useful answer.
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
