//! `pools.*.backends`: address, transport, label, weight, and what authenticates the backend.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use dns::address::{BackendAddress, BackendUrl, HttpPath, Pin, Scheme, ServerIdentity, ServerTrust, Verify};
use serde::{Deserialize, Serialize};

use super::readers::{boolean, distinct, file, integer, label, text, word};
use super::references::References;
use super::section::{ConfigNode, ConfigSection, note_repeats};
use super::transfer::PRIMARIES_EXAMPLE;
use super::{limits, words};

pub(super) const BACKENDS_EXAMPLE: &str = "[\"127.0.0.1:5301\"]";

/// One entry of `pools.*.backends`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendConfig {
    /// The address and transport of the backend.
    pub address: BackendAddress,
    /// The label in logs and metrics; defaults to the address.
    pub name: String,
    /// Share of the load, 1 to 1000.
    pub weight: u16,
    /// The tier: 0, or 1 to 3 for a spare of the lower tiers.
    #[serde(default)]
    pub tier: u8,
    /// The machine behind this address. `None`: no other backend shares its machine.
    #[serde(default)]
    pub server: Option<String>,
    /// The failure domain, such as a rack, whose backends may be slow together. `None`: one without others.
    #[serde(default)]
    pub site: Option<String>,
    /// The path of DNS over HTTPS.
    #[serde(default)]
    pub path: HttpPath,
    /// True if a PROXY protocol header passes on the address of the client.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// True if the AD bit is trusted. `None`: the pool decides.
    #[serde(default)]
    pub trust_ad: Option<bool>,
    /// The identity that an encrypted backend must prove.
    #[serde(default)]
    pub trust: ServerTrust,
}

impl BackendConfig {
    /// A backend at this address, labeled by the address.
    pub fn at(address: impl Into<BackendAddress>) -> Self {
        let address = address.into();
        Self {
            address,
            name: address.to_string(),
            weight: 1,
            tier: 0,
            server: None,
            site: None,
            path: HttpPath::default(),
            proxy_protocol: false,
            trust_ad: None,
            trust: ServerTrust::default(),
        }
    }

    /// A backend at this URL, labeled by the address.
    pub fn of_url(BackendUrl { address, path, name }: BackendUrl) -> Self {
        let mut backend = Self::at(address);
        backend.trust.identity.name = name;
        if let Some(path) = path {
            backend.name.push_str(path.as_str());
            backend.path = path;
        }
        backend
    }

    /// Returns true if the AD bit is trusted (RFC 4035 section 4.9.3). By default only if no party on the
    /// path can set it: over loopback, or over an encrypted transport with a proven name or key.
    pub fn is_ad_trusted(&self, pool: Option<bool>) -> bool {
        self.trust_ad.or(pool).unwrap_or_else(|| {
            let is_proven = self.address.scheme.is_encrypted() && self.trust.identity.verify != Verify::None;
            is_proven || self.address.socket.ip().to_canonical().is_loopback()
        })
    }
}

pub(super) fn read_all<'d>(
    node: &ConfigNode<'d>,
    may_be_empty: bool,
    references: &mut References<'d>,
) -> Vec<BackendConfig> {
    let items = if may_be_empty { node.any_items(BACKENDS_EXAMPLE) } else { node.items(BACKENDS_EXAMPLE) };
    let mut spots = Vec::new();
    let read = |item: &ConfigNode<'d>| {
        let backend = read(item, references)?;
        references.backends.push((backend.address.socket, item.spot.clone()));
        spots.push(item.spot.clone());
        Some(backend)
    };
    let backends = distinct(items, read, |backend| format!("backend {} stands in this pool", backend.address));
    let named = backends.iter().zip(spots).filter(|(backend, _)| backend.name != backend.address.to_string());
    note_repeats(named.map(|(backend, spot)| (&backend.name, spot)), |name| {
        format!("the name {name:?} stands in this pool")
    });
    backends
}

fn read<'d>(item: &ConfigNode<'d>, references: &mut References<'d>) -> Option<BackendConfig> {
    let Some(section) = item.table() else { return item.parsed(words::backend).map(BackendConfig::of_url) };
    section.whole(|section| {
        let url = section.required("address", "\"127.0.0.1:5301\"", text(words::backend));
        let name = section.optional("name", label);
        let weight = section.read("weight", 1, integer(limits::WEIGHT));
        let tier = section.read("tier", 0, integer(limits::TIER));
        let (server, site) = (section.optional("server", label), section.optional("site", label));
        let proxy_protocol = read_proxy_protocol(section, url.as_ref());
        let trust_ad = section.optional("trust_ad", boolean);
        let trust = read_trust(section, url.as_ref(), references);
        let of_url = BackendConfig::of_url(url?);
        let name = name.unwrap_or_else(|| of_url.name.clone());
        Some(BackendConfig { name, weight, tier, server, site, proxy_protocol, trust_ad, trust, ..of_url })
    })
}

