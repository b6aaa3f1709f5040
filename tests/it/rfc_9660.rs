//! RFC 9660, the ZONEVERSION option: a server returns the zone and the version that an answer comes from. A
//! test a clause.

use std::sync::Arc;

use dns::Transport;
use tempfile::TempDir;
use testkit::lookup;
use testkit::*;
use zone::{Identity, IdentityText, Miss, Reaction, Zone, ZoneDb, respond};

use crate::support::zones::{self, zone_db, zone_db_with_table};

/// The code of the option.
const ZONEVERSION: u16 = 19;

/// A zone with everything that an answer can be made of.
const PARENT: &str = "example. 300 SOA a. b. 4294967295 2 3 4 60\n\
                      example. NS ns.example.\n\
                      ns.example. A 192.0.2.53\n\
                      www.example. A 192.0.2.1\n\
                      alias.example. CNAME www.child.example.\n\
                      *.wild.example. A 192.0.2.2\n\
                      cut.example. NS ns.cut.example.\n\
                      ns.cut.example. A 192.0.2.54\n\
                      child.example. NS ns.example.\n";

/// A zone below it.
const CHILD: &str = "child.example. 300 SOA a. b. 7 2 3 4 60\n\
                     child.example. NS ns.example.\n\
                     www.child.example. A 192.0.2.3\n";

/// The option data for `example.` and for `child.example.`
const PARENT_VERSION: [u8; 6] = [1, 0, 255, 255, 255, 255];
const CHILD_VERSION: [u8; 6] = [2, 0, 0, 0, 0, 7];

/// A query that asks for the version.
fn wish(name: &str, rtype: u16) -> Query {
    query(name, rtype).edns(1232).option(ZONEVERSION, b"")
}

/// The response to a query.
fn response(zone_db: &ZoneDb, query: &Query, transport: Transport) -> Response {
    let mut bytes = Vec::new();
    let reaction = respond(zone_db, &query.to_vec(), transport, 1232, &mut bytes);
    assert!(matches!(reaction, Reaction::Respond(_)), "{reaction:?}");
    Response { bytes }
}

/// Returns the data of the ZONEVERSION options in a response.
fn versions(response: &Response) -> Vec<Vec<u8>> {
    let options = response.options().into_iter();
    options.filter(|(code, _)| *code == ZONEVERSION).map(|(_, data)| data).collect()
}

/// Checks the rcode and the ZONEVERSION options of the answer to a query, by both transports.
fn check(zone_db: &ZoneDb, query: &Query, rcode: u16, expected: &[[u8; 6]]) {
    for transport in [Transport::Udp, Transport::Tcp] {
        let response = response(zone_db, query, transport);
        assert_eq!(response.rcode(), rcode, "{response:?}");
        assert_eq!(versions(&response), expected, "{response:?}");
    }
}

/// RFC 9660 section 2.1: LABELCOUNT, TYPE, and VERSION in network order.
#[test]
fn section_2_1_the_option_has_label_count_type_and_serial() {
    let zone_db = zone_db(&[PARENT, CHILD]);
    check(&zone_db, &wish("www.example", A), 0, &[PARENT_VERSION]);
    check(&zone_db, &wish("www.child.example", A), 0, &[CHILD_VERSION]);
    let deep = "a.b.c.d. 300 SOA a. b. 16909060 2 3 4 60\na.b.c.d. NS ns.e.\n";
    check(&zones::zone_db(&[deep]), &wish("a.b.c.d", SOA), 0, &[[4, 0, 1, 2, 3, 4]]);
}

/// RFC 9660 section 2.1: the root zone has no label.
#[test]
fn section_2_1_the_root_has_no_label() {
    let root = ". 300 SOA a. b. 9 2 3 4 60\n. NS a.\n";
    check(&zone_db(&[root]), &wish("nowhere", A), 3, &[[0, 0, 0, 0, 0, 9]]);
}

/// RFC 9660 section 3.1: a client asks by an empty option.
#[test]
fn section_3_1_only_who_asks_is_told() {
    let zone_db = zone_db(&[PARENT]);
    check(&zone_db, &query("www.example", A), 0, &[]);
    check(&zone_db, &query("www.example", A).edns(1232), 0, &[]);
    check(&zone_db, &query("www.example", A).edns(1232).option(3, b""), 0, &[]);
    check(&zone_db, &wish("www.example", A), 0, &[PARENT_VERSION]);
    // Two wishes, which no client may send, are one.
    check(&zone_db, &wish("www.example", A).option(ZONEVERSION, b""), 0, &[PARENT_VERSION]);
}

/// RFC 9660 section 2.1: in a query the option has no data.
#[test]
fn section_2_1_an_option_with_data_is_a_format_error() {
    let zone_db = zone_db(&[PARENT]);
    for data in [&b"\x01"[..], &PARENT_VERSION, &[0; 300]] {
        let query = query("www.example", A).edns(1232).option(ZONEVERSION, data);
        check(&zone_db, &query, FORMERR, &[]);
        check(&zone_db, &query.option(ZONEVERSION, b""), FORMERR, &[]);
        check(&zone_db, &wish("www.example", A).option(ZONEVERSION, data), FORMERR, &[]);
    }
}

