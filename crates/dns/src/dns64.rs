//! DNS64 (RFC 6147): IPv6 addresses for names that have only IPv4 addresses, for clients behind NAT64.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::body::{RecordBounds, records};
use super::codes::{Rcode, RecordClass, RecordType};
use super::edns::set_length;
use super::expand::{append_record, unmoved};
use super::header::{Flag, HEADER_LEN};
use super::name::{Name, labels};
use super::private::{is_private, write_kept};
use super::reply::Reply;

/// An IPv6 prefix in which addresses have an IPv4 address (RFC 6052 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dns64Prefix {
    octets: [u8; 16],
    /// The length in bytes: 4 to 8, or 12.
    len: u8,
}

/// The error for a text that is no prefix for DNS64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoDns64Prefix;

impl FromStr for Dns64Prefix {
    type Err = NoDns64Prefix;

    fn from_str(text: &str) -> Result<Self, NoDns64Prefix> {
        let (address, length) = text.split_once('/').ok_or(NoDns64Prefix)?;
        let octets = address.parse::<Ipv6Addr>().map_err(|_| NoDns64Prefix)?.octets();
        let len = match length {
            "32" => 4,
            "40" => 5,
            "48" => 6,
            "56" => 7,
            "64" => 8,
            "96" => 12,
            _ => return Err(NoDns64Prefix),
        };
        let prefix = Self { octets, len };
        // RFC 6052 section 2.2: bits 64 to 71 are zero.
        let is_clean = octets[usize::from(len)..].iter().all(|octet| *octet == 0) && octets[RESERVED] == 0;
        if is_clean { Ok(prefix) } else { Err(NoDns64Prefix) }
    }
}

impl fmt::Display for Dns64Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv6Addr::from(self.octets), u16::from(self.len) * 8)
    }
}

impl Dns64Prefix {
    /// Returns the IPv6 address for an IPv4 address.
    pub fn embed(&self, address: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.octets;
        for (place, octet) in self.places().zip(address.octets()) {
            octets[place] = octet;
        }
        octets.into()
    }

    /// Returns the IPv4 address in an IPv6 address of this prefix.
    pub fn extract(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let octets = address.octets();
        let len = usize::from(self.len);
        let is_in = octets.get(..len) == self.octets.get(..len) && octets[RESERVED] == 0;
        let mut embedded = [0; 4];
        embedded.iter_mut().zip(self.places()).for_each(|(octet, place)| *octet = octets[place]);
        is_in.then(|| embedded.into())
    }

    /// Returns the name of the PTR records for a reverse name of this prefix (RFC 6147 section 5.3.1).
    pub fn reverse(&self, qname: &[u8]) -> Option<Name> {
        let mut nibbles = 0_u128;
        let mut count = 0;
        let mut labels = labels(qname);
        for label in labels.by_ref().take(NIBBLES) {
            let &[digit] = label else { return None };
            let nibble = char::from(digit).to_digit(16)?;
            nibbles |= u128::from(nibble) << (4 * count);
            count += 1;
        }
        let is_rest = labels.map(<[u8]>::to_ascii_lowercase).eq([&b"ip6"[..], b"arpa"]);
        if count < NIBBLES || !is_rest {
            return None;
        }
        Some(Name::reverse_of(self.extract(nibbles.into())?.into()))
    }

    /// RFC 6052 section 3.1: the well-known prefix is for global addresses only.
    fn may_embed(&self, address: Ipv4Addr) -> bool {
        *self != WELL_KNOWN || !is_private(address.into())
    }

    fn places(&self) -> impl Iterator<Item = usize> + use<> {
        (usize::from(self.len)..16).filter(|place| *place != RESERVED)
    }
}

/// The kind of a reply to a question for AAAA records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6Answer {
    /// It is for the client as it is: it has addresses, or there is no such name (RFC 6147 section 5.1.2).
    Whole,
    /// It has addresses, and others that no client can use.
    Mixed,
    /// It has none; with the TTL in seconds of its SOA record, which bounds that of addresses in its place.
    None {
        /// The TTL, 600 without an SOA record (RFC 6147 section 5.1.7).
        ttl: u32,
    },
}

