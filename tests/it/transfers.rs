//! Zone transfers between servers of our own: which clients get a zone, how copies stay up to date, and what
//! is reported when they cannot. With servers of others: `transfer_peers.rs`.

use tempfile::TempDir;
use testkit::*;

/// RFC 2136 section 2.2: not authoritative.
const NOTAUTH: u16 = 9;

/// RFC 1996 section 3.1: the opcode.
const NOTIFY: u16 = 4;

/// A version of the zone: its host's address ends in the serial.
fn zone(serial: u32, times: &str) -> String {
    format!("@ 300 SOA ns.elsewhere. h {serial} {times}\n@ NS ns.elsewhere.\nwww A 192.0.2.{serial}\n")
}

/// Refresh, retry, expire and minimum that nothing happens by within a test.
const SLOW: &str = "3600 3600 86400 60";

/// A primary that gives the zone to this host.
fn primary(text: &str) -> Server {
    let config = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{ file = 'z.zone', origin = 'example.org', \
                  transfer_to = ['127.0.0.1'] }]\n";
    Server::start_with_files(config, &[("z.zone", text)])
}

/// A secondary that saves the zone in a folder.
fn secondary(listen: &str, primary: &str, folder: &TempDir) -> Server {
    let file = folder.path().join("saved.zone");
    Server::start(&format!(
        "[authorities.ts]\nlisten = ['{listen}']\nzones = [{{ zone = 'example.org', primaries = ['{primary}'], \
         file = '{}' }}]\n",
        file.display()
    ))
}

/// Asks a server for the host.
fn ask(server: &Server) -> Response {
    Client::of(server.listener("ts")).ask(&query("www.example.org", A))
}

/// Waits until a server answers from this version. Each worker takes a version by itself, and each query has
/// another port, so any worker may get it.
fn wait_for(server: &Server, serial: u32) {
    let expected = [format!("192.0.2.{serial}")];
    until(&format!("serial {serial}"), || (0..16).all(|_| ask(server).answers() == expected).then_some(()));
}

#[test]
fn only_who_may_gets_a_zone_and_only_by_tcp() {
    let config = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['open.zone', \
                  { file = 'closed.zone', origin = 'closed.example' }, \
                  { file = 'given.zone', origin = 'given.example', transfer_to = ['127.0.0.1'] }, \
                  { file = 'far.zone', origin = 'far.example', transfer_to = ['192.0.2.0/24', '::1'] }]\n";
    let text = zone(1, SLOW);
    let open = format!("$ORIGIN open.example.\n{text}");
    let files =
        [("open.zone", open.as_str()), ("closed.zone", &text), ("given.zone", &text), ("far.zone", text.as_str())];
    let server = Server::start_with_files(config, &files);
    let address = server.listener("ts");
    for (name, rcode) in [
        ("open.example", REFUSED),
        ("closed.example", REFUSED),
        ("far.example", REFUSED),
        ("given.example", NOERROR),
        ("GIVEN.example", NOERROR),
        ("www.given.example", NOTAUTH),
        ("nowhere.example", NOTAUTH),
    ] {
        let response = TcpClient::of(address).ask(&query(name, AXFR));
        assert_eq!(response.rcode(), rcode, "{name}");
        // The SOA record, the server, the host, and the SOA record again.
        assert_eq!(response.message().answers.len(), if rcode == NOERROR { 4 } else { 0 }, "{name}");
    }
    assert_eq!(Client::of(address).ask(&query("given.example", AXFR)).rcode(), REFUSED);
    // RFC 1995 section 3: an IXFR says what the client has.
    assert_eq!(TcpClient::of(address).ask(&query("given.example", IXFR)).rcode(), FORMERR);
}

#[test]
fn other_queries_of_a_connection_are_answered_beside_a_transfer() {
    let hosts: String = (0..20_000).map(|host| format!("h{host} A 192.0.2.1\n")).collect();
    let server = primary(&(zone(1, SLOW) + &hosts));
    let mut client = TcpClient::of(server.listener("ts"));
    let (transfer, other) = (query("example.org", AXFR), query("www.example.org", A));
    client.send(&[transfer.clone(), other.clone()]);
    let (mut records, mut messages, mut soas, mut is_answered) = (0, 0, 0, false);
    while soas < 2 || !is_answered {
        let response = client.receive();
        if response.id() == other.id {
            assert_eq!(response.answers(), ["192.0.2.1"]);
            is_answered = true;
            continue;
        }
        assert_eq!(response.id(), transfer.id);
        let message = response.message();
        records += message.answers.len();
        soas += message.answers.iter().filter(|record| u16::from(record.record_type()) == SOA).count();
        messages += 1;
    }
    assert_eq!((records, messages > 1), (20_000 + 4, true));
}

