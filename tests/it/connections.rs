//! Backends that are asked by TCP alone or by TLS: what their connections may do, and that it costs no query.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use testkit::peers::{Peer, ZONE};
use testkit::*;

const ADDRESS: &str = "192.0.2.1";
const OTHER: &str = "192.0.2.2";

/// A server of one worker before these backends.
fn server(backends: &[&StreamBackend], rules: &str) -> Server {
    server_that_trusts(&CertificateAuthority::new(), backends, rules)
}

fn server_that_trusts(ca: &CertificateAuthority, backends: &[&StreamBackend], rules: &str) -> Server {
    Server::start_with_files(&config(backends, rules), &[("ca.pem", &ca.pem())])
}

fn config(backends: &[&StreamBackend], rules: &str) -> String {
    let backends: Vec<_> = backends.iter().map(|backend| backend.entry()).collect();
    format!(
        "workers = 1\n[admin]\nlisten = '127.0.0.1:0'\n[forwarder]\nlisten = ['127.0.0.1:0']\n\
         [pools.all]\nbackends = [{}]\ntimeout = '20s'\nattempt_timeout = '5s'\n{rules}\n",
        backends.join(", ")
    )
}

/// Asks so many questions at once, each once, and says how many were answered so.
fn ask(server: &Server, count: usize, address: &str) -> usize {
    let client = server.client();
    (0..count).for_each(|number| client.send(&query(&format!("q{number}.example"), A)));
    (0..count).filter(|_| client.receive().answers() == [address]).count()
}

fn sum(server: &Server, family: &str, label: &str, value: &str) -> u64 {
    server.admin().metrics().sum(family, &[(label, value)])
}

fn lost(server: &Server, cause: &str) -> u64 {
    sum(server, "hedgerow_backend_connections_lost_total", "cause", cause)
}

#[test]
fn replies_come_in_any_order_by_tcp_and_by_tls() {
    let ca = CertificateAuthority::new();
    for tls in [None, Some(&ca)] {
        let backend = StreamBackend::misbehaving(Manner::Reverses(20), 9, tls, answer(ADDRESS));
        let server = server_that_trusts(&ca, &[&backend], "");
        assert_eq!(ask(&server, 20, ADDRESS), 20);
        assert_eq!((backend.connections(), backend.queries()), (1, 20));
        // By TLS it resumes the session of a probe that was quicker.
        let opened = |kind| sum(&server, "hedgerow_backend_connections_total", "kind", kind);
        assert_eq!(opened("full") + opened("resumed"), 1);
        assert_eq!(server.admin().metrics().sum("hedgerow_backend_connections", &[]), 1);
        assert_eq!(server.admin().metrics().sum("hedgerow_backend_lost_attempts_total", &[]), 0);
    }
}

#[test]
fn reset_with_twenty_waiting_loses_none() {
    let ca = CertificateAuthority::new();
    for tls in [None, Some(&ca)] {
        let backend = StreamBackend::misbehaving(Manner::ResetsWith(20), 1, tls, answer(ADDRESS));
        let server = server_that_trusts(&ca, &[&backend], "");
        assert_eq!(ask(&server, 20, ADDRESS), 20);
        assert_eq!(backend.connections(), 2);
        assert_eq!(server.admin().metrics().sum("hedgerow_backend_lost_attempts_total", &[]), 20);
        assert_eq!(lost(&server, "reset") + lost(&server, "closed"), 1);
    }
}

#[test]
fn half_open_connection_costs_no_query_with_one_backend() {
    let backend = StreamBackend::misbehaving(Manner::IsSilent, 1, None, answer(ADDRESS));
    let server = server(&[&backend], "[pools.all.health]\ntimeout = '300ms'\n");
    assert_eq!(ask(&server, 10, ADDRESS), 10);
    assert!(backend.connections() >= 2);
    server.admin().wait_for("it is given up", |metrics| {
        metrics.sum("hedgerow_backend_connections_lost_total", &[("cause", "timeout")]) >= 1
    });
}

#[test]
fn half_open_connection_costs_no_query_with_two_backends() {
    let silent = StreamBackend::misbehaving(Manner::IsSilent, 9, None, answer(ADDRESS));
    let other = StreamBackend::new(None, answer(OTHER));
    let server = server(&[&silent, &other], "balance = 'ordered'\n[pools.all.hedge]\nbudget = 1.0\n");
    assert_eq!(ask(&server, 10, OTHER), 10);
}

#[test]
fn server_that_closes_costs_no_query() {
    let ca = CertificateAuthority::new();
    for (tls, count) in [(None, 1), (Some(&ca), 1), (None, 3)] {
        let backend = StreamBackend::misbehaving(Manner::ClosesAfter(count), usize::MAX, tls, answer(ADDRESS));
        let server = server_that_trusts(&ca, &[&backend], "");
        let client = server.client();
        for number in 0..9 {
            assert_eq!(client.ask(&query(&format!("q{number}.example"), A)).answers(), [ADDRESS], "after {count}");
        }
        assert!(backend.connections() >= 9 / count);
    }
}

