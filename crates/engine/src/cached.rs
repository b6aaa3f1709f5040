//! The cache, as the queries and races of one worker use it: answers, serve-stale, failures.
//!
//! ```text
//!   query ──▶ look_up ──▶ fresh, or a recent failure: the client gets its response
//!                    ├──▶ fresh, but expires soon: likewise, and a race without clients refreshes it
//!                    ├──▶ expired: a race, whose clients may get the stale answer (respond_stale)
//!                    └──▶ nothing: a race
//!   race that ends ──▶ remember ──▶ rank that a late reply must exceed to be kept (remember_late)
//! ```
//!
//! A remembered failure (RFC 9520) is the response to all equal queries within `failure_ttl`; no backend is
//! asked. Silence is such a failure if the pool answers it with SERVFAIL. Other fallback answers are
//! synthetic and never come from the cache: the next query races again. A late reply replaces the failure. A
//! race in which a local shortage prevented an attempt is not remembered either, unless its winner would have
//! won anyway.

use std::time::Instant;

use config::{Accept, CacheRules, PoolIndex, PoolRules, Rank, Silence};
use dns::{ClientForm, Query, QuestionFlags, QuestionHasher, QuestionKey, Rcode, Reply};
use metrics::ResponseSource;

use super::attempt::QuarantinedAttempt;
use super::entry::{RaceEntry, StaleAnswer, Waiter};
use super::io::{ClientHandle, Io, ResponseOrigin, ResponseSummary};
use super::reply::{decision, rank};
use super::responses::ClientResponder;
use super::subnet::{self, SentSubnet, SubnetPlace};
use super::{EngineWorker, QTYPE_QCLASS};
use crate::cache::{self, Cache, CacheKey, CacheLookup, CachedFailure, EntryWorth};
use crate::state::{ForwarderState, SharedPool};

#[derive(Clone, Copy)]
pub(super) struct PoolCache<'a> {
    pub(super) cache: &'a Cache,
    pub(super) rules: &'a CacheRules,
    place: SubnetPlace,
}

impl<'a> PoolCache<'a> {
    pub(super) fn of(state: &'a ForwarderState, pool: &SharedPool) -> Option<Self> {
        let (cache, config) = state.cache.as_deref().zip(state.cache_config.as_ref())?;
        let place = SubnetPlace { pool: pool.id, scope: 0 };
        pool.config.cache.then_some(Self { cache, rules: &config.rules, place })
    }

    /// Returns the place of an answer to a query with this client subnet: the best that there is.
    pub(super) fn found(self, of: &SubnetQuery<'_>, question: HashedQuestion<'_>, now: Instant) -> Self {
        if of.pool.sends_no_subnet() { self } else { self.best(of, question, now) }
    }

    #[cold]
    fn best(self, of: &SubnetQuery<'_>, question: HashedQuestion<'_>, now: Instant) -> Self {
        let mut best = (EntryWorth::Nothing, self);
        for (number, place) in of.pool.state.scopes.places(of.pool.id, of.sent, of.hasher).enumerate() {
            let cached = Self { place, ..self };
            let worth = self.cache.worth(&cached.key(question), self.rules, now);
            if number == 0 || worth > best.0 {
                best = (worth, cached);
            }
            if worth == EntryWorth::Fresh {
                break;
            }
        }
        best.1
    }

    /// Returns the place of a reply to a query with this client subnet; without a reply, that of a failure.
    pub(super) fn for_reply(self, of: &SubnetQuery<'_>, reply: Option<&Reply<'_>>) -> Self {
        if of.pool.sends_no_subnet() {
            return self;
        }
        let scope = reply.map_or(u8::MAX, subnet::scope);
        Self { place: of.pool.state.scopes.keep(of.pool.id, of.sent, scope, of.hasher), ..self }
    }

