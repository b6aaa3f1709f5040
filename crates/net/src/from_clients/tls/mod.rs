//! TLS to clients (rustls, with ring). Listeners choose each [`Certificate`] from the [`CertificateStore`],
//! so a new one applies from the next connection on. No sockets or files here.

mod certificate;
mod contents;
pub(super) mod handshake;
mod listener;
pub(super) mod protocols;
mod store;

pub use certificate::{Certificate, CertificateError};
pub use contents::{CertificateContents, Validity};
pub use listener::{TlsListener, TlsServer};
pub use store::{CertificateStore, NamedCertificate};
