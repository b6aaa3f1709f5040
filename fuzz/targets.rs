//! What is fuzzed: each function takes any octets, gives them to one part of the library, and checks what
//! must hold of whatever that makes of them. `fuzz_targets/` hands them to libFuzzer, and `tests/it/fuzz.rs`
//! to `cargo test` with what is kept in `corpus/`. hickory-proto is the oracle for messages.

mod address;
pub mod clients;
mod edits;
pub mod ethernet;
mod messages;
pub mod zones;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use config::{Accept, CacheRules, Config, PoolRules, Rank};
use dns::address::HttpPath;
use dns::{
    ClientForm, ClientSubnet, CookieOption, CookieState, ExtendedError, FRAME_PREFIX, Freshness, HEADER_LEN, Header,
    Ipv6Answer, Name, QueryRejection, QuestionKey, Rcode, RecordType, Reply, Transport, TtlBounds, add_client_subnet,
    append_frame, clamp_ttls, first_message, read_query, read_reply, without_private, write_cacheable, write_cached,
    write_dns64, write_error, write_plain_query, write_query, write_response, write_synthesized, write_without_mapped,
};
use engine::cache::{Cache, PoolId};
use engine::sim::{ScriptEvent, lead};
use hedge::budget::Budget;
use hedge::latency::Latency;
use hedge::race::{AttemptId, BackendIndex, Candidates, MAX_ATTEMPTS, Race, RaceContext, RaceStep};
use hedge::{AttemptTimeout, Dispatch, Grace, Hedge, RaceRules};
use hickory_proto::op::Message;
use hickory_proto::rr::Name as HickoryName;
use hickory_proto::serialize::binary::BinDecodable;
use limit::{CookieSecret, CookieSecrets};
use net::from_clients::http::request::{RequestContent, check_message, read_head};
use net::from_clients::http::response::{head_of_answer, head_of_refusal};
use net::from_clients::quic::{QueryStream, whole_query};
use net::from_clients::tcp::Cacheability;
use net::proxy_protocol::{ClientHeader, NamedClient, read_header, receive_header};
use rules::{LineProblems, MAX_SHOWN, NamePattern, NameSet};
use zone::master::{self, ZoneFileContext, ZoneFileSource};
use zone::transfer::tsig::{Algorithm, TsigKey, TsigKeys, verify_query};
use zone::transfer::{is_notify_response, read_notify, read_soa_reply, read_transfer_query};
use zone::{Miss, ZoneBuilder, ZoneDb, rdata_to_text, respond};

/// A target: its name, and what it does with octets.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("query", query),
    ("reply", reply),
    ("authority", authority),
    ("transfer", transfer),
    ("config", config),
    ("table", zones::table),
    ("names_file", names_file),
    ("master", zones::master_file),
    ("rdata", rdata),
    ("name", name),
    ("image", image),
    ("cookie", cookie),
    ("frames", frames),
    ("frame", ethernet::frame),
    ("quic_stream", quic_stream),
    ("clients", clients::clients),
    ("http", http_request),
    ("proxy", proxy_header),
    ("race", race),
    ("engine", engine),
];

/// Our own UDP size.
const UDP_SIZE: u16 = 1232;

/// A message from a client: read, asked on, answered with an error and with a response of our own.
pub fn query(octets: &[u8]) {
    messages::of_message(octets);
    let mut out = Vec::new();
    let query = match read_query(octets) {
        Ok(query) => query,
        Err(QueryRejection::Answer(rcode)) => {
            write_error(octets, rcode, None, UDP_SIZE, &mut out);
            assert!(out.len() <= octets.len().max(HEADER_LEN) + OPT_LEN);
            return assert_read_by_hickory(&out);
        }
        Err(QueryRejection::Short | QueryRejection::NotAQuery) => return,
    };
    let key = QuestionKey::of(&query);
    assert_eq!(key.as_octets().len(), query.question.as_wire().len() + 1);
    let opt_at = write_query(&query, UDP_SIZE, &mut out);
    assert!(opt_at <= out.len());
    assert_read_by_hickory(&out);
    let again = read_query(&out).expect("what is asked on is a query");
    assert_eq!(QuestionKey::of(&again).as_octets(), key.as_octets());
    if let Ok(Some(subnet)) = query.edns.map_or(Ok(None), |edns| ClientSubnet::of_query(&edns)) {
        add_client_subnet(&mut out, opt_at, &subnet.cut(24), UDP_SIZE);
        let again = read_query(&out).expect("what is asked on is a query");
        let sent = again.edns.map(|edns| ClientSubnet::of_query(&edns));
        assert_eq!(sent, Some(Ok(Some(subnet.cut(24)))));
        assert!(out.len() <= usize::from(UDP_SIZE));
    }
    let form = ClientForm::of(&query);
    assert!((512..=usize::from(u16::MAX)).contains(&form.limit(Transport::Udp, UDP_SIZE)));
    let question = query.question.as_wire();
    for error in [None, Some((ExtendedError::SYNTHESIZED, "some text"))] {
        write_synthesized(question, &form, Rcode::NXDOMAIN, error, true, UDP_SIZE, &mut out);
        assert_read_by_hickory(&out);
        let reply = read_reply(&out).expect("what is made up is a reply");
        assert!(reply.answers_question(question) && reply.rcode() == Rcode::NXDOMAIN);
        assert_eq!(reply.edns().is_some(), query.edns.is_some());
    }
    write_error(octets, Rcode::REFUSED, None, UDP_SIZE, &mut out);
    assert_read_by_hickory(&out);
    edits::of_query(octets, &query);
    messages::of_query(octets, &query);
}