    pub(super) fn key<'q>(&self, question: HashedQuestion<'q>) -> CacheKey<'q> {
        CacheKey::new(self.place.pool, question.octets, question.flags, question.hash)
    }

    /// Keeps the reply that won a race. Returns the rank that a late reply must exceed to be better.
    pub(super) fn keep_won(
        &self,
        key: &CacheKey<'_>,
        reply: &Reply<'_>,
        rank: Rank,
        accept: Accept,
        now: Instant,
        scratch: &mut Vec<u8>,
    ) -> Option<Rank> {
        let Self { cache, rules, .. } = *self;
        // A doubtful decision stays doubtful here, though no other backend could replace it.
        let rank = if rank == Rank::Decided { decision(reply).unwrap_or(rank) } else { rank };
        let is_outdone = rank == Rank::Decided || rank == Rank::Doubtful && !self.is_fresh(key, reply, now, scratch);
        if is_outdone {
            // As a failure it would not replace the old entry.
            cache.forget(key);
        }
        let is_kept = cache.keep(key, reply, rules, now, scratch);
        if rank == Rank::Failure {
            if !is_kept {
                // The reply is not cached, but the failure to refresh an existing answer is.
                cache.note_failure(key, rules, now);
            }
            return Some(Rank::Failure);
        }
        let is_accepted = accept.accepts(rank);
        if is_accepted && !is_kept && !reply.is_truncated() && !reply.is_referral() {
            // The cached entry is older and contradicts the reply.
            cache.forget(key);
        }
        // Regardless of caching: a late reply that ranks lower must not replace it.
        (!is_accepted).then_some(rank)
    }

    fn is_fresh(&self, key: &CacheKey<'_>, reply: &Reply<'_>, now: Instant, scratch: &mut Vec<u8>) -> bool {
        let Some(query) = query_of_reply(reply) else { return false };
        let form = ClientForm::of(&query);
        let client = cache::ResponseFor { form: &form, own_udp_size: 0, limit: MIN_LIMIT };
        matches!(self.cache.look_stale(key, &client, self.rules, now, scratch), CacheLookup::Fresh { .. })
    }
}

/// The client subnet of a query to the backends of a pool.
#[derive(Clone, Copy)]
pub(super) struct SubnetQuery<'a> {
    pub(super) pool: &'a SharedPool,
    pub(super) sent: Option<&'a SentSubnet>,
    pub(super) hasher: &'a QuestionHasher,
}

/// A question with its hash, for look-ups.
#[derive(Clone, Copy, Debug)]
pub struct HashedQuestion<'a> {
    /// The folded name, type and class.
    pub octets: &'a [u8],
    /// The RD, CD and DO flags.
    pub flags: QuestionFlags,
    /// The hash of `octets`: [`SharedEngineState::hash`](super::SharedEngineState::hash).
    pub hash: u64,
}

impl<'a> HashedQuestion<'a> {
    /// Returns the folded name.
    pub fn qname(&self) -> &'a [u8] {
        self.octets.get(..self.octets.len().saturating_sub(QTYPE_QCLASS)).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheResult {
    Responded,
    /// The client has its response, and the answer is to be refreshed before it expires.
    RefreshDue,
    /// Only a stale answer exists; the client gets it if a race does not finish in time.
    Stale(StaleAnswer),
    Nothing,
}

/// The reason for a cache look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupReason {
    /// A query arrived.
    Query,
    /// Another worker looked up and counted the query before it handed it over.
    HandedOver,
    /// The race of a client failed or takes too long.
    Need,
    /// An operator wants the backends to be asked, whatever the cache has.
    Ignore,
}

impl LookupReason {
    pub(super) fn takes(self, found: CacheLookup) -> bool {
        match (self, found) {
            (_, CacheLookup::Fresh { .. }) | (_, CacheLookup::Stale { is_race_due: false }) => true,
            (Self::Need, CacheLookup::Stale { is_race_due: true }) => true,
            (Self::Query | Self::HandedOver | Self::Ignore, CacheLookup::Stale { is_race_due: true }) => false,
            (Self::Query | Self::HandedOver, CacheLookup::Failed(CachedFailure::Servfail)) => true,
            (Self::Need | Self::Ignore, CacheLookup::Failed(CachedFailure::Servfail)) => false,
            (_, CacheLookup::Failed(CachedFailure::Silence) | CacheLookup::Nothing) => false,
        }
    }
}

