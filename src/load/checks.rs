//! Checks of a config beyond its text: what the host, other files and other keys say of it.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use config::{AdminConfig, BackendConfig, Config, ForwarderConfig, KeyConfig, ListenConfig, PoolConfig, Route, User};
use dns::Name;
use dns::address::{BackendAddress, Scheme};
use engine::state::is_beside_special;
use limit::{Access, AccessRules};
use net::from_clients::tls::NamedCertificate;
use net::sys::bind::is_of_this_host;

use super::trust;

#[cfg(test)]
mod tests;

/// Returns the warnings about a config, a line each. `file` is the config file.
pub(super) fn warnings(config: &Config, certificates: &[NamedCertificate], file: Option<&Path>) -> Vec<String> {
    let warnings = [
        expired_certificates(certificates, SystemTime::now()),
        trust::unverified(config),
        clear_http(config),
        open_listeners(config),
        open_admin(config),
        redundant_routes(config),
        denials(config),
        designation(config, certificates),
        shared_user(config),
        exposed_secrets(config, file),
    ];
    warnings.concat()
}

/// Returns an error line for each backend that is the forwarder itself. A listener on all addresses of this
/// host makes any of them a loop; only the host knows these addresses.
pub(super) fn loops(config: &Config) -> String {
    loops_with(config, is_of_this_host)
}

fn loops_with(config: &Config, is_ours: impl Fn(IpAddr) -> bool) -> String {
    let listen = config.forwarder.iter().flat_map(|forwarder| &forwarder.listen).map(ListenConfig::socket);
    let loops = config.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
    let loops = loops.filter_map(|(pool, BackendConfig { address, .. })| {
        let (name, own) = (&pool.name, listen.clone().find(|own| reaches(*own, address, &is_ours))?);
        Some(format!(
            "pools.{name}: {address} is this forwarder itself, which listens on {own}, expected another server"
        ))
    });
    loops.collect::<Vec<_>>().join("\n")
}

/// Returns true if the listener at `own` receives the queries for a backend.
pub fn reaches(own: SocketAddr, backend: &BackendAddress, is_ours: impl Fn(IpAddr) -> bool) -> bool {
    let ip = backend.ip().to_canonical();
    let is_reached = own.ip().to_canonical() == ip || own.ip().is_unspecified() && (ip.is_loopback() || is_ours(ip));
    own.port() == backend.port() && is_reached
}

/// Returns warnings for certificates that are served although they have expired or are not valid yet.
pub(super) fn expired_certificates(certificates: &[NamedCertificate], now: SystemTime) -> Vec<String> {
    let describe = |named: &NamedCertificate| {
        let (file, validity) = (named.chain_file.display(), named.certificate.validity());
        let day = |seconds: i64| {
            let since = std::time::Duration::from_secs(seconds.max(0).unsigned_abs());
            humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
        };
        match (validity.is_over(now), validity.is_to_come(now)) {
            (true, _) => Some(format!(
                "{file}: the certificate has expired at {}; it is served, and clients refuse it: renew it",
                day(validity.not_after)
            )),
            (false, true) => Some(format!(
                "{file}: the certificate is not good before {}; it is served, and clients refuse it until then",
                day(validity.not_before)
            )),
            (false, false) => None,
        }
    };
    certificates.iter().filter_map(describe).collect()
}

/// Returns a warning for each listener whose traffic others could read.
fn clear_http(config: &Config) -> Vec<String> {
    let forwarder = config.forwarder.iter().map(|forwarder| ("forwarder".to_owned(), &forwarder.listen));
    let authorities = config.authorities.iter();
    let authorities = authorities.map(|authority| (format!("authorities.{}", authority.name), &authority.listen));
    let listeners = forwarder.chain(authorities).flat_map(|(section, listen)| {
        listen.iter().enumerate().map(move |(place, one)| (format!("{section}.listen[{place}]"), one))
    });
    let is_exposed = |one: &ListenConfig| {
        one.address.scheme == Scheme::Http && !one.address.socket.ip().to_canonical().is_loopback()
    };
    let exposed = listeners.filter(|(_, one)| is_exposed(one));
    let warning = |(key, one): (String, &ListenConfig)| {
        format!(
            "{key}: {} is not encrypted, and other hosts can reach it: listen on a loopback address behind a TLS proxy, or by https://",
            one.address
        )
    };
    exposed.map(warning).collect()
}

