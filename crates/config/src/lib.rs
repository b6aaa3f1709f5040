//! The configuration: TOML in, a valid [`Config`] out.
//!
//! The text becomes a tree in which each node knows its place (`section`). One module per kind of section
//! reads it, and `document` reads the whole file. Readers return all problems together as [`Problems`].
//!
//! This crate owns keys, bounds, defaults, and their description. It never reads files and never resolves
//! names.

#![forbid(unsafe_code)]

#[macro_use]
mod readers;

mod admin;
mod authority;
mod backend;
mod cache;
mod catalog;
mod changes;
mod clients;
mod connections;
pub mod description;
mod discover;
mod document;
mod forwarder;
mod keys;
pub mod limits;
mod listen;
mod names;
mod passing;
mod pool;
mod problem;
mod rank;
pub mod reference;
mod references;
mod rule;
mod rules;
pub mod schema;
mod section;
mod supervisor;
mod taps;
#[cfg(test)]
mod tests;
mod transfer;
mod warnings;
pub mod words;
mod xdp;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dns::{Name, Rcode, RecordType};
use limit::{AccessRules, ConnectionRules, RateRules, WaitRules};
use zone::{Identity, Miss};

pub use self::rules::{PoolRules, Serves, Silence};
pub use admin::{AdminConfig, AdminSocket};
pub use backend::{BackendConfig, PrimaryConfig};
pub use cache::CacheRules;
pub use catalog::{CatalogConfig, MemberConfig, ProducedCatalog};
pub use changes::counted;
pub use clients::usual_rate_limit;
pub use connections::ConnectionPoolRules;
pub use discover::{
    DiscoverConfig, DnsTarget, EtcdConfig, HttpEndpoint, RegisterConfig, TlsName, etcd_key, http_endpoint,
};
pub use keys::KeyConfig;
pub use limits::Limits;
pub use listen::{CertificateConfig, ListenConfig, listen_address};
pub use names::{LocalName, NamesConfig, SpecialNames};
pub use passing::{ClientSubnetRule, PassingRules, PrivateAnswers};
pub use problem::{Problem, Problems};
pub use rank::{Accept, Rank};
pub use rule::{RuleAction, RuleConfig};
pub use supervisor::SupervisorConfig;
pub use taps::{
    Always, ClientDetail, DnstapConfig, DnstapTarget, LogFormat, LogTarget, NameDetail, OtlpTarget, QueryLogConfig,
    SlowConfig, SlowThreshold, TappedMessages, TapsConfig, TracesConfig,
};
pub use transfer::{AuthorityZones, SecondaryConfig, SharedZone, Sharing};
pub use words::{Expectation, KeyWord, nearest, remedy};
pub use xdp::{XdpConfig, XdpInterface, XdpMode, ZeroCopy};

/// The configuration of `hedgerow serve`, without bad addresses, zero deadlines or empty pools.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The process and its threads.
    pub process: ProcessConfig,
    /// The forwarder, if configured.
    pub forwarder: Option<ForwarderConfig>,
    /// Pools in file order; routes refer to this order.
    pub pools: Vec<PoolConfig>,
    /// The authorities of this process.
    pub authorities: Vec<AuthorityConfig>,
    /// The secrets shared with other servers.
    pub keys: Vec<KeyConfig>,
    /// The certificates of encrypted listeners. Clients with no or an unknown server name get the first one.
    pub certificates: Vec<CertificateConfig>,
    /// The cache, if configured.
    pub cache: Option<CacheConfig>,
    /// The admin server, if configured.
    pub admin: Option<AdminConfig>,
    /// Supervision by standby processes, if configured.
    pub supervisor: Option<SupervisorConfig>,
    /// The interfaces served by AF_XDP, if any.
    pub xdp: Option<XdpConfig>,
    /// The observers of queries.
    pub taps: TapsConfig,
    /// The registry of members and orders, if configured.
    pub etcd: Option<EtcdConfig>,
}

