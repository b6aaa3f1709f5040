//! The cache, from bytes to bytes: what a worker does for a query that is answered from it, and for a reply
//! that is kept.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::time::Instant;

use config::CacheRules;
use dns::{ClientForm, QuestionFlags};
use engine::cache::{Cache, CacheKey, CacheLookup, PoolId, ResponseFor};
use foldhash::quality::FixedState;

/// Looks up one of so many entries, in random order, and finds a fresh answer. The cache takes so many
/// bytes.
///
/// To spell the query for the next number is a part of it, and a small one.
pub(crate) fn hits(entries: u32, octets: usize) -> impl FnMut() {
    let mut filled = Filled::new(octets);
    (0..entries).for_each(|number| filled.keep(number));
    let mut query = QUERY.to_vec();
    let mut out = Vec::with_capacity(2048);
    let mut number = 1_u32;
    move || {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        spell(((u64::from(number) * u64::from(entries)) >> 32) as u32, &mut query);
        let found = filled.look_up(&query, &mut out);
        assert!(matches!(found, CacheLookup::Fresh { .. }));
        black_box(out.len());
    }
}

/// Keeps a reply: one that is new each time, so that another has to go.
pub(crate) fn keeps() -> impl FnMut() {
    let mut filled = Filled::new(Cache::MIN_SIZE);
    let mut number = 0;
    let mut keep = move || {
        number += 1;
        filled.keep(number);
    };
    // More than there is room for.
    (0..Cache::MIN_SIZE / REPLY.len()).for_each(|_| keep());
    keep
}

/// A cache, and what a worker has beside it.
struct Filled {
    cache: Cache,
    rules: CacheRules,
    /// The hash of questions, seeded.
    hasher: FixedState,
    /// The time, which stands still.
    now: Instant,
    /// A reply, to be spelled anew for each number.
    reply: Vec<u8>,
    /// The buffer for a folded question.
    folded: Vec<u8>,
    /// The buffer for an entry.
    scratch: Vec<u8>,
}

impl Filled {
    /// An empty cache that takes so many bytes.
    fn new(octets: usize) -> Self {
        let (now, reply) = (Instant::now(), REPLY.to_vec());
        let hasher = FixedState::with_seed(7);
        Self {
            cache: Cache::new(octets, now),
            rules: CacheRules::default(),
            hasher,
            now,
            reply,
            folded: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Keeps the reply to one query.
    fn keep(&mut self, number: u32) {
        spell(number, &mut self.reply);
        let reply = dns::read_reply(&self.reply).expect("a sound reply");
        let question = reply.question().expect("it has one").as_wire();
        let key = CacheKey::new(POOL, question, QuestionFlags::default(), self.hasher.hash_one(question));
        assert!(self.cache.keep(&key, &reply, &self.rules, self.now, &mut self.scratch));
    }

    /// Looks up the answer to one query.
    fn look_up(&mut self, query: &[u8], out: &mut Vec<u8>) -> CacheLookup {
        let query = dns::read_query(black_box(query)).expect("a sound query");
        self.folded.clear();
        let flags = query.fold_question(&mut self.folded);
        let key = CacheKey::new(POOL, &self.folded, flags, self.hasher.hash_one(&self.folded[..]));
        let form = ClientForm::of(&query);
        let client = ResponseFor { form: &form, own_udp_size: 1232, limit: 1232 };
        self.cache.look_up(&key, &client, &self.rules, self.now, out)
    }
}

/// The pool that all is kept for.
const POOL: PoolId = PoolId(1);

/// A query for `host-NNNNNNNN.example.org` A with EDNS.
const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\
    \x0dhost-00000000\x07example\x03org\0\0\x01\0\x01\
    \0\0\x29\x04\xD0\0\0\0\0\0\0";

/// The reply to it: one A record.
const REPLY: &[u8] = b"\x12\x34\x84\0\0\x01\0\x01\0\0\0\0\
    \x0dhost-00000000\x07example\x03org\0\0\x01\0\x01\
    \xC0\x0C\0\x01\0\x01\0\0\x0E\x10\0\x04\xC0\0\x02\x01";

/// Spells a number in the question of a message.
fn spell(number: u32, message: &mut [u8]) {
    for (digit, octet) in message[18..26].iter_mut().enumerate() {
        *octet = b"0123456789abcdef"[(number >> (28 - 4 * digit) & 0xF) as usize];
    }
}
