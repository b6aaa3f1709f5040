//! `primaries`: the servers that a zone is transferred from.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};

use super::backend::read_trust;
use super::readers::{distinct, text};
use super::references::References;
use super::section::ConfigNode;
use super::transfer::PRIMARIES_EXAMPLE;
use super::words;
use crate::address::{BackendAddress, Scheme, ServerTrust};

/// One entry of `primaries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryConfig {
    /// The address and transport: UDP and TCP, TCP alone, or TLS (RFC 9103).
    pub address: BackendAddress,
    /// The identity that an encrypted primary must prove.
    pub trust: ServerTrust,
}

impl PrimaryConfig {
    /// The IP address of the primary.
    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }
}

impl From<SocketAddr> for PrimaryConfig {
    fn from(socket: SocketAddr) -> Self {
        Self { address: socket.into(), trust: ServerTrust::default() }
    }
}

impl Display for PrimaryConfig {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

pub(super) fn read_primaries<'d>(node: &ConfigNode<'d>, references: &mut References<'d>) -> Vec<PrimaryConfig> {
    let items = node.items(PRIMARIES_EXAMPLE);
    distinct(items, |item| read(item, references), |primary| format!("{primary} is named"))
}

fn read<'d>(item: &ConfigNode<'d>, references: &mut References<'d>) -> Option<PrimaryConfig> {
    let (url, spot, mut trust) = match item.table() {
        None => (item.parsed(words::backend), item.spot.clone(), ServerTrust::default()),
        Some(section) => section.whole(|section| {
            let url = section.required("address", "\"tls://192.0.2.1#ns1.example\"", text(words::backend));
            let trust = read_trust(section, url.as_ref(), references);
            (url, section.spot_of("address"), trust)
        }),
    };
    let url = url?;
    if !matches!(url.address.scheme, Scheme::Plain | Scheme::Tcp | Scheme::Tls) {
        spot.note(format!(
            "{} cannot be transferred from, expected tls:// (RFC 9103), tcp:// or no scheme",
            url.address
        ));
        return None;
    }
    trust.identity.name = url.name;
    Some(PrimaryConfig { address: url.address, trust })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::super::tests::check;
    use super::*;

    fn text(primaries: &str) -> String {
        format!(
            "[authorities.a]\nlisten = [\"127.0.0.1:53\"]\nzones = [{{ zone = \"e\", primaries = [{primaries}] }}]\n\
             [certificates.main]\nchain = \"c\"\nkey = \"k\"\n"
        )
    }

    #[test]
    fn primaries_are_read_with_what_they_must_show() {
        let text = text(
            "\"192.0.2.1\", \"tls://192.0.2.1#NS1.example\", { address = \"tls://192.0.2.2:8853\", ca = \"ca.pem\", \
             certificate = \"main\" }, \"tcp://192.0.2.1\"",
        );
        let config = Config::parse(&text, "c.toml", Path::new("/etc")).unwrap_or_else(|problems| panic!("{problems}"));
        let primaries = &config.authorities[0].zones.secondaries[0].primaries;
        let written: Vec<_> = primaries.iter().map(ToString::to_string).collect();
        assert_eq!(written, ["192.0.2.1:53", "tls://192.0.2.1:853", "tls://192.0.2.2:8853", "tcp://192.0.2.1:53"]);
        assert_eq!(primaries[1].trust.identity.name.as_deref(), Some("ns1.example"));
        let ServerTrust { ca, certificate, .. } = &primaries[2].trust;
        assert_eq!((ca.as_deref(), certificate.as_deref()), (Some(Path::new("/etc/ca.pem")), Some("main")));
    }

    #[test]
    fn what_cannot_be_transferred_from_is_told() {
        let place = "3:37: authorities.a.zones[0].primaries[0]: ";
        for (primaries, expected) in [
            (
                "\"https://192.0.2.1\"",
                "https://192.0.2.1:443 cannot be transferred from, expected tls:// (RFC 9103), tcp:// or no scheme",
            ),
            (
                "\"quic://192.0.2.1\"",
                "quic://192.0.2.1:853 cannot be transferred from, expected tls:// (RFC 9103), tcp:// or no scheme",
            ),
        ] {
            check(&text(primaries), &[&format!("{place}{expected}")]);
        }
        let twice = "\"tls://192.0.2.1\", \"tls://192.0.2.1:853\"";
        check(
            &text(twice),
            &["3:56: authorities.a.zones[0].primaries[1]: tls://192.0.2.1:853 is named twice, first on line 3"],
        );
        let shown = "{ address = \"tls://192.0.2.1\", certificate = \"mian\" }";
        check(
            &text(shown),
            &[
                "3:82: authorities.a.zones[0].primaries[0].certificate: there is no certificate \"mian\", did you mean \"main\"?",
            ],
        );
    }
}
