//! Addresses of listeners and backends as operators write them, with the transport as the scheme of a URL.
//!
//! ```text
//!   192.0.2.1[:PORT]                            UDP, and TCP on the same port
//!   SCHEME://192.0.2.1[:PORT][/PATH][#NAME]     tcp, tls, https, quic; http to listen only
//! ```
//!
//! Hosts are IP addresses, IPv6 ones in brackets; hedgerow does not resolve names here. Only HTTP has a path.
//! `#NAME`, the name in the certificate, is only for backends with a certificate.

mod identity;
mod path;

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use self::identity::{Pin, ServerIdentity, ServerTrust, StreamServer, Verify};
pub use self::path::HttpPath;

/// Returns true for a character that is invisible or changes the text beside it: control characters,
/// direction marks, and zero-width spaces. A terminal shows a name with one like another name. The page of
/// the admin server has the same list.
pub fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

/// A transport, as the scheme of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// No scheme: UDP, and TCP on the same port.
    Plain,
    /// TCP alone (RFC 7766).
    Tcp,
    /// TLS over TCP (RFC 7858).
    Tls,
    /// HTTP/2 or HTTP/1.1 over TLS (RFC 8484).
    Https,
    /// HTTP without TLS, behind a TLS proxy: to listen only.
    Http,
    /// QUIC (RFC 9250).
    Quic,
}

impl Scheme {
    /// Returns the word before `://`; `None` for plain DNS.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Tcp => Some("tcp"),
            Self::Tls => Some("tls"),
            Self::Https => Some("https"),
            Self::Http => Some("http"),
            Self::Quic => Some("quic"),
        }
    }

    /// Returns the default port.
    pub fn port(self) -> u16 {
        match self {
            Self::Plain | Self::Tcp => 53,
            // RFC 7858 section 3.1, RFC 9250 section 8.
            Self::Tls | Self::Quic => 853,
            Self::Https => 443,
            Self::Http => 80,
        }
    }

    /// Returns true if all messages use connections.
    pub fn is_stream(self) -> bool {
        self != Self::Plain
    }

    /// Returns true if the transport is encrypted.
    pub fn is_encrypted(self) -> bool {
        match self {
            Self::Plain | Self::Tcp | Self::Http => false,
            Self::Tls | Self::Https | Self::Quic => true,
        }
    }

    /// Returns true for HTTP, which has paths.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Https | Self::Http)
    }

    /// Returns the ALPN protocols that a client offers, the preferred first; empty without encryption.
    pub fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Plain | Self::Tcp | Self::Http => &[],
            Self::Tls => &[b"dot"],
            Self::Https => &[b"h2"],
            Self::Quic => &[b"doq"],
        }
    }

    fn read(word: &str) -> Result<Self, BadAddress> {
        match &*word.to_ascii_lowercase() {
            "tcp" => Ok(Self::Tcp),
            "tls" => Ok(Self::Tls),
            "https" => Ok(Self::Https),
            "http" => Ok(Self::Http),
            "quic" => Ok(Self::Quic),
            "dot" => Err(BadAddress::new("tls://, did you mean that by dot://?")),
            "doh" => Err(BadAddress::new("https://, did you mean that by doh://?")),
            "doq" => Err(BadAddress::new("quic://, did you mean that by doq://?")),
            "udp" | "dns" | "do53" => {
                Err(BadAddress::new("an address without a scheme for UDP, such as \"192.0.2.1:53\""))
            }
            "h3" | "doh3" => Err(BadAddress::new("https:// or quic://, HTTP/3 is not spoken")),
            _ => Err(BadAddress::new(format!("tcp://, tls://, https://, quic:// or no scheme at all, not {word}://"))),
        }
    }
}

/// The expected form of an address: the text after the word "expected".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAddress(String);

impl BadAddress {
    pub(crate) fn new(expected: impl Into<String>) -> Self {
        Self(expected.into())
    }
}

/// The address of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenAddress {
    /// The transport of the listener.
    pub scheme: Scheme,
    /// The socket address; port 0 lets the system choose.
    pub socket: SocketAddr,
}

impl ListenAddress {
    /// Makes an address for UDP, and TCP on the same port.
    pub fn plain(socket: SocketAddr) -> Self {
        Self { scheme: Scheme::Plain, socket }
    }
}

