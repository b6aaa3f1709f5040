//! NOTIFY on its way from a worker to the task of the zone.
//!
//! Each zone has a place for each of its primaries, and the channel holds at most one message for each place:
//! a flood for one zone takes no room from another. A NOTIFY that finds its place taken is not lost, because
//! the primary is asked after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel};

use crate::transfer::Serial;
use crate::wire::Name;

/// An accepted NOTIFY.
#[derive(Debug)]
pub struct ReceivedNotify {
    /// The number of the authority.
    pub authority: usize,
    /// The zone, in lower case.
    pub zone: Name,
    /// The primary to be asked.
    pub primary: usize,
    serial: Option<Serial>,
    places: Arc<PendingNotifies>,
}

impl ReceivedNotify {
    /// Frees the place for the next NOTIFY of this primary. Returns the announced version if this was the
    /// only one: of several, some may be forged, so the primary must be asked.
    pub fn take_serial(&self) -> Option<Serial> {
        self.places.leave(self.primary).then_some(self.serial).flatten()
    }
}

/// The places of one zone.
#[derive(Debug, Default)]
pub struct PendingNotifies(AtomicU64);

impl PendingNotifies {
    /// Makes a [`ReceivedNotify`], unless one of the same primary is pending.
    pub(super) fn notify(
        self: &Arc<Self>,
        authority: usize,
        zone: Name,
        primary: usize,
        serial: Option<Serial>,
    ) -> Option<ReceivedNotify> {
        let is_first = self.enter(primary);
        is_first.then(|| ReceivedNotify { authority, zone, primary, serial, places: Arc::clone(self) })
    }

    fn enter(&self, primary: usize) -> bool {
        let place = place(primary);
        let before = self.0.fetch_or(place, AcqRel);
        if before & place != 0 {
            self.0.fetch_or(place << MAX_PLACES, AcqRel);
        }
        before & place == 0
    }

    fn leave(&self, primary: usize) -> bool {
        let both = place(primary) | place(primary) << MAX_PLACES;
        let before = self.0.fetch_and(!both, AcqRel);
        before & both == place(primary)
    }
}

/// The bit of a primary. All further primaries, which are rare, share the last place.
fn place(primary: usize) -> u64 {
    1 << primary.min(MAX_PLACES - 1)
}

const MAX_PLACES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn notify(places: &Arc<PendingNotifies>, primary: usize, serial: u32) -> Option<ReceivedNotify> {
        places.notify(0, Name::root(), primary, Some(Serial(serial)))
    }

    #[test]
    fn one_notice_of_a_primary_waits() {
        let places = Arc::default();
        let first = notify(&places, 0, 7).expect("a free place");
        assert!(notify(&places, 0, 7).is_none());
        let other = notify(&places, 1, 8).expect("the place of another primary");
        assert_eq!(other.take_serial(), Some(Serial(8)));
        // Two came, and one of them may be right.
        assert_eq!(first.take_serial(), None);
        assert_eq!(notify(&places, 0, 9).expect("free again").take_serial(), Some(Serial(9)));
    }

    #[test]
    fn further_primaries_share_a_place() {
        let places = Arc::default();
        assert!(notify(&places, 31, 1).is_some());
        assert!(notify(&places, 400, 1).is_none());
        assert!(notify(&places, 30, 1).is_some());
    }
}
