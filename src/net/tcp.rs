//! DNS over TCP, the server's side (RFC 7766): connections, framing, limits. Hands each message to a handler and writes
//! what comes back, in whatever order it comes. Knows nothing of names.
//!
//! A connection is one task. It reads while fewer than [`Limits::in_flight`] of its queries wait for their response, so
//! a client that sends without end is slowed down by TCP itself. It ends when the client has closed and every answer is
//! written (a half-close loses nothing), when nothing happened for [`Limits::idle`], or when the server drains.

use std::cell::Cell;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// Bounds of what clients may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections of one listener, of which each worker has its own.
    pub connections: usize,
    /// Queries of one connection that wait for their response.
    pub in_flight: usize,
    /// How long a connection may go without a whole query or a response; also how long a write may take.
    pub idle: Duration,
}

impl Limits {
    /// The bounds of one of so many listeners that may have so many connections together
    /// ([`Shares::connections`](super::descriptors::Shares::connections)): clients that connect and say nothing must not cost us
    /// the sockets to the backends, or nobody would get an answer.
    pub fn among(listeners: usize, connections: usize) -> Self {
        let share = connections / listeners.max(1);
        Self {
            connections: share.clamp(1, CONNECTIONS),
            in_flight: 128,
            // RFC 7766 section 6.2.3 asks for "a few seconds"; stub resolvers rarely pause for longer.
            idle: Duration::from_secs(10),
        }
    }
}

/// The way back to one connection, from whichever thread the response is made on.
#[derive(Clone, Debug)]
pub struct Responder {
    /// What is to be written.
    responses: mpsc::UnboundedSender<Response>,
    /// The client.
    peer: SocketAddr,
}

/// What a handler has to say to one message.
#[derive(Debug)]
enum Response {
    /// One message; empty if there is none.
    Whole(Vec<u8>),
    /// Messages, one after the other, as the client takes them.
    Parts(mpsc::Receiver<Vec<u8>>),
}

impl Responder {
    /// Sends a response that `fill` appends to an empty buffer; an empty one says that there will be no response. If the
    /// connection is gone, so is the response.
    pub fn respond(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut message = Vec::new();
        fill(&mut message);
        let _ = self.responses.send(Response::Whole(message));
    }

    /// Begins a response of several messages, which ends when what this returns is dropped. No more than one waits while the
    /// client takes another: who sends into it waits for the client, and learns when that is gone.
    pub fn respond_in_parts(&self) -> mpsc::Sender<Vec<u8>> {
        let (parts, receiver) = mpsc::channel(1);
        let _ = self.responses.send(Response::Parts(receiver));
        parts
    }

    /// The client.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}

/// Accepts connections until `drain` turns true, then lets them finish.
///
/// `handle` gets each message and owes its [`Responder`] one call. `refused` is told of connections above the limit.
pub async fn serve(
    listener: TcpListener,
    limits: Limits,
    drain: watch::Receiver<bool>,
    handle: impl Fn(&[u8], &Responder) + 'static,
    refused: impl Fn(),
) {
    let handle = Rc::new(handle);
    let open = Rc::new(Cell::new(0));
    let mut connections = JoinSet::new();
    let accept = |(stream, peer): (TcpStream, SocketAddr), connections: &mut JoinSet<()>| {
        if open.get() >= limits.connections {
            refused();
            return;
        }
        open.set(open.get() + 1);
        let (handle, open, drain) = (Rc::clone(&handle), Rc::clone(&open), drain.clone());
        connections.spawn_local(async move {
            // An error of a connection is its end; there is nobody to tell.
            let _ = Connection::new(stream, limits).run(peer, drain, &*handle).await;
            open.set(open.get() - 1);
        });
    };
    let mut drained = drain.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accept(accepted, &mut connections),
                // Out of descriptors, most likely, and the connection is still there to be accepted: wait rather than spin.
                Err(error) if is_exhausted(&error) => {
                    let _ = timeout(BREATH, drain.clone().wait_for(|drain| *drain)).await;
                }
                Err(_) => {}
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            _ = drained.wait_for(|drain| *drain) => break,
        }
    }
    // Whoever is in the kernel's queue has connected before the end: take them along. The kernel is asked itself, for the
    // runtime may not have heard of them yet.
    if let Ok(listener) = listener.into_std() {
        while let Ok(accepted) = listener.accept().and_then(|(stream, peer)| Ok((watched(stream)?, peer))) {
            accept(accepted, &mut connections);
        }
        // It closes here: nobody connects any more, while those who have are served to the end.
    }
    while connections.join_next().await.is_some() {}
}

