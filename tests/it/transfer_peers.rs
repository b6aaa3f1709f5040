//! Transfers from and to NSD, Knot and BIND as Debian packages them: AXFR, then NOTIFY and IXFR, all signed.
//! A server that is not installed is reported and left out.

use std::fs;
use std::net::SocketAddr;

use tempfile::TempDir;
use testkit::peers::*;
use testkit::*;

/// The key of all.
const KEY: &str = "[keys.'transfer.key']\nsecret = 'dGhlIHNlY3JldCBvZiBhbGwgdGhlIHRlc3Rz'\n";

/// Waits until a server answers from this version of the zone.
fn wait_for_version(server: SocketAddr, serial: u32) {
    let name = format!("v{serial}.{ZONE}");
    until(&format!("serial {serial} at {server}"), || {
        // While the server starts, its port may be closed.
        let response = Client::of(server).try_ask(&query(&name, A))?;
        (response.rcode() == NOERROR && response.answers() == [format!("192.0.2.{serial}")]).then_some(())
    });
}

/// Checks what a server says of the zone, as far as that is the same in all versions.
fn check_answers(server: SocketAddr) {
    for (name, rtype, expected) in [
        ("h7", A, "192.0.2.7"),
        ("h199", A, "192.0.2.199"),
        ("mail", AAAA, "2001:db8::1"),
        ("text", TXT, "\"a b\" \"c\\\"d\""),
    ] {
        // Servers of others may not be sure of themselves for a moment after a reload.
        let ask = || Client::of(server).try_ask(&query(&format!("{name}.{ZONE}"), rtype));
        let response = until(name, || ask().filter(|response| response.has(AA)));
        match rtype {
            TXT => assert_eq!(response.message().answers.len(), 1, "{expected}"),
            _ => assert_eq!(response.answers(), [expected], "{name}"),
        }
    }
}

/// Has a server of others as primary.
fn check_primary(kind: Kind) {
    let address = free_address();
    let config = format!(
        "{KEY}[authorities.ts]\nlisten = ['127.0.0.1:0']\n\
         zones = [{{ zone = '{ZONE}', primaries = ['{address}'], tsig = 'transfer.key' }}]\n"
    );
    let server = Server::start(&config);
    let ours = server.listener("ts");
    assert_eq!(Client::of(ours).ask(&query(ZONE, SOA)).rcode(), SERVFAIL, "there is no version yet");
    let Some(peer) = Peer::start(kind, address, Role::Primary(ours)) else { return };
    wait_for_version(ours, 1);
    server.process.wait_for_log(&format!("transferred zone={ZONE}. serial=1 primary={address} how=\"AXFR\""));
    check_answers(ours);
    peer.set_version(2);
    wait_for_version(ours, 2);
    // NSD 4.6 adds MX records of the apex that were there before, which is no step from the version that we
    // have: then the zone comes whole, as it does after any IXFR that fails.
    let line = server.process.wait_for_log(&format!("transferred zone={ZONE}. serial=2 "));
    assert!(kind == Kind::Nsd || line.contains("how=\"IXFR\""), "{line}");
    check_answers(ours);
    // Each worker takes the new version by itself.
    let former = query(&format!("v1.{ZONE}"), A);
    until("the former version is gone", || (Client::of(ours).ask(&former).rcode() == NXDOMAIN).then_some(()));
}

/// Returns the log line of a transfer to a client.
fn sent(serial: u32, how: &str) -> String {
    format!("transfer sent zone={ZONE}. serial={serial} client=127.0.0.1 how=\"{how}\"")
}

/// Has a server of others as secondary.
fn check_secondary(kind: Kind) {
    let address = free_address();
    let config = format!(
        "{KEY}[authorities.ts]\nlisten = ['127.0.0.1:0']\n\
         zones = [{{ file = 'z.zone', origin = '{ZONE}', transfer_to = ['127.0.0.0/8 key:transfer.key'], \
         also_notify = ['{address}'], tsig = 'transfer.key' }}]\n"
    );
    let server = Server::start_with_files(&config, &[("z.zone", &zone_text(1))]);
    let Some(_peer) = Peer::start(kind, address, Role::Secondary(server.listener("ts"))) else { return };
    wait_for_version(address, 1);
    server.process.wait_for_log(&sent(1, "AXFR"));
    check_answers(address);
    server.reload("z.zone", &zone_text(2));
    wait_for_version(address, 2);
    server.process.wait_for_log(&sent(2, "IXFR"));
    check_answers(address);
}