#[test]
fn a_client_that_does_not_read_its_transfer_holds_up_nobody() {
    // More than the kernel keeps for one connection, in few records.
    let text = format!("\"{}\" ", "x".repeat(250)).repeat(40);
    let hosts: String = (0..1_500).map(|host| format!("host-{host} TXT {text}\n")).collect();
    let server = primary(&(zone(1, SLOW) + &hosts));
    let mut idlers: Vec<_> = (0..8).map(|_| TcpClient::of(server.listener("ts"))).collect();
    for idler in &mut idlers {
        idler.send(&[query("example.org", AXFR)]);
    }
    for _ in 0..100 {
        assert_eq!(ask(&server).answers(), ["192.0.2.1"]);
    }
    assert_eq!(TcpClient::of(server.listener("ts")).ask(&query("www.example.org", A)).rcode(), NOERROR);
}

#[test]
fn a_transfer_is_of_one_version_whatever_is_loaded_meanwhile() {
    // More than the kernel keeps for one connection, so most of it is sent after the reload.
    let text = format!("\"{}\" ", "x".repeat(250)).repeat(40);
    let hosts: String = (0..300).map(|host| format!("host-{host} TXT {text}\n")).collect();
    let version = |serial| format!("{}{hosts}last A 192.0.2.{serial}\n", zone(serial, SLOW));
    let server = primary(&version(1));
    let mut client = TcpClient::with_window([127, 0, 0, 1].into(), 1 << 16, server.listener("ts"));
    client.send(&[query("example.org", AXFR)]);
    let mut records = client.receive().message().answers;
    server.reload("z.zone", &version(2));
    wait_for(&server, 2);
    let is_soa = |record: &&hickory_proto::rr::Record| u16::from(record.record_type()) == SOA;
    while records.iter().filter(is_soa).count() < 2 {
        records.extend(client.receive().message().answers);
    }
    let data = |rtype| records.iter().filter(move |record| u16::from(record.record_type()) == rtype);
    let addresses: Vec<_> = data(A).map(|record| record.data.to_string()).collect();
    assert_eq!(addresses, ["192.0.2.1", "192.0.2.1"]);
    assert!(data(SOA).all(|record| record.data.to_string().contains(" 1 3600 ")), "{records:?}");
    assert_eq!(records.len(), 300 + 5);
}

#[test]
fn copies_follow_and_no_query_is_lost_meanwhile() {
    let folder = TempDir::new().expect("a temporary folder");
    // So large that what changes is less.
    let hosts: String = (0..100).map(|host| format!("h{host} A 192.0.2.1\n")).collect();
    let zone = |serial| zone(serial, SLOW) + &hosts;
    let first = primary(&zone(1));
    let copy = secondary("127.0.0.1:0", &first.listener("ts").to_string(), &folder);
    wait_for(&copy, 1);
    // The secondary's port is known only now.
    let config = format!(
        "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ file = 'z.zone', origin = 'example.org', \
         transfer_to = ['127.0.0.1'], also_notify = ['{}'] }}]\n",
        copy.listener("ts")
    );
    first.rewrite("config.toml", &config);
    for serial in 2..8 {
        first.reload("z.zone", &zone(serial));
        until("the next version", || {
            let response = ask(&copy);
            assert_eq!((response.rcode(), ask(&first).rcode()), (NOERROR, NOERROR));
            (response.answers() == [format!("192.0.2.{serial}")]).then_some(())
        });
        let line = copy.process.wait_for_log(&format!("transferred zone=example.org. serial={serial} "));
        assert!(line.contains("how=\"IXFR\""), "{line}");
    }
    // The server warns if the tests run as root.
    let log = first.process.log();
    assert!(!log.lines().any(|line| line.contains("WARN") && !line.contains("running as root")), "{log}");
}

