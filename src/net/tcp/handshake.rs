//! The handshake of a client by TLS, and the gate that keeps handshakes from queries.
//!
//! A step of a handshake, a key exchange and a signature above all, takes a worker some hundred microseconds; a runtime that is
//! left alone makes sixty of them before it looks at a socket again. So a worker has one [`Gate`], and whoever is about to make such
//! a step waits for it, and then for the runtime's next look at all sockets. Between two looks there is one step, however many
//! clients come at once.

use std::io::{self, ErrorKind, Read};

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio_rustls::rustls::{HandshakeKind, ServerConnection};

use super::stream::Kernel;
use crate::metrics::ShakenBy;
use crate::net::tls_server::TlsListener;

/// Lets one step of a handshake pass between two looks of its worker at all sockets.
#[derive(Debug)]
pub struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

impl Gate {
    /// Waits for the turn to make a step, which must follow at once.
    pub(in crate::net) async fn turn(&self) {
        self.pass(|| ()).await;
    }

    /// Makes a step in its turn.
    async fn pass<T>(&self, step: impl FnOnce() -> T) -> T {
        // Never closed; and if it were, the step would be made all the same.
        let _turn = self.0.acquire().await;
        // Woken when the runtime has looked at its sockets, not before.
        yield_now().await;
        step()
    }
}

/// A connection whose handshake is complete.
pub(super) struct Shaken {
    pub(super) socket: TcpStream,
    pub(super) session: ServerConnection,
}

impl Shaken {
    /// How the handshake was made.
    pub(super) fn kind(&self) -> ShakenBy {
        match self.session.handshake_kind() {
            Some(HandshakeKind::Resumed) => ShakenBy::Resumed,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => ShakenBy::Full,
        }
    }
}

/// Shakes hands with a client.
///
/// # Errors
/// If it is none that speaks our TLS: it was told by an alert.
pub(super) async fn shake_hands(socket: TcpStream, listener: &TlsListener, gate: &Gate) -> io::Result<Shaken> {
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

/// Makes a step with what a client has sent. The first one makes the session too: a thousand sessions at once hold a worker up for tens of
/// milliseconds.
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

/// Tells a client by an alert that it is not understood.
fn refuse(socket: &TcpStream, session: &mut ServerConnection) {
    // A fresh connection has room for it; if not, the client hears the end alone.
    let _ = session.write_tls(&mut Kernel(socket));
    // What has come and is not read would have the kernel reset the connection, and the client perhaps never see the alert.
    let mut chunk = [0; 4096];
    for _ in 0..UNREAD_CHUNKS {
        if !matches!(Kernel(socket).read(&mut chunk), Ok(1..)) {
            break;
        }
    }
}

/// How much of what a client has sent is thrown away before it is left, in chunks of 4096 octets.
const UNREAD_CHUNKS: u32 = 16;
