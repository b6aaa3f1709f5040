//! The cache against a model of it that anybody can check: a list of what was kept, walked from its start.
//!
//! Random queries, replies and steps of time go to both, and every answer must be the same to the octet. The
//! model knows nothing of rings, tags or shards, and finds the times to live in a message by hickory-proto.

use std::time::Duration;

use config::CacheRules;
use engine::cache::{CacheLookup, CachedFailure, PoolId};

use crate::support::cache::*;
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::RecordType;
use proptest::prelude::*;

/// Names asked for. They differ in case when they are asked for, not when they are kept.
const NAMES: [&str; 4] = ["a.example.", "b.example.", "www.b.example.", "."];

/// The MINIMUM of every SOA record.
const MINIMUM: u32 = 3600;

#[derive(Clone, Debug)]
enum Step {
    /// A client asks: for which name in which spelling, with DO, CD, RD, EDNS, of which pool.
    Ask {
        name: usize,
        shouted: bool,
        dnssec_ok: bool,
        checking_disabled: bool,
        recursion: bool,
        edns: bool,
        pool: usize,
    },
    /// A reply is offered: to which name, with DO and CD, from which pool, of which kind, with which times to
    /// live.
    Keep { name: usize, flags: u8, pool: usize, kind: Kind, ttls: Vec<u32> },
    /// Time passes, in milliseconds.
    Pass(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// With an A record for each time to live.
    Data,
    /// NXDOMAIN with an SOA of the first.
    NoName,
    Failure,
    Refused,
}

/// An entry of the model.
#[derive(Clone)]
struct Entry {
    /// Name, CD and DO, pool.
    key: (usize, u8, usize),
    /// Data, negative or failure.
    kind: Kind,
    /// Times to live as they were kept.
    ttls: Vec<u32>,
    /// Milliseconds since the start.
    kept_at: u64,
    /// No race before that, after one failed.
    quiet_until: u64,
}

/// The answer that the model expects for a client.
struct Expected {
    found: CacheLookup,
    /// The records' times to live, if there is a response.
    ttls: Vec<u32>,
}

#[derive(Default)]
struct Model {
    /// All that was ever kept and not replaced.
    entries: Vec<Entry>,
}

impl Model {
    fn keep(&mut self, key: (usize, u8, usize), kind: Kind, ttls: &[u32], rules: &CacheRules, now: u64) {
        let lowest = *ttls.iter().min().expect("there is one");
        let ttls = match kind {
            Kind::Data => vec![lowest.min(rules.max_ttl.as_secs() as u32); ttls.len()],
            Kind::NoName => vec![ttls[0].min(MINIMUM).min(rules.max_negative_ttl.as_secs() as u32)],
            Kind::Failure => vec![rules.failure_ttl.as_secs() as u32],
            Kind::Refused => return,
        };
        if ttls[0] == 0 {
            return;
        }
        let before = self.entries.iter_mut().find(|entry| entry.key == key);
        if let Some(before) = before
            && kind == Kind::Failure
            && before.kind != Kind::Failure
            && now < before.kept_at + u64::from(before.ttls[0]) * 1000 + rules.stale.as_millis() as u64
        {
            before.quiet_until = now + 30_000;
            return;
        }
        self.entries.retain(|entry| entry.key != key);
        self.entries.push(Entry { key, kind, ttls, kept_at: now, quiet_until: 0 });
    }

    /// Returns the result of a look-up in the model.
    fn ask(&self, key: (usize, u8, usize), rules: &CacheRules, now: u64) -> Expected {
        let nothing = Expected { found: CacheLookup::Nothing, ttls: Vec::new() };
        let Some(entry) = self.entries.iter().find(|entry| entry.key == key) else { return nothing };
        let age = now - entry.kept_at;
        let fresh_for = u64::from(entry.ttls[0]) * 1000;
        let aged = entry.ttls.iter().map(|ttl| ttl - (age / 1000).min(u64::from(*ttl)) as u32).collect();
        match entry.kind {
            Kind::Failure if age < fresh_for => {
                Expected { found: CacheLookup::Failed(CachedFailure::Servfail), ttls: Vec::new() }
            }
            Kind::Data | Kind::NoName if age < fresh_for => {
                Expected { found: CacheLookup::Fresh { is_refresh_due: false }, ttls: aged }
            }
            Kind::Data | Kind::NoName if age < fresh_for + rules.stale.as_millis() as u64 => {
                let found = CacheLookup::Stale { is_race_due: now >= entry.quiet_until };
                Expected { found, ttls: vec![30; entry.ttls.len()] }
            }
            Kind::Data | Kind::NoName | Kind::Failure | Kind::Refused => nothing,
        }
    }
}

/// A reply of a kind.
fn reply_of(qname: &str, kind: Kind, ttls: &[u32]) -> Message {
    let rcode = match kind {
        Kind::Data => ResponseCode::NoError,
        Kind::NoName => ResponseCode::NXDomain,
        Kind::Failure => ResponseCode::ServFail,
        Kind::Refused => ResponseCode::Refused,
    };
    let mut message = reply(qname, RecordType::A, rcode);
    match kind {
        Kind::Data => {
            for (number, &ttl) in ttls.iter().enumerate() {
                message.add_answer(a(qname, ttl, number as u8));
            }
        }
        Kind::NoName => {
            message.add_authority(soa(ttls[0], MINIMUM));
        }
        Kind::Failure | Kind::Refused => {}
    }
    message
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(Kind::Data), Just(Kind::NoName), Just(Kind::Failure), Just(Kind::Refused)];
    let ttls = prop::collection::vec(prop_oneof![0_u32..100, Just(200_000), Just(0x8000_0000 - 1)], 1..4);
    let keep = (0..NAMES.len(), 0_u8..4, 0_usize..2, kind, ttls)
        .prop_map(|(name, flags, pool, kind, ttls)| Step::Keep { name, flags: flags << 1, pool, kind, ttls });
    let ask = (0..NAMES.len(), any::<[bool; 5]>(), 0_usize..2).prop_map(|(name, bits, pool)| {
        let [shouted, dnssec_ok, checking_disabled, recursion, edns] = bits;
        Step::Ask { name, shouted, dnssec_ok, checking_disabled, recursion, edns, pool }
    });
    prop_oneof![3 => ask, 2 => keep, 1 => (0_u64..120_000).prop_map(Step::Pass)]
}

