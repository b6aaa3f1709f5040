//! The tools that a load run starts as separate processes: the bare echo and the fixed responder.
//!
//! Each binds a new port, at one address or several, prints it on stdout, and answers in batches until its
//! stdin is closed; so it ends with the process that started it, however that ends.

use std::io::{self, Write};
use std::iter;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use net::sys::batch::{BATCH, RecvBatch, SendBatch};
use rustix::event::{PollFd, PollFlags, poll};

use crate::common::message;

/// The kind of answers of a tool.
#[derive(Clone, Copy)]
pub(crate) enum Tool {
    /// The query with QR set: what moving the datagrams costs, and nothing else.
    Echo {
        /// True if datagrams of equal length to one client leave as one.
        is_coupled: bool,
    },
    /// The address of the name: a backend that is always fast.
    Responder {
        /// The TTL of an answer, in seconds.
        ttl: u32,
        /// True if the tool answers OPT with OPT, and adds the version of the zone.
        edns: bool,
        at: SocketAddrV4,
        /// At how many addresses: the first and those that follow it, all with one port.
        addresses: u32,
    },
}

/// Bytes of the longest datagram that a tool reads.
const DATAGRAM: usize = 512;

/// Answers until stdin is closed.
pub(crate) fn run(tool: Tool) -> io::Result<()> {
    let sockets = match tool {
        Tool::Echo { .. } => bind(ANY_PORT, 1)?,
        Tool::Responder { at, addresses, .. } => bind(at, addresses)?,
    };
    println!("{}", sockets[0].local_addr()?);
    io::stdout().flush()?;

    let stdin = io::stdin();
    let mut inbox = RecvBatch::new(BATCH, DATAGRAM);
    let outbox = SendBatch::new(BATCH, DATAGRAM);
    let mut outbox = match tool {
        Tool::Echo { is_coupled: true } => outbox,
        Tool::Echo { is_coupled: false } | Tool::Responder { .. } => outbox.without_gso(),
    };
    let mut ready: Vec<_> = sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
    ready.push(PollFd::new(&stdin, PollFlags::IN));
    loop {
        poll(&mut ready, None)?;
        if ready.last().is_some_and(|stdin| !stdin.revents().is_empty()) {
            return Ok(());
        }
        for (socket, _) in sockets.iter().zip(&ready).filter(|(_, ready)| !ready.revents().is_empty()) {
            answer_all(tool, socket, &mut inbox, &mut outbox)?;
        }
    }
}

/// The default listening address: the system chooses the port.
pub(crate) const ANY_PORT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);

/// Binds a port at so many addresses.
fn bind(at: SocketAddrV4, addresses: u32) -> io::Result<Vec<UdpSocket>> {
    let first = UdpSocket::bind(at)?;
    let port = first.local_addr()?.port();
    let more = (1..addresses).map(|number| UdpSocket::bind((following(*at.ip(), number), port)));
    iter::once(Ok(first)).chain(more).collect()
}

/// Returns the address with this number of a responder without a configured address.
pub(crate) fn nth_address(number: u32) -> Ipv4Addr {
    following(Ipv4Addr::LOCALHOST, number)
}

/// The address so many behind another.
fn following(address: Ipv4Addr, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address) + number)
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
                Tool::Responder { ttl, edns: true, .. } => message::write_edns_reply(query.bytes, ttl, out),
                Tool::Responder { ttl, edns: false, .. } => message::write_reply(query.bytes, ttl, out),
            });
        }
        // A response that is not taken counts as lost at the client.
        outbox.flush(socket, |_, _| {});
        if !inbox.is_full() {
            return Ok(());
        }
    }
}
