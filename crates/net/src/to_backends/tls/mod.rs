//! TLS to servers: trust anchors and connection configuration (rustls, with ring).

mod backend_tls;
mod client_tls;
mod problem;
mod quic_session;
mod roots;
#[cfg(test)]
pub(crate) mod tests;
mod verifier;

pub use self::backend_tls::{BackendTls, KnownRoots};
pub use self::client_tls::{ClientCertificate, ClientTls, TrustRules};
pub(crate) use self::problem::tls_problem;
pub use self::quic_session::QuicHandshake;
pub(crate) use self::quic_session::tls_alert;
pub use self::roots::TlsRoots;
