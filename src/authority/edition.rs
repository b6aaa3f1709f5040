//! What one authority answers from, and what it lets others have. An edition is immutable and replaced whole, by a reload as
//! by a transfer; two in a row share what has not changed.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::limit::{Access, ResponseRate};
use crate::transfer::tsig::{Key, Keys};
use crate::transfer::{AccessList, Journal, Serial};
use crate::wire::Name;
use crate::zone::Catalog;

/// What one authority answers from.
#[derive(Debug)]
pub struct Edition {
    /// The zones and tables.
    pub catalog: Arc<Catalog>,
    /// The keys of the server.
    pub keys: Arc<Keys>,
    /// What there is to exchange with others, by zone.
    pub exchanges: HashMap<Name, Arc<Exchange>>,
    /// Who is answered.
    pub access: Arc<Access>,
    /// Who got how much, if that is limited.
    pub rate: Option<Arc<ResponseRate>>,
}

/// What of a zone is exchanged with others.
#[derive(Debug)]
pub struct Exchange {
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
#[derive(Debug)]
pub struct Source {
    /// Its primaries.
    pub primaries: Vec<SocketAddr>,
    /// Who else may tell of a change.
    pub notify_from: AccessList,
}

impl Source {
    /// The primary that is to be asked after a NOTIFY from this address, if that may send one.
    ///
    /// A primary is known by its address alone: a NOTIFY leaves from any port. What it can do is to have us look.
    pub fn notified_by(&self, address: IpAddr, key: Option<&Key>) -> Option<usize> {
        let address = address.to_canonical();
        let primary = self.primaries.iter().position(|primary| primary.ip().to_canonical() == address);
        primary.or_else(|| self.notify_from.allows(address, key).then_some(0))
    }
}

/// A NOTIFY that was taken, on its way to whoever looks after the zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The number of the authority.
    pub authority: usize,
    /// The zone, in lower case.
    pub zone: Name,
    /// The primary to be asked.
    pub primary: usize,
    /// The version that there is said to be.
    pub serial: Option<Serial>,
}
