//! Trust anchors for TLS to backends and primaries, and the client certificates for them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use config::Config;
use dns::address::{ServerTrust, Verify};
use net::from_clients::tls::{Certificate, NamedCertificate};
use net::to_backends::tls::{ClientCertificate, KnownRoots, TlsRoots};

use super::{LoadError, gather};
use crate::files;

/// Returns the encrypted servers that must prove their identity, each of them once, with its place in the
/// config.
fn judged(config: &Config) -> Vec<(String, &ServerTrust)> {
    let backends = config.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
    let backends = backends
        .filter(|(_, backend)| backend.address.scheme.is_encrypted())
        .map(|(pool, backend)| (format!("pools.{}.backends: {}", pool.name, backend.name), &backend.trust));
    let mut judged: Vec<_> = backends.collect();
    for authority in &config.authorities {
        let of_zones = authority.zones.secondaries.iter().flat_map(|secondary| &secondary.primaries);
        let of_catalogs = authority.zones.catalogs.iter().flat_map(|catalog| {
            let members = catalog.groups.iter().map(|(_, members)| members).chain([&catalog.members]);
            members.flat_map(|members| &members.primaries)
        });
        for primary in of_zones.chain(of_catalogs).filter(|primary| primary.address.scheme.is_encrypted()) {
            let place = format!("authorities.{}.zones: primary {primary}", authority.name);
            let subject = (place, &primary.trust);
            if !judged.contains(&subject) {
                judged.push(subject);
            }
        }
    }
    judged
}

/// Reads the trust anchors for the servers of a config. `certificates` are the client certificates.
pub(super) fn load(config: &Config, certificates: &[NamedCertificate]) -> Result<Arc<KnownRoots>, LoadError> {
    let (mut files, mut system) = (HashMap::new(), None);
    let by_chain = judged(config).into_iter().filter(|(_, trust)| trust.identity.verify == Verify::Full);
    let read = by_chain.map(|(place, trust)| {
        let file = trust.ca.as_ref();
        let found = match file {
            Some(file) if files.contains_key(file) => Ok(()),
            Some(file) => read(file).map(|roots| {
                files.insert(file.clone(), roots);
            }),
            None if system.is_some() => Ok(()),
            None => TlsRoots::of_system().map(|roots| system = Some(roots)),
        };
        found.map_err(|what| match file {
            Some(file) => format!("{place}: ca: {}: {what}", file.display()),
            None => {
                format!("{place}: {what}; write ca = \"ca.pem\", or install those of the system (ca-certificates)")
            }
        })
    });
    gather(read)?;
    // A discovered member may need the anchors of the system. If there are none, that member is down with
    // this reason.
    let is_open = config.pools.iter().any(|pool| pool.discover.is_some());
    let roots = KnownRoots::new(files, system.or_else(|| TlsRoots::of_system().ok().filter(|_| is_open)));
    let shown = certificates.iter().map(|named| (named.name.clone(), Arc::new(shown(&named.certificate))));
    Ok(Arc::new(roots.with_shown(shown.collect())))
}

/// Polls the files of known trust anchors. A wrong file is reported, and its previous content stays.
pub fn look(known: &KnownRoots) -> (KnownRoots, Vec<String>) {
    let mut problems = Vec::new();
    let renewed = known.renewed(|file, earlier| {
        read(file).unwrap_or_else(|what| {
            problems.push(format!("ca: {}: {what}", file.display()));
            earlier.clone()
        })
    });
    problems.sort_unstable();
    (renewed, problems)
}

/// Converts a certificate to the client certificate for backends.
pub fn shown(certificate: &Certificate) -> ClientCertificate {
    ClientCertificate { chain: certificate.chain().to_vec(), key: certificate.key() }
}

