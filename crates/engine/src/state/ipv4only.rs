//! `ipv4only.arpa` (RFC 8880): a client finds the prefix of NAT64 by the addresses of this name (RFC 7050).
//! A forwarder with `dns64` answers for it itself.

use std::net::Ipv4Addr;

use dns::{Dns64Prefix, LocalRecord, LocalResponse, LocalSoa, RecordType, local_soa_rdata, suffixes};

use super::OwnNames;
use super::routes::Routes;

/// Returns the apex of a folded name at or below `ipv4only.arpa`, if a pool with `dns64` answers for it: no
/// route names it or a name above it, and `special_names` permits it.
pub fn find_ipv4only<'n>(qname: &'n [u8], qtype: RecordType, own: &OwnNames, routes: &Routes) -> Option<&'n [u8]> {
    let apex = suffixes(qname).find(|suffix| *suffix == IPV4ONLY_ARPA)?;
    // RFC 4035 section 2.4: the parent has the DS records.
    let is_of_parent = qtype == RecordType::DS && qname == apex;
    (own.special.are_on() && !routes.covers(apex) && !is_of_parent).then_some(apex)
}

/// Passes the response for `ipv4only.arpa` or a name below it to `write`, with its answer records.
pub fn respond_ipv4only<T>(
    (qname, qtype): (&[u8], RecordType),
    apex: &[u8],
    prefix: &Dns64Prefix,
    write: impl FnOnce(&LocalResponse<'_>, &mut dyn Iterator<Item = LocalRecord<'_>>) -> T,
) -> T {
    let is_apex = qname.len() == apex.len();
    let embedded = ADDRESSES.map(|octets| prefix.embed(Ipv4Addr::from(octets)).octets());
    let soa = local_soa_rdata(TTL);
    let a = ADDRESSES.iter().map(|octets| (RecordType::A, &octets[..]));
    let aaaa = embedded.iter().map(|octets| (RecordType::AAAA, &octets[..]));
    let all = a.chain(aaaa);
    // RFC 8880 section 7.1 requires an SOA and an NS record.
    let all = all.chain([(RecordType::SOA, &soa[..]), (RecordType::NS, &NAME_OF_QUERY)]);
    let is_asked = |rtype| is_apex && (qtype == rtype || qtype == RecordType::ANY);
    let mut answers = all
        .filter(|(rtype, _)| is_asked(*rtype))
        .map(|(rtype, rdata)| LocalRecord { rtype, ttl: TTL, rdata })
        .peekable();
    let soa = answers.peek().is_none().then_some(LocalSoa { owner: apex, ttl: TTL });
    let rcode = if is_apex { dns::Rcode::NOERROR } else { dns::Rcode::NXDOMAIN };
    write(&LocalResponse { is_authoritative: true, soa, ..LocalResponse::new(rcode) }, &mut answers)
}

const IPV4ONLY_ARPA: &[u8] = b"\x08ipv4only\x04arpa\0";

/// RFC 7050 section 2.2.
const ADDRESSES: [[u8; 4]; 2] = [[192, 0, 0, 170], [192, 0, 0, 171]];

/// A compression pointer to the name in the question, behind the header (RFC 1035 section 4.1.4).
const NAME_OF_QUERY: [u8; 2] = [0xC0, dns::HEADER_LEN as u8];

/// As of other special names, seconds.
const TTL: u32 = 300;
