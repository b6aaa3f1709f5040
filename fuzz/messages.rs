//! Messages with options and records of our own: what is written comes back as it was, within the limits.

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use dns::{
    Asks, ClientForm, ClientSubnet, Cookie, CookieOption, CookiePair, ExtendedError, HEADER_LEN, HashSeed, Header,
    LocalRecord, LocalResponse, LocalSoa, Message, Name, OptRecord, OptionCode, Query, QuestionFlags, QuestionHasher,
    QuestionKey, RESPONSE_BLOCK, Rcode, RecordType, Reply, ReplyDigest, Transport, add_cookie, append_hop_options,
    edns_of_rejected, eq_ignore_case, give_client_subnet, is_private, is_reply_to, least_ttl, local_soa_rdata,
    read_query, read_reply, same_rdata, subtract_age, suffixes, write_error, write_local, write_plain_query,
    write_recursive_query, write_response, write_synthesized,
};

use super::{UDP_SIZE, assert_read_by_hickory};

const MAX: usize = u16::MAX as usize;

/// A query: its key, its limits, and the options and negative answers that it leads to.
pub(super) fn of_query(octets: &[u8], query: &Query<'_>) {
    let (form, question) = (ClientForm::of(query), query.question.as_wire());
    let mut folded = Vec::new();
    let flags = query.fold_question(&mut folded);
    assert_eq!(QuestionKey::of_parts(question, flags), Some(QuestionKey::of(query)));
    assert_eq!(QuestionKey::of_parts(&folded, flags.signed()).is_some(), flags.signed().is_signed());
    assert!(!flags.is_signed() && !flags.without_recursion_desired().recursion_desired());
    assert_eq!(QuestionFlags::of_octet(flags.signed().octet()), flags);
    for transport in Transport::ALL {
        let limit = form.limit(transport, UDP_SIZE);
        assert!(limit == query.limit(transport, UDP_SIZE) && (limit == MAX) == transport.is_stream());
        assert!(!transport.is_encrypted() || transport.is_stream(), "{}", transport.label());
    }
    assert_eq!(edns_of_rejected(octets), query.edns);
    if let Some(edns) = query.edns {
        let (asks, has) = (Asks::of(&edns), |wanted| edns.iter_options().any(|(code, _)| code == wanted));
        assert_eq!(asks.padding(), has(OptionCode::PADDING));
        assert_eq!(asks.keepalive(), has(OptionCode::TCP_KEEPALIVE));
    }
    let plain = form.plain();
    let mut qname = folded[..query.question.qname().len()].to_vec();
    plain.with_case_of(query.question.qname()).restore_case(&mut qname);
    assert!(eq_ignore_case(&qname, query.question.qname()));
    if let Ok(Some(subnet)) = query.edns.map_or(Ok(None), |edns| ClientSubnet::of_query(&edns)) {
        of_client_subnet(&subnet, &form, question);
    }
    negative_answers(&form, query);
}

/// The network of a client: a response repeats it.
fn of_client_subnet(subnet: &ClientSubnet, form: &ClientForm, question: &[u8]) {
    let mut out = Vec::new();
    write_synthesized(question, form, Rcode::NOERROR, None, true, UDP_SIZE, &mut out);
    let len = out.len();
    give_client_subnet(&mut out, subnet, 24);
    assert_eq!(out.len(), len + subnet.wire_len());
    let reply = read_reply(&out).expect("a reply");
    let (again, scope) = ClientSubnet::of_reply(reply.edns().as_ref()).expect("a sound one").expect("one");
    assert_eq!((again, scope), (*subnet, if subnet.source() == 0 { 0 } else { 24 }));
    assert!(subnet.is_repeated_by(&again) && subnet.cut(8).source() <= 8);
    assert!(!subnet.is_ipv6() || subnet.wire_len() <= 8 + 16);
    for address in [IpAddr::from(Ipv4Addr::new(10, 0, 0, subnet.source())), IpAddr::from([0x2a00; 8])] {
        let whole = ClientSubnet::of_address(address, 32, 128);
        assert_eq!((whole.is_private(), whole.is_ipv6()), (is_private(address), address.is_ipv6()));
        assert_eq!(whole.is_repeated_by(subnet), whole == *subnet);
    }
}

