//! Memory: the cache, as the queries and races of one worker use it.
//!
//! ```text
//!   query ──▶ recall ──▶ good, or failed not long ago: the client has its response
//!                   ├──▶ good, but soon over: the same, and a race for nobody refreshes it
//!                   ├──▶ over: a race, whose clients may be given it (respond_stale)
//!                   └──▶ nothing: a race
//!   race that ends ──▶ remember ──▶ what late replies must be worth to be kept (remember_late)
//! ```
//!
//! A failure that is remembered (RFC 9520) is told at once to whoever asks again within `failure_ttl`, and no backend is asked.
//! Silence is such a failure where the pool's word for it is SERVFAIL. Where it is another, clients were given an answer that was
//! made up, and what is made up is never told from memory: nothing is remembered, and the next query races again. If an attempt
//! was only slow, its late reply takes the place of the failure. Nor is anything remembered of a race in which not all could be
//! asked for want of something of our own, unless its winner would have won anyway.

use std::time::{Duration, Instant};

use super::allowance::Receiver;
use super::entry::{Entry, StaleAnswer, Waiter};
use super::pool::pool_at;
use super::races::rank;
use super::responses::{Clock, Out, Word, limit};
use super::slots::RaceRef;
use super::{Forwarder, QTYPE_QCLASS, Quarantined};
use crate::cache::{self, Cache, CachedFailure, Found, Key, PoolId, Rules};
use crate::config::PoolIndex;
use crate::metrics::Source;
use crate::policy::race::Outcome;
use crate::policy::{self, Rank, Silence};
use crate::state::{ForwarderState, SharedPool};
use crate::wire::{self, ClientForm, Query, QuestionFlags, QuestionKey, Rcode, Reply};

/// The cache, for one pool.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a> {
    /// All that is kept.
    cache: &'a Cache,
    /// For how long.
    rules: &'a Rules,
    /// The pool.
    pool: PoolId,
}

impl<'a> Memory<'a> {
    /// The memory of a pool, unless it does without.
    fn of(state: &'a ForwarderState, pool: &SharedPool) -> Option<Self> {
        let (cache, config) = state.cache.as_deref().zip(state.cache_config.as_ref())?;
        pool.config.cache.then_some(Self { cache, rules: &config.rules, pool: pool.id })
    }

    /// What an answer is found by.
    fn key<'q>(&self, asked: Asked<'q>) -> Key<'q> {
        Key::new(self.pool, asked.question, asked.flags, asked.hash)
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
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Folded name, type and class.
    pub(super) question: &'a [u8],
    /// RD, CD and DO, as the question's key has them.
    pub(super) flags: QuestionFlags,
    /// The hash of `question`.
    pub(super) hash: u64,
}

impl<'a> Asked<'a> {
    /// The folded name.
    pub(super) fn qname(&self) -> &'a [u8] {
        self.question.get(..self.question.len().saturating_sub(QTYPE_QCLASS)).unwrap_or_default()
    }
}

/// What came of asking the memory first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recalled {
    /// The client has its response.
    Responded,
    /// The same, and the answer is to be refreshed before it runs out.
    RefreshDue,
    /// There is only an answer whose time to live is over; a client gets it if a race has not helped by then.
    Stale(StaleAnswer),
    /// There is nothing.
    Nothing,
}

/// On whose behalf the memory is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Of a query that has come.
    First,
    /// Of a query that another worker has looked up, and counted, before it handed it over.
    Again,
    /// Of a client whose race has failed, or has kept it waiting for long enough.
    InNeed,
}

impl Look {
    /// Whether what was found is given to the client.
    fn takes(self, found: Found) -> bool {
        match (self, found) {
            (_, Found::Fresh { .. }) | (_, Found::Stale { is_race_due: false }) => true,
            (Self::InNeed, Found::Stale { is_race_due: true }) => true,
            (Self::First | Self::Again, Found::Stale { is_race_due: true }) => false,
            (Self::First | Self::Again, Found::Failed(CachedFailure::Servfail)) => true,
            (Self::InNeed, Found::Failed(CachedFailure::Servfail)) => false,
            (_, Found::Failed(CachedFailure::Silence) | Found::Nothing) => false,
        }
    }
}

