//! The files for etcd: the password and the trust anchors.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

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

/// One of the files is unusable.
#[derive(Debug)]
pub struct EtcdProblem {
    key: &'static str,
    file: Option<PathBuf>,
    what: String,
}

impl fmt::Display for EtcdProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, file, what } = self;
        match file {
            Some(file) => write!(f, "etcd.{key}: {}: {what}", file.display()),
            None => write!(f, "etcd.{key}: {what}, write {key} = \"etcd-ca.pem\""),
        }
    }
}

/// Reads the files that a config needs for etcd.
pub fn load(config: &Config) -> Result<EtcdSecrets, EtcdProblem> {
    let Some(etcd) = &config.etcd else { return Ok(EtcdSecrets::default()) };
    Ok(EtcdSecrets { password: password(etcd)?, roots: roots(etcd)? })
}

fn password(etcd: &EtcdConfig) -> Result<Option<Arc<str>>, EtcdProblem> {
    let Some(file) = &etcd.password_file else { return Ok(None) };
    let problem = |what: String| EtcdProblem { key: "password_file", file: Some(file.clone()), what };
    let octets = files::read(file).map_err(|error| problem(error.to_string()))?;
    let text = String::from_utf8(octets).map_err(|_| problem("it is no text".to_owned()))?;
    // The line end that editors write is not part of the password.
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() { Err(problem("it is empty".to_owned())) } else { Ok(Some(password.into())) }
}

fn roots(etcd: &EtcdConfig) -> Result<Option<TlsRoots>, EtcdProblem> {
    if etcd.endpoints.iter().all(|endpoint| endpoint.tls.is_none()) {
        return Ok(None);
    }
    let file = etcd.ca_file.as_ref();
    let roots = match file {
        Some(file) => files::read(file).map_err(|error| error.to_string()).and_then(|pem| TlsRoots::of_pem(&pem)),
        None => TlsRoots::of_system(),
    };
    roots.map(Some).map_err(|what| EtcdProblem { key: "ca_file", file: file.cloned(), what })
}
