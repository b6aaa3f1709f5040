//! The configuration: TOML in, a [`Config`] out that is right by construction.
//!
//! The text is read once into a tree in which everything knows its place (`section`); `pool`,
//! `forwarder` and `authority` with `clients`, `connections`, `cookies` and `transfer`, `keys`, `cache`, `query_log`, `dnstap`, `traces`,
//! `discover`, `supervisor`, `xdp` and `admin` each read one kind of section, `document` the file as a whole. None
//! stops at a problem: all of them are noted and handed out together as [`Problems`]. What a word
//! stands for is in [`words`], which the command line uses too, and what is too much or too little
//! in [`limits`]. The readers themselves tell what they take: the [description](mod@description), of which the JSON [schema](mod@schema)
//! and the [reference](mod@reference) are made. Nothing here opens a file.

mod addresses;
mod admin;
mod authority;
mod backend;
mod cache;
mod catalog;
mod clients;
mod connections;
mod cookies;
pub mod description;
mod discover;
mod dnstap;
mod document;
mod forwarder;
mod keys;
pub mod limits;
mod listen;
mod pool;
mod primary;
mod problem;
mod query_log;
pub mod reference;
pub mod schema;
mod section;
mod slow;
mod suggest;
mod supervisor;
#[cfg(test)]
mod tests;
mod traces;
mod transfer;
pub mod words;
mod xdp;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use backend::{BackendConfig, TrustConfig};
pub use catalog::{CatalogConfig, MemberConfig, ProducedCatalog};
pub use clients::usual_rate_limit;
pub use discover::{
    DiscoverConfig, DnsTarget, EtcdConfig, HttpEndpoint, RegisterConfig, TlsName, etcd_key, http_endpoint,
};
pub use dnstap::{DnstapTarget, TappedMessages};
pub use keys::KeyConfig;
pub use limits::Limits;
pub use listen::{CertificateConfig, ListenConfig, listen_address};
pub use primary::PrimaryConfig;
pub use problem::{Problem, Problems};
pub use query_log::{Always, ClientDetail, LogFormat, LogTarget, NameDetail};
pub use slow::SlowThreshold;
pub use suggest::nearest;
pub use traces::OtlpTarget;
pub use transfer::{SecondaryConfig, SharedZone, Sharing};
pub use words::Expected;
pub use xdp::{XdpInterface, XdpMode, ZeroCopy};

use crate::limit::{AccessRules, ConnectionRules, RateRules, WaitRules};
use crate::policy::connections::ConnectionPoolRules;
use crate::policy::{Rules, Serves};
use crate::wire::{Name, RecordType};
use crate::zone::{Identity, Miss};

/// Everything that `hedgerow serve` runs. Holds no bad address, zero deadline or empty pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Data-plane threads; `None` is one per CPU.
    pub workers: Option<NonZeroUsize>,
    /// Who the process becomes once it is bound, if it is to become somebody else.
    pub user: Option<User>,
    /// Whether the config and the files that it names are read again when they change.
    pub watch: bool,
    /// How long a worker stays awake after work, looking for more; zero is not at all.
    pub busy_poll: Duration,
    /// How long all goes on when the process was told to end, while it says that it is not ready.
    pub drain_delay: Duration,
    /// The LS, if the config has one.
    pub forwarder: Option<ForwarderConfig>,
    /// Pools in order of the file; routes point into it.
    pub pools: Vec<PoolConfig>,
    /// The TS that this process runs itself.
    pub authorities: Vec<AuthorityConfig>,
    /// The secrets that we share with other servers.
    pub keys: Vec<KeyConfig>,
    /// What encrypted listeners show; the first is for whoever names no server, or an unknown one.
    pub certificates: Vec<CertificateConfig>,
    /// The cache, if the config has one.
    pub cache: Option<CacheConfig>,
    /// The admin server, if the config has one.
    pub admin: Option<AdminConfig>,
    /// How processes stand beside the one that serves, if any do.
    pub supervisor: Option<SupervisorConfig>,
    /// The interfaces that are served by AF_XDP, if any are.
    pub xdp: Option<XdpConfig>,
    /// Which races are kept with all their attempts, if any are.
    pub slow: Option<SlowConfig>,
    /// The query log, if the config has one.
    pub query_log: Option<QueryLogConfig>,
    /// dnstap, if the config has it.
    pub dnstap: Option<DnstapConfig>,
    /// Where slow races go as traces, if they go anywhere.
    pub traces: Option<TracesConfig>,
    /// The register of members and of orders, if the config has one.
    pub etcd: Option<EtcdConfig>,
    /// Where the last known members are saved, if they are. Already resolved against the folder of the config file.
    pub state_dir: Option<PathBuf>,
}

