//! Queries: each gets a cached answer, joins a running race, goes to another worker, or starts a race.

use std::time::{Duration, Instant};

use config::{KeyWord, PoolIndex};
use dns::{ClientForm, ClientSubnet, Cookie, MalformedClientSubnet, Query, Rcode};
use hedge::race::Candidates;
use limit::{ClientPlace, TooMuch, ZonePlaces};
use metrics::Limit;

use super::asked::{hedge_delay_of, known_backends, ordered, seen_in_cache};
use super::cached::{CacheResult, HashedQuestion, LookupReason, PoolCache, SubnetQuery};
use super::entry::{StaleAnswer, Start, Waiter};
use super::explain::millis;
use super::io::{ClientHandle, Io, ResponseOrigin};
use super::pool::Pool;
use super::pools::PoolSlot;
use super::responses::{ClientResponder, FallbackAnswer, TextRoom};
use super::single_flight::WorkerId;
use super::slots::RaceRef;
use super::subnet::SentSubnet;
use super::{Engine, EngineWorker, Race, Tick, signal_prober, zones};
use crate::cache::{CacheLookup, CachedFailure};
use crate::explanation::Plan;
use crate::state::HealthSignal;

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
    /// The reason for the cache look-up.
    pub reason: LookupReason,
    /// The client subnet for backends, which the engine chooses.
    pub subnet: Option<SentSubnet>,
    /// True if another worker handed the query over, so that it stays on this one.
    pub is_handed_over: bool,
}

/// The path of a query through the engine.
#[derive(Debug)]
pub enum QueryPath<C> {
    /// The client has its response.
    Responded,
    /// The query joined the race of an equal one, with these candidates.
    Joined(Candidates),
    /// The query started a race with these candidates.
    Started(Candidates),
    /// The caller must hand the query over to this worker, which races for its question.
    Elsewhere(WorkerId, C),
}

struct RaceOrigin<'a, C> {
    waiter: Option<Waiter<C>>,
    zones: ZonePlaces,
    stale: StaleAnswer,
    is_claimed: bool,
    signed: Option<&'a [u8]>,
}

