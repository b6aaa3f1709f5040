//! Dispatch of a valid query: to a cached answer, to a running race, to another worker, or to a new race.

use std::net::IpAddr;
use std::time::Instant;

use super::cached::{CacheResult, HashedQuestion, LookupReason};
use super::entry::{StaleAnswer, Start, Waiter};
use super::fallback::FallbackAnswer;
use super::io::{ClientHandle, Io, ResponseOrigin};
use super::pool::Pool;
use super::pools::PoolSlot;
use super::slots::RaceRef;
use super::{Engine, EngineWorker, signal_prober};
use crate::config::PoolIndex;
use crate::limit::{ClientPlace, TooMuch};
use crate::metrics::Limit;
use crate::policy::race::{Candidates, Race};
use crate::state::HealthSignal;
use crate::wire::{self, ClientForm, Cookie, Query};

/// A valid query with its parsed parts.
#[derive(Clone, Copy)]
pub struct ValidQuery<'a> {
    /// The message in wire form.
    pub message: &'a [u8],
    /// The parsed query.
    pub query: &'a Query<'a>,
    /// The cookie that the response carries.
    pub cookie: Option<Cookie>,
    /// The question with its hash.
    pub question: HashedQuestion<'a>,
    /// The pool that answers.
    pub pool: PoolIndex,
}

impl<C: ClientHandle> Engine<C> {
    /// Takes a query. A query that was handed over stays on this worker.
    pub fn on_query<I: Io<Client = C>>(
        &mut self,
        io: &mut I,
        valid: ValidQuery<'_>,
        client: C,
        reason: LookupReason,
        now: Instant,
    ) {
        let ValidQuery { message, query, cookie, question, pool } = valid;
        let form = ClientForm::of(query).with_cookie(cookie);
        let mut waiter = Waiter { client, form, cookie: None, queries: 1, since: now, place: ClientPlace::UNCOUNTED };
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
            && reason == LookupReason::Query
        {
            // The owner lets it join the race, or starts another if that is over by then.
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
            RaceOrigin { waiter: Some(waiter), stale, is_claimed: claim.is_ok(), signed: None, is_explained: false };
        self.start(io, query, question, slot, origin, now);
    }

    /// Takes a query that has a race to itself and is neither answered from the cache nor cached.
    ///
    /// A query with a TSIG record is passed on unchanged except for the ID; the record has the original ID,
    /// so the forwarder does not need the key (RFC 8945 section 5.5). The client expects a reply signed by
    /// the backend. If backends see client addresses, their answer may be for that client alone.
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
        let origin = RaceOrigin {
            waiter: Some(waiter),
            stale: StaleAnswer::Unknown,
            is_claimed: false,
            signed: query.is_signed.then_some(message),
            is_explained: false,
        };
        // The OPT record is part of the signed message.
        let edns = query.edns.filter(|_| !query.is_signed);
        self.start(io, &Query { edns, ..*query }, question, slot, origin, now);
    }

    fn count_for_probes<I: Io<Client = C>>(&mut self, io: &mut I, slot: PoolSlot) {
        let pool = self.pools.at(slot);
        let every = pool.shared.rules().health.every_queries;
        let queries = pool.shared.state.count_query();
        if every > 0 && queries.is_multiple_of(every.into()) {
            // In a large pool one backend is signalled and the prober does the rest.
            let probed = if pool.is_crowd() { 1 } else { pool.shared.backends.len() };
            let probed = pool.shared.backends.iter().take(probed);
            probed.for_each(|backend| signal_prober(io, backend, HealthSignal::ProbeDue));
        }
    }

    /// Starts a race without clients, to refresh an answer that is still fresh.
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
        let origin = RaceOrigin {
            waiter: None,
            stale: StaleAnswer::Unknown,
            is_claimed: true,
            signed: None,
            is_explained: false,
        };
        self.start(io, query, question, self.pool_slots[pool.0], origin, now);
    }

    pub(super) fn start<I: Io<Client = C>>(
        &mut self,
        io: &mut I,
        query: &Query<'_>,
        question: HashedQuestion<'_>,
        slot: PoolSlot,
        origin: RaceOrigin<'_, C>,
        now: Instant,
    ) -> Candidates {
        let RaceOrigin { waiter, stale, is_claimed, signed, is_explained } = origin;
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

    /// Lets a query wait for a running race. A retransmission by the same client is a hint of loss.
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
            let had_no_waiter = !race.entry.has_waiters();
            race.entry.add_waiter(waiter, race.spills);
            match race.entry.stale() {
                StaleAnswer::Given => race.respond_stale(),
                // A race that had no clients may hedge from now on, and its stale time may change.
                StaleAnswer::Unknown | StaleAnswer::At(_) if had_no_waiter || stale != StaleAnswer::Unknown => {
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

    fn count_wait(&self, waiter: &mut Waiter<C>, now: Instant) -> Result<(), Limit> {
        let place = self.worker.wait(waiter.client.ip(), now);
        waiter.place = place.map_err(limit_met)?;
        Ok(())
    }

    /// Responds to a query that may not wait: with a stale answer if there is one, otherwise with the reason.
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
            && self.look_up(io, pool, question, waiter, LookupReason::Need, now) == CacheResult::Responded
        {
            return;
        }
        let fallback = if limit == Limit::InFlight { FallbackAnswer::BUSY } else { FallbackAnswer::TOO_MANY };
        let resolution = ResponseOrigin::at_once(question.hash, &self.worker.state.pools[pool.0]);
        let resolution = ResponseOrigin { is_limited: true, ..resolution };
        fallback.give(io, &self.worker.counters, waiter, &resolution, question.octets, now);
    }
}

impl EngineWorker {
    /// Lets a query of a client wait, if the limits permit it. After a gap without a serving process the
    /// backlog is as large as the gap is long, so the limit of a client is higher then.
    fn wait(&self, client: IpAddr, now: Instant) -> Result<ClientPlace, TooMuch> {
        let (clients, rules) = (&self.shared.clients, self.state.limits);
        match clients.wait(client, rules) {
            Err(TooMuch::OfClient) if self.shared.catching_up_until.is_some_and(|until| now < until) => {
                clients.wait(client, rules.for_backlog())
            }
            waits => waits,
        }
    }
}

pub(super) struct RaceOrigin<'a, C> {
    pub(super) waiter: Option<Waiter<C>>,
    pub(super) stale: StaleAnswer,
    pub(super) is_claimed: bool,
    pub(super) signed: Option<&'a [u8]>,
    pub(super) is_explained: bool,
}

fn limit_met(too_much: TooMuch) -> Limit {
    match too_much {
        TooMuch::OfClient => Limit::Waiting,
        TooMuch::InAll => Limit::InFlight,
    }
}

/// The number of clients that may wait for one race. One tick answers all of them, which takes milliseconds.
const MAX_WAITERS: usize = 10_000;