impl Config {
    /// The default of `watch`: what is edited is not in force before somebody says so.
    pub const WATCH: bool = false;

    /// The default of `busy_poll`: a worker that has nothing to do leaves its core to others.
    pub const BUSY_POLL: Duration = Duration::ZERO;

    /// The default of `drain_delay`: nobody asks who is ready unless he was told to.
    pub const DRAIN_DELAY: Duration = Duration::ZERO;

    /// From when on a race is slow. None is where slow races are neither kept nor logged.
    pub fn slow_threshold(&self) -> SlowThreshold {
        match (&self.slow, &self.query_log) {
            (Some(slow), _) => slow.threshold,
            (None, Some(_)) => SlowConfig::THRESHOLD,
            (None, None) => SlowThreshold::Off,
        }
    }

    /// The zones that authorities have from other servers.
    pub fn secondaries(&self) -> impl Iterator<Item = &SecondaryConfig> {
        self.authorities.iter().flat_map(|authority| &authority.secondaries)
    }

    /// Reads the text of a config file. `file` is its name in messages; file names in it are relative
    /// to `folder`.
    pub fn parse(text: &str, file: &str, folder: &Path) -> Result<Self, Problems> {
        Self::parse_among(text, file, folder, &|_| None)
    }

    /// The same, on a host where `find_user` knows the users by their names.
    pub fn parse_among(
        text: &str,
        file: &str,
        folder: &Path,
        find_user: &dyn Fn(&str) -> Option<User>,
    ) -> Result<Self, Problems> {
        document::parse(text, file, folder, find_user)
    }

    /// The strings in the text of a config file, each with its place, such as `config.toml:7:9: authorities.a.zones[0]`.
    pub fn places(text: &str, file: &str) -> Vec<(String, String)> {
        document::places(text, file)
    }

    /// The files that hold secrets of cookies, each once.
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

/// `user`: a user of this host.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

/// `[forwarder]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwarderConfig {
    /// Where and how queries come.
    pub listen: Vec<ListenConfig>,
    /// Largest UDP message sent or asked for (RFC 6891 section 6.2.5), octets.
    pub edns_udp_size: u16,
    /// Which pool answers for which suffix.
    pub routes: Vec<Route>,
    /// The name that encrypted listeners go by, for clients that look for them (RFC 9462); none: they are not told of.
    pub designated_resolver: Option<Name>,
    /// Who is answered.
    pub access: AccessRules,
    /// How many queries may wait for backends.
    pub limits: WaitRules,
    /// How often one client is answered by UDP, if that is limited.
    pub rate_limit: Option<RateRules>,
    /// Cookies for its clients.
    pub cookies: CookieConfig,
    /// What clients may use that come by TCP.
    pub connections: ConnectionRules,
}

impl ForwarderConfig {
    /// The default of `edns_udp_size`. Octets that pass every path without being fragmented (DNS flag day 2020): the least MTU
    /// of IPv6, 1280 octets, less headers.
    pub const EDNS_UDP_SIZE: u16 = 1232;
}

/// `cookies` and `cookie_secrets_file` of the forwarder or of an authority: DNS cookies for clients (RFC 7873, RFC 9018).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieConfig {
    /// Whether clients get any.
    pub enabled: bool,
    /// Holds the secrets that they are made with; without it one is made at start. Already resolved against the folder of the
    /// config file.
    pub secrets_file: Option<PathBuf>,
}

impl Default for CookieConfig {
    /// On: they cost who does not use them nothing, and spare who does what limits the forged.
    fn default() -> Self {
        Self { enabled: true, secrets_file: None }
    }
}

/// One entry of `[forwarder.routes]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Names at or below this are the route's; the longest suffix wins.
    pub suffix: Name,
    /// Which of [`Config::pools`].
    pub pool: PoolIndex,
}

/// A pool, as its place in the order of the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolIndex(pub usize);

