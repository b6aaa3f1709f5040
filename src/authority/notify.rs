//! NOTIFY on its way from the worker that took it to whoever looks after the zone.
//!
//! Each zone has a place for each of its primaries, and what waits in the channel is at most one message for each place: a
//! flood for one zone, forged or not, takes no room from another. Who finds the place taken has been heard all the same, for
//! the primary is asked after that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel};

use crate::transfer::Serial;
use crate::wire::Name;

/// A NOTIFY that was taken.
#[derive(Debug)]
pub struct ReceivedNotify {
    /// The number of the authority.
    pub authority: usize,
    /// The zone, in lower case.
    pub zone: Name,
    /// The primary to be asked.
    pub primary: usize,
    /// The version that there is said to be.
    serial: Option<Serial>,
    /// Where it has its place.
    places: Arc<PendingNotifies>,
}

impl ReceivedNotify {
    /// Makes room for the next one from the same primary. Returns the version that there is said to be, if this was the only
    /// one: of several, some may be forged, and then only the primary can tell.
    pub fn take_serial(&self) -> Option<Serial> {
        self.places.leave(self.primary).then_some(self.serial).flatten()
    }
}

/// The places of one zone.
#[derive(Debug, Default)]
pub struct PendingNotifies(AtomicU64);

impl PendingNotifies {
    /// A [`ReceivedNotify`], unless one from the same primary waits.
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

    /// Takes the place of a primary, or notes that one more came while it was taken.
    fn enter(&self, primary: usize) -> bool {
        let place = place(primary);
        let before = self.0.fetch_or(place, AcqRel);
        if before & place != 0 {
            self.0.fetch_or(place << MAX_PLACES, AcqRel);
        }
        before & place == 0
    }

    /// Frees the place of a primary; whether nobody else came meanwhile.
    fn leave(&self, primary: usize) -> bool {
        let both = place(primary) | place(primary) << MAX_PLACES;
        let before = self.0.fetch_and(!both, AcqRel);
        before & both == place(primary)
    }
}

/// The bit of a primary. The last place is that of all further ones, who are hardly ever there.
fn place(primary: usize) -> u64 {
    1 << primary.min(MAX_PLACES - 1)
}

/// Primaries of a zone that have places.
const MAX_PLACES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// A NOTIFY of a zone.
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
