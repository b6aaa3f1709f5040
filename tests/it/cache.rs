//! The cache through its public face: forms of clients, refreshes, flushing, showing, saving, and what a
//! flood does to it.

use std::io::Cursor;
use std::time::{Duration, Instant};

use config::CacheRules;
use dns::{Name, RecordType as WireType};
use engine::cache::{Cache, CacheLookup, DamagedSnapshot, Flush, PoolId, SnapshotLoadError, State};

use crate::support::cache::*;
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::EdnsOption;
use proptest::prelude::*;

/// A fresh answer that needs no refresh.
const FRESH: CacheLookup = CacheLookup::Fresh { is_refresh_due: false };

#[test]
fn each_client_gets_its_own_form() {
    let subject = Subject::new();
    assert!(subject.keep(&answer(&[300])));
    let mut plain = query("wWw.eXample.org.", RecordType::A);
    plain.metadata.id = 1;
    plain.metadata.recursion_desired = false;
    let edns = edns_query("WWW.EXAMPLE.ORG.", RecordType::A);
    for query in [plain, edns] {
        let (found, response) = subject.ask(&query);
        let response = response.expect("a response");
        assert_eq!((found, response.metadata.id), (FRESH, query.metadata.id));
        assert_eq!(response.metadata.recursion_desired, query.metadata.recursion_desired);
        assert!(response.metadata.recursion_available && !response.metadata.authoritative);
        assert_eq!(response.queries[0].name().to_ascii(), query.queries[0].name().to_ascii());
        assert_eq!(response.edns.as_ref().map(Edns::max_payload), query.edns.as_ref().map(|_| UDP_SIZE));
    }
}

#[test]
fn what_does_not_fit_is_truncated_for_that_client_alone() {
    let subject = Subject::new();
    assert!(subject.keep(&answer(&[300; 60])));
    let octets = query("www.example.org.", RecordType::A).to_vec().expect("a message");
    for (limit, answers, truncated) in [(512, 0, true), (65_535, 60, false)] {
        let (found, out) = subject.ask_octets(&octets, subject.pool, limit, true);
        let response = Message::from_vec(&out).expect("a response");
        assert_eq!((found, response.answers.len(), response.metadata.truncation), (FRESH, answers, truncated));
    }
}

#[test]
fn pools_cd_and_do_have_their_own_answers() {
    let subject = Subject::new();
    let octets = answer(&[300]).to_vec().expect("a message");
    assert!(subject.keep_octets(&octets, 0b010));
    let ask = |checking_disabled: bool, dnssec_ok: bool, pool: &str| {
        let mut query = edns_query("www.example.org.", RecordType::A);
        query.metadata.checking_disabled = checking_disabled;
        query.edns.as_mut().expect("it has one").set_dnssec_ok(dnssec_ok);
        subject.ask_octets(&query.to_vec().expect("a message"), PoolId::of(pool), 512, true).0
    };
    assert_eq!(ask(true, false, "pool"), FRESH);
    for (checking_disabled, dnssec_ok, pool) in
        [(false, false, "pool"), (true, true, "pool"), (false, true, "pool"), (true, false, "other")]
    {
        assert_eq!(ask(checking_disabled, dnssec_ok, pool), CacheLookup::Nothing);
    }
}

#[test]
fn errors_of_the_answer_are_kept_and_options_of_the_hop_are_not() {
    let subject = Subject::new();
    let mut message = answer(&[300]);
    let mut edns = Edns::new();
    edns.options_mut().insert(EdnsOption::Unknown(15, vec![0, 4]));
    edns.options_mut().insert(EdnsOption::Unknown(65_001, vec![1]));
    message.set_edns(edns);
    assert!(subject.keep(&message));
    let (_, response) = subject.ask(&edns_query("www.example.org.", RecordType::A));
    let options = response.and_then(|response| response.edns).expect("OPT in, OPT out");
    let codes: Vec<u16> = options.options().as_ref().iter().map(|(code, _)| u16::from(*code)).collect();
    assert_eq!(codes, [15]);
}

#[test]
fn zone_transfers_and_other_questions_replies_are_not_kept() {
    let subject = Subject::new();
    assert!(!subject.keep(&reply("example.org.", RecordType::AXFR, ResponseCode::NoError)));
    let mut transfer = reply("example.org.", RecordType::AXFR, ResponseCode::NoError);
    transfer.add_answer(soa(300, 300));
    assert!(!subject.keep(&transfer));
}