/// Returns a warning for each listener of the forwarder that any host of the Internet may use (RFC 5358). A
/// listener with `proxy_from` takes queries from the proxies only.
fn open_listeners(config: &Config) -> Vec<String> {
    let Some(forwarder) = &config.forwarder else { return Vec::new() };
    let access = Access::new(&AccessRules { deny: Vec::new(), ..forwarder.access.clone() });
    let is_open = |one: &ListenConfig| {
        let ip = one.address.socket.ip();
        !ip.to_canonical().is_loopback() && one.proxy_from.is_empty() && access.admits_all(ip)
    };
    let open = forwarder.listen.iter().enumerate().filter(|(_, one)| is_open(one));
    let warning = |(place, one): (usize, &ListenConfig)| {
        format!(
            "forwarder.listen[{place}]: {} answers every client, and attackers use open resolvers to flood others \
             (RFC 5358): list your networks in allow",
            one.address
        )
    };
    open.map(warning).collect()
}

/// Returns a warning if other hosts can reach the admin server.
fn open_admin(config: &Config) -> Vec<String> {
    let exposed = config.admin.iter().filter(|admin| !admin.listen.ip().to_canonical().is_loopback());
    let warning = |admin: &AdminConfig| {
        format!(
            "admin.listen: other hosts can reach {}, and read all but names without encryption: listen on a \
             loopback address, or admit only your own hosts by a firewall",
            admin.listen
        )
    };
    exposed.map(warning).collect()
}

/// Returns a warning for each route whose names go to the same pool without it. A route that names a special
/// name, or one above or below, has the effect that it is forwarded.
fn redundant_routes(config: &Config) -> Vec<String> {
    let Some(forwarder) = &config.forwarder else { return Vec::new() };
    let by_suffix: HashMap<_, _> =
        forwarder.routes.iter().map(|route| ((route.suffix.folded(), route.is_below_only), route.pool)).collect();
    let without = |route: &Route| {
        let suffix = route.suffix.folded();
        let own = route.is_below_only.then(|| by_suffix.get(&(suffix.clone(), false))).flatten();
        let ancestors = std::iter::successors(suffix.parent(), Name::parent);
        let mut above = ancestors.flat_map(|name| [(name.clone(), true), (name, false)]);
        own.copied().or_else(|| above.find_map(|key| by_suffix.get(&key).copied()))
    };
    let is_redundant = |route: &&Route| without(route) == Some(route.pool) && !is_beside_special(&route.suffix);
    let warning = |route: &Route| {
        let below = if route.is_below_only { "*." } else { "" };
        format!(
            "forwarder.routes.\"{below}{}\": without this route its names go to pool {} too, so it only exempts them \
             from limits.per_zone: remove it",
            route.suffix, config.pools[route.pool.0].name
        )
    };
    forwarder.routes.iter().filter(is_redundant).map(warning).collect()
}

/// Returns a warning for each pool without `serves` that denies names in an outage and has a public backend.
fn denials(config: &Config) -> Vec<String> {
    let denies = |pool: &&PoolConfig| pool.serves.is_none() && pool.rules.denies_in_an_outage();
    let pools = config.pools.iter().filter(|_| config.forwarder.is_some()).filter(denies);
    let public = pools
        .filter_map(|pool| Some((pool, pool.backends.iter().find(|backend| is_public(backend.address.socket.ip()))?)));
    let warning = |(pool, backend): (&PoolConfig, &BackendConfig)| {
        format!(
            "pools.{}: {} is a public address and serves is not set: an outage will be NXDOMAIN for every name; \
             set serves = \"same\" (or \"split\")",
            pool.name, backend.address
        )
    };
    public.map(warning).collect()
}

/// Returns true for an address outside this host, private networks, links, and documentation (RFC 5737, RFC
/// 3849).
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            // RFC 6598: addresses behind a carrier's NAT.
            let is_shared = matches!(ip.octets(), [100, 64..=127, ..]);
            let is_here = ip.is_loopback() || ip.is_unspecified();
            !(is_here || is_shared || ip.is_private() || ip.is_link_local() || ip.is_documentation())
        }
        IpAddr::V6(ip) => {
            // RFC 3849.
            let is_documentation = matches!(ip.segments(), [0x2001, 0xdb8, ..]);
            let is_here = ip.is_loopback() || ip.is_unspecified();
            !(is_here || ip.is_unique_local() || ip.is_unicast_link_local() || is_documentation)
        }
    }
}

