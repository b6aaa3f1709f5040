//! Attempts by TCP, if UDP replies are being forged or a backend rejects its own cookie. Each attempt gets a
//! separate connection, which an off-path attacker cannot join, so no cookie is needed. Such attempts are
//! rare, so each may cost a task and a connection. The attempt in the race continues to wait.

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

/// Limits the attempts by TCP of one worker.
pub(super) struct ByTcp {
    now: usize,
    most: usize,
    tasks: Tasks,
}

impl ByTcp {
    pub(super) fn new(most: usize, tasks: Tasks) -> Self {
        Self { now: 0, most, tasks }
    }

    /// Starts an attempt whose reply `forwarder` gets, with an optional header. Returns false at the limit.
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
    fn on_reply_by_tcp(&mut self, outstanding: Outstanding, reply: Option<&[u8]>) {
        let now = std::time::Instant::now();
        self.outside.by_tcp.now -= 1;
        let reply = reply.and_then(|reply| wire::read_reply(reply).ok());
        self.tick(now).on_reply_by_tcp(outstanding, reply.as_ref());
        self.end_tick(now);
    }
}

/// Queries a backend over a new connection that begins with `header`. Skips replies to other questions.
async fn ask(address: SocketAddr, header: Vec<u8>, mut query: Vec<u8>, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let id = rand::rng().random();
    wire::set_id(&mut query, id);
    // RFC 1035 section 4.2.2: a length of two bytes before each message.
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

/// One of this many backend connections is reserved for attempts by TCP.
pub(super) const BY_TCP: usize = 8;
