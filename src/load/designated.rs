//! Checks of `forwarder.designated_resolver`: clients that cannot verify the certificate stay with plain DNS.

use crate::config::{Config, ForwarderConfig, ListenConfig};
use crate::net::from_clients::tls::NamedCertificate;

/// Returns warnings for names and addresses that listeners' certificates lack (RFC 9462 section 4.2).
pub fn warnings(config: &Config, certificates: &[NamedCertificate]) -> Vec<String> {
    let Some(forwarder) = &config.forwarder else { return Vec::new() };
    let ForwarderConfig { designated_resolver: Some(name), listen, .. } = forwarder else { return Vec::new() };
    let name = name.to_string();
    let name = name.trim_end_matches('.');
    let encrypted: Vec<_> = listen.iter().filter(|listener| listener.address.scheme.is_encrypted()).collect();
    if encrypted.is_empty() {
        return vec![String::from(
            "forwarder.designated_resolver: no listener is encrypted, so clients get no designated resolver: add \"tls://ADDRESS\" to listen",
        )];
    }
    let is_shown = |named: &&NamedCertificate| encrypted.iter().any(|listener| may_show(listener, named));
    let shown: Vec<_> = certificates.iter().filter(is_shown).map(|named| &named.certificate).collect();
    let mut warnings = Vec::new();
    if !shown.iter().any(|certificate| certificate.bears_name(name)) {
        warnings.push(format!(
            "forwarder.designated_resolver: no certificate of an encrypted listener is valid for {name}, so clients reject the designated resolver: \
             get a certificate for this name"
        ));
    }
    // With a listener on all addresses, the address that a client uses is unknown here.
    let plain = listen.iter().filter(|listener| !listener.address.scheme.is_encrypted());
    let mut addresses: Vec<_> = plain.map(|listener| listener.address.socket.ip().to_canonical()).collect();
    addresses.retain(|address| !address.is_unspecified());
    addresses.sort_unstable();
    addresses.dedup();
    addresses.retain(|address| !shown.iter().any(|certificate| certificate.bears_address(*address)));
    warnings.extend(addresses.iter().map(|address| {
        format!(
            "forwarder.designated_resolver: no certificate of an encrypted listener is valid for {address}, so clients that ask there stay with \
             plain DNS (RFC 9462 section 4.2): get a certificate for this address"
        )
    }));
    warnings
}

fn may_show(listener: &ListenConfig, named: &NamedCertificate) -> bool {
    listener.certificate.as_ref().is_none_or(|own| *own == named.name)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::net::from_clients::tls::Certificate;

    fn certificate(section: &str, bears: &[&str]) -> NamedCertificate {
        let key = KeyPair::generate().expect("a key");
        let bears: Vec<_> = bears.iter().map(|&name| name.to_owned()).collect();
        let made = CertificateParams::new(bears).and_then(|params| params.self_signed(&key)).expect("a certificate");
        let certificate = Certificate::read(made.pem().as_bytes(), key.serialize_pem().as_bytes(), &[]);
        NamedCertificate {
            name: section.to_owned(),
            chain_file: PathBuf::new(),
            key_file: PathBuf::new(),
            certificate: Arc::new(certificate.expect("a good one")),
        }
    }

    /// Returns the missing names and addresses for these listeners, with certificates of the sections `one`
    /// and `two`.
    fn missing(listen: &str, [one, two]: [&[&str]; 2]) -> Vec<String> {
        let text = format!(
            "[forwarder]\nlisten = {listen}\ndesignated_resolver = 'DNS.example'\n[pools.p]\nbackends = ['192.0.2.9']\n\
             [certificates.one]\nchain = 'c'\nkey = 'k'\n[certificates.two]\nchain = 'c'\nkey = 'k'\n"
        );
        let config = Config::parse(&text, "c.toml", Path::new("")).unwrap_or_else(|problems| panic!("{problems}"));
        let said = warnings(&config, &[certificate("one", one), certificate("two", two)]);
        let what = said.iter().map(|said| {
            match said.split_once(" is valid for ").and_then(|(_, rest)| rest.split_once(", so")) {
                Some((what, _)) => what.to_owned(),
                None => said.clone(),
            }
        });
        what.collect()
    }

    #[test]
    fn what_no_certificate_bears_is_told() {
        let both = "['192.0.2.1:53', '192.0.2.1:54', '0.0.0.0:55', 'tls://192.0.2.2']";
        assert_eq!(missing(both, [&["a.example"], &["dns.example", "192.0.2.1"]]), [""; 0]);
        assert_eq!(missing(both, [&["*.example"], &["192.0.2.1"]]), [""; 0]);
        assert_eq!(missing(both, [&["a.example", "192.0.2.2"], &["b.example"]]), ["DNS.example", "192.0.2.1"]);
        let own = "['192.0.2.1:53', { address = 'tls://192.0.2.2', certificate = 'one' }]";
        assert_eq!(missing(own, [&["dns.example"], &["dns.example", "192.0.2.1"]]), ["192.0.2.1"]);
    }

    #[test]
    fn that_there_is_nothing_to_tell_of_is_told() {
        let said = missing("['192.0.2.1:53']", [&["dns.example"], &["192.0.2.1"]]);
        assert!(said.len() == 1 && said[0].contains("no listener is encrypted"), "{said:?}");
    }

    #[test]
    fn without_the_key_nothing_is_told() {
        let text = "[forwarder]\n[pools.p]\nbackends = ['192.0.2.9']\n";
        let config = Config::parse(text, "c.toml", Path::new("")).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(warnings(&config, &[certificate("one", &["a.example"])]), [""; 0]);
    }
}
