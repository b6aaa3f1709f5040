//! The steps of one query in the small: `cargo bench --bench hot_path`.
//!
//! Each is what a worker does once for a query or reply, without sockets; the load run (`--bench load`) says what they
//! come to together. Messages are built by hickory-proto, outside of what is timed.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use hedgerow::policy::balance::{Balance, Sight, Turns};
use hedgerow::policy::budget::Budget;
use hedgerow::policy::latency::Latency;
use hedgerow::policy::race::{Field, Race, Step};
use hedgerow::policy::{Dispatch, Rank, Rules};
use hedgerow::wire::{self, QuestionKey};
use hedgerow::zone::{Catalog, Miss, Transport, respond};

/// What hedgerow offers as its own UDP size (`edns_udp_size`).
const UDP_SIZE: u16 = 1232;
/// Queries in flight while another is looked up among them.
const IN_FLIGHT: usize = 1000;
/// Hosts in the table that answers.
const HOSTS: u32 = 10_000;

criterion_group!(benches, wire_views, joins, races, tables);
criterion_main!(benches);

/// Reading and writing messages as they pass through a forwarder.
fn wire_views(criterion: &mut Criterion) {
    let query = query("www.Example.org.");
    let reply = reply("www.Example.org.");
    let form = wire::ClientForm::of(&wire::read_query(&query).expect("hickory writes sound queries"));
    let mut out = Vec::with_capacity(512);

    let mut group = criterion.benchmark_group("wire");
    group.bench_function("read_query", |bencher| bencher.iter(|| wire::read_query(black_box(&query)).is_ok()));
    group.bench_function("write_query", |bencher| {
        let parsed = wire::read_query(&query).expect("hickory writes sound queries");
        bencher.iter(|| {
            out.clear();
            wire::write_query(black_box(&parsed), UDP_SIZE, &mut out)
        });
    });
    group.bench_function("read_reply", |bencher| bencher.iter(|| wire::read_reply(black_box(&reply)).is_ok()));
    group.bench_function("write_response", |bencher| {
        let parsed = wire::read_reply(&reply).expect("hickory writes sound replies");
        bencher.iter(|| {
            wire::write_response(black_box(&parsed), &form, UDP_SIZE, usize::from(UDP_SIZE), &mut out);
            out.len()
        });
    });
    group.finish();
}

/// Whether an equal query is in flight: the key of the question, its hash, and one look into the table (the query is read
/// anew, as in `read_query`).
fn joins(criterion: &mut Criterion) {
    let hasher = FixedState::with_seed(1);
    let mut table = HashTable::with_capacity(IN_FLIGHT);
    for number in 0..IN_FLIGHT {
        let key = key(&query(&format!("host{number}.example.org.")));
        table.insert_unique(hasher.hash_one(key.as_octets()), key, |key| hasher.hash_one(key.as_octets()));
    }
    let (met, missed) = (query("HOST7.example.org."), query("nobody.example.org."));
    assert!(find(&table, &hasher, &met) && !find(&table, &hasher, &missed), "equality is by folded name");

    let mut group = criterion.benchmark_group("join");
    group.bench_function("met", |bencher| bencher.iter(|| find(&table, &hasher, black_box(&met))));
    group.bench_function("missed", |bencher| bencher.iter(|| find(&table, &hasher, black_box(&missed))));
    group.finish();
}

/// Whether the table holds the question of a query.
fn find(table: &HashTable<QuestionKey>, hasher: &FixedState, query: &[u8]) -> bool {
    let key = key(query);
    table.find(hasher.hash_one(key.as_octets()), |other| *other == key).is_some()
}

/// What equal queries have in common.
fn key(query: &[u8]) -> QuestionKey {
    QuestionKey::of(&wire::read_query(query).expect("hickory writes sound queries"))
}

/// A race from its start to the reply that wins it.
fn races(criterion: &mut Criterion) {
    let now = Instant::now();
    let latency = vec![Latency::new(now); 2];
    let turns = Turns::new(&[1, 1], &[1, 2], |_| true);
    let mut random = SmallRng::seed_from_u64(1);

    let mut group = criterion.benchmark_group("race");
    for (name, dispatch) in [("sequential", Dispatch::Sequential), ("hedge", Dispatch::Hedge), ("race", Dispatch::Race)]
    {
        let rules = Rules { dispatch, ..Rules::default() };
        let budget = Budget::new(rules.hedge.budget);
        let field = Field { rules: &rules, latency: &latency, budget: &budget };
        let mut turn = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                turn += 1;
                let candidates = turns.candidates(Balance::RoundRobin, &Sight { turn, ..Sight::new(now) }, &mut random);
                let mut race = Race::start(&field, &candidates, now);
                let mut asked = None;
                while let Step::Ask { attempt, .. } = race.next_step(&field, now) {
                    asked = Some(attempt);
                }
                let heard = asked.map(|attempt| race.on_reply(attempt, Rank::Positive, now + Duration::from_millis(1)));
                (heard, race.next_step(&field, now))
            });
        });
    }
    group.finish();
}

/// The whole story of a query at an authority: octets to octets.
fn tables(criterion: &mut Criterion) {
    let lines: String = (0..HOSTS).map(|number| format!("host{number}.example.org 10.0.0.1 A\n")).collect();
    let sources = [("hosts.txt".to_owned(), lines.into_bytes())];
    let catalog = Catalog::build(&sources, 300, Miss::Nxdomain).expect("the lines are sound");
    let mut out = Vec::with_capacity(512);

    let mut group = criterion.benchmark_group("table");
    for (name, host) in [("hit", "Host77.example.org."), ("miss", "nobody.example.org.")] {
        let query = query(host);
        group.bench_function(name, |bencher| {
            bencher.iter(|| respond(&catalog, black_box(&query), Transport::Udp, UDP_SIZE, &mut out));
        });
    }
    group.finish();
}

/// A query as stub resolvers send it: RD, and an OPT record.
fn query(name: &str) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(fqdn(name), RecordType::A));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_SIZE);
    message.set_edns(edns);
    message.to_vec().expect("a small message can be written")
}

/// A reply with two addresses, and an OPT record.
fn reply(name: &str) -> Vec<u8> {
    let mut message = Message::response(4711, OpCode::Query);
    message.add_query(Query::query(fqdn(name), RecordType::A));
    for last in 1..=2 {
        message.add_answer(Record::from_rdata(fqdn(name), 300, RData::A(A::new(192, 0, 2, last))));
    }
    message.set_edns(Edns::new());
    message.to_vec().expect("a small message can be written")
}

/// A name that is known to be sound.
fn fqdn(name: &str) -> Name {
    Name::from_ascii(name).expect("the name is sound")
}