/// Sends the same steps to both and compares.
fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    // Prefetch has its own tests.
    let rules = CacheRules { stale: Duration::from_secs(60), prefetch: 0.0, ..CacheRules::default() };
    let mut subject = Subject::with(rules.clone());
    let pools = [PoolId::of("a"), PoolId::of("b")];
    let mut model = Model::default();
    let mut now = 0;
    for step in steps {
        match step.clone() {
            Step::Pass(millis) => {
                now += millis;
                subject.now = subject.start + Duration::from_millis(now);
            }
            Step::Keep { name, flags, pool, kind, ttls } => {
                subject.pool = pools[pool];
                let octets = reply_of(NAMES[name], kind, &ttls).to_vec().expect("a message");
                subject.keep_octets(&octets, flags);
                model.keep((name, flags, pool), kind, &ttls, &rules, now);
            }
            Step::Ask { name, shouted, dnssec_ok, checking_disabled, recursion, edns, pool } => {
                let qname = if shouted { NAMES[name].to_ascii_uppercase() } else { NAMES[name].to_owned() };
                let mut query = query(&qname, RecordType::A);
                query.metadata.recursion_desired = recursion;
                query.metadata.checking_disabled = checking_disabled;
                let has_edns = edns || dnssec_ok;
                if has_edns {
                    let mut edns = Edns::new();
                    edns.set_max_payload(1400).set_dnssec_ok(dnssec_ok);
                    query.set_edns(edns);
                }
                let octets = query.to_vec().expect("a message");
                let (found, out) = subject.ask_octets(&octets, pools[pool], 1232, true);
                let flags = u8::from(checking_disabled) << 1 | u8::from(dnssec_ok) << 2;
                let expected = model.ask((name, flags, pool), &rules, now);
                prop_assert_eq!(found, expected.found);
                if found == CacheLookup::Nothing {
                    prop_assert!(out.is_empty());
                    continue;
                }
                let entry = model.entries.iter().find(|entry| entry.key == (name, flags, pool)).expect("it was found");
                check_response(&out, &query, entry, &expected)?;
            }
        }
    }
    Ok(())
}

/// Checks that a response is, to the octet, the reply that was kept with these times to live in the form of
/// this query.
fn check_response(out: &[u8], query: &Message, entry: &Entry, expected: &Expected) -> Result<(), TestCaseError> {
    let qname = query.queries[0].name().to_ascii();
    let ttls = if expected.ttls.is_empty() { &entry.ttls } else { &expected.ttls };
    let mut response = reply_of(&qname, entry.kind, ttls);
    response.metadata.id = query.metadata.id;
    response.metadata.authoritative = false;
    response.metadata.recursion_available = true;
    response.metadata.recursion_desired = query.metadata.recursion_desired;
    let mut octets = response.to_vec().expect("a message");
    if let Some(edns) = &query.edns {
        let error = match (expected.found, entry.kind) {
            (CacheLookup::Stale { .. }, Kind::NoName) => Some(19),
            (CacheLookup::Stale { .. }, _) => Some(3),
            (CacheLookup::Failed(_), _) => Some(13),
            _ => None,
        };
        let options = error.map(|error| [0, 15, 0, 2, 0, error]);
        let options = options.as_ref().map_or(&[][..], |options| options);
        let dnssec_ok = if edns.flags().dnssec_ok { 0x80 } else { 0 };
        octets.extend_from_slice(&[0, 0, 41, 0x04, 0xD0, 0, 0, dnssec_ok, 0, 0, options.len() as u8]);
        octets.extend_from_slice(options);
        octets[11] += 1;
    }
    prop_assert_eq!(out, &octets[..]);
    Ok(())
}

proptest! {
    #[test]
    fn the_cache_says_what_the_model_says(steps in prop::collection::vec(step(), 0..80)) {
        run(&steps)?;
    }
}