/// Answers with an SOA record for each zone that the name may be in, whose error goes first when room ends.
fn negative_answers(form: &ClientForm, query: &Query<'_>) {
    let mut out = Vec::new();
    let question = query.question.as_wire();
    for owner in suffixes(query.question.qname()).take(3) {
        let (soa, error) = (Some(LocalSoa { owner, ttl: 60 }), Some((ExtendedError::BLOCKED, "a text")));
        let response = LocalResponse { soa, error, ..LocalResponse::new(Rcode::NXDOMAIN) };
        write_local(question, form, &response, [], (UDP_SIZE, usize::from(UDP_SIZE)), &mut out);
        assert_read_by_hickory(&out);
        let reply = read_reply(&out).expect("a reply");
        let serial = reply.zone_serial().expect("the SOA record has one");
        assert!(reply.is_negative() && serial.serial == 1 && eq_ignore_case(serial.zone.as_wire(), owner));
        assert_eq!(least_ttl(&out), Some(60));
        assert!(reply.header().recursion_available());
        let mut upper = out.clone();
        upper[HEADER_LEN..HEADER_LEN + query.question.qname().len()].make_ascii_uppercase();
        let hash = |octets: &[u8]| CARRIED.hash_one(read_reply(octets).expect("a reply").reported_serial());
        assert_eq!(hash(&out), hash(&upper));
    }
    let rdata = local_soa_rdata(60);
    let of_a = LocalRecord { rtype: RecordType::A, ttl: 60, rdata: &[192, 0, 2, 1] };
    let of_soa = LocalRecord { rtype: RecordType::SOA, ttl: 60, rdata: &rdata };
    let error = Some((ExtendedError::OTHER, "a text that is too long for a full message"));
    let response = LocalResponse { error, ..LocalResponse::new(Rcode::NOERROR) };
    for count in [0, 8, 20, 22, 24, 26, 28, 30] {
        let records = std::iter::once(of_soa).chain(std::iter::repeat_n(of_a, count));
        write_local(question, form, &response, records, (UDP_SIZE, 512), &mut out);
        assert!(out.len() <= 512);
        assert_read_by_hickory(&out);
        let reply = read_reply(&out).expect("a reply");
        assert!(reply.is_truncated() != reply.answered_serial().is_some_and(|serial| serial.serial == 1));
    }
}

/// A reply that leaves so much room in the longest message, as each form of a client gets it.
pub(super) fn of_full_reply(question: &[u8], room: usize, cookie: Cookie) {
    let mut octets = [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], question].concat();
    let mut with_opt = [&octets[..], &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]].concat();
    with_opt[11] = 1;
    let queries = [octets.clone(), with_opt];
    octets[2] = 0x81;
    octets[7] = 1;
    octets.extend([0xC0, 12, 0xFF, 0, 0, 1, 0, 0, 0, 60]);
    let rdata = MAX - octets.len() - 2 - room;
    octets.extend((rdata as u16).to_be_bytes());
    octets.resize(MAX - room, 7);
    let reply = read_reply(&octets).expect("a reply");
    let mut out = Vec::new();
    for query in &queries {
        let query = read_query(query).expect("a query");
        for cookie in [None, Some(cookie)] {
            let form = ClientForm::of(&query).with_cookie(cookie);
            write_response(&reply, &form, UDP_SIZE, MAX, &mut out);
            assert!(out.len() <= MAX && read_reply(&out).is_ok_and(|reply| reply.has_answers()), "{room}");
            write_response(&reply, &form, UDP_SIZE, 512, &mut out);
            assert!(out.len() <= 512 && read_reply(&out).is_ok_and(|reply| reply.is_truncated()), "{room}");
        }
    }
}

/// The reply of a backend that is not trusted, as time goes by: nothing is left of its TTLs at the end.
pub(super) fn of_reply(octets: &[u8], reply: &Reply<'_>) {
    let mut out = Vec::new();
    let distrusted = reply.without_authentic();
    distrusted.append_to(&mut out);
    assert!(!distrusted.is_authentic() && out.len() == octets.len());
    assert_eq!(Header::read(&out).map(Header::authentic_data), Some(false));
    for error in reply.extended_errors() {
        let decides = [Rcode::NXDOMAIN, Rcode::SERVFAIL].map(|rcode| error.decides(rcode));
        assert!(decides[0] <= decides[1] && decides[1] <= error.purpose().is_some(), "{error}");
    }
    out.clear();
    out.extend_from_slice(octets);
    append_hop_options(&mut out, None, Some(RESPONSE_BLOCK));
    let may_be_padded = !reply.is_signed() && reply.edns().is_some();
    assert!(out == octets || may_be_padded && (out.len().is_multiple_of(RESPONSE_BLOCK) || out.len() == MAX));
    let digest = |octets: &[u8]| ReplyDigest::of(&read_reply(octets).expect("a reply")).map(ReplyDigest::number);
    assert_eq!(digest(&out), digest(octets));
    // Names that lead into a TTL are others, or none, when it changes.
    if !reply.is_signed() && octets.windows(2).any(|pair| pair[0] >= 0xC0) {
        return;
    }
    out.clear();
    out.extend_from_slice(octets);
    subtract_age(&mut out, u32::MAX);
    let is_over = least_ttl(&out).is_none_or(|ttl| ttl == 0);
    assert!(if reply.is_signed() { out == octets } else { is_over && out.len() == octets.len() });
}

