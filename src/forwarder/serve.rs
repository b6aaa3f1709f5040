//! Reads the forwarder's sockets: one task for each listener and one for all backends. The tasks never hold
//! the worker's [`Forwarder`] across an await.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use tokio::io::unix::AsyncFd;

use super::Forwarder;
use crate::net::from_clients::udp::{ListenerSocket, inbox};
use crate::net::sys::batch::{BATCH, RecvBatch};
use crate::net::sys::busy_poll::BusyPoll;

/// Handles queries of a listener while it is polled.
pub async fn take_queries(
    forwarder: Rc<RefCell<Forwarder>>,
    listener: u16,
    socket: Rc<ListenerSocket>,
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
            // There may be more, but replies and connections go first, so that queries in flight finish.
            tokio::task::yield_now().await;
        }
    }
}

/// Handles the datagrams that are already queued at a listener before it closes.
pub fn take_last_queries(forwarder: &RefCell<Forwarder>, listener: u16, socket: &ListenerSocket) {
    socket.receive_last(|batch| forwarder.borrow_mut().take_batch(listener, batch, Instant::now()));
}

/// Handles replies of all backends, whose sockets are `watched`, while it is polled.
pub async fn take_replies(
    forwarder: Rc<RefCell<Forwarder>>,
    watched: AsyncFd<OwnedFd>,
    mut busy_poll: BusyPoll,
) -> io::Result<()> {
    let mut received = RecvBatch::for_gro(BATCH, MAX_REPLY);
    let mut events = Vec::with_capacity(BATCH);
    loop {
        let mut ready = busy_poll.wait(watched.readable()).await?;
        if forwarder.borrow().outside.backend_sockets.bypass().is_active() {
            // Maybe the alarm. An arrived reply goes first, or a hedge would be sent for its attempt.
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

/// Bytes of the longest reply that is read whole. Backends get `edns_udp_size`, which is at most this.
const MAX_REPLY: usize = 4096;
