//! `resolver.arpa`: a zone that the forwarder answers itself (RFC 9462 section 6.4, RFC 6303). It names the
//! encrypted listeners of the same resolver (DDR, RFC 9462).
//!
//! Queries for it reach a backend only if a route names it, because a resolver there could otherwise make
//! clients bypass this one (RFC 9462 section 6.1).

use std::net::IpAddr;
use std::sync::Arc;

use dns::address::{ListenUrl, Scheme};
use dns::{Cookie, Flag, HEADER_LEN, Header, Name, Query, Rcode, RecordType, Transport};
use zone::{FilePlace, Reaction, Record, Tables, ZoneBuilder, ZoneDb};

/// `resolver.arpa` in wire form, in lower case.
pub(crate) const RESOLVER_ARPA: &[u8] = b"\x08resolver\x04arpa\0";

/// The zone that designates the encrypted listeners.
#[derive(Clone, Debug)]
pub struct ResolverArpa(Arc<ZoneDb>);

impl Default for ResolverArpa {
    /// Designates nothing: NODATA for every name and type (RFC 9462 section 4).
    fn default() -> Self {
        Self::new(None, &[])
    }
}

impl ResolverArpa {
    /// Creates the zone of a forwarder with this name and these bound addresses.
    pub(crate) fn new(name: Option<&Name>, listeners: &[ListenUrl]) -> Self {
        let encrypted =
            listeners.iter().filter(|listener| alpn(listener.address.scheme).is_some()).take(MAX_DESIGNATED);
        let mut designations: Vec<_> = name
            .into_iter()
            .flat_map(|name| (1..).zip(encrypted.clone()).filter_map(|(priority, at)| designation(name, priority, at)))
            .collect();
        let mut octets = 0;
        designations.retain(|rdata| {
            octets += rdata.len() + RECORD_OCTETS;
            octets <= MAX_OCTETS
        });
        Self(Arc::new(zone_db(&designations)))
    }

    /// Writes the response to `out` and returns its rcode; `None` if there is no response.
    pub fn respond(
        &self,
        (message, query): (&[u8], &Query<'_>),
        cookie: Option<&Cookie>,
        transport: Transport,
        own_udp_size: u16,
        out: &mut Vec<u8>,
    ) -> Option<Rcode> {
        let Reaction::Respond(rcode) =
            zone::respond_to(&self.0, &Ok(*query), cookie, message, transport, own_udp_size, out)
        else {
            return None;
        };
        // RFC 9462 section 4: NODATA instead of NXDOMAIN, because the name may have other records.
        let rcode = if rcode == Rcode::NXDOMAIN { Rcode::NOERROR } else { rcode };
        if let Some(header) = Header::read(out)
            && let Some(start) = out.get_mut(..HEADER_LEN)
        {
            // Recursion would not improve the answer. An rcode of more than four bits stays as it is.
            let header = header.with(Flag::RecursionAvailable, true);
            let header = if rcode == Rcode::NOERROR { header.with_rcode(rcode) } else { header };
            start.copy_from_slice(&header.to_wire());
        }
        Some(rcode)
    }
}

/// ALPN values of RFC 9461 section 4; `None` for an unencrypted scheme, which is not designated.
fn alpn(scheme: Scheme) -> Option<&'static [&'static [u8]]> {
    match scheme {
        Scheme::Tls => Some(&[b"dot"]),
        // RFC 8484 section 5.2: HTTP/2 is the recommended minimum. HTTP/1.1 is for clients without a choice.
        Scheme::Https => Some(&[b"h2"]),
        Scheme::Quic => Some(&[b"doq"]),
        Scheme::Plain | Scheme::Tcp | Scheme::Http => None,
    }
}

/// SVCB data (RFC 9460 section 2.2), with parameters in order of their keys; `None` if not encrypted.
fn designation(name: &Name, priority: u16, ListenUrl { address: at, path }: &ListenUrl) -> Option<Vec<u8>> {
    let mut rdata = priority.to_be_bytes().to_vec();
    rdata.extend_from_slice(name.as_wire());
    let mut names = Vec::new();
    for name in alpn(at.scheme)? {
        names.push(u8::try_from(name.len()).ok()?);
        names.extend_from_slice(name);
    }
    append(ALPN, &names, &mut rdata)?;
    append(PORT, &at.socket.port().to_be_bytes(), &mut rdata)?;
    // RFC 9462 section 4: address hints save a lookup. For a wildcard listener, the client already knows one.
    match at.socket.ip().to_canonical() {
        ip if ip.is_unspecified() => {}
        IpAddr::V4(ip) => append(IPV4_HINT, &ip.octets(), &mut rdata)?,
        IpAddr::V6(ip) => append(IPV6_HINT, &ip.octets(), &mut rdata)?,
    }
    if at.scheme.is_http() {
        // RFC 9461 section 5: a template with the variable `dns`.
        append(DOH_PATH, format!("{path}{{?dns}}").as_bytes(), &mut rdata)?;
    }
    Some(rdata)
}