/// A message from a backend: relayed whole and cut, kept, and given out from there as it ages.
pub fn reply(octets: &[u8]) {
    messages::of_message(octets);
    let Ok(reply) = read_reply(octets) else { return };
    let Some(question) = reply.question() else {
        return assert!(reply.is_bare_failure());
    };
    let mut asked = Vec::new();
    let plain = [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], question.as_wire()].concat();
    // The same with an OPT record of 1,232 octets and DO.
    let mut with_opt = [&plain[..], &[0, 0, 41, 4, 208, 0, 0, 128, 0, 0, 0]].concat();
    with_opt[11] = 1;
    let (mut out, mut kept, mut aged) = (Vec::new(), Vec::new(), Vec::new());
    made_of_reply(&reply, &mut out);
    edits::of_reply(octets, &reply, question.as_wire());
    messages::of_reply(octets, &reply);
    for query in [&plain, &with_opt] {
        let Ok(query) = read_query(query) else { return };
        let form = ClientForm::of(&query);
        write_query(&query, UDP_SIZE, &mut asked);
        for limit in [512, usize::from(UDP_SIZE), usize::from(u16::MAX)] {
            write_response(&reply, &form, UDP_SIZE, limit, &mut out);
            assert!(out.len() <= limit, "{} octets of {limit}", out.len());
            let response = read_reply(&out).expect("what is relayed is a reply");
            assert!(response.answers_question(question.as_wire()));
            assert_eq!((response.header().id(), response.edns().is_some()), (7, query.edns.is_some()));
        }
        write_cacheable(&reply, &mut kept);
        let bounds = TtlBounds { min: 5, max: 86_400, max_negative: Some(300) };
        let lifetime = clamp_ttls(&mut kept, bounds);
        let Ok(remembered) = read_reply(&kept) else {
            assert!(kept.is_empty() || lifetime.is_none(), "what is kept is a reply");
            continue;
        };
        let error = ExtendedError::SYNTHESIZED;
        let [same, failed] = [Freshness::Fresh { age: 0 }, Freshness::Failure { error }];
        for how in [
            same,
            failed,
            Freshness::Fresh { age: 1 },
            Freshness::Fresh { age: u32::MAX },
            Freshness::Stale { ttl: 30, error },
        ] {
            write_cached(&remembered, how, &form, UDP_SIZE, usize::from(UDP_SIZE), &mut aged);
            assert!(aged.len() <= usize::from(UDP_SIZE));
            match read_reply(&aged) {
                Ok(aged) => assert!(aged.answers_question(question.as_wire())),
                // A name that leads into a time to live is another one when that has run down.
                Err(_) => assert!(how != same && how != failed, "nothing else breaks what is kept"),
            }
        }
    }
}

/// The messages that are made of a reply: without private addresses, and with addresses of NAT64.
fn made_of_reply(reply: &Reply<'_>, out: &mut Vec<u8>) {
    if let Some(public) = without_private(reply, out) {
        assert!(without_private(&public, &mut Vec::new()).is_none(), "no private address is left");
        assert!(!public.is_authentic());
    }
    let Some(question) = reply.question() else { return };
    // Names that lead into the header are other names, or none, when its counts have changed.
    if reply.as_wire().windows(2).any(|pair| pair[0] == 0xC0 && usize::from(pair[1]) < HEADER_LEN) {
        return;
    }
    let prefix = "64:ff9b::/96".parse().expect("a prefix");
    write_dns64(question.as_wire(), reply, &prefix, 60, out);
    let made = read_reply(out).expect("what is made of a reply is a reply");
    assert!(made.answers_question(question.as_wire()) && made.rcode() == reply.rcode());
    write_without_mapped(reply, out);
    assert!(read_reply(out).is_ok_and(|reply| Ipv6Answer::of(&reply) != Ipv6Answer::Mixed));
}

