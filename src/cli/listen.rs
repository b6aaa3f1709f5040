//! The listeners of `ls` and `ts`, and their certificate.

use std::path::PathBuf;

use config::{CertificateConfig, ListenConfig, listen_address};
use dns::address::ListenUrl;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ListenArgs {
    /// Where to listen: ADDRESS[:PORT] by UDP and TCP, or with tcp://, tls://, https://, http:// or quic://
    /// before it; may be given several times
    #[arg(short, long, value_name = "ADDR", required = true, value_parser = listen_address)]
    listen: Vec<ListenUrl>,
    /// The certificate chain of encrypted listeners, in PEM, the leaf first
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

impl ListenArgs {
    pub(super) fn listen(&self) -> Vec<ListenConfig> {
        self.listen.iter().cloned().map(Into::into).collect()
    }

    pub(super) fn certificates(&self) -> Vec<CertificateConfig> {
        let section = |(chain, key): (&PathBuf, &PathBuf)| CertificateConfig {
            name: "main".to_owned(),
            chain: chain.clone(),
            key: key.clone(),
            names: Vec::new(),
        };
        self.certificate.iter().zip(&self.key).map(section).collect()
    }

    /// Returns true if the first listener has the unspecified address.
    pub(super) fn is_unspecified(&self) -> bool {
        self.listen.first().is_some_and(|first| first.address.socket.ip().is_unspecified())
    }

    /// Reports an encrypted listener without a certificate.
    pub(super) fn check(&self) -> Result<(), String> {
        let lacks = |listener: &&ListenUrl| listener.address.scheme.is_encrypted() && self.certificate.is_none();
        self.listen.iter().find(lacks).map_or(Ok(()), |listener| {
            let address = listener.address;
            Err(format!("{address} has no certificate to show, add --certificate FILE and --key FILE"))
        })
    }
}
