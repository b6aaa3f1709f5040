//! Dispatching a valid query: to an answer from the cache, to a race that runs, to another worker, or to a race of its own.

use std::net::IpAddr;
use std::time::Instant;

use super::cached::{CacheResult, HashedQuestion, Reason};
use super::entry::{StaleAnswer, Start, Waiter};
use super::fallback::FallbackAnswer;
use super::io::{Client, Io, Resolution};
use super::pool::Pool;
use super::pools::PoolSlot;
use super::slots::RaceRef;
use super::{Engine, Worker, tell_prober};
use crate::config::PoolIndex;
use crate::limit::{Place, TooMuch};
use crate::metrics::Limit;
use crate::policy::race::{Candidates, Race};
use crate::state::HealthSignal;
use crate::wire::{self, ClientForm, Cookie, Query};

/// A valid query, and what has been made of it.
#[derive(Clone, Copy)]
pub struct ValidQuery<'a> {
    /// Its octets.
    pub message: &'a [u8],
    /// As it was read.
    pub query: &'a Query<'a>,
    /// What it gets for its cookie.
    pub cookie: Option<Cookie>,
    /// What it asks.
    pub question: HashedQuestion<'a>,
    /// Its pool.
    pub pool: PoolIndex,
}

impl<C: Client> Engine<C> {
    /// Takes a query. One that was handed over stays here.
    pub fn on_query<I: Io<Client = C>>(
        &mut self,
        io: &mut I,
        valid: ValidQuery<'_>,
        client: C,
        reason: Reason,
        now: Instant,
    ) {
        let ValidQuery { message, query, cookie, question, pool } = valid;
        let form = ClientForm::of(query).with_cookie(cookie);
        let mut waiter = Waiter { client, form, cookie: None, queries: 1, since: now, place: Place::UNCOUNTED };
        if query.is_signed || self.worker.state.pools[pool.0].names_clients {
            return self.on_lone_query(io, valid, waiter, now);
        }
        let stale = match self.look_up(io, pool, question, &waiter, reason, now) {
            CacheResult::Responded => return,
            CacheResult::RefreshDue => return self.refresh_answer(io, query, question, pool, now),
            CacheResult::Stale(stale) => stale,
            CacheResult::Nothing => StaleAnswer::Unknown,
        };
        if let Some(at) = self.in_flight.find(question.hash, question.octets, question.flags) {
            return self.join(io, at, valid, waiter, stale, now);
        }
        let claim = self.worker.shared.single_flight.take(question.hash, self.worker.me);
        if let Err(owner) = claim
            && reason == Reason::Query
        {
            // It will find the race to join; or, if that is over by then, start another.
            return io.hand_over(owner, message, waiter.client);
        }
        if let Err(limit) = self.count_wait(&mut waiter, now) {
            if claim.is_ok() {
                self.worker.shared.single_flight.release(question.hash);
            }
            return self.refuse_wait(io, limit, valid, &waiter, stale, now);
        }
        let slot = self.pool_slots[pool.0];
        self.count_for_probes(io, slot);
        let origin =
            Origin { waiter: Some(waiter), stale, is_claimed: claim.is_ok(), signed: None, is_explained: false };
        self.start(io, query, question, slot, origin, now);
    }

    /// Takes a query that has a race of its own, neither answered from the cache nor kept there.
    ///
    /// One with a TSIG record is passed on as it came, but for the ID, whose original stands in the record; so the forwarder need not
    /// have the key (RFC 8945 section 5.5). Who signs wants the backend's word, signed. Where backends are told who asks, what they
    /// answer may be for that client alone.
    fn on_lone_query<I: Io<Client = C>>(
        &mut self,
        io: &mut I,
        valid: ValidQuery<'_>,
        mut waiter: Waiter<C>,
        now: Instant,
    ) {
        let ValidQuery { message, query, question, pool, .. } = valid;
        if let Err(limit) = self.count_wait(&mut waiter, now) {
            return self.refuse_wait(io, limit, valid, &waiter, StaleAnswer::Unknown, now);
        }
        let slot = self.pool_slots[pool.0];
        self.count_for_probes(io, slot);
        let origin = Origin {
            waiter: Some(waiter),
            stale: StaleAnswer::Unknown,
            is_claimed: false,
            signed: query.is_signed.then_some(message),
            is_explained: false,
        };
        // Its OPT record is a part of what is signed.
        let edns = query.edns.filter(|_| !query.is_signed);
        self.start(io, &Query { edns, ..*query }, question, slot, origin, now);
    }

