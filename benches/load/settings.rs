//! The configs of peers: one worker, no service beside DNS, nothing asked of the Internet, no log of queries;
//! the backends used by turns or as the peer thinks best; the cache empty of what must not be kept, or with
//! room for all.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use crate::subject::Scenario;

/// The task of a server.
pub(crate) struct Setup<'a> {
    /// The scenario of the queries.
    pub(crate) scenario: Scenario,
    pub(crate) listen: SocketAddr,
    /// The addresses to forward to.
    pub(crate) backends: &'a [SocketAddr],
    /// The hosts that it knows itself: a master file, or a table.
    pub(crate) hosts: &'a Path,
    /// The folder for its config and state, in which it is started.
    pub(crate) folder: &'a Path,
}

impl Setup<'_> {
    /// A line for each backend.
    fn for_backends(&self, line: impl Fn(SocketAddr) -> String) -> String {
        self.backends.iter().fold(String::new(), |mut lines, &backend| {
            let _ = writeln!(lines, "{}", line(backend));
            lines
        })
    }

    /// Returns true if replies are kept.
    fn has_cache(&self) -> bool {
        match self.scenario {
            Scenario::Cached(_) => true,
            Scenario::Echo | Scenario::Forward | Scenario::Zone(_) | Scenario::Table(_) => false,
        }
    }
}

/// Names that a cache has room for: more than are asked for, since some caches evict before they are full.
const CACHE_NAMES: u32 = 200_000;

/// dnsdist: whichever backend has the fewest queries out; batches of 64 if asked for.
pub(crate) fn dnsdist(setup: &Setup<'_>, is_batched: bool) -> String {
    let Setup { listen, .. } = setup;
    let batches = if is_batched { "setUDPMultipleMessagesVectorSize(64)" } else { "" };
    let cache = match setup.has_cache() {
        true => format!("getPool(''):setCache(newPacketCache({CACHE_NAMES}, {{ maxTTL = 86400 }}))"),
        false => String::new(),
    };
    let backends = setup.for_backends(|backend| format!("newServer({{ address = '{backend}' }})"));
    format!(
        "\
setSecurityPollSuffix('')
{batches}
setLocal('{listen}')
setACL({{ '127.0.0.0/8', '198.18.0.0/15' }})
setServerPolicy(leastOutstanding)
{backends}
{cache}
"
    )
}

/// Unbound: the iterator alone, without validation.
pub(crate) fn unbound(setup: &Setup<'_>) -> String {
    let (ip, port) = (setup.listen.ip(), setup.listen.port());
    let folder = setup.folder.display();
    let no_cache = if setup.has_cache() { "no" } else { "yes" };
    let backends = setup.for_backends(|backend| format!("  forward-addr: {}@{}", backend.ip(), backend.port()));
    format!(
        "\
server:
  interface: {ip}
  port: {port}
  access-control: 127.0.0.0/8 allow
  do-ip6: no
  do-daemonize: no
  use-syslog: no
  logfile: \"\"
  pidfile: \"\"
  username: \"\"
  chroot: \"\"
  directory: \"{folder}\"
  num-threads: 1
  module-config: \"iterator\"
  do-not-query-localhost: no
  local-zone: \"test.\" nodefault
  minimal-responses: yes
  outgoing-range: 8192
  num-queries-per-thread: 4096
  so-rcvbuf: 4m
  so-sndbuf: 4m
  msg-cache-size: 64m
  rrset-cache-size: 128m
remote-control:
  control-enable: no
forward-zone:
  name: \".\"
  forward-no-cache: {no_cache}
{backends}"
    )
}

/// Dnsmasq: servers in its own order of preference; the files of the machine are not read.
pub(crate) fn dnsmasq(setup: &Setup<'_>) -> String {
    let (ip, port) = (setup.listen.ip(), setup.listen.port());
    let cache = if setup.has_cache() { CACHE_NAMES } else { 0 };
    let backends = setup.for_backends(|backend| format!("server={}#{}", backend.ip(), backend.port()));
    format!(
        "\
listen-address={ip}
port={port}
bind-interfaces
no-resolv
no-hosts
cache-size={cache}
dns-forward-max=20000
{backends}"
    )
}

/// SmartDNS: no speed checks, which would send to the addresses in the answers.
pub(crate) fn smartdns(setup: &Setup<'_>) -> String {
    let Setup { listen, .. } = setup;
    let cache = if setup.has_cache() { CACHE_NAMES } else { 0 };
    let backends = setup.for_backends(|backend| format!("server {backend}"));
    let folder = setup.folder.display();
    format!(
        "\
bind {listen}
cache-size {cache}
cache-persist no
prefetch-domain no
serve-expired no
speed-check-mode none
dualstack-ip-selection no
response-mode fastest-response
max-query-limit 65535
log-level error
log-file {folder}/smartdns.log
{backends}"
    )
}