#[test]
fn a_key_that_is_wanted_must_be_the_right_one() {
    let key = |secret: &str| format!("[keys.k]\nsecret = '{secret}'\n");
    let right = key("dGhlIHNlY3JldCBvZiBhbGwgdGhlIHRlc3Rz");
    let config = format!(
        "{right}[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ file = 'z.zone', origin = 'example.org', \
         transfer_to = ['127.0.0.1 key:k'] }}]\n"
    );
    let first = Server::start_with_files(&config, &[("z.zone", &zone(1, SLOW))]);
    assert_eq!(TcpClient::of(first.listener("ts")).ask(&query("example.org", AXFR)).rcode(), REFUSED, "unsigned");
    let copy = |key: &str, tsig: &str| {
        let config = format!(
            "{key}[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ zone = 'example.org', primaries = ['{}'], \
             file = 'saved.zone'{tsig} }}]\n",
            first.listener("ts")
        );
        Server::start_with_files(&config, &[])
    };
    wait_for(&copy(&right, ", tsig = 'k'"), 1);
    let other = "b3RoZXIgdGhhbiB0aGUgc2VjcmV0IG9mIGFsbA==";
    for (key, tsig, expected) in [
        (key(other), ", tsig = 'k'", "rejects the signature (BADSIG)"),
        (key(other).replace("keys.k", "keys.x"), ", tsig = 'x'", "does not know the key (BADKEY)"),
        (right.clone(), "", "it refuses the zone: REFUSED"),
    ] {
        let copy = copy(&key, tsig);
        copy.process.wait_for_log(expected);
        assert_eq!(ask(&copy).rcode(), SERVFAIL, "{expected}");
        assert!(!copy.process.log().contains(other), "a secret is in the log");
    }
}

#[test]
fn a_primary_that_has_gone_back_is_told() {
    let folder = TempDir::new().expect("a temporary folder");
    let first = primary(&zone(3, "2 1 3600 60"));
    let copy = secondary("127.0.0.1:0", &first.listener("ts").to_string(), &folder);
    wait_for(&copy, 3);
    first.reload("z.zone", &zone(2, "2 1 3600 60"));
    let line = copy.process.wait_for_log("the primary has an older serial than the local zone");
    assert!(line.contains("zone=example.org. ") && line.contains("serial=2 ours=3"), "{line}");
    assert_eq!(ask(&copy).answers(), ["192.0.2.3"]);
}

#[test]
fn a_restart_needs_no_primary() {
    let folder = TempDir::new().expect("a temporary folder");
    let first = primary(&zone(3, SLOW));
    let copy = secondary("127.0.0.1:0", &first.listener("ts").to_string(), &folder);
    assert!([NOERROR, SERVFAIL].contains(&ask(&copy).rcode()));
    wait_for(&copy, 3);
    let gone = first.listener("ts").to_string();
    drop((first, copy));
    let again = secondary("127.0.0.1:0", &gone, &folder);
    assert_eq!(ask(&again).answers(), ["192.0.2.3"], "the first query finds it");
}

#[test]
fn a_zone_that_nobody_confirms_expires_and_comes_back() {
    let folder = TempDir::new().expect("a temporary folder");
    let address = free_address();
    let config = format!(
        "[authorities.ts]\nlisten = ['{address}']\nzones = [{{ file = 'z.zone', origin = 'example.org', \
         transfer_to = ['127.0.0.1'] }}]\n"
    );
    let start = || Server::start_with_files(&config, &[("z.zone", &zone(1, "2 1 3 60"))]);
    let first = start();
    let copy = secondary("127.0.0.1:0", &address.to_string(), &folder);
    wait_for(&copy, 1);
    drop(first);
    until("it expires", || (ask(&copy).rcode() == SERVFAIL).then_some(()));
    let _again = start();
    wait_for(&copy, 1);
}

#[test]
fn serials_that_no_secondary_would_notice_are_told() {
    let server = primary(&zone(7, SLOW));
    server.reload("z.zone", &(zone(7, SLOW) + "more A 192.0.2.1\n"));
    server.process.wait_for_log("zone example.org. has changed but not its serial 7");
    server.reload("z.zone", &zone(5, SLOW));
    server.process.wait_for_log("zone example.org. has gone back to serial 5");
}

#[test]
fn notify_is_taken_from_primaries_of_the_zone_alone() {
    let folder = TempDir::new().expect("a temporary folder");
    let notify = |name: &str| query(name, SOA).flags(0).opcode(NOTIFY);
    let check = |primary: &str, name: &str, rcode| {
        let copy = secondary("127.0.0.1:0", primary, &folder);
        let response = Client::of(copy.listener("ts")).ask(&notify(name));
        assert_eq!(response.rcode(), rcode, "{primary} {name}");
        assert_eq!(response.message().queries.len(), 1);
    };
    check("127.0.0.1:9", "example.org", NOERROR);
    check("127.0.0.1:9", "Example.ORG", NOERROR);
    check("127.0.0.1:9", "www.example.org", REFUSED);
    check("127.0.0.1:9", "example.com", REFUSED);
    check("127.0.0.2:9", "example.org", REFUSED);
    let copy = secondary("127.0.0.1:0", "127.0.0.2:9", &folder);
    assert_eq!(Client::of(copy.listener("ts")).ask(&notify("example.org")).rcode(), REFUSED);
    copy.process.wait_for_log("NOTIFY refused: the sender is not a primary of the zone; add it to notify_from");
    let server = primary(&zone(1, SLOW));
    assert_eq!(Client::of(server.listener("ts")).ask(&notify("example.org")).rcode(), REFUSED);
}