/// RFC 9660 section 3.2: whatever the answer is.
#[test]
fn section_3_2_negative_answers_tell_it() {
    let zone_db = zone_db(&[PARENT, CHILD]);
    check(&zone_db, &wish("missing.example", A), 3, &[PARENT_VERSION]);
    check(&zone_db, &wish("www.example", AAAA), 0, &[PARENT_VERSION]);
    check(&zone_db, &wish("missing.child.example", A), 3, &[CHILD_VERSION]);
    check(&zone_db, &wish("x.wild.example", AAAA), 0, &[PARENT_VERSION]);
}

#[test]
fn section_3_2_wildcards_and_any_tell_it() {
    let zone_db = zone_db(&[PARENT]);
    check(&zone_db, &wish("x.wild.example", A), 0, &[PARENT_VERSION]);
    check(&zone_db, &wish("www.example", 255), 0, &[PARENT_VERSION]);
}

/// RFC 9660 section 3.2: a referral has the version of the zone that refers.
#[test]
fn section_3_2_a_referral_tells_that_of_the_parent() {
    let zone_db = zone_db(&[PARENT]);
    let referral = response(&zone_db, &wish("www.cut.example", A), Transport::Udp);
    assert!(!referral.has(AA) && referral.answers().is_empty(), "{referral:?}");
    assert_eq!(versions(&referral), [PARENT_VERSION]);
    check(&zone_db, &wish("www.child.example", A), 0, &[PARENT_VERSION]);
}

/// RFC 9660 section 3.2: it is about the zone of the name that was asked for, wherever a chain of aliases
/// leads.
#[test]
fn section_3_2_a_chain_of_aliases_tells_that_of_its_first_name() {
    let zone_db = zone_db(&[PARENT, CHILD]);
    let answer = response(&zone_db, &wish("alias.example", A), Transport::Udp);
    assert!(answer.answers().contains(&"192.0.2.3".to_owned()), "{answer:?}");
    assert_eq!(versions(&answer), [PARENT_VERSION]);
}

/// RFC 4035 section 3.1.4.1: DS records are the parent's, and so is the version.
#[test]
fn section_3_2_ds_records_are_of_the_parent() {
    let zone_db = zone_db(&[PARENT, CHILD]);
    check(&zone_db, &wish("child.example", 43), 0, &[PARENT_VERSION]);
    check(&zone_db, &wish("child.example", SOA), 0, &[CHILD_VERSION]);
}

/// RFC 9660 section 3.2: a server without authority for the name returns no version.
#[test]
fn section_3_2_without_a_zone_there_is_no_version() {
    let zone_db = zone_db(&[PARENT]);
    check(&zone_db, &wish("www.elsewhere", A), REFUSED, &[]);
    check(&zone_db, &wish("www.example", A).class(3), REFUSED, &[]);
    let with_table = zone_db_with_table(&[PARENT], "host.test 192.0.2.9 A\n", Miss::Nxdomain);
    check(&with_table, &wish("host.test", A), 0, &[]);
    check(&with_table, &wish("none.test", A), 3, &[]);
    check(&with_table, &wish("www.example", A), 0, &[PARENT_VERSION]);
}

/// RFC 9660 section 3.2 has the option in SERVFAIL, too, but a zone that never came, or has expired, has no
/// version.
#[test]
fn section_3_2_a_zone_that_is_not_served_has_no_version() {
    let unserved = zone_db(&[PARENT]).with_zone(Arc::new(Zone::unserved(&zones::name("gone.example."))));
    check(&unserved, &wish("www.gone.example", A), SERVFAIL, &[]);
    check(&unserved, &wish("www.example", A), 0, &[PARENT_VERSION]);
}

/// RFC 6891 section 6.2.3: the option has its place within the size that the client takes, and a truncated
/// answer has it too.
#[test]
fn section_3_2_the_option_fits_into_the_size_of_the_client() {
    let hosts: String = (1..=60).map(|n| format!("many.example. A 192.0.2.{n}\n")).collect();
    let zone_db = zone_db(&[&format!("{PARENT}{hosts}")]);
    let cut = response(&zone_db, &query("many.example", A).edns(512).option(ZONEVERSION, b""), Transport::Udp);
    assert!(cut.has(TC) && cut.bytes.len() <= 512, "{cut:?}");
    assert_eq!(versions(&cut), [PARENT_VERSION]);
    // The longest answer that is whole without the option, and the size that is just enough with it.
    let whole = response(&zone_db, &query("many.example", A).edns(1232), Transport::Udp);
    assert!(!whole.has(TC), "{whole:?}");
    let len = u16::try_from(whole.bytes.len()).expect("a datagram");
    for (size, is_cut) in [(len, true), (len + 9, true), (len + 10, false)] {
        let asked = query("many.example", A).edns(size).option(ZONEVERSION, b"");
        let answer = response(&zone_db, &asked, Transport::Udp);
        assert_eq!((answer.has(TC), answer.bytes.len() <= usize::from(size)), (is_cut, true), "{size}: {answer:?}");
        assert_eq!(versions(&answer), [PARENT_VERSION]);
    }
    check(&zone_db, &query("many.example", A).edns(512).option(ZONEVERSION, b"").id(1), 0, &[PARENT_VERSION]);
}

