//! Asking by TCP where replies by UDP are being forged, or a backend refuses the cookie that it has given: an attempt that goes on
//! over a connection of its own, which nobody can join who does not see it. It needs no cookie.
//!
//! Rare, so it may take a task and a connection. The race does not see it: its attempt goes on waiting.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Weak;

use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::Forwarder;
use crate::engine::{Outstanding, TcpQuery};
use crate::net::tasks::{TaskKind, Tasks};
use crate::wire;

/// How many attempts of one worker are being made by TCP.
///
/// Who forges for more questions than that at a time, and knows the ports of all, delays the rest.
pub(super) struct ByTcp {
    now: usize,
    most: usize,
    /// The tasks of this worker.
    tasks: Tasks,
}

impl ByTcp {
    /// None, and so many at most, whose tasks are among these.
    pub(super) fn new(most: usize, tasks: Tasks) -> Self {
        Self { now: 0, most, tasks }
    }

    /// Begins one, with a header ahead of it if the backend wants to know who asks, whose reply `forwarder` gets. Returns whether there is room.
    pub(super) fn ask(
        &mut self,
        outstanding: Outstanding,
        query: TcpQuery,
        header: Vec<u8>,
        forwarder: Weak<RefCell<Forwarder>>,
    ) -> bool {
        if self.now >= self.most {
            return false;
        }
        self.now += 1;
        let TcpQuery { address, message, question, patience, deadline } = query;
        self.tasks.start_and_leave(TaskKind::Fetch, async move {
            let reply = timeout(patience, ask(address, header, message, &question));
            let reply = timeout_at(Instant::from_std(deadline), reply).await;
            let reply = reply.ok().and_then(Result::ok).and_then(Result::ok);
            if let Some(forwarder) = forwarder.upgrade() {
                forwarder.borrow_mut().on_reply_by_tcp(outstanding, reply.as_deref());
            }
        });
        true
    }
}

impl Forwarder {
    /// Takes the reply by TCP, or that there is none.
    fn on_reply_by_tcp(&mut self, outstanding: Outstanding, reply: Option<&[u8]>) {
        let now = std::time::Instant::now();
        self.outside.by_tcp.now -= 1;
        let reply = reply.and_then(|reply| wire::read_reply(reply).ok());
        self.engine.on_reply_by_tcp(&mut self.outside, outstanding, reply.as_ref(), now);
        self.end_tick(now);
    }
}

/// Asks a backend over a connection that begins with this header, and waits for the reply. What answers something else is read past.
async fn ask(address: SocketAddr, header: Vec<u8>, mut query: Vec<u8>, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let id = rand::rng().random();
    wire::set_id(&mut query, id);
    // RFC 1035 section 4.2.2: two octets of length before each message.
    let length = (query.len() as u16).to_be_bytes();
    stream.write_all(&[&header[..], &length, &query].concat()).await?;
    loop {
        let length = stream.read_u16().await?;
        let mut message = vec![0; usize::from(length)];
        stream.read_exact(&mut message).await?;
        let is_answer = wire::read_reply(&message)
            .is_ok_and(|reply| reply.header().id() == id && reply.answers_question(question) && !reply.is_truncated());
        if is_answer {
            return Ok(message);
        }
    }
}

/// Of so many connections to backends one is for this.
pub(super) const BY_TCP: usize = 8;
