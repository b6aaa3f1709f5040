//! Responses to clients, each in its own form: written into one buffer, and handed to the I/O as values.

use std::time::Instant;

use super::EngineWorker;
use super::entry::Waiter;
use super::io::{ClientHandle, Io, ResponseOrigin, ResponseSummary};
use crate::cache::ResponseFor;
use crate::wire::{ClientForm, Transport};

/// The means to respond to clients at one time.
pub(super) struct ClientResponder<'a, I> {
    pub(super) io: &'a mut I,
    buffer: &'a mut Vec<u8>,
    own_udp_size: u16,
    pub(super) now: Instant,
}

impl<'a, I: Io> ClientResponder<'a, I> {
    pub(super) fn new(io: &'a mut I, worker: &EngineWorker, buffer: &'a mut Vec<u8>, now: Instant) -> Self {
        Self { io, buffer, own_udp_size: worker.state.edns_udp_size, now }
    }

    /// Sends the response that `write` writes in the form of the client and describes. If it returns `None`,
    /// the client gets nothing and waits on.
    #[inline]
    pub(super) fn respond(
        &mut self,
        waiter: &Waiter<I::Client>,
        resolution: &ResponseOrigin<'_>,
        write: impl FnOnce(&ResponseFor<'_>, &mut Vec<u8>) -> Option<ResponseSummary>,
    ) {
        let Self { io, buffer, own_udp_size, now } = self;
        let cookie = waiter.cookie.and_then(|shown| io.late_cookie(&waiter.client, shown));
        let late = cookie.map(|cookie| waiter.form.with_cookie(Some(cookie)));
        let form = late.as_ref().unwrap_or(&waiter.form);
        let limit = response_limit(waiter.client.transport(), form, *own_udp_size);
        buffer.clear();
        if let Some(summary) = write(&ResponseFor { form, own_udp_size: *own_udp_size, limit }, buffer) {
            io.respond(waiter, resolution, summary, buffer, *now);
        }
    }
}

/// Returns the maximum length of a response, in bytes.
pub(super) fn response_limit(transport: Transport, form: &ClientForm, own_udp_size: u16) -> usize {
    if transport.is_stream() { usize::from(u16::MAX) } else { form.udp_limit(own_udp_size) }
}
