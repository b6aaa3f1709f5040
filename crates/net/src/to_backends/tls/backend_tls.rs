//! The loaded trust anchors (files and system) and client certificates for TLS to backends, and the TLS
//! configurations of all backends: one table for all threads that connect to them, so that sessions resume on
//! any of them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use dns::address::{BackendAddress, ServerTrust, StreamServer};

use super::{ClientCertificate, ClientTls, TlsRoots, TrustRules};

/// Trust anchors by file, and client certificates by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownRoots {
    files: HashMap<PathBuf, TlsRoots>,
    system: Option<TlsRoots>,
    shown: HashMap<String, Arc<ClientCertificate>>,
}

impl KnownRoots {
    /// Creates a set from files, and from the system if loaded.
    pub fn new(files: HashMap<PathBuf, TlsRoots>, system: Option<TlsRoots>) -> Self {
        Self { files, system, shown: HashMap::new() }
    }

    /// Returns the set with these client certificates.
    pub fn with_shown(self, shown: HashMap<String, Arc<ClientCertificate>>) -> Self {
        Self { shown, ..self }
    }

    /// The anchors of a file, or else of the system.
    pub fn of(&self, file: Option<&Path>) -> Option<&TlsRoots> {
        match file {
            Some(file) => self.files.get(file),
            None => self.system.as_ref(),
        }
    }

    /// The client certificate of this name.
    pub(crate) fn shown(&self, name: &str) -> Option<&Arc<ClientCertificate>> {
        self.shown.get(name)
    }

    /// Returns the rules for a server, with the anchors of a file or the system, and a client certificate.
    pub fn rules(&self, server: BackendAddress, trust: &ServerTrust) -> TrustRules {
        TrustRules {
            identity: trust.identity.clone(),
            roots: self.of(trust.ca.as_deref()).cloned(),
            address: server.ip(),
            // RFC 7858 section 3.1 has no ALPN, but some servers use it to separate DNS from other protocols.
            alpn: server.scheme.alpn().iter().map(|protocol| protocol.to_vec()).collect(),
            certificate: trust.certificate.as_deref().and_then(|name| self.shown(name)).cloned(),
            early_data: false,
            needs_tls_1_3: false,
        }
    }

    /// Returns true if there are files, which may change.
    pub fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// Returns the set with each file read again by `read`, which gets the old content.
    pub fn renewed(&self, mut read: impl FnMut(&Path, &TlsRoots) -> TlsRoots) -> Self {
        let files = self.files.iter().map(|(file, roots)| (file.clone(), read(file, roots))).collect();
        Self { files, system: self.system.clone(), shown: self.shown.clone() }
    }

    /// Sets the client certificate of this name.
    pub fn show(&mut self, name: &str, certificate: ClientCertificate) {
        if self.shown.get(name).is_none_or(|known| **known != certificate) {
            self.shown.insert(name.to_owned(), Arc::new(certificate));
        }
    }
}

/// The TLS configurations of backends, made when they are needed.
#[derive(Debug, Default)]
pub struct BackendTls {
    roots: ArcSwap<KnownRoots>,
    /// The latest configurations of each address. Pools may trust one server by several rules.
    known: Mutex<HashMap<BackendAddress, Vec<Arc<ClientTls>>>>,
}

impl BackendTls {
    /// Sets the trust anchors and client certificates for new connections. Open connections stay.
    pub fn trust(&self, roots: Arc<KnownRoots>) {
        self.roots.store(roots);
    }

    /// Returns the configuration for an encrypted server.
    ///
    /// # Errors
    /// The reason why the server cannot be authenticated.
    pub fn of(&self, server: &StreamServer) -> Result<Arc<ClientTls>, String> {
        let StreamServer { address, trust, early_data, .. } = server;
        let rules = TrustRules { early_data: *early_data, ..self.roots.load().rules(*address, trust) };
        let mut known = self.known();
        let of_server = known.entry(*address).or_default();
        if let Some(same) = of_server.iter().find(|tls| *tls.rules() == rules) {
            return Ok(Arc::clone(same));
        }
        let tls = Arc::new(ClientTls::new(&rules)?);
        if of_server.len() == MAX_OF_SERVER {
            of_server.remove(0);
        }
        of_server.push(Arc::clone(&tls));
        Ok(tls)
    }

    /// Drops the configurations of servers that are not among these.
    pub fn retain(&self, servers: &HashSet<BackendAddress>) {
        self.known().retain(|address, _| servers.contains(address));
    }

    fn known(&self) -> MutexGuard<'_, HashMap<BackendAddress, Vec<Arc<ClientTls>>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each reload of changed certificates adds one.
const MAX_OF_SERVER: usize = 4;

#[cfg(test)]
mod tests {
    use dns::address::HttpPath;
    use testkit::CertificateAuthority;

    use super::*;

    #[test]
    fn renewed_trust_applies_to_the_next_connection() {
        let authority = CertificateAuthority::new();
        let address = "tls://192.0.2.1".parse().expect("an address");
        let trust =
            ServerTrust { ca: Some("ca.pem".into()), certificate: Some("us".to_owned()), ..ServerTrust::default() };
        let server = StreamServer { address, trust, path: HttpPath::default(), early_data: false };
        let tls = BackendTls::default();
        tls.of(&server).expect_err("no authority has signed it");
        let roots = TlsRoots::of_pem(authority.pem().as_bytes()).expect("a certificate");
        let mut roots = KnownRoots::new([("ca.pem".into(), roots)].into(), None);
        tls.trust(Arc::new(roots.clone()));
        let first = tls.of(&server).expect("an authority has");
        assert!(first.rules().certificate.is_none());
        // The same trust anchors keep resumable sessions.
        tls.trust(Arc::new(roots.clone()));
        assert!(Arc::ptr_eq(&first, &tls.of(&server).expect("it stays")));
        let leaf = authority.leaf(&["us.example"]);
        let key = leaf.private_key();
        roots.show("us", ClientCertificate { chain: vec![leaf.der().clone()], key });
        tls.trust(Arc::new(roots));
        let second = tls.of(&server).expect("it stays");
        assert!(second.rules().certificate.is_some());
        tls.retain(&HashSet::from([address]));
        assert!(Arc::ptr_eq(&second, &tls.of(&server).expect("it is in use")));
        tls.retain(&HashSet::new());
        assert!(!Arc::ptr_eq(&second, &tls.of(&server).expect("it is made again")));
    }
}
