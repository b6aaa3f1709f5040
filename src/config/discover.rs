//! `[pools.*.discover]`, `[authorities.*.register]` and `[etcd]`: discovery and registration of pool members.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::listen::ListenConfig;
use super::section::{ConfigSection, DocumentSpot, note_repeats};
use super::words::Expectation;
use super::{limits, words};
use crate::limit::{AccessRules, Prefix};
use crate::wire::Name;

/// `[pools.*.discover]`: the sources of pool members besides `backends`.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscoverConfig {
    /// The key in etcd below which members register.
    pub etcd: Option<String>,
    /// The DNS name that lists members.
    pub dns: Option<DnsTarget>,
    /// The resolvers for that name. Empty: those of /etc/resolv.conf.
    pub resolvers: Vec<SocketAddr>,
    /// The file that lists members, already resolved against the folder of the config file.
    pub file: Option<PathBuf>,
    /// The allowed addresses of members.
    pub allow: Vec<Prefix>,
    /// The largest number of members.
    pub max: usize,
    /// The time that a removed member stays in the pool while it is up.
    pub hold: Duration,
}

impl DiscoverConfig {
    /// The default of `max`: more than most fleets have, and few enough for a small machine.
    pub const MAX: usize = 1024;

    /// The default of `hold`: longer than a registry takes to restart and its members to register again.
    pub const HOLD: Duration = Duration::from_secs(30);

    /// The settings of the command line.
    pub fn of_key(key: String) -> Self {
        Self {
            etcd: Some(key),
            dns: None,
            resolvers: Vec::new(),
            file: None,
            allow: Self::usual_allow(),
            max: Self::MAX,
            hold: Self::HOLD,
        }
    }

    /// The default of `allow`: networks served by default, and shared address space (RFC 6598).
    pub fn usual_allow() -> Vec<Prefix> {
        let local = AccessRules::LOCAL.into_iter().chain(["100.64.0.0/10"]);
        local.map(|prefix| prefix.parse().expect("a prefix")).collect()
    }
}

/// `discover.dns`: a name that lists members.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DnsTarget {
    /// `NAME:PORT`: the addresses of a host.
    Host {
        /// The name of the host.
        name: Name,
        /// The port of all members.
        port: u16,
    },
    /// `_SERVICE._PROTO.NAME`: a service by SRV (RFC 2782).
    Service(Name),
}

impl std::fmt::Display for DnsTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host { name, port } => write!(f, "{name}:{port}"),
            Self::Service(name) => name.fmt(f),
        }
    }
}

/// `[authorities.*.register]`: how an authority registers itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterConfig {
    /// The key of the registration in etcd.
    pub etcd: String,
    /// The address for queries. `None`: the first bound address.
    pub address: Option<SocketAddr>,
    /// The label. `None`: the address.
    pub name: Option<String>,
    /// The share of the load.
    pub weight: u16,
    /// The lifetime of the registration without a renewal.
    pub lease: Duration,
    /// The longest wait for all zones to load before registration.
    pub wait: Duration,
}

impl RegisterConfig {
    /// The default of `weight`.
    pub const WEIGHT: u16 = 1;

    /// The default of `lease`. A crashed authority stays listed for that long; probes find it down sooner.
    pub const LEASE: Duration = Duration::from_secs(10);

    /// The default of `wait`.
    pub const WAIT: Duration = Duration::from_secs(30);

    /// The settings of the command line.
    pub fn of_key(key: String, address: Option<SocketAddr>) -> Self {
        let (weight, lease, wait) = (Self::WEIGHT, Self::LEASE, Self::WAIT);
        Self { etcd: key, address, name: None, weight, lease, wait }
    }
}

/// `[etcd]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// The members of the etcd cluster, used in turn; at least one.
    pub endpoints: Vec<HttpEndpoint>,
    /// The prefix of all keys of hedgerow.
    pub prefix: String,
    /// The user name for authentication.
    pub user: Option<String>,
    /// The file with the password, already resolved against the folder of the config file.
    pub password_file: Option<PathBuf>,
    /// The file with trusted CA certificates, already resolved. `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// The timeout of one request.
    pub timeout: Duration,
}

