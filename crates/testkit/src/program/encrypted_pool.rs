//! A server before backends that are asked by HTTPS or QUIC, and questions to it.

use crate::*;

/// The address in the right answers.
pub const ADDRESS: &str = "192.0.2.1";
/// Another address.
pub const OTHER: &str = "192.0.2.2";

/// A backend that can stand in a config.
pub trait Listed {
    /// As it stands in `backends`.
    fn entry(&self) -> String;
}

impl Listed for HttpsBackend {
    fn entry(&self) -> String {
        self.entry()
    }
}

impl Listed for QuicBackend {
    fn entry(&self) -> String {
        self.entry()
    }
}

/// A server of one worker before these backends.
pub fn server(ca: &CertificateAuthority, backends: &[&dyn Listed], rules: &str) -> Server {
    let backends: Vec<_> = backends.iter().map(|backend| backend.entry()).collect();
    let config = format!(
        "workers = 1\n[admin]\nlisten = '127.0.0.1:0'\n[forwarder]\nlisten = ['127.0.0.1:0']\n\
         [pools.all]\nbackends = [{}]\ntimeout = '20s'\nattempt_timeout = '5s'\n{rules}\n",
        backends.join(", ")
    );
    Server::start_with_files(&config, &[("ca.pem", &ca.pem())])
}

/// Asks so many questions at once, each once, and says how many were answered so.
pub fn ask(server: &Server, count: usize, address: &str) -> usize {
    let client = server.client();
    (0..count).for_each(|number| client.send(&query(&format!("q{number}.example"), A)));
    (0..count).filter(|_| client.receive().answers() == [address]).count()
}

/// Asks so many questions, one after the other.
pub fn ask_in_turn(server: &Server, count: usize, address: &str) -> usize {
    let client = server.client();
    let answers = |number| client.ask(&query(&format!("t{number}.example"), A)).answers() == [address];
    (0..count).filter(|number| answers(*number)).count()
}

/// The sum of a metric over all series with these labels.
pub fn sum(server: &Server, family: &str, labels: &[(&str, &str)]) -> u64 {
    server.admin().metrics().sum(family, labels)
}

/// Connections that were lost by this cause.
pub fn lost(server: &Server, cause: &str) -> u64 {
    sum(server, "hedgerow_backend_connections_lost_total", &[("cause", cause)])
}