fn append(key: u16, value: &[u8], rdata: &mut Vec<u8>) -> Option<()> {
    rdata.extend_from_slice(&key.to_be_bytes());
    rdata.extend_from_slice(&u16::try_from(value.len()).ok()?.to_be_bytes());
    rdata.extend_from_slice(value);
    Some(())
}

fn zone_db(designations: &[Vec<u8>]) -> ZoneDb {
    let apex = Name::from_wire(RESOLVER_ARPA).expect("it is a sound name");
    let mut builder = ZoneBuilder::new(&apex);
    let mut add = |owner: &[u8], rtype: RecordType, rdata: &[u8]| {
        builder.add(&Record { owner, rtype, ttl: TTL, rdata }, FilePlace::default());
    };
    // RFC 6303 section 3: the SOA and NS records. Negative answers have the same TTL.
    let numbers = [1, 3600, 1200, 604_800, TTL].map(u32::to_be_bytes).concat();
    add(RESOLVER_ARPA, RecordType::SOA, &[RESOLVER_ARPA, NOBODY, &numbers].concat());
    add(RESOLVER_ARPA, RecordType::NS, NOBODY);
    for rdata in designations {
        add(&[b"\x04_dns", RESOLVER_ARPA].concat(), RecordType::SVCB, rdata);
    }
    let (zone, _) = builder.finish().unwrap_or_else(|problems| panic!("the records are sound: {problems:?}"));
    ZoneDb::new(Arc::new(Tables::none())).with_zone(Arc::new(zone))
}

/// The TTL, seconds: long enough to save queries, short enough that clients follow a reload.
const TTL: u32 = 300;

/// The maximum number of designated listeners: with the longest name they fit into one TCP message.
const MAX_DESIGNATED: usize = 64;

const MAX_OCTETS: usize = 60_000;

const RECORD_OCTETS: usize = 32;

/// The mailbox of locally served zones (RFC 6303 section 3).
const NOBODY: &[u8] = b"\x06nobody\x07invalid\0";

// Keys of SVCB parameters: RFC 9460 section 14.3.2.
const ALPN: u16 = 1;
const PORT: u16 = 3;
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;
const DOH_PATH: u16 = 7;

#[cfg(test)]
mod tests {
    use dns::read_query;

    use super::*;

    fn query(name: &[u8], qtype: RecordType) -> Vec<u8> {
        [&[7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], name, &qtype.0.to_be_bytes(), &[0, 1]].concat()
    }

    /// Returns the rcode, the numbers of answer and authority records, and the response.
    fn ask(zone: &ResolverArpa, name: &[u8], qtype: RecordType) -> (Rcode, u16, u16, Vec<u8>) {
        let message = query(name, qtype);
        let read = read_query(&message).expect("a query");
        let mut out = Vec::new();
        let rcode = zone.respond((&message, &read), None, Transport::Tcp, 1232, &mut out).expect("a response");
        let header = Header::read(&out).expect("a header");
        assert_eq!((header.rcode(), header.id(), header.recursion_available()), (rcode, 0x0707, true));
        (rcode, header.ancount(), header.nscount(), out)
    }

    fn at(address: &str) -> ListenUrl {
        address.parse().unwrap_or_else(|_| panic!("{address} is an address"))
    }

    const DNS: &[u8] = b"\x04_dns\x08resolver\x04arpa\0";

    #[test]
    fn encrypted_listeners_stand_in_order_with_port_and_hints() {
        let name: Name = "dns.example".parse().expect("a name");
        let listeners =
            ["192.0.2.1:53", "tls://192.0.2.1", "tls://[2001:db8::1]:8853", "tcp://192.0.2.2:53", "tls://0.0.0.0:8854"];
        let zone = ResolverArpa::new(Some(&name), &listeners.map(at));
        let (rcode, answers, _, response) = ask(&zone, DNS, RecordType::SVCB);
        assert_eq!((rcode, answers), (Rcode::NOERROR, 3));
        let contains = |part: &[u8]| response.windows(part.len()).any(|window| window == part);
        for part in [
            &b"\0\x01\x03dns\x07example\0\0\x01\0\x04\x03dot\0\x03\0\x02\x03\x55\0\x04\0\x04\xc0\0\x02\x01"[..],
            b"\0\x02\x03dns\x07example\0\0\x01\0\x04\x03dot\0\x03\0\x02\x22\x95\0\x06\0\x10\x20\x01\x0d\xb8",
            b"\0\x03\x03dns\x07example\0\0\x01\0\x04\x03dot\0\x03\0\x02\x22\x96",
        ] {
            assert!(contains(part), "{part:?} in {response:?}");
        }
    }

