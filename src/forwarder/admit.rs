//! Admitting a sound query: to an answer from memory, to a race that runs, to another worker, or to a race of its own.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::client::Client;
use super::entry::{StaleAnswer, Start, Waiter};
use super::memory::{Asked, Look, Recalled};
use super::pool::pool_at;
use super::responses::Word;
use super::slots::RaceRef;
use super::{Forwarder, HandOver, tell};
use crate::config::PoolIndex;
use crate::limit::{Place, TooMuch};
use crate::metrics::{Dropped, Limit, Transport};
use crate::policy::race::Race;
use crate::state::HealthSignal;
use crate::wire::{self, ClientForm, Cookie, Query, Rcode};

impl Forwarder {
    /// Admits a query to this pool of the state. One that was handed over stays here.
    pub(super) fn admit(&mut self, sound: Sound<'_>, client: Client, look: Look, now: Instant) {
        let Sound { message, query, cookie, asked, pool } = sound;
        let form = ClientForm::of(query).with_cookie(cookie);
        let mut waiter = Waiter { client, form, cookie: None, queries: 1, since: now, place: Place::UNCOUNTED };
        let stale = match self.recall(pool, asked, &waiter, look, now) {
            Recalled::Responded => return,
            Recalled::RefreshDue => return self.refresh_answer(query, asked, pool, now),
            Recalled::Stale(stale) => stale,
            Recalled::Nothing => StaleAnswer::Unknown,
        };
        if let Some(at) = self.in_flight.find(asked.hash, asked.question, asked.flags) {
            return self.join(at, asked, waiter, stale, pool, now);
        }
        let claim = self.shared.claims.take(asked.hash, self.me);
        if let Err(holder) = claim
            && look == Look::First
            && let Some(worker) = self.shared.workers.get(usize::from(holder.0))
        {
            // It will find the race to join; or, if that is over by then, start another.
            let Ok(place) = worker.try_reserve() else {
                // More come than it can take; who asked does so again.
                self.counters.dropped(Dropped::Overload);
                return self.respond_nothing(&waiter.client);
            };
            self.shared.on_the_way[usize::from(holder.0)].fetch_add(1, Relaxed);
            place.send(HandOver { message: message.to_vec(), client: waiter.client });
            return;
        }
        if !self.may_wait(asked, &mut waiter, stale, pool, now) {
            if claim.is_ok() {
                self.shared.claims.release(asked.hash);
            }
            return;
        }
        let place = self.pool_places[pool.0];
        self.count_for_probes(place);
        let cause = Cause { waiter: Some(waiter), stale, is_claimed: claim.is_ok(), signed: None };
        self.start(query, asked, place, cause, now);
    }

    /// Admits a query with a TSIG record. It is passed on as it came, but for the ID, whose original stands in the record, and
    /// has a race of its own; so the forwarder need not have the key (RFC 8945 section 5.5). Neither is it answered from the
    /// cache nor kept there: who signs wants the backend's word, signed.
    ///
    /// Nothing of it can be left out, so that one which is too long for a datagram is FORMERR.
    pub(super) fn admit_signed(&mut self, sound: Sound<'_>, client: Client, now: Instant) {
        let Sound { message, query, cookie, asked, pool } = sound;
        if message.len() > usize::from(self.state.edns_udp_size) {
            return self.refuse(message, Rcode::FORMERR, cookie.as_ref(), &client, now);
        }
        let form = ClientForm::of(query).with_cookie(cookie);
        let mut waiter = Waiter { client, form, cookie: None, queries: 1, since: now, place: Place::UNCOUNTED };
        if !self.may_wait(asked, &mut waiter, StaleAnswer::Unknown, pool, now) {
            return;
        }
        let place = self.pool_places[pool.0];
        self.count_for_probes(place);
        let cause =
            Cause { waiter: Some(waiter), stale: StaleAnswer::Unknown, is_claimed: false, signed: Some(message) };
        // Its OPT record is a part of what is signed.
        self.start(&Query { edns: None, ..*query }, asked, place, cause, now);
    }

    /// Counts a query to a pool, after some of which the backends are probed.
    fn count_for_probes(&mut self, place: u16) {
        let pool = pool_at(&mut self.pools, place);
        let health = &pool.shared.rules().health;
        let queries = pool.shared.state.count_query();
        if health.every_queries > 0 && queries.is_multiple_of(health.every_queries.into()) {
            pool.shared.backends.iter().for_each(|backend| tell(&self.shared, backend, HealthSignal::ProbeDue));
        }
    }

    /// Starts a race that nobody waits for, to refresh an answer that is good still; unless somebody races for it already, or
    /// the worker has better things to do, or there is nobody to ask.
    fn refresh_answer(&mut self, query: &Query<'_>, asked: Asked<'_>, pool: PoolIndex, now: Instant) {
        let Asked { question, flags, hash } = asked;
        let shared = &self.state.pools[pool.0];
        if !self.has_time_to_refresh()
            || !shared.backends.iter().any(|backend| backend.takes_queries())
            || self.in_flight.find(hash, question, flags).is_some()
            || self.shared.claims.take(hash, self.me).is_err()
        {
            return;
        }
        shared.state.counters[usize::from(self.me.0)].prefetches.increment();
        let cause = Cause { waiter: None, stale: StaleAnswer::Unknown, is_claimed: true, signed: None };
        self.start(query, asked, self.pool_places[pool.0], cause, now);
    }