/// A message to an authority, by UDP and by TCP.
pub fn authority(octets: &[u8]) {
    let mut out = Vec::new();
    for (transport, limit) in [(Transport::Udp, usize::from(UDP_SIZE)), (Transport::Tcp, usize::from(u16::MAX))] {
        out.clear();
        respond(&CATALOG, octets, transport, UDP_SIZE, &mut out);
        if out.is_empty() {
            continue;
        }
        assert!(out.len() <= limit);
        let (asked, said) = (Header::read(octets).expect("who is answered has a header"), Header::read(&out));
        let said = said.expect("a response has a header");
        assert!(said.is_response() && said.id() == asked.id());
        assert_read_by_hickory(&out);
    }
}

/// A message between servers: NOTIFY, transfers, TSIG.
pub fn transfer(octets: &[u8]) {
    let _ = (read_notify(octets), read_transfer_query(octets), is_notify_response(octets, 7, &Name::root()));
    let zone = Name::root();
    let _ = read_soa_reply(octets, 7, &zone);
    if octets.len() < HEADER_LEN {
        return;
    }
    if let Err(refusal) = verify_query(&KEYS, octets, 1_700_000_000) {
        let mut out = Vec::new();
        refusal.write(octets, 1_700_000_000, &mut out);
        assert!(Header::read(&out).is_some_and(Header::is_response));
    }
}

/// A config file.
pub fn config(octets: &[u8]) {
    let Ok(text) = str::from_utf8(octets) else { return };
    if let Err(problems) = Config::parse(text, "config.toml", Path::new("/")) {
        let reported = problems.to_string();
        assert!(reported.starts_with("config.toml"), "a problem has a place: {reported}");
    }
}

/// A names file: a line that is a pattern by itself is in the set.
pub fn names_file(octets: &[u8]) {
    let mut problems = LineProblems::default();
    let names = NameSet::parse(octets, &mut problems);
    assert!(problems.more == 0 || problems.shown.len() == MAX_SHOWN);
    let text = str::from_utf8(octets).unwrap_or_default();
    // A byte order mark belongs to no line: behind one, "192.0.2.1" is an address, with it a pattern.
    for line in text.strip_prefix('\u{feff}').unwrap_or(text).split('\n') {
        let line = line.trim_matches(|c: char| c.is_ascii_whitespace());
        // Blanks separate names, even behind a backslash.
        let Ok(pattern) = line.parse::<NamePattern>() else { continue };
        if line.contains(|c: char| c.is_ascii_whitespace()) {
            continue;
        }
        assert_eq!(pattern.to_string().parse(), Ok(pattern.clone()), "{line:?}");
        if let (NamePattern::AtAndBelow(name) | NamePattern::Exactly(name), Err(_)) = (pattern, line.parse::<IpAddr>())
        {
            assert!(names.contains(name.folded().as_wire()), "{line:?}");
        }
    }
}

/// RDATA of a type, which the first two octets say: from wire to text and back, and from text to wire and
/// back.
pub fn rdata(octets: &[u8]) {
    let Some((&rtype, content)) = octets.split_first_chunk() else { return };
    let rtype = RecordType(u16::from_be_bytes(rtype));
    messages::of_rdata(rtype, content);
    let text = rdata_to_text(rtype, content);
    // RFC 3597 section 5: what does not fit its type can be written all the same, but need not be read.
    let must_be_read = !rtype.is_meta() && !text.starts_with(r"\#");
    match rdata_of(rtype, &text) {
        Some(again) => assert_eq!(again, content, "{rtype} {text}"),
        None => assert!(!must_be_read, "{rtype} {text}"),
    }
    let Ok(text) = str::from_utf8(content) else { return };
    let Some(read) = rdata_of(rtype, text) else { return };
    let written = rdata_to_text(rtype, &read);
    assert_eq!(rdata_of(rtype, &written), Some(read), "{rtype} {text} is written as {written}");
}

/// The data of the one record of this type that a line of a master file makes of a text.
fn rdata_of(rtype: RecordType, text: &str) -> Option<Vec<u8>> {
    let source = ZoneFileSource { name: "line".to_owned(), octets: format!(". 300 {rtype} {text}\n").into_bytes() };
    let origin = Name::root();
    let mut include = |name: &str| Err(format!("there is no {name}"));
    let task = ZoneFileContext { origin: Some(&origin), default_ttl: Some(300), include: &mut include };
    let mut all = Vec::new();
    let read = master::read(&source, task, &mut |record, _| all.push((record.rtype, record.rdata.to_vec())));
    match (read, all.as_slice()) {
        (Ok(_), [(found, rdata)]) if *found == rtype => Some(rdata.clone()),
        _ => None,
    }
}

