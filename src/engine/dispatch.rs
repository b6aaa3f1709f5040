//! Dispatch of a valid query: to a cached answer, to a running race, to another worker, or to a new race.

use std::time::Instant;

use super::cached::{CacheResult, HashedQuestion, LookupReason};
use super::entry::{StaleAnswer, Start, Waiter};
use super::fallback::FallbackAnswer;
use super::io::{ClientHandle, Io, ResponseOrigin};
use super::pool::Pool;
use super::pools::PoolSlot;
use super::responder::ClientResponder;
use super::single_flight::WorkerId;
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

/// Observes the path of an explained query through [`Engine::on_query`]. No limit or statistic counts it.
pub(super) struct QueryObserver {
    /// True if the query stays on this worker, whichever owns the question.
    pub(super) is_handed_over: bool,
    pub(super) path: QueryPath,
}

pub(super) enum QueryPath {
    /// The query got its response from the cache.
    Cached,
    Joined(Candidates),
    Started(Candidates),
    /// The query belongs to this worker.
    Elsewhere(WorkerId),
}

impl<I: Io> Engine<I> {
    /// Takes a query. A query that was handed over stays on this worker.
    pub fn on_query(
        &mut self,
        io: &mut I,
        valid: ValidQuery<'_>,
        client: I::Client,
        reason: LookupReason,
        now: Instant,
    ) {
        self.on_observed_query(io, valid, client, reason, None, now);
    }

    pub(super) fn on_observed_query(
        &mut self,
        io: &mut I,
        valid: ValidQuery<'_>,
        client: I::Client,
        reason: LookupReason,
        mut observer: Option<&mut QueryObserver>,
        now: Instant,
    ) {
        let ValidQuery { message, query, cookie, question, pool } = valid;
        let form = ClientForm::of(query).with_cookie(cookie);
        let mut waiter = Waiter { client, form, cookie: None, queries: 1, since: now, place: ClientPlace::UNCOUNTED };
        if query.is_signed || self.worker.state.pools[pool.0].names_clients {
            return self.on_lone_query(io, valid, waiter, observer, now);
        }
        let stale = match self.look_up(io, pool, question, &waiter, reason, now) {
            CacheResult::Responded => return,
            CacheResult::RefreshDue => return self.refresh_answer(io, query, question, pool, now),
            CacheResult::Stale(stale) => stale,
            CacheResult::Nothing => StaleAnswer::Unknown,
        };
        if let Some(at) = self.in_flight.find(question.hash, question.octets, question.flags) {
            if let Some(observer) = observer {
                self.with_race(io, at, now, |race| {
                    race.entry.explain(race.spills);
                    observer.path = QueryPath::Joined(*race.entry.race.candidates());
                });
            }
            return self.join(io, at, valid, waiter, stale, now);
        }
        let claim = self.worker.shared.single_flight.take(question.hash, self.worker.me);
        if let Err(owner) = claim {
            // The owner lets it join the race, or starts another if that is over by then.
            match &mut observer {
                None if reason == LookupReason::Query => return io.hand_over(owner, message, waiter.client),
                Some(observer) if !observer.is_handed_over => return observer.path = QueryPath::Elsewhere(owner),
                None | Some(_) => {}
            }
        }
        if let Err(limit) = self.count_wait(&mut waiter, now) {
            if claim.is_ok() {
                self.worker.shared.single_flight.release(question.hash);
            }
            return self.refuse_wait(io, limit, valid, &waiter, stale, now);
        }
        let origin = RaceOrigin { waiter: Some(waiter), stale, is_claimed: claim.is_ok(), signed: None };
        self.start_for_client(io, valid, origin, observer, now);
    }

    /// Takes a query that has a race to itself and is neither answered from the cache nor cached.
    ///
    /// A query with a TSIG record is passed on unchanged except for the ID; the record has the original ID,
    /// so the forwarder does not need the key (RFC 8945 section 5.5). The client expects a reply signed by
    /// the backend. If backends see client addresses, their answer may be for that client alone.
    fn on_lone_query(
        &mut self,
        io: &mut I,
        valid: ValidQuery<'_>,
        mut waiter: Waiter<I::Client>,
        observer: Option<&mut QueryObserver>,
        now: Instant,
    ) {
        let ValidQuery { message, query, .. } = valid;
        if let Err(limit) = self.count_wait(&mut waiter, now) {
            return self.refuse_wait(io, limit, valid, &waiter, StaleAnswer::Unknown, now);
        }
        let signed = query.is_signed.then_some(message);
        let origin = RaceOrigin { waiter: Some(waiter), stale: StaleAnswer::Unknown, is_claimed: false, signed };
        // The OPT record is part of the signed message.
        let edns = query.edns.filter(|_| !query.is_signed);
        let query = &Query { edns, ..*query };
        self.start_for_client(io, ValidQuery { query, ..valid }, origin, observer, now);
    }

