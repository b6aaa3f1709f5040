//! Reading the LS's sockets: one task for each listener and one for all backends, which hand what they read to the
//! worker's [`Forwarder`] and never hold it while they wait.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use tokio::io::unix::AsyncFd;

use super::Forwarder;
use crate::net::batch::{BATCH, RecvBatch};
use crate::net::busy_poll::BusyPoll;
use crate::net::udp::{Socket, inbox};

/// Takes queries from a listener for as long as it is polled.
///
/// # Errors
/// If the socket has left the runtime.
pub async fn take_queries(
    forwarder: Rc<RefCell<Forwarder>>,
    listener: u16,
    socket: Rc<Socket>,
    mut busy_poll: BusyPoll,
) -> io::Result<()> {
    let mut batch = inbox();
    loop {
        busy_poll.wait(socket.readable()).await?;
        let has_more = socket.receive(&mut batch, |batch| {
            forwarder.borrow_mut().take_batch(listener, batch, Instant::now());
            busy_poll.renew();
        });
        let dropped = socket.take_dropped();
        if dropped > 0 {
            forwarder.borrow().count_overload(dropped);
        }
        if has_more {
            // There may be more, but what is in flight is finished first: replies and connections have their turn.
            tokio::task::yield_now().await;
        }
    }
}

/// Takes what has arrived at a listener by now, before it closes.
pub fn take_last_queries(forwarder: &RefCell<Forwarder>, listener: u16, socket: &Socket) {
    socket.receive_last(|batch| forwarder.borrow_mut().take_batch(listener, batch, Instant::now()));
}

/// Takes replies from all backends, whose sockets are `watched`, for as long as it is polled.
///
/// # Errors
/// If the sockets have left the runtime.
pub async fn take_replies(
    forwarder: Rc<RefCell<Forwarder>>,
    watched: AsyncFd<OwnedFd>,
    mut busy_poll: BusyPoll,
) -> io::Result<()> {
    let mut received = RecvBatch::for_gro(BATCH, MAX_REPLY);
    let mut events = Vec::with_capacity(BATCH);
    loop {
        let mut ready = busy_poll.wait(watched.readable()).await?;
        if forwarder.borrow().hears_xdp() {
            // It may be the alarm. A reply that has arrived is taken before it, or a hedge would be paid for its attempt.
            tokio::task::yield_now().await;
        }
        let has_more = forwarder.borrow_mut().hear_backends(&mut events, &mut received, Instant::now());
        busy_poll.renew();
        if has_more {
            tokio::task::yield_now().await;
        } else {
            ready.clear_ready();
        }
    }
}

/// Octets of the longest reply that is read whole. Backends are told `edns_udp_size`, which is at most this.
const MAX_REPLY: usize = 4096;