impl Out<'_> {
    /// Gives a client what is kept for it, if that is what is looked for, and says what was found.
    fn recall(&mut self, memory: Memory<'_>, key: &Key<'_>, waiter: &Waiter, look: Look, now: Instant) -> Found {
        let Memory { cache, rules, .. } = memory;
        let client = &waiter.client;
        let (late, own_udp_size) = (self.late_form(waiter), self.own_udp_size);
        let form = late.as_ref().unwrap_or(&waiter.form);
        let asker = cache::ResponseFor { form, own_udp_size, limit: limit(client, form, own_udp_size) };
        let (mut found, mut rcode) = (Found::Nothing, Rcode::NOERROR);
        let sent = self.offer(client, Receiver::of(waiter, now), |out| {
            found = match look {
                Look::First => cache.look_up(key, &asker, rules, now, out),
                Look::Again | Look::InNeed => cache.look_stale(key, &asker, rules, now, out),
            };
            if look.takes(found) {
                rcode = wire::Header::read(out).map_or(rcode, |header| header.rcode());
            } else {
                out.clear();
            }
        });
        if look.takes(found) {
            let source = if matches!(found, Found::Stale { .. }) { Source::Stale } else { Source::Cache };
            self.count(sent, source, rcode, waiter.queries);
        }
        found
    }
}

impl Forwarder {
    /// Responds to a query from memory, if that can be done.
    pub(super) fn recall(
        &mut self,
        pool: PoolIndex,
        asked: Asked<'_>,
        waiter: &Waiter,
        look: Look,
        now: Instant,
    ) -> Recalled {
        let shared = &self.state.pools[pool.0];
        let Some(memory) = Memory::of(&self.state, shared) else { return Recalled::Nothing };
        let mut out = Out::of(&mut self.way, &self.counters, &self.state, &self.shared, now);
        let found = out.recall(memory, &memory.key(asked), waiter, look, now);
        let recalled = match found {
            Found::Fresh { is_refresh_due: true } => Recalled::RefreshDue,
            Found::Fresh { is_refresh_due: false } => Recalled::Responded,
            Found::Stale { is_race_due: false } | Found::Failed(CachedFailure::Servfail) => Recalled::Responded,
            Found::Stale { is_race_due: true } => {
                // Who is down is asked all the same, but nobody waits for it.
                let is_up = shared.backends.iter().any(|backend| backend.takes_queries());
                let patience = if is_up { memory.rules.stale_answer_after } else { Duration::ZERO };
                return Recalled::Stale(StaleAnswer::At(now + patience));
            }
            Found::Failed(CachedFailure::Silence) => {
                let failure_ttl = memory.rules.failure_ttl;
                let is_told = self.respond_silence(self.pool_places[pool.0], asked, waiter, failure_ttl, now);
                return if is_told { Recalled::Responded } else { Recalled::Nothing };
            }
            Found::Nothing => return Recalled::Nothing,
        };
        Clock::of(shared, self.me, now).stop(waiter);
        recalled
    }

    /// Tells a client at once that nobody has replied to another, if it would be told SERVFAIL. Returns whether that was done.
    ///
    /// Deviation: RFC 9520 section 3.2 has failures remembered for a second at least. But once a backend has come up, what is
    /// remembered of silence is most likely about the time before, and is not believed until it would have been forgotten.
    /// And where silence means "no such name", a name that a table gets is to be seen at once.
    fn respond_silence(
        &mut self,
        place: u16,
        asked: Asked<'_>,
        waiter: &Waiter,
        failure_ttl: Duration,
        now: Instant,
    ) -> bool {
        self.refresh(place, now);
        let pool = pool_at(&mut self.pools, place);
        if pool.has_recovered_within(failure_ttl, now) {
            return false;
        }
        let is_up = pool.shared.backends.iter().any(|backend| backend.is_up());
        let word = Word::of_silence(pool.shared.rules(), is_up);
        if word.rcode != Some(Rcode::SERVFAIL) {
            return false;
        }
        let clock = Clock::of(&pool.shared, self.me, now);
        Out::of(&mut self.way, &self.counters, &self.state, &self.shared, now).say(clock, waiter, asked.question, word);
        true
    }

    /// Gives an answer from memory, stale or fresh, to all who wait for a race, if there is one.
    pub(super) fn respond_stale(&mut self, at: RaceRef, now: Instant) {
        let Some(entry) = self.in_flight.get_mut(at).filter(|entry| !entry.is_signed()) else { return };
        entry.set_stale(StaleAnswer::Unknown);
        let shared = &pool_at(&mut self.pools, entry.pool).shared;
        let Some((memory, key)) = Memory::of(&self.state, shared).zip(key_of_race(entry)) else { return };
        let Some(asked) = asked(&key, entry.flags, entry.hash) else { return };
        let clock = Clock::of(shared, self.me, now);
        let mut out = Out::of(&mut self.way, &self.counters, &self.state, &self.shared, now);
        entry.retain_waiters(&self.shared.clients, |waiter| {
            let found = out.recall(memory, &memory.key(asked), waiter, Look::InNeed, now);
            let is_responded = Look::InNeed.takes(found);
            if is_responded {
                clock.stop(waiter);
            }
            !is_responded
        });
        // Whoever still waits came to nothing: it had to make room for others meanwhile.
        if !entry.has_waiters() {
            entry.set_stale(StaleAnswer::Given);
        }
    }

