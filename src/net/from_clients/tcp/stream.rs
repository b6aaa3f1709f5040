//! The byte stream of a connection: a TCP socket, or TLS over one.
//!
//! The TLS session (rustls) does no I/O itself. A byte counts as written when the kernel has accepted the
//! record that contains it, and a record is made only after the previous one has left, so at most one record
//! waits here ([`RECORD`]).

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConnection;

use crate::net::from_clients::tls::handshake::Shaken;
use crate::wire::Transport;

pub(crate) enum ClientStream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

pub(crate) struct TlsStream {
    socket: TcpStream,
    session: ServerConnection,
    held: usize,
    is_ended: bool,
}

impl ClientStream {
    pub(crate) fn shaken(Shaken { socket, session }: Shaken) -> Self {
        Self::Tls(Box::new(TlsStream { socket, session, held: 0, is_ended: false }))
    }

    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::Plain(_) => Transport::Tcp,
            Self::Tls(_) => Transport::Tls,
        }
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.socket,
        }
    }

    pub(crate) fn has_unwritten(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.session.wants_write(),
        }
    }

    /// Appends available input to `input`, which must have spare capacity; 0 means that the client has ended.
    pub(crate) fn try_read(&mut self, input: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_read_buf(input),
            Self::Tls(tls) => tls.read(input, true),
        }
    }

    pub(crate) fn try_read_unwatched(&mut self, input: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => {
                let mut chunk = [0; CHUNK];
                let length = (&*SockRef::from(&*socket)).read(&mut chunk)?;
                input.extend_from_slice(chunk.get(..length).unwrap_or_default());
                Ok(length)
            }
            Self::Tls(tls) => tls.read(input, false),
        }
    }

    /// Writes bytes. Returns the number that the kernel has accepted since they were first passed here.
    pub(crate) fn try_write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_write(octets),
            Self::Tls(tls) => tls.write(octets),
        }
    }

    /// Writes the pending TLS output besides responses, as far as the kernel accepts it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush().or_else(|error| match error.kind() {
                ErrorKind::WouldBlock => Ok(()),
                _ => Err(error),
            }),
        }
    }

    /// Sends the client the end of the session, if the kernel accepts it at once (RFC 8446 section 6.1).
    pub(crate) fn notify_end(&mut self) {
        if let Self::Tls(tls) = self {
            tls.session.send_close_notify();
            let _ = tls.flush();
        }
    }

    /// Shuts down the sending side. Waits at most `patience` for the kernel to accept pending output.
    pub(crate) async fn shutdown(&mut self, patience: Duration) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.shutdown().await,
            Self::Tls(tls) => {
                // RFC 8446 section 6.1: before the end of the write side.
                tls.session.send_close_notify();
                let closing = async {
                    while let Err(error) = tls.flush() {
                        if error.kind() != ErrorKind::WouldBlock {
                            return Err(error);
                        }
                        tls.socket.writable().await?;
                    }
                    Ok(())
                };
                timeout(patience, closing).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))?;
                tls.socket.shutdown().await
            }
        }
    }
}

impl ClientStream {
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(tls) => tls.poll_read(cx, buffer),
        }
    }

    /// Writes bytes. One record may wait here until the next [`poll_flush`](Self::poll_flush).
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, octets),
            Self::Tls(tls) => {
                ready!(tls.poll_flush(cx))?;
                let record = octets.get(..octets.len().min(RECORD)).unwrap_or_default();
                Poll::Ready(tls.session.writer().write(record))
            }
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => {
                if !tls.is_ended {
                    tls.session.send_close_notify();
                    tls.is_ended = true;
                }
                ready!(tls.poll_flush(cx))?;
                Pin::new(&mut tls.socket).poll_shutdown(cx)
            }
        }
    }
}

impl TlsStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.session.reader().read(buffer.initialize_unfilled()) {
                Ok(octets) => {
                    buffer.advance(octets);
                    return Poll::Ready(Ok(()));
                }
                // An end without close_notify is a normal end: each message has its length.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.socket.poll_read_ready(cx))?;
            match self.receive(true) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Reads and decrypts records, from the runtime's view of the socket or directly. Returns the number of
    /// encrypted bytes.
    fn receive(&mut self, is_watched: bool) -> io::Result<usize> {
        let Self { socket, session, .. } = self;
        let octets = match is_watched {
            true => session.read_tls(&mut Kernel(socket)),
            false => session.read_tls(&mut &*SockRef::from(&*socket)),
        }?;
        if let Err(error) = session.process_new_packets() {
            // The alert carries the reason, if the kernel accepts it.
            let _ = session.write_tls(&mut Kernel(socket));
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(octets)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Err(error) = self.flush() {
            if error.kind() != ErrorKind::WouldBlock {
                return Poll::Ready(Err(error));
            }
            ready!(self.socket.poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn read(&mut self, input: &mut Vec<u8>, is_watched: bool) -> io::Result<usize> {
        let before = input.len();
        // Data that arrived with the end of the handshake is already here.
        if take_plain(&mut self.session, input)? {
            return Ok(0);
        }
        if input.len() > before {
            return Ok(input.len() - before);
        }
        let octets = self.receive(is_watched)?;
        let is_at_end = take_plain(&mut self.session, input)?;
        match input.len() - before {
            0 if is_at_end || octets == 0 => Ok(0),
            // A partial record: the caller may retry.
            0 => Err(ErrorKind::Interrupted.into()),
            read => Ok(read),
        }
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if self.held == 0 {
            let record = octets.get(..octets.len().min(RECORD)).unwrap_or_default();
            self.held = self.session.writer().write(record)?;
        }
        self.flush()?;
        Ok(std::mem::take(&mut self.held))
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut Kernel(&self.socket))?;
        }
        Ok(())
    }
}

fn take_plain(session: &mut ServerConnection, input: &mut Vec<u8>) -> io::Result<bool> {
    match session.reader().read_to_end(input) {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock => Ok(false),
            ErrorKind::UnexpectedEof => Ok(true),
            _ => Err(error),
        },
    }
}

pub(crate) struct Kernel<'s>(pub(in crate::net::from_clients) &'s TcpStream);

impl Read for Kernel<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Kernel<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.try_write(octets)
    }

    fn write_vectored(&mut self, octets: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const CHUNK: usize = 4096;

/// The largest record in bytes (RFC 8446 section 5.1).
const RECORD: usize = 16 << 10;