/// A listener's address as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    /// The address of the listener.
    pub address: ListenAddress,
    /// The path for HTTP.
    pub path: HttpPath,
}

impl FromStr for ListenUrl {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let AddressParts { scheme, socket, path, name } = AddressParts::read(text)?;
        match name {
            Some(_) => {
                Err(BadAddress::new("no #NAME, which is for backends: a listener's names stand in its certificate"))
            }
            None => Ok(Self { address: ListenAddress { scheme, socket }, path: path.unwrap_or_default() }),
        }
    }
}

impl Display for ListenAddress {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_url(self.scheme, self.socket, f)
    }
}

/// The address and transport of a backend, which identify it in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendAddress {
    /// The transport of the backend.
    pub scheme: Scheme,
    /// The socket address of the backend.
    pub socket: SocketAddr,
}

impl BackendAddress {
    /// Makes an address for UDP, and TCP on the same port.
    pub fn plain(socket: SocketAddr) -> Self {
        Self { scheme: Scheme::Plain, socket }
    }

    /// Returns the host of the backend.
    pub fn ip(&self) -> IpAddr {
        self.socket.ip()
    }

    /// Returns the port of the backend.
    pub fn port(&self) -> u16 {
        self.socket.port()
    }
}

impl<A: Into<SocketAddr>> From<A> for BackendAddress {
    fn from(socket: A) -> Self {
        Self::plain(socket.into())
    }
}

impl FromStr for BackendAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let BackendUrl { address, path, name } = text.parse()?;
        match (name, path) {
            (Some(_), _) => Err(BadAddress::new("an address without #NAME")),
            (None, Some(_)) => Err(BadAddress::new("an address without a path")),
            (None, None) => Ok(address),
        }
    }
}

impl Display for BackendAddress {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_url(self.scheme, self.socket, f)
    }
}

/// Serializes a type as the text that it is parsed from.
macro_rules! serde_as_text {
    ($($type:ty)+) => { $(
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+ };
}

serde_as_text! { BackendAddress Pin HttpPath }

/// A backend's address as an operator writes it, with the name in its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendUrl {
    /// The address of the backend.
    pub address: BackendAddress,
    /// The path for HTTP, if one is written.
    pub path: Option<HttpPath>,
    /// The name in the certificate; without a name the address.
    pub name: Option<String>,
}

impl FromStr for BackendUrl {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let AddressParts { scheme, socket, path, name } = AddressParts::read(text)?;
        if scheme == Scheme::Http {
            return Err(BadAddress::new("https:// for a backend: http:// is only listened on"));
        }
        check_reachable(socket)?;
        let name = match name {
            None => None,
            Some(_) if !scheme.is_encrypted() => {
                return Err(BadAddress::new(
                    "no #NAME without tls://, https:// or quic://: nothing else shows a certificate",
                ));
            }
            Some(name) if is_host_name(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
            Some(_) => return Err(BadAddress::new("the name of a host after the #, such as #dns.example")),
        };
        Ok(Self { address: BackendAddress { scheme, socket }, path, name })
    }
}

struct AddressParts<'t> {
    scheme: Scheme,
    socket: SocketAddr,
    path: Option<HttpPath>,
    name: Option<&'t str>,
}