impl EtcdConfig {
    /// The default of `prefix`.
    pub const PREFIX: &str = "hedgerow";

    /// The default of `timeout`: an election takes about one second.
    pub const TIMEOUT: Duration = Duration::from_secs(2);

    /// The settings of the command line, if it names any endpoint.
    pub fn of_endpoints(endpoints: &[HttpEndpoint]) -> Option<Self> {
        let etcd = Self {
            endpoints: endpoints.to_vec(),
            prefix: Self::PREFIX.to_owned(),
            user: None,
            password_file: None,
            ca_file: None,
            timeout: Self::TIMEOUT,
        };
        Some(etcd).filter(|etcd| !etcd.endpoints.is_empty())
    }
}

/// `http://ADDRESS:PORT` or `https://ADDRESS:PORT#NAME`: an HTTP server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpEndpoint {
    /// The address of the server.
    pub address: SocketAddr,
    /// The name to verify by TLS. `None`: no encryption.
    pub tls: Option<TlsName>,
}

/// The name that a certificate must contain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TlsName {
    /// The address of the connection.
    Address(IpAddr),
    /// A host name.
    Name(String),
}

impl std::fmt::Display for HttpEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.tls {
            None => write!(f, "http://{}", self.address),
            Some(_) => write!(f, "https://{}", self.address),
        }
    }
}

pub(super) fn read<'d>(
    mut section: ConfigSection<'d>,
    folder: &Path,
    etcd_uses: &mut Vec<DocumentSpot<'d>>,
) -> DiscoverConfig {
    let etcd = read_key(&mut section, etcd_uses);
    let dns = section.take("dns").and_then(|node| node.parsed(dns_target));
    let resolvers = section.take("resolvers").map(|node| {
        let items = node.any_items("[\"192.0.2.1:53\"]").into_iter();
        let addresses: Vec<_> =
            items.filter_map(|item| Some((item.parsed(words::backend_address)?, item.spot))).collect();
        note_repeats(addresses.iter().cloned(), |address| format!("{address} is named"));
        addresses.into_iter().map(|(address, _)| address).collect()
    });
    let file = section.take("file").and_then(|node| node.parsed(words::file_name));
    let allow = section.take("allow").map(|node| {
        let items = node.items("[\"192.0.2.0/24\"]").into_iter();
        items.filter_map(|item| item.parsed(words::prefix)).collect()
    });
    let max = section.integer("max", limits::MEMBERS, DiscoverConfig::MAX);
    let hold = section.parsed("hold", |text| limits::HOLD.parse(text), DiscoverConfig::HOLD);
    section.need_any(&["etcd", "dns", "file"], "nothing lists members, write etcd, dns or file");
    section.finish();
    let file = file.map(|file| folder.join(file));
    let allow = allow.unwrap_or_else(DiscoverConfig::usual_allow);
    DiscoverConfig { etcd, dns, resolvers: resolvers.unwrap_or_default(), file, allow, max, hold }
}

pub(super) fn read_register<'d>(
    mut section: ConfigSection<'d>,
    listen: &[ListenConfig],
    etcd_uses: &mut Vec<DocumentSpot<'d>>,
) -> RegisterConfig {
    let spot = section.spot.clone();
    let etcd = section.require("etcd", "\"ts\"");
    let etcd = etcd.and_then(|node| {
        etcd_uses.push(node.spot.clone());
        node.parsed(etcd_key)
    });
    let address = section.take("address").and_then(|node| node.parsed(words::backend_address));
    let is_plain = listen.first().is_some_and(|first| !first.socket().ip().is_unspecified());
    if address.is_none() && !listen.is_empty() && !is_plain {
        spot.note(
            "address is missing, and a wildcard listener has no address to register, write address = \"192.0.2.1:53\"",
        );
    }
    let name = section.take("name").and_then(|node| node.parsed(words::label));
    let weight = section.integer("weight", limits::WEIGHT, RegisterConfig::WEIGHT);
    let lease = section.parsed("lease", |text| limits::LEASE.parse_seconds(text), RegisterConfig::LEASE);
    let wait = section.parsed("wait", |text| limits::REGISTER_WAIT.parse(text), RegisterConfig::WAIT);
    section.finish();
    RegisterConfig { etcd: etcd.unwrap_or_default(), address, name, weight, lease, wait }
}

