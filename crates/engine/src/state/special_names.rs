//! Special names: zones that the forwarder answers itself, because no public server has their names.
//!
//! A query for them would only show this network to a stranger. A route other than `.` that names a zone, a
//! name above or a name below it means that a backend has such names, and the zone is forwarded.

use std::sync::{Arc, LazyLock};

use config::{BackendConfig, PoolConfig, SpecialNames};
use dns::{Name, RecordType, suffixes};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use limit::{Access, AccessRules};

use super::resolver_arpa::RESOLVER_ARPA;
use super::routes::Routes;

/// The special zones of a forwarder.
#[derive(Clone, Debug)]
pub(super) struct SpecialZones {
    by_apex: Arc<HashMap<Box<[u8]>, SpecialZone, RandomState>>,
    mode: SpecialNames,
    /// True if the zones of private networks are answered here too.
    has_private: bool,
}

/// A zone that is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SpecialZone {
    pub(super) content: ZoneContent,
    /// True if a resolver of this network may have the names.
    is_private: bool,
}

/// The names of a special zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZoneContent {
    /// The apex alone.
    Empty,
    /// Every name is this host (RFC 6761 section 6.3).
    Localhost,
    /// The reverse names of an address range with one PTR record, of this name.
    Loopback(&'static [u8]),
    /// The encrypted listeners: see [`ResolverArpa`](super::ResolverArpa).
    Resolver,
}

/// Returns true if a special zone may have this folded name. It reads four bytes, because no other name may
/// cost more.
#[inline]
pub(super) fn may_be_special(qname: &[u8]) -> bool {
    // Patterns of bytes would become a jump table.
    const ENDS: [u32; 5] = [
        u32::from_le_bytes(*b"rpa\0"),
        u32::from_le_bytes(*b"ost\0"),
        u32::from_le_bytes(*b"cal\0"),
        u32::from_le_bytes(*b"ion\0"),
        u32::from_le_bytes(*b"lid\0"),
    ];
    qname.last_chunk().is_some_and(|end| ENDS.contains(&u32::from_le_bytes(*end)))
}

impl SpecialZones {
    /// The TTL of special names, seconds: clients follow a reload soon.
    pub(super) const TTL: u32 = 300;

    pub(super) fn new(mode: SpecialNames, routes: &Routes, pools: &[PoolConfig]) -> Self {
        let zones = match mode {
            SpecialNames::Never => &[],
            SpecialNames::Auto | SpecialNames::Always => &ZONES[..],
        };
        let mut by_apex: HashMap<Box<[u8]>, SpecialZone, RandomState> = HashMap::default();
        by_apex.extend(zones.iter().filter(|(apex, _)| !routes.covers(apex)).cloned());
        routes.suffixes().flat_map(suffixes).for_each(|above| _ = by_apex.remove(above));
        // RFC 9462 section 6.4: only a route at or below the zone covers it, which is found for each name.
        by_apex.insert(RESOLVER_ARPA.into(), SpecialZone { content: ZoneContent::Resolver, is_private: false });
        Self { by_apex: Arc::new(by_apex), mode, has_private: false }.with_pools(routes, pools)
    }

    /// Returns true if special names are answered here at all.
    pub(super) fn are_on(&self) -> bool {
        self.mode != SpecialNames::Never
    }

    /// Decides on the zones of private networks. Routes do not cover them, so the pool of `.` would be asked.
    /// A resolver with a public address does not know their names, while one in this network may.
    pub(super) fn with_pools(&self, routes: &Routes, pools: &[PoolConfig]) -> Self {
        let pool = routes.find(&[0]).and_then(|pool| pools.get(pool.0));
        let near = Access::new(&AccessRules::of(&AccessRules::LOCAL));
        let is_near = |backend: &BackendConfig| near.admits(backend.address.socket.ip());
        let has_private = match self.mode {
            SpecialNames::Never => false,
            SpecialNames::Always => true,
            SpecialNames::Auto => !pool.is_some_and(|pool| pool.backends.iter().any(is_near)),
        };
        Self { has_private, ..self.clone() }
    }

    /// Returns the zone of a folded name with its apex, if it is answered here.
    #[cold]
    #[inline(never)]
    pub(super) fn find<'n>(
        &self,
        qname: &'n [u8],
        qtype: RecordType,
        routes: &Routes,
    ) -> Option<(&'n [u8], SpecialZone)> {
        let (apex, zone) = suffixes(qname).find_map(|suffix| Some((suffix, *self.by_apex.get(suffix)?)))?;
        let is_answered = match zone.content {
            ZoneContent::Resolver => routes.route(qname).is_none_or(|(suffix, _)| suffix.len() < apex.len()),
            // RFC 4035 section 2.4: the parent has the DS records. Public servers prove that there are none,
            // so that clients that validate accept answers without signatures (RFC 6303 section 7).
            _ if qtype == RecordType::DS && qname == apex && apex.ends_with(b"\x04arpa\0") => false,
            ZoneContent::Empty | ZoneContent::Localhost | ZoneContent::Loopback(_) => {
                self.has_private || !zone.is_private
            }
        };
        is_answered.then_some((apex, zone))
    }
}

