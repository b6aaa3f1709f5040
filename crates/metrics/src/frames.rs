//! Counters of the frames on each interface whose datagrams bypass the kernel.

use serde::{Deserialize, Serialize};

/// The frame counters of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameSnapshot {
    /// The name of the interface.
    pub interface: String,
    /// Frames handed to a worker.
    pub taken: u64,
    /// Frames left to the kernel.
    pub passed: u64,
    /// Frames for a worker that were lost: no room, or no whole datagram.
    pub in_dropped: u64,
    /// Frames sent past the kernel.
    pub sent: u64,
    /// Frames that the interface did not accept. Their datagrams were sent through sockets.
    pub out_dropped: u64,
}

impl FrameSnapshot {
    /// Combines the counters with those of `other` by `join`.
    pub fn with(&self, other: &Self, join: fn(u64, u64) -> u64) -> Self {
        Self {
            interface: self.interface.clone(),
            taken: join(self.taken, other.taken),
            passed: join(self.passed, other.passed),
            in_dropped: join(self.in_dropped, other.in_dropped),
            sent: join(self.sent, other.sent),
            out_dropped: join(self.out_dropped, other.out_dropped),
        }
    }

    /// Returns the direction, the fate and the number of frames.
    pub(super) fn counts(&self) -> [(&'static str, &'static str, u64); 5] {
        [
            ("in", "taken", self.taken),
            ("in", "passed", self.passed),
            ("in", "dropped", self.in_dropped),
            ("out", "sent", self.sent),
            ("out", "dropped", self.out_dropped),
        ]
    }
}