pub(super) fn read_etcd(mut section: ConfigSection<'_>, folder: &Path) -> EtcdConfig {
    let spot = section.spot.clone();
    let endpoints = section.require("endpoints", "[\"http://127.0.0.1:2379\"]").map(|node| {
        let items = node.items("[\"http://127.0.0.1:2379\"]").into_iter();
        let endpoints: Vec<_> = items.filter_map(|item| Some((item.parsed(http_endpoint)?, item.spot))).collect();
        note_repeats(endpoints.iter().cloned(), |endpoint| format!("{endpoint} is named"));
        endpoints.into_iter().map(|(endpoint, _)| endpoint).collect::<Vec<_>>()
    });
    let prefix = section.parsed("prefix", etcd_key, EtcdConfig::PREFIX.to_owned());
    let user = section.take("user").and_then(|node| node.parsed(words::label));
    let password_file = section.take("password_file").and_then(|node| node.parsed(words::file_name));
    match (&user, &password_file) {
        (Some(_), None) => spot.note("password_file is missing, write password_file = \"etcd.password\""),
        (None, Some(_)) => spot.note("user is missing, write user = \"hedgerow\""),
        (Some(_), Some(_)) | (None, None) => {}
    }
    let ca_file = section.take("ca_file").and_then(|node| node.parsed(words::file_name));
    let timeout = section.parsed("timeout", |text| limits::ETCD_TIMEOUT.parse(text), EtcdConfig::TIMEOUT);
    section.finish();
    EtcdConfig {
        endpoints: endpoints.unwrap_or_default(),
        prefix,
        user,
        password_file: password_file.map(|file| folder.join(file)),
        ca_file: ca_file.map(|file| folder.join(file)),
        timeout,
    }
}

pub(super) fn note_missing_etcd(etcd: Option<&EtcdConfig>, uses: Vec<DocumentSpot<'_>>) {
    if etcd.is_none() {
        let missing = "there is no etcd to ask, add [etcd] with endpoints = [\"http://127.0.0.1:2379\"]";
        uses.iter().for_each(|spot| spot.note(missing));
    }
}

fn read_key<'d>(section: &mut ConfigSection<'d>, etcd_uses: &mut Vec<DocumentSpot<'d>>) -> Option<String> {
    let node = section.take("etcd")?;
    etcd_uses.push(node.spot.clone());
    node.parsed(etcd_key)
}

/// Reads one segment of an etcd key.
pub fn etcd_key(text: &str) -> Result<String, Expectation> {
    let is_right = !text.is_empty()
        && text.len() <= MAX_KEY
        && !text.starts_with('/')
        && !text.ends_with('/')
        && !text.chars().any(char::is_control);
    match is_right {
        true => Ok(text.to_owned()),
        false => Err(Expectation::new(format!(
            "a key of 1 to {MAX_KEY} octets such as \"ts\", without / at its ends and without control characters"
        ))
        .matching("^[^/]")),
    }
}

