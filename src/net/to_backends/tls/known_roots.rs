//! The loaded trust anchors (files and system) and client certificates for TLS to backends.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ClientCertificate, TlsRoots, TrustRules};
use crate::address::{BackendAddress, ServerTrust};

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
    pub fn shown(&self, name: &str) -> Option<&Arc<ClientCertificate>> {
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
