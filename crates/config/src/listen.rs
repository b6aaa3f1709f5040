//! `listen` of the forwarder and of authorities, and `[certificates.*]` of encrypted listeners.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use dns::address::{BadAddress, HttpPath, ListenAddress, ListenUrl, Scheme};
use limit::Prefix;

use super::clients::read_prefixes;
use super::readers::{distinct, file, label, text};
use super::references::References;
use super::section::{ConfigNode, DocumentSpot, note_repeats};
use super::{Expectation, words};

/// One entry of `listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// The transport and the address.
    pub address: ListenAddress,
    /// The path of DNS over HTTPS.
    pub path: HttpPath,
    /// The section of the certificate for all clients. `None`: the server name of the client chooses.
    pub certificate: Option<String>,
    /// The senders whose queries and connections must start with a PROXY header.
    pub proxy_from: Vec<Prefix>,
}

impl ListenConfig {
    /// The address and port.
    pub fn socket(&self) -> SocketAddr {
        self.address.socket
    }
}

impl From<ListenUrl> for ListenConfig {
    fn from(ListenUrl { address, path }: ListenUrl) -> Self {
        Self { address, path, certificate: None, proxy_from: Vec::new() }
    }
}

impl From<ListenAddress> for ListenConfig {
    fn from(address: ListenAddress) -> Self {
        ListenUrl { address, path: HttpPath::default() }.into()
    }
}

impl From<SocketAddr> for ListenConfig {
    fn from(socket: SocketAddr) -> Self {
        ListenAddress::plain(socket).into()
    }
}

/// `[certificates.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateConfig {
    /// The key below `[certificates]`.
    pub name: String,
    /// The file with the chain in PEM, the leaf first; already resolved.
    pub chain: PathBuf,
    /// The file with the key in PEM, already resolved.
    pub key: PathBuf,
    /// The server names that select the certificate, in lower case. Empty: the names in the certificate.
    pub names: Vec<String>,
}

#[derive(Default)]
pub(super) struct ListenReferences<'d> {
    addresses: Vec<(ListenAddress, usize, DocumentSpot<'d>)>,
    lists: usize,
}

impl<'d> ListenReferences<'d> {
    pub(super) fn push(&mut self, address: ListenAddress, spot: DocumentSpot<'d>) {
        self.addresses.push((address, self.lists, spot));
    }

    /// Reports conflicting listeners (`SO_REUSEPORT` would let both start) and those without a certificate.
    pub(super) fn check(self, has_certificates: bool) {
        let addresses = self.addresses;
        let fixed = || addresses.iter().filter(|(address, ..)| address.socket.port() != 0);
        // TCP listeners conflict unless ALPN (RFC 7301) separates them. By UDP, plain DNS and QUIC conflict.
        let mut known: HashMap<SocketAddr, Vec<(Scheme, usize)>> = HashMap::new();
        for (address, list, spot) in fixed() {
            let here = known.entry(address.socket).or_default();
            let scheme = in_the_clear(address.scheme);
            let meets = |(other, of): &&(Scheme, usize)| *other != scheme && meet((*other, *of), (scheme, *list));
            if let Some((other, of)) = here.iter().find(meets) {
                let (socket, one, other) = (address.socket, spoken(*other), spoken(scheme));
                let sections = if by_alpn(scheme) && of != list { " of another section" } else { "" };
                spot.note(format!(
                    "{socket} is listened on by {one} and by {other}{sections}, expected another port for one of them"
                ));
            }
            here.push((scheme, *list));
        }
        let same = fixed().map(|(address, _, spot)| ((address.socket, in_the_clear(address.scheme)), spot.clone()));
        note_repeats(same, |(socket, _)| format!("{socket} is listened on"));
        if !has_certificates {
            for (address, _, spot) in addresses.iter().filter(|(address, ..)| address.scheme.is_encrypted()) {
                spot.note(format!("{address} has no certificate to show, add [certificates.NAME] with chain and key"));
            }
        }
    }
}