/// It stands beside other options of the same answer.
#[test]
fn it_stands_beside_the_identifier_of_the_server() {
    let identity = Identity { nsid: IdentityText::new(b"node"), ..Identity::default() };
    let zone_db = zone_db(&[PARENT]).with_identity(identity);
    let answer = response(&zone_db, &wish("www.example", A).option(3, b""), Transport::Udp);
    assert_eq!(answer.options(), [(3, b"node".to_vec()), (ZONEVERSION, PARENT_VERSION.to_vec())]);
}

/// A zone of this serial as a file.
fn file(serial: u32) -> String {
    format!("@ 300 SOA ns.elsewhere. h {serial} 3600 3600 86400 60\n@ NS ns.elsewhere.\nwww A 192.0.2.{serial}\n")
}

/// RFC 9660 section 1: version and answer come together, from a primary and from a secondary, by UDP and by
/// TCP, whatever changes.
#[test]
fn section_1_the_version_and_the_answer_are_of_one_moment() {
    let folder = TempDir::new().expect("a temporary folder");
    let primary = Server::start_with_files(
        "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{ file = 'z.zone', origin = 'example', \
         transfer_to = ['127.0.0.1'] }]\n",
        &[("z.zone", &file(1))],
    );
    let secondary = Server::start(&format!(
        "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ zone = 'example', primaries = ['{}'], file = '{}' }}]\n",
        primary.listener("ts"),
        folder.path().join("saved.zone").display()
    ));
    let agrees = |answer: &Response, serial: u8| {
        assert_eq!(answer.answers(), [format!("192.0.2.{serial}")], "{answer:?}");
        assert_eq!(versions(answer), [[1, 0, 0, 0, 0, serial]], "{answer:?}");
    };
    let ask = |server: &Server| Client::of(server.listener("ts")).ask(&wish("www.example", A));
    until("the secondary has it", || (ask(&secondary).rcode() == 0).then_some(()));
    for server in [&primary, &secondary] {
        agrees(&ask(server), 1);
        agrees(&TcpClient::of(server.listener("ts")).ask(&wish("www.example", A)), 1);
    }
    // While it is replaced, each answer is of one version.
    primary.reload("z.zone", &file(2));
    until("the new version is served", || {
        let answer = ask(&primary);
        let serial = if answer.answers() == ["192.0.2.2"] { 2 } else { 1 };
        agrees(&answer, serial);
        (serial == 2).then_some(())
    });
}

/// RFC 9660 section 3.1 would not have a forwarder asked. One passes a wish on as it passes other options,
/// and never a version.
#[test]
fn section_3_1_an_ls_passes_a_wish_on_but_no_version() {
    let backend = Backend::new(answer("192.0.2.1"));
    let server = Forwarder::to(&[&backend], "").start();
    let asked = |name: &str| {
        let seen = backend.wait_for_name(name, 1);
        let options = seen[0].options().expect("it has EDNS").into_iter();
        options.filter(|(code, _)| *code == ZONEVERSION).map(|(_, data)| data).collect::<Vec<_>>()
    };
    server.client().ask(&wish("wish.example", A));
    assert_eq!(asked("wish.example"), [Vec::<u8>::new()]);
    server.client().ask(&query("version.example", A).edns(1232).option(ZONEVERSION, &PARENT_VERSION));
    assert!(asked("version.example").is_empty());
}

/// `lookup` shows the version that a server returns.
#[test]
fn lookup_shows_it_as_text() {
    let backend = Backend::new(reply(|reply| {
        let reply = reply.answer(a("192.0.2.1")).option(ZONEVERSION, &[2, 0, 0x78, 0xC3, 0xDF, 0xF5]);
        reply.option(ZONEVERSION, &[9, 0, 0, 0, 0, 1]).option(ZONEVERSION, &[2, 1, 0, 0, 0, 1])
    }));
    let run = lookup::lookup(backend.address(), &["--format", "dig", "www.example.org"], "");
    for line in [
        "; ZONEVERSION: example.org. SOA-SERIAL 2026102773\n",
        "; ZONEVERSION: 9 labels, SOA-SERIAL 1\n",
        "; OPT=19: 02 01 00 00 00 01\n",
    ] {
        assert!(run.stdout.contains(line), "{line}: {}", run.stdout);
    }
}
