//! Delayed responses, which spread a burst (`limit/pacing.rs`), with at most [`MAX_OCTETS`] in all.

use std::time::Instant;

use hedge::timers::Timers;

use super::client::DatagramWay;

#[derive(Default)]
pub(super) struct PacedResponses {
    queue: Timers<PacedResponse>,
    octets: usize,
}

pub(super) struct PacedResponse {
    pub(super) way: DatagramWay,
    pub(super) message: Box<[u8]>,
}

impl PacedResponses {
    /// Keeps a response until its time. Returns false if there is no room.
    pub(super) fn push(&mut self, due: Instant, way: DatagramWay, message: &[u8]) -> bool {
        let octets = self.octets + message.len() + size_of::<PacedResponse>();
        if octets > MAX_OCTETS {
            return false;
        }
        self.octets = octets;
        self.queue.push(due, PacedResponse { way: way.without_link(), message: message.into() });
        true
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<PacedResponse> {
        let (_, response) = self.queue.pop_due(now)?;
        self.octets -= response.message.len() + size_of::<PacedResponse>();
        Some(response)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.queue.peek()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.octets == 0
    }
}

/// Bytes of the delayed responses of one worker. Responses beyond that are dropped.
const MAX_OCTETS: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use net::sys::batch::ReplyPath;

    use super::*;

    fn way() -> DatagramWay {
        let peer = SocketAddr::from(([127, 0, 0, 1], 53)).into();
        DatagramWay { listener: 0, peer, path: ReplyPath::by_socket(None) }
    }

    #[test]
    fn each_leaves_at_its_time_and_in_order() {
        let now = Instant::now();
        let mut paced = PacedResponses::default();
        for (number, millis) in [20, 10, 10, 0].into_iter().enumerate() {
            assert!(paced.push(now + Duration::from_millis(millis), way(), &[number as u8]));
        }
        let mut left = Vec::new();
        for millis in [0, 9, 10, 30] {
            while let Some(later) = paced.pop_due(now + Duration::from_millis(millis)) {
                left.push((millis, later.message[0]));
            }
        }
        assert_eq!(left, [(0, 3), (10, 1), (10, 2), (30, 0)]);
        assert!(paced.is_empty() && paced.next_due().is_none() && paced.octets == 0);
    }

    #[test]
    fn there_are_no_more_than_take_so_many_octets() {
        let now = Instant::now();
        let mut paced = PacedResponses::default();
        let count = (0..MAX_OCTETS).take_while(|_| paced.push(now, way(), &[0; 1_000])).count();
        assert_eq!(count, MAX_OCTETS / (1_000 + size_of::<PacedResponse>()));
        assert!(paced.pop_due(now).is_some() && paced.push(now, way(), &[0; 1_000]));
    }
}
