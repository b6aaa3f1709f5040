//! `connections.max_age`: connections to backends are replaced under load, by each transport, and no query is
//! lost.

use testkit::encrypted_pool::Listed;
use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// Queries that are pending at a time.
const BURST: usize = 20;

/// Asks in bursts until the backend has had this many connections for queries. Returns the number of queries.
fn ask_until_replaced(server: &Server, transport: &str, count: u64) -> usize {
    let client = server.client();
    let mut asked = 0;
    let made = || server.admin().metrics().sum("hedgerow_backend_connections_total", &[]);
    until("connections are replaced", || {
        for _ in 0..20 {
            (asked..asked + BURST).for_each(|number| client.send(&query(&format!("q{number}.example"), A)));
            let answers = (0..BURST).filter(|_| client.receive().answers() == [ADDRESS]).count();
            assert_eq!(answers, BURST, "{transport}");
            asked += BURST;
        }
        (made() >= count).then_some(())
    });
    asked
}

/// A config with one backend whose connections are replaced at this age.
fn config(entry: &str, max_age: &str) -> String {
    format!(
        "workers = 1\n[admin]\nlisten = '127.0.0.1:0'\n[forwarder]\nlisten = ['127.0.0.1:0']\n\
         [pools.all]\nbackends = [{entry}]\ntimeout = '20s'\nattempt_timeout = '10s'\n\
         [pools.all.connections]\nmax = 1\nmax_age = '{max_age}'\n"
    )
}

#[test]
fn connections_are_replaced_under_load_without_a_lost_query() {
    let ca = CertificateAuthority::new();
    let (tcp, tls) = (StreamBackend::new(None, answer(ADDRESS)), StreamBackend::new(Some(&ca), answer(ADDRESS)));
    let (https, quic) = (HttpsBackend::new(&ca, answer(ADDRESS)), QuicBackend::new(&ca, answer(ADDRESS)));
    let entries =
        [("tcp", tcp.entry()), ("tls", tls.entry()), ("https", Listed::entry(&https)), ("quic", Listed::entry(&quic))];
    for (transport, entry) in entries {
        let server = Server::start_with_files(&config(&entry, "1s"), &[("ca.pem", &ca.pem())]);
        let asked = ask_until_replaced(&server, transport, 4);
        let metrics = server.admin().metrics();
        assert_eq!(metrics.sum("hedgerow_backend_lost_attempts_total", &[]), 0, "{transport}");
        assert_eq!(metrics.sum("hedgerow_backend_connections_lost_total", &[]), 0, "{transport}");
        // Each query was sent once: none was repeated after a timeout.
        let attempts = |kind| metrics.sum("hedgerow_attempts_total", &[("kind", kind)]);
        assert_eq!([attempts("first"), attempts("failover")], [asked as u64, 0], "{transport}");
        server
            .admin()
            .wait_for("old connections are closed", |metrics| metrics.sum("hedgerow_backend_connections", &[]) <= 1);
    }
}

#[test]
fn a_reload_sets_the_age_of_connections_and_loses_nothing() {
    let backend = StreamBackend::new(None, answer(ADDRESS));
    let server = Server::start(&config(&backend.entry(), "1h"));
    let made = || server.admin().metrics().sum("hedgerow_backend_connections_total", &[]);
    ask_until_replaced(&server, "before", 1);
    let before = made();
    server.rewrite("config.toml", &config(&backend.entry(), "1s"));
    server.admin().post("/api/v1/reload", "");
    ask_until_replaced(&server, "after", before + 3);
    assert_eq!(server.admin().metrics().sum("hedgerow_backend_lost_attempts_total", &[]), 0);
}
