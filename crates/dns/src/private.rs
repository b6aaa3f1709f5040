//! Replies without the addresses of private networks, so that a name on the Internet cannot lead a browser to
//! a host of the client's own network (DNS rebinding).

use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::fast::FixedState;

use super::body::{RecordBounds, hash_name, records};
use super::codes::{ExtendedError, OptionCode, RecordClass, RecordType};
use super::edns::{OPT_FIXED_LEN, OptRecord, append_option, set_rest_length};
use super::expand::{append_record, unmoved};
use super::header::Flag;
use super::relay::MAX_MESSAGE;
use super::reply::{Reply, read_reply};

/// Returns true if an address is not of the Internet: unspecified, loopback, private, shared (CGNAT),
/// link-local or unique local, also as an IPv6 address that maps such an IPv4 address.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            // RFC 1122 section 3.2.1.3 has 0/8, RFC 6598 section 7 has 100.64/10.
            first == 0
                || first == 100 && second & 0xC0 == 64
                || address.is_loopback()
                || address.is_private()
                || address.is_link_local()
        }
        IpAddr::V6(address) => {
            address.is_unspecified()
                || address.is_loopback()
                || address.is_unique_local()
                || address.is_unicast_link_local()
        }
    }
}

/// Writes a reply into `out` without A, AAAA, HTTPS and SVCB records that have a private address, and without
/// the RRSIG records of their RRsets; AD is clear. Returns `None` if the reply has no such record. If only
/// aliases are left of the answer, the result is NODATA with the error 17 (Filtered).
pub fn without_private<'m>(reply: &Reply<'_>, out: &'m mut Vec<u8>) -> Option<Reply<'m>> {
    let message = reply.as_wire();
    let all = || records(message, reply.answers_start());
    let mut removed: Vec<u64> =
        all().filter(|record| is_removed(message, record)).map(|r| key(message, &r, r.rtype)).collect();
    if removed.is_empty() {
        return None;
    }
    removed.sort_unstable();
    let is_kept = |record: &RecordBounds| {
        let covered = message.get(record.rdata..record.rdata + 2).and_then(|octets| octets.first_chunk());
        let signs = covered
            .filter(|_| record.rtype == RecordType::RRSIG)
            .map(|covered| RecordType(u16::from_be_bytes(*covered)));
        let is_of_removed = |rtype| removed.binary_search(&key(message, record, rtype)).is_ok();
        !is_removed(message, record) && !signs.is_some_and(is_of_removed)
    };
    let is_data =
        |record: &RecordBounds| !matches!(record.rtype, RecordType::CNAME | RecordType::DNAME | RecordType::RRSIG);
    let had_data = reply.answers().any(|record| is_data(&record));
    let has_data = reply.answers().any(|record| is_data(&record) && is_kept(&record));
    write_kept(reply, had_data && !has_data, is_kept, out);
    if out.len() > MAX_MESSAGE || read_reply(out).is_err() {
        // Names may be longer without compression. Nothing of the reply is better than a private address.
        write_kept(reply, true, |_| false, out);
    }
    read_reply(out).ok()
}

/// Writes a reply without some records and with AD clear. If its answer is emptied, it is NODATA with the
/// error 17 (Filtered).
pub(super) fn write_kept(
    reply: &Reply<'_>,
    is_emptied: bool,
    is_kept: impl Fn(&RecordBounds) -> bool,
    out: &mut Vec<u8>,
) {
    let message = reply.as_wire();
    let mut counts = [reply.header().qdcount(), 0, 0, 0];
    out.clear();
    out.extend_from_slice(message.get(..reply.answers_start()).unwrap_or_default());
    let mut fixed = None;
    for record in records(message, reply.answers_start()) {
        let section = section_of(reply, &record);
        // NS records that lose their answer would make it a referral.
        if record.rtype == RecordType::OPT || !is_kept(&record) || section > 1 && is_emptied {
            fixed.get_or_insert(record.start);
            continue;
        }
        append_record(message, &record, unmoved(message, fixed.unwrap_or(record.start)), out);
        // A name that leads into its own record is expanded, and moves what follows.
        if out.get(record.start..) != message.get(record.start..record.end) {
            fixed.get_or_insert(record.start);
        }
        if let Some(count) = counts.get_mut(section) {
            *count += 1;
        }
    }
    if reply.edns().is_some() || is_emptied {
        append_opt(reply, is_emptied, out);
        counts[3] += 1;
    }
    reply.header().with(Flag::AuthenticData, false).with_counts(counts).overwrite(out);
}

/// Returns the number of a record's section: 1 is the answer section.
fn section_of(reply: &Reply<'_>, record: &RecordBounds) -> usize {
    [reply.authority_start(), reply.additional_start()]
        .into_iter()
        .fold(1, |section, start| section + usize::from(record.start >= start))
}