impl<'t> AddressParts<'t> {
    fn read(text: &'t str) -> Result<Self, BadAddress> {
        let (scheme, rest) = match text.split_once("://") {
            Some((word, rest)) => (Scheme::read(word)?, rest),
            None => (Scheme::Plain, text),
        };
        let (rest, name) = match rest.split_once('#') {
            Some((rest, name)) => (rest, Some(name)),
            None => (rest, None),
        };
        let (host, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if !path.is_empty() && !scheme.is_http() {
            return Err(BadAddress::new("no path: only https:// has one"));
        }
        // A slash alone counts as no path, because browsers write addresses so.
        let path = if path.len() > 1 { Some(path.parse()?) } else { None };
        let socket = read_socket(host, Some(scheme.port()))?;
        check_port(scheme, socket.port())?;
        Ok(Self { scheme, socket, path, name })
    }
}

/// Checks that encrypted DNS does not use port 53 (RFC 7858 section 3.1, RFC 9250 section 4.1.1).
fn check_port(scheme: Scheme, port: u16) -> Result<(), BadAddress> {
    match scheme {
        Scheme::Tls | Scheme::Quic if port == Scheme::Plain.port() => {
            Err(BadAddress::new("another port than 53, which is for DNS without encryption"))
        }
        Scheme::Plain | Scheme::Tcp | Scheme::Tls | Scheme::Https | Scheme::Http | Scheme::Quic => Ok(()),
    }
}

/// Checks that one can send to an address.
pub fn check_reachable(socket: SocketAddr) -> Result<(), BadAddress> {
    let problem = match socket.ip() {
        _ if socket.port() == 0 => "a port from 1 to 65535, since port 0 cannot be reached",
        ip if ip.is_unspecified() => "the address of one host, since any address is only for listening",
        ip if ip.is_multicast() => "the address of one host, not of a multicast group",
        _ => return Ok(()),
    };
    Err(BadAddress::new(problem))
}

/// Reads an IP address with its port, which may be missing if there is a usual one.
pub fn read_socket(text: &str, usual_port: Option<u16>) -> Result<SocketAddr, BadAddress> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    if let Some(port) = usual_port
        && let Ok(ip) = bracketed.unwrap_or(text).parse::<IpAddr>()
        && (bracketed.is_none() || ip.is_ipv6())
    {
        return Ok(SocketAddr::new(ip, port));
    }
    let example = "such as \"127.0.0.1:53\" or \"[::1]:53\"";
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    let is_name = host.contains(|c: char| c.is_ascii_alphabetic()) && !host.contains(':');
    Err(BadAddress::new(match is_name {
        true => format!("an IP address with its port, not a host name, {example}"),
        false => format!("an IP address with its port, {example}"),
    }))
}

/// Returns true for a valid name in a certificate: labels of letters, digits, hyphens and underscores (RFC
/// 6125 section 6.4.1).
fn is_host_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(is_label) && text.parse::<IpAddr>().is_err()
}

