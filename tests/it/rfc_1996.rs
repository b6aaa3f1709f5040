//! RFC 1996: NOTIFY, its content, its receivers, how often it is sent, and how a secondary reacts.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use dns::{Flag, Header, Opcode, Rcode, RecordType, write_error};
use proptest::prelude::*;
use tempfile::TempDir;
use testkit::{Asked as _, Backend, Script, Server};
use zone::Record;
use zone::transfer::{
    Notify, NotifyAttempts, NotifyStep, Records, Serial, is_notify_response, read_notify, servers_to_notify,
    write_notify,
};

use crate::support::transfers::{ID, ZONE, query, soa_rdata, version, with_header, zone};

#[test]
fn section_3_7_the_soa_is_a_hint() {
    let records = version(7, []);
    let mut out = Vec::new();
    for (soa, serial) in [(records.first(), Some(Serial(7))), (None, None)] {
        write_notify(ID, &zone(), soa, &mut out);
        let header = Header::read(&out).unwrap();
        assert!(header.opcode() == Opcode::NOTIFY && header.is_authoritative() && !header.is_response());
        assert_eq!(read_notify(&out), Ok(Notify { zone: zone(), serial }));
    }
}

#[test]
fn what_is_no_notify_is_told() {
    let as_notify = |octets| with_header(octets, |header| header.with_opcode(Opcode::NOTIFY));
    let soa = query(RecordType::SOA);
    let check = |octets: &[u8], rcode: Rcode| assert_eq!(read_notify(octets), Err(rcode), "{octets:?}");
    check(b"", Rcode::FORMERR);
    check(&soa, Rcode::NOTIMP);
    check(&as_notify(query(RecordType::A)), Rcode::NOTIMP);
    let notify = as_notify(soa);
    check(&with_header(notify.clone(), |header| header.with(Flag::Response, true)), Rcode::FORMERR);
    check(&with_header(notify.clone(), |header| header.with_counts([0; 4])), Rcode::FORMERR);
    check(&[&notify[..], b"x"].concat(), Rcode::FORMERR);
    assert!(read_notify(&notify).is_ok());
}

#[test]
fn section_4_7_the_response_ends_it() {
    let (mut notify, mut response) = (Vec::new(), Vec::new());
    write_notify(ID, &zone(), version(7, []).first(), &mut notify);
    let is_response = |octets: &[u8]| is_notify_response(octets, ID, &zone());
    assert!(!is_response(&notify));
    for rcode in [Rcode::NOERROR, Rcode::REFUSED, Rcode::NOTIMP] {
        write_error(&notify, rcode, None, 1232, &mut response);
        assert!(is_response(&response) && !is_notify_response(&response, ID + 1, &zone()));
        // Section 3.6: of the same name, in any case. An error may come without the question.
        assert!(!is_notify_response(&response, ID, &"other".parse().unwrap()));
        assert!(is_notify_response(&response, ID, &"EXAMPLE".parse().unwrap()));
        assert!(is_response(&with_header(response[..12].to_vec(), |header| header.with_counts([0; 4]))));
    }
}

