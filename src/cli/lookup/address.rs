//! The server's address on the command line: `@ADDR`, `@ADDR:PORT`, `@[V6]:PORT`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::address::Scheme;

/// Parses the text after the `@`; `port` is `-p`. Without either, the port is the default, as in dig.
pub(super) fn parse(text: &str, port: Option<u16>, scheme: Scheme) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = match (bare.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(address), _) => SocketAddr::new(address, port.unwrap_or_else(|| scheme.port())),
        (Err(_), Ok(address)) => match port {
            Some(port) if port != address.port() => {
                return Err(format!("@{text}: the port is also given as -p {port}, leave one of them out"));
            }
            Some(_) | None => address,
        },
        (Err(_), Err(_)) => {
            return Err(format!("@{text}: expected an address such as @127.0.0.1, @127.0.0.1:5300 or @[::1]:5300"));
        }
    };
    match address.port() {
        0 => Err(format!("@{text}: port 0 cannot be asked, expected 1 to 65535")),
        1.. => Ok(address),
    }
}

pub(super) fn default(port: Option<u16>) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port.unwrap_or(5300))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let cases = [
            ("192.0.2.1", None, Some("192.0.2.1:53")),
            ("192.0.2.1:5300", None, Some("192.0.2.1:5300")),
            ("192.0.2.1", Some(5300), Some("192.0.2.1:5300")),
            ("192.0.2.1:5300", Some(5300), Some("192.0.2.1:5300")),
            ("192.0.2.1:5300", Some(53), None),
            ("::1", None, Some("[::1]:53")),
            ("[::1]", Some(5300), Some("[::1]:5300")),
            ("[::1]:5300", None, Some("[::1]:5300")),
            ("[fe80::1%2]:5300", None, Some("[fe80::1%2]:5300")),
            ("localhost", None, None),
            ("dns.example:53", None, None),
            ("192.0.2.1:0", None, None),
            ("192.0.2.1:65536", None, None),
            ("", None, None),
        ];
        for (text, port, expected) in cases {
            let read = parse(text, port, Scheme::Plain).map(|address| address.to_string());
            assert_eq!(read.as_deref().ok(), expected, "{text} -p {port:?}: {read:?}");
        }
        assert_eq!(default(None).to_string(), "127.0.0.1:5300");
        assert_eq!(default(Some(53)).to_string(), "127.0.0.1:53");
    }
}
