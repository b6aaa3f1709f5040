//! The CLIENT-SUBNET option (RFC 7871): the network of a client, for servers whose answers depend on it.

use std::net::IpAddr;

use super::codes::OptionCode;
use super::edns::{Edns, OPT_FIXED_LEN, append_option, set_rest_length};
use super::hop::add_opt;
use super::private::is_private;
use super::query::MIN_LIMIT;
use super::reply::read_reply;

/// The network in a CLIENT-SUBNET option: family, SOURCE PREFIX-LENGTH and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientSubnet {
    family: u16,
    source: u8,
    /// The address with zeros behind the prefix; an IPv4 address is in the first four bytes.
    address: [u8; 16],
}

/// The error for an option that does not follow RFC 7871 section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedClientSubnet;

impl ClientSubnet {
    /// Makes the network of an address: so many bits of an IPv4 or of an IPv6 address.
    pub fn of_address(address: IpAddr, ipv4: u8, ipv6: u8) -> Self {
        let mut octets = [0; 16];
        let (family, source) = match address.to_canonical() {
            IpAddr::V4(address) => {
                octets[..4].copy_from_slice(&address.octets());
                (IPV4, ipv4)
            }
            IpAddr::V6(address) => {
                octets = address.octets();
                (IPV6, ipv6)
            }
        };
        Self { family, source, address: octets }.cut(source)
    }

    /// Reads the option of a query.
    ///
    /// # Errors
    /// The option is malformed, which FORMERR answers (RFC 7871 section 7.2.1).
    pub fn of_query(edns: &Edns<'_>) -> Result<Option<Self>, MalformedClientSubnet> {
        let Some(data) = option(edns) else { return Ok(None) };
        let (subnet, scope) = Self::read(data).ok_or(MalformedClientSubnet)?;
        // RFC 7871 section 6: SCOPE PREFIX-LENGTH is 0 in queries, and so are the bits behind the prefix.
        let is_exact = scope == 0 && data.get(FIXED_LEN..) == subnet.address.get(..subnet.octets());
        if is_exact { Ok(Some(subnet)) } else { Err(MalformedClientSubnet) }
    }

    /// Reads the option of a reply, with its SCOPE PREFIX-LENGTH.
    ///
    /// # Errors
    /// The option is malformed.
    pub fn of_reply(edns: Option<&Edns<'_>>) -> Result<Option<(Self, u8)>, MalformedClientSubnet> {
        let data = edns.and_then(option);
        data.map(|data| Self::read(data).ok_or(MalformedClientSubnet)).transpose()
    }

    fn read(data: &[u8]) -> Option<(Self, u8)> {
        let (&[f0, f1, source, scope], octets) = data.split_first_chunk()?;
        let family = u16::from_be_bytes([f0, f1]);
        let most = match family {
            IPV4 => 32,
            IPV6 => 128,
            // Some clients ask for privacy without a family.
            0 => 0,
            _ => return None,
        };
        let mut subnet = Self { family, source, address: [0; 16] };
        if source > most || octets.len() != subnet.octets() {
            return None;
        }
        subnet.address.get_mut(..octets.len())?.copy_from_slice(octets);
        Some((subnet.cut(source), scope))
    }

    /// Returns the SOURCE PREFIX-LENGTH. 0 is a client's wish that its address stays private.
    pub fn source(&self) -> u8 {
        self.source
    }

    /// Returns true if the network is of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.family == IPV6
    }

    /// Returns true if the network is none of the Internet.
    pub fn is_private(&self) -> bool {
        let [a, b, c, d, ..] = self.address;
        is_private(if self.is_ipv6() { self.address.into() } else { [a, b, c, d].into() })
    }

    /// Returns the network with at most so many bits.
    pub fn cut(self, length: u8) -> Self {
        let source = self.source.min(length);
        let mask = u128::MAX.checked_shl(128 - u32::from(source)).unwrap_or_default();
        Self { source, address: (u128::from_be_bytes(self.address) & mask).to_be_bytes(), ..self }
    }

    /// Returns true if the option of a reply repeats this one of the query (RFC 7871 section 7.3).
    pub fn is_repeated_by(&self, reply: &Self) -> bool {
        self == reply || self.source == 0 && reply.source == 0
    }

    /// Returns the length of the option in bytes.
    pub fn wire_len(&self) -> usize {
        4 + FIXED_LEN + self.octets()
    }

    fn octets(&self) -> usize {
        usize::from(self.source).div_ceil(8)
    }

    fn append(&self, scope: u8, out: &mut Vec<u8>) {
        let [f0, f1] = self.family.to_be_bytes();
        let mut data = [f0, f1, self.source, scope, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        data[FIXED_LEN..].copy_from_slice(&self.address);
        append_option(OptionCode::CLIENT_SUBNET, data.get(..FIXED_LEN + self.octets()).unwrap_or_default(), out);
    }
}

