//! The cache, as the queries and races of one worker use it: positive and negative caching, serve-stale, failures.
//!
//! ```text
//!   query ──▶ look_up ──▶ good, or failed not long ago: the client has its response
//!                    ├──▶ good, but soon over: the same, and a race for nobody refreshes it
//!                    ├──▶ over: a race, whose clients may be given it (respond_stale)
//!                    └──▶ nothing: a race
//!   race that ends ──▶ remember ──▶ what late replies must be worth to be kept (remember_late)
//! ```
//!
//! A failure that is remembered (RFC 9520) is told at once to whoever asks again within `failure_ttl`, and no backend is asked.
//! Silence is such a failure where the pool's answer to it is SERVFAIL. Where it is another, clients were given an answer that was
//! made up, and what is made up is never told from memory: nothing is remembered, and the next query races again. If an attempt
//! was only slow, its late reply takes the place of the failure. Nor is anything remembered of a race in which not all could be
//! asked for want of something of our own, unless its winner would have won anyway.

use std::time::{Duration, Instant};

use super::active_race::ActiveRace;
use super::attempt::Quarantined;
use super::entry::{Entry, StaleAnswer, Waiter};
use super::fallback::FallbackAnswer;
use super::io::{Client, Io, Resolution, Said};
use super::reply::{decision, rank};
use super::{Engine, QTYPE_QCLASS};
use crate::cache::{self, Cache, CachedFailure, Found, Key, PoolId, Rules};
use crate::config::PoolIndex;
use crate::metrics::Source;
use crate::policy::race::Outcome;
use crate::policy::{self, Rank, Silence};
use crate::state::{ForwarderState, SharedPool};
use crate::wire::{self, ClientForm, Query, QuestionFlags, QuestionKey, Rcode, Reply};

/// The cache, as a pool has it.
#[derive(Clone, Copy)]
pub(super) struct PoolCache<'a> {
    /// All that is kept.
    pub(super) cache: &'a Cache,
    /// For how long.
    pub(super) rules: &'a Rules,
    pool: PoolId,
}

impl<'a> PoolCache<'a> {
    /// That of a pool, unless it does without.
    pub(super) fn of(state: &'a ForwarderState, pool: &SharedPool) -> Option<Self> {
        let (cache, config) = state.cache.as_deref().zip(state.cache_config.as_ref())?;
        pool.config.cache.then_some(Self { cache, rules: &config.rules, pool: pool.id })
    }

    /// What an answer is found by.
    pub(super) fn key<'q>(&self, question: HashedQuestion<'q>) -> Key<'q> {
        Key::new(self.pool, question.octets, question.flags, question.hash)
    }

    /// Whether there is an answer that is good to the question of a reply.
    fn is_fresh(&self, key: &Key<'_>, reply: &Reply<'_>, now: Instant, scratch: &mut Vec<u8>) -> bool {
        let Some(query) = query_of_reply(reply) else { return false };
        let form = ClientForm::of(&query);
        let client = cache::ResponseFor { form: &form, own_udp_size: 0, limit: MIN_LIMIT };
        matches!(self.cache.look_stale(key, &client, self.rules, now, scratch), Found::Fresh { .. })
    }
}

/// A question as it is looked for.
#[derive(Clone, Copy, Debug)]
pub struct HashedQuestion<'a> {
    /// Folded name, type and class.
    pub octets: &'a [u8],
    /// RD, CD and DO.
    pub flags: QuestionFlags,
    /// The hash of `octets`: [`Shared::hash`](super::Shared::hash).
    pub hash: u64,
}

impl<'a> HashedQuestion<'a> {
    /// The folded name.
    pub fn qname(&self) -> &'a [u8] {
        self.octets.get(..self.octets.len().saturating_sub(QTYPE_QCLASS)).unwrap_or_default()
    }
}

/// What came of asking the cache first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheResult {
    /// The client has its response.
    Responded,
    /// The same, and the answer is to be refreshed before it runs out.
    RefreshDue,
    /// There is only an answer whose time to live is over; a client gets it if a race has not helped by then.
    Stale(StaleAnswer),
    /// There is nothing.
    Nothing,
}

/// Why the cache is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A query has come.
    Query,
    /// A query has come that another worker has looked up, and counted, before it handed it over.
    HandedOver,
    /// The race of a client has failed, or has kept it waiting for long enough.
    Need,
}

