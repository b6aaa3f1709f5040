//! Frames by AF_XDP: how many of each interface, and what became of them.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use serde::{Deserialize, Serialize};

use super::exposition::{Family, counter};

/// What has become of the frames of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdpSnapshot {
    /// Its name.
    pub interface: String,
    /// Handed to a worker.
    pub taken: u64,
    /// Left to the kernel.
    pub passed: u64,
    /// Of those for a worker: lost for want of room, or no whole datagram.
    pub in_dropped: u64,
    /// Sent.
    pub sent: u64,
    /// Not sent, since the interface took no more. Their datagrams have left by sockets.
    pub out_dropped: u64,
}

impl XdpSnapshot {
    /// The counts of this interface, each put together with that of `other` by `join`.
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

    /// The counts by direction and fate.
    fn counts(&self) -> [(&'static str, &'static str, u64); 5] {
        [
            ("in", "taken", self.taken),
            ("in", "passed", self.passed),
            ("in", "dropped", self.in_dropped),
            ("out", "sent", self.sent),
            ("out", "dropped", self.out_dropped),
        ]
    }
}

/// `hedgerow_xdp_frames_total`.
const FRAMES: Family =
    Family { name: "hedgerow_xdp_frames", help: "Frames of interfaces with AF_XDP, by what became of them" };

/// Its name without the `_total` of counters.
pub(super) const COUNTERS: [&str; 1] = [FRAMES.name];

/// Writes down what there is; without interfaces nothing.
pub(super) fn write(encoder: &mut DescriptorEncoder<'_>, interfaces: &[XdpSnapshot]) -> fmt::Result {
    if interfaces.is_empty() {
        return Ok(());
    }
    let by_fate = interfaces.iter().flat_map(|of| {
        of.counts().map(|(direction, fate, count)| {
            ([("interface", of.interface.as_str()), ("direction", direction), ("fate", fate)], count)
        })
    });
    counter(encoder, &FRAMES, by_fate)
}