/// The top-level keys: the process and its threads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessConfig {
    /// Data-plane threads. `None`: one per CPU.
    pub workers: Option<NonZeroUsize>,
    /// The user to switch to once all sockets are bound.
    pub user: Option<User>,
    /// True if changed config files are reloaded automatically. By default, an edited file applies only after
    /// an explicit reload.
    pub watch: bool,
    /// The time that a worker polls after work. By default zero, so that an idle worker leaves its core to
    /// other processes.
    pub busy_poll: Duration,
    /// The time between the end of readiness and the end of service at shutdown. By default zero, because
    /// most installations have no readiness check.
    pub drain_delay: Duration,
    /// The folder for the last known members, already resolved against the folder of the config file.
    pub state_dir: Option<PathBuf>,
}

impl Config {
    /// The threshold of slow races; `None` if they are neither kept nor logged.
    pub fn slow_threshold(&self) -> SlowThreshold {
        match (&self.taps.slow, &self.taps.query_log) {
            (Some(slow), _) => slow.threshold,
            (None, Some(_)) => SlowConfig::default().threshold,
            (None, None) => SlowThreshold::Off,
        }
    }

    /// The zones that authorities transfer from other servers.
    pub fn secondaries(&self) -> impl Iterator<Item = &SecondaryConfig> {
        self.authorities.iter().flat_map(|authority| &authority.zones.secondaries)
    }

    /// Parses a config file. `file` is its name in messages; paths in it are relative to `folder`.
    pub fn parse(text: &str, file: &str, folder: &Path) -> Result<Self, Problems> {
        Self::parse_among(text, file, folder, &|_| None)
    }

    /// Parses like `parse`, with `find_user` as the user database.
    pub fn parse_among(
        text: &str,
        file: &str,
        folder: &Path,
        find_user: &dyn Fn(&str) -> Option<User>,
    ) -> Result<Self, Problems> {
        document::parse(text, file, folder, find_user)
    }

    /// The warnings about a valid config file, a line each with its place.
    pub fn warnings(text: &str, file: &str) -> Vec<String> {
        document::warnings(text, file)
    }

    /// The strings of a config file with their places, such as `config.toml:7:9: authorities.a.zones[0]`.
    pub fn places(text: &str, file: &str) -> Vec<(String, String)> {
        document::places(text, file)
    }

    /// The distinct files with cookie secrets.
    pub fn cookie_secrets_files(&self) -> Vec<&Path> {
        let forwarder = self.forwarder.iter().map(|forwarder| &forwarder.cookies);
        let all = forwarder.chain(self.authorities.iter().map(|authority| &authority.cookies));
        let files = all.filter(|cookies| cookies.enabled).filter_map(|cookies| cookies.secrets_file.as_deref());
        let mut files: Vec<_> = files.collect();
        files.sort_unstable();
        files.dedup();
        files
    }
}

/// `user`: a user of this host, or the numbers of one that it does not know.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct User {
    /// The user name, or `UID:GID`.
    pub name: String,
    /// The user ID.
    pub uid: u32,
    /// The group ID.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

impl User {
    /// Reads `UID:GID`: a user without supplementary groups. A host without `/etc/passwd` knows no other
    /// users.
    pub fn from_ids(text: &str) -> Option<Self> {
        // The largest number means "no change" to the kernel, and would keep the process root.
        let id = |text: &str| text.parse().ok().filter(|&id| id != u32::MAX && !text.starts_with('+'));
        let (uid, gid) = text.split_once(':')?;
        Some(Self { name: text.to_owned(), uid: id(uid)?, gid: id(gid)?, groups: Vec::new() })
    }

    /// Returns the user as `install -o` takes it: the name, or the UID.
    pub fn owner(&self) -> &str {
        self.name.split_once(':').map_or(&*self.name, |(uid, _)| uid)
    }
}

