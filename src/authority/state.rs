//! What one authority answers from, and what it lets others have. A state is immutable and replaced whole, by a reload as
//! by a transfer; two in a row share what has not changed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::notify::PendingNotifies;
use crate::limit::{Access, Cookies, ResponseRate};
use crate::transfer::tsig::{Key, Keys};
use crate::transfer::{AccessList, Journal};
use crate::wire::Name;
use crate::zone::ZoneDb;

/// What one authority answers from.
#[derive(Debug)]
pub struct AuthorityState {
    /// The zones and tables.
    pub zone_db: Arc<ZoneDb>,
    /// The keys of the server.
    pub keys: Arc<Keys>,
    /// What is transferred to and from others, by zone.
    pub transfers: HashMap<Name, Arc<ZoneTransfers>>,
    /// Who is answered.
    pub access: Arc<Access>,
    /// Who got how much, if that is limited.
    pub rate: Option<Arc<ResponseRate>>,
    /// Gives cookies to clients, if they get any.
    pub cookies: Option<Arc<Cookies>>,
}

/// What of a zone is exchanged with others.
#[derive(Debug)]
pub struct ZoneTransfers {
    /// Who may transfer it.
    pub transfer_to: AccessList,
    /// Its last versions.
    pub journal: Journal,
    /// Octets of its records, as [`Records::size`](crate::transfer::Records::size) counts.
    pub size: usize,
    /// Where it comes from, if it is not ours.
    pub source: Option<Source>,
}

/// Where a zone comes from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The hosts of its primaries.
    pub primaries: Vec<IpAddr>,
    /// Who else may tell of a change.
    pub notify_from: AccessList,
    /// The name of the key that primaries sign with, if they do; folded.
    pub tsig: Option<Name>,
    /// Where NOTIFY waits.
    pub places: Arc<PendingNotifies>,
}

impl Source {
    /// The primary that is to be asked after a NOTIFY from this address, if that may send one.
    ///
    /// A key proves a primary, from any address (RFC 8945 section 1). Without a key a primary is known by its address, for a NOTIFY
    /// leaves from any port: an address is easily forged (RFC 1996 section 5).
    pub fn notified_by(&self, address: IpAddr, key: Option<&Key>) -> Option<usize> {
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
