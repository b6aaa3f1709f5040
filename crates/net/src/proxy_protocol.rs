//! The PROXY protocol, version 2: a header in which a proxy names the client of a query or connection.
//!
//! A configured proxy must send the header first; from other addresses it is noise. The named address counts
//! as the client for policies; the response goes to the proxy.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwap;
use limit::{OwnAddresses, Prefix};
use proxy_header::{ParseConfig, ProxiedAddress, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The addresses from which a listener requires a header. A reload may change them.
#[derive(Debug, Default)]
pub struct Proxies {
    are_any: AtomicBool,
    rules: ArcSwap<(Vec<Prefix>, OwnAddresses)>,
}

impl Proxies {
    /// Replaces the prefixes. Proxies may not name an address in `own`.
    pub fn set(&self, prefixes: &[Prefix], own: OwnAddresses) {
        self.rules.store((prefixes.to_vec(), own).into());
        self.are_any.store(!prefixes.is_empty(), Relaxed);
    }

    /// Returns true if there are any proxies.
    pub fn are_any(&self) -> bool {
        self.are_any.load(Relaxed)
    }

    /// Returns true if `peer` is a proxy.
    pub(crate) fn has(&self, peer: IpAddr) -> bool {
        self.are_any() && self.rules.load().0.iter().any(|prefix| prefix.contains(peer))
    }

    /// Returns the client named by a proxy, or `None` if the proxy may not name it.
    pub(crate) fn client(&self, named: NamedClient, proxy: SocketAddr) -> Option<SocketAddr> {
        match named {
            NamedClient::Client(client) => self.rules.load().1.may_be_named(client.ip(), proxy.ip()).then_some(client),
            NamedClient::Unnamed => Some(proxy),
        }
    }

    /// Returns the client of a datagram and its message; `None` if a required header is missing or invalid,
    /// or names this host.
    pub fn unwrap<'d>(&self, peer: SocketAddr, datagram: &'d [u8]) -> Option<(SocketAddr, &'d [u8])> {
        if !self.has(peer.ip()) {
            return Some((peer, datagram));
        }
        let (named, message) = read_header(datagram)?;
        Some((self.client(named, peer)?, message))
    }
}

/// The client in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedClient {
    /// A client with this address.
    Client(SocketAddr),
    /// No client: the proxy sends its own query, or knows no address.
    Unnamed,
}

/// Reads the header of a datagram. Returns the named client and the rest, or `None` without a valid header.
pub fn read_header(datagram: &[u8]) -> Option<(NamedClient, &[u8])> {
    let (header, length) = ProxyHeader::parse(datagram, VERSION_2).ok()?;
    let named = header.proxied_address().map_or(NamedClient::Unnamed, |address| NamedClient::Client(address.source));
    Some((named, datagram.get(length..)?))
}

/// Reads exactly the header of a stream.
pub async fn receive_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<NamedClient> {
    let mut header = vec![0; FIXED];
    stream.read_exact(&mut header).await?;
    let rest = header.last_chunk().map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
    // Without the signature the length has no meaning.
    if !header.starts_with(SIGNATURE) || rest > MAX_REST {
        return Err(ErrorKind::InvalidData.into());
    }
    header.resize(FIXED + rest, 0);
    stream.read_exact(header.get_mut(FIXED..).unwrap_or_default()).await?;
    read_header(&header).map(|(named, _)| named).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// A header for a server that requires the client's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHeader {
    /// The named client; `None` for our own queries.
    pub client: Option<IpAddr>,
    /// The bytes of the header.
    pub octets: Vec<u8>,
}

impl ClientHeader {
    /// Creates a header that names a client and its destination address.
    pub fn new(client: Option<(SocketAddr, SocketAddr)>, is_stream: bool) -> Self {
        let mut octets = Vec::with_capacity(HEADER_SENT);
        append_header(client, is_stream, &mut octets);
        Self { client: client.map(|(client, _)| client.ip().to_canonical()), octets }
    }

    /// Creates a header for our own queries.
    pub fn own() -> Self {
        Self::new(None, false)
    }
}

fn append_header(client: Option<(SocketAddr, SocketAddr)>, is_stream: bool, out: &mut Vec<u8>) {
    let header = match client {
        Some((client, asked)) => {
            let (client, asked) = one_family(client, asked);
            ProxyHeader::with_address(match is_stream {
                true => ProxiedAddress::stream(client, asked),
                false => ProxiedAddress::datagram(client, asked),
            })
        }
        None => ProxyHeader::with_local(),
    };
    header.encode_v2(out).expect("a vector takes everything, and the addresses are of one family");
}

/// Maps both addresses to one family: IPv4 if both are IPv4 or IPv4-mapped, else IPv6.
fn one_family(client: SocketAddr, asked: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    match (canonical(client), canonical(asked)) {
        (client @ SocketAddr::V4(_), asked @ SocketAddr::V4(_)) => (client, asked),
        (client, asked) => (mapped(client), mapped(asked)),
    }
}

