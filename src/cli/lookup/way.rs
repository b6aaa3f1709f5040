//! The server, its transport and its trust settings from the command line: `@tls://ADDRESS#NAME`, or
//! `@ADDRESS` with `+tcp` or `+tls`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use dns::address::{
    BackendAddress, BackendUrl, HttpPath, Pin, Scheme, ServerIdentity, ServerTrust, StreamServer, Verify,
};
use net::to_backends::connection::StreamProtocol;
use net::to_backends::tls::{ClientTls, TlsRoots, TrustRules};

use super::connection::LookupConnections;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Trust {
    /// Name in the server's certificate, with +tls [default: its address]
    #[arg(long, value_name = "NAME")]
    tls_name: Option<String>,
    /// Trusted authorities, in PEM [default: those of the system]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Public key that the server must have, sha256/BASE64; may be given several times
    #[arg(long, value_name = "PIN")]
    pin: Vec<Pin>,
    /// Accept any certificate, or with --pin any with that key; without --pin, an attacker on the path can
    /// read the queries
    #[arg(long)]
    insecure: bool,
}

#[derive(Debug)]
pub(super) struct ServerChannel {
    pub(super) address: SocketAddr,
    pub(super) connections: Option<LookupConnections>,
}

impl ServerChannel {
    /// Combines `@SERVER` and `+TRANSPORT` words with `-p`, `--tcp` and the trust options.
    pub(super) fn read(
        servers: &[&str],
        flags: &[&str],
        port: Option<u16>,
        tcp: bool,
        trust: &Trust,
    ) -> Result<Self, String> {
        let (wanted, mut path) = transport(flags, tcp)?;
        let (scheme, address, name) = match servers {
            [] => match wanted {
                Some(scheme) if scheme.is_encrypted() => (scheme, parse_address("127.0.0.1", port, scheme)?, None),
                Some(_) | None => (wanted.unwrap_or(Scheme::Plain), default_address(port), None),
            },
            [server] if server.contains("://") => {
                let text = server.trim_start_matches('@');
                let url: BackendUrl = text.parse().map_err(|expected| format!("@{text}: expected {expected}"))?;
                let scheme = url.address.scheme;
                if wanted.is_some_and(|wanted| wanted != scheme) || port.is_some() {
                    return Err(format!("@{text}: it already names transport and port, leave the other option out"));
                }
                path = url.path.unwrap_or(path);
                (scheme, url.address.socket, url.name)
            }
            [server] => {
                let scheme = wanted.unwrap_or(Scheme::Plain);
                (scheme, parse_address(server.trim_start_matches('@'), port, scheme)?, None)
            }
            [first, second, ..] => return Err(format!("two servers, {first} and {second}: expected one at most")),
        };
        if !scheme.is_encrypted() && trust.is_given() {
            return Err(
                "--tls-name, --ca, --pin and --insecure are for servers asked by +tls, +https, +quic, or @tls://, @https:// and @quic://"
                    .to_owned(),
            );
        }
        let name = trust.tls_name.clone().or(name);
        let identity = ServerIdentity { name: name.clone(), ..ServerIdentity::default() };
        let protocol = StreamProtocol::of(&StreamServer {
            address: BackendAddress { scheme, socket: address },
            trust: ServerTrust { identity, ..ServerTrust::default() },
            path,
            early_data: false,
        });
        let connections = match scheme {
            Scheme::Plain => None,
            Scheme::Tcp => Some(LookupConnections::new(address, scheme, protocol, None)),
            Scheme::Tls | Scheme::Https | Scheme::Quic => {
                let tls = trust.tls(address, name, scheme)?;
                Some(LookupConnections::new(address, scheme, protocol, Some(tls)))
            }
            Scheme::Http => return Err("http:// is for listeners, expected https://".to_owned()),
        };
        Ok(Self { address, connections })
    }
}

/// Returns the transport that the words name, and its path for HTTPS.
fn transport(flags: &[&str], tcp: bool) -> Result<(Option<Scheme>, HttpPath), String> {
    let mut wanted = tcp.then_some(Scheme::Tcp);
    let mut path = HttpPath::default();
    for flag in flags {
        wanted = Some(match *flag {
            "+tcp" => Scheme::Tcp,
            "+tls" => Scheme::Tls,
            "+notcp" => Scheme::Plain,
            "+https" => Scheme::Https,
            "+quic" => Scheme::Quic,
            other => match other.strip_prefix("+https=") {
                Some(text) => {
                    path = text.parse().map_err(|expected| format!("{other}: expected {expected}"))?;
                    Scheme::Https
                }
                None => return Err(format!("{other}: expected +tcp, +tls, +https or +quic")),
            },
        });
    }
    Ok((wanted, path))
}

/// Parses the text after the `@`; `port` is `-p`. Without either, the port is the default, as in dig.
fn parse_address(text: &str, port: Option<u16>, scheme: Scheme) -> Result<SocketAddr, String> {
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

fn default_address(port: Option<u16>) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port.unwrap_or(5300))
}

impl Trust {
    fn is_given(&self) -> bool {
        self.tls_name.is_some() || self.ca.is_some() || !self.pin.is_empty() || self.insecure
    }

