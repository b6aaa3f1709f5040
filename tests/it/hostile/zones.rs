//! What other servers may do to an authority: NOTIFY, costly zones, many names.

use tempfile::TempDir;
use testkit::*;

/// RFC 1996 section 3.1: the opcode.
const NOTIFY: u16 = 4;

/// The key that both servers have.
const KEY: &str = "[keys.k]\nsecret = 'dGhlIHNlY3JldCBvZiBhbGwgdGhlIHRlc3Rz'\n";

/// Refresh, retry, expire and minimum that nothing happens by within a test.
const SLOW: &str = "3600 3600 86400 60";

/// A version of a zone: its host's address ends in the serial.
fn zone(serial: u32) -> String {
    format!("@ 300 SOA ns.elsewhere. h {serial} {SLOW}\n@ NS ns.elsewhere.\nwww A 192.0.2.{serial}\n")
}

/// An unsigned NOTIFY for a zone.
fn notify(name: &str) -> Query {
    query(name, SOA).flags(AA).opcode(NOTIFY)
}

/// The same with the SOA record of a new version.
fn notify_of(name: &str, serial: u32) -> Vec<u8> {
    let mut octets = notify(name).to_vec();
    octets[7] = 1;
    octets.extend(soa(name, serial).to_vec());
    octets
}

/// The SOA record of a version.
fn soa(name: &str, serial: u32) -> Record {
    let times = [serial, 3600, 3600, 86_400, 60].map(u32::to_be_bytes).concat();
    record(name, SOA, &[&wire_name("ns.elsewhere")[..], &wire_name("h.elsewhere"), &times].concat())
}

/// Waits until a server has this version of a zone.
fn wait_for(server: &Server, zone: &str, serial: u32) {
    let question = query(&format!("www.{zone}"), A);
    until(&format!("serial {serial} of {zone}"), || {
        let response = Client::of(server.listener("ts")).ask(&question);
        (response.answers() == [format!("192.0.2.{serial}")]).then_some(())
    });
}

#[test]
fn unsigned_notify_is_refused_where_a_key_is_set() {
    let folder = TempDir::new().expect("a temporary folder");
    let shared = |also| {
        format!(
            "{KEY}[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ file = 'z.zone', origin = 'example.org', \
             tsig = 'k', transfer_to = ['key:k']{also} }}]\n"
        )
    };
    let first = Server::start_with_files(&shared(String::new()), &[("z.zone", &zone(1))]);
    let copy = Server::start(&format!(
        "{KEY}[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ zone = 'example.org', tsig = 'k', \
         primaries = ['{}'], file = '{}' }}]\n",
        first.listener("ts"),
        folder.path().join("saved.zone").display()
    ));
    wait_for(&copy, "example.org", 1);
    // From the address of the primary, as anybody can make it seem.
    assert_eq!(Client::of(copy.listener("ts")).ask(&notify("example.org")).rcode(), REFUSED);
    // The primary signs, and is heard.
    first.rewrite("config.toml", &shared(format!(", also_notify = ['{}']", copy.listener("ts"))));
    first.reload("z.zone", &zone(2));
    wait_for(&copy, "example.org", 2);
}

#[test]
fn addresses_that_are_listed_may_notify_unsigned_all_the_same() {
    let folder = TempDir::new().expect("a temporary folder");
    let copy = Server::start(&format!(
        "{KEY}[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ zone = 'example.org', tsig = 'k', \
         primaries = ['127.0.0.2:9'], notify_from = ['127.0.0.1'], file = '{}' }}]\n",
        folder.path().join("saved.zone").display()
    ));
    assert_eq!(Client::of(copy.listener("ts")).ask(&notify("example.org")).rcode(), NOERROR);
}