#[test]
fn handshake_that_hangs_or_shows_a_wrong_certificate_moves_on() {
    let (ca, wrong) = (CertificateAuthority::new(), CertificateAuthority::new());
    let hangs = StreamBackend::misbehaving(Manner::Hangs, 9, Some(&ca), answer(ADDRESS));
    let foreign = StreamBackend::new(Some(&wrong), answer(ADDRESS));
    let good = StreamBackend::new(Some(&ca), answer(OTHER));
    for bad in [&hangs, &foreign] {
        let rules = "balance = 'ordered'\n[pools.all.connections]\nconnect_timeout = '300ms'\n";
        let server = server_that_trusts(&ca, &[bad, &good], rules);
        assert_eq!(ask(&server, 5, OTHER), 5);
        assert_eq!(bad.queries(), 0);
    }
}

#[test]
fn backend_with_a_wrong_certificate_is_asked_nothing() {
    let (ca, wrong) = (CertificateAuthority::new(), CertificateAuthority::new());
    let foreign = StreamBackend::new(Some(&wrong), answer(ADDRESS));
    let server = server_that_trusts(&ca, &[&foreign], "");
    assert!(server.client().ask(&query("www.example", A)).answers().is_empty());
    assert_eq!(foreign.queries(), 0);
}

#[test]
fn noise_wrong_ids_and_wrong_questions_cost_no_query() {
    for manner in [Manner::MakesNoise, Manner::MistakesIds, Manner::MistakesQuestions] {
        let bad = StreamBackend::misbehaving(manner, usize::MAX, None, answer(ADDRESS));
        let good = StreamBackend::new(None, answer(OTHER));
        let server = server(&[&bad, &good], "balance = 'ordered'\n");
        let client = server.client();
        for number in 0..5 {
            assert_eq!(client.ask(&query(&format!("q{number}.example"), A)).answers(), [OTHER], "{manner:?}");
        }
        // The other backend may have answered before the noise comes.
        match manner {
            Manner::MistakesQuestions => assert_eq!(lost(&server, "protocol"), 0),
            _ => until("a connection is lost", || (lost(&server, "protocol") > 0).then_some(())),
        }
    }
}

#[test]
fn refused_dial_moves_on() {
    let good = StreamBackend::new(None, answer(OTHER));
    let closed: SocketAddr = free_address();
    let config = config(&[&good], "balance = 'ordered'\n");
    let config = config.replace("backends = [", &format!("backends = ['tcp://{closed}', "));
    let server = Server::start(&config);
    assert_eq!(ask(&server, 5, OTHER), 5);
}

#[test]
fn reload_keeps_connections() {
    let backend = StreamBackend::new(None, answer(ADDRESS));
    let server = server(&[&backend], "");
    assert_eq!(ask(&server, 5, ADDRESS), 5);
    server.rewrite("config.toml", &config(&[&backend], "[pools.all.connections]\npipeline = 7\n"));
    let answer = server.admin().try_post("/api/v1/reload", "");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(ask(&server, 5, ADDRESS), 5);
    assert_eq!(backend.connections(), 1);
}

#[test]
fn queries_wait_for_a_backend_that_comes_back() {
    let address: SocketAddr = free_address();
    let config = config(&[], "").replace("[]", &format!("[{{ address = 'tcp://{address}', name = 'b' }}]"));
    let server = Server::start(&config);
    // Marks the backend as up, against its probe: queries do not wait for a backend that is down.
    let up = server.admin().try_post("/api/v1/pools/all/backends/b/up", "");
    assert_eq!(up.status, 200, "{}", up.body);
    let client = server.client();
    client.send(&query("waits.example", A));
    server.admin().wait_for("a dial fails", |metrics| {
        metrics.sum("hedgerow_backend_connections_total", &[("kind", "failed")]) >= 1
    });
    let _backend = StreamBackend::at(address, answer(ADDRESS));
    assert_eq!(client.receive().answers(), [ADDRESS]);
}

#[test]
fn slow_backend_that_gives_a_sign_of_life_keeps_its_connection() {
    let backend = StreamBackend::misbehaving(Manner::AwaitsASign, 9, None, answer(ADDRESS));
    let server = server(&[&backend], "[pools.all.hedge]\nbudget = 0.0\n");
    assert_eq!(ask(&server, 10, ADDRESS), 10);
    assert_eq!((backend.connections(), backend.queries()), (1, 10));
    assert_eq!(server.admin().metrics().sum("hedgerow_backend_connections_lost_total", &[]), 0);
}

#[test]
fn replies_come_in_order_and_together() {
    let ca = CertificateAuthority::new();
    for tls in [None, Some(&ca)] {
        let backend = StreamBackend::misbehaving(Manner::Collects(20), 9, tls, answer(ADDRESS));
        let server = server_that_trusts(&ca, &[&backend], "");
        assert_eq!(ask(&server, 20, ADDRESS), 20);
        assert_eq!((backend.connections(), backend.queries()), (1, 20));
    }
}

