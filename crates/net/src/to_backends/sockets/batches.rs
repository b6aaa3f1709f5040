//! The batches being filled. Backends share them, because few of thousands are asked in one turn, and the
//! last batch is still in the CPU cache.

use engine::query_slots::{QuerySlot, SocketId};

use super::sent::SentIds;
use crate::sys::batch::{BATCH, SendBatch};

pub(super) struct Filling {
    pub(super) socket: SocketId,
    /// True if it takes a single message, so that the next one leaves from another port.
    pub(super) is_for_one: bool,
    pub(super) batch: SendBatch,
    pub(super) slots: Vec<QuerySlot>,
}

/// Empty buffers of closed sockets and sent batches.
pub(super) struct SpareBuffers {
    ids: Vec<SentIds>,
    /// Empty batches, with outdated socket numbers. Boxed like those of the sets, because they move often.
    #[expect(clippy::vec_box)]
    batches: Vec<Box<Filling>>,
    message_size: usize,
}

impl SpareBuffers {
    pub(super) fn new(message_size: usize, sockets: usize) -> Self {
        let mut ids = Vec::with_capacity(sockets);
        ids.extend(std::iter::repeat_with(SentIds::new).take(WARM_IDS));
        Self { ids, batches: Vec::with_capacity(MAX_SPARE), message_size }
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

    pub(super) fn take_ids(&mut self) -> SentIds {
        self.ids.pop().unwrap_or_else(SentIds::new)
    }

    pub(super) fn keep_ids(&mut self, mut ids: SentIds) {
        ids.clear();
        self.ids.push(ids);
    }

    pub(super) fn keep(&mut self, filling: Box<Filling>) {
        if self.batches.len() < MAX_SPARE {
            self.batches.push(filling);
        }
    }
}

/// Spare lists of IDs from the start: 36 KiB. How many sockets are open depends on the pace of queries, so a
/// worker may need more at any time.
const WARM_IDS: usize = 256;

/// Spare batches: 8 MiB. A worker that asks more backends per turn allocates some in each turn.
const MAX_SPARE: usize = 256;
