//! What the tests of the cache share: messages made by hickory-proto, and a cache on a clock that only the
//! test moves.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use config::CacheRules;
use dns::{ClientForm, QuestionFlags, QuestionKey};
use engine::cache::{Cache, CacheKey, CacheLookup, PoolId, ResponseFor};
use foldhash::quality::FixedState;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NS, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// The UDP size that hedgerow offers.
pub(crate) const UDP_SIZE: u16 = 1232;

/// A cache, its rules, and the time.
pub(crate) struct Subject {
    pub(crate) cache: Cache,
    pub(crate) rules: CacheRules,
    /// The time of its creation.
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    /// The pool that says everything.
    pub(crate) pool: PoolId,
}

impl Subject {
    /// An empty cache with the usual rules.
    pub(crate) fn new() -> Self {
        Self::with(CacheRules::default())
    }

    /// An empty cache with these rules.
    pub(crate) fn with(rules: CacheRules) -> Self {
        let now = Instant::now();
        Self { cache: Cache::new(4 << 20, now), rules, start: now, now, pool: PoolId::of("pool") }
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Offers a reply to what it answers itself, asked without CD and DO.
    pub(crate) fn keep(&self, reply: &Message) -> bool {
        let octets = reply.to_vec().expect("hickory writes what it builds");
        self.keep_octets(&octets, 0)
    }

    /// Keeps a response given as bytes, for a query with these flags.
    pub(crate) fn keep_octets(&self, octets: &[u8], flags: u8) -> bool {
        let read = dns::read_reply(octets).expect("a sound reply");
        let mut question = read.question().expect("no bare failure").as_wire().to_vec();
        let name = question.len() - 4;
        question[..name].make_ascii_lowercase();
        let key = CacheKey::new(self.pool, &question, QuestionFlags::of_octet(flags), hash(&question));
        self.cache.keep(&key, &read, &self.rules, self.now, &mut Vec::new())
    }

    /// Remembers that no backend replied to a query.
    pub(crate) fn keep_silence(&self, query: &Message) {
        self.with_key(query, |key| self.cache.keep_silence(key, &self.rules, self.now, &mut Vec::new()));
    }

    /// Notes that a race for a query has failed, and says whether there is an answer.
    pub(crate) fn note_failure(&self, query: &Message) -> bool {
        self.with_key(query, |key| self.cache.note_failure(key, &self.rules, self.now))
    }

    /// Forgets what is kept for a query.
    pub(crate) fn forget(&self, query: &Message) {
        self.with_key(query, |key| self.cache.forget(key));
    }

    /// Does something with the key of a query.
    fn with_key<T>(&self, query: &Message, act: impl FnOnce(&CacheKey<'_>) -> T) -> T {
        let octets = query.to_vec().expect("hickory writes what it builds");
        let read = dns::read_query(&octets).expect("a sound query");
        let key = QuestionKey::of(&read);
        let (flags, question) = key.as_octets().split_last().expect("a key has flags");
        act(&CacheKey::new(self.pool, question, QuestionFlags::of_octet(*flags), hash(question)))
    }

    /// Asks, and gives what was found with the response.
    pub(crate) fn ask(&self, query: &Message) -> (CacheLookup, Option<Message>) {
        let octets = query.to_vec().expect("hickory writes what it builds");
        let (found, out) = self.ask_octets(&octets, self.pool, 65_535, true);
        (found, (!out.is_empty()).then(|| Message::from_vec(&out).expect("a sound response")))
    }

    /// Looks up a query given as bytes, in any pool, within a limit; the first lookup or, on behalf of a
    /// race, another.
    pub(crate) fn ask_octets(
        &self,
        query: &[u8],
        pool: PoolId,
        limit: usize,
        is_first: bool,
    ) -> (CacheLookup, Vec<u8>) {
        let read = dns::read_query(query).expect("a sound query");
        let form = ClientForm::of(&read);
        let key = QuestionKey::of(&read);
        let (flags, question) = key.as_octets().split_last().expect("a key has flags");
        let key = CacheKey::new(pool, question, QuestionFlags::of_octet(*flags), hash(question));
        let client = ResponseFor { form: &form, own_udp_size: UDP_SIZE, limit };
        let mut out = Vec::new();
        let look = if is_first { Cache::look_up } else { Cache::look_stale };
        let found = look(&self.cache, &key, &client, &self.rules, self.now, &mut out);
        (found, out)
    }

    /// The times to live of the answers that `www.example.org` A gets, if it gets a fresh answer.
    pub(crate) fn fresh_ttls(&self) -> Option<Vec<u32>> {
        match self.ask(&query("www.example.org.", RecordType::A)) {
            (CacheLookup::Fresh { .. }, Some(response)) => {
                Some(response.answers.iter().map(|record| record.ttl).collect())
            }
            _ => None,
        }
    }
}

/// The seeded hash of a question.
pub(crate) fn hash(question: &[u8]) -> u64 {
    FixedState::with_seed(7).hash_one(question)
}

/// A name from text.
pub(crate) fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

/// A query with RD and without EDNS.
pub(crate) fn query(qname: &str, qtype: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(qname), qtype));
    message
}

/// Returns a query with EDNS.
pub(crate) fn edns_query(qname: &str, qtype: RecordType) -> Message {
    let mut message = query(qname, qtype);
    let mut edns = Edns::new();
    edns.set_max_payload(1400);
    message.set_edns(edns);
    message
}

/// A reply without records, with AA.
pub(crate) fn reply(qname: &str, qtype: RecordType, rcode: ResponseCode) -> Message {
    let mut message = Message::new(1, MessageType::Response, OpCode::Query);
    message.metadata.authoritative = true;
    message.metadata.response_code = rcode;
    message.add_query(Query::query(name(qname), qtype));
    message
}

/// `www.example.org` A, with one A record for each time to live.
pub(crate) fn answer(ttls: &[u32]) -> Message {
    let mut message = reply("www.example.org.", RecordType::A, ResponseCode::NoError);
    for (number, &ttl) in ttls.iter().enumerate() {
        message.add_answer(a("www.example.org.", ttl, number as u8));
    }
    message
}

/// NXDOMAIN or NODATA of `www.example.org` A with an SOA record of this time to live and MINIMUM.
pub(crate) fn negative(rcode: ResponseCode, ttl: u32, minimum: u32) -> Message {
    let mut message = reply("www.example.org.", RecordType::A, rcode);
    message.add_authority(soa(ttl, minimum));
    message
}

pub(crate) fn a(owner: &str, ttl: u32, last: u8) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A::new(192, 0, 2, last)))
}

pub(crate) fn alias(owner: &str, ttl: u32, to: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(to))))
}

/// An NS record of `example.org`.
pub(crate) fn ns(ttl: u32) -> Record {
    Record::from_rdata(name("example.org."), ttl, RData::NS(NS(name("ns.example.org."))))
}

/// An SOA record of `example.org`.
pub(crate) fn soa(ttl: u32, minimum: u32) -> Record {
    let soa = SOA::new(name("ns.example.org."), name("host.example.org."), 1, 7200, 900, 86_400, minimum);
    Record::from_rdata(name("example.org."), ttl, RData::SOA(soa))
}
