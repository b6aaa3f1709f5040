//! Single-flight among workers: the agreement on the worker that runs the races of a question.
//!
//! Equal queries must join one race (docs/src/contract.md, Races), but the kernel spreads them over workers.
//! A worker that starts a race claims a slot chosen by the question's hash until the race is over; another
//! worker that finds the slot claimed hands its query over to the holder. Slots hold no question: two
//! questions in one slot cost a needless hand-over and nothing else. There is no lock, only one atomic
//! operation at each end of a race.

use crate::sync::{AtomicU32, Ordering::AcqRel, Ordering::Relaxed, zeroed};

/// The number of a worker, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerId(pub u16);

/// The slots, shared by all workers.
#[derive(Debug)]
pub struct SingleFlight {
    /// Each 0, or the holder's number + 1 in the upper 12 bits and its count of races in the lower 20. Empty
    /// for a single worker.
    slots: Box<[AtomicU32]>,
}

impl SingleFlight {
    /// Creates the slots for this number of workers.
    pub fn new(workers: usize) -> Self {
        let slots = if workers > 1 { SLOTS } else { 0 };
        Self { slots: zeroed(slots) }
    }

    /// Claims the slot of `hash`, once more if this worker holds it already, or returns its holder.
    pub fn take(&self, hash: u64, me: WorkerId) -> Result<(), WorkerId> {
        let Some(slot) = self.slot(hash) else { return Ok(()) };
        let mine = (u32::from(me.0) + 1) << COUNT_BITS;
        slot.fetch_update(AcqRel, Relaxed, |held| match held >> COUNT_BITS {
            0 => Some(mine + 1),
            _ if held & !COUNT_MASK == mine && held & COUNT_MASK < COUNT_MASK => Some(held + 1),
            _ => None,
        })
        .map(drop)
        .map_err(|held| WorkerId(((held >> COUNT_BITS) - 1) as u16))
    }

    /// Releases one claim of the slot.
    pub fn release(&self, hash: u64) {
        let Some(slot) = self.slot(hash) else { return };
        let released = slot.fetch_update(AcqRel, Relaxed, |held| match held & COUNT_MASK {
            0 => None,
            1 => Some(0),
            _ => Some(held - 1),
        });
        debug_assert!(released.is_ok(), "a claim is released once");
    }

    /// Releases all claims of a stopped worker.
    pub fn release_all(&self, of: WorkerId) {
        let theirs = (u32::from(of.0) + 1) << COUNT_BITS;
        for slot in &self.slots {
            // Only its holder changes a claimed slot, and that worker is gone.
            let _ = slot.fetch_update(AcqRel, Relaxed, |held| (held & !COUNT_MASK == theirs).then_some(0));
        }
    }

    /// Returns true if no worker holds a slot.
    pub fn is_free(&self) -> bool {
        self.slots.iter().all(|slot| slot.load(Relaxed) == 0)
    }

    fn slot(&self, hash: u64) -> Option<&AtomicU32> {
        // The low bits choose the place in the worker's own table; the high ones are as good here.
        self.slots.get((hash >> (64 - SLOTS.trailing_zeros())) as usize)
    }
}

/// The number of slots: with 1,000 queries in flight, 1.5 % of queries meet another's claim by chance.
const SLOTS: usize = if cfg!(loom) { 2 } else { 1 << 16 };
const COUNT_BITS: u32 = 20;
const COUNT_MASK: u32 = (1 << COUNT_BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_belongs_to_its_holder_until_the_last_release() {
        let claims = SingleFlight::new(2);
        let (a, b) = (WorkerId(0), WorkerId(1));
        assert_eq!(claims.take(7, a), Ok(()));
        assert_eq!(claims.take(7, a), Ok(()));
        assert_eq!(claims.take(7, b), Err(a));
        claims.release(7);
        assert_eq!(claims.take(7, b), Err(a));
        claims.release(7);
        assert_eq!(claims.take(7, b), Ok(()));
        assert_eq!(claims.take(7, a), Err(b));
    }

    #[test]
    fn what_a_worker_held_that_has_ended_is_free() {
        let claims = SingleFlight::new(3);
        let (a, b) = (WorkerId(0), WorkerId(1));
        for hash in [7, 7, u64::MAX] {
            assert_eq!(claims.take(hash, a), Ok(()));
        }
        assert_eq!(claims.take(1 << 60, b), Ok(()));
        claims.release_all(a);
        for hash in [7, u64::MAX] {
            assert_eq!(claims.take(hash, b), Ok(()));
        }
        assert_eq!(claims.take(1 << 60, a), Err(b));
    }

    #[test]
    fn hashes_far_apart_do_not_meet() {
        let claims = SingleFlight::new(2);
        assert_eq!(claims.take(0, WorkerId(0)), Ok(()));
        assert_eq!(claims.take(u64::MAX, WorkerId(1)), Ok(()));
    }

    #[test]
    fn a_single_worker_claims_nothing() {
        let claims = SingleFlight::new(1);
        assert_eq!(claims.take(1, WorkerId(0)), Ok(()));
        claims.release(1);
        assert!(claims.slots.is_empty());
    }

    #[test]
    fn of_many_threads_one_holds_a_slot_at_a_time() {
        let claims = SingleFlight::new(4);
        let holders = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for me in 0..4 {
                let (claims, holders) = (&claims, &holders);
                scope.spawn(move || {
                    for _ in 0..10_000 {
                        if claims.take(0, WorkerId(me)).is_ok() {
                            assert_eq!(holders.fetch_add(1, AcqRel), 0, "two workers hold one slot");
                            holders.fetch_sub(1, AcqRel);
                            claims.release(0);
                        }
                    }
                });
            }
        });
    }
}