fn option<'a>(edns: &Edns<'a>) -> Option<&'a [u8]> {
    edns.iter_options().find(|(code, _)| *code == OptionCode::CLIENT_SUBNET).map(|(_, data)| data)
}

/// Adds the option to a query to a backend, whose OPT record is the last, at `opt_at`, or is added if that is
/// the end. If the message would then lack room for a cookie, it loses the other options of the client.
pub fn add_client_subnet(query: &mut Vec<u8>, opt_at: usize, subnet: &ClientSubnet, own_udp_size: u16) {
    add_opt(query, opt_at, own_udp_size);
    let options = opt_at + OPT_FIXED_LEN;
    if query.len() + subnet.wire_len() + COOKIE_ROOM > usize::from(own_udp_size).max(MIN_LIMIT) {
        query.truncate(options);
    }
    subnet.append(0, query);
    set_rest_length(query, options);
}

/// Adds the option to the OPT record at the end of a response to a client, which sent this network.
pub fn give_client_subnet(response: &mut Vec<u8>, subnet: &ClientSubnet, scope: u8) {
    let opt = read_reply(response).ok().and_then(|reply| reply.opt().map(|opt| (opt.start, opt.end)));
    let Some((start, _)) = opt.filter(|(_, end)| *end == response.len()) else { return };
    // RFC 7871 section 7.2.1: the scope is 0 in a response to a query without a prefix.
    subnet.append(if subnet.source == 0 { 0 } else { scope }, response);
    set_rest_length(response, start + OPT_FIXED_LEN);
}

const IPV4: u16 = 1;
const IPV6: u16 = 2;

/// Family and prefix lengths.
const FIXED_LEN: usize = 4;

/// The longest COOKIE option (RFC 7873 section 4), and the options without data that hedgerow adds.
const COOKIE_ROOM: usize = 4 + 40 + 2 * 4;

#[cfg(test)]
mod tests {
    use super::super::query::{read_query, write_query};
    use super::super::sample::{QUESTION, message, opt};
    use super::*;

