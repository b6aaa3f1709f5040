//! Plain HTTP listeners that other hosts can reach. They are meant for a TLS proxy on the same host.

use crate::address::Scheme;
use crate::config::{Config, ListenConfig};

/// Returns a warning for each listener whose traffic others could read.
pub fn warnings(config: &Config) -> Vec<String> {
    let forwarder = config.forwarder.iter().map(|forwarder| ("forwarder".to_owned(), &forwarder.listen));
    let authorities = config.authorities.iter();
    let authorities = authorities.map(|authority| (format!("authorities.{}", authority.name), &authority.listen));
    let listeners = forwarder.chain(authorities).flat_map(|(section, listen)| {
        listen.iter().enumerate().map(move |(place, one)| (format!("{section}.listen[{place}]"), one))
    });
    let is_exposed = |one: &ListenConfig| {
        one.address.scheme == Scheme::Http && !one.address.socket.ip().to_canonical().is_loopback()
    };
    let exposed = listeners.filter(|(_, one)| is_exposed(one));
    let warning = |(key, one): (String, &ListenConfig)| {
        format!(
            "{key}: {} is not encrypted, and other hosts can reach it: listen on a loopback address behind a TLS proxy, or by https://",
            one.address
        )
    };
    exposed.map(warning).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn http_is_for_this_host() {
        let config = "[forwarder]\nlisten = [\"http://127.0.0.1\", \"http://[::1]:8080\", \"http://0.0.0.0:8080\", \"https://0.0.0.0\", \
                      \"http://[2001:db8::1]\"]\n[pools.ts]\nbackends = [\"192.0.2.1\"]\n[certificates.main]\nchain = \"c\"\nkey = \"k\"\n";
        let config = Config::parse(config, "c.toml", Path::new("/etc")).unwrap_or_else(|problems| panic!("{problems}"));
        let said = warnings(&config);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("forwarder.listen[2]: http://0.0.0.0:8080 is not encrypted"), "{said:?}");
        assert!(said[1].starts_with("forwarder.listen[4]: http://[2001:db8::1]:80 is not encrypted"), "{said:?}");
    }
}
