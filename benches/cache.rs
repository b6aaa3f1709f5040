//! The cache in the small: `cargo bench --bench cache`.
//!
//! A hit among few and among many entries, in random order, from the query's octets to the response's, as a worker does it but for
//! the sockets; and keeping a reply.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use foldhash::quality::FixedState;

use hedgerow::cache::{Cache, Client, Found, Key, PoolId, Rules};
use hedgerow::wire::{self, ClientForm, QuestionKey};

criterion_group!(benches, hits, keeps);
criterion_main!(benches);

/// Entries of the small and of the large cache.
const SIZES: [(&str, u32); 2] = [("10k", 10_000), ("1m", 1_000_000)];

/// Memory of both: what the entries of the large one need, so that its table is as full as tables get.
const MEMORY: usize = 160 << 20;

/// A look-up that finds a fresh answer.
fn hits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hit");
    let rules = Rules::default();
    for (label, entries) in SIZES {
        let now = Instant::now();
        let cache = Cache::new(MEMORY, now);
        (0..entries).for_each(|number| keep(&cache, number, &rules, now, &mut Vec::new()));
        let mut query = query(0);
        let mut out = Vec::with_capacity(2048);
        let mut number = 1_u32;
        group.bench_function(label, |bencher| {
            bencher.iter(|| {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                spell(((u64::from(number) * u64::from(entries)) >> 32) as u32, &mut query);
                let found = look_up(&cache, &query, &rules, now, &mut out);
                assert!(matches!(found, Found::Fresh { .. }));
                out.len()
            });
        });
    }
    group.finish();
}

/// Keeping a reply: one that is new each time, so that another has to go.
fn keeps(criterion: &mut Criterion) {
    let rules = Rules::default();
    let now = Instant::now();
    let cache = Cache::new(8 << 20, now);
    let mut scratch = Vec::new();
    let mut number = 0;
    criterion.bench_function("keep", |bencher| {
        bencher.iter(|| {
            number += 1;
            keep(&cache, number, &rules, now, &mut scratch);
        });
    });
}

/// Keeps the reply to one query.
fn keep(cache: &Cache, number: u32, rules: &Rules, now: Instant, scratch: &mut Vec<u8>) {
    let reply = reply(number);
    let read = wire::read_reply(&reply).expect("a sound reply");
    let question = read.question().expect("it has one").as_wire();
    let key = Key::new(PoolId(1), question, 0, hash(question));
    assert!(cache.keep(&key, &read, rules, now, scratch));
}

/// Looks up the answer to one query.
fn look_up(cache: &Cache, query: &[u8], rules: &Rules, now: Instant, out: &mut Vec<u8>) -> Found {
    let read = wire::read_query(black_box(query)).expect("a sound query");
    let key = QuestionKey::of(&read);
    let (flags, question) = key.as_octets().split_last().expect("a key has flags");
    let key = Key::new(PoolId(1), question, *flags, hash(question));
    let form = ClientForm::of(&read);
    cache.look_up(&key, &Client { form: &form, own_udp_size: 1232, limit: 1232 }, rules, now, out)
}

/// The seeded hash of a question.
fn hash(question: &[u8]) -> u64 {
    FixedState::with_seed(7).hash_one(question)
}

/// A query for `host-NNNNNNNN.example.org` A with EDNS.
fn query(number: u32) -> Vec<u8> {
    let mut query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x0dhost-00000000\x07example\x03org\0\0\x01\0\x01\0\0\x29\x04\xD0\0\0\0\0\0\0".to_vec();
    spell(number, &mut query);
    query
}

/// The reply to it: one A record.
fn reply(number: u32) -> Vec<u8> {
    let mut reply = b"\x12\x34\x84\0\0\x01\0\x01\0\0\0\0\x0dhost-00000000\x07example\x03org\0\0\x01\0\x01\xC0\x0C\0\x01\0\x01\0\0\x0E\x10\0\x04\xC0\0\x02\x01".to_vec();
    spell(number, &mut reply);
    reply
}

/// Spells a number in the question of a message.
fn spell(number: u32, message: &mut [u8]) {
    for (digit, octet) in message[18..26].iter_mut().enumerate() {
        *octet = b"0123456789abcdef"[(number >> (28 - 4 * digit) & 0xF) as usize];
    }
}