#[test]
fn responses_above_the_rate_are_cut_or_left_out_by_udp_alone() {
    let config = "workers = 1\n[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['z.zone']\n\
                  [authorities.ts.rate_limit]\nanswers = 5\nslip = 1\nloopback = true\n";
    let text = format!("$ORIGIN example.org.\n{}*.wild A 192.0.2.9\n", zone(1, SLOW));
    let server = Server::start_with_files(config, &[("z.zone", &text)]);
    let (udp, mut tcp) = (Client::of(server.listener("ts")), TcpClient::of(server.listener("ts")));
    // Whatever is asked for below a wildcard is one thing.
    let names: Vec<_> = (0..40).map(|number| format!("n{number}.wild.example.org")).collect();
    let responses: Vec<_> = names.iter().map(|name| udp.ask(&query(name, A).edns(1232))).collect();
    let (cut, whole): (Vec<_>, Vec<_>) = responses.iter().partition(|response| response.has(TC));
    assert!((5..20).contains(&whole.len()) && cut.len() >= 20, "{} whole", whole.len());
    assert!(cut.iter().all(|response| response.answers().is_empty() && response.has_opt() && response.has(AA)));
    assert!(names.iter().all(|name| tcp.ask(&query(name, A)).answers() == ["192.0.2.9"]));
    assert!(!udp.ask(&query("www.example.org", A)).has(TC), "another name is another matter");
}

/// A primary that gives the zone by TLS alone, with a certificate of this authority for `ns1.example`.
fn primary_by_tls(authorities: &CertificateAuthority, keys: &str) -> Server {
    let config = format!(
        "[authorities.ts]\nlisten = ['tls://127.0.0.1:0']\nzones = [{{ file = 'z.zone', origin = 'example.org', \
         transfer_to = ['127.0.0.1'] }}]\n[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n{keys}"
    );
    let (chain, key) = authorities.issue("ns1.example");
    Server::start_with_files(&config, &[("chain.pem", &chain), ("key.pem", &key), ("z.zone", &zone(1, SLOW))])
}

/// A secondary of a primary by TLS, which believes this authority.
fn secondary_by_tls(primary: &str, authorities: &CertificateAuthority) -> Server {
    let config = format!(
        "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ zone = 'example.org', \
         primaries = [{{ address = '{primary}', ca = 'ca.pem' }}] }}]\n"
    );
    Server::start_with_files(&config, &[("ca.pem", &authorities.pem())])
}

#[test]
fn a_zone_comes_by_tls_alone() {
    let authorities = CertificateAuthority::new();
    let primary = primary_by_tls(&authorities, "[admin]\nlisten = '127.0.0.1:0'\n");
    let at = primary.listener("ts");
    let secondary = secondary_by_tls(&format!("tls://{at}#ns1.example"), &authorities);
    wait_for(&secondary, 1);
    secondary.process.wait_for_log(&format!("transferred zone=example.org. serial=1 primary=tls://{at} how=\"AXFR\""));
    let metrics = primary.admin().metrics();
    assert!(metrics.sum("hedgerow_queries_total", &[("transport", "tls")]) >= 1);
    assert_eq!(
        metrics.sum("hedgerow_queries_total", &[("transport", "udp")]),
        0,
        "not even the question for the serial"
    );
    // By its address as well, which stands in the certificate.
    let other = secondary_by_tls(&format!("tls://{at}"), &authorities);
    wait_for(&other, 1);
}

#[test]
fn a_primary_that_is_somebody_else_gives_nothing() {
    let (authorities, strangers) = (CertificateAuthority::new(), CertificateAuthority::new());
    let primary = primary_by_tls(&authorities, "");
    let at = primary.listener("ts");
    for (address, roots, reported) in [
        (format!("tls://{at}#ns2.example"), &authorities, "not for ns2.example"),
        (format!("tls://{at}#ns1.example"), &strangers, "the certificate is not signed by a trusted authority"),
    ] {
        let secondary = secondary_by_tls(&address, roots);
        let line = secondary.process.wait_for_log("the transfer from the primary failed");
        assert!(line.contains(&format!("primary=tls://{at}")), "{line}");
        assert!(line.contains(reported), "{line}");
        assert_eq!(ask(&secondary).rcode(), SERVFAIL);
    }
}
