//! What was read for connections by TLS to backends: the certificates of those who vouch for them, of files and of this system, and
//! those of ours that they are shown.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ClientCertificate, TlsRoots, TrustRules};
use crate::address::{BackendAddress, ServerIdentity};

/// Whose certificates are good, by the file that says so, and our own, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownRoots {
    files: HashMap<PathBuf, TlsRoots>,
    /// Of this system, if it has any and they were asked for.
    system: Option<TlsRoots>,
    /// Our own.
    shown: HashMap<String, Arc<ClientCertificate>>,
}

impl KnownRoots {
    /// Those of these files, and of this system if they were read.
    pub fn new(files: HashMap<PathBuf, TlsRoots>, system: Option<TlsRoots>) -> Self {
        Self { files, system, shown: HashMap::new() }
    }

    /// The same with these certificates of our own.
    pub fn with_shown(self, shown: HashMap<String, Arc<ClientCertificate>>) -> Self {
        Self { shown, ..self }
    }

    /// Those of a file, or else of this system.
    pub fn of(&self, file: Option<&Path>) -> Option<&TlsRoots> {
        match file {
            Some(file) => self.files.get(file),
            None => self.system.as_ref(),
        }
    }

    /// A certificate of our own.
    pub fn shown(&self, name: &str) -> Option<&Arc<ClientCertificate>> {
        self.shown.get(name)
    }

    /// What a connection to this server needs, which is judged by a file of certificates, or else by those of this system, and shown this
    /// certificate of our own.
    pub fn rules(
        &self,
        server: BackendAddress,
        identity: &ServerIdentity,
        ca: Option<&Path>,
        certificate: Option<&str>,
    ) -> TrustRules {
        TrustRules {
            identity: identity.clone(),
            roots: self.of(ca).cloned(),
            address: server.ip(),
            // RFC 7858 section 3.1 has none; who knows it tells DNS from what else is on the port.
            alpn: server.scheme.alpn().iter().map(|protocol| protocol.to_vec()).collect(),
            certificate: certificate.and_then(|name| self.shown(name)).cloned(),
            early_data: false,
        }
    }

    /// Whether there are files that may change.
    pub fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// The same with what each file says now, as `read` finds out by what it said before.
    pub fn renewed(&self, mut read: impl FnMut(&Path, &TlsRoots) -> TlsRoots) -> Self {
        let files = self.files.iter().map(|(file, roots)| (file.clone(), read(file, roots))).collect();
        Self { files, system: self.system.clone(), shown: self.shown.clone() }
    }

    /// Shows this certificate of our own under this name from now on.
    pub fn show(&mut self, name: &str, certificate: ClientCertificate) {
        if self.shown.get(name).is_none_or(|known| **known != certificate) {
            self.shown.insert(name.to_owned(), Arc::new(certificate));
        }
    }
}