fn read_proxy_protocol(section: &mut ConfigSection<'_>, url: Option<&BackendUrl>) -> bool {
    let is_set = section.read("proxy_protocol", false, boolean);
    if is_set && url.is_some_and(|url| !matches!(url.address.scheme, Scheme::Plain | Scheme::Tcp)) {
        section.spot_of("proxy_protocol").note(
            "proxy_protocol works only for backends by UDP and TCP, write the address without a scheme or with tcp://",
        );
    }
    is_set
}

fn read_trust<'d>(
    section: &mut ConfigSection<'d>,
    url: Option<&BackendUrl>,
    references: &mut References<'d>,
) -> ServerTrust {
    if url.is_some_and(|url| !url.address.scheme.is_encrypted()) {
        for key in ["verify", "ca", "pins", "certificate"].into_iter().filter(|key| section.has(key)) {
            section
                .spot_of(key)
                .note(format!("{key} is for encrypted backends, write tls://, https:// or quic:// before the address"));
        }
    }
    let verify = section.optional("verify", word);
    let ca = section.optional("ca", file);
    let pins = section.take("pins").map(|node| node.items(PINS_EXAMPLE)).unwrap_or_default();
    let pins: Vec<Pin> = pins.iter().filter_map(|node| node.parsed(words::pin)).collect();
    match verify {
        Some(Verify::Pin) if pins.is_empty() => {
            section.spot_of("verify").note(format!("no certificate would be accepted, write pins = {PINS_EXAMPLE}"))
        }
        Some(Verify::None) if !pins.is_empty() => {
            section.spot_of("verify").note("pins have no effect with this verify, write verify = \"pin\"");
        }
        _ => {}
    }
    let identity =
        ServerIdentity { name: url.and_then(|url| url.name.clone()), verify: verify.unwrap_or_default(), pins };
    let certificate = section.optional("certificate", label);
    references.certificates.extend(certificate.clone().map(|name| (name, section.spot_of("certificate"))));
    ServerTrust { identity, ca, certificate }
}

const PINS_EXAMPLE: &str = "[\"sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"]";

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

impl fmt::Display for PrimaryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

pub(super) fn read_primaries<'d>(node: &ConfigNode<'d>, references: &mut References<'d>) -> Vec<PrimaryConfig> {
    let items = node.items(PRIMARIES_EXAMPLE);
    distinct(items, |item| read_primary(item, references), |primary| format!("{primary} is named"))
}

