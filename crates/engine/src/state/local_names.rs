//! Local names: hosts with their addresses, and the reverse names of these addresses, as the config and hosts
//! files give them.

use std::net::IpAddr;

use dns::{LocalRecord, Name, RecordType, labels};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// The records of local names, by name.
#[derive(Clone, Debug, Default)]
pub struct LocalNames {
    by_name: HashMap<Box<[u8]>, LocalHost, RandomState>,
    /// The names with their labels from right to left, in order, to find the names below one.
    reversed: Box<[Box<[u8]>]>,
}

/// The records of one name.
#[derive(Clone, Debug, Default)]
pub(super) struct LocalHost(Vec<(RecordType, Box<[u8]>)>);

impl LocalHost {
    /// Returns the records of this type, or all of them for ANY.
    pub(super) fn records(&self, qtype: RecordType) -> impl Iterator<Item = LocalRecord<'_>> + Clone {
        let wanted = self.0.iter().filter(move |(rtype, _)| *rtype == qtype || qtype == RecordType::ANY);
        wanted.map(|(rtype, rdata)| LocalRecord { rtype: *rtype, ttl: LocalNames::TTL, rdata })
    }

    fn add(&mut self, rtype: RecordType, rdata: &[u8]) -> Result<(), LocalNamesFull> {
        if self.0.iter().any(|(known, data)| *known == rtype && **data == *rdata) {
            return Ok(());
        }
        if self.0.len() == LocalNames::MAX_ADDRESSES {
            return Err(LocalNamesFull::Addresses);
        }
        self.0.push((rtype, rdata.into()));
        Ok(())
    }
}

impl LocalNames {
    /// The TTL of local names, seconds: clients follow a reload within a minute.
    pub const TTL: u32 = 60;

    /// The maximum number of names, with reverse names.
    pub const MAX_NAMES: usize = 200_000;

    /// The maximum number of addresses of a name.
    pub const MAX_ADDRESSES: usize = 64;

    /// Gives an address to these names. The first of them is that of the address, unless it has one already.
    pub fn add(&mut self, names: &[Name], address: IpAddr) -> Result<(), LocalNamesFull> {
        for name in names {
            let host = self.entry(name.folded().as_wire())?;
            match address {
                IpAddr::V4(address) => host.add(RecordType::A, &address.octets())?,
                IpAddr::V6(address) => host.add(RecordType::AAAA, &address.octets())?,
            }
        }
        // Lists of blocked names give many of them the unspecified address, which is no host.
        if let Some(first) = names.first().filter(|_| !address.is_unspecified()) {
            let host = self.entry(Name::reverse_of(address).as_wire())?;
            if host.0.is_empty() {
                host.add(RecordType::PTR, first.as_wire())?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &[u8]) -> Result<&mut LocalHost, LocalNamesFull> {
        if self.by_name.len() >= Self::MAX_NAMES && !self.by_name.contains_key(name) {
            return Err(LocalNamesFull::Names);
        }
        Ok(self.by_name.entry(name.into()).or_default())
    }

    /// Completes the names after the last one was added.
    #[must_use]
    pub fn finish(mut self) -> Self {
        let room = &mut [0; Name::MAX_LEN];
        let mut reversed: Vec<Box<[u8]>> = self.by_name.keys().map(|name| from_right(name, room).into()).collect();
        reversed.sort_unstable();
        self.reversed = reversed.into();
        self
    }

    /// Returns true if this folded name is a local name.
    #[inline]
    pub(super) fn has(&self, name: &[u8]) -> bool {
        !self.by_name.is_empty() && self.by_name.contains_key(name)
    }

    /// Returns the records of a folded name.
    pub(super) fn get(&self, name: &[u8]) -> Option<&LocalHost> {
        self.by_name.get(name)
    }

    /// Returns true if a local name is below this folded name.
    pub(super) fn has_below(&self, name: &[u8]) -> bool {
        let room = &mut [0; Name::MAX_LEN];
        let name = from_right(name, room);
        let behind = self.reversed.partition_point(|known| **known <= *name);
        self.reversed.get(behind).is_some_and(|known| known.starts_with(name))
    }
}

/// The error for names or addresses beyond a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocalNamesFull {
    /// There are too many names.
    #[error(
        "more than {} local names, with reverse names: serve them as a zone of an authority",
        LocalNames::MAX_NAMES
    )]
    Names,
    /// A name has too many addresses.
    #[error("more than {} addresses of one name: leave some out", LocalNames::MAX_ADDRESSES)]
    Addresses,
}

