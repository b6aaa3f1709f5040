//! References between sections, checked when the whole document is read.

use std::net::SocketAddr;
use std::path::PathBuf;

use dns::Name;

use super::discover::EtcdConfig;
use super::keys::KeyConfig;
use super::listen::{CertificateConfig, ListenConfig, ListenReferences};
use super::section::{DocumentSpot, note_repeats};
use super::words::nearest;

#[derive(Default)]
pub(super) struct References<'d> {
    pub(super) listening: ListenReferences<'d>,
    pub(super) backends: Vec<(SocketAddr, DocumentSpot<'d>)>,
    pub(super) certificates: Vec<(String, DocumentSpot<'d>)>,
    pub(super) keys: Vec<(Name, DocumentSpot<'d>)>,
    pub(super) written_files: Vec<(PathBuf, DocumentSpot<'d>)>,
    pub(super) etcd: Vec<DocumentSpot<'d>>,
}

impl References<'_> {
    pub(super) fn check(self, certificates: &[CertificateConfig], keys: &[KeyConfig], etcd: Option<&EtcdConfig>) {
        note_repeats(self.written_files, |file| format!("{} is written", file.display()));
        for (name, spot) in self.keys {
            if !keys.iter().any(|key| *key.name() == name) {
                let name = name.to_string();
                let bare = name.strip_suffix('.').unwrap_or(&name);
                spot.note(format!("there is no key {bare:?}, add [keys.{bare:?}]"));
            }
        }
        let names = || certificates.iter().map(|certificate| certificate.name.as_str());
        for (name, spot) in self.certificates.iter().filter(|(name, _)| names().all(|known| known != name)) {
            let remedy = match nearest(name, names()) {
                Some(known) => format!("did you mean {known:?}?"),
                None => format!("add [certificates.{name}]"),
            };
            spot.note(format!("there is no certificate {name:?}, {remedy}"));
        }
        self.listening.check(!certificates.is_empty());
        if etcd.is_none() {
            let missing = "there is no etcd to ask, add [etcd] with endpoints = [\"http://127.0.0.1:2379\"]";
            self.etcd.iter().for_each(|spot| spot.note(missing));
        }
    }

    /// Reports backends that are the forwarder itself. `load/checks.rs` checks wildcard listeners.
    pub(super) fn note_loops(&self, listen: &[ListenConfig]) {
        for (address, spot) in &self.backends {
            let ip = address.ip().to_canonical();
            let is_here = ip.is_loopback() || ip.is_unspecified();
            let is_all = |own: SocketAddr| is_here && own.ip().is_unspecified() && own.port() == address.port();
            if listen.iter().map(ListenConfig::socket).any(|own| own == *address || is_all(own)) {
                spot.note(format!("{address} is this forwarder itself, expected another server"));
            }
        }
    }
}
