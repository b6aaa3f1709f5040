//! What is encrypted: the ways to a server, the certificate that a run makes for itself, and a front, which
//! is hedgerow itself and speaks by these ways for a backend that knows datagrams alone.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;
use testkit::CertificateAuthority;

use super::process::Server;

/// A way to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// Datagrams to the responder itself.
    Bare,
    /// Datagrams to a front, which the others are compared with.
    Udp,
    /// DNS over TLS.
    Tls,
    /// DNS over HTTPS.
    Https,
    /// DNS over QUIC.
    Quic,
}

impl Way {
    /// The name in a report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "UDP, no front",
            Self::Udp => "UDP",
            Self::Tls => "TLS",
            Self::Https => "HTTPS",
            Self::Quic => "QUIC",
        }
    }

    /// Returns the scheme of an address in a config.
    fn scheme(self) -> &'static str {
        match self {
            Self::Bare | Self::Udp => "",
            Self::Tls => "tls://",
            Self::Https => "https://",
            Self::Quic => "quic://",
        }
    }

    /// A listener as a config has it.
    pub(crate) fn listener(self, address: SocketAddr) -> String {
        format!("\"{}{address}\"", self.scheme())
    }

    /// A backend as a config has it. What is encrypted is verified by [the authority of the run](certify).
    pub(crate) fn backend(self, address: SocketAddr, folder: &Path) -> String {
        match self {
            Self::Bare | Self::Udp => format!("\"{address}\""),
            Self::Tls | Self::Https | Self::Quic => {
                format!("{{ address = \"{}{address}#{NAME}\", ca = {:?} }}", self.scheme(), folder.join(CA))
            }
        }
    }
}

/// The name in the certificate.
pub(crate) const NAME: &str = "dns.example";
/// The file of the authority's own certificate.
pub(crate) const CA: &str = "ca.pem";
/// The file of the chain.
pub(crate) const CHAIN: &str = "chain.pem";
/// The file of the key.
pub(crate) const KEY: &str = "key.pem";

/// Makes an authority and issues a certificate by it, with a key of ECDSA P-256: three files in a folder.
pub(crate) fn certify(folder: &Path) -> io::Result<()> {
    let authority = CertificateAuthority::new();
    let (chain, key) = authority.issue(NAME);
    fs::write(folder.join(CA), authority.pem())?;
    fs::write(folder.join(CHAIN), chain)?;
    fs::write(folder.join(KEY), key)
}

/// The section of a config that names [what was issued](certify).
pub(crate) fn certificates(folder: &Path) -> String {
    format!("[certificates.main]\nchain = {:?}\nkey = {:?}\n", folder.join(CHAIN), folder.join(KEY))
}

/// Starts a front before a responder. It asks once, and its timeout is longer than any client's.
pub(crate) fn front(way: Way, responder: SocketAddr, folder: &Path, core: Option<usize>) -> io::Result<Server> {
    let config = format!(
        r#"
workers = 1
[forwarder]
listen = [{listener}]
[forwarder.limits]
waiting = 100000
[forwarder.connections]
in_flight = 10000
[pools.bench]
backends = ["{responder}"]
dispatch = "sequential"
timeout = "20s"
attempt_timeout = "20s"
on_timeout = "drop"
on_all_down = "drop"
{certificates}
"#,
        listener = way.listener(super::forwarder::ANY_PORT),
        certificates = certificates(folder),
    );
    let file = folder.join(format!("front-{}.toml", responder.port()));
    fs::write(&file, config)?;
    Server::hedgerow(&file, "forwarder", core)
}