/// Lets the runtime watch a connection that it has not accepted itself.
fn watched(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Whether `accept` failed for want of descriptors or memory.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// One client's connection.
struct Connection {
    /// The stream.
    stream: TcpStream,
    /// Its bounds.
    limits: Limits,
    /// Octets read and not yet handled.
    input: Vec<u8>,
    /// Octets to be written, frames included.
    output: Vec<u8>,
    /// Queries that wait for their response.
    in_flight: usize,
    /// The client, or the server's drain, has ended the input.
    is_at_end: bool,
    /// When the connection last carried a whole query or a response.
    active: Instant,
}

impl Connection {
    /// A fresh connection.
    fn new(stream: TcpStream, limits: Limits) -> Self {
        // A response is written whole; waiting for more to send would only delay it.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            limits,
            input: Vec::new(),
            output: Vec::new(),
            in_flight: 0,
            is_at_end: false,
            active: Instant::now(),
        }
    }

    /// Serves the connection to its end.
    async fn run(
        mut self,
        peer: SocketAddr,
        mut drain: watch::Receiver<bool>,
        handle: &impl Fn(&[u8], &Responder),
    ) -> io::Result<()> {
        let (sender, mut responses) = mpsc::unbounded_channel();
        let responder = Responder { responses: sender, peer };
        loop {
            self.take_messages(handle, &responder);
            if self.is_at_end && self.in_flight == 0 {
                return self.stream.shutdown().await;
            }
            let can_read = !self.is_at_end && self.in_flight < self.limits.in_flight;
            tokio::select! {
                Some(response) = responses.recv() => {
                    self.take_response(response).await?;
                    while let Ok(more) = responses.try_recv() {
                        self.take_response(more).await?;
                    }
                    self.write().await?;
                }
                read = self.stream.read_buf(&mut self.input), if can_read => self.is_at_end = read? == 0,
                _ = drain.wait_for(|drain| *drain), if !self.is_at_end => self.take_rest(),
                () = sleep_until(self.active + self.limits.idle), if self.in_flight == 0 => return Ok(()),
            }
        }
    }

    /// Hands over every whole message, as long as the client may have more in flight.
    fn take_messages(&mut self, handle: &impl Fn(&[u8], &Responder), responder: &Responder) {
        let mut start = 0;
        while self.in_flight < self.limits.in_flight {
            // RFC 1035 section 4.2.2: two octets of length before each message.
            let Some((prefix, rest)) = self.input[start..].split_first_chunk::<2>() else { break };
            let length = usize::from(u16::from_be_bytes(*prefix));
            let Some(message) = rest.get(..length) else { break };
            self.in_flight += 1;
            self.active = Instant::now();
            handle(message, responder);
            start += 2 + length;
        }
        self.input.drain(..start);
    }

    /// The server drains: takes what the client has sent so far, and no more. Read from the kernel itself: of a connection
    /// that has just been accepted the runtime does not know yet that there is something to read.
    fn take_rest(&mut self) {
        self.is_at_end = true;
        let mut chunk = [0; 4096];
        let socket = SockRef::from(&self.stream);
        while self.input.len() < DRAIN_INPUT
            && let Ok(length @ 1..) = (&*socket).read(&mut chunk)
        {
            self.input.extend_from_slice(&chunk[..length]);
        }
    }

    /// Takes a response to the output. Of one in parts, each is written before the next is asked for; whatever else the
    /// client has asked waits meanwhile, since the order of responses is ours (RFC 7766 section 7).
    async fn take_response(&mut self, response: Response) -> io::Result<()> {
        self.in_flight = self.in_flight.saturating_sub(1);
        match response {
            Response::Whole(message) => self.frame(&message),
            Response::Parts(mut parts) => {
                while let Some(part) = parts.recv().await {
                    self.frame(&part);
                    self.write().await?;
                }
            }
        }
        Ok(())
    }

    /// Appends a message to the output, unless there is none.
    fn frame(&mut self, message: &[u8]) {
        self.active = Instant::now();
        if let Ok(length @ 1..) = u16::try_from(message.len()) {
            self.output.extend(length.to_be_bytes());
            self.output.extend(message);
        }
    }

    /// Writes the output. A client that does not read is not waited for without end.
    async fn write(&mut self) -> io::Result<()> {
        timeout(self.limits.idle, self.stream.write_all(&self.output)).await??;
        self.output.clear();
        self.output.shrink_to(OUTPUT_KEPT);
        Ok(())
    }
}

/// Connections of one listener, where descriptors are plenty.
const CONNECTIONS: usize = 1000;

/// How long nothing is accepted after the process was found to be out of descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// Octets read at most from one connection when the server drains.
const DRAIN_INPUT: usize = 64 << 10;

/// Octets of output buffer that an idle connection keeps.
const OUTPUT_KEPT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_share_the_connections() {
        for (listeners, all, connections) in
            [(1, usize::MAX, 1000), (8, 1 << 20, 1000), (4, 512, 128), (0, 512, 512), (6, 4, 1)]
        {
            let limits = Limits::among(listeners, all);
            assert_eq!(limits.connections, connections, "{all} for {listeners}");
        }
    }
}