/// Reads `http://ADDRESS:PORT` or `https://ADDRESS:PORT`, optionally with `#NAME`.
pub fn http_endpoint(text: &str) -> Result<HttpEndpoint, Expectation> {
    let expected = |what: &str| Expectation::new(what).matching("^https?://(localhost:|[0-9\\[])");
    let (scheme, rest) = text.split_once("://").ok_or_else(|| expected(ENDPOINT_FORM))?;
    let (address, name) = rest.split_once('#').map_or((rest, None), |(address, name)| (address, Some(name)));
    let address = address.strip_suffix('/').unwrap_or(address);
    // RFC 6761 section 6.3: `localhost` needs no lookup.
    let local = address.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let address = local.as_deref().unwrap_or(address);
    let is_address = address.starts_with('[') || address.starts_with(|letter: char| letter.is_ascii_digit());
    if !is_address {
        return Err(expected(ENDPOINT_NAME));
    }
    let address = words::backend_address(address)?;
    let tls = match (scheme, name) {
        ("http", None) => None,
        ("https", None) => Some(TlsName::Address(address.ip())),
        ("https", Some(name)) if !name.is_empty() && name.parse::<Name>().is_ok() => {
            Some(TlsName::Name(name.to_owned()))
        }
        _ => return Err(expected(ENDPOINT_FORM)),
    };
    Ok(HttpEndpoint { address, tls })
}

fn dns_target(text: &str) -> Result<DnsTarget, Expectation> {
    let form = || {
        Expectation::new(
            "a name with a port such as \"ts.example.org:53\", or a service such as \"_dns._udp.ts.example.org\"",
        )
        .matching(words::NOT_EMPTY)
    };
    if text.starts_with('_') {
        let name = words::domain_name(text)?;
        let labels: Vec<_> = name.labels().collect();
        let is_service = labels.len() > 2 && labels.get(1).is_some_and(|label| label.starts_with(b"_"));
        return if is_service { Ok(DnsTarget::Service(name)) } else { Err(form()) };
    }
    let (name, port) = text.rsplit_once(':').ok_or_else(form)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(form)?;
    if name.parse::<IpAddr>().is_ok() || name.contains(':') {
        return Err(Expectation::new("a name, since an address is one member: write it in backends"));
    }
    Ok(DnsTarget::Host { name: words::domain_name(name)?, port })
}

const ENDPOINT_FORM: &str =
    "a URL such as \"http://127.0.0.1:2379\", or \"https://192.0.2.1:2379#NAME\" where a certificate bears a name";

const ENDPOINT_NAME: &str = "an IP address for the host, as in \"http://127.0.0.1:2379\", since hedgerow does not resolve names for itself; for https, write \
     the name in the certificate behind #";

