//! The batches that are being filled. A backend has one from the first message of a turn until that is flushed, and then another may
//! have it: of thousands of backends few are asked in one turn, and what was filled last is still near the processor.

use std::time::Instant;

use super::{BackendSocket, BackendSockets, SocketSet};
use crate::net::batch::{BATCH, SendBatch};
use crate::net::refusal::Refusal;
use crate::policy::query_slots::{QuerySlot, SocketId, SocketSetId};

/// A batch that is being filled for one backend.
pub(super) struct Filling {
    /// The socket that it leaves from.
    pub(super) socket: SocketId,
    /// It takes a single message, so that the next leaves from another port.
    pub(super) is_for_one: bool,
    pub(super) batch: SendBatch,
    /// The slots of its messages.
    pub(super) slots: Vec<QuerySlot>,
}

/// Batches that nobody fills.
pub(super) struct Spare {
    /// Empty ones. The socket of each is one of before. Boxed, as the sets have them: they change hands all the time.
    #[expect(clippy::vec_box)]
    batches: Vec<Box<Filling>>,
    /// What a usual message takes, octets.
    message_size: usize,
}

impl Spare {
    /// None yet.
    pub(super) fn new(message_size: usize) -> Self {
        Self { batches: Vec::with_capacity(MAX_SPARE), message_size }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    /// A batch that leaves from this socket.
    pub(super) fn take(&mut self, socket: SocketId) -> Box<Filling> {
        match self.batches.pop() {
            Some(mut filling) => {
                filling.socket = socket;
                filling.is_for_one = false;
                filling
            }
            None => {
                let batch = SendBatch::new(BATCH, self.message_size);
                Box::new(Filling { socket, is_for_one: false, batch, slots: Vec::with_capacity(BATCH) })
            }
        }
    }

    /// Takes back a batch that was flushed.
    pub(super) fn keep(&mut self, filling: Box<Filling>) {
        if self.batches.len() < MAX_SPARE {
            self.batches.push(filling);
        }
    }
}

impl SocketSet {
    /// Whether a batch is being filled that leaves from this socket.
    pub(super) fn fills(&self, number: SocketId) -> bool {
        self.filling.as_ref().is_some_and(|filling| filling.socket == number)
    }
}

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    /// Begins a batch for a backend that has none; returns the socket that it leaves from.
    pub(super) fn begin_batch(&mut self, set_id: SocketSetId, now: Instant) -> Result<SocketId, Refusal> {
        let socket = self.choose_socket(set_id, now).map_err(|error| Refusal::of(&error))?;
        let BackendSocket { is_for_one, batches, .. } = *self.socket(socket);
        let mut filling = self.spare_batches.take(socket);
        filling.is_for_one = is_for_one && batches == 0;
        self.set(set_id).filling = Some(filling);
        self.dirty.push(set_id);
        Ok(socket)
    }
}

/// Batches that are kept: 8 MiB. Of a worker that asks more backends in one turn, some batches are made anew in each.
const MAX_SPARE: usize = 256;