    /// Starts a race, for a client or for nobody.
    fn start(&mut self, query: &Query<'_>, asked: Asked<'_>, place: u16, cause: Cause<'_>, now: Instant) {
        let Cause { waiter, stale, is_claimed, signed } = cause;
        self.refresh(place, now);
        let own_udp_size = self.state.edns_udp_size;
        let pool = pool_at(&mut self.pools, place);
        pool.in_flight += 1;
        pool.shared.state.counters[usize::from(self.me.0)].in_flight.increment();
        let candidates = pool.candidates(asked.qname(), &self.shared.hasher, &mut self.rng, now);
        let race = Race::start(&pool.race_context(waiter.is_some()), &candidates, now);
        let Asked { hash, flags, .. } = asked;
        let start = Start { race, pool: place, hash, is_claimed, flags, waiter, stale };
        let at = self.in_flight.insert(start, |out| wire::write_query(query, own_udp_size, out));
        if let Some(message) = signed
            && let Some(entry) = self.in_flight.with_aside(at)
        {
            entry.sign(message);
        }
        self.drive(at, None, now);
    }

    /// Lets a query wait for a race that runs already. The client's own query, sent again, is a hint of loss.
    fn join(
        &mut self,
        at: RaceRef,
        asked: Asked<'_>,
        mut waiter: Waiter,
        stale: StaleAnswer,
        pool: PoolIndex,
        now: Instant,
    ) {
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        if entry.stale() == StaleAnswer::Unknown {
            entry.set_stale(stale);
        }
        if entry.count_again(&waiter.client, &waiter.form) {
            if !entry.is_fetching {
                entry.race.on_retransmission();
                self.drive(at, None, now);
            }
            return;
        }
        if entry.is_fetching && waiter.client.transport() == Transport::Udp {
            return self.respond_meanwhile(at, &waiter, now);
        }
        if entry.waiter_count() >= WAITERS {
            return self.refuse_wait(Limit::Waiting, asked, &waiter, stale, pool, now);
        }
        if !self.may_wait(asked, &mut waiter, stale, pool, now) {
            return;
        }
        let Some(entry) = self.in_flight.get(at) else { return };
        let had_nobody = !entry.has_waiters();
        let entry = if had_nobody { self.in_flight.get_mut(at) } else { self.in_flight.with_aside(at) };
        let Some(entry) = entry else { return };
        entry.add_waiter(waiter);
        match entry.stale() {
            StaleAnswer::Given => self.respond_stale(at, now),
            // What nobody had waited for may hedge from now on, and there may be a time to be patient until.
            StaleAnswer::Unknown | StaleAnswer::At(_) if had_nobody || stale != StaleAnswer::Unknown => {
                self.drive(at, None, now);
            }
            StaleAnswer::Unknown | StaleAnswer::At(_) => {}
        }
    }
}

impl Forwarder {
    /// Whether a query may wait for backends, among those of its client and of all. It is counted, or refused.
    fn may_wait(
        &mut self,
        asked: Asked<'_>,
        waiter: &mut Waiter,
        stale: StaleAnswer,
        pool: PoolIndex,
        now: Instant,
    ) -> bool {
        match self.shared.clients.wait(waiter.client.ip(), self.state.limits) {
            Ok(place) => {
                waiter.place = place;
                return true;
            }
            Err(TooMuch::OfClient) => self.refuse_wait(Limit::Waiting, asked, waiter, stale, pool, now),
            Err(TooMuch::InAll) => self.refuse_wait(Limit::InFlight, asked, waiter, stale, pool, now),
        }
        false
    }

    /// Answers a query that may not wait: with what is stale, if there is something, else by saying why.
    fn refuse_wait(
        &mut self,
        limit: Limit,
        asked: Asked<'_>,
        waiter: &Waiter,
        stale: StaleAnswer,
        pool: PoolIndex,
        now: Instant,
    ) {
        self.shared.limited.count(limit);
        if stale != StaleAnswer::Unknown && self.recall(pool, asked, waiter, Look::InNeed, now) == Recalled::Responded {
            return;
        }
        let word = if limit == Limit::InFlight { Word::BUSY } else { Word::TOO_MANY };
        self.respond_at_once(waiter, asked.question, word, now);
    }
}

/// A sound query, and what has been made of it.
#[derive(Clone, Copy)]
pub(super) struct Sound<'a> {
    /// Its octets.
    pub(super) message: &'a [u8],
    /// As it was read.
    pub(super) query: &'a Query<'a>,
    /// What it gets for its cookie.
    pub(super) cookie: Option<Cookie>,
    /// What it asks.
    pub(super) asked: Asked<'a>,
    /// The number of its pool in the state.
    pub(super) pool: PoolIndex,
}

/// Why a race starts.
struct Cause<'a> {
    /// Who waits for it; `None`: it is to refresh an answer.
    waiter: Option<Waiter>,
    /// Whether those who wait may be given a stale answer.
    stale: StaleAnswer,
    /// Whether this worker holds the claim for the question.
    is_claimed: bool,
    /// The query as it came, if it bears a TSIG record.
    signed: Option<&'a [u8]>,
}

/// Clients that may wait for one race. All of them are answered in one turn, which others then wait for: a few milliseconds.
const WAITERS: usize = 10_000;