fn append_opt(reply: &Reply<'_>, is_filtered: bool, out: &mut Vec<u8>) {
    let start = out.len();
    match reply.opt() {
        Some(opt) => out.extend_from_slice(reply.as_wire().get(opt.start..opt.end).unwrap_or_default()),
        None => OptRecord::new(0, false).append(out),
    }
    if is_filtered {
        append_option(OptionCode::EXTENDED_ERROR, &ExtendedError::FILTERED.0.to_be_bytes(), out);
        set_rest_length(out, start + OPT_FIXED_LEN);
    }
}

fn is_removed(message: &[u8], record: &RecordBounds) -> bool {
    let rdata = message.get(record.rdata..record.end).unwrap_or_default();
    let is_internet = message.get(record.owner_end + 2..record.owner_end + 4) == Some(&RecordClass::IN.0.to_be_bytes());
    is_internet
        && match record.rtype {
            RecordType::A => has_private::<4>(rdata),
            RecordType::AAAA => has_private::<16>(rdata),
            RecordType::HTTPS | RecordType::SVCB => has_private_hint(rdata).unwrap_or_default(),
            _ => false,
        }
}

fn has_private<const N: usize>(addresses: &[u8]) -> bool
where
    [u8; N]: AsAddress,
{
    addresses.as_chunks::<N>().0.iter().any(|octets| is_private(octets.as_address()))
}

/// Returns true if a parameter of an HTTPS or SVCB record has a private address; `None` if the data does not
/// match the type (RFC 9460 section 2.2).
fn has_private_hint(rdata: &[u8]) -> Option<bool> {
    let mut rest = rdata.get(2..)?;
    loop {
        let (&length, behind) = rest.split_first()?;
        rest = behind.get(usize::from(length)..)?;
        if length == 0 {
            break;
        }
    }
    while let Some((&[k0, k1, l0, l1], behind)) = rest.split_first_chunk() {
        let (value, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
        let is_private = match u16::from_be_bytes([k0, k1]) {
            IPV4_HINT => has_private::<4>(value),
            IPV6_HINT => has_private::<16>(value),
            _ => false,
        };
        if is_private {
            return Some(true);
        }
        rest = behind;
    }
    Some(false)
}

trait AsAddress {
    fn as_address(&self) -> IpAddr;
}

impl AsAddress for [u8; 4] {
    fn as_address(&self) -> IpAddr {
        Ipv4Addr::from(*self).into()
    }
}

impl AsAddress for [u8; 16] {
    fn as_address(&self) -> IpAddr {
        Ipv6Addr::from(*self).into()
    }
}

/// Hashes the owner of a record with a type. Two RRsets that collide only cost the other one its RRSIG.
fn key(message: &[u8], record: &RecordBounds, rtype: RecordType) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hash_name(message, record.start, &mut hasher);
    hasher.write_u16(rtype.0);
    hasher.finish()
}

/// SvcParamKeys (RFC 9460 section 14.3.2).
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;

#[cfg(test)]
mod tests {
    use super::super::codes::Rcode;
    use super::super::sample::{EXAMPLE, QUESTION, REPLY, WWW, message, opt, record};
    use super::*;

    const AD: u16 = 0x20;

    fn filtered(parts: &[&[u8]], counts: [u16; 4]) -> Option<Vec<u8>> {
        let octets = message(REPLY | AD, counts, &[&[QUESTION], parts].concat());
        let mut out = b"left over".to_vec();
        without_private(&read_reply(&octets).expect("a reply"), &mut out).map(|reply| reply.as_wire().to_vec())
    }

    fn address(text: &str, owner: &[u8]) -> Vec<u8> {
        match text.parse().expect("an address") {
            IpAddr::V4(address) => record(owner, RecordType::A, &address.octets()),
            IpAddr::V6(address) => record(owner, RecordType::AAAA, &address.octets()),
        }
    }

    const FILTERED: &[u8] = b"\0\x0F\0\x02\0\x11";

    #[test]
    fn private_addresses_are_those_of_no_public_network() {
        let private = [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "::",
            "::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
        ];
        let public = [
            "1.1.1.1",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.0",
            "128.0.0.1",
            "169.253.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.2.1",
            "192.167.0.1",
            "192.169.0.1",
            "::2",
            "2001:db8::1",
            "fbff::1",
            "fec0::1",
            "::ffff:192.0.2.1",
        ];
        for (texts, expected) in [(&private[..], true), (&public[..], false)] {
            for text in texts {
                assert_eq!(is_private(text.parse().expect("an address")), expected, "{text}");
                let kept = address("2001:db8::7", WWW);
                assert_eq!(filtered(&[&address(text, WWW), &kept], [1, 2, 0, 0]).is_some(), expected, "{text}");
            }
        }
    }

