//! Finds the backend that an operator names: by its name, or by its address as the config may write it.

use std::net::IpAddr;

use dns::address::{BackendAddress, BackendUrl};

/// Returns the positions of the backends that a text may mean: one of them, none, or several without a port
/// that would decide.
pub(crate) fn find<'n>(text: &str, known: impl Iterator<Item = (&'n str, BackendAddress)> + Clone) -> Vec<usize> {
    let places = |is_meant: &dyn Fn(&str, BackendAddress) -> bool| -> Vec<usize> {
        known
            .clone()
            .enumerate()
            .filter(|(_, (name, address))| is_meant(name, *address))
            .map(|(place, _)| place)
            .collect()
    };
    let exact = places(&|name, address| name == text || address.to_string() == text);
    if !exact.is_empty() {
        return exact;
    }
    match of_host(text) {
        Some((scheme, host)) => places(&|_, address| {
            address.ip() == host && scheme.is_none_or(|scheme| address.scheme.word() == Some(scheme))
        }),
        None => {
            let url = text.parse::<BackendUrl>().map(|url| url.address);
            places(&|_, address| url.as_ref().is_ok_and(|url| *url == address))
        }
    }
}

/// Splits an address without a port: `192.0.2.1`, `[2001:db8::1]`, `tls://192.0.2.1#dns.example`.
fn of_host(text: &str) -> Option<(Option<&str>, IpAddr)> {
    let (scheme, rest) = text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
    let host = rest.split(['/', '#']).next()?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((scheme, host.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backend_is_found_as_the_config_names_it() {
        let known = [
            ("ts1", "192.0.2.1:53"),
            ("192.0.2.2:53", "192.0.2.2:53"),
            ("tls://192.0.2.2:853", "tls://192.0.2.2:853"),
            ("odd", "192.0.2.3:5353"),
            ("six", "[2001:db8::1]:53"),
            ("192.0.2.4", "192.0.2.5:53"),
            ("one", "192.0.2.4:53"),
            ("other", "192.0.2.4:54"),
        ];
        let known = known.map(|(name, address)| (name, address.parse().expect("an address")));
        for (text, expected) in [
            ("ts1", &[0][..]),
            ("192.0.2.1:53", &[0]),
            ("192.0.2.1", &[0]),
            ("192.0.2.2:53", &[1]),
            ("192.0.2.2", &[1, 2]),
            ("tls://192.0.2.2", &[2]),
            ("tls://192.0.2.2#dns.example", &[2]),
            ("tls://192.0.2.2:853#dns.example", &[2]),
            ("192.0.2.3", &[3]),
            ("tls://192.0.2.3", &[]),
            ("192.0.2.3:53", &[]),
            ("2001:db8::1", &[4]),
            ("[2001:DB8::1]", &[4]),
            ("192.0.2.4", &[5]),
            ("192.0.2.4:54", &[7]),
            ("ts", &[]),
            ("", &[]),
        ] {
            assert_eq!(find(text, known.iter().copied()), expected, "{text}");
        }
    }
}