/// Returns warnings for servers whose identity is not verified.
pub(super) fn unverified(config: &Config) -> Vec<String> {
    let anybody = judged(config).into_iter().filter(|(_, trust)| trust.identity.verify == Verify::None);
    let describe = |(place, _): (String, &ServerTrust)| {
        format!(
            "{place}: verify = \"none\": the server is not authenticated, so an attacker on the path can read and forge replies; write ca = \"ca.pem\", or \
             verify = \"pin\" with pins"
        )
    };
    anybody.map(describe).collect()
}

pub(super) fn read(file: &Path) -> Result<TlsRoots, String> {
    let pem = files::read(file).map_err(|error| error.to_string())?;
    TlsRoots::of_pem(&pem)
}

#[cfg(test)]
mod tests {
    use testkit::CertificateAuthority;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_with_its_backend() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("empty.pem"), "").expect("it is written");
        let text = "[forwarder]\n[pools.ts]\nbackends = [{ address = \"tls://192.0.2.1\", ca = \"none.pem\" },\n\
                    { address = \"tls://192.0.2.2\", ca = \"empty.pem\" },\n\
                    { address = \"tls://192.0.2.3\", ca = \"none.pem\", verify = \"none\" }, \"192.0.2.4\"]\n";
        let config = Config::parse(text, "c.toml", folder.path()).expect("a config");
        let describe = load(&config, &[]).expect_err("two of them need a file").to_string();
        let (none, empty) = (folder.path().join("none.pem"), folder.path().join("empty.pem"));
        assert_eq!(
            describe,
            format!(
                "pools.ts.backends: tls://192.0.2.1:853: ca: {}: No such file or directory (os error 2)\n\
                 pools.ts.backends: tls://192.0.2.2:853: ca: {}: it holds no certificate",
                none.display(),
                empty.display()
            )
        );
    }

    #[test]
    fn nothing_is_read_where_nobody_is_judged() {
        let text = "[forwarder]\n[pools.ts]\nbackends = [\"192.0.2.1\", \"tcp://192.0.2.1\"]\n";
        let config = Config::parse(text, "c.toml", Path::new("")).expect("a config");
        assert_eq!(*load(&config, &[]).expect("nothing is wrong"), KnownRoots::default());
    }

    #[test]
    fn what_has_changed_is_read_and_what_is_broken_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ca.pem");
        let authority = || CertificateAuthority::new().pem();
        std::fs::write(&file, authority()).expect("it is written");
        let text = "[forwarder]\n[pools.ts]\nbackends = [{ address = \"tls://192.0.2.1\", ca = \"ca.pem\" }]\n";
        let config = Config::parse(text, "c.toml", folder.path()).expect("a config");
        let known = load(&config, &[]).expect("it is there");
        assert_eq!(look(&known), (KnownRoots::clone(&known), Vec::new()));
        let other = authority();
        std::fs::write(&file, &other).expect("it is written");
        let (renewed, problems) = look(&known);
        assert!(renewed != *known && problems.is_empty());
        assert_eq!(renewed.of(Some(&file)), TlsRoots::of_pem(other.as_bytes()).ok().as_ref());
        for broken in ["", &other[..other.len() / 2]] {
            std::fs::write(&file, broken).expect("it is written");
            let (kept, problems) = look(&renewed);
            assert_eq!((kept, problems.len()), (renewed.clone(), 1), "{problems:?}");
            assert!(problems[0].starts_with(&format!("ca: {}: ", file.display())), "{problems:?}");
        }
    }

    #[test]
    fn who_is_believed_whoever_it_is_is_warned_of() {
        let text = "[forwarder]\n[pools.ts]\nbackends = [\"192.0.2.1\", \"tls://192.0.2.2\", { address = \"tls://192.0.2.1\", verify = \"none\" }]\n";
        let config = Config::parse(text, "c.toml", Path::new("")).expect("a config");
        let describe = unverified(&config);
        assert_eq!(describe.len(), 1);
        assert!(
            describe[0].starts_with(
                "pools.ts.backends: tls://192.0.2.1:853: verify = \"none\": the server is not authenticated"
            ),
            "{describe:?}"
        );
    }
}