/// Reloads, which must succeed, and asks until the backend answers.
fn check_reloaded(server: &Server) {
    let answer = server.admin().try_post("/api/v1/reload", "");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let client = server.client();
    until("the backend answers", || (client.ask(&query("www.example", A)).answers() == [ADDRESS]).then_some(()));
}

#[test]
fn who_vouches_for_a_backend_may_change() {
    let (ca, other) = (CertificateAuthority::new(), CertificateAuthority::new());
    let backend = StreamBackend::new(Some(&ca), answer(ADDRESS));
    let server = server_that_trusts(&other, &[&backend], "");
    assert!(server.client().ask(&query("www.example", A)).answers().is_empty());
    server.rewrite("ca.pem", "-----BEGIN CERTIFICATE-----\nhalf");
    assert_ne!(server.admin().try_post("/api/v1/reload", "").status, 200);
    server.rewrite("ca.pem", &ca.pem());
    check_reloaded(&server);
}

#[test]
fn backend_that_wants_to_know_who_asks_is_shown_a_certificate() {
    let (ca, clients) = (CertificateAuthority::new(), CertificateAuthority::new());
    let backend = StreamBackend::asking_who(&ca, &clients, answer(ADDRESS));
    let config = |entry: &str| {
        let sections = "[certificates.us]\nchain = 'us.pem'\nkey = 'us.key'\n";
        config(&[&backend], sections).replace(&backend.entry(), entry)
    };
    let bare = config(&backend.entry());
    let shown = config(&backend.entry().replace(" }", ", certificate = 'us' }"));
    let (chain, key) = CertificateAuthority::new().issue("client.example");
    let files = [("ca.pem", &*ca.pem()), ("us.pem", &*chain), ("us.key", &*key)];
    for config in [&bare, &shown] {
        let server = Server::start_with_files(config, &files);
        assert!(server.client().ask(&query("www.example", A)).answers().is_empty());
        assert_eq!(backend.queries(), 0);
    }
    let server = Server::start_with_files(&shown, &files);
    let (chain, key) = clients.issue("client.example");
    server.rewrite("us.pem", &chain);
    server.rewrite("us.key", &key);
    check_reloaded(&server);
}

/// Makes a certificate with an RSA key for `dns.example`, which vouches for itself; `None` with a message
/// where that cannot be.
pub(crate) fn make_by_rsa(folder: &Path) -> Option<(Vec<u8>, Vec<u8>)> {
    let words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=dns.example -addext subjectAltName=DNS:dns.example \
                 -addext basicConstraints=critical,CA:FALSE -keyout rsa.key -out rsa.pem";
    let mut openssl = Command::new("openssl");
    match openssl.args(words.split_whitespace()).current_dir(folder).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => {
            let read = |name| fs::read(folder.join(name)).expect("it was made");
            Some((read("rsa.pem"), read("rsa.key")))
        }
        Ok(_) | Err(_) => {
            leave_out("RSA", "openssl makes no certificate");
            None
        }
    }
}

#[test]
fn certificate_with_an_rsa_key_is_believed() {
    let folder = TempDir::new().expect("a temporary folder");
    let Some((chain, key)) = make_by_rsa(folder.path()) else { return };
    let backend = StreamBackend::showing(&chain, &key, answer(ADDRESS));
    let ca = String::from_utf8(chain).expect("PEM");
    let server = Server::start_with_files(&config(&[&backend], ""), &[("ca.pem", &ca)]);
    assert_eq!(ask(&server, 5, ADDRESS), 5);
}

#[test]
fn nsd_is_asked_by_tls() {
    let folder = TempDir::new().expect("a temporary folder");
    let Some((chain, _)) = make_by_rsa(folder.path()) else { return };
    let address = free_address();
    let Some(_nsd) = Peer::start_by_tls(address, folder.path()) else { return };
    let config = format!(
        "workers = 1\n[admin]\nlisten = '127.0.0.1:0'\n[forwarder]\nlisten = ['127.0.0.1:0']\n\
         [pools.all]\nbackends = [{{ address = 'tls://{address}#dns.example', ca = 'ca.pem' }}]\n"
    );
    let server = Server::start_with_files(&config, &[("ca.pem", &String::from_utf8(chain).expect("PEM"))]);
    let client = server.client();
    let name = |host| format!("h{host}.{ZONE}");
    until("it answers", || (client.ask(&query(&name(1), A)).answers() == ["192.0.2.1"]).then_some(()));
    let made = |server: &Server| sum(server, "hedgerow_backend_connections_total", "kind", "full");
    let before = made(&server);
    // All at once: NSD 4.6 leaves those lie that share a record with another, so each has one of its own.
    let clients: Vec<_> = (1..50).map(|host| (host, server.client())).collect();
    clients.iter().for_each(|(host, client)| client.send(&query(&name(*host), A)));
    for (host, client) in &clients {
        assert_eq!(client.receive().answers(), [format!("192.0.2.{host}")]);
    }
    assert_eq!((made(&server), lost(&server, "protocol") + lost(&server, "tls")), (before, 0));
}