    /// Remembers what a race has come to. Returns above which rank a late reply is better than that, if any is.
    pub(super) fn remember(
        &mut self,
        at: RaceRef,
        outcome: Outcome,
        at_hand: Option<&Reply<'_>>,
        now: Instant,
    ) -> Option<Rank> {
        let entry = self.in_flight.get(at).filter(|entry| !entry.is_signed())?;
        let shared = &pool_at(&mut self.pools, entry.pool).shared;
        let (memory, key) = Memory::of(&self.state, shared).zip(key_of_race(entry))?;
        let key = memory.key(asked(&key, entry.flags, entry.hash)?);
        let Memory { cache, rules, .. } = memory;
        let scratch = &mut self.scratch;
        match outcome {
            Outcome::Reply(_) => {
                let kept = if at_hand.is_none() { wire::read_reply(entry.kept()).ok() } else { None };
                let reply = at_hand.or(kept.as_ref())?;
                if entry.race.is_incomplete() && !shared.rules().accept.accepts(rank(reply)) {
                    // It is the best only because others could not be asked.
                    return Some(rank(reply));
                }
                let is_kept = cache.keep(&key, reply, rules, now, scratch);
                match rank(reply) {
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
                wire::write_error(&query, Rcode::SERVFAIL, None, self.state.edns_udp_size, &mut failure);
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
    pub(super) fn remember_whole(&mut self, at: RaceRef, reply: &Reply<'_>, now: Instant) {
        let Some(entry) = self.in_flight.get(at).filter(|entry| !entry.is_signed()) else { return };
        let shared = &pool_at(&mut self.pools, entry.pool).shared;
        if let Some((memory, key)) = Memory::of(&self.state, shared).zip(key_of_race(entry))
            && let Some(asked) = asked(&key, entry.flags, entry.hash)
        {
            memory.cache.keep(&memory.key(asked), reply, memory.rules, now, &mut self.scratch);
        }
    }

    /// Keeps a reply that came after its race was over and answers what was asked, if it is better than what the race had come
    /// to. Returns whether it is kept.
    pub(super) fn remember_late(
        &mut self,
        late: &Quarantined,
        asked: Asked<'_>,
        reply: &Reply<'_>,
        now: Instant,
    ) -> bool {
        let rank = rank(reply);
        if late.above.is_none_or(|least| rank <= least) {
            return false;
        }
        let Some(pool) = self.pools.get(usize::from(late.pool)).and_then(Option::as_ref) else { return false };
        let Some(memory) = Memory::of(&self.state, &pool.shared) else { return false };
        let key = memory.key(asked);
        // One that would not have won does not take the place of what is good.
        let would_win = pool.shared.rules().accept.accepts(rank);
        if !would_win && memory.is_fresh(&key, reply, now, &mut self.scratch) {
            return false;
        }
        memory.cache.keep(&key, reply, memory.rules, now, &mut self.scratch)
    }

    /// Whether fewer races run than leave a worker time to spare for those that nobody waits for.
    pub(super) fn has_time_to_refresh(&self) -> bool {
        !self.way.is_draining && self.in_flight.len() < BUSY
    }
}

/// Fetches what the look-ups of these questions, each in its pool, will read, if the cache is so large that this pays.
pub(super) fn prefetch_memory<'q>(
    state: &ForwarderState,
    questions: impl Iterator<Item = (PoolIndex, Asked<'q>)> + Clone,
) {
    let Some(cache) = &state.cache else { return };
    cache.prefetch_memory(
        questions.filter_map(|(pool, asked)| Some(Memory::of(state, state.pools.get(pool.0)?)?.key(asked))),
    );
}

/// Whether there is a time when clients are told of remembered silence; else it only takes the place of better things.
fn is_silence_told(rules: &policy::Rules) -> bool {
    rules.on_timeout == Silence::Servfail || rules.on_all_down == Silence::Servfail
}

/// The folded question of a race.
fn key_of_race(entry: &Entry) -> Option<QuestionKey> {
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
pub(super) fn asked(key: &QuestionKey, flags: QuestionFlags, hash: u64) -> Option<Asked<'_>> {
    key.as_octets().split_last().map(|(_, question)| Asked { question, flags, hash })
}

/// Races in flight above which a worker starts none that nobody waits for.
const BUSY: usize = 256;

/// The least that every client takes (RFC 1035 section 2.3.4).
const MIN_LIMIT: usize = 512;