/// `[pools.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolConfig {
    /// The key below `[pools]`.
    pub name: String,
    /// At least one, unless others come by themselves.
    pub backends: Vec<BackendConfig>,
    /// Where others come from, if any do.
    pub discover: Option<DiscoverConfig>,
    /// The names that each backend knows, if the config has it: else the defaults are those of [`Serves::Split`].
    pub serves: Option<Serves>,
    /// How races of this pool run.
    pub rules: Rules,
    /// What a probe asks.
    pub probe: ProbeConfig,
    /// Whether all backends have the same data.
    pub replicas: bool,
    /// Of replicas: of which share of the questions the replies are compared.
    pub compare: f64,
    /// Of replicas: how often all that take queries are asked a recent question, if ever.
    pub audit: Option<Duration>,
    /// Who of them has an older version of a zone than others for longer than this is behind.
    pub max_lag: Duration,
    /// Whether its replies are kept, if there is a cache.
    pub cache: bool,
    /// How many queries may be out to one backend; above, the next one is asked.
    pub max_in_flight: u32,
    /// How the name is spelled in queries to its backends.
    pub case: Case,
    /// Whether queries bear DNS cookies, to backends that give them.
    pub cookies: bool,
    /// True if AD of its backends is believed, where a backend has no word of its own; none: by their transport.
    pub trust_ad: Option<bool>,
    /// The connections to those that are asked by stream.
    pub connections: ConnectionPoolRules,
}

impl PoolConfig {
    /// The default of `max_in_flight`: a second's queries of a busy server, and what a backend that has fallen silent is given at
    /// most before it is found down.
    pub const MAX_IN_FLIGHT: u32 = 10_000;

    /// The default of `replicas`: servers may split the names between them, and what one denies another may have.
    pub const REPLICAS: bool = false;

    /// The default of `compare`: it takes time of each question that is compared.
    pub const COMPARE: f64 = 0.0;

    /// The default of `max_lag`: a NOTIFY and a transfer take less, and an hour's refresh is no time to be sent to old data.
    pub const MAX_LAG: Duration = Duration::from_secs(10);

    /// The default of `cache`: who asks for a cache means all pools.
    pub const CACHE: bool = true;

    /// The default of `case`: a few servers answer in another case than they were asked in, or not at all.
    pub const CASE: Case = Case::Keep;

    /// The default of `cookies`: who gives them takes them, and a reply that must repeat 64 random bits is not forged by guessing.
    pub const COOKIES: bool = true;
}

/// `pools.*.case`: how the question's name is spelled in queries to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// As the client spells it.
    Keep,
    /// By chance, anew for each attempt (DNS 0x20), and replies must repeat it.
    Random,
}

/// `pools.*.health.probe`: any reply at all counts as life.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeConfig {
    /// The name asked, by default the root.
    pub name: Name,
    /// The type asked, by default NS.
    pub rtype: RecordType,
}

impl Default for ProbeConfig {
    /// What every server can be asked: RFC 8109 section 3 has resolvers begin with it.
    fn default() -> Self {
        Self { name: Name::root(), rtype: RecordType::NS }
    }
}

/// `[authorities.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorityConfig {
    /// The key below `[authorities]`.
    pub name: String,
    /// Where and how queries come.
    pub listen: Vec<ListenConfig>,
    /// Who is answered.
    pub access: AccessRules,
    /// Zone files.
    pub zones: Vec<ZoneSource>,
    /// Which zones of those files others may have.
    pub shared: Vec<SharedZone>,
    /// Zones that come from elsewhere. There is at least one zone of either kind.
    pub secondaries: Vec<SecondaryConfig>,
    /// Those of them that are catalogs, which tell of further zones.
    pub catalogs: Vec<CatalogConfig>,
    /// Catalogs of its own.
    pub produced: Vec<ProducedCatalog>,
    /// Where the zones are saved that catalogs list. Already resolved against the folder of the config file.
    pub members_folder: PathBuf,
    /// What is said of a name that is in no table.
    pub miss: Miss,
    /// TTL of table records.
    pub ttl: Duration,
    /// What it says of itself; by default nothing.
    pub identity: Identity,
    /// How often one client is answered by UDP, if that is limited.
    pub rate_limit: Option<RateRules>,
    /// Cookies for its clients.
    pub cookies: CookieConfig,
    /// What clients may use that come by TCP.
    pub connections: ConnectionRules,
    /// How it tells where it is, if it does.
    pub register: Option<RegisterConfig>,
}

