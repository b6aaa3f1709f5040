//! Whose certificates are good, for backends that are asked by TLS.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::FileProblems;
use crate::address::Verify;
use crate::config::{BackendConfig, Config};
use crate::files;
use crate::net::tls::{KnownRoots, TlsRoots};

/// There are no certificates to judge a backend by.
#[derive(Debug)]
pub struct TrustProblem {
    pool: String,
    backend: String,
    /// The file; none: it is the system that has none.
    file: Option<PathBuf>,
    what: String,
}

impl fmt::Display for TrustProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, backend, file, what } = self;
        match file {
            Some(file) => write!(f, "pools.{pool}.backends: {backend}: ca: {}: {what}", file.display()),
            None => write!(
                f,
                "pools.{pool}.backends: {backend}: {what}; write ca = \"ca.pem\", or install those of the system (ca-certificates)"
            ),
        }
    }
}

/// Reads the certificates that backends of a config are judged by.
///
/// # Errors
/// If there are none to be had where a backend needs them.
pub fn load(config: &Config) -> Result<Arc<KnownRoots>, FileProblems<TrustProblem>> {
    let (mut files, mut system) = (HashMap::new(), None);
    let is_judged = |backend: &&BackendConfig| {
        backend.address.scheme.is_encrypted() && backend.trust.identity.verify == Verify::Full
    };
    let backends = config.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
    let read = backends.filter(|(_, backend)| is_judged(backend)).map(|(pool, backend)| {
        let file = backend.trust.ca.as_ref();
        let found = match file {
            Some(file) if files.contains_key(file) => Ok(()),
            Some(file) => read(file).map(|roots| {
                files.insert(file.clone(), roots);
            }),
            None if system.is_some() => Ok(()),
            None => TlsRoots::of_system().map(|roots| system = Some(roots)),
        };
        let problem =
            |what| TrustProblem { pool: pool.name.clone(), backend: backend.name.clone(), file: file.cloned(), what };
        found.map_err(problem)
    });
    FileProblems::gather(read)?;
    // Who joins while we run may need those of the system. If there are none, it is found to be down, and why.
    let is_open = config.pools.iter().any(|pool| pool.discover.is_some());
    Ok(Arc::new(KnownRoots::new(files, system.or_else(|| TlsRoots::of_system().ok().filter(|_| is_open)))))
}

fn read(file: &Path) -> Result<TlsRoots, String> {
    let pem = files::read(file).map_err(|error| error.to_string())?;
    TlsRoots::of_pem(&pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_with_its_backend() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("empty.pem"), "").expect("it is written");
        let text = "[forwarder]\n[pools.ts]\nbackends = [{ address = \"tls://192.0.2.1\", ca = \"none.pem\" },\n\
                    { address = \"tls://192.0.2.2\", ca = \"empty.pem\" },\n\
                    { address = \"tls://192.0.2.3\", ca = \"none.pem\", verify = \"none\" }, \"192.0.2.4\"]\n";
        let config = Config::parse(text, "c.toml", folder.path()).expect("a config");
        let told = load(&config).expect_err("two of them need a file").to_string();
        let (none, empty) = (folder.path().join("none.pem"), folder.path().join("empty.pem"));
        assert_eq!(
            told,
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
        assert_eq!(*load(&config).expect("nothing is wrong"), KnownRoots::default());
    }
}