    #[test]
    fn records_are_removed_with_their_signatures_and_the_rest_stays() {
        let signature = |owner: &[u8], covered: u16| {
            record(owner, RecordType::RRSIG, &[&covered.to_be_bytes()[..], &[7; 20]].concat())
        };
        let alias = record(WWW, RecordType::CNAME, EXAMPLE);
        let (bad, good) = (address("10.0.0.1", EXAMPLE), address("192.0.2.1", EXAMPLE));
        let ns = record(EXAMPLE, RecordType::NS, WWW);
        let parts: [&[u8]; 8] = [
            &alias,
            &signature(WWW, 5),
            &bad,
            &good,
            &signature(EXAMPLE, 1),
            &signature(EXAMPLE, 28),
            &ns,
            &opt(0, 0, b"\0\x03\0\x01x"),
        ];
        let expected =
            message(REPLY, [1, 4, 1, 1], &[QUESTION, parts[0], parts[1], parts[3], parts[5], parts[6], parts[7]]);
        assert_eq!(filtered(&parts, [1, 6, 1, 1]), Some(expected));
        // Glue is removed, and the answer stays.
        let parts: [&[u8]; 3] = [&good, &ns, &address("fd00::1", WWW)];
        assert_eq!(filtered(&parts, [1, 1, 1, 1]), Some(message(REPLY, [1, 1, 1, 0], &[QUESTION, parts[0], parts[1]])));
    }

    #[test]
    fn an_answer_of_which_nothing_is_left_is_nodata_with_the_reason() {
        let bad = address("192.168.1.1", WWW);
        let ns = record(EXAMPLE, RecordType::NS, WWW);
        let empty_opt = opt(0, 0, FILTERED);
        let mut ours = empty_opt.clone();
        ours[3..5].copy_from_slice(&[0, 0]);
        ours[7] = 0;
        let check = |parts: &[&[u8]], counts, expected: &[&[u8]], left: [u16; 4]| {
            let octets = filtered(parts, counts).expect("a private address");
            assert_eq!(octets, message(REPLY, left, &[&[QUESTION], expected].concat()));
            let reply = read_reply(&octets).expect("a reply");
            assert!(!reply.is_referral() && reply.rcode() == Rcode::NOERROR);
        };
        check(&[&bad], [1, 1, 0, 0], &[&ours], [1, 0, 0, 1]);
        check(&[&bad, &ns, &opt(0, 0, b"")], [1, 1, 1, 1], &[&empty_opt], [1, 0, 0, 1]);
        let alias = record(WWW, RecordType::CNAME, EXAMPLE);
        check(&[&alias, &address("::1", EXAMPLE), &opt(0, 0, b"")], [1, 2, 0, 1], &[&alias, &empty_opt], [1, 1, 0, 1]);
    }

    #[test]
    fn referrals_and_negative_answers_lose_glue_only() {
        let ns = record(EXAMPLE, RecordType::NS, WWW);
        let glue = address("10.0.0.1", WWW);
        let expected = message(REPLY, [1, 0, 1, 0], &[QUESTION, &ns]);
        assert_eq!(filtered(&[&ns, &glue], [1, 0, 1, 1]), Some(expected));
    }

    #[test]
    fn names_behind_a_removed_record_are_written_out() {
        // The alias points into the removed record's owner, which is not in the question.
        let owner = b"\x01x\xC0\x10";
        let bad = address("10.0.0.1", owner);
        let pointer = [0xC0, 33];
        let good = address("192.0.2.1", &pointer);
        let expected = message(REPLY, [1, 1, 0, 0], &[QUESTION, &address("192.0.2.1", owner)]);
        assert_eq!(filtered(&[&bad, &good], [1, 2, 0, 0]), Some(expected));
    }

    #[test]
    fn hints_of_services_count() {
        let service = |parameters: &[u8]| record(WWW, RecordType::HTTPS, &[b"\0\x01\x03foo\0", parameters].concat());
        let check = |parameters: &[u8], is_private: bool| {
            assert_eq!(filtered(&[&service(parameters)], [1, 1, 0, 0]).is_some(), is_private, "{parameters:?}");
        };
        check(b"", false);
        check(b"\0\x01\0\x03\x02h2", false);
        check(b"\0\x04\0\x04\xC0\0\x02\x01", false);
        check(b"\0\x04\0\x08\xC0\0\x02\x01\x0A\0\0\x01", true);
        check(b"\0\x01\0\x03\x02h2\0\x06\0\x10\xFD\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01", true);
        check(b"\0\x04\0\x09\x0A\0\0\x01", false);
    }
}
