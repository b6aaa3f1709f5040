//! What is told of clients and names: the one place where it is cut, before anything is appended to a buffer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::record::Address;
use crate::config::{ClientDetail, NameDetail};

/// A client as it may be told.
pub(super) fn cut_client(detail: ClientDetail, client: IpAddr) -> Option<Address> {
    match (detail, client.to_canonical()) {
        (ClientDetail::None, _) => None,
        (ClientDetail::Full, ip) => Some(Address { ip, prefix: None }),
        (ClientDetail::Prefix, IpAddr::V4(ip)) => {
            let ip = Ipv4Addr::from_bits(ip.to_bits() & !0 << (32 - IPV4_PREFIX));
            Some(Address { ip: ip.into(), prefix: Some(IPV4_PREFIX) })
        }
        (ClientDetail::Prefix, IpAddr::V6(ip)) => {
            let ip = Ipv6Addr::from_bits(ip.to_bits() & !0 << (128 - IPV6_PREFIX));
            Some(Address { ip: ip.into(), prefix: Some(IPV6_PREFIX) })
        }
    }
}

/// A name in wire form as it may be told.
pub(super) fn cut_name(detail: NameDetail, qname: &[u8]) -> &[u8] {
    match detail {
        NameDetail::Full => qname,
        NameDetail::Parent => match qname.split_first() {
            Some((&len, rest)) if len > 0 => rest.get(usize::from(len)..).unwrap_or_default(),
            // The root has no label to leave out.
            Some(_) | None => qname,
        },
        NameDetail::None => &[],
    }
}

/// A name in text, octets that are no plain text escaped as in master files, as it may be told.
pub(super) fn cut_name_text(detail: NameDetail, name: &str) -> &str {
    match detail {
        NameDetail::Full => name,
        NameDetail::Parent => {
            let mut is_escaped = false;
            let is_end = |c: char| {
                let is_dot = c == '.' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                is_dot
            };
            match name.split_once(is_end) {
                Some((_, "")) => ".",
                Some((_, parent)) => parent,
                None => "",
            }
        }
        NameDetail::None => "",
    }
}

/// A site of many hosts.
const IPV4_PREFIX: u8 = 24;

/// The same: sites get a /56 or a /48.
const IPV6_PREFIX: u8 = 56;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_cut() {
        let check = |detail, client: &str, expected: Option<(&str, Option<u8>)>| {
            let cut = cut_client(detail, client.parse().expect("an address"));
            assert_eq!(cut.map(|cut| (cut.ip.to_string(), cut.prefix)), expected.map(|(ip, len)| (ip.to_owned(), len)));
        };
        check(ClientDetail::Full, "192.0.2.255", Some(("192.0.2.255", None)));
        check(ClientDetail::Full, "::ffff:192.0.2.255", Some(("192.0.2.255", None)));
        check(ClientDetail::Prefix, "192.0.2.255", Some(("192.0.2.0", Some(24))));
        check(ClientDetail::Prefix, "::ffff:192.0.2.255", Some(("192.0.2.0", Some(24))));
        check(ClientDetail::Prefix, "2001:db8:1:23ff::1", Some(("2001:db8:1:2300::", Some(56))));
        check(ClientDetail::None, "192.0.2.255", None);
    }

    #[test]
    fn names_are_cut() {
        let www = &b"\x03www\x07example\0"[..];
        for (detail, name, expected) in [
            (NameDetail::Full, www, www),
            (NameDetail::Parent, www, b"\x07example\0"),
            (NameDetail::Parent, b"\x07example\0", b"\0"),
            (NameDetail::Parent, b"\0", b"\0"),
            (NameDetail::Parent, b"", b""),
            (NameDetail::Parent, b"\x09short", b""),
            (NameDetail::None, www, b""),
        ] {
            assert_eq!(cut_name(detail, name), expected, "{detail:?} {name:?}");
        }
    }

    #[test]
    fn names_in_text_are_cut() {
        for (detail, name, expected) in [
            (NameDetail::Full, "www.example.", "www.example."),
            (NameDetail::Parent, "www.example.", "example."),
            (NameDetail::Parent, "a\\.b\\\\.example.", "example."),
            (NameDetail::Parent, "\\046a.example.", "example."),
            (NameDetail::Parent, "example.", "."),
            (NameDetail::Parent, ".", "."),
            (NameDetail::Parent, "short", ""),
            (NameDetail::None, "www.example.", ""),
        ] {
            assert_eq!(cut_name_text(detail, name), expected, "{detail:?} {name:?}");
        }
    }
}