#[test]
fn ttls_are_clamped() {
    let bounds =
        CacheRules { min_ttl: Duration::from_secs(10), max_ttl: Duration::from_secs(60), ..CacheRules::default() };
    for (ttl, expected) in [(5, Some(10)), (30, Some(30)), (300, Some(60)), (0, None)] {
        let subject = Subject::with(bounds.clone());
        assert_eq!(subject.keep(&answer(&[ttl])), expected.is_some(), "{ttl}");
        assert_eq!(subject.fresh_ttls(), expected.map(|ttl| vec![ttl]), "{ttl}");
    }
}

#[test]
fn time_asleep_counts() {
    // RFC 1035 section 3.2.1: a TTL is a time, whether the machine sleeps or not.
    let subject = Subject::new();
    assert!(subject.keep(&answer(&[300])));
    subject.cache.add_sleep(Duration::from_secs(100));
    assert_eq!(subject.fresh_ttls(), Some(vec![200]));
    subject.cache.add_sleep(Duration::from_secs(200));
    assert_eq!(subject.fresh_ttls(), None);
    // What comes afterwards is as good as ever.
    assert!(subject.keep(&answer(&[300])));
    assert_eq!(subject.fresh_ttls(), Some(vec![300]));
}

#[test]
fn a_popular_answer_is_refreshed_by_one_caller_at_a_time() {
    let mut subject = Subject::new();
    let ask = |subject: &Subject| subject.ask(&query("www.example.org.", RecordType::A)).0;
    let due = CacheLookup::Fresh { is_refresh_due: true };
    assert!(subject.keep(&answer(&[1000])));
    assert_eq!([ask(&subject), ask(&subject), ask(&subject)], [FRESH; 3]);
    subject.pass(900);
    assert_eq!(ask(&subject), FRESH, "a tenth of the time is left to the second");
    subject.pass(1);
    assert_eq!([ask(&subject), ask(&subject)], [due, FRESH]);
    // Nothing came of it.
    subject.pass(10);
    assert_eq!([ask(&subject), ask(&subject)], [due, FRESH]);
    // It failed, and is left alone for a while.
    subject.keep_silence(&query("www.example.org.", RecordType::A));
    subject.pass(29);
    assert_eq!(ask(&subject), FRESH);
    subject.pass(1);
    assert_eq!(ask(&subject), due);
    // It came, and is as unpopular as anything new.
    assert!(subject.keep(&answer(&[1000])));
    subject.pass(950);
    assert_eq!([ask(&subject), ask(&subject), ask(&subject)], [FRESH, FRESH, due]);
}

#[test]
fn prefetch_can_be_off() {
    let mut subject = Subject::with(CacheRules { prefetch: 0.0, ..CacheRules::default() });
    assert!(subject.keep(&answer(&[100])));
    for _ in 0..99 {
        subject.pass(1);
        assert!(subject.fresh_ttls().is_some());
        assert_eq!(subject.ask(&query("www.example.org.", RecordType::A)).0, FRESH);
    }
}

#[test]
fn a_second_look_is_not_counted() {
    let mut subject = Subject::new();
    assert!(subject.keep(&answer(&[60])));
    subject.pass(60);
    let octets = query("www.example.org.", RecordType::A).to_vec().expect("a message");
    let missing = query("example.org.", RecordType::A).to_vec().expect("a message");
    for is_first in [true, false] {
        let (found, _) = subject.ask_octets(&octets, subject.pool, 512, is_first);
        assert_eq!(found, CacheLookup::Stale { is_race_due: true });
        subject.ask_octets(&missing, subject.pool, 512, is_first);
    }
    let tally = subject.cache.stats();
    assert_eq!((tally.hits, tally.stale_hits, tally.misses), (0, 1, 1));
    assert_eq!((tally.entries, tally.insertions, tally.evictions), (1, 1, 0));
}

/// A cache with A and AAAA of some names, from two pools.
fn filled() -> Subject {
    let mut subject = Subject::new();
    for pool in ["a", "b"] {
        subject.pool = PoolId::of(pool);
        for qname in ["example.org.", "www.example.org.", "wwwexample.org.", "example.com."] {
            for qtype in [RecordType::A, RecordType::AAAA] {
                let mut message = reply(qname, qtype, ResponseCode::NXDomain);
                message.add_authority(soa(300, 300));
                assert!(subject.keep(&message));
            }
        }
    }
    subject
}

#[test]
fn flushing_takes_what_is_meant() {
    let name: Name = "Example.ORG".parse().expect("a name");
    let check = |what: Flush<'_>, expected: u64| {
        let subject = filled();
        assert_eq!(subject.cache.flush(what), expected, "{what:?}");
        assert_eq!(subject.cache.stats().entries, 16 - expected, "{what:?}");
    };
    check(Flush::All, 16);
    check(Flush::Name(&name), 4);
    check(Flush::Subtree(&name), 8);
    check(Flush::Subtree(&Name::root()), 16);
    check(Flush::Pool(PoolId::of("a")), 8);
    check(Flush::Pool(PoolId::of("c")), 0);
}