/// A name, as text and as wire; or an address of a config.
pub fn name(octets: &[u8]) {
    let read = [Name::from_wire(octets).ok(), str::from_utf8(octets).ok().and_then(|text| text.parse().ok())];
    for name in read.iter().flatten() {
        let wire = name.as_wire();
        assert!(wire.len() <= 255 && name.labels().all(|label| (1..=63).contains(&label.len())), "{name}");
        let text = name.to_string();
        let again: Name = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(again.as_wire(), wire, "{text}");
        let oracle = HickoryName::from_bytes(wire).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(oracle.iter().eq(name.labels()), "{text}");
        assert_eq!(name.folded().folded().as_wire(), name.folded().as_wire());
        assert!(name.folded().is_at_or_below(name) && name.is_at_or_below(&Name::root()), "{text}");
        let above =
            std::iter::successors(name.parent(), Name::parent).inspect(|above| assert!(name.is_at_or_below(above)));
        assert_eq!(above.count(), name.labels().count(), "{text}");
        edits::of_reverse_name(name);
        messages::of_name(name);
    }
    if let Ok(text) = str::from_utf8(octets) {
        address::of_text(text);
    }
}

/// A saved cache.
pub fn image(octets: &[u8]) {
    let now = Instant::now();
    let cache = Cache::new(Cache::MIN_SIZE, now);
    let hash = |question: &[u8]| question.iter().fold(7, |hash: u64, octet| hash.wrapping_mul(31) ^ u64::from(*octet));
    let (rules, wall, pool) = (CacheRules::default(), Duration::from_secs(1_700_000_000), PoolId::of("pool"));
    // With the magic number and the sum right, more than the first checks are met.
    let loaded = cache.load(&rules, now, wall, &[pool], hash, &mut &octets[..]);
    if loaded.is_ok() {
        let mut saved = Vec::new();
        cache.save(&rules, now, wall, &mut saved).expect("a vector takes everything");
        assert!(cache.load(&rules, now, wall, &[pool], hash, &mut &saved[..]).is_ok());
    }
}

/// A COOKIE option, and a file of secrets.
pub fn cookie(octets: &[u8]) {
    if let Ok(text) = str::from_utf8(octets)
        && let Err(unfit) = CookieSecrets::parse(text)
    {
        assert!(!unfit.to_string().is_empty());
    }
    let Some((&when, data)) = octets.split_first_chunk::<4>() else { return };
    let (now, address) = (u32::from_be_bytes(when), IpAddr::from(Ipv4Addr::LOCALHOST));
    let secrets = CookieSecrets::new(CookieSecret::new([7; 16]), None);
    let Ok(option) = CookieOption::read(data) else {
        return assert!(!matches!(data.len(), 8 | 16..=40), "{} octets are no cookie", data.len());
    };
    let given = secrets.answer(option, address, now);
    assert_eq!(given.client, option.client);
    messages::of_cookie(option, &given);
    // What we give is good when it comes back, and from nowhere else.
    let again = CookieOption { client: given.client, server: &given.server };
    assert_eq!(secrets.answer(again, address, now).state, CookieState::Valid);
    let elsewhere = IpAddr::from(Ipv4Addr::new(127, 0, 0, 2));
    assert_eq!(secrets.answer(again, elsewhere, now).state, CookieState::Invalid);
}

/// The frames of a stream, as it comes in pieces: whatever they are, the messages are the same, and nothing
/// is left out.
pub fn frames(octets: &[u8]) {
    let Some((&piece, stream)) = octets.split_first() else { return };
    let (mut at_once, mut framed) = (Vec::new(), Vec::new());
    let mut rest = stream;
    while let Some((message, end)) = first_message(rest) {
        assert_eq!(message.len() + FRAME_PREFIX, end);
        at_once.push(message);
        append_frame(message, &mut framed).expect("a frame has had room for it");
        rest = &rest[end..];
    }
    let (mut input, mut in_pieces) = (Vec::new(), Vec::new());
    for piece in stream.chunks(usize::from(piece) + 1) {
        input.extend_from_slice(piece);
        while let Some((message, end)) = first_message(&input) {
            in_pieces.push(message.to_vec());
            input.drain(..end);
        }
    }
    assert_eq!(in_pieces, at_once);
    assert_eq!(input, rest);
    assert_eq!([&framed, rest].concat(), stream);
}