impl Reason {
    /// Whether what was found is given to the client.
    fn takes(self, found: Found) -> bool {
        match (self, found) {
            (_, Found::Fresh { .. }) | (_, Found::Stale { is_race_due: false }) => true,
            (Self::Need, Found::Stale { is_race_due: true }) => true,
            (Self::Query | Self::HandedOver, Found::Stale { is_race_due: true }) => false,
            (Self::Query | Self::HandedOver, Found::Failed(CachedFailure::Servfail)) => true,
            (Self::Need, Found::Failed(CachedFailure::Servfail)) => false,
            (_, Found::Failed(CachedFailure::Silence) | Found::Nothing) => false,
        }
    }
}

impl PoolCache<'_> {
    /// Gives a client what is kept for it, if that is what is looked for, and says what was found.
    fn give<I: Io>(
        &self,
        io: &mut I,
        key: &Key<'_>,
        waiter: &Waiter<I::Client>,
        resolution: &Resolution<'_>,
        reason: Reason,
        now: Instant,
    ) -> Found {
        let Self { cache, rules, .. } = *self;
        let mut found = Found::Nothing;
        io.respond(waiter, resolution, now, |receiver, out| {
            found = match reason {
                Reason::Query => cache.look_up(key, receiver, rules, now, out),
                Reason::HandedOver | Reason::Need => cache.look_stale(key, receiver, rules, now, out),
            };
            if !reason.takes(found) {
                out.clear();
                return None;
            }
            let source = if matches!(found, Found::Stale { .. }) { Source::Stale } else { Source::Cache };
            let rcode = wire::Header::read(out).map_or(Rcode::NOERROR, |header| header.rcode());
            Some(Said { source, rcode })
        });
        found
    }
}

impl<C: Client> Engine<C> {
    /// Responds to a query from the cache, if that can be done.
    pub(super) fn look_up<I: Io<Client = C>>(
        &mut self,
        io: &mut I,
        pool: PoolIndex,
        question: HashedQuestion<'_>,
        waiter: &Waiter<C>,
        reason: Reason,
        now: Instant,
    ) -> CacheResult {
        let state = &self.worker.state;
        let shared = &state.pools[pool.0];
        let Some(cached) = PoolCache::of(state, shared) else { return CacheResult::Nothing };
        let resolution = Resolution::at_once(question.hash, shared);
        let found = cached.give(io, &cached.key(question), waiter, &resolution, reason, now);
        let result = match found {
            Found::Fresh { is_refresh_due: true } => CacheResult::RefreshDue,
            Found::Fresh { is_refresh_due: false } => CacheResult::Responded,
            Found::Stale { is_race_due: false } | Found::Failed(CachedFailure::Servfail) => CacheResult::Responded,
            Found::Stale { is_race_due: true } => {
                // Who is down is asked all the same, but nobody waits for it.
                let is_up = shared.backends.iter().any(|backend| backend.takes_queries());
                let patience = if is_up { cached.rules.stale_answer_after } else { Duration::ZERO };
                return CacheResult::Stale(StaleAnswer::At(now + patience));
            }
            Found::Failed(CachedFailure::Silence) => {
                let failure_ttl = cached.rules.failure_ttl;
                let is_told = self.respond_silence(io, pool, question, waiter, failure_ttl, now);
                return if is_told { CacheResult::Responded } else { CacheResult::Nothing };
            }
            Found::Nothing => return CacheResult::Nothing,
        };
        waiter.count_wait(self.worker.counters_of(shared), now);
        result
    }

    /// Tells a client at once that nobody has replied to another, if it would be told SERVFAIL. Returns whether that was done.
    ///
    /// Deviation: RFC 9520 section 3.2 has failures remembered for a second at least. But once a backend has come up, what is
    /// remembered of silence is most likely about the time before, and is not believed until it would have been forgotten.
    /// And where silence means "no such name", a name that a table gets is to be seen at once.
    fn respond_silence<I: Io<Client = C>>(
        &mut self,
        io: &mut I,
        pool: PoolIndex,
        question: HashedQuestion<'_>,
        waiter: &Waiter<C>,
        failure_ttl: Duration,
        now: Instant,
    ) -> bool {
        let slot = self.pool_slots[pool.0];
        self.refresh(io, slot, now);
        let pool = self.pools.at(slot);
        if pool.has_recovered_within(failure_ttl, now) {
            return false;
        }
        let is_up = pool.is_up();
        let fallback = FallbackAnswer::of_silence(pool.shared.rules(), is_up);
        if fallback.rcode != Some(Rcode::SERVFAIL) {
            return false;
        }
        waiter.count_wait(self.worker.counters_of(&pool.shared), now);
        let resolution = Resolution::at_once(question.hash, &pool.shared);
        fallback.give(io, &self.worker.counters, waiter, &resolution, question.octets, now);
        true
    }

