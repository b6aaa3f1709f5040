//! TLS handshakes of clients, and the [`Gate`] that keeps handshakes from delaying queries.
//!
//! One handshake step (key exchange, signature) takes a worker some hundred microseconds, and the runtime
//! would run sixty of them between two polls of its sockets. Each step waits for the worker's gate and then
//! for the next poll, so there is one step between two polls, however many clients connect at once.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::Poll;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::from_clients::tls::TlsListener;

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
        let _turn = self.0.acquire().await;
        // The runtime wakes this task only after it has polled its sockets.
        yield_now().await;
    }
}

/// Performs a TLS handshake with a client.
pub(crate) async fn shake_hands(
    socket: TcpStream,
    listener: &TlsListener,
    gate: &Gate,
) -> io::Result<TlsStream<TcpStream>> {
    socket.readable().await?;
    gate.turn().await;
    // Creating the sessions of a thousand clients at once would block a worker for tens of milliseconds.
    let handshake = TlsAcceptor::from(listener.config());
    let handshake = handshake.accept_with(socket, |session| session.set_buffer_limit(Some(RECORD)));
    let mut handshake = handshake.into_fallible();
    loop {
        match poll_fn(|cx| Poll::Ready(Pin::new(&mut handshake).poll(cx))).await {
            Poll::Ready(Ok(stream)) => return Ok(stream),
            Poll::Ready(Err((error, socket))) => {
                discard_input(&socket);
                return Err(error);
            }
            Poll::Pending => next_poll().await,
        }
        gate.turn().await;
    }
}

/// Waits until the task is woken.
async fn next_poll() {
    let mut is_first = true;
    poll_fn(|_| if mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }).await;
}

/// Unread input makes the kernel reset the connection, and the client might lose the alert.
fn discard_input(socket: &TcpStream) {
    let mut chunk = [0; 4096];
    for _ in 0..UNREAD_CHUNKS {
        if !matches!(socket.try_read(&mut chunk), Ok(1..)) {
            break;
        }
    }
}

/// The largest record in bytes (RFC 8446 section 5.1). A session holds this much that the kernel has not yet
/// accepted.
const RECORD: usize = 16 << 10;

const UNREAD_CHUNKS: u32 = 16;
