//! Tests of connections to servers with all kinds of generated certificates.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use dns::address::{Pin, ServerIdentity, Verify};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, date_time_ymd};
use ring::digest::{SHA256, digest};
use testkit::{CertificateAuthority, Leaf};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::version::TLS12;
use tokio_rustls::rustls::{ClientConnection, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};

use super::*;

fn pin(leaf: &Leaf) -> Pin {
    Pin(digest(&SHA256, &leaf.public_key()).as_ref().try_into().unwrap())
}

pub(crate) fn rules(ca: &CertificateAuthority, name: Option<&str>) -> TrustRules {
    TrustRules {
        identity: ServerIdentity { name: name.map(str::to_owned), ..ServerIdentity::default() },
        roots: Some(TlsRoots::of_pem(ca.pem().as_bytes()).unwrap()),
        address: IpAddr::from([192, 0, 2, 1]),
        alpn: vec![b"dot".to_vec()],
        certificate: None,
        early_data: false,
        needs_tls_1_3: false,
    }
}

/// Runs both sides until neither has more to send; returns the error of the client, or else of the server.
fn talk(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), String> {
    while client.wants_write() || server.wants_write() {
        let mut octets = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut octets).unwrap();
        }
        let mut octets = io::Cursor::new(octets);
        while server.read_tls(&mut octets).unwrap() > 0 {
            server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        }
        let mut octets = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut octets).unwrap();
        }
        let mut octets = io::Cursor::new(octets);
        while client.read_tls(&mut octets).unwrap() > 0 {
            client.process_new_packets().map_err(|error| tls_problem(&error))?;
        }
    }
    Ok(())
}