impl<I: Io> Tick<'_, I> {
    /// Takes a query. No limit and no statistic counts that of an operator.
    pub fn on_query(&mut self, mut valid: ValidQuery<'_>, client: I::Client) -> QueryPath<I::Client> {
        let ValidQuery { query, cookie, question, pool, reason, is_handed_over, .. } = valid;
        let form = ClientForm::of(query).with_cookie(cookie);
        let place = ClientPlace::UNCOUNTED;
        let mut waiter = Waiter { client, form, cookie: None, subnet: None, queries: 1, since: self.now, place };
        let shared = &self.engine.worker.state.pools[pool.0];
        let names_clients = shared.names_clients;
        if !shared.sends_no_subnet() && self.choose_subnet(&mut valid, &mut waiter).is_err() {
            return QueryPath::Responded;
        }
        if query.is_signed || names_clients {
            return self.on_lone_query(valid, waiter);
        }
        let stale = match self.look_up(&valid, &waiter, reason) {
            CacheResult::Responded => return QueryPath::Responded,
            CacheResult::RefreshDue => {
                self.refresh_answer(valid);
                return QueryPath::Responded;
            }
            CacheResult::Stale(stale) => stale,
            CacheResult::Nothing => StaleAnswer::Unknown,
        };
        let slot = self.engine.pool_slots[pool.0];
        if let Some(at) = self.engine.in_flight.find(slot, &question, valid.subnet.as_ref()) {
            return self.join(at, valid, waiter, stale);
        }
        let worker = &self.engine.worker;
        let claim = worker.shared.single_flight.take(question.hash, worker.me);
        if let Err(owner) = claim
            && !is_handed_over
        {
            // The owner lets it join the race, or starts another if that is over by then.
            return QueryPath::Elsewhere(owner, waiter.client);
        }
        let zones = self.engine.worker.zone_places(question.qname());
        if let Err(limit) = self.count_wait(&mut waiter, zones) {
            if claim.is_ok() {
                self.engine.worker.shared.single_flight.release(question.hash);
            }
            self.refuse_wait(limit, valid, &waiter, stale);
            return QueryPath::Responded;
        }
        let origin = RaceOrigin { waiter: Some(waiter), zones, stale, is_claimed: claim.is_ok(), signed: None };
        QueryPath::Started(self.start(valid, origin))
    }

    /// Asks a question for an operator and returns what was known before, or the worker that races for it.
    pub fn explain(&mut self, valid: ValidQuery<'_>, client: I::Client) -> Result<Plan, WorkerId> {
        let (slot, now) = (self.engine.pool_slots[valid.pool.0], self.now);
        self.refresh(slot);
        let cache = seen_in_cache(&self.engine.worker.state, &valid, now);
        let pool = self.engine.pools.at(slot);
        // Of a very large pool, only the backends that the race may ask are listed, once known.
        let known =
            if pool.is_crowd() { Vec::new() } else { known_backends(pool, pool.plan.shared.backends.iter(), now) };
        let rules = pool.plan.shared.rules();
        let is_hedging = rules.race.dispatch.is_hedging() && rules.race.hedge.budget > 0.0 && rules.race.hedge.max > 0;
        let mut plan = Plan {
            worker: self.engine.worker.me.0,
            cache,
            balance: rules.race.balance.word().to_owned(),
            dispatch: rules.race.dispatch.word().to_owned(),
            tokens: is_hedging.then(|| pool.plan.shared.budget().hedges_left()),
            ..Plan::default()
        };
        let candidates = match self.on_query(valid, client) {
            QueryPath::Responded => {
                plan.from_cache = true;
                let Engine { pools, worker, rng, .. } = &mut *self.engine;
                let qname = valid.question.qname();
                pools.at(slot).candidates(self.io, qname, &worker.shared.hasher, rng, now)
            }
            QueryPath::Joined(candidates) => {
                plan.joined = true;
                candidates
            }
            QueryPath::Started(candidates) => candidates,
            QueryPath::Elsewhere(owner, _) => return Err(owner),
        };
        let pool = self.engine.pools.at(slot);
        let first = candidates.get(0);
        if let Some(first) = first.filter(|_| is_hedging) {
            let (delay, from) = hedge_delay_of(pool, first);
            (plan.hedge_delay_ms, plan.hedge_delay_from) = (Some(millis(delay)), Some(from));
        }
        let known = match pool.is_crowd() {
            true => known_backends(pool, candidates.iter().filter_map(|index| pool.plan.shared.find(index)), now),
            false => known,
        };
        plan.more_backends = pool.plan.shared.backends.len().saturating_sub(known.len()) as u64;
        plan.candidates = ordered(pool, known, &candidates);
        Ok(plan)
    }

    /// Takes a query that has a race to itself and is neither answered from the cache nor cached.
    ///
    /// A query with a TSIG record is passed on unchanged except for the ID; the record has the original ID,
    /// so the forwarder does not need the key (RFC 8945 section 5.5). The client expects a reply signed by
    /// the backend. If backends see client addresses, their answer may be for that client alone.
    fn on_lone_query(&mut self, valid: ValidQuery<'_>, mut waiter: Waiter<I::Client>) -> QueryPath<I::Client> {
        let ValidQuery { message, query, question, .. } = valid;
        let zones = self.engine.worker.zone_places(question.qname());
        if let Err(limit) = self.count_wait(&mut waiter, zones) {
            self.refuse_wait(limit, valid, &waiter, StaleAnswer::Unknown);
            return QueryPath::Responded;
        }
        let signed = query.is_signed.then_some(message);
        let stale = StaleAnswer::Unknown;
        let origin = RaceOrigin { waiter: Some(waiter), zones, stale, is_claimed: false, signed };
        // The OPT record is part of the signed message.
        let edns = query.edns.filter(|_| !query.is_signed);
        let query = &Query { edns, ..*query };
        QueryPath::Started(self.start(ValidQuery { query, ..valid }, origin))
    }

    /// Notes the client subnet for backends and for the response, or responds to a malformed option.
    #[cold]
    fn choose_subnet(
        &mut self,
        valid: &mut ValidQuery<'_>,
        waiter: &mut Waiter<I::Client>,
    ) -> Result<(), MalformedClientSubnet> {
        let worker = &self.engine.worker;
        let shared = &worker.state.pools[valid.pool.0];
        if valid.query.is_signed {
            // RFC 8945 section 5.5: the message goes to backends as it is.
            return Ok(());
        }
        let own = valid.query.edns.map_or(Ok(None), |edns| ClientSubnet::of_query(&edns));
        let Ok(own) = own else {
            let origin = ResponseOrigin { is_limited: true, ..ResponseOrigin::at_once(valid.question.hash, shared) };
            let mut responder = ClientResponder::new(self.io, worker, &mut self.engine.scratch, self.now);
            FallbackAnswer::MALFORMED.give(&mut responder, waiter, &origin, valid.question.octets);
            return Err(MalformedClientSubnet);
        };
        let rule = shared.config.rules.passing.client_subnet;
        valid.subnet = SentSubnet::choose(rule, own, waiter.client.ip(), &worker.shared.hasher);
        waiter.subnet = own.filter(|_| valid.subnet.is_some());
        Ok(())
    }

    fn look_up(&mut self, valid: &ValidQuery<'_>, waiter: &Waiter<I::Client>, reason: LookupReason) -> CacheResult {
        let ValidQuery { pool, question, ref subnet, .. } = *valid;
        let worker = &self.engine.worker;
        let shared = &worker.state.pools[pool.0];
        let Some(cached) = PoolCache::of(&worker.state, shared) else { return CacheResult::Nothing };
        let of = SubnetQuery { pool: shared, sent: subnet.as_ref(), hasher: &worker.shared.hasher };
        let cached = cached.found(&of, question, self.now);
        let origin = ResponseOrigin::at_once(question.hash, shared);
        let mut responder = ClientResponder::new(self.io, worker, &mut self.engine.scratch, self.now);
        let found = cached.give(&mut responder, &cached.key(question), waiter, &origin, reason);
        match found {
            CacheLookup::Fresh { is_refresh_due: true } => CacheResult::RefreshDue,
            _ if reason.takes(found) => CacheResult::Responded,
            CacheLookup::Stale { .. } => {
                // Backends that are down are asked too, but the client does not wait for them.
                let is_up = shared.backends.iter().any(|backend| backend.takes_queries());
                let patience = if is_up { cached.rules.stale_answer_after } else { Duration::ZERO };
                CacheResult::Stale(StaleAnswer::At(self.now + patience))
            }
            CacheLookup::Failed(CachedFailure::Silence) => {
                let failure_ttl = cached.rules.failure_ttl;
                self.respond_silence(pool, question, waiter, failure_ttl)
            }
            CacheLookup::Fresh { .. } | CacheLookup::Failed(CachedFailure::Servfail) | CacheLookup::Nothing => {
                CacheResult::Nothing
            }
        }
    }

    /// Responds at once with remembered silence of backends if that means SERVFAIL.
    ///
    /// Deviation: RFC 9520 section 3.2 requires that failures are remembered for at least 1 s. But after a
    /// backend has come up, remembered silence most likely predates that and is ignored until it expires. If
    /// silence means "no such name", a new name in a table must become visible at once.
    fn respond_silence(
        &mut self,
        pool: PoolIndex,
        question: HashedQuestion<'_>,
        waiter: &Waiter<I::Client>,
        failure_ttl: Duration,
    ) -> CacheResult {
        let slot = self.engine.pool_slots[pool.0];
        self.refresh(slot);
        let pool = self.engine.pools.at(slot);
        let fallback = FallbackAnswer::of_silence(pool.plan.shared.rules(), pool.is_up());
        if pool.has_recovered_within(failure_ttl, self.now) || fallback.rcode != Some(Rcode::SERVFAIL) {
            return CacheResult::Nothing;
        }
        let origin = ResponseOrigin::at_once(question.hash, &pool.plan.shared);
        let mut responder = ClientResponder::new(self.io, &self.engine.worker, &mut self.engine.scratch, self.now);
        fallback.give(&mut responder, waiter, &origin, question.octets);
        CacheResult::Responded
    }

    fn count_for_probes(&mut self, slot: PoolSlot) {
        let pool = self.engine.pools.at(slot);
        let every = pool.plan.shared.rules().health.every_queries;
        let queries = pool.plan.shared.state.count_query();
        if every > 0 && queries.is_multiple_of(every.into()) {
            // In a large pool one backend is signalled and the prober does the rest.
            let probed = if pool.is_crowd() { 1 } else { pool.plan.shared.backends.len() };
            let probed = pool.plan.shared.backends.iter().take(probed);
            probed.for_each(|backend| signal_prober(self.io, backend, HealthSignal::ProbeDue));
        }
    }

    /// Starts a race without clients, to refresh an answer that is still fresh.
    fn refresh_answer(&mut self, valid: ValidQuery<'_>) {
        let HashedQuestion { hash, .. } = valid.question;
        let engine = &self.engine;
        if engine.is_draining
            || engine.in_flight.len() >= BUSY
            || !engine.pools.get(engine.pool_slots[valid.pool.0]).is_some_and(Pool::takes_queries)
            || engine.in_flight.find(engine.pool_slots[valid.pool.0], &valid.question, valid.subnet.as_ref()).is_some()
            || engine.worker.shared.single_flight.take(hash, engine.worker.me).is_err()
        {
            return;
        }
        engine.worker.counters_of(&engine.worker.state.pools[valid.pool.0]).prefetches.increment();
        let (zones, stale) = (engine.worker.zone_places(valid.question.qname()), StaleAnswer::Unknown);
        self.start(valid, RaceOrigin { waiter: None, zones, stale, is_claimed: true, signed: None });
    }

    fn start(&mut self, valid: ValidQuery<'_>, origin: RaceOrigin<'_, I::Client>) -> Candidates {
        let ValidQuery { query, question, pool, subnet, .. } = valid;
        let HashedQuestion { octets, flags, hash } = question;
        let RaceOrigin { waiter, zones, stale, is_claimed, signed } = origin;
        let slot = self.engine.pool_slots[pool.0];
        let is_explained = waiter.as_ref().is_some_and(|waiter| waiter.client.is_admin());
        if waiter.is_some() && !is_explained {
            self.count_for_probes(slot);
        }
        self.refresh(slot);
        let worker = &self.engine.worker;
        let own_udp_size = worker.state.edns_udp_size;
        let pool = self.engine.pools.at(slot);
        pool.plan.in_flight += 1;
        worker.counters_of(&pool.plan.shared).in_flight.increment();
        let rng = &mut self.engine.rng;
        let candidates = pool.candidates(self.io, question.qname(), &worker.shared.hasher, rng, self.now);
        let accept = pool.plan.shared.rules().accept.lowest();
        let race = Race::start(&pool.race_context(waiter.is_some()), &candidates, accept, self.now);
        if pool.plan.shared.config.replicas.audit.is_some() && signed.is_none() {
            pool.plan.shared.state.compared.note_recent(octets, flags);
        }
        let plan = pool.plan.number;
        let is_alone = signed.is_some() || pool.plan.shared.names_clients;
        let start = Start { race, pool: slot, plan, hash, is_claimed, is_alone, flags, waiter, subnet, zones, stale };
        let at = self.engine.in_flight.insert(start, |out| {
            let opt_at = dns::write_query(query, own_udp_size, out);
            if let Some(sent) = &subnet {
                dns::add_client_subnet(out, opt_at, &sent.subnet, own_udp_size);
            }
            opt_at
        });
        self.with_race(at, |race| {
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
        at: RaceRef,
        valid: ValidQuery<'_>,
        mut waiter: Waiter<I::Client>,
        mut stale: StaleAnswer,
    ) -> QueryPath<I::Client> {
        let mut candidates = Candidates::new(false);
        let refused = self.with_race(at, |race| {
            candidates = *race.entry.race.candidates();
            if waiter.client.is_admin() {
                race.entry.explain(race.spills);
            }
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
            match race.worker.wait(&waiter.client, race.entry.zones, race.now) {
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
            self.refuse_wait(limit, valid, &waiter, stale);
        }
        QueryPath::Joined(candidates)
    }

    fn count_wait(&self, waiter: &mut Waiter<I::Client>, zones: ZonePlaces) -> Result<(), Limit> {
        waiter.place = self.engine.worker.wait(&waiter.client, zones, self.now)?;
        Ok(())
    }

    /// Responds to a query that may not wait: with a stale answer if there is one, otherwise with the reason.
    fn refuse_wait(&mut self, limit: Limit, valid: ValidQuery<'_>, waiter: &Waiter<I::Client>, stale: StaleAnswer) {
        let ValidQuery { question, pool, .. } = valid;
        self.engine.worker.shared.limited.count(limit);
        if stale != StaleAnswer::Unknown && self.look_up(&valid, waiter, LookupReason::Need) == CacheResult::Responded {
            return;
        }
        let worker = &self.engine.worker;
        let mut room = TextRoom::default();
        let fallback = match limit {
            Limit::InFlight => FallbackAnswer::BUSY,
            Limit::Zone => FallbackAnswer::zone_is_full(worker.full_zone(question.qname()), &mut room),
            Limit::Waiting | Limit::Rate | Limit::Connections | Limit::Unsent | Limit::Notify => {
                FallbackAnswer::TOO_MANY
            }
        };
        let origin = ResponseOrigin::at_once(question.hash, &worker.state.pools[pool.0]);
        let origin = ResponseOrigin { is_limited: true, ..origin };
        let mut responder = ClientResponder::new(self.io, worker, &mut self.engine.scratch, self.now);
        fallback.give(&mut responder, waiter, &origin, question.octets);
    }
}

impl EngineWorker {
    /// Lets a query of a client wait, if the limits permit it. After a gap without a serving process the
    /// backlog is as large as the gap is long, so the limit of a client is higher then.
    fn wait(&self, client: &impl ClientHandle, zones: ZonePlaces, now: Instant) -> Result<ClientPlace, Limit> {
        let (clients, rules) = (&self.shared.clients, self.state.limits);
        if client.is_admin() {
            return Ok(clients.wait_regardless(zones));
        }
        let waits = match clients.wait(client.ip(), zones, rules) {
            Err(TooMuch::OfClient) if self.shared.catching_up_until.is_some_and(|until| now < until) => {
                clients.wait(client.ip(), zones, rules.for_backlog())
            }
            waits => waits,
        };
        waits.map_err(|too_much| match too_much {
            TooMuch::OfClient => Limit::Waiting,
            TooMuch::InAll => Limit::InFlight,
            TooMuch::OfZone => Limit::Zone,
        })
    }

    pub(super) fn zone_places(&self, qname: &[u8]) -> ZonePlaces {
        if self.state.limits.per_zone().is_none() {
            return ZonePlaces::NONE;
        }
        let hashes =
            zones::counted(qname, &self.state.routes).map(|suffix| suffix.map(|suffix| self.shared.hash(suffix)));
        self.shared.clients.zones().places(hashes)
    }

    /// Returns the suffix of a name below which too many queries wait.
    pub(super) fn full_zone<'n>(&self, qname: &'n [u8]) -> Option<&'n [u8]> {
        let most = self.state.limits.per_zone()?;
        let level = self.shared.clients.zones().full(self.zone_places(qname), most)?;
        zones::counted(qname, &self.state.routes).get(level).copied()?
    }
}

/// The number of clients that may wait for one race. One tick answers all of them, which takes milliseconds.
const MAX_WAITERS: usize = 10_000;

/// The number of queries in flight at which a worker refreshes no answers.
const BUSY: usize = 256;
