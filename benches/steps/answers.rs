//! The whole story of a query at an authority: bytes to bytes.

use std::hint::black_box;
use std::sync::Arc;

use dns::{Rcode, Transport};
use zone::master::ZoneFileSource;
use zone::{DeferredZoneBuilder, Miss, Reaction, Tables, ZoneDb, respond};

use super::master::read_zone;
use super::message::{UDP_SIZE, query};

/// Hosts in the table or zone that answers.
const HOSTS: u32 = 10_000;

/// The records of the zone besides its hosts.
const SPECIAL: &str = "\
@ SOA ns hostmaster 1 2 3 4 300
@ NS ns
ns A 192.0.2.1
*.wild A 192.0.2.2
child NS ns.child
ns.child A 192.0.2.3
";

/// Answers from a table, with this rcode.
pub(super) fn table(name: &str, rcode: Rcode) -> impl FnMut() + use<> {
    let sources = [("hosts.txt".to_owned(), hosts(".example.org 10.0.0.1 A").into_bytes())];
    let zone_db = ZoneDb::build(&sources, 300, Miss::Nxdomain).expect("the lines are sound");
    answer(zone_db, name, rcode, u8::from(rcode == Rcode::NOERROR))
}

/// Answers from a zone, with this rcode and so many answer records.
pub(super) fn zone(name: &str, rcode: Rcode, answers: u8) -> impl FnMut() + use<> {
    let octets = format!("{SPECIAL}{}", hosts(" A 10.0.0.1")).into_bytes();
    let mut builder = DeferredZoneBuilder::new(None);
    let source = ZoneFileSource { name: "zone".to_owned(), octets };
    read_zone(&source, &mut |record, place| builder.add(&record, place)).expect("the lines are sound");
    let Ok((zone, _)) = builder.finish() else { panic!("the zone is sound") };
    answer(ZoneDb::new(Arc::new(Tables::none())).with_zone(Arc::new(zone)), name, rcode, answers)
}

/// Lines of a file, one for each host.
fn hosts(rest: &str) -> String {
    (0..HOSTS).map(|number| format!("host{number}{rest}\n")).collect()
}

/// Answers a query, with this rcode and so many answer records.
fn answer(zone_db: ZoneDb, name: &str, rcode: Rcode, answers: u8) -> impl FnMut() + use<> {
    let query = query(name);
    let mut out = Vec::with_capacity(512);
    move || {
        let reaction = respond(&zone_db, black_box(query), Transport::Udp, UDP_SIZE, &mut out);
        // The low byte of ANCOUNT (RFC 1035 section 4.1.1).
        assert_eq!((reaction, out.get(7)), (Reaction::Respond(rcode), Some(&answers)));
    }
}