#[test]
fn section_4_5_a_notify_has_the_question_and_aa() {
    let mut notify = Vec::new();
    write_notify(ID, &zone(), None, &mut notify);
    // Opcode 4 and AA alone, one question, the zone with type SOA and class IN.
    let head = [&ID.to_be_bytes()[..], &[0x24, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(notify, [&head[..], ZONE, &[0, 6, 0, 1]].concat());
}

#[test]
fn section_4_2_a_secondary_notifies_others_after_its_transfer() {
    let downstream = Backend::new(Script::new(|seen| {
        let mut response = seen.bytes.clone();
        response[2] |= 0x80;
        Some(response)
    }));
    let folder = TempDir::new().unwrap();
    let text = "@ 300 SOA ns.elsewhere. h 7 3600 3600 86400 60\n@ NS ns.elsewhere.\n";
    let primary = Server::start_with_files(
        "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{ file = 'z.zone', origin = 'example', \
         transfer_to = ['127.0.0.1'] }]\n",
        &[("z.zone", text)],
    );
    let _secondary = Server::start(&format!(
        "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ zone = 'example', primaries = ['{}'], \
         also_notify = ['{}'], file = '{}' }}]\n",
        primary.listener("ts"),
        downstream.address(),
        folder.path().join("saved.zone").display()
    ));
    // The SOA record is that of the version that has come, and has been saved.
    let notify = downstream.wait_for(1).remove(0).bytes;
    assert!(folder.path().join("saved.zone").exists());
    assert_eq!(read_notify(&notify), Ok(Notify { zone: zone(), serial: Some(Serial(7)) }));
}

#[test]
fn section_3_9_the_authority_and_additional_sections_are_ignored() {
    let mut notify = Vec::new();
    write_notify(ID, &zone(), None, &mut notify);
    let rdata = soa_rdata(7);
    let record = [ZONE, &[0, 6, 0, 1, 0, 0, 1, 44], &(rdata.len() as u16).to_be_bytes(), &rdata].concat();
    let notify = [notify, record.clone(), record].concat();
    let read = |counts| read_notify(&with_header(notify.clone(), |header| header.with_counts(counts))).unwrap().serial;
    assert_eq!(read([1, 0, 1, 1]), None);
    assert_eq!(read([1, 0, 0, 2]), None);
    assert_eq!(read([1, 1, 1, 0]), Some(Serial(7)));
}

#[test]
fn section_2_1_all_name_servers_but_the_primary_are_told() {
    let mut records: Records = version(1, []);
    let mut push = |owner: &[u8], rtype, rdata: &[u8]| records.push(Record { owner, rtype, ttl: 1, rdata });
    for server in [&b"\x02NS\x07example\0"[..], b"\x01a\x07example\0", b"\x01b\x07example\0", b"\x02ns\x05other\0"] {
        push(ZONE, RecordType::NS, server);
    }
    push(b"\x02ns\x07example\0", RecordType::A, &[192, 0, 2, 1]);
    push(b"\x01A\x07example\0", RecordType::A, &[192, 0, 2, 2]);
    push(b"\x01A\x07example\0", RecordType::AAAA, &[1; 16]);
    push(b"\x01b\x07example\0", RecordType::A, &[192, 0, 2, 2]);
    // A delegation is not of this zone.
    push(b"\x03sub\x07example\0", RecordType::NS, b"\x01c\x07example\0");
    let addresses: Vec<IpAddr> = vec!["192.0.2.2".parse().unwrap(), IpAddr::from([1; 16])];
    assert_eq!(servers_to_notify(&zone(), records.iter()), addresses);
}

#[test]
fn section_3_6_silence_is_answered_with_repetition_for_a_while() {
    let start = Instant::now();
    // Sends until it gives up, or until the secondary responds to the message of this number.
    let reported = |responds_after: usize| {
        let mut attempts = NotifyAttempts::new(start);
        let (mut sent, mut now) = (Vec::new(), start);
        loop {
            match attempts.next_step(now) {
                NotifyStep::Send => {
                    sent.push((now - start).as_secs());
                    if sent.len() == responds_after {
                        attempts.on_response();
                    }
                }
                NotifyStep::WaitUntil(at) => {
                    assert!(at > now);
                    now = at;
                }
                over @ (NotifyStep::GiveUp | NotifyStep::Finished) => return (sent, over, now - start),
            }
        }
    };
    assert_eq!(reported(usize::MAX), (vec![0, 1, 3, 7, 15, 31, 63], NotifyStep::GiveUp, Duration::from_secs(127)));
    assert_eq!(reported(2), (vec![0, 1], NotifyStep::Finished, Duration::from_secs(1)));
}

proptest! {
    #[test]
    fn no_octets_do_harm(octets in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = read_notify(&octets);
        let _ = is_notify_response(&octets, ID, &zone());
    }
}
