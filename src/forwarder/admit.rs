//! Admitting a sound query: to an answer from memory, to a race that runs, to another worker, or to a race of its own.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::client::Client;
use super::entry::{StaleAnswer, Start, Waiter};
use super::memory::{Asked, Look, Recalled};
use super::pool::pool_at;
use super::slots::RaceRef;
use super::{Forwarder, HandOver, tell};
use crate::metrics::Transport;
use crate::plan::Sign;
use crate::policy::race::Race;
use crate::wire::{self, ClientForm, Cookie, Query, Rcode};

impl Forwarder {
    /// Admits a query to this pool of the plan. One that was handed over stays here.
    pub(super) fn admit(&mut self, sound: Sound<'_>, client: Client, look: Look, now: Instant) {
        let Sound { message, query, cookie, asked, pool } = sound;
        let waiter =
            Waiter { client, form: ClientForm::of(query).with_cookie(cookie), cookie: None, queries: 1, since: now };
        let stale = match self.recall(pool, asked, &waiter, look, now) {
            Recalled::Responded => return,
            Recalled::RefreshDue => return self.refresh_answer(query, asked, pool, now),
            Recalled::Stale(stale) => stale,
            Recalled::Nothing => StaleAnswer::Unknown,
        };
        if let Some(at) = self.in_flight.find(asked.hash, asked.question, asked.flags) {
            return self.join(at, waiter, stale, now);
        }
        let claim = self.shared.claims.take(asked.hash, self.me);
        if let Err(holder) = claim
            && look == Look::First
            && let Some(worker) = self.shared.workers.get(usize::from(holder.0))
        {
            // It will find the race to join; or, if that is over by then, start another.
            self.shared.on_the_way[usize::from(holder.0)].fetch_add(1, Relaxed);
            let _ = worker.send(HandOver { message: message.to_vec(), client: waiter.client });
            return;
        }
        let place = self.pool_places[pool];
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
        if message.len() > usize::from(self.plan.edns_udp_size) {
            return self.refuse(message, Rcode::FORMERR, cookie.as_ref(), &client);
        }
        let place = self.pool_places[pool];
        self.count_for_probes(place);
        let form = ClientForm::of(query).with_cookie(cookie);
        let waiter = Some(Waiter { client, form, cookie: None, queries: 1, since: now });
        let cause = Cause { waiter, stale: StaleAnswer::Unknown, is_claimed: false, signed: Some(message) };
        // Its OPT record is a part of what is signed.
        self.start(&Query { edns: None, ..*query }, asked, place, cause, now);
    }

    /// Counts a query to a pool, after some of which the backends are probed.
    fn count_for_probes(&mut self, place: u16) {
        let pool = pool_at(&mut self.pools, place);
        let health = &pool.shared.rules().health;
        let queries = pool.shared.state.count_query();
        if health.every_queries > 0 && queries.is_multiple_of(health.every_queries.into()) {
            pool.shared.backends.iter().for_each(|backend| tell(&self.shared, backend, Sign::ProbeDue));
        }
    }

    /// Starts a race that nobody waits for, to refresh an answer that is good still; unless somebody races for it already, or
    /// the worker has better things to do, or there is nobody to ask.
    fn refresh_answer(&mut self, query: &Query<'_>, asked: Asked<'_>, pool: usize, now: Instant) {
        let Asked { question, flags, hash } = asked;
        let shared = &self.plan.pools[pool];
        if !self.has_time_to_refresh()
            || !shared.backends.iter().any(|backend| backend.takes_queries())
            || self.in_flight.find(hash, question, flags).is_some()
            || self.shared.claims.take(hash, self.me).is_err()
        {
            return;
        }
        shared.state.counters[usize::from(self.me.0)].refreshes.increment();
        let cause = Cause { waiter: None, stale: StaleAnswer::Unknown, is_claimed: true, signed: None };
        self.start(query, asked, self.pool_places[pool], cause, now);
    }

    /// Starts a race, for a client or for nobody.
    fn start(&mut self, query: &Query<'_>, asked: Asked<'_>, place: u16, cause: Cause<'_>, now: Instant) {
        let Cause { waiter, stale, is_claimed, signed } = cause;
        self.refresh(place, now);
        let own_udp_size = self.plan.edns_udp_size;
        let pool = pool_at(&mut self.pools, place);
        pool.in_flight += 1;
        pool.shared.state.counters[usize::from(self.me.0)].in_flight.increment();
        let candidates = pool.candidates(asked.qname(), &self.shared.hasher, &mut self.rng, now);
        let race = Race::start(&pool.field(waiter.is_some()), &candidates, now);
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
    fn join(&mut self, at: RaceRef, waiter: Waiter, stale: StaleAnswer, now: Instant) {
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
    /// The number of its pool in the plan.
    pub(super) pool: usize,
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