    fn edns(options: &[u8]) -> Edns<'_> {
        Edns { udp_size: 1232, extended_rcode: 0, version: 0, dnssec_ok: false, options }
    }

    fn of(address: &str, length: u8) -> ClientSubnet {
        ClientSubnet::of_address(address.parse().expect("an address"), length, length)
    }

    #[test]
    fn options_of_queries_are_read_or_malformed() {
        let check = |option: &[u8], expected: Result<ClientSubnet, ()>| {
            let options = [&[0, 8, 0, option.len() as u8], option].concat();
            let read = ClientSubnet::of_query(&edns(&options)).map_err(drop).map(|subnet| subnet.expect("an option"));
            assert_eq!(read, expected, "{option:?}");
        };
        check(b"\0\x01\x18\0\xC0\0\x02", Ok(of("192.0.2.7", 24)));
        check(b"\0\x01\x20\0\xC0\0\x02\x07", Ok(of("192.0.2.7", 32)));
        check(b"\0\x01\x11\0\xC0\0\x80", Ok(of("192.0.255.7", 17)));
        check(b"\0\x02\x28\0\x20\x01\x0D\xB8\x01", Ok(of("2001:db8:1ff::", 40)));
        check(b"\0\x01\0\0", Ok(of("0.0.0.0", 0)));
        check(b"\0\0\0\0", Ok(ClientSubnet { family: 0, source: 0, address: [0; 16] }));
        for malformed in [
            &b""[..],
            b"\0\x01\x18",
            b"\0\x03\0\0",
            b"\0\0\x08\0\x01",
            b"\0\x01\x18\0\xC0\0",
            b"\0\x01\x18\0\xC0\0\x02\0",
            b"\0\x01\x21\0\xC0\0\x02\x01\0",
            b"\0\x01\x11\0\xC0\0\xC0",
            b"\0\x01\x18\x18\xC0\0\x02",
        ] {
            check(malformed, Err(()));
        }
        assert_eq!(ClientSubnet::of_query(&edns(b"\0\x03\0\0")), Ok(None));
    }

    #[test]
    fn replies_repeat_the_network_and_add_a_scope() {
        let sent = of("192.0.2.0", 24);
        let check = |option: &[u8], expected: Option<u8>| {
            let options = [&[0, 8, 0, option.len() as u8], option].concat();
            let read = ClientSubnet::of_reply(Some(&edns(&options))).ok().flatten();
            let scope = read.filter(|(subnet, _)| sent.is_repeated_by(subnet)).map(|(_, scope)| scope);
            assert_eq!(scope, expected, "{option:?}");
        };
        check(b"\0\x01\x18\x10\xC0\0\x02", Some(16));
        check(b"\0\x01\x18\x20\xC0\0\x02", Some(32));
        check(b"\0\x01\x18\x10\xC0\0\x03", None);
        check(b"\0\x01\x17\x10\xC0\0\x02", None);
        check(b"\0\x02\x18\x10\xC0\0\x02", None);
        check(b"\0\x01\x18\x10\xC0\0", None);
        assert_eq!(ClientSubnet::of_reply(Some(&edns(b""))), Ok(None));
        let private = of("0.0.0.0", 0);
        assert!(private.is_repeated_by(&ClientSubnet { family: 0, ..private }), "family does not matter");
    }

    #[test]
    fn networks_are_cut_and_known_as_private() {
        assert_eq!(of("192.0.2.255", 32).cut(25), of("192.0.2.128", 25));
        assert_eq!(of("192.0.2.255", 16).cut(24).source(), 16);
        assert_eq!(of("::ffff:192.0.2.1", 24), of("192.0.2.0", 24));
        assert_eq!(of("2001:db8::1", 128).cut(0), of("2001::", 0));
        for (network, is_private) in [("10.1.0.0", true), ("192.0.2.0", false), ("fd00::", true), ("2001:db8::", false)]
        {
            assert_eq!(of(network, 24).is_private(), is_private, "{network}");
        }
    }

    #[test]
    fn queries_get_the_option_last_and_stay_within_the_limit() {
        let write = |client: &[u8], own_udp_size| {
            let query = read_query(client).expect("a query");
            let mut out = Vec::new();
            let opt_at = write_query(&query, own_udp_size, &mut out);
            add_client_subnet(&mut out, opt_at, &of("192.0.2.1", 24), own_udp_size);
            assert!(out.len() + COOKIE_ROOM <= usize::from(own_udp_size));
            out
        };
        let header = |flags| message(flags, [1, 0, 0, 1], &[]);
        let option = b"\0\x08\0\x07\0\x01\x18\0\xC0\0\x02";
        let expected = |options: &[u8]| {
            let mut expected = [&header(0x0100)[..], QUESTION, &opt(0, 0, &[options, option].concat())].concat();
            expected[..2].copy_from_slice(&[0, 0]);
            expected[12 + QUESTION.len() + 3..][..2].copy_from_slice(&1232_u16.to_be_bytes());
            expected[12 + QUESTION.len() + 7] = 0;
            expected
        };
        assert_eq!(write(&message(0x0100, [1, 0, 0, 0], &[QUESTION]), 1232), expected(b""));
        // The client's own option does not pass by itself.
        let own = b"\0\x03\0\0\0\x08\0\x04\0\x01\0\0";
        let mut with_opt = message(0x0100, [1, 0, 0, 1], &[QUESTION, &opt(0, 0, own)]);
        with_opt[12 + QUESTION.len() + 7] = 0;
        assert_eq!(write(&with_opt, 1232), expected(b"\0\x03\0\0"));
        let long = [&[0xFD, 0xE9, 1, 0x9A][..], &[0; 410]].concat();
        let with_long = message(0x0100, [1, 0, 0, 1], &[QUESTION, &opt(0, 0, &long)]);
        assert!(write(&with_long, 512).len() < 100, "other options go");
    }

    #[test]
    fn responses_get_the_option_of_their_client_with_the_scope() {
        let check = |subnet: ClientSubnet, expected: &[u8]| {
            let error = b"\0\x0F\0\x02\0\x16";
            let mut response = message(0x8180, [1, 0, 0, 1], &[QUESTION, &opt(0, 0, error)]);
            give_client_subnet(&mut response, &subnet, 20);
            assert_eq!(response, message(0x8180, [1, 0, 0, 1], &[QUESTION, &opt(0, 0, &[error, expected].concat())]));
        };
        check(of("192.0.2.1", 32), b"\0\x08\0\x08\0\x01\x20\x14\xC0\0\x02\x01");
        check(of("0.0.0.0", 0), b"\0\x08\0\x04\0\x01\0\0");
        let mut without_opt = message(0x8180, [1, 0, 0, 0], &[QUESTION]);
        give_client_subnet(&mut without_opt, &of("192.0.2.1", 32), 20);
        assert_eq!(without_opt, message(0x8180, [1, 0, 0, 0], &[QUESTION]));
    }
}
