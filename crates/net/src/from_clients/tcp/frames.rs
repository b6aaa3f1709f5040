//! DNS messages of one client, each after its length (RFC 7766 section 8), plain or encrypted.
//!
//! TCP slows down a client that sends without reading: input is read only while another query may be handed
//! over. A half-close loses nothing. An idle connection holds no buffers.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use dns::{FRAME_PREFIX, first_message};
use limit::Doing;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::exchange::Exchange;
use super::responder::ResponseOutput;
use super::stream::ClientStream;

pub(crate) struct DnsFrames {
    stream: ClientStream,
    exchange: Rc<RefCell<Exchange>>,
    input: BytesMut,
    output: BytesMut,
    /// The current response in parts. Other queries wait until it ends, because the order of responses is
    /// ours (RFC 7766 section 7).
    parts: Option<mpsc::Receiver<Vec<u8>>>,
    /// True if the connection is moving to another process: it reads and hands over nothing more.
    pub(crate) is_leaving: bool,
}

impl DnsFrames {
    pub(crate) fn new(stream: ClientStream, exchange: Rc<RefCell<Exchange>>) -> Self {
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Self { stream, exchange, input, output, parts: None, is_leaving: false }
    }

    /// Reads, hands over, collects and writes until there is no progress.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let is_handed_over = self.hand_over();
            let is_taken = self.take_responses(cx);
            let is_written = self.write(cx)?;
            let is_read = self.may_read() && self.read(cx)?;
            if !(is_handed_over || is_taken || is_written || is_read) {
                break;
            }
        }
        let is_finished = {
            let exchange = self.exchange.borrow();
            exchange.account.is_ending() && exchange.doing() == Doing::Reading
        };
        if is_finished { self.stream.poll_end(cx) } else { Poll::Pending }
    }

    /// Reads only the input that has already arrived. An error ends the input like its end.
    pub(crate) fn end(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        self.stream.flow.begin_turn();
        while self.input.len() < DRAIN_INPUT && self.read(&mut cx).unwrap_or_default() {}
    }

    /// Reports the end to the client, if the kernel accepts that at once.
    pub(crate) fn notify_end(&mut self) {
        let _ = self.stream.poll_end(&mut Context::from_waker(Waker::noop()));
    }

    /// Returns true if another process can continue. Only this process can decrypt a TLS session.
    pub(crate) fn is_movable(&self) -> bool {
        !self.stream.is_encrypted()
    }

    /// Returns the socket of a connection that moves, and the input that was not handed over.
    pub(crate) fn into_parts(self) -> Option<(TcpStream, Vec<u8>)> {
        Some((self.stream.into_socket()?, self.input.into()))
    }

    fn may_hand_over(&self) -> bool {
        !self.is_leaving && self.parts.is_none() && self.exchange.borrow().account.has_room()
    }

    fn may_read(&self) -> bool {
        self.may_hand_over() && !self.exchange.borrow().account.is_ending()
    }

    fn hand_over(&mut self) -> bool {
        let mut is_handed_over = false;
        while self.may_hand_over()
            && let Some((message, end)) = first_message(&self.input)
        {
            let mut exchange = self.exchange.borrow_mut();
            exchange.hand_over(message, 0);
            self.input.advance(end);
            if exchange.account.is_noise() {
                exchange.begin_end();
                self.input.clear();
            }
            is_handed_over = true;
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        is_handed_over
    }

    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut octets = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut octets);
        if Pin::new(&mut self.stream).poll_read(cx, &mut buffer)?.is_pending() {
            return Ok(false);
        }
        let is_at_end = buffer.filled().is_empty();
        if is_at_end {
            self.exchange.borrow_mut().begin_end();
        }
        self.input.extend_from_slice(buffer.filled());
        Ok(!is_at_end)
    }

    fn take_responses(&mut self, cx: &mut Context<'_>) -> bool {
        let mut exchange = self.exchange.borrow_mut();
        let mut is_taken = false;
        loop {
            let message = match &mut self.parts {
                None => match exchange.poll_response(cx) {
                    Poll::Ready(Some(ResponseOutput::Whole(message))) => message.take(),
                    Poll::Ready(Some(ResponseOutput::Parts(parts))) => {
                        self.parts = Some(parts);
                        continue;
                    }
                    Poll::Ready(None) | Poll::Pending => return is_taken,
                },
                Some(_) if !self.output.is_empty() => return is_taken,
                Some(parts) => match parts.poll_recv(cx) {
                    Poll::Ready(Some(part)) => {
                        // The number of transfers bounds this, and load by other clients must not abort a
                        // transfer.
                        exchange.account.slot.seat.add(part.len());
                        part
                    }
                    Poll::Ready(None) => {
                        exchange.account.end_query();
                        (self.parts, is_taken) = (None, true);
                        continue;
                    }
                    Poll::Pending => return is_taken,
                },
            };
            is_taken = true;
            match u16::try_from(message.len()) {
                Ok(length @ 1..) => {
                    exchange.account.slot.seat.add(FRAME_PREFIX);
                    exchange.hold(FRAME_PREFIX + message.len());
                    self.output.extend_from_slice(&length.to_be_bytes());
                    self.output.extend_from_slice(&message);
                }
                Ok(0) | Err(_) => exchange.account.slot.seat.settle(message.len()),
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut is_written = false;
        while !self.output.is_empty() {
            let Poll::Ready(octets) = Pin::new(&mut self.stream).poll_write(cx, &self.output)? else {
                return Ok(is_written);
            };
            self.output.advance(octets);
            self.exchange.borrow_mut().drop_held(octets);
            is_written = true;
        }
        self.output = BytesMut::new();
        let _ = Pin::new(&mut self.stream).poll_flush(cx)?;
        Ok(is_written)
    }
}

/// The size of one read: some hundred queries.
const READ: usize = 4096;

const DRAIN_INPUT: usize = 64 << 10;