    /// Keeps a reply that came after its race was over and answers what was asked, if it is better than what the race had come
    /// to. Returns whether it is kept.
    pub(super) fn remember_late(
        &mut self,
        late: &Quarantined,
        question: HashedQuestion<'_>,
        reply: &Reply<'_>,
        now: Instant,
    ) -> bool {
        let rank = rank(reply);
        if late.above.is_none_or(|least| rank <= least) {
            return false;
        }
        let pool = self.pools.get(late.pool).and_then(|pool| pool.shared_of(late.plan, late.backend));
        let Some(pool) = pool else { return false };
        let Some(cached) = PoolCache::of(&self.worker.state, pool) else { return false };
        let key = cached.key(question);
        // One that would not have won does not take the place of what is good.
        let would_win = pool.rules().accept.accepts(rank);
        if !would_win && cached.is_fresh(&key, reply, now, &mut self.scratch) {
            return false;
        }
        cached.cache.keep(&key, reply, cached.rules, now, &mut self.scratch)
    }

    /// Whether fewer races run than leave a worker time to spare for those that nobody waits for.
    pub(super) fn has_time_to_refresh(&self) -> bool {
        !self.is_draining && self.in_flight.len() < BUSY
    }
}

impl<I: Io> ActiveRace<'_, I> {
    /// Gives an answer from the cache, stale or fresh, to all who wait for the race, if there is one.
    pub(super) fn respond_stale(&mut self) {
        let Self { entry, pool, worker, io, now, .. } = self;
        if entry.is_signed() {
            return;
        }
        entry.set_stale(StaleAnswer::Unknown);
        let Some(cached) = PoolCache::of(&worker.state, &pool.shared) else { return };
        let Some(folded) = fold(entry) else { return };
        let Some(question) = split(&folded, entry.flags, entry.hash) else { return };
        let key = cached.key(question);
        let counters = worker.counters_of(&pool.shared);
        let resolution = Resolution::of_race(entry.hash, &pool.shared, &entry.race, None);
        let waited = entry.waiter_count();
        entry.retain_waiters(&worker.shared.clients, |waiter| {
            let found = cached.give(*io, &key, waiter, &resolution, Reason::Need, *now);
            let is_responded = Reason::Need.takes(found);
            if is_responded {
                waiter.count_wait(counters, *now);
            }
            !is_responded
        });
        entry.note_stale_given(waited - entry.waiter_count(), self.spills);
        // Whoever still waits came to nothing: it had to make room for others meanwhile.
        if !entry.has_waiters() {
            entry.set_stale(StaleAnswer::Given);
        }
    }

    /// Remembers what the race has come to. Returns above which rank a late reply is better than that, if any is.
    pub(super) fn remember(
        &mut self,
        outcome: Outcome,
        won_by: Option<Rank>,
        at_hand: Option<&Reply<'_>>,
    ) -> Option<Rank> {
        let Self { entry, pool, worker, scratch, now, .. } = self;
        if entry.is_signed() {
            return None;
        }
        let (shared, now) = (&pool.shared, *now);
        let cached = PoolCache::of(&worker.state, shared)?;
        let folded = fold(entry)?;
        let key = cached.key(split(&folded, entry.flags, entry.hash)?);
        let PoolCache { cache, rules, .. } = cached;
        match outcome {
            Outcome::Reply(won) if entry.race.kept() == Some((won, Rank::Outdated)) => {
                // No word on what the zone has now, and nobody else had one. What comes late from another is better.
                cache.note_failure(&key, rules, now);
                return Some(Rank::Outdated);
            }
            Outcome::Reply(_) => {
                let kept = if at_hand.is_none() { wire::read_reply(entry.kept()).ok() } else { None };
                let reply = at_hand.or(kept.as_ref())?;
                let rank = won_by.unwrap_or_else(|| rank(reply));
                if entry.race.is_incomplete() && !shared.rules().accept.accepts(rank) {
                    // It is the best only because others could not be asked.
                    return Some(rank);
                }
                // A doubtful one stays so here, though no other backend could replace it.
                let rank = if rank == Rank::Decided { decision(reply).unwrap_or(rank) } else { rank };
                let is_outdone = match rank {
                    Rank::Decided => true,
                    Rank::Doubtful => !cached.is_fresh(&key, reply, now, scratch),
                    _ => false,
                };
                if is_outdone {
                    // As a failure it would not take its place.
                    cache.forget(&key);
                }
                let is_kept = cache.keep(&key, reply, rules, now, scratch);
                match rank {
                    Rank::Failure if !is_kept => {
                        // It is not remembered, but that the answer that there may be was not refreshed, is.
                        cache.note_failure(&key, rules, now);
                    }
                    Rank::Failure => {}
                    rank => {
                        let is_accepted = shared.rules().accept.accepts(rank);
                        if is_accepted && !is_kept && !reply.is_truncated() && !reply.is_referral() {
                            // What was kept is older, and says otherwise.
                            cache.forget(&key);
                        }
                        // Whether it may be kept or not: one that lost to it must not be told instead of it.
                        return (!is_accepted).then_some(rank);
                    }
                }
            }
            Outcome::Failed => {
                // Bare failures lack the question, so what the client is told stands for them.
                let (mut query, mut failure) = (Vec::new(), Vec::new());
                entry.write_query(true, &mut query);
                wire::write_error(&query, Rcode::SERVFAIL, None, worker.state.edns_udp_size, &mut failure);
                if let Ok(failure) = wire::read_reply(&failure) {
                    cache.keep(&key, &failure, rules, now, scratch);
                }
            }
            Outcome::Nothing if is_silence_told(shared.rules()) => cache.keep_silence(&key, rules, now, scratch),
            Outcome::Nothing => {
                cache.note_failure(&key, rules, now);
            }
            // Our own want says nothing of the name, nor of those who have it.
            Outcome::Unsent => {}
        }
        Some(Rank::Failure)
    }

    /// Keeps a whole answer that was fetched by TCP.
    pub(super) fn remember_whole(&mut self, reply: &Reply<'_>) {
        let Self { entry, pool, worker, scratch, now, .. } = self;
        if !entry.is_signed()
            && !pool.is_outdated(reply)
            && let Some(cached) = PoolCache::of(&worker.state, &pool.shared)
            && let Some(folded) = fold(entry)
            && let Some(question) = split(&folded, entry.flags, entry.hash)
        {
            cached.cache.keep(&cached.key(question), reply, cached.rules, *now, scratch);
        }
    }
}

