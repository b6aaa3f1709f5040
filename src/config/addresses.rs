//! Readers of addresses: where we listen, whom we ask, and what those must show.

use std::net::{IpAddr, SocketAddr};

use super::words::Expected;
use crate::address::{BackendAddress, BackendUrl, BadAddress, Pin};

/// Reads an address to listen on: IP and port, where port 0 lets the system choose.
pub fn listen_address(text: &str) -> Result<SocketAddr, Expected> {
    socket_address(text)
}

/// Reads the address of a backend: IP and port, such as one can send to.
pub fn backend_address(text: &str) -> Result<SocketAddr, Expected> {
    let address = socket_address(text)?;
    if address.port() == 0 {
        return Err(Expected::new("a port from 1 to 65535, since nobody is reached at port 0"));
    }
    if address.ip().is_unspecified() {
        return Err(Expected::new("the address of one host, since any address is only for listening"));
    }
    if address.ip().is_multicast() {
        return Err(Expected::new("the address of one host, not of a multicast group"));
    }
    Ok(address)
}

/// Reads a backend, or a server that a zone is transferred from: an address, perhaps with a scheme and the name that its certificate bears.
pub fn backend(text: &str) -> Result<BackendUrl, Expected> {
    text.parse().map_err(|bad: BadAddress| Expected::new(bad.to_string()).matching(URL))
}

/// Reads a backend that joins while the server runs: an address, perhaps with a scheme.
pub fn member_address(text: &str) -> Result<BackendAddress, Expected> {
    text.parse().map_err(|bad: BadAddress| Expected::new(bad.to_string()).matching(URL))
}

/// Reads IP and port, with a remedy for what people commonly write instead.
fn socket_address(text: &str) -> Result<SocketAddr, Expected> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        let example = SocketAddr::new(ip, 53);
        return Err(Expected::new(format!("an address with its port, such as \"{example}\"")).matching(ADDRESS));
    }
    let example = "such as \"127.0.0.1:53\" or \"[::1]:53\"";
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    let is_name = host.contains(|c: char| c.is_ascii_alphabetic()) && !host.contains(':');
    let what = if is_name {
        format!("an IP address with its port, not a host name, {example}")
    } else {
        format!("an IP address with its port, {example}")
    };
    Err(Expected::new(what).matching(ADDRESS))
}

/// Reads the pin of a public key.
pub fn pin(text: &str) -> Result<Pin, Expected> {
    text.parse().map_err(|bad: BadAddress| Expected::new(bad.to_string()).matching(PIN))
}

/// IP and port.
const ADDRESS: &str = "^([0-9.]+|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\]):[0-9]+$";

/// An address with its scheme, its port and a name, or without them.
const URL: &str =
    "^([A-Za-z0-9]+://)?([0-9.]+|[0-9A-Fa-f:.]+|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\])(:[0-9]+)?(/[^#]*)?(#.+)?$";

/// A SHA-256 in base64.
const PIN: &str = "^sha256/[A-Za-z0-9+/]{43}=$";
