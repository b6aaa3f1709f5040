//! The files for etcd: the password and the trust anchors.

use std::sync::Arc;

use super::trust::read as read_roots;
use crate::config::{Config, EtcdConfig};
use crate::files;
use crate::net::to_backends::tls::TlsRoots;

/// The content of these files.
#[derive(Clone, Debug, Default)]
pub struct EtcdSecrets {
    /// The password of the user, if there is one.
    pub password: Option<Arc<str>>,
    /// The trust anchors, if any endpoint uses TLS.
    pub roots: Option<TlsRoots>,
}

/// Reads the files that a config needs for etcd.
pub fn load(config: &Config) -> Result<EtcdSecrets, String> {
    let Some(etcd) = &config.etcd else { return Ok(EtcdSecrets::default()) };
    Ok(EtcdSecrets { password: password(etcd)?, roots: roots(etcd)? })
}

fn password(etcd: &EtcdConfig) -> Result<Option<Arc<str>>, String> {
    let Some(file) = &etcd.password_file else { return Ok(None) };
    let problem = |what: &str| format!("etcd.password_file: {}: {what}", file.display());
    let octets = files::read(file).map_err(|error| problem(&error.to_string()))?;
    let text = String::from_utf8(octets).map_err(|_| problem("it is no text"))?;
    // The line end that editors write is not part of the password.
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() { Err(problem("it is empty")) } else { Ok(Some(password.into())) }
}

fn roots(etcd: &EtcdConfig) -> Result<Option<TlsRoots>, String> {
    if etcd.endpoints.iter().all(|endpoint| endpoint.tls.is_none()) {
        return Ok(None);
    }
    let roots = match &etcd.ca_file {
        Some(file) => read_roots(file).map_err(|what| format!("etcd.ca_file: {}: {what}", file.display())),
        None => TlsRoots::of_system().map_err(|what| format!("etcd.ca_file: {what}, write ca_file = \"etcd-ca.pem\"")),
    };
    roots.map(Some)
}