impl Ipv6Answer {
    /// Finds the kind of a reply. Failures and silence count as no address (RFC 6147 section 5.1.2).
    pub fn of(reply: &Reply<'_>) -> Self {
        let message = reply.as_wire();
        let has = |is_excluded| {
            reply.answers().any(|record| record.rtype == RecordType::AAAA && is_mapped(message, &record) == is_excluded)
        };
        match (reply.rcode(), has(false)) {
            (Rcode::NXDOMAIN, _) => Self::Whole,
            (Rcode::NOERROR, true) if has(true) => Self::Mixed,
            (Rcode::NOERROR, true) => Self::Whole,
            // More records than the message has.
            (Rcode::NOERROR, false) if reply.is_truncated() => Self::Whole,
            (_, _) => Self::None { ttl: soa_ttl(reply).unwrap_or(TTL_WITHOUT_SOA) },
        }
    }
}

/// RFC 6147 section 5.1.4: an IPv4 address as an IPv6 address is of no use to a client with IPv6 only.
fn is_mapped(message: &[u8], record: &RecordBounds) -> bool {
    message.get(record.rdata..).is_some_and(|rdata| rdata.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]))
}

fn soa_ttl(reply: &Reply<'_>) -> Option<u32> {
    let message = reply.as_wire();
    let mut authority = records(message, reply.authority_start()).take(reply.header().nscount().into());
    let soa = authority.find(|record| record.rtype == RecordType::SOA)?;
    let ttl = message.get(soa.owner_end + 4..)?.first_chunk()?;
    Some(u32::from_be_bytes(*ttl))
}

/// Writes a reply into `out` without AAAA records that map IPv4 addresses.
pub fn write_without_mapped(reply: &Reply<'_>, out: &mut Vec<u8>) {
    let message = reply.as_wire();
    let is_kept = |record: &RecordBounds| {
        !(record.rtype == RecordType::AAAA && is_mapped(message, record) || covers(message, record, RecordType::AAAA))
    };
    write_kept(reply, false, is_kept, out);
}

/// Writes the response to a question for AAAA records into `out`, made of a reply for A records of the same
/// name: each address in the prefix, with a TTL of at most `max_ttl` seconds (RFC 6147 section 5.1.7). AA and
/// AD are clear, because the addresses are made up.
pub fn write_dns64(question_wire: &[u8], reply: &Reply<'_>, prefix: &Dns64Prefix, max_ttl: u32, out: &mut Vec<u8>) {
    let message = reply.as_wire();
    out.clear();
    out.extend_from_slice(&[0; HEADER_LEN]);
    out.extend_from_slice(question_wire);
    let starts = [reply.authority_start(), reply.additional_start()];
    let mut counts = [1, 0, 0, 0];
    // Records stay in place up to the first address.
    let mut fixed = None;
    for record in records(message, reply.answers_start()) {
        let section = starts.iter().fold(1, |section, start| section + usize::from(record.start >= *start));
        let address = if section == 1 { ipv4(message, &record) } else { None };
        let is_dropped = record.rtype == RecordType::OPT
            || section == 1 && covers(message, &record, RecordType::A)
            || address.is_some_and(|address| !prefix.may_embed(address));
        if is_dropped || address.is_some() {
            fixed.get_or_insert(record.start);
        }
        if is_dropped {
            continue;
        }
        append_record(message, &record, unmoved(message, fixed.unwrap_or(record.start)), out);
        if out.get(record.start..) != message.get(record.start..record.end) {
            fixed.get_or_insert(record.start);
        }
        if let Some(address) = address {
            widen(prefix.embed(address), max_ttl, out);
        }
        if let Some(count) = counts.get_mut(section) {
            *count += 1;
        }
    }
    if let Some(opt) = reply.opt() {
        out.extend_from_slice(message.get(opt.start..opt.end).unwrap_or_default());
        counts[3] += 1;
    }
    let header = reply.header().with(Flag::Authoritative, false).with(Flag::AuthenticData, false);
    header.with(Flag::RecursionAvailable, true).with_counts(counts).overwrite(out);
}

/// Makes an AAAA record of the A record at the end of the message.
fn widen(address: Ipv6Addr, max_ttl: u32, out: &mut Vec<u8>) {
    let rdata = out.len().saturating_sub(4);
    out.truncate(rdata);
    let fixed = rdata.checked_sub(10).and_then(|at| out.get_mut(at..)?.first_chunk_mut::<8>());
    if let Some([t0, t1, _, _, ttl @ ..]) = fixed {
        [*t0, *t1] = RecordType::AAAA.0.to_be_bytes();
        *ttl = u32::from_be_bytes(*ttl).min(max_ttl).to_be_bytes();
    }
    out.extend_from_slice(&address.octets());
    set_length(out, rdata, 16);
}