/// Returns true if two listeners cannot share an address; each has the number of its list.
fn meet((one, of): (Scheme, usize), (other, list): (Scheme, usize)) -> bool {
    let by_udp = |scheme| matches!(scheme, Scheme::Plain | Scheme::Quic);
    let by_tcp = |scheme| scheme != Scheme::Quic;
    let is_shared = by_alpn(one) && by_alpn(other) && of == list;
    (by_udp(one) && by_udp(other)) || (by_tcp(one) && by_tcp(other) && !is_shared)
}

fn by_alpn(scheme: Scheme) -> bool {
    matches!(scheme, Scheme::Tls | Scheme::Https)
}

fn in_the_clear(scheme: Scheme) -> Scheme {
    if scheme == Scheme::Tcp { Scheme::Plain } else { scheme }
}

fn spoken(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Plain | Scheme::Tcp => "plain DNS",
        Scheme::Tls => "TLS",
        Scheme::Https => "HTTPS",
        Scheme::Http => "HTTP",
        Scheme::Quic => "QUIC",
    }
}

pub(super) fn read<'d>(node: &ConfigNode<'d>, references: &mut References<'d>) -> Vec<ListenConfig> {
    references.listening.lists += 1;
    let mut read: Vec<ListenConfig> = Vec::new();
    for item in node.items("[\"127.0.0.1:5300\"]") {
        let Some(one) = read_one(&item, references) else { continue };
        // The server presents the certificate before ALPN selects the protocol.
        let shares = |other: &&ListenConfig| {
            let (one, other) = (one.address, other.address);
            one.socket == other.socket && one.socket.port() != 0 && by_alpn(one.scheme) && by_alpn(other.scheme)
        };
        if let Some(other) = read.iter().find(shares)
            && other.certificate != one.certificate
        {
            let (socket, one, other) = (one.socket(), spoken(one.address.scheme), spoken(other.address.scheme));
            item.spot.note(format!(
                "{socket} shows one certificate by {other} and {one}, expected the same certificate for both, or none for both"
            ));
        }
        read.push(one);
    }
    read
}

fn read_one<'d>(item: &ConfigNode<'d>, references: &mut References<'d>) -> Option<ListenConfig> {
    let Some(section) = item.table() else {
        let url = item.parsed(listen_address)?;
        references.listening.push(url.address, item.spot.clone());
        return Some(url.into());
    };
    section.whole(|section| {
        let url = section.required("address", "\"tls://127.0.0.1:8853\"", text(listen_address));
        let certificate = section.optional("certificate", label);
        let proxy_from = section.optional("proxy_from", read_prefixes);
        let url = url?;
        let address = url.address;
        references.listening.push(address, section.spot_of("address"));
        if let Some(name) = &certificate {
            let spot = section.spot_of("certificate");
            match address.scheme.is_encrypted() {
                true => references.certificates.push((name.clone(), spot)),
                false => spot.note(format!(
                    "{address} shows no certificate, expected tls://, https:// or quic:// before the address"
                )),
            }
        }
        if proxy_from.is_some() && address.scheme == Scheme::Quic {
            let spot = section.spot_of("proxy_from");
            spot.note(format!("{address} cannot be behind a proxy: there is no PROXY header for QUIC"));
        }
        Some(ListenConfig { certificate, proxy_from: proxy_from.unwrap_or_default(), ..url.into() })
    })
}

pub(super) fn read_certificate(name: &str, node: &ConfigNode<'_>) -> Option<CertificateConfig> {
    node.section()?.whole(|section| {
        let chain = section.required("chain", "\"tls/chain.pem\"", file);
        let key = section.required("key", "\"tls/key.pem\"", file);
        let names = section.read("names", Vec::new(), |node| {
            Some(distinct(node.any_items("[\"dns.example\"]"), text(server_name), |name| format!("{name} stands")))
        });
        Some(CertificateConfig { name: name.to_owned(), chain: chain?, key: key?, names })
    })
}