    /// Counts a query to a pool, after some of which the backends are probed.
    fn count_for_probes<I: Io<Client = C>>(&mut self, io: &mut I, slot: PoolSlot) {
        let pool = self.pools.at(slot);
        let every = pool.shared.rules().health.every_queries;
        let queries = pool.shared.state.count_query();
        if every > 0 && queries.is_multiple_of(every.into()) {
            // Who takes care of thousands passes it on to the others.
            let told = if pool.is_crowd() { 1 } else { pool.shared.backends.len() };
            let told = pool.shared.backends.iter().take(told);
            told.for_each(|backend| tell_prober(io, backend, HealthSignal::ProbeDue));
        }
    }

    /// Starts a race that nobody waits for, to refresh an answer that is good still; unless somebody races for it already, or
    /// the worker has better things to do, or there is nobody to ask.
    pub(super) fn refresh_answer<I: Io<Client = C>>(
        &mut self,
        io: &mut I,
        query: &Query<'_>,
        question: HashedQuestion<'_>,
        pool: PoolIndex,
        now: Instant,
    ) {
        let HashedQuestion { octets, flags, hash } = question;
        let shared = &self.worker.state.pools[pool.0];
        if !self.has_time_to_refresh()
            || !self.pools.get(self.pool_slots[pool.0]).is_some_and(Pool::takes_queries)
            || self.in_flight.find(hash, octets, flags).is_some()
            || self.worker.shared.single_flight.take(hash, self.worker.me).is_err()
        {
            return;
        }
        self.worker.counters_of(shared).prefetches.increment();
        let origin =
            Origin { waiter: None, stale: StaleAnswer::Unknown, is_claimed: true, signed: None, is_explained: false };
        self.start(io, query, question, self.pool_slots[pool.0], origin, now);
    }

    /// Starts a race, for a client or for nobody. Returns who may be asked.
    pub(super) fn start<I: Io<Client = C>>(
        &mut self,
        io: &mut I,
        query: &Query<'_>,
        question: HashedQuestion<'_>,
        slot: PoolSlot,
        origin: Origin<'_, C>,
        now: Instant,
    ) -> Candidates {
        let Origin { waiter, stale, is_claimed, signed, is_explained } = origin;
        self.refresh(io, slot, now);
        let own_udp_size = self.worker.state.edns_udp_size;
        let pool = self.pools.at(slot);
        pool.in_flight += 1;
        self.worker.counters_of(&pool.shared).in_flight.increment();
        let candidates = pool.candidates(io, question.qname(), &self.worker.shared.hasher, &mut self.rng, now);
        let race = Race::start(&pool.race_context(waiter.is_some()), &candidates, now);
        let HashedQuestion { octets, flags, hash } = question;
        if pool.shared.config.audit.is_some() && signed.is_none() {
            pool.shared.state.compared.note_recent(octets, flags);
        }
        let plan = pool.plan;
        let is_alone = signed.is_some() || pool.shared.names_clients;
        let start = Start { race, pool: slot, plan, hash, is_claimed, is_alone, flags, waiter, stale };
        let at = self.in_flight.insert(start, |out| wire::write_query(query, own_udp_size, out));
        self.with_race(io, at, now, |race| {
            if let Some(message) = signed {
                race.entry.sign(message, race.spills);
            }
            if is_explained {
                race.entry.explain(race.spills);
            }
            race.drive(None);
        });
        candidates
    }