impl Default for SpecialZones {
    /// Has no zone but `resolver.arpa`.
    fn default() -> Self {
        Self::new(SpecialNames::Never, &Routes::new(&[]), &[])
    }
}

impl ZoneContent {
    /// Returns the records of a folded name below the apex or at it; `None` if the zone has no such name.
    pub(super) fn records(self, qname: &[u8]) -> Option<&'static [(RecordType, &'static [u8])]> {
        match self {
            Self::Localhost => Some(&LOCALHOST_ADDRESSES),
            Self::Loopback(host) if qname == host => Some(&LOCALHOST_POINTER),
            Self::Loopback(host) => host.ends_with(qname).then_some(&[]),
            Self::Empty | Self::Resolver => None,
        }
    }
}

/// Returns true if a name is special, or is above or below a name that is.
pub fn is_beside_special(name: &Name) -> bool {
    let name = name.folded();
    let is_below = |name: &[u8], other: &[u8]| suffixes(name).any(|suffix| *suffix == *other);
    ZONES.iter().any(|(apex, _)| is_below(name.as_wire(), apex) || is_below(apex, name.as_wire()))
}

/// All special zones but `resolver.arpa`. `test` is none, because a network may use it: RFC 6761
/// section 6.2.
static ZONES: LazyLock<Vec<(Box<[u8]>, SpecialZone)>> = LazyLock::new(|| {
    let empty = |is_private, names: &[&str]| {
        let zone = SpecialZone { content: ZoneContent::Empty, is_private };
        names.iter().map(|name| (wire(name), zone)).collect::<Vec<_>>()
    };
    let filled = |apex, content| vec![(wire(apex), SpecialZone { content, is_private: false })];
    let ranges = (16..=31).map(|octet| format!("{octet}.172.in-addr.arpa"));
    let shared = (64..=127).map(|octet| format!("{octet}.100.in-addr.arpa"));
    let ranges: Vec<_> = ranges.chain(shared).collect();
    let zones = [
        filled("localhost", ZoneContent::Localhost),
        // RFC 6761 section 6.4, RFC 7686 section 2.
        empty(false, &["invalid", "onion"]),
        // RFC 6303 section 4.2. RFC 6761 section 6.3 has the addresses of `localhost`; this is the reverse.
        filled("127.in-addr.arpa", ZoneContent::Loopback(LOOPBACK_4)),
        empty(false, &["0.in-addr.arpa", "254.169.in-addr.arpa", "2.0.192.in-addr.arpa", "100.51.198.in-addr.arpa"]),
        empty(false, &["113.0.203.in-addr.arpa", "255.255.255.255.in-addr.arpa"]),
        // RFC 6303 section 4.3.
        vec![(LOOPBACK_6.into(), SpecialZone { content: ZoneContent::Loopback(LOOPBACK_6), is_private: false })],
        empty(false, &["0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa"]),
        // RFC 6303 section 4.5, RFC 6303 section 4.6.
        empty(false, &["8.e.f.ip6.arpa", "9.e.f.ip6.arpa", "a.e.f.ip6.arpa", "b.e.f.ip6.arpa"]),
        empty(false, &["8.b.d.0.1.0.0.2.ip6.arpa"]),
        // RFC 6303 section 4.1, RFC 6303 section 4.4; `ranges` are of the first and of RFC 7793.
        empty(true, &["10.in-addr.arpa", "168.192.in-addr.arpa", "d.f.ip6.arpa"]),
        empty(true, &ranges.iter().map(String::as_str).collect::<Vec<_>>()),
        // RFC 8375 section 4, RFC 6762 section 22.1.
        empty(true, &["home.arpa", "local"]),
    ];
    zones.concat()
});

fn wire(name: &str) -> Box<[u8]> {
    name.parse::<Name>().expect("a sound name").as_wire().into()
}

const LOCALHOST_ADDRESSES: [(RecordType, &[u8]); 2] =
    [(RecordType::A, &[127, 0, 0, 1]), (RecordType::AAAA, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])];

const LOCALHOST_POINTER: [(RecordType, &[u8]); 1] = [(RecordType::PTR, b"\x09localhost\0")];

const LOOPBACK_4: &[u8] = b"\x011\x010\x010\x03127\x07in-addr\x04arpa\0";

const LOOPBACK_6: &[u8] = b"\x011\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\
    \x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x010\x03ip6\x04arpa\0";