/// Has the processor fetch what the look-ups of these questions, each in its pool, will read, if the cache is so large that this
/// pays.
pub fn prefetch_memory<'q>(
    state: &ForwarderState,
    questions: impl Iterator<Item = (PoolIndex, HashedQuestion<'q>)> + Clone,
) {
    let Some(cache) = &state.cache else { return };
    let key = |(pool, question): (PoolIndex, _)| Some(PoolCache::of(state, state.pools.get(pool.0)?)?.key(question));
    cache.prefetch_memory(questions.filter_map(key));
}

/// Whether there is a time when clients are told of remembered silence; else it only takes the place of better things.
fn is_silence_told(rules: &policy::Rules) -> bool {
    rules.on_timeout == Silence::Servfail || rules.on_all_down == Silence::Servfail
}

/// The folded question of a race.
fn fold<C: Client>(entry: &Entry<C>) -> Option<QuestionKey> {
    QuestionKey::of_parts(entry.question(), entry.flags)
}

/// The folded question of a reply.
pub(super) fn key_of_reply(reply: &Reply<'_>) -> Option<QuestionKey> {
    query_of_reply(reply).map(|query| QuestionKey::of(&query))
}

/// The query that a reply repeats, as far as it does.
fn query_of_reply<'a>(reply: &Reply<'a>) -> Option<Query<'a>> {
    reply.question().map(|question| Query { header: reply.header(), question, edns: None, is_signed: false })
}

/// A folded question with flags and hash of its own.
pub(super) fn split(key: &QuestionKey, flags: QuestionFlags, hash: u64) -> Option<HashedQuestion<'_>> {
    key.as_octets().split_last().map(|(_, octets)| HashedQuestion { octets, flags, hash })
}

/// Races in flight above which a worker starts none that nobody waits for.
const BUSY: usize = 256;

/// The least that every client takes (RFC 1035 section 2.3.4).
const MIN_LIMIT: usize = 512;
