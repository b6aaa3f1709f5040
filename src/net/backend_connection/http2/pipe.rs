//! The two ends of what `h2` takes for a socket: octets in memory, read when they are there and written without a bound.
//!
//! What is written is bounded by what is asked; what is read is one read of a socket at a time.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The end that `h2` has.
#[derive(Clone, Default)]
pub(super) struct Pipe(Arc<Mutex<PipeBuffers>>);

/// What is on the way.
#[derive(Default)]
struct PipeBuffers {
    /// For `h2` to read.
    input: Vec<u8>,
    /// How much of that was.
    read: usize,
    /// What it has written.
    output: Vec<u8>,
}

impl Pipe {
    /// Nobody else has it at the same time: `h2` is called by who fills and drains it.
    fn buffers(&self) -> MutexGuard<'_, PipeBuffers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends what `h2` is to read, for more to be added. Nobody tells it: it is to be polled.
    pub(super) fn fill<T>(&self, add: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut buffers = self.buffers();
        if buffers.read == buffers.input.len() {
            buffers.input.clear();
            buffers.read = 0;
        }
        add(&mut buffers.input)
    }

    /// Hands over what it has written, if it has.
    pub(super) fn drain(&self, take: impl FnOnce(&[u8])) {
        let mut buffers = self.buffers();
        if !buffers.output.is_empty() {
            take(&buffers.output);
            buffers.output.clear();
            buffers.output.shrink_to(MAX_KEPT);
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut buffers = self.buffers();
        let PipeBuffers { input, read, .. } = &mut *buffers;
        let rest = input.get(*read..).unwrap_or_default();
        if rest.is_empty() {
            return Poll::Pending;
        }
        let part = rest.get(..rest.len().min(into.remaining())).unwrap_or_default();
        into.put_slice(part);
        *read += part.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.buffers().output.extend_from_slice(octets);
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Octets that the room for output may keep.
const MAX_KEPT: usize = 64 * 1024;
