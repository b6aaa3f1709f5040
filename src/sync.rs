//! The atomics of lock-free state. The models in `loom/` have those of loom in their place.

pub(crate) use std::sync::atomic::{AtomicU32, Ordering};