const MAX_KEY: usize = 255;

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::tests::check;
    use super::*;

    fn check_discover(line: &str, expected: &str) {
        let text =
            format!("[forwarder]\n[pools.ts.discover]\n{line}\n[etcd]\nendpoints = [\"http://127.0.0.1:2379\"]\n");
        check(&text, &[&format!("3:{expected}")]);
    }

    #[test]
    fn discovery_is_read() {
        let text = "[forwarder]\n[pools.ts.discover]\netcd = \"eu/ts\"\ndns = \"ts.example:5301\"\nfile = \"m.json\"\n\
                    resolvers = [\"192.0.2.53:53\"]\nallow = [\"10.0.0.0/8\"]\nmax = 7\nhold = \"0s\"\n\
                    [etcd]\nendpoints = [\"http://127.0.0.1:2379\", \"https://[::1]:2379\", \"https://192.0.2.1:2379#etcd.example\"]\n\
                    prefix = \"p\"\nuser = \"u\"\npassword_file = \"pw\"\nca_file = \"ca.pem\"\ntimeout = \"500ms\"\n";
        let config = Config::parse(text, "c.toml", Path::new("/etc/h")).unwrap_or_else(|p| panic!("{p}"));
        let pool = &config.pools[0];
        assert!(pool.backends.is_empty());
        let expected = DiscoverConfig {
            etcd: Some("eu/ts".to_owned()),
            dns: Some(DnsTarget::Host { name: "ts.example".parse().expect("a name"), port: 5301 }),
            resolvers: vec!["192.0.2.53:53".parse().expect("an address")],
            file: Some("/etc/h/m.json".into()),
            allow: vec!["10.0.0.0/8".parse().expect("a prefix")],
            max: 7,
            hold: Duration::ZERO,
        };
        assert_eq!(pool.discover.as_ref(), Some(&expected));
        let etcd = config.etcd.expect("it is there");
        let endpoints: Vec<_> = etcd.endpoints.iter().map(HttpEndpoint::to_string).collect();
        assert_eq!(endpoints, ["http://127.0.0.1:2379", "https://[::1]:2379", "https://192.0.2.1:2379"]);
        assert_eq!(etcd.endpoints[2].tls, Some(TlsName::Name("etcd.example".to_owned())));
        assert_eq!((&*etcd.prefix, etcd.user.as_deref(), etcd.timeout), ("p", Some("u"), Duration::from_millis(500)));
        let text = "[forwarder]\n[pools.ts.discover]\ndns = \"_dns._udp.ts.example\"\n";
        let config = Config::parse(text, "c.toml", Path::new("")).unwrap_or_else(|p| panic!("{p}"));
        let discover = config.pools[0].discover.clone().expect("it is there");
        assert_eq!(discover.dns, Some(DnsTarget::Service("_dns._udp.ts.example".parse().expect("a name"))));
        assert_eq!((discover.max, discover.hold), (DiscoverConfig::MAX, DiscoverConfig::HOLD));
        assert_eq!(discover.allow, DiscoverConfig::usual_allow());
    }

    #[test]
    fn members_are_at_private_addresses_by_default() {
        let allow = DiscoverConfig::usual_allow();
        for (ip, expected) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("192.168.0.1", true),
            ("100.64.0.1", true),
            ("169.254.0.1", true),
            ("::1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("192.0.2.1", false),
            ("100.128.0.1", false),
            ("8.8.8.8", false),
            ("2001:db8::1", false),
        ] {
            let ip = ip.parse().expect("an address");
            assert_eq!(allow.iter().any(|prefix| prefix.contains(ip)), expected, "{ip}");
        }
    }

    #[test]
    fn discovery_is_checked() {
        for (line, expected) in [
            ("etdc = \"ts\"\nfile = \"f\"", "1: pools.ts.discover: unknown key \"etdc\", did you mean \"etcd\"?"),
            (
                "etcd = \"/ts\"",
                "8: pools.ts.discover.etcd: invalid value \"/ts\": expected a key of 1 to 255 octets such as \"ts\", without / at its ends and without control characters",
            ),
            (
                "dns = \"ts.example\"",
                "7: pools.ts.discover.dns: invalid value \"ts.example\": expected a name with a port such as \"ts.example.org:53\", or a service such as \"_dns._udp.ts.example.org\"",
            ),
            (
                "dns = \"192.0.2.1:53\"",
                "7: pools.ts.discover.dns: invalid value \"192.0.2.1:53\": expected a name, since an address is one member: write it in backends",
            ),
            (
                "dns = \"_dns.ts\"",
                "7: pools.ts.discover.dns: invalid value \"_dns.ts\": expected a name with a port such as \"ts.example.org:53\", or a service such as \"_dns._udp.ts.example.org\"",
            ),
            ("file = \"\"", "8: pools.ts.discover.file: invalid value \"\": expected the name of a file"),
            ("file = \"f\"\nmax = 0", ""),
            ("file = \"f\"\nhold = \"2h\"", ""),
        ] {
            if !expected.is_empty() {
                check_discover(line, expected);
            }
        }
        let rest = "[etcd]\nendpoints = [\"http://127.0.0.1:2379\"]\n";
        check(
            &format!("[forwarder]\n[pools.ts.discover]\nfile = \"f\"\nmax = 0\nhold = \"2h\"\n{rest}"),
            &[
                "4:7: pools.ts.discover.max: invalid value 0: expected an integer from 1 to 10000",
                "5:8: pools.ts.discover.hold: invalid value \"2h\": expected a duration from 0s to 1h",
            ],
        );
        check(
            "[forwarder]\n[pools.ts.discover]\nmax = 5\n",
            &["2:1: pools.ts.discover: nothing lists members, write etcd, dns or file"],
        );
        check(
            "[forwarder]\n[pools.ts.discover]\netcd = \"ts\"\n",
            &[
                "3:8: pools.ts.discover.etcd: there is no etcd to ask, add [etcd] with endpoints = [\"http://127.0.0.1:2379\"]",
            ],
        );
    }

    #[test]
    fn etcd_is_checked() {
        let one = "[authorities.a]\nlisten = [\"127.0.0.1:53\"]\nzones = [\"a.txt\"]\n";
        for (line, expected) in [
            (
                "endpoints = [\"127.0.0.1:2379\"]",
                "2:14: etcd.endpoints[0]: invalid value \"127.0.0.1:2379\": expected a URL such as \"http://127.0.0.1:2379\", or \"https://192.0.2.1:2379#NAME\" where a certificate bears a name",
            ),
            ("endpoints = []", "2:13: etcd.endpoints: expected at least one, such as [\"http://127.0.0.1:2379\"]"),
            (
                "endpoints = [\"http://127.0.0.1:1\"]\nuser = \"u\"",
                "1:1: etcd: password_file is missing, write password_file = \"etcd.password\"",
            ),
            (
                "endpoints = [\"http://127.0.0.1:1\"]\nendpoint = \"u\"",
                "3:1: etcd: unknown key \"endpoint\", did you mean \"endpoints\"?",
            ),
            (
                "endpoints = [\"http://127.0.0.1:1\", \"http://127.0.0.1:1\"]",
                "2:36: etcd.endpoints[1]: http://127.0.0.1:1 is named twice, first on line 2",
            ),
        ] {
            check(&format!("[etcd]\n{line}\n{one}"), &[expected]);
        }
        let reported = http_endpoint("http://etcd.example:2379").expect_err("a name").to_string();
        assert!(reported.starts_with("expected an IP address for the host"), "{reported}");
    }

    #[test]
    fn registration_is_checked() {
        let authority = |listen: &str, register: &str| {
            format!(
                "[authorities.a]\nlisten = [\"{listen}\"]\nzones = [\"a.txt\"]\n[authorities.a.register]\n{register}\n[etcd]\nendpoints = [\"http://127.0.0.1:2379\"]\n"
            )
        };
        let text = authority(
            "0.0.0.0:53",
            "etcd = \"ts\"\naddress = \"192.0.2.1:53\"\nweight = 3\nlease = \"2s\"\nwait = \"0s\"\nname = \"n\"",
        );
        let config = Config::parse(&text, "c.toml", Path::new("")).unwrap_or_else(|p| panic!("{p}"));
        let expected = RegisterConfig {
            etcd: "ts".to_owned(),
            address: Some("192.0.2.1:53".parse().expect("an address")),
            name: Some("n".to_owned()),
            weight: 3,
            lease: Duration::from_secs(2),
            wait: Duration::ZERO,
        };
        assert_eq!(config.authorities[0].register, Some(expected));
        for (listen, register, expected) in [
            (
                "0.0.0.0:53",
                "etcd = \"ts\"",
                "4:1: authorities.a.register: address is missing, and a wildcard listener has no address to register, write address = \"192.0.2.1:53\"",
            ),
            ("127.0.0.1:53", "weight = 1", "4:1: authorities.a.register: etcd is missing, write etcd = \"ts\""),
            (
                "127.0.0.1:53",
                "etcd = \"ts\"\nlease = \"1s\"",
                "6:9: authorities.a.register.lease: invalid value \"1s\": expected whole seconds from 2s to 10m",
            ),
        ] {
            check(&authority(listen, register), &[expected]);
        }
    }
}
