//! The files of hedgerow that share atomics between workers, with those of loom: `tests/models.rs` tries
//! them.

// What the models have no use for is used by the crate that the files belong to.
#![allow(dead_code)]

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

    pub(crate) fn zeroed<T: Default>(len: usize) -> Box<[T]> {
        (0..len).map(|_| T::default()).collect()
    }
}

#[path = "../../crates/engine/src"]
pub mod engine {
    //! Single-flight: which worker has the race of a question.

    pub mod single_flight;
}

#[path = "../../crates/hedge/src"]
pub mod hedge {
    //! The hedge budget, and where names live.

    pub mod affinity;
    pub mod budget;
}

#[path = "../../crates/limit/src"]
pub mod limit {
    //! What clients hold, and what is sent to them.

    use std::time::Instant;

    use self::rate_table::{Accounts, Half, RateTableKey, RateVerdict};

    pub mod clients;
    mod rate_table;
    mod sets;
    pub mod zones;

    /// A table of accounts in which each response costs a thousand ticks.
    pub struct Rates(Accounts);

    impl Rates {
        /// A table of one set.
        #[expect(clippy::new_without_default, reason = "it takes the time")]
        pub fn new() -> Self {
            Self(Accounts::new(1, Instant::now()))
        }

        /// Charges an account, and returns what it has owed before.
        pub fn charge(&self, tag: u64) -> u64 {
            let key = RateTableKey { set: 0, tag: tag << 42, half: Half::Parts };
            let judge = |owed: u64, slips| RateVerdict { decision: owed, owed: owed + 1_000, slips };
            self.0.charge(key, 1 << 30, 0, judge)
        }
    }
}