#[test]
fn an_operator_sees_what_is_kept_of_a_name() {
    let mut subject = filled();
    subject.pass(290);
    subject.pool = PoolId::of("c");
    subject.keep_silence(&query("example.org.", RecordType::A));
    let name = "example.org".parse().expect("a name");
    let shown = subject.cache.show(&name, &subject.rules, subject.now);
    let of = |pool: &str, qtype| {
        let found = shown.iter().find(|entry| entry.pool == PoolId::of(pool) && entry.qtype == qtype);
        found.unwrap_or_else(|| panic!("{pool} {qtype}"))
    };
    assert_eq!(shown.len(), 5);
    let answer = of("a", WireType::AAAA);
    assert_eq!((answer.state, answer.fresh_for, answer.hits), (State::Answer, Duration::from_secs(10), 0));
    assert_eq!(answer.stale_for, Duration::from_secs(86_400));
    let silence = of("c", WireType::A);
    assert_eq!((silence.state, silence.fresh_for), (State::Silence, Duration::from_secs(5)));
    assert_eq!(silence.stale_for, Duration::ZERO);
    subject.pass(20);
    let shown = subject.cache.show(&name, &subject.rules, subject.now);
    assert_eq!(shown.len(), 4, "the silence is over");
    assert_eq!((shown[0].fresh_for, shown[0].stale_for), (Duration::ZERO, Duration::from_secs(86_390)));
}

#[test]
fn one_answer_can_be_forgotten() {
    let subject = Subject::new();
    assert!(subject.keep(&answer(&[300])));
    subject.forget(&query("example.org.", RecordType::A));
    assert!(subject.fresh_ttls().is_some());
    subject.forget(&query("www.example.org.", RecordType::A));
    assert_eq!((subject.fresh_ttls(), subject.cache.stats().entries), (None, 0));
}

/// When the images of these tests are saved, by the wall clock.
const SAVED_AT: Duration = Duration::from_secs(1_800_000_000);

/// The octets of a cache.
fn image(subject: &Subject) -> Vec<u8> {
    let mut image = Vec::new();
    subject.cache.save(&subject.rules, subject.now, SAVED_AT, &mut image).expect("memory can be written");
    image
}

/// Loads an image so long after it was saved; the pools are those named.
fn load(subject: &Subject, image: &[u8], later: Duration, pools: &[PoolId]) -> Result<u64, SnapshotLoadError> {
    let wall = SAVED_AT + later;
    subject.cache.load(&subject.rules, subject.now, wall, pools, hash, &mut Cursor::new(image))
}

#[test]
fn answers_survive_a_restart_and_age_meanwhile() {
    let mut old = Subject::new();
    assert!(old.keep(&answer(&[300])));
    old.pass(100);
    old.keep_silence(&query("example.org.", RecordType::A));
    let image = image(&old);
    let pools = [old.pool];
    for (later, expected) in [(0, Some(vec![200])), (50, Some(vec![150])), (200, None)] {
        let new = Subject::new();
        assert_eq!(load(&new, &image, Duration::from_secs(later), &pools).expect("it is sound"), 1);
        assert_eq!(new.fresh_ttls(), expected, "{later}");
        assert_eq!(new.ask(&query("example.org.", RecordType::A)).0, CacheLookup::Nothing);
    }
    // Beyond the stale time, and of pools that are no more, nothing is taken.
    let new = Subject::new();
    assert_eq!(load(&new, &image, Duration::from_secs(100_000), &pools).expect("it is sound"), 0);
    assert_eq!(load(&new, &image, Duration::ZERO, &[PoolId::of("other")]).expect("it is sound"), 0);
}

