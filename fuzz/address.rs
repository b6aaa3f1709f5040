//! Text of a config: addresses of backends and listeners, their paths and keys, types, and DNS64 prefixes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dns::address::{
    BackendAddress, BackendUrl, HttpPath, ListenAddress, ListenUrl, Pin, Scheme, check_reachable, is_unseen,
    read_socket,
};
use dns::{Dns64Prefix, Name, RecordType};
use serde_json::{Value, from_value, to_value};

/// Any text: each type that reads it writes it so that it is read again as the same.
pub(super) fn of_text(text: &str) {
    assert!(!text.contains(is_unseen) || text.parse::<BackendUrl>().is_err(), "{text:?}");
    of_backend(text);
    of_listener(text);
    of_path_and_pin(text);
    match read_socket(text, None) {
        Ok(socket) => assert_eq!((text.parse(), read_socket(text, Some(53))), (Ok(socket), Ok(socket)), "{text}"),
        Err(error) => assert!(text.parse::<SocketAddr>().is_err() && !error.to_string().is_empty(), "{text}"),
    }
    if let Ok(prefix) = text.parse() {
        of_prefix(&prefix, text);
    }
    if let Ok(rtype) = text.parse::<RecordType>() {
        assert_eq!(rtype.to_string().parse(), Ok(rtype), "{text}");
    }
    if let Err((at, error)) = Name::parse(text) {
        assert!(text.is_char_boundary(at) && !error.to_string().is_empty(), "{text}");
    }
}

/// The address of a backend. It is one that can be reached.
fn of_backend(text: &str) {
    let address = text.parse::<BackendAddress>();
    assert_eq!(from_value(Value::from(text)).ok(), address.as_ref().ok().copied(), "{text}");
    if let Ok(address) = address {
        assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        assert_eq!(to_value(address).ok(), Some(Value::from(address.to_string())), "{text}");
    }
    let url = match text.parse::<BackendUrl>() {
        Ok(url) => url,
        Err(error) => return assert!(!error.to_string().is_empty(), "{text}"),
    };
    let BackendUrl { address, path, name } = &url;
    assert!(address.port() > 0 && !address.ip().is_unspecified(), "{text}");
    assert_eq!(check_reachable(address.socket), Ok(()), "{text}");
    assert!(path.is_none() || address.scheme.is_http(), "{text}");
    assert!(name.is_none() || address.scheme.is_encrypted(), "{text}");
    let path = path.as_ref().map_or("", HttpPath::as_str);
    let name = name.as_ref().map_or(String::new(), |name| format!("#{name}"));
    assert_eq!(format!("{address}{path}{name}").parse().as_ref(), Ok(&url), "{text}");
    let is_plain = address.scheme == Scheme::Plain;
    assert_eq!(BackendAddress::from(address.socket) == *address, is_plain, "{text}");
}

/// The address of a listener. Without a port it has that of its scheme.
fn of_listener(text: &str) {
    let url = match text.parse::<ListenUrl>() {
        Ok(url) => url,
        Err(error) => return assert!(!error.to_string().is_empty(), "{text}"),
    };
    let ListenAddress { scheme, socket } = url.address;
    let path = if scheme.is_http() { url.path.as_str() } else { "" };
    assert_eq!(format!("{}{path}", url.address).parse().as_ref(), Ok(&url), "{text}");
    assert_eq!(ListenAddress::plain(socket) == url.address, scheme == Scheme::Plain, "{text}");
    assert!(scheme.word().is_some() == scheme.is_stream() && scheme.alpn().is_empty() != scheme.is_encrypted());
    let host = match socket.ip() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let prefix = scheme.word().map_or(String::new(), |word| format!("{word}://"));
    let usual = format!("{prefix}{host}").parse().map(|url: ListenUrl| url.address.socket);
    assert_eq!(usual, Ok(SocketAddr::new(socket.ip(), scheme.port())), "{text}");
}

fn of_path_and_pin(text: &str) {
    let json = || Value::from(text);
    let path = text.parse::<HttpPath>();
    assert_eq!(from_value(json()).ok().as_ref(), path.as_ref().ok(), "{text}");
    if let Ok(path) = path {
        assert!(path.as_str() == text && path.to_string() == text, "{text}");
        assert_eq!(to_value(path).ok(), Some(json()), "{text}");
    }
    let pin = text.parse::<Pin>();
    assert_eq!(from_value(json()).ok(), pin.as_ref().ok().copied(), "{text}");
    if let Ok(pin) = pin {
        assert!(pin.to_string() == text && format!("{pin:?}") == text, "{text}");
        assert_eq!(to_value(pin).ok(), Some(json()), "{text}");
    }
}

/// A prefix for DNS64: it has each IPv4 address, and the reverse name of that.
fn of_prefix(prefix: &Dns64Prefix, text: &str) {
    assert_eq!(prefix.to_string().parse(), Ok(*prefix), "{text}");
    let address = Ipv4Addr::new(192, 0, 2, 33);
    let embedded = prefix.embed(address);
    assert_eq!(prefix.extract(embedded), Some(address), "{text}");
    let reverse = prefix.reverse(Name::reverse_of(embedded.into()).as_wire());
    assert_eq!(reverse, Some(Name::reverse_of(address.into())), "{text}");
}
