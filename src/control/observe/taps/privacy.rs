//! Privacy: the one place that cuts clients and names, before anything is appended to a buffer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::{ClientDetail, NameDetail};

/// A client, or its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CutAddress {
    pub(super) ip: IpAddr,
    pub(super) prefix: Option<u8>,
}

/// Returns the client as far as the config allows.
pub(super) fn cut_client(detail: ClientDetail, client: IpAddr) -> Option<CutAddress> {
    match (detail, client.to_canonical()) {
        (ClientDetail::None, _) => None,
        (ClientDetail::Full, ip) => Some(CutAddress { ip, prefix: None }),
        (ClientDetail::Prefix, IpAddr::V4(ip)) => {
            let ip = Ipv4Addr::from_bits(ip.to_bits() & !0 << (32 - IPV4_PREFIX));
            Some(CutAddress { ip: ip.into(), prefix: Some(IPV4_PREFIX) })
        }
        (ClientDetail::Prefix, IpAddr::V6(ip)) => {
            let ip = Ipv6Addr::from_bits(ip.to_bits() & !0 << (128 - IPV6_PREFIX));
            Some(CutAddress { ip: ip.into(), prefix: Some(IPV6_PREFIX) })
        }
    }
}

/// Returns the name in wire form as far as the config allows.
pub(super) fn cut_name(detail: NameDetail, qname: &[u8]) -> &[u8] {
    match detail {
        NameDetail::Full => qname,
        NameDetail::Parent => match qname.split_first() {
            Some((&len, rest)) if len > 0 => rest.get(usize::from(len)..).unwrap_or_default(),
            Some(_) | None => qname,
        },
        NameDetail::None => &[],
    }
}

/// Returns the name in text (escaped as in master files) as far as the config allows.
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

const IPV4_PREFIX: u8 = 24;

/// The prefix of a site, which gets a /56 or a /48.
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