    /// Lets a query wait for a race that runs already. The client's own query, sent again, is a hint of loss.
    pub(super) fn join<I: Io<Client = C>>(
        &mut self,
        io: &mut I,
        at: RaceRef,
        valid: ValidQuery<'_>,
        mut waiter: Waiter<C>,
        mut stale: StaleAnswer,
        now: Instant,
    ) {
        let refused = self.with_race(io, at, now, |race| {
            if race.entry.race.is_doubted() {
                // What is stale does not replace a decision.
                stale = StaleAnswer::Unknown;
            }
            if race.entry.stale() == StaleAnswer::Unknown {
                race.entry.set_stale(stale);
            }
            if race.entry.count_again(&waiter.client, &waiter.form) {
                if !race.entry.is_fetching {
                    race.entry.race.on_retransmission();
                    race.drive(None);
                }
                return None;
            }
            if race.entry.is_fetching && !waiter.client.transport().is_stream() {
                race.respond_meanwhile(&waiter);
                return None;
            }
            if race.entry.waiter_count() >= MAX_WAITERS {
                return Some((Limit::Waiting, waiter));
            }
            let place = match waiter.client.is_admin() {
                true => Ok(race.worker.shared.clients.wait_regardless()),
                false => race.worker.wait(waiter.client.ip(), now),
            };
            match place {
                Ok(place) => waiter.place = place,
                Err(too_much) => return Some((limit_met(too_much), waiter)),
            }
            let had_nobody = !race.entry.has_waiters();
            race.entry.add_waiter(waiter, race.spills);
            match race.entry.stale() {
                StaleAnswer::Given => race.respond_stale(),
                // What nobody had waited for may hedge from now on, and there may be a time to be patient until.
                StaleAnswer::Unknown | StaleAnswer::At(_) if had_nobody || stale != StaleAnswer::Unknown => {
                    race.drive(None);
                }
                StaleAnswer::Unknown | StaleAnswer::At(_) => {}
            }
            None
        });
        if let Some((limit, waiter)) = refused.flatten() {
            self.refuse_wait(io, limit, valid, &waiter, stale, now);
        }
    }

    /// Counts a query that is to wait for backends, among those of its client and of all.
    fn count_wait(&self, waiter: &mut Waiter<C>, now: Instant) -> Result<(), Limit> {
        let place = self.worker.wait(waiter.client.ip(), now);
        waiter.place = place.map_err(limit_met)?;
        Ok(())
    }

    /// Answers a query that may not wait: with what is stale, if there is something, else by saying why.
    fn refuse_wait<I: Io<Client = C>>(
        &mut self,
        io: &mut I,
        limit: Limit,
        valid: ValidQuery<'_>,
        waiter: &Waiter<C>,
        stale: StaleAnswer,
        now: Instant,
    ) {
        let ValidQuery { question, pool, .. } = valid;
        self.worker.shared.limited.count(limit);
        if stale != StaleAnswer::Unknown
            && self.look_up(io, pool, question, waiter, Reason::Need, now) == CacheResult::Responded
        {
            return;
        }
        let fallback = if limit == Limit::InFlight { FallbackAnswer::BUSY } else { FallbackAnswer::TOO_MANY };
        let resolution = Resolution::at_once(question.hash, &self.worker.state.pools[pool.0]);
        let resolution = Resolution { is_limited: true, ..resolution };
        fallback.give(io, &self.worker.counters, waiter, &resolution, question.octets, now);
    }
}

impl Worker {
    /// Lets a query of a client wait, if the limits permit it. The backlog of a gap in which no process served is as large as the gap is
    /// long, so a client may have more of it wait.
    fn wait(&self, client: IpAddr, now: Instant) -> Result<Place, TooMuch> {
        let (clients, rules) = (&self.shared.clients, self.state.limits);
        match clients.wait(client, rules) {
            Err(TooMuch::OfClient) if self.shared.catching_up_until.is_some_and(|until| now < until) => {
                clients.wait(client, rules.for_backlog())
            }
            waits => waits,
        }
    }
}

/// Why a race starts.
pub(super) struct Origin<'a, C> {
    /// Who waits for it; `None`: it is to refresh an answer.
    pub(super) waiter: Option<Waiter<C>>,
    /// Whether those who wait may be given a stale answer.
    pub(super) stale: StaleAnswer,
    /// Whether this worker holds the claim for the question.
    pub(super) is_claimed: bool,
    /// The query as it came, if it bears a TSIG record.
    pub(super) signed: Option<&'a [u8]>,
    /// Whether an operator wants to know all of it.
    pub(super) is_explained: bool,
}

fn limit_met(too_much: TooMuch) -> Limit {
    match too_much {
        TooMuch::OfClient => Limit::Waiting,
        TooMuch::InAll => Limit::InFlight,
    }
}

/// Clients that may wait for one race. All of them are answered in one tick, which others then wait for: a few milliseconds.
const MAX_WAITERS: usize = 10_000;