#[test]
fn a_damaged_image_leaves_the_cache_empty() {
    let old = filled();
    let sound = image(&old);
    let pools = [PoolId::of("a"), PoolId::of("b")];
    let check = |image: &[u8], expected: DamagedSnapshot| {
        let new = Subject::new();
        match load(&new, image, Duration::ZERO, &pools) {
            Err(SnapshotLoadError::DamagedSnapshot(damaged)) => assert_eq!(damaged, expected),
            other => panic!("{other:?}"),
        }
        assert_eq!(new.cache.stats().entries, 0);
    };
    check(b"", DamagedSnapshot::CutShort);
    check(b"hedgeca\x02", DamagedSnapshot::Magic);
    check(&sound[..sound.len() - 1], DamagedSnapshot::CutShort);
    check(&[&sound[..], b"\0"].concat(), DamagedSnapshot::OctetsLeft);
    let mut other_sum = sound.clone();
    *other_sum.last_mut().expect("it has octets") ^= 1;
    check(&other_sum, DamagedSnapshot::Fingerprint);
    let mut no_entry = sound.clone();
    no_entry[16] = 7;
    check(&no_entry, DamagedSnapshot::Entry);
    let new = Subject::new();
    let load_at = |wall| new.cache.load(&new.rules, new.now, wall, &pools, hash, &mut Cursor::new(&sound));
    let early = load_at(SAVED_AT - Duration::from_secs(2));
    assert!(matches!(early, Err(SnapshotLoadError::DamagedSnapshot(DamagedSnapshot::FromTheFuture))), "{early:?}");
    let loaded = load_at(SAVED_AT - Duration::from_secs(1));
    assert!(loaded.is_ok(), "a clock may be set back by a moment: {loaded:?}");
}

proptest! {
    /// Whichever octet is changed: what was saved is not taken for something else.
    #[test]
    fn no_change_of_an_image_passes(at: prop::sample::Index, flip in 1_u8..) {
        let mut image = image(&filled());
        let at = at.index(image.len());
        image[at] ^= flip;
        let new = Subject::new();
        let pools = [PoolId::of("a"), PoolId::of("b")];
        prop_assert!(load(&new, &image, Duration::ZERO, &pools).is_err());
        prop_assert_eq!(new.cache.stats().entries, 0);
    }
}

/// The octets of the reply to a numbered name.
fn numbered(number: u32, reply: &mut Vec<u8>) {
    reply.clear();
    reply.extend_from_slice(b"\0\0\x84\0\0\x01\0\x01\0\0\0\0\x0dhost-");
    reply.extend_from_slice(format!("{number:08x}").as_bytes());
    reply.extend_from_slice(b"\x07example\x03org\0\0\x01\0\x01\xC0\x0C\0\x01\0\x01\0\0\x0E\x10\0\x04\xC0\0\x02\x01");
}

/// The query for a numbered name.
fn numbered_query(number: u32) -> Vec<u8> {
    let head = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x0dhost-";
    [&head[..], format!("{number:08x}").as_bytes(), b"\x07example\x03org\0\0\x01\0\x01"].concat()
}

#[test]
fn a_flood_of_random_names_does_not_wash_out_the_hot_ones() {
    // Each of 10,000 names is asked for once while 40,000 of the flood pass, more than the cache holds. A
    // build for tests is slow, so there all of it is a quarter: the same shares in one shard instead of four.
    let scale = if cfg!(debug_assertions) { 4 } else { 1 };
    let (hot, floods) = (10_000 / scale, 1_000_000 / scale);
    let subject = Subject { cache: Cache::new((4 << 20) / scale as usize, Instant::now()), ..Subject::new() };
    let mut reply = Vec::new();
    let (mut asked, mut hits) = (0_u32, 0_u32);
    for flood in 0..floods {
        numbered(0x1000_0000 + flood, &mut reply);
        subject.keep_octets(&reply, 0);
        if flood % 4 != 0 {
            continue;
        }
        let draw = hash(&flood.to_le_bytes()) as u32 % hot;
        let (found, _) = subject.ask_octets(&numbered_query(draw), subject.pool, 512, true);
        let is_warm = flood > floods / 2;
        asked += u32::from(is_warm);
        hits += u32::from(is_warm && found != CacheLookup::Nothing);
        if found == CacheLookup::Nothing {
            numbered(draw, &mut reply);
            subject.keep_octets(&reply, 0);
        }
    }
    let rate = f64::from(hits) / f64::from(asked);
    println!("hot names hit while a flood passes: {:.2} %", rate * 100.0);
    assert!(rate > 0.9, "{rate}");
}

#[test]
fn an_entry_takes_little_more_than_its_octets() {
    let size = 4 << 20;
    let subject = Subject { cache: Cache::new(size, Instant::now()), ..Subject::new() };
    let mut reply = Vec::new();
    for number in 0..100_000 {
        numbered(number, &mut reply);
        subject.keep_octets(&reply, 0);
    }
    let tally = subject.cache.stats();
    let over = size as f64 / tally.entries as f64 - reply.len() as f64;
    println!("{} entries of {} octets in {size}: {over:.1} octets over the wire size each", tally.entries, reply.len());
    assert!(over <= 120.0, "{over}");
}