/// `[forwarder]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwarderConfig {
    /// The listeners for queries.
    pub listen: Vec<ListenConfig>,
    /// The largest UDP message sent or requested (RFC 6891 section 6.2.5), in bytes.
    pub edns_udp_size: u16,
    /// The pools by suffix of the name.
    pub routes: Vec<Route>,
    /// The names that the forwarder answers itself.
    pub names: NamesConfig,
    /// The rules, in order.
    pub rules: Vec<RuleConfig>,
    /// The announced name of encrypted listeners (RFC 9462). `None`: no announcement.
    pub designated_resolver: Option<Name>,
    /// The access rules for clients.
    pub access: AccessRules,
    /// The limits of pending queries.
    pub limits: WaitRules,
    /// The limit of UDP responses per client.
    pub rate_limit: Option<RateRules>,
    /// DNS cookies for clients.
    pub cookies: CookieConfig,
    /// The limits of TCP connections.
    pub connections: ConnectionRules,
}

impl ForwarderConfig {
    /// The default of `edns_udp_size`: fits the least MTU of IPv6, 1280 bytes (DNS flag day 2020).
    pub const EDNS_UDP_SIZE: u16 = 1232;
}

/// `cookies` and `cookie_secrets_file`: DNS cookies for clients (RFC 7873, RFC 9018).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieConfig {
    /// True if clients get cookies.
    pub enabled: bool,
    /// The file with the secrets, already resolved. `None`: random secrets that change daily.
    pub secrets_file: Option<PathBuf>,
}

impl Default for CookieConfig {
    fn default() -> Self {
        Self { enabled: true, secrets_file: None }
    }
}

/// One entry of `[forwarder.routes]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The suffix of matching names; the longest suffix wins.
    pub suffix: Name,
    /// True if only the names below the suffix match, not itself: `"*.example.org"`.
    pub is_below_only: bool,
    /// The index into [`Config::pools`].
    pub pool: PoolIndex,
}

/// A pool by its index in the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolIndex(pub usize);

/// `[pools.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolConfig {
    /// The key below `[pools]`.
    pub name: String,
    /// At least one, unless members join by discovery.
    pub backends: Vec<BackendConfig>,
    /// The sources of further members.
    pub discover: Option<DiscoverConfig>,
    /// The distribution of names over the backends, if set. `None`: the defaults of [`Serves::Split`] apply.
    pub serves: Option<Serves>,
    /// The rules of races.
    pub rules: PoolRules,
    /// The question of probes.
    pub probe: ProbeConfig,
    /// The backends as replicas of the same data.
    pub replicas: ReplicaConfig,
    /// True if replies are cached.
    pub cache: bool,
    /// Pending queries per backend; above, the next backend is used.
    pub max_in_flight: u32,
    /// The protection of queries against spoofed replies.
    pub spoofing: SpoofingConfig,
    /// True if AD of backends is trusted; backends may override it. `None`: their transport decides.
    pub trust_ad: Option<bool>,
    /// The connections to stream backends.
    pub connections: ConnectionPoolRules,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            backends: Vec::new(),
            discover: None,
            serves: None,
            rules: PoolRules::default(),
            probe: ProbeConfig::default(),
            replicas: ReplicaConfig::default(),
            // A configured cache applies to all pools.
            cache: true,
            // A second's queries of a busy server.
            max_in_flight: 10_000,
            spoofing: SpoofingConfig::default(),
            trust_ad: None,
            connections: ConnectionPoolRules::default(),
        }
    }
}

/// `pools.*.replicas` and the keys about replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaConfig {
    /// True if all backends have the same data.
    pub enabled: bool,
    /// The share of questions for which replies of replicas are compared.
    pub compare: f64,
    /// The interval at which all active replicas are asked a recent question.
    pub audit: Option<Duration>,
    /// The time after which a replica with an older zone version counts as behind.
    pub max_lag: Duration,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self {
            // Servers may split the names, so one may have a name that another denies.
            enabled: false,
            // Each comparison takes time.
            compare: 0.0,
            audit: None,
            // Longer than a NOTIFY and a transfer take, shorter than an hourly refresh.
            max_lag: Duration::from_secs(10),
        }
    }
}