/// The one query of a stream of QUIC, as it comes in pieces: it is the same, or is refused for the same.
pub fn quic_stream(octets: &[u8]) {
    let Some((&piece, octets)) = octets.split_first() else { return };
    let mut stream = QueryStream::default();
    let taken = octets.chunks(usize::from(piece) + 1).try_for_each(|piece| stream.take(piece));
    assert_eq!(taken.and_then(|()| stream.end()), whole_query(octets));
}

/// The head of a request by HTTP: method, target, type of content and its length, each in a line. What it
/// asks is a message of a sound length that says the same written again, or a status.
pub fn http_request(octets: &[u8]) {
    let mut lines = octets.split(|&octet| octet == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (method, target) = (line(), line());
    let mut request = http::Request::builder().method(method).uri(target);
    for name in [http::header::CONTENT_TYPE, http::header::CONTENT_LENGTH] {
        let value = line();
        if !value.is_empty() {
            request = request.header(name, value);
        }
    }
    let Ok(request) = request.body(()) else { return };
    let (head, ()) = request.into_parts();
    match read_head(&head, &HttpPath::default()) {
        RequestContent::Message(message) => {
            assert_eq!(check_message(&message), Ok(()));
            let again = format!("/dns-query?dns={}", data_encoding::BASE64URL_NOPAD.encode(&message));
            let (head, ()) = http::Request::get(again).body(()).expect("a sound URI").into_parts();
            assert_eq!(read_head(&head, &HttpPath::default()), RequestContent::Message(message.clone()));
            let answer = head_of_answer(&message, Cacheability::Answer);
            assert_eq!(answer.status(), 200);
            assert!(answer.headers()["cache-control"].to_str().is_ok_and(|age| age.starts_with("max-age=")));
        }
        RequestContent::Body => assert_eq!(head.method, http::Method::POST),
        RequestContent::Refused(status) => assert_eq!(head_of_refusal(status).status(), status.code()),
    }
}

/// A race among some backends: each octet is an input, or time that passes.
pub fn race(octets: &[u8]) {
    let Some((&shape, events)) = octets.split_first_chunk::<3>() else { return };
    let (backends, is_down) = (u16::from(shape[0] & 7) + 1, shape[0] >> 7 == 1);
    let rules = rules([shape[0] >> 3, shape[1], shape[2]]);
    let start = Instant::now();
    let latency = vec![Latency::new(start); usize::from(backends)];
    let budget = Budget::new(rules.race.hedge.budget);
    let by_stream: Vec<_> = (0..backends).map(|backend| shape[1] >> backend & 1 == 1).collect();
    let context =
        RaceContext { rules: &rules.race, latency: &latency, loads: &[], by_stream: &by_stream, budget: &budget };
    let candidates = Candidates::of((0..backends).map(BackendIndex), is_down);
    let mut race = Race::start(&context, &candidates, rules.accept.lowest(), start);
    let (mut now, mut made) = (start, 0_u8);
    for event in events.iter().map(Some).chain([None]) {
        let attempt = AttemptId(event.map_or(0, |event| event & 7));
        let is_made = attempt.0 < made;
        match event.map(|event| event >> 3) {
            Some(0) if is_made => race.on_failure(attempt),
            Some(1) if is_made => race.on_bare_failure(attempt),
            Some(2) if is_made => _ = race.on_extension_refused(attempt),
            Some(3) if is_made => race.on_bare_extension_refused(attempt),
            Some(4) => race.on_retransmission(),
            Some(kind @ 5..=9) if is_made => {
                let rank = [Rank::Failure, Rank::Nodata, Rank::Nxdomain, Rank::NodataAuthoritative, Rank::Positive];
                race.on_reply(attempt, rank[usize::from(kind) - 5], now);
            }
            Some(10) if is_made => race.on_lost(attempt),
            Some(kind) => now += Duration::from_millis(u64::from(kind)),
            // At last nothing more comes.
            None => now = race.deadline() + Duration::from_millis(1),
        }
        loop {
            match race.poll(&context, now) {
                RaceStep::Ask { attempt, backend, .. } => {
                    assert!(attempt.0 == made && backend.0 < backends, "attempt {attempt:?} of {made} at {backend:?}");
                    made += 1;
                    assert!(usize::from(made) <= MAX_ATTEMPTS);
                }
                RaceStep::WaitUntil(at) => {
                    assert!(at > now && at <= race.deadline());
                    break;
                }
                RaceStep::Finished(outcome) => {
                    assert_eq!(race.poll(&context, now), RaceStep::Finished(outcome), "it says the same again");
                    break;
                }
            }
        }
    }
    assert!(race.is_finished(), "no race outlives its deadline");
}

/// The engine of a worker with two pools: after the rules that it has, in turn, each two octets are an event,
/// or time that passes. Its invariants are checked after each.
pub fn engine(octets: &[u8]) {
    let Some((&[shape, a, b, c, d, e], events)) = octets.split_first_chunk() else { return };
    let rules = [rules([shape, a, b]), rules([c, d, e])];
    let ttl = (shape >> 7 == 1).then_some(Duration::from_secs(1));
    let backends = usize::from(shape >> 4 & 3) + 1;
    let moves = events.chunks_exact(2).map(|pair| {
        let slot = pair[1];
        match pair[0] % 16 {
            0..=3 => ScriptEvent::Query { name: slot },
            4 => ScriptEvent::Retransmission { client: slot },
            5 => ScriptEvent::Reply { slot, rank: Rank::Failure },
            6 => ScriptEvent::Reply { slot, rank: [Rank::Nodata, Rank::Nxdomain][usize::from(pair[0] >> 7)] },
            7 => ScriptEvent::Reply {
                slot,
                rank: [Rank::NodataAuthoritative, Rank::Positive][usize::from(pair[0] >> 7)],
            },
            8 => ScriptEvent::OptRefused { slot },
            9 => ScriptEvent::Bare { slot },
            10 => ScriptEvent::Forged { slot },
            11 => ScriptEvent::Unreachable { slot },
            12 if pair[0] >> 7 == 1 => ScriptEvent::Lost { slot, is_refused: pair[0] >> 6 & 1 == 1 },
            12 => ScriptEvent::Unsent { slot, is_unreachable: pair[0] >> 6 & 1 == 1 },
            13 => ScriptEvent::Health { backend: slot, is_up: pair[0] >> 7 == 1 },
            14 => ScriptEvent::Reload { rules: slot },
            _ => ScriptEvent::Wait { millis: u16::from(slot) * u16::from(pair[0] >> 4) },
        }
    });
    let led = lead(&rules, backends, ttl, Instant::now(), moves.take(MAX_MOVES));
    assert_eq!(led.queries, led.responses, "each query has one response");
}

/// Events of one engine, so that a run is short.
const MAX_MOVES: usize = 200;

/// Rules of a pool, made of three octets.
fn rules([shape, accept, timing]: [u8; 3]) -> PoolRules {
    PoolRules {
        race: RaceRules {
            dispatch: [Dispatch::Race, Dispatch::Hedge, Dispatch::Sequential, Dispatch::Auto][usize::from(shape) % 4],
            fanout: u16::from(timing & 3),
            grace: [Grace::Off, Grace::Auto, Grace::After(Duration::from_millis(7))][usize::from(accept >> 2) % 3],
            timeout: Duration::from_millis(300),
            attempt_timeout: match timing {
                0 => AttemptTimeout::AUTO,
                _ => AttemptTimeout::after(Duration::from_millis(u64::from(timing) + 1)),
            },
            tries: (accept >> 5) + 1,
            hedge: Hedge { max: timing >> 4, ..Hedge::default() },
            ..RaceRules::default()
        },
        accept: [Accept::Any, Accept::Conclusive, Accept::Positive][usize::from(accept) % 3],
        ..PoolRules::default()
    }
}

/// What we write, others can read.
fn assert_read_by_hickory(message: &[u8]) {
    if let Err(error) = Message::from_vec(message) {
        panic!("hickory cannot read {message:02x?}: {error}");
    }
}

/// Octets of an OPT record without options.
const OPT_LEN: usize = 11;

/// The header of a proxy: ahead of a datagram and ahead of a connection, it must have the same meaning.
pub fn proxy_header(octets: &[u8]) {
    let mut rest = octets;
    let received = match pin!(receive_header(&mut rest)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(received) => received.ok(),
        Poll::Pending => panic!("all that comes is there"),
    };
    let Some((named, message)) = read_header(octets) else { return assert_eq!(received, None) };
    assert!(octets.ends_with(message));
    // A connection has no room for a longer one, a datagram has it anyway.
    let is_short = octets.len() - message.len() <= 16 + 4096;
    assert_eq!(received, is_short.then_some(named));
    assert!(!is_short || rest == message, "the header is taken, and nothing of what follows");
    let NamedClient::Client(client) = named else { return };
    for is_stream in [false, true] {
        let again = ClientHeader::new(Some((client, client)), is_stream).octets;
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        assert_eq!(read_header(&again), Some((NamedClient::Client(client), &[][..])));
    }
}

/// A zone of many types, and a table.
static CATALOG: LazyLock<ZoneDb> = LazyLock::new(|| {
    let apex: Name = "example.org".parse().expect("a name");
    let source = ZoneFileSource { name: "zone".to_owned(), octets: ZONE.as_bytes().to_vec() };
    let mut include = |name: &str| Err(format!("there is no {name}"));
    let task = ZoneFileContext { origin: Some(&apex), default_ttl: Some(300), include: &mut include };
    let mut builder = ZoneBuilder::new(&apex);
    master::read(&source, task, &mut |record, place| builder.add(&record, place)).expect("a sound zone");
    let (zone, _) = builder.finish().expect("a sound zone");
    let tables = [("hosts.txt".to_owned(), b"www.example.net 192.0.2.1 A\nexample.com - NS\n".to_vec())];
    let zone_db = ZoneDb::build(&tables, 300, Miss::Nxdomain).expect("a sound table");
    zone_db.with_zone(Arc::new(zone))
});

/// The zone.
const ZONE: &str = "@ SOA ns h 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.1\nwww A 192.0.2.2\nwww AAAA 2001:db8::1\n\
                    *.wild TXT \"any\"\nalias CNAME www\nloop CNAME loop\nd DNAME www\nsub NS ns.sub\nns.sub A 192.0.2.3\n\
                    big TXT ( aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b c d e f )\n\
                    svc SVCB 1 www alpn=h2\nmx MX 10 www\n";

/// A key that clients may claim to have.
static KEYS: LazyLock<TsigKeys> = LazyLock::new(|| {
    let name: Name = "k".parse().expect("a name");
    TsigKeys::new(vec![TsigKey::new(&name, Algorithm::HmacSha256, b"the secret of all the tests")])
});

/// A first corpus: what a target is given before anything was found.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let plain = |name: &str, rtype: u16| {
        let mut octets = Vec::new();
        let name: Name = name.parse().expect("a name");
        write_plain_query(7, &name, RecordType(rtype), &mut octets);
        octets
    };
    let with_opt = |mut octets: Vec<u8>, options: &[u8]| {
        octets[11] += 1;
        octets.extend([0, 0, 41, 4, 208, 0, 0, 128, 0]);
        octets.extend((options.len() as u16).to_be_bytes());
        octets.extend(options);
        octets
    };
    let cookie = [&[0, 10, 0, 8][..], b"01234567"].concat();
    let names =
        ["www.example.org", "a.wild.example.org", "loop.example.org", "x.d.example.org", "a.sub.example.org", "."];
    let queries = names.iter().flat_map(|name| [1, 28, 6, 255, 64].map(|rtype| plain(name, rtype)));
    let queries = queries.flat_map(|query| [with_opt(query.clone(), &[]), with_opt(query.clone(), &cookie), query]);
    let answered = |query: &Vec<u8>| {
        let mut out = Vec::new();
        respond(&CATALOG, query, Transport::Udp, UDP_SIZE, &mut out);
        out
    };
    match target {
        "query" | "authority" => queries.collect(),
        "reply" => queries.map(|query| answered(&query)).filter(|reply| !reply.is_empty()).collect(),
        "transfer" => {
            let mut notify = plain("example.org", 6);
            notify[2] = 0x24;
            vec![notify, plain("example.org", 252), answered(&plain("example.org", 6))]
        }
        "config" => vec![include_bytes!("../config.toml").to_vec()],
        "table" => vec![b"a.b 192.0.2.1 A\n# c\nd - NS\nd ::1 AAAA\n".to_vec()],
        "names_file" => vec![
            b"\xEF\xBB\xBF# a\r\nads.example # b\n*.b.example\n=c.example\n".to_vec(),
            "0.0.0.0 ads.example b\n::1 localhost\nfe80::1%lo0 c\nb\u{fc}cher.example\na\\#b.\n.\n*.\n||d^\n1.2.3.4\n".into(),
            "\u{feff}192.0.2.1\n".into(),
        ],
        "master" => vec![ZONE.as_bytes().to_vec(), b"$ORIGIN a.\n$TTL 1h\n$GENERATE 1-3 h$ A 192.0.2.$\n".to_vec()],
        "rdata" => {
            let of = |rtype: u16, rdata: &[u8]| [&rtype.to_be_bytes(), rdata].concat();
            let texts = [
                (1, "192.0.2.1"),
                (6, "ns mail 1 2h 3 4 5"),
                (16, r#""a b" c\;d "\"\255""#),
                (29, "52 22 23.0 N 4 53 32.0 E -2.0m 0.0m 10000m 10m"),
                (35, r#"100 50 "s" "http" "" _http._tcp"#),
                (42, "1:192.168.38.0/28 !2:2001:db8::/32"),
                (43, "1 8 2 0123456789abcdef"),
                (45, "10 1 2 192.0.2.38 AQNR"),
                (46, "A 8 3 300 20260101000000 20251201000000 7 example AQNR"),
                (47, "host.example. A MX RRSIG NSEC TYPE1234"),
                (50, "1 1 12 aabbccdd 2t7b4g4vsa5smi47k61mv5bv1a22bojr MX DNSKEY"),
                (64, "1 . alpn=h2,h3 port=53 ipv4hint=192.0.2.1 key667=x"),
                (257, r#"0 issue "ca.example; a=b""#),
                (65280, r"\# 3 010203"),
            ];
            let texts = texts.map(|(rtype, text)| (rtype, text.as_bytes().to_vec()));
            let read = texts
                .iter()
                .filter_map(|(rtype, text)| Some((*rtype, rdata_of(RecordType(*rtype), str::from_utf8(text).ok()?)?)));
            let read: Vec<_> = read.collect();
            assert_eq!(read.len(), texts.len(), "each of these texts is right");
            texts.iter().chain(&read).map(|(rtype, content)| of(*rtype, content)).collect()
        }
        "name" => [
            r".",
            r"www.example.org.",
            r"a\.b\\c.\000\255.x",
            "\x03www\x07Example\0",
            "xn--bcher-kva.example",
            "tls://[2001:db8::1]:8853#DNS.Example.",
            "https://192.0.2.1/dns-query#dns.example",
            "quic://192.0.2.1#sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "tcp://127.0.0.1:5300",
            "dot://192.0.2.1",
            "1.2.0.0.0.0.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.b.9.f.f.4.6.0.0.ip6.arpa",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec(),
        "image" => {
            let (now, rules) = (Instant::now(), CacheRules::default());
            let mut saved = Vec::new();
            let cache = Cache::new(Cache::MIN_SIZE, now);
            cache.save(&rules, now, Duration::from_secs(1_600_000_000), &mut saved).expect("a vector takes everything");
            vec![saved]
        }
        "cookie" => {
            let secrets = CookieSecrets::new(CookieSecret::new([7; 16]), None);
            let option = CookieOption { client: *b"01234567", server: &[] };
            let given = secrets.answer(option, Ipv4Addr::LOCALHOST.into(), 1_700_000_000);
            let whole = [&1_700_000_100_u32.to_be_bytes()[..], &given.client, &given.server].concat();
            vec![whole, b"0123abcdefgh".to_vec(), b"000102030405060708090a0b0c0d0e0f\n".to_vec()]
        }
        "quic_stream" => vec![
            b"\x05\x00\x1e\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x01x\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00".to_vec(),
            b"\x00\x00\x01\x00\x00".to_vec(),
        ],
        "http" => [
            "GET\n/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB",
            "GET\nhttps://dns.example/dns-query?a=b&dns=q80BAAABAAAAAAAAAAABAAE",
            "POST\n/dns-query\napplication/dns-message\n33",
            "POST\n/dns-query\napplication/dns-message; a=b\n65536",
            "HEAD\n/other?dns=\ntext/plain",
        ]
        .map(|head| head.as_bytes().to_vec())
        .to_vec(),
        "proxy" => {
            let with = |client: Option<(&str, &str)>, is_stream: bool| {
                let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
                let client = client.map(|(client, asked)| (address(client), address(asked)));
                let mut octets = ClientHeader::new(client, is_stream).octets;
                octets.extend(plain("www.example.org", 1));
                octets
            };
            let mut with_more = with(Some(("198.51.100.7:4000", "192.0.2.1:53")), true);
            // What proxies say besides (PP2_TYPE_NOOP), as a part of the header.
            with_more.splice(28..28, [4, 0, 2, 0, 0]);
            with_more[15] += 5;
            vec![
                with(Some(("198.51.100.7:4000", "192.0.2.1:53")), false),
                with(Some(("[2001:db8::7]:4000", "[2001:db8::1]:53")), true),
                with(None, false),
                with_more,
            ]
        }
        "clients" => clients::seeds::seeds(),
        "frame" => ethernet::seeds(&plain("www.example.org", 1)),
        "frames" => vec![b"\x03\x00\x04abcd\x00\x00\x00\x01x\x00\x09abc".to_vec()],
        "race" => vec![vec![0, 0, 0], (0..=255).collect(), vec![0x4a, 0x25, 0x33, 0x28, 0x50, 0x08, 0xff, 0x20, 0x11]],
        "engine" => vec![
            vec![0, 0, 40, 1, 0, 40, 0, 0, 0, 0, 0x87, 0, 4, 0],
            vec![
                0x91, 8, 20, 2, 9, 90, 0, 1, 1, 3, 0x1F, 90, 14, 1, 0, 1, 11, 0, 0x8C, 1, 6, 0, 0x2F, 250, 13, 0, 0, 5,
                0x8D, 0,
            ],
            (0..=255).collect(),
        ],
        _ => Vec::new(),
    }
}