fn ipv4(message: &[u8], record: &RecordBounds) -> Option<Ipv4Addr> {
    let class = message.get(record.owner_end + 2..record.owner_end + 4)?;
    let octets: [u8; 4] = message.get(record.rdata..record.end)?.try_into().ok()?;
    (record.rtype == RecordType::A && class == RecordClass::IN.0.to_be_bytes()).then(|| octets.into())
}

/// Returns true if a record signs an RRset of this type.
fn covers(message: &[u8], record: &RecordBounds, rtype: RecordType) -> bool {
    record.rtype == RecordType::RRSIG && message.get(record.rdata..record.rdata + 2) == Some(&rtype.0.to_be_bytes())
}

/// The byte of bits 64 to 71.
const RESERVED: usize = 8;

const NIBBLES: usize = 32;

const TTL_WITHOUT_SOA: u32 = 600;

/// 64:ff9b::/96 (RFC 6052 section 2.1).
const WELL_KNOWN: Dns64Prefix =
    Dns64Prefix { octets: [0, 0x64, 0xFF, 0x9B, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], len: 12 };

#[cfg(test)]
mod tests {
    use super::super::reply::read_reply;
    use super::super::sample::{EXAMPLE, QUESTION, REPLY, WWW, a, message, opt, record};
    use super::*;

    fn prefix(text: &str) -> Dns64Prefix {
        text.parse().expect("a prefix")
    }