fn shake_hands(tls: &ClientTls, server: &Arc<ServerConfig>) -> Result<(ClientConnection, ServerConnection), String> {
    let mut client = tls.begin()?;
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    talk(&mut client, &mut server)?;
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

/// Checks the outcome of a handshake of a client with these rules.
#[track_caller]
fn check(rules: &TrustRules, leaf: &Leaf, expected: Result<(), &str>) {
    let tls = ClientTls::new(rules).unwrap();
    let found = shake_hands(&tls, &leaf.server());
    assert_eq!(found.as_ref().map(|_| ()).map_err(String::as_str), expected);
}

#[test]
fn certificate_must_be_for_the_name_or_else_for_the_address() {
    let ca = CertificateAuthority::new();
    let (named, addressed) = (ca.leaf(&["dns.example", "*.other.example"]), ca.leaf(&["192.0.2.1"]));
    check(&rules(&ca, Some("dns.example")), &named, Ok(()));
    check(&rules(&ca, Some("a.other.example")), &named, Ok(()));
    let wrong = "its certificate is for dns.example and 1 more, not for ns.example";
    check(&rules(&ca, Some("ns.example")), &named, Err(wrong));
    check(&rules(&ca, None), &addressed, Ok(()));
    let other = TrustRules { address: IpAddr::from([192, 0, 2, 2]), ..rules(&ca, None) };
    assert!(shake_hands(&ClientTls::new(&other).unwrap(), &addressed.server()).is_err());
    // If there is a name, it decides, not the address.
    assert!(shake_hands(&ClientTls::new(&rules(&ca, Some("dns.example"))).unwrap(), &addressed.server()).is_err());
}

#[test]
fn common_name_counts_nothing() {
    // RFC 8310 section 8.1: only the subjectAltName counts.
    let ca = CertificateAuthority::new();
    let leaf = ca.leaf_with(&[], |params| {
        params.distinguished_name.push(DnType::CommonName, "dns.example");
    });
    let problem = "its certificate is not for dns.example (a common name does not count)";
    check(&rules(&ca, Some("dns.example")), &leaf, Err(problem));
}

#[test]
fn certificate_of_another_time_or_authority_does_not_hold() {
    let (ca, other) = (CertificateAuthority::new(), CertificateAuthority::new());
    let rules = rules(&ca, Some("dns.example"));
    let leaf = |change: fn(&mut CertificateParams)| ca.leaf_with(&["dns.example"], change);
    let expired = leaf(|params| params.not_after = date_time_ymd(2020, 1, 2));
    check(&rules, &expired, Err("its certificate has expired on 2020-01-02T00:00:00Z"));
    let early = leaf(|params| params.not_before = date_time_ymd(3020, 1, 2));
    check(&rules, &early, Err("its certificate is not valid before 3020-01-02T00:00:00Z"));
    check(&rules, &other.leaf(&["dns.example"]), Err("the certificate is not signed by a trusted authority"));
}

#[test]
fn pin_is_asked_for_besides_or_alone() {
    let (ca, other) = (CertificateAuthority::new(), CertificateAuthority::new());
    let (leaf, foreign) = (ca.leaf(&["dns.example"]), other.leaf(&["dns.example"]));
    let mut rules = rules(&ca, Some("dns.example"));
    let none = Err("its key has none of the pins");
    rules.identity.pins = vec![Pin([0; 32]), pin(&leaf)];
    check(&rules, &leaf, Ok(()));
    check(&rules, &foreign, Err("the certificate is not signed by a trusted authority"));
    rules.identity.pins = vec![Pin([0; 32])];
    check(&rules, &leaf, none);
    rules.identity.verify = Verify::Pin;
    check(&rules, &leaf, none);
    rules.identity.pins = vec![pin(&foreign)];
    check(&rules, &foreign, Ok(()));
    check(&rules, &leaf, none);
    rules.identity.pins.clear();
    assert_eq!(ClientTls::new(&rules).err().as_deref(), Some("verify = \"pin\" needs pins"));
    rules.identity.verify = Verify::None;
    check(&rules, &foreign, Ok(()));
}

#[test]
fn rules_that_cannot_be_are_told() {
    let ca = CertificateAuthority::new();
    let problem = |rules: &TrustRules| ClientTls::new(rules).err();
    let wrong = rules(&ca, Some("no name"));
    assert_eq!(problem(&wrong).as_deref(), Some("\"no name\" is not a name that a certificate can contain"));
    let nobody = TrustRules { roots: None, ..rules(&ca, None) };
    assert_eq!(
        problem(&nobody).as_deref(),
        Some("no trusted certificate authorities are known: set ca for this server, or install ca-certificates")
    );
}

#[test]
fn session_is_resumed_and_a_ticket_used_once() {
    let ca = CertificateAuthority::new();
    let tls = ClientTls::new(&rules(&ca, Some("dns.example"))).unwrap();
    let server = ca.leaf(&["dns.example"]).server();
    let (first, _) = shake_hands(&tls, &server).unwrap();
    assert_eq!(first.handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(first.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    // The server gives two tickets per handshake; concurrent resumptions take one each.
    let begun: Vec<_> = (0..3).map(|_| tls.begin().unwrap()).collect();
    let kinds: Vec<_> = begun
        .into_iter()
        .map(|mut client| {
            talk(&mut client, &mut ServerConnection::new(Arc::clone(&server)).unwrap()).unwrap();
            client.handshake_kind()
        })
        .collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == Some(HandshakeKind::Resumed)).count(), 2, "{kinds:?}");
}

#[test]
fn server_learns_who_asks() {
    let ca = CertificateAuthority::new();
    let (leaf, me) = (ca.leaf(&["dns.example"]), ca.leaf(&["client.example"]));
    let server = leaf.server_for(&ca);
    let mut rules = rules(&ca, Some("dns.example"));
    assert!(shake_hands(&ClientTls::new(&rules).unwrap(), &server).is_err());
    let shown = ClientCertificate { chain: vec![me.der().clone()], key: me.private_key() };
    rules.certificate = Some(Arc::new(shown));
    let (_, server) = shake_hands(&ClientTls::new(&rules).unwrap(), &server).unwrap();
    assert_eq!(server.peer_certificates().unwrap()[0], *me.der());
    assert_eq!(server.server_name(), Some("dns.example"));
    // A key that does not match is reported when the config is read.
    let mixed = ClientCertificate { chain: vec![me.der().clone()], key: leaf.private_key() };
    rules.certificate = Some(Arc::new(mixed));
    assert!(ClientTls::new(&rules).err().unwrap().starts_with("its certificate cannot be used: "));
}

#[test]
fn protocol_may_be_missing_in_the_answer() {
    let ca = CertificateAuthority::new();
    let tls = ClientTls::new(&rules(&ca, Some("dns.example"))).unwrap();
    let leaf = ca.leaf(&["dns.example"]);
    for (spoken, expected) in [(Vec::new(), None), (vec![b"dot".to_vec()], Some(b"dot".as_slice()))] {
        let mut server = (*leaf.server()).clone();
        server.alpn_protocols = spoken;
        let (client, _) = shake_hands(&tls, &Arc::new(server)).unwrap();
        assert_eq!(client.alpn_protocol(), expected);
    }
}

#[test]
fn tls_1_2_is_refused_where_1_3_is_needed() {
    let ca = CertificateAuthority::new();
    let leaf = ca.leaf(&["dns.example"]);
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS12]).unwrap().with_no_client_auth();
    let server = Arc::new(builder.with_single_cert(vec![leaf.der().clone()], leaf.private_key()).unwrap());
    for needs_tls_1_3 in [false, true] {
        let rules = TrustRules { needs_tls_1_3, ..rules(&ca, Some("dns.example")) };
        let tls = ClientTls::new(&rules).unwrap();
        assert_eq!(shake_hands(&tls, &server).is_ok(), !needs_tls_1_3);
        assert!(shake_hands(&tls, &leaf.server()).is_ok(), "with the newer version");
    }
}

#[test]
fn noise_is_no_tls() {
    let ca = CertificateAuthority::new();
    let mut client = ClientTls::new(&rules(&ca, Some("dns.example"))).unwrap().begin().unwrap();
    client.read_tls(&mut io::Cursor::new(b"HTTP/1.1 400 Bad Request\r\n\r\n")).unwrap();
    assert_eq!(tls_problem(&client.process_new_packets().unwrap_err()), "it does not speak TLS");
}

#[test]
fn certificate_of_an_authority_is_no_server_s() {
    let ca = CertificateAuthority::new();
    let leaf = ca.leaf_with(&["dns.example"], |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let problem = "its certificate is marked as that of a certificate authority: make one with basicConstraints=CA:FALSE, or pin its key";
    check(&rules(&ca, Some("dns.example")), &leaf, Err(problem));
}