    fn start_for_client(
        &mut self,
        io: &mut I,
        valid: ValidQuery<'_>,
        origin: RaceOrigin<'_, I::Client>,
        observer: Option<&mut QueryObserver>,
        now: Instant,
    ) {
        let ValidQuery { query, question, pool, .. } = valid;
        let slot = self.pool_slots[pool.0];
        if observer.is_none() {
            self.count_for_probes(io, slot);
        }
        let candidates = self.start(io, query, question, slot, origin, now);
        if let Some(observer) = observer {
            observer.path = QueryPath::Started(candidates);
        }
    }

    fn count_for_probes(&mut self, io: &mut I, slot: PoolSlot) {
        let pool = self.pools.at(slot);
        let every = pool.plan.shared.rules().health.every_queries;
        let queries = pool.plan.shared.state.count_query();
        if every > 0 && queries.is_multiple_of(every.into()) {
            // In a large pool one backend is signalled and the prober does the rest.
            let probed = if pool.is_crowd() { 1 } else { pool.plan.shared.backends.len() };
            let probed = pool.plan.shared.backends.iter().take(probed);
            probed.for_each(|backend| signal_prober(io, backend, HealthSignal::ProbeDue));
        }
    }

    /// Starts a race without clients, to refresh an answer that is still fresh.
    fn refresh_answer(
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
        let origin = RaceOrigin { waiter: None, stale: StaleAnswer::Unknown, is_claimed: true, signed: None };
        self.start(io, query, question, self.pool_slots[pool.0], origin, now);
    }

    fn start(
        &mut self,
        io: &mut I,
        query: &Query<'_>,
        question: HashedQuestion<'_>,
        slot: PoolSlot,
        origin: RaceOrigin<'_, I::Client>,
        now: Instant,
    ) -> Candidates {
        let RaceOrigin { waiter, stale, is_claimed, signed } = origin;
        let is_explained = waiter.as_ref().is_some_and(|waiter| waiter.client.is_admin());
        self.refresh(io, slot, now);
        let own_udp_size = self.worker.state.edns_udp_size;
        let pool = self.pools.at(slot);
        pool.plan.in_flight += 1;
        self.worker.counters_of(&pool.plan.shared).in_flight.increment();
        let candidates = pool.candidates(io, question.qname(), &self.worker.shared.hasher, &mut self.rng, now);
        let race = Race::start(&pool.race_context(waiter.is_some()), &candidates, now);
        let HashedQuestion { octets, flags, hash } = question;
        if pool.plan.shared.config.audit.is_some() && signed.is_none() {
            pool.plan.shared.state.compared.note_recent(octets, flags);
        }
        let plan = pool.plan.number;
        let is_alone = signed.is_some() || pool.plan.shared.names_clients;
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
    fn join(
        &mut self,
        io: &mut I,
        at: RaceRef,
        valid: ValidQuery<'_>,
        mut waiter: Waiter<I::Client>,
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
            match race.worker.wait(&waiter.client, now) {
                Ok(place) => waiter.place = place,
                Err(limit) => return Some((limit, waiter)),
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

    fn count_wait(&self, waiter: &mut Waiter<I::Client>, now: Instant) -> Result<(), Limit> {
        waiter.place = self.worker.wait(&waiter.client, now)?;
        Ok(())
    }

    /// Responds to a query that may not wait: with a stale answer if there is one, otherwise with the reason.
    fn refuse_wait(
        &mut self,
        io: &mut I,
        limit: Limit,
        valid: ValidQuery<'_>,
        waiter: &Waiter<I::Client>,
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
        let mut responder = ClientResponder::new(io, &self.worker, &mut self.scratch, now);
        fallback.give(&mut responder, &self.worker.counters, waiter, &resolution, question.octets);
    }
}

impl EngineWorker {
    /// Lets a query of a client wait, if the limits permit it. After a gap without a serving process the
    /// backlog is as large as the gap is long, so the limit of a client is higher then.
    fn wait(&self, client: &impl ClientHandle, now: Instant) -> Result<ClientPlace, Limit> {
        let (clients, rules) = (&self.shared.clients, self.state.limits);
        if client.is_admin() {
            return Ok(clients.wait_regardless());
        }
        let waits = match clients.wait(client.ip(), rules) {
            Err(TooMuch::OfClient) if self.shared.catching_up_until.is_some_and(|until| now < until) => {
                clients.wait(client.ip(), rules.for_backlog())
            }
            waits => waits,
        };
        waits.map_err(|too_much| match too_much {
            TooMuch::OfClient => Limit::Waiting,
            TooMuch::InAll => Limit::InFlight,
        })
    }
}

struct RaceOrigin<'a, C> {
    waiter: Option<Waiter<C>>,
    stale: StaleAnswer,
    is_claimed: bool,
    signed: Option<&'a [u8]>,
}

/// The number of clients that may wait for one race. One tick answers all of them, which takes milliseconds.
const MAX_WAITERS: usize = 10_000;
