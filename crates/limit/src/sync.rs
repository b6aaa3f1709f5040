//! The atomics of lock-free state: those of the standard library, or in a model those of loom, which tries
//! every order of their operations (`loom/`).

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
