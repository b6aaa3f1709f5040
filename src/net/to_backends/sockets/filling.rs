//! The batches being filled. Backends share them, because few of thousands are asked in one turn, and the
//! last batch is still in the CPU cache.

use std::time::Instant;

use super::{BackendSocket, BackendSockets, SocketSet};
use crate::net::refusal::SendRefusal;
use crate::net::sys::batch::{BATCH, SendBatch};
use crate::policy::query_slots::{QuerySlot, SocketId, SocketSetId};

pub(super) struct Filling {
    pub(super) socket: SocketId,
    /// True if it takes a single message, so that the next one leaves from another port.
    pub(super) is_for_one: bool,
    pub(super) batch: SendBatch,
    pub(super) slots: Vec<QuerySlot>,
}

pub(super) struct Spare {
    /// Empty batches, with outdated socket numbers. Boxed like those of the sets, because they move often.
    #[expect(clippy::vec_box)]
    batches: Vec<Box<Filling>>,
    message_size: usize,
}

impl Spare {
    pub(super) fn new(message_size: usize) -> Self {
        Self { batches: Vec::with_capacity(MAX_SPARE), message_size }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

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

    pub(super) fn keep(&mut self, filling: Box<Filling>) {
        if self.batches.len() < MAX_SPARE {
            self.batches.push(filling);
        }
    }
}

impl SocketSet {
    pub(super) fn fills(&self, number: SocketId) -> bool {
        self.filling.as_ref().is_some_and(|filling| filling.socket == number)
    }
}

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    pub(super) fn begin_batch(&mut self, set_id: SocketSetId, now: Instant) -> Result<SocketId, SendRefusal> {
        let socket = self.choose_socket(set_id, now).map_err(|error| SendRefusal::of(&error))?;
        let BackendSocket { is_for_one, batches, .. } = *self.socket(socket);
        let mut filling = self.spare_batches.take(socket);
        filling.is_for_one = is_for_one && batches == 0;
        self.set(set_id).filling = Some(filling);
        self.dirty.push(set_id);
        Ok(socket)
    }
}

/// Spare batches: 8 MiB. A worker that asks more backends per turn allocates some in each turn.
const MAX_SPARE: usize = 256;