/// The cookies of both hops: a backend gets back its own, a client the one for its query.
pub(super) fn of_cookie(option: CookieOption<'_>, given: &Cookie) {
    let pair = CookiePair::given(option);
    assert_eq!(pair.is_some(), !option.server.is_empty());
    let pair = pair.unwrap_or_else(|| CookiePair::new(option.client));
    assert_eq!(pair.client(), option.client);
    let mut query = Vec::new();
    write_plain_query(7, &Name::root(), RecordType::NS, &mut query);
    let opt_at = query.len();
    add_cookie(&mut query, opt_at, &pair, UDP_SIZE);
    let read = read_query(&query).expect("a query");
    assert_eq!(read.edns.map(|edns| edns.cookie()), Some(Ok(Some(option))));
    let form = ClientForm::of(&read).with_cookie(Some(*given));
    assert_eq!(form.plain().cookie, Some(given.state));
    let expected = Some(CookieOption { client: given.client, server: &given.server });
    let mut out = Vec::new();
    write_synthesized(read.question.as_wire(), &form, Rcode::SERVFAIL, None, true, UDP_SIZE, &mut out);
    assert_eq!(read_reply(&out).expect("a reply").cookie(), expected);
    write_error(&query, Rcode::BADCOOKIE, Some(given), UDP_SIZE, &mut out);
    let reply = read_reply(&out).expect("a reply");
    assert_eq!((reply.cookie(), reply.rcode()), (expected, Rcode::BADCOOKIE));
    of_full_reply(read.question.as_wire(), usize::from(given.server[15]) % 64, *given);

    let opt = OptRecord::new(UDP_SIZE, true).with_cookie(Some(given));
    let name: Name = "www.example.".parse().expect("a name");
    write_recursive_query(7, &name, RecordType::A, Some(&opt), &mut out);
    let read = read_query(&out).expect("a query");
    assert!(read.dnssec_ok() && read.header.recursion_desired() && read.question.qname() == name.as_wire());
    assert_eq!(read.edns.map(|edns| edns.cookie()), Some(Ok(expected)));
    let len = out.len();
    write_recursive_query(7, &name, RecordType::A, None, &mut out);
    assert!(read_query(&out).is_ok_and(|query| query.edns.is_none()) && out.len() == len - opt.wire_len());
}

/// Any octets: what can be read as a query or a reply is a message, and is its own reply only if it is one.
pub(super) fn of_message(octets: &[u8]) {
    let (query, reply) = (read_query(octets), read_reply(octets));
    let Ok(message) = Message::read(octets) else { return assert!(query.is_err() && reply.is_err()) };
    // Data that do not fit their type can be relayed.
    let is_whole = message.records().lenient().all(|record| record.is_ok());
    assert!(is_whole || query.is_err() && reply.is_err());
    let has_failed = !matches!(message.header.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN);
    let is_own = message.header.is_response() && (message.question.is_some() || has_failed);
    assert_eq!(is_reply_to(octets, octets), is_own);
    let mut out = Vec::new();
    write_error(octets, Rcode::FORMERR, None, UDP_SIZE, &mut out);
    assert_eq!(out.is_empty(), message.header.is_response());
}

/// The hasher of a process that takes over.
static CARRIED: LazyLock<QuestionHasher> = LazyLock::new(|| SEED.in_force().carried_hasher());

const SEED: HashSeed = HashSeed([7, 11]);

/// A name: the hashes of it by this process and by one that takes over are the same.
pub(super) fn of_name(name: &Name) {
    let wire = name.as_wire();
    assert_eq!(CARRIED.hash_one(wire), SEED.question_hasher().hash_one(wire));
    assert_eq!(SEED.name_hasher().hash_one(name), SEED.name_hasher().hash_one(wire));
    assert_eq!(name.is_root(), name.parent().is_none());
    assert_eq!(format!("{name:?}"), format!("Name({name})"));
    assert!(eq_ignore_case(name.folded().as_wire(), wire));
}

/// The data of two records of a type: equal however the case of its names is, and no more than that.
pub(super) fn of_rdata(rtype: RecordType, rdata: &[u8]) {
    let (lower, upper) = (rdata.to_ascii_lowercase(), rdata.to_ascii_uppercase());
    assert_eq!(same_rdata(rtype, &lower, &upper), same_rdata(rtype, &upper, &lower), "{rtype} {rdata:?}");
    assert!(same_rdata(rtype, rdata, rdata) && !same_rdata(rtype, rdata, &[rdata, &[0]].concat()));
}