const VERSION_2: ParseConfig = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

const FIXED: usize = 16;

const HEADER_SENT: usize = FIXED + 36;

/// The limit of the variable part: addresses take at most 216 bytes, extensions (for TLS, for instance) some
/// hundred.
const MAX_REST: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header for this client, and the query behind it.
    fn datagram(client: Option<(&str, &str)>) -> Vec<u8> {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let mut octets = Vec::new();
        append_header(client.map(|(client, asked)| (address(client), address(asked))), false, &mut octets);
        octets.extend(b"query");
        octets
    }

    #[test]
    fn what_is_written_is_read() {
        for (client, asked, read) in [
            ("192.0.2.1:4000", "127.0.0.1:53", "192.0.2.1:4000"),
            ("[2001:db8::1]:4000", "[::1]:53", "[2001:db8::1]:4000"),
            ("[2001:db8::1]:4000", "127.0.0.1:53", "[2001:db8::1]:4000"),
            ("[::ffff:192.0.2.1]:4000", "127.0.0.1:53", "192.0.2.1:4000"),
            ("192.0.2.1:4000", "[::1]:53", "[::ffff:192.0.2.1]:4000"),
        ] {
            let octets = datagram(Some((client, asked)));
            let named = NamedClient::Client(read.parse().expect("an address"));
            assert_eq!(read_header(&octets), Some((named, &b"query"[..])), "{client} {asked}");
        }
        let (named, rest) = (datagram(None), b"query");
        assert_eq!(read_header(&named), Some((NamedClient::Unnamed, &rest[..])));
    }

    #[test]
    fn what_is_no_header_is_none() {
        let whole = datagram(Some(("192.0.2.1:4000", "127.0.0.1:53")));
        let mut version = whole.clone();
        version[12] = 0x31;
        let mut family = whole.clone();
        family[13] = 0x41;
        let mut short = whole.clone();
        short[15] = 4;
        let text = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nquery";
        for octets in [&b""[..], b"query", &whole[..27], &version, &family, &short, text] {
            assert_eq!(read_header(octets), None, "{octets:?}");
        }
    }

    #[tokio::test]
    async fn nothing_behind_a_header_is_read() {
        let whole = datagram(Some(("192.0.2.1:4000", "127.0.0.1:53")));
        let mut stream = &whole[..];
        let named = receive_header(&mut stream).await.expect("a header");
        assert_eq!(
            (named, stream),
            (NamedClient::Client("192.0.2.1:4000".parse().expect("an address")), &b"query"[..])
        );
        for bad in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefgh"[..], &whole[..20], b""] {
            assert!(receive_header(&mut &bad[..]).await.is_err(), "{bad:?}");
        }
        let mut long = whole.clone();
        long[14..16].copy_from_slice(&5000_u16.to_be_bytes());
        long.resize(6000, 0);
        assert!(receive_header(&mut &long[..]).await.is_err());
    }

    #[test]
    fn proxies_change_at_any_time() {
        let (proxies, ip) = (Proxies::default(), IpAddr::from([192, 0, 2, 1]));
        assert!(!proxies.are_any() && !proxies.has(ip));
        proxies.set(&["192.0.2.0/24".parse().expect("a prefix")], OwnAddresses::default());
        assert!(proxies.are_any() && proxies.has(ip) && !proxies.has([192, 0, 3, 1].into()));
        proxies.set(&[], OwnAddresses::default());
        assert!(!proxies.has(ip));
    }

    #[test]
    fn a_header_that_names_this_host_is_none() {
        let (proxies, proxy) = (Proxies::default(), "192.0.2.9:1".parse().expect("an address"));
        let own = OwnAddresses::new(["192.0.2.1:53".parse().expect("an address")]);
        proxies.set(&["192.0.2.0/24".parse().expect("a prefix")], own);
        for (client, is_taken) in [("198.51.100.7:4000", true), ("127.0.0.1:4000", false), ("192.0.2.1:4000", false)] {
            let octets = datagram(Some((client, "192.0.2.1:53")));
            let expected = is_taken.then(|| (client.parse().expect("an address"), &b"query"[..]));
            assert_eq!(proxies.unwrap(proxy, &octets), expected, "{client}");
        }
        assert_eq!(proxies.unwrap(proxy, &datagram(None)), Some((proxy, &b"query"[..])), "the proxy asks for itself");
    }

    proptest! {
        #[test]
        fn nothing_that_comes_makes_trouble(mut octets in proptest::collection::vec(any::<u8>(), 0..300), is_begun: bool) {
            if is_begun {
                octets.splice(0..0, SIGNATURE.iter().copied().chain([0x21]));
            }
            if let Some((_, rest)) = read_header(&octets) {
                prop_assert!(octets.ends_with(rest) && rest.len() + FIXED <= octets.len());
            }
        }
    }
}