    #[test]
    fn listeners_by_https_are_told_of_with_their_path_and_those_in_the_clear_are_not() {
        let name: Name = "a".parse().expect("a name");
        let zone = ResolverArpa::new(
            Some(&name),
            &["https://192.0.2.1", "http://192.0.2.1", "https://0.0.0.0:8443/q", "tls://192.0.2.1:443"].map(at),
        );
        let (rcode, answers, _, response) = ask(&zone, DNS, RecordType::SVCB);
        assert_eq!((rcode, answers), (Rcode::NOERROR, 3));
        let contains = |part: &[u8]| response.windows(part.len()).any(|window| window == part);
        for part in [
            &b"\0\x01\x01a\0\0\x01\0\x03\x02h2\0\x03\0\x02\x01\xbb\0\x04\0\x04\xc0\0\x02\x01\0\x07\0\x10/dns-query{?dns}"[..],
            b"\0\x02\x01a\0\0\x01\0\x03\x02h2\0\x03\0\x02\x20\xfb\0\x07\0\x08/q{?dns}",
            b"\0\x03\x01a\0\0\x01\0\x04\x03dot\0\x03\0\x02\x01\xbb\0\x04\0\x04\xc0\0\x02\x01",
        ] {
            assert!(contains(part), "{part:?} in {response:?}");
        }
    }

    #[test]
    fn long_paths_leave_room_for_one_message() {
        let name: Name = "dns.example".parse().expect("a name");
        let path = "p".repeat(1000);
        let listeners: Vec<_> = (1..=64).map(|port| at(&format!("https://[2001:db8::1]:{port}/{path}"))).collect();
        let (rcode, answers, _, response) = ask(&ResolverArpa::new(Some(&name), &listeners), DNS, RecordType::SVCB);
        assert_eq!(rcode, Rcode::NOERROR);
        assert!((50..64).contains(&answers), "{answers}");
        assert!(!Header::read(&response).expect("a header").is_truncated());
    }

    #[test]
    fn all_else_is_nodata_but_for_the_soa_and_ns_records_of_the_zone() {
        let name: Name = "dns.example".parse().expect("a name");
        let zone = ResolverArpa::new(Some(&name), &[at("tls://192.0.2.1")]);
        let nodata = |zone: &ResolverArpa, name: &[u8], qtype| {
            let (rcode, answers, authority, _) = ask(zone, name, qtype);
            assert_eq!((rcode, answers, authority), (Rcode::NOERROR, 0, 1), "{name:?} {qtype}");
        };
        nodata(&zone, DNS, RecordType::A);
        nodata(&zone, RESOLVER_ARPA, RecordType::SVCB);
        nodata(&zone, b"\x01x\x08resolver\x04arpa\0", RecordType::SVCB);
        nodata(&zone, b"\x01x\x04_dns\x08resolver\x04arpa\0", RecordType::SVCB);
        for zone in [ResolverArpa::default(), ResolverArpa::new(None, &[at("tls://192.0.2.1")])] {
            nodata(&zone, DNS, RecordType::SVCB);
        }
        nodata(&ResolverArpa::new(Some(&name), &[at("192.0.2.1:53")]), DNS, RecordType::SVCB);
        // RFC 6303 section 3: except the records that each such zone has at its apex.
        for qtype in [RecordType::SOA, RecordType::NS] {
            let (rcode, answers, _, _) = ask(&zone, RESOLVER_ARPA, qtype);
            assert_eq!((rcode, answers), (Rcode::NOERROR, 1), "{qtype}");
        }
    }

    #[test]
    fn many_listeners_with_a_long_name_are_told_of_as_far_as_one_message_goes() {
        let name = [&[63][..], &[b'a'; 63]].concat().repeat(3);
        let name = Name::from_wire(&[&name[..], &[60], &[b'b'; 60], &[0]].concat()).expect("a name");
        let listeners: Vec<_> = (1001..=1400).map(|port| at(&format!("tls://[2001:db8::1]:{port}"))).collect();
        let (rcode, answers, _, response) = ask(&ResolverArpa::new(Some(&name), &listeners), DNS, RecordType::SVCB);
        assert_eq!((rcode, usize::from(answers)), (Rcode::NOERROR, MAX_DESIGNATED));
        assert!(!Header::read(&response).expect("a header").is_truncated());
    }
}
