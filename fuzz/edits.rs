//! Changes of messages in place: each leaves a sound message that differs only where it says so.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dns::{
    ClientForm, ClientSubnet, CookiePair, Dns64Prefix, ExtendedError, HEADER_LEN, Header, LocalRecord, LocalResponse,
    Message, Name, OwnEdns, QUERY_BLOCK, Query, QuestionFlags, RESPONSE_BLOCK, Rcode, RecordType, Reply, ReplyDigest,
    ResponseSubject, add_client_subnet, add_cookie, add_opt, append_hop_options, ask_authentic, ask_for_cookie,
    ask_keepalive, ask_zone_version, extended_error, extended_errors, fold, give_client_subnet, has_case, is_reply_to,
    pad_query, read_query, read_reply, set_case, set_id, shorten, stated_keepalive, write_behind_cname, write_local,
    write_own_query, write_plain_query, write_prohibited, write_query, write_query_instead, write_unchanged,
    write_without_opt,
};

use super::{UDP_SIZE, assert_read_by_hickory};

const MAX: usize = u16::MAX as usize;

/// The query to a backend, as each kind of backend gets it.
pub(super) fn of_query(octets: &[u8], query: &Query<'_>) {
    let mut plain = Vec::new();
    let opt_at = write_query(query, UDP_SIZE, &mut plain);
    let question = query.question.as_wire();
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut out = plain.clone();
        edit(&mut out);
        let read = read_query(&out).unwrap_or_else(|_| panic!("no query: {out:?}"));
        assert!(read.question.as_wire() == question && out.len() <= usize::from(UDP_SIZE).max(plain.len() + 200));
        out
    };
    let has_opt = |out: &[u8]| read_query(out).is_ok_and(|query| query.edns.is_some());
    assert!(has_opt(&edited(&|out| add_opt(out, opt_at, UDP_SIZE))));
    let with_cookie = edited(&|out| add_cookie(out, opt_at, &CookiePair::new(*b"a cookie"), UDP_SIZE));
    let edns = read_query(&with_cookie).expect("a query").edns.expect("its record");
    assert_eq!(edns.cookie().expect("a sound one").map(|cookie| cookie.client), Some(*b"a cookie"));
    for address in [IpAddr::from(Ipv4Addr::new(192, 0, 2, 255)), IpAddr::from([0x2001; 8])] {
        let subnet = ClientSubnet::of_address(address, 24, 56);
        assert!(has_opt(&edited(&|out| add_client_subnet(out, opt_at, &subnet, UDP_SIZE))));
    }
    edited(&|out| ask_zone_version(out, opt_at, UDP_SIZE));
    edited(&|out| ask_authentic(out));
    edited(&|out| ask_keepalive(out));
    let padded = edited(&|out| {
        pad_query(out, opt_at, QUERY_BLOCK);
        let len = out.len();
        ask_keepalive(out);
        assert_eq!(out.len(), len, "padding gives it the room");
    });
    assert!(padded.len().is_multiple_of(QUERY_BLOCK) || query.edns.is_none());
    assert_eq!(Header::read(&edited(&|out| set_id(out, 0xABCD))).map(Header::id), Some(0xABCD));

    let mut out = Vec::new();
    write_without_opt(&plain, opt_at, &mut out);
    assert!(!has_opt(&out) && read_query(&out).is_ok_and(|read| read.question.as_wire() == question));
    let (end, bits) = (HEADER_LEN + query.question.qname().len(), 0xA5A5_5A5A_0FF0_1234);
    set_case(&mut out[HEADER_LEN..end], bits);
    assert!(has_case(&out[HEADER_LEN..end], bits));
    fold(&mut out[HEADER_LEN..end]);
    assert!(query.question.qname().eq_ignore_ascii_case(&out[HEADER_LEN..end]));

    let other: Name = "other.example.".parse().expect("a name");
    write_query_instead(query, &other, RecordType::AAAA, UDP_SIZE, &mut out);
    let instead = read_query(&out).expect("a query");
    assert_eq!((instead.question.qname(), instead.question.qtype()), (other.as_wire(), RecordType::AAAA));
    let mut folded = Vec::new();
    let flags = query.fold_question(&mut folded);
    assert_eq!(QuestionFlags::of_octet(flags.octet()), flags);
    for edns in [None, Some(OwnEdns { udp_size: UDP_SIZE, wants_version: true })] {
        write_own_query(7, &folded, flags, edns, &mut out);
        let own = read_query(&out).expect("a query");
        assert!(own.question.as_wire() == folded && own.edns.is_some() == edns.is_some());
    }
    answers_of_our_own(octets, query);
}

