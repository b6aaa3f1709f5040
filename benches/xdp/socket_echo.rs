//! The bare echo by an ordinary UDP socket: 64 datagrams a call, with GRO and GSO or without.

use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};

use net::sys::batch::{BATCH, RecvBatch, SendBatch};
use net::sys::options;
use rustix::event::{PollFd, PollFlags, poll};
use socket2::SockRef;

use crate::common::message;

/// Bytes of the longest datagram that is echoed.
const DATAGRAM: usize = 512;
/// The socket buffer, in bytes, large enough that no datagram is lost.
const SOCKET_BUFFER: usize = 4 << 20;

/// Echoes what comes to an address until stdin is closed.
pub(crate) fn run(address: SocketAddr, is_coupled: bool) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER)?;
    let outbox = SendBatch::new(BATCH, DATAGRAM);
    let (mut inbox, mut outbox) = if is_coupled {
        options::enable_gro(&socket);
        (RecvBatch::for_gro(BATCH, DATAGRAM), outbox)
    } else {
        (RecvBatch::new(BATCH, DATAGRAM), outbox.without_gso())
    };
    println!("{address}");
    io::stdout().flush()?;
    let stdin = io::stdin();
    let mut ready = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&stdin, PollFlags::IN)];
    loop {
        rustix::io::retry_on_intr(|| poll(&mut ready, None))?;
        if !ready[1].revents().is_empty() {
            return Ok(());
        }
        echo_all(&socket, &mut inbox, &mut outbox)?;
    }
}

/// Echoes what has come, batch by batch.
fn echo_all(socket: &UdpSocket, inbox: &mut RecvBatch, outbox: &mut SendBatch) -> io::Result<()> {
    loop {
        match inbox.recv(socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let is_full = inbox.is_full();
        inbox.each_chunk(|inbox| {
            for query in (0..inbox.len()).filter_map(|index| inbox.datagram(index)) {
                outbox.push(Some(query.peer), None, |out| message::write_echo(query.bytes, out));
            }
            // An echo that is not taken counts as lost at the client.
            outbox.flush(socket, |_, _| {});
        });
        if !is_full {
            return Ok(());
        }
    }
}
