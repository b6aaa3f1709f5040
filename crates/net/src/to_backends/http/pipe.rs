//! An in-memory replacement for the socket of `h2`. The queries bound the output, one socket read the input.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Clone, Default)]
pub(crate) struct Pipe(Arc<Mutex<PipeBuffers>>);

#[derive(Default)]
struct PipeBuffers {
    input: Vec<u8>,
    read: usize,
    output: Vec<u8>,
}

impl Pipe {
    /// Locks the buffers. The lock is never contended, because the owner of the pipe also polls `h2`.
    fn buffers(&self) -> MutexGuard<'_, PipeBuffers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends the input of `h2` to `add`. The caller must poll `h2` afterwards: no waker is called.
    pub(crate) fn fill<T>(&self, add: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut buffers = self.buffers();
        if buffers.read == buffers.input.len() {
            buffers.input.clear();
            buffers.read = 0;
        }
        add(&mut buffers.input)
    }

    pub(crate) fn drain(&self, take: impl FnOnce(&[u8])) {
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

const MAX_KEPT: usize = 64 * 1024;