#[test]
fn zones_come_from_nsd() {
    check_primary(Kind::Nsd);
}

#[test]
fn zones_come_from_knot() {
    check_primary(Kind::Knot);
}

#[test]
fn zones_come_from_bind() {
    check_primary(Kind::Bind);
}

#[test]
fn zones_go_to_nsd() {
    check_secondary(Kind::Nsd);
}

#[test]
fn zones_go_to_knot() {
    check_secondary(Kind::Knot);
}

#[test]
fn zones_go_to_bind() {
    check_secondary(Kind::Bind);
}

#[test]
fn zones_come_from_bind_by_tls() {
    let (authorities, folder, address) =
        (CertificateAuthority::new(), TempDir::new().expect("a folder"), free_address());
    let (chain, key) = authorities.issue("ns1.example");
    for (name, text) in [("chain.pem", &chain), ("key.pem", &key)] {
        fs::write(folder.path().join(name), text).expect("our own folder");
    }
    let config = format!(
        "{KEY}[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ zone = '{ZONE}', tsig = 'transfer.key', \
         primaries = [{{ address = 'tls://{address}#ns1.example', ca = 'ca.pem' }}] }}]\n"
    );
    let server = Server::start_with_files(&config, &[("ca.pem", &authorities.pem())]);
    let ours = server.listener("ts");
    let Some(peer) = Peer::primary_by_tls(address, ours, folder.path()) else { return };
    wait_for_version(ours, 1);
    server.process.wait_for_log(&format!("transferred zone={ZONE}. serial=1 primary=tls://{address} how=\"AXFR\""));
    check_answers(ours);
    // Its NOTIFY is signed, and in the clear.
    peer.set_version(2);
    wait_for_version(ours, 2);
    server.process.wait_for_log(&format!("transferred zone={ZONE}. serial=2 primary=tls://{address} how=\"IXFR\""));
}

#[test]
fn zones_come_from_nsd_by_tls() {
    let (authorities, folder, address) =
        (CertificateAuthority::new(), TempDir::new().expect("a folder"), free_address());
    let (chain, key) = authorities.issue("ns1.example");
    for (name, text) in [("rsa.pem", &chain), ("rsa.key", &key)] {
        fs::write(folder.path().join(name), text).expect("our own folder");
    }
    let Some(_peer) = Peer::start_by_tls(address, folder.path()) else { return };
    let config = format!(
        "{KEY}[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ zone = '{ZONE}', tsig = 'transfer.key', \
         primaries = [{{ address = 'tls://{address}#ns1.example', ca = 'ca.pem' }}] }}]\n"
    );
    let server = Server::start_with_files(&config, &[("ca.pem", &authorities.pem())]);
    wait_for_version(server.listener("ts"), 1);
    server.process.wait_for_log(&format!("transferred zone={ZONE}. serial=1 primary=tls://{address} how=\"AXFR\""));
    check_answers(server.listener("ts"));
}

/// Has a server of others as secondary by TLS.
fn check_secondary_by_tls(kind: Kind) {
    let (authorities, folder, address) =
        (CertificateAuthority::new(), TempDir::new().expect("a folder"), free_address());
    fs::write(folder.path().join("ca.pem"), authorities.pem()).expect("our own folder");
    let (chain, key) = authorities.issue("ns1.example");
    let config = format!(
        "{KEY}[authorities.ts]\nlisten = ['tls://127.0.0.1:0']\n\
         zones = [{{ file = 'z.zone', origin = '{ZONE}', transfer_to = ['127.0.0.0/8 key:transfer.key'] }}]\n\
         [certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n"
    );
    let files = [("z.zone", zone_text(1)), ("chain.pem", chain), ("key.pem", key)];
    let server = Server::start_with_files(&config, &files.each_ref().map(|(name, text)| (*name, text.as_str())));
    let primary = server.listener("ts");
    let Some(_peer) = Peer::secondary_by_tls(kind, address, primary, folder.path()) else { return };
    wait_for_version(address, 1);
    server.process.wait_for_log(&sent(1, "AXFR"));
    check_answers(address);
}

#[test]
fn zones_go_to_bind_by_tls() {
    check_secondary_by_tls(Kind::Bind);
}

#[test]
fn zones_go_to_nsd_by_tls() {
    check_secondary_by_tls(Kind::Nsd);
}
