//! What is encrypted: the ways to a server, the certificate that a run makes for itself, and a front, which
//! is hedgerow itself and speaks by these ways for a backend that knows datagrams alone.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

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

/// The kind of key in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Key {
    /// ECDSA with P-256.
    Ecdsa,
    /// RSA with 2048 bits.
    Rsa,
}

impl Key {
    /// The name in a report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ecdsa => "ECDSA P-256",
            Self::Rsa => "RSA 2048",
        }
    }

    /// The files of the chain and of the key.
    pub(crate) fn files(self) -> [&'static str; 2] {
        match self {
            Self::Ecdsa => ["chain.pem", "key.pem"],
            Self::Rsa => ["rsa-chain.pem", "rsa-key.pem"],
        }
    }
}

/// The name in the certificate.
pub(crate) const NAME: &str = "dns.example";
/// The file of the authority's own certificate.
pub(crate) const CA: &str = "ca.pem";
/// Makes an authority and issues a certificate by it for each key: files in a folder. Only `openssl` makes a
/// key of RSA, and without it there is none.
pub(crate) fn certify(folder: &Path) -> io::Result<()> {
    let authority = CertificateAuthority::new();
    fs::write(folder.join(CA), authority.pem())?;
    let write = |key: Key, issued: (String, String)| {
        let [chain, secret] = key.files();
        fs::write(folder.join(chain), issued.0)?;
        fs::write(folder.join(secret), issued.1)
    };
    write(Key::Ecdsa, authority.issue(NAME))?;
    let made = Command::new("openssl").args(["genpkey", "-quiet", "-algorithm", "RSA"]).output();
    match made.ok().and_then(|made| String::from_utf8(made.stdout).ok()).filter(|key| !key.is_empty()) {
        Some(key) => write(Key::Rsa, authority.issue_for(NAME, &key)),
        None => Ok(()),
    }
}

/// The section of a config that names [what was issued](certify).
pub(crate) fn certificates(folder: &Path, key: Key) -> String {
    let [chain, key] = key.files().map(|file| folder.join(file));
    format!("[certificates.main]\nchain = {chain:?}\nkey = {key:?}\n")
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
        certificates = certificates(folder, Key::Ecdsa),
    );
    let file = folder.join(format!("front-{}.toml", responder.port()));
    fs::write(&file, config)?;
    Server::hedgerow(&file, "forwarder", core)
}