/// The random parts of a query, which its reply must repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoofingConfig {
    /// The case of names in queries to backends.
    pub case: Case,
    /// True if queries carry DNS cookies for backends that support them.
    pub cookies: bool,
}

impl Default for SpoofingConfig {
    /// A few servers change the case of the question, or do not answer. A cookie has 64 random bits.
    fn default() -> Self {
        Self { case: Case::Keep, cookies: true }
    }
}

/// `pools.*.case`: the case of the name in queries to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// The case of the client's query.
    Keep,
    /// A random case for each attempt (DNS 0x20), which replies must repeat.
    Random,
}

/// `pools.*.health.probe`: the question of probes, and the expected reply.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeConfig {
    /// The name, by default the root.
    pub name: Name,
    /// The type, by default NS.
    pub rtype: RecordType,
    /// The reply that counts as good, if `health.expect` is a table.
    pub expect: Option<ExpectedReply>,
}

/// A table as `pools.*.health.expect`: the reply to a probe that counts as good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedReply {
    /// The response code.
    pub rcode: Rcode,
    /// The data that one answer record of the probe's type has, as in a zone file. `None`: any or none.
    pub answer: Option<String>,
}

impl Default for ProbeConfig {
    /// The root NS question, which every server accepts: RFC 8109 section 3 has resolvers begin with it.
    fn default() -> Self {
        Self { name: Name::root(), rtype: RecordType::NS, expect: None }
    }
}

/// `[authorities.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorityConfig {
    /// The key below `[authorities]`.
    pub name: String,
    /// The listeners for queries.
    pub listen: Vec<ListenConfig>,
    /// The access rules for clients.
    pub access: AccessRules,
    /// The zones of all kinds; at least one.
    pub zones: AuthorityZones,
    /// The response to names without data.
    pub miss: Miss,
    /// The TTL of table records.
    pub ttl: Duration,
    /// The texts of identity queries (`version.bind`, `id.server`) and NSID; empty by default.
    pub identity: Identity,
    /// The limit of UDP responses per client.
    pub rate_limit: Option<RateRules>,
    /// DNS cookies for clients.
    pub cookies: CookieConfig,
    /// The limits of TCP connections.
    pub connections: ConnectionRules,
    /// The registration in etcd, if configured.
    pub register: Option<RegisterConfig>,
}

impl AuthorityConfig {
    /// The default of `miss`: another authority may have the name.
    pub const MISS: Miss = Miss::Silent;

    /// The default of `ttl`: clients see an edited table within minutes.
    pub const TTL: Duration = Duration::from_secs(300);
}

/// One entry of `authorities.*.zones`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ZoneSource {
    /// The path, already resolved against the folder of the config file.
    pub file: PathBuf,
    /// The origin of a master file, in canonical form. `None`: a table, or a master file whose first SOA
    /// record names the zone.
    pub origin: Option<Name>,
}

/// `[cache]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheConfig {
    /// The total memory in bytes.
    pub size: usize,
    /// The lifetimes of entries.
    pub rules: CacheRules,
    /// The file for saves at exit and loads at start, already resolved against the folder of the config file.
    pub persist: Option<PathBuf>,
    /// The interval of further saves. `None`: only at exit.
    pub persist_every: Option<Duration>,
}

impl CacheConfig {
    /// The default of `persist_every`: a crash loses little, and saves write less than 100 KB a second.
    pub const PERSIST_EVERY: Duration = Duration::from_secs(15 * 60);

    /// The default of `size`: some 400,000 answers, affordable on a small machine.
    pub const SIZE: usize = 64 << 20;
}