/// Returns the config of Knot Resolver: a stub towards the backends, without validation and other additions.
pub(crate) fn kresd(setup: &Setup<'_>) -> String {
    let (ip, port) = (setup.listen.ip(), setup.listen.port());
    let folder = setup.folder.display();
    // Without this it keeps even a TTL of 0 for some seconds.
    let no_cache = if setup.has_cache() { "" } else { "cache.min_ttl(0)" };
    let backends = setup.for_backends(|backend| format!("  '{}@{}',", backend.ip(), backend.port()));
    format!(
        "\
net.ipv6 = false
net.listen('{ip}', {port}, {{ kind = 'dns' }})
cache.open(100 * MB, 'lmdb://{folder}/cache')
{no_cache}
trust_anchors.remove('.')
modules.unload('priming')
modules.unload('ta_sentinel')
modules.unload('ta_signal_query')
modules.unload('edns_keepalive')
policy.add(policy.all(policy.STUB({{
{backends}}})))
"
    )
}

/// PowerDNS Recursor: everything forwarded; one thread that also takes the queries.
pub(crate) fn pdns_recursor(setup: &Setup<'_>) -> String {
    let (ip, port) = (setup.listen.ip(), setup.listen.port());
    let folder = setup.folder.display();
    let backends = setup.backends.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(";");
    let no_cache = if setup.has_cache() { "" } else { "disable-packetcache=yes\nmax-cache-ttl=0" };
    format!(
        "\
local-address={ip}
local-port={port}
forward-zones-recurse=.={backends}
dont-query=
dnssec=off
hint-file=
security-poll-suffix=
threads=1
pdns-distributes-queries=no
reuseport=yes
max-mthreads=8192
socket-dir={folder}
daemon=no
disable-syslog=yes
quiet=yes
loglevel=3
{no_cache}
"
    )
}

/// BIND: a forwarder without validation, or the primary of the zone.
pub(crate) fn bind(setup: &Setup<'_>) -> String {
    let (ip, port) = (setup.listen.ip(), setup.listen.port());
    let folder = setup.folder.display();
    let backends = setup.for_backends(|backend| format!("    {} port {};", backend.ip(), backend.port()));
    let (role, zone) = match setup.scenario {
        Scenario::Zone(_) => {
            let file = setup.hosts.display();
            let zone = format!("zone \"bench.test\" {{ type primary; file \"{file}\"; }};");
            ("  recursion no;".to_owned(), zone)
        }
        // What must not be kept has a TTL of 0.
        Scenario::Echo | Scenario::Forward | Scenario::Cached(_) | Scenario::Table(_) => {
            let role = format!("  recursion yes;\n  forward only;\n  forwarders {{\n{backends}  }};");
            (role, String::new())
        }
    };
    format!(
        "\
options {{
  directory \"{folder}\";
  pid-file none;
  session-keyfile none;
  listen-on port {port} {{ {ip}; }};
  listen-on-v6 {{ none; }};
  allow-recursion {{ 127.0.0.0/8; }};
  dnssec-validation no;
  minimal-responses yes;
  recursive-clients 20000;
  max-cache-size 512M;
  querylog no;
{role}
}};
controls {{ }};
{zone}
"
    )
}

/// NSD: one server process, without rate limiting.
pub(crate) fn nsd(setup: &Setup<'_>) -> String {
    let (ip, port) = (setup.listen.ip(), setup.listen.port());
    let (folder, zone) = (setup.folder.display(), setup.hosts.display());
    format!(
        "\
server:
  ip-address: {ip}@{port}
  server-count: 1
  reuseport: yes
  username: \"\"
  chroot: \"\"
  database: \"\"
  zonesdir: \"{folder}\"
  zonelistfile: \"{folder}/zone.list\"
  xfrdfile: \"{folder}/xfrd.state\"
  xfrdir: \"{folder}\"
  pidfile: \"{folder}/pid\"
  rrl-ratelimit: 0
  minimal-responses: yes
  tcp-count: 10
remote-control:
  control-enable: no
zone:
  name: bench.test
  zonefile: {zone}
"
    )
}

/// Knot DNS: one worker for each transport, no journal.
pub(crate) fn knot(setup: &Setup<'_>) -> String {
    let (ip, port) = (setup.listen.ip(), setup.listen.port());
    let (folder, zone) = (setup.folder.display(), setup.hosts.display());
    format!(
        "\
server:
  listen: {ip}@{port}
  rundir: {folder}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
log:
  - target: stderr
    any: warning
database:
  storage: {folder}
zone:
  - domain: bench.test
    file: {zone}
    zonefile-load: whole
    zonefile-sync: -1
    journal-content: none
    semantic-checks: off
"
    )
}
