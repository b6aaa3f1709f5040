//! TLS handshakes of clients, and the [`Gate`] that keeps handshakes from delaying queries.
//!
//! One handshake step (key exchange, signature) takes a worker some hundred microseconds, and the runtime
//! would run sixty of them between two polls of its sockets. Each step waits for the worker's gate and then
//! for the next poll, so there is one step between two polls, however many clients connect at once.

use std::io::{self, ErrorKind, Read};

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio_rustls::rustls::{HandshakeKind, ServerConnection};

use crate::metrics::ShakenBy;
use crate::net::from_clients::tcp::stream::Kernel;
use crate::net::from_clients::tls::TlsListener;

/// Allows one handshake step between two polls of the worker's sockets.
#[derive(Debug)]
pub struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

impl Gate {
    /// Waits until a step may run. The caller must run it at once.
    pub(crate) async fn turn(&self) {
        self.pass(|| ()).await;
    }

    async fn pass<T>(&self, step: impl FnOnce() -> T) -> T {
        let _turn = self.0.acquire().await;
        // The runtime wakes this task only after it has polled its sockets.
        yield_now().await;
        step()
    }
}

pub(crate) struct Shaken {
    pub(crate) socket: TcpStream,
    pub(crate) session: ServerConnection,
}

impl Shaken {
    pub(crate) fn kind(&self) -> ShakenBy {
        match self.session.handshake_kind() {
            Some(HandshakeKind::Resumed) => ShakenBy::Resumed,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => ShakenBy::Full,
        }
    }
}

/// Performs a TLS handshake with a client.
pub(crate) async fn shake_hands(socket: TcpStream, listener: &TlsListener, gate: &Gate) -> io::Result<Shaken> {
    let mut session = None;
    loop {
        socket.readable().await?;
        let mut stepped = gate.pass(|| step(&socket, listener, session.take())).await?;
        while stepped.wants_write() {
            match stepped.write_tls(&mut Kernel(&socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => socket.writable().await?,
                Err(error) => return Err(error),
            }
        }
        if !stepped.is_handshaking() {
            return Ok(Shaken { socket, session: stepped });
        }
        session = Some(stepped);
    }
}

/// Runs one step on the client's data. The first step also creates the session, because creating a thousand
/// sessions at once would block a worker for tens of milliseconds.
fn step(socket: &TcpStream, listener: &TlsListener, session: Option<ServerConnection>) -> io::Result<ServerConnection> {
    let mut session = session.map_or_else(|| listener.session(), Ok)?;
    match session.read_tls(&mut Kernel(socket)) {
        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(session),
        Err(error) => return Err(error),
    }
    if let Err(error) = session.process_new_packets() {
        refuse(socket, &mut session);
        return Err(io::Error::new(ErrorKind::InvalidData, error));
    }
    Ok(session)
}

fn refuse(socket: &TcpStream, session: &mut ServerConnection) {
    // A fresh connection has room for the alert. If not, the client only sees the close.
    let _ = session.write_tls(&mut Kernel(socket));
    // Unread input makes the kernel reset the connection, and the client might lose the alert.
    let mut chunk = [0; 4096];
    for _ in 0..UNREAD_CHUNKS {
        if !matches!(Kernel(socket).read(&mut chunk), Ok(1..)) {
            break;
        }
    }
}

const UNREAD_CHUNKS: u32 = 16;