#[test]
fn a_flood_of_notify_for_one_zone_takes_no_place_from_another() {
    let folder = TempDir::new().expect("a temporary folder");
    let zones = |names: &[&str], rest: &str| {
        let zone = |name: &&str| format!("{{ file = '{name}.zone', origin = '{name}.example', {rest} }}");
        names.iter().map(zone).collect::<Vec<_>>().join(", ")
    };
    let config = format!(
        "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{}]\n",
        zones(&["a", "b"], "transfer_to = ['127.0.0.1']")
    );
    let first = Server::start_with_files(&config, &[("a.zone", &zone(1)), ("b.zone", &zone(1))]);
    let secondary = |name: &str| {
        let file = folder.path().join(name);
        let (primary, file) = (first.listener("ts"), file.display());
        format!("{{ zone = '{name}.example', primaries = ['{primary}'], file = '{file}' }}")
    };
    let copy = Server::start(&format!(
        "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{}, {}]\n",
        secondary("a"),
        secondary("b")
    ));
    wait_for(&copy, "a.example", 1);
    wait_for(&copy, "b.example", 1);
    first.reload("b.zone", &zone(2));
    wait_for(&first, "b.example", 2);
    let (flood, client) = (Client::of(copy.listener("ts")), Client::of(copy.listener("ts")));
    for serial in 0..5000 {
        flood.send_bytes(&notify_of("a.example", serial));
    }
    // An old serial alone causes no transfer; the true one that comes after it is accepted nevertheless.
    flood.send_bytes(&notify_of("b.example", 1));
    client.send_bytes(&notify_of("b.example", 2));
    assert_eq!(client.receive().rcode(), NOERROR);
    wait_for(&copy, "b.example", 2);
}

/// A signed zone with so many iterations.
fn hashed(iterations: u16) -> String {
    let hash = "0p9mhaveqvm6t7vbl5lop2u3t2rp3tom";
    format!("{}@ NSEC3PARAM 1 0 {iterations} aabb\n{hash} NSEC3 1 0 {iterations} aabb {hash} A\n", zone(1))
}

#[test]
fn a_zone_that_costs_too_much_hashing_is_refused_with_the_reason() {
    let reason = "NSEC3 with 151 iterations, expected at most 150: sign the zone with 0 (RFC 9276)";
    let config = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{ file = 'z.zone', origin = 'example.org', \
                  transfer_to = ['127.0.0.1'] }]\n";
    let server = Server::start_with_files(config, &[("z.zone", &hashed(150))]);
    wait_for(&server, "example.org", 1);
    server.reload("z.zone", &hashed(151));
    server.process.wait_for_log(reason);
    wait_for(&server, "example.org", 1);
}

#[test]
fn a_transferred_zone_that_costs_too_much_hashing_is_refused_with_the_reason() {
    let folder = TempDir::new().expect("a temporary folder");
    // What a primary sends that does not mind: the zone with 151 iterations of hashing, whose salt is two
    // octets long.
    let params = |rest: &[u8]| [&[1, 0, 0, 151, 2, 0xaa, 0xbb], rest].concat();
    let hash = "0p9mhaveqvm6t7vbl5lop2u3t2rp3tom.example.org";
    let peer = Backend::new(Script::new(move |seen| {
        let soa = || soa("example.org", 1);
        let records = [
            soa(),
            record("example.org", NS, &wire_name("ns.elsewhere")),
            record("example.org", NSEC3PARAM, &params(b"")),
            record(hash, NSEC3, &params(&[&[20][..], &[0; 20], b"\0\x01\x40"].concat())),
            soa(),
        ];
        let reply =
            records.into_iter().fold(reply_to(&seen.bytes).with_flags(AA), |reply, record| reply.answer(record));
        Some(reply.to_vec())
    }));
    let copy = Server::start(&format!(
        "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ zone = 'example.org', primaries = ['{}'], \
         file = '{}' }}]\n",
        peer.address(),
        folder.path().join("saved.zone").display()
    ));
    copy.process.wait_for_log("NSEC3 with 151 iterations, expected at most 150");
    assert_eq!(Client::of(copy.listener("ts")).ask(&query("www.example.org", A)).rcode(), SERVFAIL);
}

/// RFC 5155 section 3.
const NSEC3: u16 = 50;

/// RFC 5155 section 4.
const NSEC3PARAM: u16 = 51;