fn read_primary<'d>(item: &ConfigNode<'d>, references: &mut References<'d>) -> Option<PrimaryConfig> {
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

    fn read(backends: &str) -> Vec<BackendConfig> {
        let text = format!("[forwarder]\n[pools.ts]\nbackends = [{backends}]\n");
        Config::parse(&text, "c.toml", Path::new("/etc/hedgerow")).expect(backends).pools.remove(0).backends
    }

    #[test]
    fn backends_are_read_with_what_they_must_show() {
        let pin = "sha256/AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let read = read(&format!(
            "\"192.0.2.1\", \"tcp://192.0.2.1\", \"tls://192.0.2.1#DNS.example\", \
             {{ address = \"tls://192.0.2.2\", server = \"two\", verify = \"pin\", ca = \"ca.pem\", pins = [\"{pin}\"] }}"
        ));
        let names: Vec<_> = read.iter().map(|backend| backend.name.as_str()).collect();
        assert_eq!(names, ["192.0.2.1:53", "tcp://192.0.2.1:53", "tls://192.0.2.1:853", "tls://192.0.2.2:853"]);
        assert_eq!(read[2].trust.identity.name.as_deref(), Some("dns.example"));
        let identity = ServerIdentity { name: None, verify: Verify::Pin, pins: vec![pin.parse().expect("a pin")] };
        let ca = Some("/etc/hedgerow/ca.pem".into());
        assert_eq!(read[3].trust, ServerTrust { identity, ca, certificate: None });
        assert_eq!(read[3].server.as_deref(), Some("two"));
    }

    #[test]
    fn backends_that_are_told_who_asks_are_asked_in_the_clear_and_nothing_of_theirs_is_kept() {
        let text = |keys: &str| {
            let reported = "{ address = \"tcp://192.0.2.2\", proxy_protocol = true }";
            format!("[forwarder]\n[pools.ts]\nbackends = [\"192.0.2.1\", {reported}]\n{keys}\n")
        };
        let config = Config::parse(&text(""), "c.toml", Path::new("")).expect("a config");
        let pool = &config.pools[0];
        assert_eq!(pool.backends.iter().map(|backend| backend.proxy_protocol).collect::<Vec<_>>(), [false, true]);
        assert!(!pool.cache);
        let reported =
            "pools.ts.cache: answers of backends with proxy_protocol may be for one client alone, write cache = false";
        check(&text("cache = true"), &[&format!("4:9: {reported}")]);
        let off = text("cache = true").replace("= true }", "= false }");
        assert!(Config::parse(&off, "c.toml", Path::new("")).expect("a config").pools[0].cache);
    }

    #[test]
    fn ad_is_trusted_by_the_word_of_the_backend_then_of_the_pool_then_by_transport() {
        let (tls, none) = ("'tls://192.0.2.1'", "{ address = 'tls://192.0.2.2', verify = 'none' }");
        let (own_true, own_false) =
            ("{ address = '192.0.2.3', trust_ad = true }", "{ address = '127.0.0.1', trust_ad = false }");
        let backends = read(&format!("'192.0.2.1', '[::1]', '127.0.0.2', {tls}, {none}, {own_true}, {own_false}"));
        let trusted = |pool| backends.iter().map(|backend| backend.is_ad_trusted(pool)).collect::<Vec<_>>();
        assert_eq!(trusted(None), [false, true, true, true, false, true, false]);
        assert_eq!(trusted(Some(true)), [true, true, true, true, true, true, false]);
        assert_eq!(trusted(Some(false)), [false, false, false, false, false, true, false]);
        let text = "[forwarder]\n[pools.ts]\nbackends = ['192.0.2.1']\ntrust_ad = true\nbelieve_ede = false\n";
        let config = Config::parse(text, "c.toml", Path::new("")).expect("a config");
        assert_eq!((config.pools[0].trust_ad, config.pools[0].rules.believe_ede), (Some(true), false));
    }

    #[test]
    fn certificate_that_is_shown_must_be_there() {
        let text = |name: &str| {
            format!(
                "[forwarder]\n[pools.ts]\nbackends = [{{ address = \"tls://192.0.2.1\", certificate = \"{name}\" }}]\n\
                 [certificates.main]\nchain = \"c\"\nkey = \"k\"\n"
            )
        };
        let config = Config::parse(&text("main"), "c.toml", Path::new("")).expect("a config");
        assert_eq!(config.pools[0].backends[0].trust.certificate.as_deref(), Some("main"));
        let place = "3:58: pools.ts.backends[0].certificate: there is no certificate";
        check(&text("mian"), &[&format!("{place} \"mian\", did you mean \"main\"?")]);
        check(&text("other"), &[&format!("{place} \"other\", add [certificates.other]")]);
    }

    #[test]
    fn what_cannot_be_asked_or_believed_is_told() {
        for (backend, expected) in [
            (
                "\"dot://192.0.2.1\"",
                "13: pools.ts.backends[0]: invalid value \"dot://192.0.2.1\": expected tls://, did you mean that by dot://?",
            ),
            (
                "{ address = \"tls://192.0.2.1\", verify = \"pin\" }",
                "53: pools.ts.backends[0].verify: no certificate would be accepted, write pins = \
                 [\"sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"]",
            ),
            (
                "{ address = \"tls://192.0.2.1\", verify = \"none\", pins = [\"sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"] }",
                "53: pools.ts.backends[0].verify: pins have no effect with this verify, write verify = \"pin\"",
            ),
            (
                "{ address = \"quic://192.0.2.1\", proxy_protocol = true }",
                "62: pools.ts.backends[0].proxy_protocol: proxy_protocol works only for backends by UDP and TCP, write the address \
                 without a scheme or with tcp://",
            ),
            (
                "{ address = \"tls://192.0.2.1\", verify = \"all\" }",
                "53: pools.ts.backends[0].verify: invalid value \"all\": expected one of full, pin, none",
            ),
            (
                "{ address = \"tls://192.0.2.1\", pins = [\"sha256/AA==\"] }",
                "52: pools.ts.backends[0].pins[0]: invalid value \"sha256/AA==\": \
                 expected sha256/ and the 44 characters that the SHA-256 of a public key has in base64",
            ),
            (
                "{ address = \"192.0.2.1\", verify = \"none\" }",
                "47: pools.ts.backends[0].verify: verify is for encrypted backends, write tls://, https:// or quic:// before the address",
            ),
            (
                "\"192.0.2.1\", \"192.0.2.1:53\"",
                "26: pools.ts.backends[1]: backend 192.0.2.1:53 stands in this pool twice, first on line 3",
            ),
        ] {
            check(&format!("[forwarder]\n[pools.ts]\nbackends = [{backend}]\n"), &[&format!("3:{expected}")]);
        }
    }
}