    fn tls(&self, server: SocketAddr, name: Option<String>, scheme: Scheme) -> Result<ClientTls, String> {
        let verify = match (self.insecure, self.pin.is_empty()) {
            (true, true) => Verify::None,
            (true, false) => Verify::Pin,
            (false, _) => Verify::Full,
        };
        if verify == Verify::None {
            eprintln!("hedgerow lookup: certificates are not checked: an attacker on the path can read the queries");
        }
        let roots = match (&self.ca, verify) {
            (_, Verify::None | Verify::Pin) => None,
            (Some(file), Verify::Full) => {
                let pem = fs::read(file).map_err(|error| format!("--ca {}: {error}", file.display()))?;
                Some(TlsRoots::of_pem(&pem).map_err(|problem| format!("--ca {}: {problem}", file.display()))?)
            }
            (None, Verify::Full) => {
                Some(TlsRoots::of_system().map_err(|problem| format!("{problem}, write --ca FILE"))?)
            }
        };
        let identity = ServerIdentity { name, verify, pins: self.pin.clone() };
        let rules = TrustRules {
            identity,
            roots,
            address: server.ip(),
            alpn: scheme.alpn().iter().map(|protocol| protocol.to_vec()).collect(),
            certificate: None,
            early_data: false,
            needs_tls_1_3: false,
        };
        ClientTls::new(&rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUST: Trust = Trust { tls_name: None, ca: None, pin: Vec::new(), insecure: true };
    const NONE: Trust = Trust { tls_name: None, ca: None, pin: Vec::new(), insecure: false };

    #[test]
    fn a_pin_is_looked_at_whatever_the_certificate_says() {
        let trust = Trust { pin: vec![Pin([7; 32])], ..TRUST };
        let tls = trust.tls(([192, 0, 2, 1], 853).into(), None, Scheme::Tls).expect("rules");
        assert_eq!(tls.rules().identity.verify, Verify::Pin);
        let tls = TRUST.tls(([192, 0, 2, 1], 853).into(), None, Scheme::Tls).expect("rules");
        assert_eq!(tls.rules().identity.verify, Verify::None);
    }

    #[test]
    fn the_way_to_the_server_is_read() {
        for (servers, flags, port, trust, expected) in [
            (&[][..], &[][..], None, &NONE, Ok(("127.0.0.1:5300", None))),
            (&[], &["+tcp"], None, &NONE, Ok(("127.0.0.1:5300", Some(false)))),
            (&[], &["+tls"], None, &TRUST, Ok(("127.0.0.1:853", Some(true)))),
            (&["@192.0.2.1"], &["+tls"], None, &TRUST, Ok(("192.0.2.1:853", Some(true)))),
            (&["@192.0.2.1"], &["+tls"], Some(8853), &TRUST, Ok(("192.0.2.1:8853", Some(true)))),
            (&["@192.0.2.1"], &["+tcp"], None, &NONE, Ok(("192.0.2.1:53", Some(false)))),
            (&["@tls://192.0.2.1#dns.example"], &[], None, &TRUST, Ok(("192.0.2.1:853", Some(true)))),
            (&["@tcp://[::1]:5300"], &["+tcp"], None, &NONE, Ok(("[::1]:5300", Some(false)))),
            (
                &["@tcp://192.0.2.1"],
                &["+tls"],
                None,
                &TRUST,
                Err("@tcp://192.0.2.1: it already names transport and port, leave the other option out"),
            ),
            (
                &["@192.0.2.1"],
                &[],
                None,
                &TRUST,
                Err(
                    "--tls-name, --ca, --pin and --insecure are for servers asked by +tls, +https, +quic, or @tls://, @https:// and @quic://",
                ),
            ),
            (&[], &["+tsl"], None, &NONE, Err("+tsl: expected +tcp, +tls, +https or +quic")),
            (&[], &["+quic"], None, &TRUST, Ok(("127.0.0.1:853", Some(true)))),
            (&["@quic://192.0.2.1:8853#dns.example"], &[], None, &TRUST, Ok(("192.0.2.1:8853", Some(true)))),
            (&[], &["+https"], None, &TRUST, Ok(("127.0.0.1:443", Some(true)))),
            (&["@192.0.2.1"], &["+https=/q"], Some(8443), &TRUST, Ok(("192.0.2.1:8443", Some(true)))),
            (&["@https://192.0.2.1/q#dns.example"], &[], None, &TRUST, Ok(("192.0.2.1:443", Some(true)))),
            (
                &[],
                &["+https=q"],
                None,
                &TRUST,
                Err("+https=q: expected a path such as /dns-query, without spaces, ? or {"),
            ),
            (&["@a", "@b"], &[], None, &NONE, Err("two servers, @a and @b: expected one at most")),
        ] {
            let way = ServerChannel::read(servers, flags, port, false, trust);
            let way = way.map(|way| (way.address.to_string(), way.connections.map(|by| by.transport().is_encrypted())));
            let expected = expected.map(|(address, is_encrypted)| (address.to_owned(), is_encrypted));
            assert_eq!(way, expected.map_err(str::to_owned), "{servers:?} {flags:?}");
        }
    }

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
            let read = parse_address(text, port, Scheme::Plain).map(|address| address.to_string());
            assert_eq!(read.as_deref().ok(), expected, "{text} -p {port:?}: {read:?}");
        }
        assert_eq!(default_address(None).to_string(), "127.0.0.1:5300");
        assert_eq!(default_address(Some(53)).to_string(), "127.0.0.1:53");
    }
}