impl PoolCache<'_> {
    /// Gives a client the cached response if the reason permits it, and returns the kind of entry found.
    pub(super) fn give<I: Io>(
        &self,
        responder: &mut ClientResponder<'_, I>,
        key: &CacheKey<'_>,
        waiter: &Waiter<I::Client>,
        origin: &ResponseOrigin<'_>,
        reason: LookupReason,
    ) -> CacheLookup {
        let (Self { cache, rules, .. }, now) = (*self, responder.now);
        let form = responder.form(waiter);
        let receiver = &responder.receiver(waiter, &form);
        responder.buffer.clear();
        let found = match reason {
            LookupReason::Query => cache.look_up(key, receiver, rules, now, responder.buffer),
            LookupReason::HandedOver | LookupReason::Need => {
                cache.look_stale(key, receiver, rules, now, responder.buffer)
            }
            LookupReason::Ignore => CacheLookup::Nothing,
        };
        if reason.takes(found) {
            let is_stale = matches!(found, CacheLookup::Stale { .. });
            let source = if is_stale { ResponseSource::Stale } else { ResponseSource::Cache };
            let rcode = dns::Header::read(responder.buffer).map_or(Rcode::NOERROR, |header| header.rcode());
            responder.give_subnet(waiter, self.place.scope);
            responder.respond(waiter, origin, ResponseSummary { source, rcode });
        }
        found
    }
}

impl EngineWorker {
    /// Keeps a late reply that answers the question and is better than the result of its race.
    pub(super) fn remember_late(
        &self,
        pool: &SharedPool,
        late: &QuarantinedAttempt,
        question: HashedQuestion<'_>,
        reply: &Reply<'_>,
        scratch: &mut Vec<u8>,
        now: Instant,
    ) -> bool {
        let rank = rank(reply);
        if !pool.sends_no_subnet() {
            // The client subnet is gone with the race.
            return false;
        }
        if late.above.is_none_or(|least| rank <= least) {
            return false;
        }
        let Some(cached) = PoolCache::of(&self.state, pool) else { return false };
        let key = cached.key(question);
        // A reply that would not have won does not replace a fresh answer.
        let would_win = pool.rules().accept.accepts(rank);
        if !would_win && cached.is_fresh(&key, reply, now, scratch) {
            return false;
        }
        cached.cache.keep(&key, reply, cached.rules, now, scratch)
    }
}

/// Prefetches the memory that the look-ups of these questions will read, if the cache is large.
pub fn prefetch_memory<'q>(
    state: &ForwarderState,
    questions: impl Iterator<Item = (PoolIndex, HashedQuestion<'q>)> + Clone,
) {
    let Some(cache) = &state.cache else { return };
    let key = |(pool, question): (PoolIndex, _)| Some(PoolCache::of(state, state.pools.get(pool.0)?)?.key(question));
    cache::prefetch_memory(cache, questions.filter_map(key));
}

/// Returns true if clients get remembered silence for some time. Otherwise only better replies replace it.
pub(super) fn is_silence_servfail(rules: &PoolRules) -> bool {
    rules.on_timeout == Silence::Servfail || rules.on_all_down == Silence::Servfail
}

pub(super) fn fold<C: ClientHandle>(entry: &RaceEntry<C>) -> Option<QuestionKey> {
    QuestionKey::of_parts(entry.question(), entry.query.flags)
}

pub(super) fn key_of_reply(reply: &Reply<'_>) -> Option<QuestionKey> {
    query_of_reply(reply).map(|query| QuestionKey::of(&query))
}

fn query_of_reply<'a>(reply: &Reply<'a>) -> Option<Query<'a>> {
    reply.question().map(|question| Query { header: reply.header(), question, edns: None, is_signed: false })
}

pub(super) fn split(key: &QuestionKey, flags: QuestionFlags, hash: u64) -> Option<HashedQuestion<'_>> {
    key.as_octets().split_last().map(|(_, octets)| HashedQuestion { octets, flags, hash })
}

/// The UDP size that every client accepts (RFC 1035 section 2.3.4).
const MIN_LIMIT: usize = 512;
