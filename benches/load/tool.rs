//! The tools that a load run starts as processes of their own: the bare echo and the fixed responder.
//!
//! Each binds a port of its own, says on stdout which, and answers in batches until its stdin is closed; so it ends
//! with the process that started it, however that ends.

use std::io::{self, Write};
use std::net::{Ipv4Addr, UdpSocket};

use hedgerow::net::batch::{BATCH, RecvBatch, SendBatch};
use rustix::event::{PollFd, PollFlags, poll};

use crate::common::message;

/// What a tool answers with.
#[derive(Clone, Copy)]
pub(crate) enum Tool {
    /// The query with QR set: what moving the datagrams costs, and nothing else.
    Echo {
        /// Whether datagrams of equal length to one client leave as one.
        is_coupled: bool,
    },
    /// The address of the name: a backend that is always fast.
    Responder {
        /// The TTL of an answer, in seconds.
        ttl: u32,
    },
}

/// Octets of the longest datagram that a tool reads.
const DATAGRAM: usize = 512;

/// Answers until stdin is closed.
pub(crate) fn run(tool: Tool) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", socket.local_addr()?);
    io::stdout().flush()?;

    let stdin = io::stdin();
    let mut inbox = RecvBatch::new(BATCH, DATAGRAM);
    let outbox = SendBatch::new(BATCH, DATAGRAM);
    let mut outbox = match tool {
        Tool::Echo { is_coupled: true } => outbox,
        Tool::Echo { is_coupled: false } | Tool::Responder { .. } => outbox.without_gso(),
    };
    loop {
        let mut ready = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&stdin, PollFlags::IN)];
        poll(&mut ready, None)?;
        if !ready[1].revents().is_empty() {
            return Ok(());
        }
        answer_all(tool, &socket, &mut inbox, &mut outbox)?;
    }
}

/// Answers what has come, batch by batch.
fn answer_all(tool: Tool, socket: &UdpSocket, inbox: &mut RecvBatch, outbox: &mut SendBatch) -> io::Result<()> {
    loop {
        let received = match inbox.recv(socket) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        for query in (0..received).filter_map(|index| inbox.datagram(index)) {
            outbox.push(Some(query.peer), None, |out| match tool {
                Tool::Echo { .. } => message::write_echo(query.bytes, out),
                Tool::Responder { ttl } => message::write_reply(query.bytes, ttl, out),
            });
        }
        // A response that is not taken counts as lost at the client.
        outbox.flush(socket, |_, _| {});
        if !inbox.is_full() {
            return Ok(());
        }
    }
}
