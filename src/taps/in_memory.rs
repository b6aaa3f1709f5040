//! Taps that keep their records in this process, without output.

use std::io;
use std::sync::Arc;

use super::writer::Outlet;
use crate::metrics::Tap;

pub(super) trait Keeper: Send + Sync {
    const TAP: Tap;

    fn keep(&self, record: &[u8]);
}

pub(super) struct InMemory<K> {
    keeper: Arc<K>,
    /// The records that were kept but not yet counted.
    kept: u64,
}

impl<K> InMemory<K> {
    pub(super) fn new(keeper: Arc<K>) -> Self {
        Self { keeper, kept: 0 }
    }
}

impl<K: Keeper> Outlet for InMemory<K> {
    fn tap(&self) -> Tap {
        K::TAP
    }

    fn take(&mut self, record: &[u8]) {
        self.kept += 1;
        self.keeper.keep(record);
    }

    fn has_room(&self) -> bool {
        self.kept < AT_A_TIME
    }

    fn waiting(&self) -> u64 {
        self.kept
    }

    fn write(&mut self) -> io::Result<u64> {
        Ok(std::mem::take(&mut self.kept))
    }

    fn is_shared(&self) -> bool {
        Arc::strong_count(&self.keeper) > 1
    }
}

/// The records to accept before other taps have their turn.
const AT_A_TIME: u64 = 256;
