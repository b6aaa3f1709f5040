//! TLS to clients (rustls, with ring): certificates, which of them a client is shown, and the rules of a handshake.
//!
//! A [`Certificate`] is a chain with its key, as files had it (`certificate.rs`). The [`CertificateStore`] of the process has those in
//! force; every listener chooses from it (`listener.rs`), so that another certificate is in force for the next connection and
//! no sooner. Sockets are none of its business: a connection brings its octets here (`net/tcp/`). No file is read here.

mod certificate;
mod contents;
mod listener;
mod store;

pub use certificate::{Certificate, CertificateError};
pub use contents::{CertificateContents, Validity};
pub use listener::{TlsListener, TlsServer};
pub use store::{CertificateStore, NamedCertificate};