fn server_name(text: &str) -> Result<String, Expectation> {
    let host = text.strip_prefix("*.").unwrap_or(text);
    let is_name =
        !host.contains('*') && !host.ends_with('.') && words::domain_name(host).is_ok_and(|name| !name.is_root());
    match is_name {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(Expectation::new("the name of a server, such as \"dns.example\" or \"*.dns.example\"")),
    }
}

/// Reads a listen address with or without a scheme. With port 0 the system chooses the port.
pub fn listen_address(text: &str) -> Result<ListenUrl, Expectation> {
    text.parse().map_err(|bad: BadAddress| Expectation::new(bad.to_string()).matching(LISTENER))
}

const LISTENER: &str = "^((tcp|tls|https?|quic|TCP|TLS|HTTPS?|QUIC)://)?([0-9.]+|[0-9A-Fa-f:.]+|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\])(:[0-9]+)?(/.*)?$";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::super::tests::check;

    fn config(line: &str) -> String {
        format!(
            "[forwarder]\nlisten = {line}\n[pools.ts]\nbackends = [\"192.0.2.1:53\"]\n[certificates.main]\n\
             chain = \"chain.pem\"\nkey = \"key.pem\"\n[certificates.other]\nchain = \"/o.pem\"\nkey = \"o.key\"\nnames = [\"*.Example\", \"a.example\"]\n"
        )
    }

    #[test]
    fn listeners_and_certificates_are_read() {
        let line = "[\"127.0.0.1:53\", \"tls://127.0.0.1\", { address = \"tls://[::1]:8854\", certificate = \"other\" }, \"tcp://127.0.0.2\", \
                    \"https://127.0.0.1:853/q\", \"quic://127.0.0.1\", \"http://127.0.0.1\"]";
        let config =
            Config::parse(&config(line), "c.toml", Path::new("/etc")).unwrap_or_else(|problems| panic!("{problems}"));
        let listen = config.forwarder.expect("there is one").listen;
        let shown: Vec<_> = listen.iter().map(|one| (one.address.to_string(), one.certificate.as_deref())).collect();
        let expected = [
            ("127.0.0.1:53", None),
            ("tls://127.0.0.1:853", None),
            ("tls://[::1]:8854", Some("other")),
            ("tcp://127.0.0.2:53", None),
            ("https://127.0.0.1:853", None),
            ("quic://127.0.0.1:853", None),
            ("http://127.0.0.1:80", None),
        ];
        assert_eq!(shown, expected.map(|(address, certificate)| (address.to_owned(), certificate)));
        let [main, other] = &config.certificates[..] else { panic!("there are two") };
        assert_eq!(
            (main.chain.as_path(), main.key.as_path()),
            (Path::new("/etc/chain.pem"), Path::new("/etc/key.pem"))
        );
        assert_eq!(
            (other.chain.as_path(), &*other.names),
            (Path::new("/o.pem"), &["*.example".to_owned(), "a.example".to_owned()][..])
        );
    }

    #[test]
    fn what_cannot_be_listened_on_is_told_with_its_remedy() {
        for (line, expected) in [
            (
                "[\"dot://127.0.0.1\"]",
                "2:11: forwarder.listen[0]: invalid value \"dot://127.0.0.1\": expected tls://, did you mean that by dot://?",
            ),
            (
                "[\"h3://127.0.0.1\"]",
                "2:11: forwarder.listen[0]: invalid value \"h3://127.0.0.1\": expected https:// or quic://, HTTP/3 is not spoken",
            ),
            (
                "[\"https://127.0.0.1/dns?query\"]",
                "2:11: forwarder.listen[0]: invalid value \"https://127.0.0.1/dns?query\": expected a path such as /dns-query, without spaces, ? or {",
            ),
            (
                "[\"tls://127.0.0.1/dns-query\"]",
                "2:11: forwarder.listen[0]: invalid value \"tls://127.0.0.1/dns-query\": expected no path: only https:// has one",
            ),
            (
                "[\"tls://127.0.0.1#a.example\"]",
                "2:11: forwarder.listen[0]: invalid value \"tls://127.0.0.1#a.example\": expected no #NAME, which is for backends: a listener's names stand in its certificate",
            ),
            (
                "[{ address = \"tls://127.0.0.1\", certificate = \"mian\" }]",
                "2:56: forwarder.listen[0].certificate: there is no certificate \"mian\", did you mean \"main\"?",
            ),
            (
                "[{ address = \"tls://127.0.0.1\", certificate = \"new\" }]",
                "2:56: forwarder.listen[0].certificate: there is no certificate \"new\", add [certificates.new]",
            ),
            (
                "[{ address = \"127.0.0.1:53\", certificate = \"main\" }]",
                "2:53: forwarder.listen[0].certificate: 127.0.0.1:53 shows no certificate, expected tls://, https:// or quic:// before the address",
            ),
            (
                "[\"127.0.0.1:853\", \"tls://127.0.0.1\"]",
                "2:28: forwarder.listen[1]: 127.0.0.1:853 is listened on by plain DNS and by TLS, expected another port for one of them",
            ),
            (
                "[\"127.0.0.1:853\", \"quic://127.0.0.1\"]",
                "2:28: forwarder.listen[1]: 127.0.0.1:853 is listened on by plain DNS and by QUIC, expected another port for one of them",
            ),
            (
                "[\"https://127.0.0.1:80\", \"http://127.0.0.1\"]",
                "2:35: forwarder.listen[1]: 127.0.0.1:80 is listened on by HTTPS and by HTTP, expected another port for one of them",
            ),
            (
                "[\"127.0.0.1:53\", \"tcp://127.0.0.1\"]",
                "2:27: forwarder.listen[1]: 127.0.0.1:53 is listened on twice, first on line 2",
            ),
            (
                "[\"tls://127.0.0.1\", \"tls://127.0.0.1:853\"]",
                "2:30: forwarder.listen[1]: 127.0.0.1:853 is listened on twice, first on line 2",
            ),
            (
                "[\"tls://127.0.0.1\", { address = \"https://127.0.0.1:853\", certificate = \"main\" }]",
                "2:30: forwarder.listen[1]: 127.0.0.1:853 shows one certificate by TLS and HTTPS, expected the same certificate for both, or none for both",
            ),
            (
                "[\"tls://127.0.0.1\"]\n[authorities.a]\nzones = [\"a.zone\"]\nlisten = [\"https://127.0.0.1:853\"]",
                "5:11: authorities.a.listen[0]: 127.0.0.1:853 is listened on by TLS and by HTTPS of another section, expected another port for one of them",
            ),
        ] {
            check(&config(line), &[expected]);
        }
        let alone = "[forwarder]\nlisten = [\"tls://127.0.0.1\"]\n[pools.ts]\nbackends = [\"192.0.2.1:53\"]\n";
        check(
            alone,
            &[
                "2:11: forwarder.listen[0]: tls://127.0.0.1:853 has no certificate to show, add [certificates.NAME] with chain and key",
            ],
        );
    }

    #[test]
    fn certificates_are_checked() {
        let rest = "[forwarder]\n[pools.ts]\nbackends = [\"192.0.2.1:53\"]\n";
        for (lines, expected) in [
            ("key = \"k\"", "1:1: certificates.c: chain is missing, write chain = \"tls/chain.pem\""),
            ("chain = \"c\"", "1:1: certificates.c: key is missing, write key = \"tls/key.pem\""),
            (
                "chain = \"c\"\nkey = \"k\"\nnames = [\"a.*.example\"]",
                "4:10: certificates.c.names[0]: invalid value \"a.*.example\": expected the name of a server, such as \"dns.example\" or \"*.dns.example\"",
            ),
            (
                "chain = \"c\"\nkey = \"k\"\nname = [\"a.example\"]",
                "4:1: certificates.c: unknown key \"name\", did you mean \"names\"?",
            ),
        ] {
            check(&format!("[certificates.c]\n{lines}\n{rest}"), &[expected]);
        }
    }
}