impl AuthorityConfig {
    /// The default of `miss`: another TS may have the name.
    pub const MISS: Miss = Miss::Silent;

    /// The default of `ttl`: short enough that an edited table is seen within minutes.
    pub const TTL: Duration = Duration::from_secs(300);
}

/// One entry of `authorities.*.zones`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ZoneSource {
    /// Already resolved against the folder of the config file.
    pub file: PathBuf,
    /// The name of the zone, in canonical form: makes the file a master file. Without it a master file says its name itself.
    pub origin: Option<Name>,
}

/// `[cache]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheConfig {
    /// Memory that it takes in all, octets.
    pub size: usize,
    /// For how long what is kept.
    pub rules: crate::cache::Rules,
    /// Where it is saved when the process ends, and loaded from when it starts. Already resolved against the folder of the config
    /// file.
    pub persist: Option<PathBuf>,
    /// How often it is saved besides; none: when the process ends only.
    pub persist_every: Option<Duration>,
}

impl CacheConfig {
    /// The default of `persist_every`: what a crash loses is then not much of what is asked for most, and a save of the default
    /// size writes less than 100 KB a second.
    pub const PERSIST_EVERY: Duration = Duration::from_secs(15 * 60);

    /// The default of `size`: some 400,000 answers, and no burden on a small machine.
    pub const SIZE: usize = 64 << 20;
}

/// `[slow]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowConfig {
    /// From when on a race is slow.
    pub threshold: SlowThreshold,
    /// How many of the newest are kept.
    pub keep: usize,
}

/// `[supervisor]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisorConfig {
    /// How many processes stand by.
    pub standbys: usize,
    /// Who makes no progress for so long is killed, if anybody ever is.
    pub watchdog: Option<Duration>,
    /// Whether a standby succeeds a supervisor that dies.
    pub succession: bool,
}

/// `[xdp]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpConfig {
    /// At least one, each once.
    pub interfaces: Vec<XdpInterface>,
    /// Whether sockets serve alone where AF_XDP cannot be had; if not, there is no start.
    pub fallback: bool,
}

/// `[query_log]`.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryLogConfig {
    /// Where lines go.
    pub to: LogTarget,
    /// What they look like.
    pub format: LogFormat,
    /// The share of the questions that are logged.
    pub sample: f64,
    /// What is logged besides.
    pub always: Always,
    /// How much of a client's address is told.
    pub client: ClientDetail,
    /// How much of a name is told.
    pub names: NameDetail,
    /// After how many octets the file is rotated, if it ever is.
    pub rotate: Option<usize>,
    /// How many of those that were rotated are kept.
    pub keep: u16,
    /// Memory for what waits to be written, octets.
    pub buffer: usize,
}

/// `[dnstap]`.
#[derive(Clone, Debug, PartialEq)]
pub struct DnstapConfig {
    /// Where frames go.
    pub to: DnstapTarget,
    /// Which messages are told.
    pub messages: TappedMessages,
    /// Who we are to the reader; none: the name of the host.
    pub identity: Option<String>,
    /// The share of the questions whose messages are told.
    pub sample: f64,
    /// How much of a client's address is told.
    pub client: ClientDetail,
    /// Whether messages are told with their octets.
    pub names: NameDetail,
    /// Memory for what waits to be written, octets.
    pub buffer: usize,
}

/// `[traces]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracesConfig {
    /// Where they go.
    pub otlp: OtlpTarget,
    /// How much of a name is told.
    pub names: NameDetail,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminConfig {
    /// Where it is reached by HTTP.
    pub listen: SocketAddr,
    /// Holds the token that changes by HTTP must bear; without it there are none. Already resolved against the folder of the
    /// config file.
    pub token_file: Option<PathBuf>,
    /// Where changes are taken without a token.
    pub socket: AdminSocket,
    /// Whether there is a page at `/`.
    pub page: bool,
    /// Whether the names are counted that are asked for most.
    pub names: bool,
    /// Pools with more backends have no series for each of them.
    pub backend_series: u16,
}

/// `admin.socket`: a unix socket for changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminSocket {
    /// In the usual place, by the address of the admin server.
    Auto,
    /// There. Already resolved against the folder of the config file.
    At(PathBuf),
    /// Nowhere.
    Off,
}