fn write_url(scheme: Scheme, socket: SocketAddr, f: &mut Formatter<'_>) -> fmt::Result {
    match scheme.word() {
        Some(word) => write!(f, "{word}://{socket}"),
        None => Display::fmt(&socket, f),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_backends_are_read_and_written() {
        for (text, written, name) in [
            ("192.0.2.1:5301", "192.0.2.1:5301", None),
            ("192.0.2.1", "192.0.2.1:53", None),
            ("::1", "[::1]:53", None),
            ("[::1]", "[::1]:53", None),
            ("[::1]:5301", "[::1]:5301", None),
            ("tcp://192.0.2.1", "tcp://192.0.2.1:53", None),
            ("tls://192.0.2.1", "tls://192.0.2.1:853", None),
            ("TLS://[2001:db8::1]#DNS.Example.", "tls://[2001:db8::1]:853", Some("dns.example")),
            ("tls://192.0.2.1:8853#dns.example", "tls://192.0.2.1:8853", Some("dns.example")),
            ("https://192.0.2.1#dns.example", "https://192.0.2.1:443", Some("dns.example")),
            ("https://192.0.2.1/", "https://192.0.2.1:443", None),
            ("quic://[2001:db8::1]#dns.example", "quic://[2001:db8::1]:853", Some("dns.example")),
        ] {
            let url: BackendUrl = text.parse().expect(text);
            assert_eq!((&*url.address.to_string(), url.name.as_deref()), (written, name), "{text}");
            assert_eq!(written.parse::<BackendAddress>(), Ok(url.address));
            let json = serde_json::to_string(&url.address).expect("a string");
            assert_eq!(serde_json::from_str::<BackendAddress>(&json).expect("the same"), url.address);
        }
    }

    #[test]
    fn what_is_wrong_with_a_backend_is_told_with_its_remedy() {
        for (text, expected) in [
            ("dot://192.0.2.1", "tls://, did you mean that by dot://?"),
            ("h3://192.0.2.1", "https:// or quic://, HTTP/3 is not spoken"),
            ("doh://192.0.2.1", "https://, did you mean that by doh://?"),
            ("doq://192.0.2.1", "quic://, did you mean that by doq://?"),
            ("http://192.0.2.1", "https:// for a backend: http:// is only listened on"),
            ("https://192.0.2.1/dns query", "a path such as /dns-query, without spaces, ? or {"),
            ("https://192.0.2.1/dns-query{?dns}", "a path such as /dns-query, without spaces, ? or {"),
            ("udp://192.0.2.1", "an address without a scheme for UDP, such as \"192.0.2.1:53\""),
            ("ftp://192.0.2.1", "tcp://, tls://, https://, quic:// or no scheme at all, not ftp://"),
            (
                "tls://dns.example",
                "an IP address with its port, not a host name, such as \"127.0.0.1:53\" or \"[::1]:53\"",
            ),
            ("ts.example:53", "an IP address with its port, not a host name, such as \"127.0.0.1:53\" or \"[::1]:53\""),
            ("", "an IP address with its port, such as \"127.0.0.1:53\" or \"[::1]:53\""),
            ("127.0.0.1:65536", "an IP address with its port, such as \"127.0.0.1:53\" or \"[::1]:53\""),
            ("[127.0.0.1]", "an IP address with its port, such as \"127.0.0.1:53\" or \"[::1]:53\""),
            ("tls://192.0.2.1/dns-query", "no path: only https:// has one"),
            ("192.0.2.1#dns.example", "no #NAME without tls://, https:// or quic://: nothing else shows a certificate"),
            (
                "tcp://192.0.2.1#dns.example",
                "no #NAME without tls://, https:// or quic://: nothing else shows a certificate",
            ),
            ("tls://192.0.2.1#", "the name of a host after the #, such as #dns.example"),
            ("tls://192.0.2.1#192.0.2.1", "the name of a host after the #, such as #dns.example"),
            ("tls://192.0.2.1#a..b", "the name of a host after the #, such as #dns.example"),
            ("tls://192.0.2.1:0", "a port from 1 to 65535, since port 0 cannot be reached"),
            ("tls://192.0.2.1:53", "another port than 53, which is for DNS without encryption"),
            ("quic://[2001:db8::1]:53", "another port than 53, which is for DNS without encryption"),
            ("0.0.0.0:53", "the address of one host, since any address is only for listening"),
            ("224.0.0.1", "the address of one host, not of a multicast group"),
        ] {
            let error = text.parse::<BackendUrl>().expect_err(text);
            assert_eq!(error.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn paths_are_of_http_and_have_a_default() {
        for (text, path) in [
            ("https://192.0.2.1", None),
            ("https://192.0.2.1:8443/dns-query", Some("/dns-query")),
            ("https://[2001:db8::1]/a/b%20c#dns.example", Some("/a/b%20c")),
        ] {
            let url: BackendUrl = text.parse().expect(text);
            assert_eq!(url.path.as_ref().map(HttpPath::as_str), path, "{text}");
            let listener: ListenUrl = text.split('#').next().unwrap_or_default().parse().expect(text);
            assert_eq!(listener.path.as_str(), path.unwrap_or("/dns-query"), "{text}");
        }
    }

    #[test]
    fn listeners_have_ports_of_their_own_and_no_names() {
        for (text, written) in [
            ("0.0.0.0", "0.0.0.0:53"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("tls://127.0.0.1:8853", "tls://127.0.0.1:8853"),
            ("tls://[::]", "tls://[::]:853"),
            ("tcp://[::1]", "tcp://[::1]:53"),
            ("https://[::1]", "https://[::1]:443"),
            ("http://127.0.0.1/dns", "http://127.0.0.1:80"),
            ("quic://127.0.0.1", "quic://127.0.0.1:853"),
        ] {
            assert_eq!(text.parse::<ListenUrl>().expect(text).address.to_string(), written);
        }
        for text in ["tls://127.0.0.1:53", "quic://[::]:53"] {
            let error = text.parse::<ListenUrl>().expect_err(text).to_string();
            assert_eq!(error, "another port than 53, which is for DNS without encryption");
        }
        let error = "tls://127.0.0.1#a.example".parse::<ListenUrl>().expect_err("a name");
        assert_eq!(error.to_string(), "no #NAME, which is for backends: a listener's names stand in its certificate");
    }
}
