//! RFC 9462, discovery of designated resolvers: one test a clause.

use std::net::SocketAddr;
use std::process::Command;

use testkit::*;

const ADDRESS: &str = "192.0.2.1";
const SVCB: u16 = 64;
const NAME: &str = "_dns.resolver.arpa";
const KEY: &str = "designated_resolver = 'dns.example'";

/// A forwarder that listens at these addresses and has these lines.
fn forwarder(backend: &Backend, listen: &str, keys: &str) -> Forwarder {
    Forwarder::to(&[backend], "[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n")
        .keys(keys)
        .listen(listen)
        .admin()
}

/// Starts it with a certificate for `dns.example` and 127.0.0.1.
fn start(forwarder: &Forwarder, authorities: &CertificateAuthority) -> Server {
    let (chain, key) = authorities.issue("dns.example");
    Server::start_with_files(&forwarder.to_toml(), &[("chain.pem", &chain), ("key.pem", &key)])
}

/// Returns the SVCB data for a listener at this address.
fn reported(priority: u16, listener: SocketAddr) -> String {
    let hint = match listener {
        _ if listener.ip().is_unspecified() => String::new(),
        SocketAddr::V4(at) => format!(" ipv4hint={}", at.ip()),
        SocketAddr::V6(at) => format!(" ipv6hint={}", at.ip()),
    };
    format!("{priority} dns.example. alpn=dot port={}{hint}", listener.port())
}

/// The same of one by QUIC.
fn told_by_quic(priority: u16, listener: SocketAddr) -> String {
    reported(priority, listener).replace("alpn=dot", "alpn=doq")
}

/// The records of a response, as hickory reads them, where commas only separate.
fn records(response: &Response) -> Vec<String> {
    response.answers().iter().map(|record| record.replace(',', "")).collect()
}

/// Checks that a response says that there are no such records, and for how long.
fn check_nodata(response: &Response) {
    assert_eq!((response.rcode(), response.answers().len()), (NOERROR, 0), "{response:?}");
    let authorities = response.message().authorities;
    assert!(authorities.len() == 1 && authorities[0].data.to_string().contains("nobody.invalid"), "{response:?}");
    assert_eq!(authorities[0].ttl, 300);
}

#[test]
fn section_4_the_encrypted_listeners_are_told_of_by_every_transport() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let listen = "['127.0.0.1:0', 'tls://127.0.0.1:0', 'tcp://127.0.0.1:0', 'tls://0.0.0.0:0', 'tls://[::1]:0', \
                  'quic://127.0.0.1:0']";
    let server = start(&forwarder(&backend, listen, KEY).workers(2), &authorities);
    let listeners = server.listeners("forwarder");
    let by_quic = told_by_quic(4, listeners[5]);
    let expected = [reported(1, listeners[1]), reported(2, listeners[3]), reported(3, listeners[4]), by_quic];
    let question = query(NAME, SVCB);
    let mut tls = TlsClient::of(listeners[1], &authorities.trusted(&["dot"]), "dns.example");
    let mut responses = vec![server.tcp_client().ask(&question), tls.ask(&question)];
    // From several ports, and so by both workers.
    responses.extend((0..8).map(|_| server.client().ask(&question)));
    for response in responses {
        assert_eq!(records(&response), expected);
        assert_eq!(response.ttls(), [300; 4]);
        assert!(response.has(AA) && response.has(RA) && !response.has(TC), "{response:?}");
        assert_eq!(response.question(), question.question());
    }
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_responses_total", &[("source", "authority"), ("rcode", "NOERROR")]), 10);
    assert_eq!(metrics.sum("hedgerow_responses_total", &[("source", "synthesized")]), 0);
    assert_eq!(backend.queries().len(), 0);
}

#[test]
fn section_4_names_are_asked_for_in_any_case_and_with_edns() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, "['127.0.0.1:0', 'tls://127.0.0.1:0']", KEY), &authorities);
    let response = server.client().ask(&query("_DNS.Resolver.aRPA", SVCB).edns(1232).option(COOKIE, b"clientsc"));
    assert_eq!(records(&response), [reported(1, server.listeners("forwarder")[1])]);
    assert_eq!(response.question(), query("_DNS.Resolver.aRPA", SVCB).question(), "in the case in which it was asked");
    assert_eq!(response.cookie().map(|cookie| cookie.len()), Some(24));
    assert!(!server.client().ask(&query(NAME, SVCB)).has_opt());
}

#[test]
fn section_4_what_does_not_fit_into_a_datagram_is_had_by_tcp() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let listen = format!("['127.0.0.1:0'{}]", ", 'tls://127.0.0.1:0'".repeat(12));
    let server = start(&forwarder(&backend, &listen, KEY), &authorities);
    let cut = server.client().ask(&query(NAME, SVCB));
    assert!(cut.has(TC) && cut.bytes.len() <= 512, "{cut:?}");
    assert_eq!(server.tcp_client().ask(&query(NAME, SVCB)).answers().len(), 12);
}

#[test]
fn section_4_what_there_is_nothing_of_is_nodata() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let listen = "['127.0.0.1:0', 'tls://127.0.0.1:0']";
    let server = start(&forwarder(&backend, listen, KEY), &authorities);
    for (name, rtype) in [
        (NAME, A),
        (NAME, AAAA),
        ("resolver.arpa", SVCB),
        ("resolver.arpa", A),
        ("x.resolver.arpa", A),
        ("x._dns.resolver.arpa", SVCB),
        ("_853._dns.dns.example.resolver.arpa", SVCB),
    ] {
        check_nodata(&server.client().ask(&query(name, rtype)));
    }
    // Without the key there is nothing at all.
    let server = start(&forwarder(&backend, listen, ""), &authorities);
    check_nodata(&server.client().ask(&query(NAME, SVCB)));
    check_nodata(&server.tcp_client().ask(&query(NAME, SVCB)));
    // Nor is there where nothing is encrypted.
    let server = start(&forwarder(&backend, "['127.0.0.1:0']", KEY), &authorities);
    check_nodata(&server.client().ask(&query(NAME, SVCB)));
    assert_eq!(backend.queries().len(), 0);
}