    #[test]
    fn addresses_are_embedded_as_in_rfc_6052() {
        // RFC 6052 section 2.4.
        for (text, expected) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ] {
            let (prefix, address) = (prefix(text), Ipv4Addr::new(192, 0, 2, 33));
            let embedded = prefix.embed(address);
            assert_eq!(embedded, expected.parse::<Ipv6Addr>().expect("an address"), "{text}");
            assert_eq!((prefix.extract(embedded), prefix.to_string()), (Some(address), text.to_owned()));
        }
        let well_known = prefix("64:ff9b::/96");
        assert_eq!(well_known.extract("64:ff9c::1".parse().expect("an address")), None);
        let reserved = "2001:db8:122:344:100::".parse().expect("an address");
        assert_eq!(prefix("2001:db8:122:344::/64").extract(reserved), None);
        for wrong in [
            "",
            "64:ff9b::",
            "64:ff9b::/95",
            "64:ff9b::1/96",
            "1.2.3.4/32",
            "2001:db8:1:1::/32",
            "2001:db8:0:0:100::/96",
            "::/+96",
        ] {
            assert_eq!(wrong.parse::<Dns64Prefix>(), Err(NoDns64Prefix), "{wrong}");
        }
    }

    #[test]
    fn reverse_names_of_the_prefix_lead_to_those_of_ipv4() {
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let of = |qname: &str| prefix("64:ff9b::/96").reverse(name(qname).as_wire()).map(|name| name.to_string());
        let zeros = "0.".repeat(16);
        let full = format!("1.2.2.0.0.0.0.C.{zeros}b.9.f.f.4.6.0.0");
        assert_eq!(of(&format!("{full}.IP6.arpa")).as_deref(), Some("33.2.0.192.in-addr.arpa."));
        for other in [
            format!("{full}.ip6.example"),
            format!("{full}.ip6.arpa.x"),
            format!("x.{full}.ip6.arpa"),
            format!("{}.ip6.arpa", &full[2..]),
        ] {
            assert_eq!(of(&other), None, "{other}");
        }
        assert_eq!(of(&format!("1.2.2.0.0.0.0.c.{zeros}c.9.f.f.4.6.0.0.ip6.arpa")), None, "another prefix");
        assert_eq!(of("ip6.arpa"), None);
    }

    fn aaaa(address: &str) -> Vec<u8> {
        record(WWW, RecordType::AAAA, &address.parse::<Ipv6Addr>().expect("an address").octets())
    }

    fn lasting(mut record: Vec<u8>, owner_len: usize, ttl: u32) -> Vec<u8> {
        record[owner_len + 4..owner_len + 8].copy_from_slice(&ttl.to_be_bytes());
        record
    }

    #[test]
    fn replies_for_ipv6_have_addresses_or_a_bound_of_the_ttl() {
        let check = |bits: u16, counts: [u16; 4], parts: &[&[u8]], expected: Ipv6Answer| {
            let octets = message(REPLY | bits, counts, &[&[QUESTION], parts].concat());
            assert_eq!(Ipv6Answer::of(&read_reply(&octets).expect("a reply")), expected, "{parts:?}");
        };
        let (good, mapped) = (&aaaa("2001:db8::1")[..], &aaaa("::ffff:192.0.2.1")[..]);
        let soa = &lasting(record(EXAMPLE, RecordType::SOA, &[0; 22]), EXAMPLE.len(), 90)[..];
        check(0, [1, 1, 0, 0], &[good], Ipv6Answer::Whole);
        check(0, [1, 2, 0, 0], &[mapped, good], Ipv6Answer::Mixed);
        check(0, [1, 1, 0, 0], &[mapped], Ipv6Answer::None { ttl: 600 });
        check(0, [1, 0, 1, 0], &[soa], Ipv6Answer::None { ttl: 90 });
        check(0x0200, [1, 0, 0, 0], &[], Ipv6Answer::Whole);
        check(3, [1, 0, 1, 0], &[soa], Ipv6Answer::Whole);
        check(2, [1, 0, 0, 0], &[], Ipv6Answer::None { ttl: 600 });
        let alias = &record(WWW, RecordType::CNAME, EXAMPLE)[..];
        check(0, [1, 1, 1, 0], &[alias, soa], Ipv6Answer::None { ttl: 90 });
    }

    #[test]
    fn addresses_are_made_of_those_of_ipv4_and_the_rest_stays() {
        let question = [&QUESTION[..QUESTION.len() - 4], &[0, 28, 0, 1]].concat();
        let alias = record(WWW, RecordType::CNAME, EXAMPLE);
        let at_example = |address: [u8; 4], ttl| lasting(record(EXAMPLE, RecordType::A, &address), EXAMPLE.len(), ttl);
        let signature = |covered: u8| record(EXAMPLE, RecordType::RRSIG, &[&[0, covered][..], &[7; 20]].concat());
        let ns = record(EXAMPLE, RecordType::NS, WWW);
        let glue = a(WWW);
        let edns = opt(0, 0, b"\0\x03\0\x01x");
        let parts: [&[u8]; 9] = [
            QUESTION,
            &alias,
            &at_example([192, 0, 2, 33], 300),
            &at_example([10, 0, 0, 1], 300),
            &signature(1),
            &signature(5),
            &ns,
            &glue,
            &edns,
        ];
        let octets = message(REPLY | 0x0420, [1, 5, 1, 2], &parts);
        let mut out = b"left over".to_vec();
        write_dns64(&question, &read_reply(&octets).expect("a reply"), &prefix("64:ff9b::/96"), 90, &mut out);
        let made = prefix("64:ff9b::/96").embed(Ipv4Addr::new(192, 0, 2, 33)).octets();
        let made = lasting(record(EXAMPLE, RecordType::AAAA, &made), EXAMPLE.len(), 90);
        let expected = [&question, &alias, &made, &signature(5), &ns, &glue, &edns[..]];
        assert_eq!(out, message(REPLY | 0x80, [1, 3, 1, 2], &expected));
    }

    #[test]
    fn a_pointer_behind_the_addresses_still_leads_to_its_name() {
        // The owner of the first address is written out; that of the second points to it.
        let owner = b"\x01x\xC0\x10";
        let octets = message(REPLY, [1, 2, 0, 0], &[QUESTION, &a(owner), &a(&[0xC0, RECORDS_AT])]);
        let question = [&QUESTION[..QUESTION.len() - 4], &[0, 28, 0, 1]].concat();
        let mut out = Vec::new();
        write_dns64(&question, &read_reply(&octets).expect("a reply"), &prefix("2001:db8::/96"), 1, &mut out);
        let owners =
            records(&out, usize::from(RECORDS_AT)).map(|record| super::super::body::read_name(&out, record.start));
        assert!(owners.map(|owner| owner.expect("a name").to_string()).all(|owner| owner == "x.Example.org."));
    }

    const RECORDS_AT: u8 = (HEADER_LEN + QUESTION.len()) as u8;

    #[test]
    fn mapped_addresses_are_left_out() {
        let (good, mapped) = (&aaaa("2001:db8::1")[..], &aaaa("::ffff:192.0.2.1")[..]);
        let octets = message(REPLY, [1, 2, 0, 0], &[QUESTION, mapped, good]);
        let mut out = Vec::new();
        write_without_mapped(&read_reply(&octets).expect("a reply"), &mut out);
        assert_eq!(out, message(REPLY, [1, 1, 0, 0], &[QUESTION, good]));
    }
}
