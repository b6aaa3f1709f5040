//! The data of one authority. A state is immutable; a reload or a transfer replaces it whole. Successive
//! states share unchanged parts.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel};

use dns::Name;
use limit::{Access, Cookies, ResponseRate};
use zone::transfer::tsig::{TsigKey, TsigKeys};
use zone::transfer::{AccessList, Journal, Serial};
use zone::{Zone, ZoneDb};

/// The data of one authority.
#[derive(Clone, Debug)]
pub struct AuthorityState {
    /// The zones and tables.
    pub zone_db: Arc<ZoneDb>,
    /// The keys of the server.
    pub keys: Arc<TsigKeys>,
    /// The transfer data of each zone.
    pub transfers: HashMap<Name, Arc<ZoneTransfers>>,
    /// The access rules for clients.
    pub access: Arc<Access>,
    /// The response rates of clients, if they are limited.
    pub rate: Option<Arc<ResponseRate>>,
    /// The cookies for clients, if enabled.
    pub cookies: Option<Arc<Cookies>>,
}

impl AuthorityState {
    /// Adds a zone, or replaces its previous version.
    pub fn set_zone(&mut self, zone: Arc<Zone>, transfers: ZoneTransfers) {
        self.transfers.insert(zone.apex().clone(), Arc::new(transfers));
        Arc::make_mut(&mut self.zone_db).set_zone(zone);
    }

    /// Returns a zone with its transfer data, if this authority is a secondary server of it or not, as asked.
    pub fn known(&self, zone: &Name, is_secondary: bool) -> Option<(&Arc<Zone>, &ZoneTransfers)> {
        let transfers = self.transfers.get(zone).filter(|transfers| transfers.source.is_some() == is_secondary)?;
        Some((self.zone_db.zone(zone)?, transfers))
    }
}

/// The transfer data of one zone.
#[derive(Debug)]
pub struct ZoneTransfers {
    /// The clients that may transfer it.
    pub transfer_to: AccessList,
    /// The journal of its last versions.
    pub journal: Journal,
    /// Octets of its records, as [`Records::size`](zone::transfer::Records::size) counts.
    pub size: usize,
    /// The origin of a secondary zone.
    pub source: Option<SecondarySource>,
}

/// The origin of a secondary zone.
#[derive(Clone, Debug)]
pub struct SecondarySource {
    /// The hosts of its primaries.
    pub primaries: Vec<IpAddr>,
    /// Other hosts that may send NOTIFY.
    pub notify_from: AccessList,
    /// The folded name of the primaries' TSIG key, if they use one.
    pub tsig: Option<Name>,
    /// The places of pending NOTIFYs.
    pub places: Arc<PendingNotifies>,
}

impl SecondarySource {
    /// Returns the primary to ask after a NOTIFY from this address, if the sender is allowed.
    ///
    /// A key proves a primary, from any address (RFC 8945 section 1). An address is easily forged (RFC 1996
    /// section 5).
    pub fn notified_by(&self, address: IpAddr, key: Option<&TsigKey>) -> Option<usize> {
        let address = address.to_canonical();
        let primary = self.primaries.iter().position(|primary| primary.to_canonical() == address);
        let is_primary = match &self.tsig {
            Some(name) => key.is_some_and(|key| key.name() == name),
            None => primary.is_some(),
        };
        let is_allowed = is_primary || self.notify_from.allows(address, key);
        is_allowed.then_some(primary.unwrap_or_default())
    }
}

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

/// The places of one zone for NOTIFY on its way from a worker to the task of the zone: one for each of its
/// primaries. The channel holds at most one message for each place, so that a flood for one zone takes no
/// room from another. A NOTIFY that finds its place taken is not lost, because the primary is asked after it.
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