/// Returns warnings for names and addresses that listeners' certificates lack (RFC 9462 section 4.2).
fn designation(config: &Config, certificates: &[NamedCertificate]) -> Vec<String> {
    let Some(forwarder) = &config.forwarder else { return Vec::new() };
    let ForwarderConfig { designated_resolver: Some(name), listen, .. } = forwarder else { return Vec::new() };
    let name = name.to_string();
    let name = name.trim_end_matches('.');
    let encrypted: Vec<_> = listen.iter().filter(|listener| listener.address.scheme.is_encrypted()).collect();
    if encrypted.is_empty() {
        return vec![String::from(
            "forwarder.designated_resolver: no listener is encrypted, so clients get no designated resolver: add \"tls://ADDRESS\" to listen",
        )];
    }
    let is_shown = |named: &&NamedCertificate| encrypted.iter().any(|listener| may_show(listener, named));
    let shown: Vec<_> = certificates.iter().filter(is_shown).map(|named| &named.certificate).collect();
    let mut warnings = Vec::new();
    if !shown.iter().any(|certificate| certificate.bears_name(name)) {
        warnings.push(format!(
            "forwarder.designated_resolver: no certificate of an encrypted listener is valid for {name}, so clients reject the designated resolver: \
             get a certificate for this name"
        ));
    }
    // With a listener on all addresses, the address that a client uses is unknown here.
    let plain = listen.iter().filter(|listener| !listener.address.scheme.is_encrypted());
    let mut addresses: Vec<_> = plain.map(|listener| listener.address.socket.ip().to_canonical()).collect();
    addresses.retain(|address| !address.is_unspecified());
    addresses.sort_unstable();
    addresses.dedup();
    addresses.retain(|address| !shown.iter().any(|certificate| certificate.bears_address(*address)));
    warnings.extend(addresses.iter().map(|address| {
        format!(
            "forwarder.designated_resolver: no certificate of an encrypted listener is valid for {address}, so clients that ask there stay with \
             plain DNS (RFC 9462 section 4.2): get a certificate for this address"
        )
    }));
    warnings
}

fn may_show(listener: &ListenConfig, named: &NamedCertificate) -> bool {
    listener.certificate.as_ref().is_none_or(|own| *own == named.name)
}

/// Returns a warning if other programs share the configured user.
pub(super) fn shared_user(config: &Config) -> Vec<String> {
    let shared = config.process.user.iter().filter(|user| user.uid == SHARED_USER);
    let warning = |user: &User| {
        format!(
            "user: other programs run as {}, too, and could change everything by the admin socket; \
             make a user for this alone with useradd --system",
            user.name
        )
    };
    shared.map(warning).collect()
}

/// The UID of the shared system user, which many programs run as.
const SHARED_USER: u32 = 65_534;

/// Returns the warnings for all files of a config, and for `file`, the config file.
fn exposed_secrets(config: &Config, file: Option<&Path>) -> Vec<String> {
    let token = config.admin.as_ref().and_then(|admin| admin.token_file.as_deref());
    let keys = config.keys.iter().filter_map(|key| match key {
        KeyConfig::InFile { file, .. } => Some(file.as_path()),
        KeyConfig::Given(_) => file,
    });
    let etcd = config.etcd.as_ref().and_then(|etcd| etcd.password_file.as_deref());
    let certificates = config.certificates.iter().map(|certificate| certificate.key.as_path());
    // The file does not exist before the first end of a process.
    let cache = config.cache.as_ref().and_then(|cache| cache.persist.as_deref());
    let mut files: Vec<_> = token
        .into_iter()
        .map(|file| (file, "the token"))
        .chain(keys.map(|file| (file, "the secret of a key")))
        .chain(config.cookie_secrets_files().into_iter().map(|file| (file, "the secret of cookies")))
        .chain(certificates.map(|file| (file, "the key of a certificate")))
        .chain(etcd.map(|file| (file, "the password of etcd")))
        .chain(cache.map(|file| (file, "the cache, and with it the names that clients ask for,")))
        .collect();
    files.dedup();
    files.into_iter().filter_map(|(file, what)| exposed(file, what)).collect()
}

fn exposed(file: &Path, what: &str) -> Option<String> {
    let mode = fs::metadata(file).ok()?.permissions().mode();
    let can = match (mode & OTHERS_READ != 0, mode & OTHERS_WRITE != 0) {
        (true, true) => "read and change",
        (true, false) => "read",
        (false, true) => "change",
        (false, false) => return None,
    };
    let (file, mode) = (file.display(), mode & 0o7777);
    Some(format!("{file}: any user of this host can {can} {what} (mode {mode:04o}); chmod 600 {file}"))
}

const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;
