//! `[pools.*.discover]`, `[authorities.*.register]` and `[etcd]`: discovery and registration of pool members.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use dns::Name;
use limit::{AccessRules, Prefix};

use super::limits::{self, ms, secs};
use super::listen::ListenConfig;
use super::readers::{distinct, duration, file, integer, label, seconds, some, text};
use super::references::References;
use super::section::ConfigSection;
use super::words::{self, Expectation};

config_section! {
    /// `[pools.*.discover]`: the sources of pool members besides `backends`.
    pub struct DiscoverConfig {
        /// The key in etcd below which members register.
        etcd: Option<String> = None, some(text(etcd_key));
        /// The DNS name that lists members.
        dns: Option<DnsTarget> = None, some(text(dns_target));
        /// The resolvers for that name. Empty: those of /etc/resolv.conf.
        resolvers: Vec<SocketAddr> = Vec::new(), |node| {
            let items = node.any_items("[\"192.0.2.1:53\"]");
            Some(distinct(items, text(words::backend_address), |address| format!("{address} is named")))
        };
        /// The file that lists members, already resolved against the folder of the config file.
        file: Option<PathBuf> = None, some(file);
        /// The allowed addresses of members.
        allow: Vec<Prefix> = Self::usual_allow(), |node| {
            Some(node.items("[\"192.0.2.0/24\"]").iter().filter_map(|item| item.parsed(words::prefix)).collect())
        };
        /// The largest number of members: by default more than most fleets have, and few enough for a small
        /// machine. Each takes memory in every worker.
        max: usize = 1024, integer(1..=10_000);
        /// The time that a removed member stays in the pool while it is up: by default longer than a registry
        /// takes to restart and its members to register again.
        hold: Duration = secs(30), duration(secs(0)..=secs(3600));
    }
}

impl DiscoverConfig {
    /// The settings of the command line.
    pub fn of_key(key: String) -> Self {
        Self { etcd: Some(key), ..Self::default() }
    }

    /// The default of `allow`: the networks that are served by default.
    pub(crate) fn usual_allow() -> Vec<Prefix> {
        AccessRules::LOCAL.into_iter().map(|prefix| prefix.parse().expect("a prefix")).collect()
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

config_section! {
    /// `[authorities.*.register]`: how an authority registers itself.
    #[derive(Eq)]
    pub struct RegisterConfig {
        /// The key of the registration in etcd.
        etcd: String = String::new(), text(etcd_key), required "\"ts\"";
        /// The address for queries. `None`: the first bound address.
        address: Option<SocketAddr> = None, some(text(words::backend_address));
        /// The label. `None`: the address.
        name: Option<String> = None, some(label);
        /// The share of the load.
        weight: u16 = 1, integer(limits::WEIGHT);
        /// The lifetime of the registration without a renewal. Less than 2 s would not outlive an election of
        /// etcd. A crashed authority stays listed for that long; probes find it down sooner.
        lease: Duration = secs(10), seconds(secs(2)..=secs(600));
        /// The longest wait for all zones to load before registration.
        wait: Duration = secs(30), duration(secs(0)..=secs(3600));
    }
}

impl RegisterConfig {
    /// The settings of the command line.
    pub fn of_key(key: String, address: Option<SocketAddr>) -> Self {
        Self { etcd: key, address, ..Self::default() }
    }
}

config_section! {
    /// `[etcd]`.
    #[derive(Eq)]
    pub struct EtcdConfig {
        /// The members of the etcd cluster, used in turn; at least one.
        endpoints: Vec<HttpEndpoint> = Vec::new(), |node| {
            let items = node.items(ENDPOINTS_EXAMPLE);
            Some(distinct(items, text(http_endpoint), |endpoint| format!("{endpoint} is named")))
        }, required ENDPOINTS_EXAMPLE;
        /// The prefix of all keys of hedgerow.
        prefix: String = "hedgerow".to_owned(), text(etcd_key);
        /// The user name for authentication.
        user: Option<String> = None, some(label);
        /// The file with the password, already resolved against the folder of the config file.
        password_file: Option<PathBuf> = None, some(file);
        /// The file with trusted CA certificates, already resolved. `None`: those of the system.
        ca_file: Option<PathBuf> = None, some(file);
        /// The timeout of one request. An election takes about one second.
        timeout: Duration = secs(2), duration(ms(100)..=secs(60));
    }
}

impl EtcdConfig {
    /// The settings of the command line, if it names any endpoint.
    pub fn of_endpoints(endpoints: &[HttpEndpoint]) -> Option<Self> {
        (!endpoints.is_empty()).then(|| Self { endpoints: endpoints.to_vec(), ..Self::default() })
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

pub(super) fn read<'d>(section: &mut ConfigSection<'d>, references: &mut References<'d>) -> DiscoverConfig {
    let discover = DiscoverConfig::read_keys(section);
    if section.has("etcd") {
        references.etcd.push(section.spot_of("etcd"));
    }
    section.need_any(&["etcd", "dns", "file"], "nothing lists members, write etcd, dns or file");
    discover
}

pub(super) fn read_register<'d>(
    section: &mut ConfigSection<'d>,
    listen: &[ListenConfig],
    references: &mut References<'d>,
) -> RegisterConfig {
    let register = RegisterConfig::read_keys(section);
    if section.has("etcd") {
        references.etcd.push(section.spot_of("etcd"));
    }
    let is_wildcard = listen.first().is_some_and(|first| first.socket().ip().is_unspecified());
    if register.address.is_none() && is_wildcard {
        section.spot.note(
            "address is missing, and a wildcard listener has no address to register, write address = \"192.0.2.1:53\"",
        );
    }
    register
}

pub(super) fn read_etcd(section: &mut ConfigSection<'_>) -> EtcdConfig {
    let etcd = EtcdConfig::read_keys(section);
    match (&etcd.user, &etcd.password_file) {
        (Some(_), None) => section.spot.note("password_file is missing, write password_file = \"etcd.password\""),
        (None, Some(_)) => section.spot.note("user is missing, write user = \"hedgerow\""),
        (Some(_), Some(_)) | (None, None) => {}
    }
    etcd
}

const ENDPOINTS_EXAMPLE: &str = "[\"http://127.0.0.1:2379\"]";

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
    use std::path::Path;

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
        assert_eq!((discover.max, discover.hold), (1024, Duration::from_secs(30)));
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