/// The answers to a client without a backend: its refusal, and addresses of the config.
fn answers_of_our_own(octets: &[u8], query: &Query<'_>) {
    let mut out = Vec::new();
    let (form, question) = (ClientForm::of(query), query.question.as_wire());
    write_prohibited(octets, Some(query), None, UDP_SIZE, &mut out);
    let expected = query.edns.map(|_| ExtendedError::PROHIBITED);
    assert!(extended_errors(&out).eq(expected));
    let local = LocalResponse::new(Rcode::NOERROR);
    let record = LocalRecord { rtype: RecordType::A, ttl: 60, rdata: &[192, 0, 2, 1] };
    for count in [0, 1, 200] {
        write_local(question, &form, &local, vec![record; count], (UDP_SIZE, usize::from(UDP_SIZE)), &mut out);
        assert!(out.len() <= usize::from(UDP_SIZE));
        assert_read_by_hickory(&out);
        let reply = read_reply(&out).expect("a reply");
        assert!(reply.answers_question(question) && reply.is_truncated() == (count == 200));
        assert!(is_reply_to(&out, octets), "{out:?}");
        if form.edns.is_some() {
            let whole = out.len();
            append_hop_options(&mut out, Some(Duration::from_millis(2_500)), Some(RESPONSE_BLOCK));
            assert!(out.len().is_multiple_of(RESPONSE_BLOCK) && out.len() > whole);
            assert_eq!(stated_keepalive(&out), Some(Duration::from_millis(2_500)));
        }
    }
}

/// The reply of a backend, as it is shown, compared, hidden behind an alias, and cut.
pub(super) fn of_reply(octets: &[u8], reply: &Reply<'_>, question: &[u8]) {
    let subject = ResponseSubject::of(octets);
    assert!(Name::from_wire(subject.name).is_ok(), "{subject:?}");
    assert_eq!(extended_error(octets).is_some(), extended_errors(octets).next().is_some());
    assert_eq!(ReplyDigest::of(reply).is_none(), reply.is_truncated());
    let _ = (reply.conclusion(), reply.is_negative(), reply.is_bare_failure());
    if let Some(reported) = reply.reported_serial() {
        assert_eq!(reported.to_serial().is_some(), reply.zone_serial().is_some());
    }
    let _ = (reply.answered_serial(), ClientSubnet::of_reply(reply.edns().as_ref()));
    let message = Message::read(octets).expect("a reply is a message");
    let records = message.records().lenient().map_while(Result::ok);
    assert!(records.filter(|record| record.edns().is_some()).count() <= 1);

    let mut out = Vec::new();
    write_unchanged(reply, 0xABCD, &mut out);
    assert!(out[..2] == [0xAB, 0xCD] && out[2..] == octets[2..]);
    let mut edits: Vec<fn(&mut Vec<u8>)> = vec![shorten];
    edits.extend(reply.edns().map(|_| ask_for_cookie as fn(&mut Vec<u8>)));
    for edit in edits {
        out.clear();
        out.extend_from_slice(octets);
        edit(&mut out);
        assert!(out.len() <= octets.len(), "{out:?}");
        let short = read_reply(&out).unwrap_or_else(|_| panic!("no reply: {out:?}"));
        assert!(short.answers_question(question) && !short.has_answers(), "{out:?}");
    }
    // Names that lead into what changes in front of them are other names afterwards.
    if octets.windows(2).any(|pair| pair[0] >= 0xC0) {
        return;
    }
    let mut alias = Vec::new();
    write_plain_query(7, &"alias.example.".parse().expect("a name"), RecordType::A, &mut alias);
    write_behind_cname(&alias[HEADER_LEN..], 60, reply, &mut out);
    let behind = read_reply(&out).unwrap_or_else(|_| panic!("no reply: {out:?}"));
    assert!(behind.answers_question(&alias[HEADER_LEN..]) && !behind.is_authentic());
    if reply.edns().is_some() {
        let subnet = ClientSubnet::of_address(IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)), 24, 56);
        out.clear();
        out.extend_from_slice(octets);
        give_client_subnet(&mut out, &subnet, 24);
        assert!(out.len() <= MAX);
    }
}

/// A reverse name, and the same name for clients behind NAT64.
pub(super) fn of_reverse_name(name: &Name) {
    let prefix: Dns64Prefix = "64:ff9b::/96".parse().expect("a prefix");
    if let Some(behind) = prefix.reverse(name.as_wire()) {
        assert!(behind.to_string().ends_with(".in-addr.arpa."), "{behind}");
    }
    let address = name.as_wire().iter().fold(7_u32, |sum, octet| sum.rotate_left(5) ^ u32::from(*octet)).into();
    assert_eq!(prefix.extract(prefix.embed(address)), Some(address));
    for address in [IpAddr::from(address), prefix.embed(address).into()] {
        let reverse = Name::reverse_of(address);
        assert!(reverse.to_string().ends_with(".arpa."), "{reverse}");
    }
    let reverse = prefix.reverse(Name::reverse_of(prefix.embed(address).into()).as_wire());
    assert_eq!(reverse, Some(Name::reverse_of(address.into())));
}
