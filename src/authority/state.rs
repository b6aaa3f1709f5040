//! The data of one authority. A state is immutable; a reload or a transfer replaces it whole. Successive
//! states share unchanged parts.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::notify::PendingNotifies;
use crate::limit::{Access, Cookies, ResponseRate};
use crate::transfer::tsig::{TsigKey, TsigKeys};
use crate::transfer::{AccessList, Journal};
use crate::wire::Name;
use crate::zone::{Zone, ZoneDb};

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
    /// Octets of its records, as [`Records::size`](crate::transfer::Records::size) counts.
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