#[test]
fn section_6_1_and_6_4_nothing_of_it_is_forwarded_and_names_beside_it_are() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, "['127.0.0.1:0', 'tls://127.0.0.1:0']", KEY), &authorities);
    for name in [NAME, "resolver.arpa", "a.b.resolver.arpa"] {
        for rtype in [A, SVCB, TXT, ANY, AXFR] {
            server.client().ask(&query(name, rtype));
        }
        // There is nothing of another class, and that is said too, by connections as well.
        let of_class = query(name, TXT).class(CH);
        assert_eq!([server.client().ask(&of_class).rcode(), server.tcp_client().ask(&of_class).rcode()], [REFUSED; 2]);
    }
    assert_eq!(backend.queries().len(), 0);
    for name in ["arpa", "badresolver.arpa", "resolver.arpa.example"] {
        assert_eq!(server.client().ask(&query(name, A)).answers(), [ADDRESS], "{name}");
    }
    assert_eq!(backend.queries().len(), 3);
}

#[test]
fn section_6_4_a_route_that_names_it_is_obeyed() {
    let [most, own] = [(); 2].map(|()| Backend::new(answer(ADDRESS)));
    for (suffix, answered, refrained) in
        [("resolver.arpa", NAME, None), (NAME, NAME, Some("resolver.arpa")), ("arpa", "arpa", Some(NAME))]
    {
        let server = Forwarder::to(&[&most], "").pool("own", suffix, &[&own], "").start();
        assert_eq!(server.client().ask(&query(answered, A)).answers(), [ADDRESS], "{suffix}");
        refrained.into_iter().for_each(|name| check_nodata(&server.client().ask(&query(name, A))));
    }
    assert_eq!((most.queries().len(), own.queries().len()), (0, 3));
}

#[test]
fn section_4_a_reload_changes_what_is_told() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let [plain, first, second] = [(); 3].map(|()| free_address());
    let config = |listen: &str, keys: &str| forwarder(&backend, listen, keys).to_toml();
    let (chain, key) = authorities.issue("dns.example");
    let files = [("chain.pem", &*chain), ("key.pem", &*key)];
    let server = Server::start_with_files(&config(&format!("['{plain}', 'tls://{first}']"), KEY), &files);
    let ask = || records(&Client::of(plain).ask(&query(NAME, SVCB)));
    assert_eq!(ask(), [reported(1, first)]);
    let reload = |listen: &str, keys: &str| {
        server.rewrite("config.toml", &config(listen, keys));
        let answer = server.admin().try_post("/api/v1/reload", "");
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    let check = |expected: &[String]| until("every worker says so", || (ask() == expected).then_some(()));
    reload(&format!("['{plain}', 'tls://{second}', 'tls://{first}']"), KEY);
    check(&[reported(1, second), reported(2, first)]);
    reload(&format!("['{plain}', 'tls://{second}']"), KEY);
    check(&[reported(1, second)]);
    reload(&format!("['{plain}', 'tls://{second}']"), "");
    check(&[]);
    check_nodata(&Client::of(plain).ask(&query(NAME, SVCB)));
}

#[test]
fn section_4_2_check_and_serve_tell_what_clients_will_not_verify() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let listen = "['127.0.0.1:0', 'tls://127.0.0.1:0']";
    let check = |server: &Server| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
        let output =
            command.args(["check", "-c"]).arg(server.path("config.toml")).output().expect("cargo has built it");
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let good = start(&forwarder(&backend, listen, KEY), &authorities);
    assert!(!check(&good).contains("designated_resolver") && !good.process.log().contains("designated_resolver"));
    let other = start(&forwarder(&backend, listen, "designated_resolver = 'other.example'"), &authorities);
    let expected = "forwarder.designated_resolver: no certificate of an encrypted listener is valid for other.example";
    assert!(check(&other).contains(expected), "{}", check(&other));
    other.process.wait_for_log(expected);
}

#[test]
fn section_4_dig_reads_what_is_told() {
    let test = "section_4_dig_reads_what_is_told";
    if Command::new("dig").arg("-v").output().is_err() {
        return leave_out(test, "dig is not installed");
    }
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, "['127.0.0.1:0', 'tls://127.0.0.1:0']", KEY), &authorities);
    let port = server.address().port().to_string();
    let output =
        Command::new("dig").args(["@127.0.0.1", "-p", &port, "+short", NAME, "TYPE64"]).output().expect("dig runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected =
        format!("1 dns.example. alpn=\"dot\" port={} ipv4hint=127.0.0.1", server.listeners("forwarder")[1].port());
    assert_eq!(said.trim(), expected);
}

#[test]
fn an_operator_who_has_it_explained_is_told_who_answers() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, "['127.0.0.1:0', 'tls://127.0.0.1:0']", KEY), &authorities);
    let output = server.process.ctl(&[
        "--admin",
        &format!("http://{}", server.listener("admin")),
        "explain",
        NAME,
        "--type",
        "SVCB",
    ]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("the forwarder answers for resolver.arpa itself"),
        "{said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(backend.queries().len(), 0);
}