/// Returns the labels of a name with their lengths, from right to left, in `room`.
fn from_right<'r>(name: &[u8], room: &'r mut [u8; Name::MAX_LEN]) -> &'r [u8] {
    let length = name.len().saturating_sub(1).min(room.len());
    let mut rest = &mut room[..length];
    for label in labels(name) {
        let Some(at) = rest.len().checked_sub(label.len() + 1) else { break };
        let (before, place) = std::mem::take(&mut rest).split_at_mut(at);
        place[0] = label.len() as u8;
        place[1..].copy_from_slice(label);
        rest = before;
    }
    &room[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn names(hosts: &[(&str, &[&str])]) -> LocalNames {
        let mut names = LocalNames::default();
        for (address, hosts) in hosts {
            let hosts: Vec<_> = hosts.iter().map(|host| name(host)).collect();
            names.add(&hosts, address.parse().expect("an address")).expect("there is room");
        }
        names.finish()
    }

    fn found(names: &LocalNames, host: &str, qtype: RecordType) -> Option<Vec<Vec<u8>>> {
        Some(names.get(name(host).as_wire())?.records(qtype).map(|record| record.rdata.to_vec()).collect())
    }

    #[test]
    fn hosts_have_their_addresses_and_addresses_their_first_name() {
        let names = names(&[
            ("192.168.1.10", &["NAS.home.arpa", "files.home.arpa"]),
            ("fd00::10", &["nas.home.arpa"]),
            ("192.168.1.10", &["other.home.arpa", "nas.home.arpa"]),
            ("0.0.0.0", &["ads.example"]),
        ]);
        assert!(names.has(b"\x03nas\x04home\x04arpa\0") && !names.has(b"\x04home\x04arpa\0"));
        let addresses = vec![vec![192, 168, 1, 10]];
        for host in ["nas.home.arpa", "files.home.arpa", "other.home.arpa"] {
            assert_eq!(found(&names, host, RecordType::A), Some(addresses.clone()), "{host}");
        }
        assert_eq!(found(&names, "nas.home.arpa", RecordType::ANY).map(|all| all.len()), Some(2));
        assert_eq!(found(&names, "nas.home.arpa", RecordType::MX), Some(Vec::new()));
        // The case of the config is kept.
        let first = vec![b"\x03NAS\x04home\x04arpa\0".to_vec()];
        assert_eq!(found(&names, "10.1.168.192.in-addr.arpa", RecordType::PTR), Some(first));
        let reverse = "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(found(&names, reverse, RecordType::PTR).map(|all| all.len()), Some(1));
        assert_eq!(found(&names, "0.0.0.0.in-addr.arpa", RecordType::PTR), None);
    }

    #[test]
    fn names_below_a_name_are_found() {
        let names = names(&[("192.0.2.1", &["a.b.home.arpa", "ab.home.arpa"]), ("192.0.2.2", &["z.example"])]);
        for (above, expected) in [
            ("home.arpa", true),
            ("b.home.arpa", true),
            ("a.b.home.arpa", false),
            ("x.a.b.home.arpa", false),
            ("z.example", false),
            ("example", true),
            ("2.0.192.in-addr.arpa", true),
            ("1.0.192.in-addr.arpa", false),
            (".", true),
        ] {
            assert_eq!(names.has_below(name(above).as_wire()), expected, "{above}");
        }
    }

    #[test]
    fn names_and_addresses_have_limits() {
        let mut names = LocalNames::default();
        let hosts = [name("a.example")];
        for last in 0..LocalNames::MAX_ADDRESSES as u8 {
            assert_eq!(names.add(&hosts, IpAddr::from([192, 0, 2, last])), Ok(()));
        }
        assert_eq!(names.add(&hosts, IpAddr::from([192, 0, 2, 0])), Ok(()), "it is there");
        assert_eq!(names.add(&hosts, IpAddr::from([192, 0, 2, 255])), Err(LocalNamesFull::Addresses));
    }
}
