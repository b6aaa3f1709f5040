//! Readers of listen addresses, backend addresses and pins.

use std::net::{IpAddr, SocketAddr};

use super::words::Expectation;
use crate::address::{BackendAddress, BackendUrl, BadAddress, Pin};

/// Reads an address to listen on: IP and port, where port 0 lets the system choose.
pub fn listen_address(text: &str) -> Result<SocketAddr, Expectation> {
    socket_address(text)
}

/// Reads the address of a backend: IP and port, such as one can send to.
pub fn backend_address(text: &str) -> Result<SocketAddr, Expectation> {
    let address = socket_address(text)?;
    if address.port() == 0 {
        return Err(Expectation::new("a port from 1 to 65535, since port 0 cannot be reached"));
    }
    if address.ip().is_unspecified() {
        return Err(Expectation::new("the address of one host, since any address is only for listening"));
    }
    if address.ip().is_multicast() {
        return Err(Expectation::new("the address of one host, not of a multicast group"));
    }
    Ok(address)
}

/// Reads a backend or a primary: an address, optionally with a scheme and the name in its certificate.
pub fn backend(text: &str) -> Result<BackendUrl, Expectation> {
    text.parse().map_err(|bad: BadAddress| Expectation::new(bad.to_string()).matching(URL))
}

/// Reads a backend that joins at run time: an address, optionally with a scheme.
pub fn member_address(text: &str) -> Result<BackendAddress, Expectation> {
    text.parse().map_err(|bad: BadAddress| Expectation::new(bad.to_string()).matching(URL))
}

fn socket_address(text: &str) -> Result<SocketAddr, Expectation> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        let example = SocketAddr::new(ip, 53);
        return Err(Expectation::new(format!("an address with its port, such as \"{example}\"")).matching(ADDRESS));
    }
    let example = "such as \"127.0.0.1:53\" or \"[::1]:53\"";
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    let is_name = host.contains(|c: char| c.is_ascii_alphabetic()) && !host.contains(':');
    let what = if is_name {
        format!("an IP address with its port, not a host name, {example}")
    } else {
        format!("an IP address with its port, {example}")
    };
    Err(Expectation::new(what).matching(ADDRESS))
}

/// Reads the pin of a public key.
pub fn pin(text: &str) -> Result<Pin, Expectation> {
    text.parse().map_err(|bad: BadAddress| Expectation::new(bad.to_string()).matching(PIN))
}

const ADDRESS: &str = "^([0-9.]+|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\]):[0-9]+$";

const URL: &str =
    "^([A-Za-z0-9]+://)?([0-9.]+|[0-9A-Fa-f:.]+|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\])(:[0-9]+)?(/[^#]*)?(#.+)?$";

const PIN: &str = "^sha256/[A-Za-z0-9+/]{43}=$";
