//! Driving races: what a race says is done, what backends say is told to it, and its end becomes a response.

use std::time::Instant;

use super::entry::Entry;
use super::explain::Explained;
use super::fetches::Fetch;
use super::memory::{asked, key_of_reply};
use super::pool::pool_at;
use super::proof::Proof;
use super::responses::Word;
use super::shortage;
use super::slots::RaceRef;
use super::{Forwarder, Outstanding, QTYPE_QCLASS, Quarantined, tell};
use crate::metrics::{Dropped, Want};
use crate::net::backend_sockets::{QuerySlot, SlotState};
use crate::net::batch::RecvBatch;
use crate::net::refusal::Refusal;
use crate::policy::backend_load::End;
use crate::policy::health::HealthState;
use crate::policy::race::{Attempt, AttemptId, BackendIndex, Heard, Kind, OptRefusal, Outcome, Step};
use crate::policy::{Dispatch, Rank};
use crate::state::HealthSignal;
use crate::state::backend_cookies::Urgency;
use crate::wire::{self, CookiePair, Rcode, Reply};

/// A reply at hand, which the race may let win.
#[derive(Clone, Copy)]
pub(super) struct AtHand<'a> {
    /// The attempt that it answers.
    pub(super) attempt: AttemptId,
    /// The reply.
    pub(super) reply: &'a Reply<'a>,
}

impl Forwarder {
    /// Does what a race says until it waits or is over.
    pub(super) fn drive(&mut self, at: RaceRef, at_hand: Option<AtHand<'_>>, now: Instant) {
        loop {
            let Some(entry) = self.in_flight.get_mut(at) else { return };
            let place = entry.pool;
            let pool = pool_at(&mut self.pools, place);
            let step = match entry.is_fetching {
                false => {
                    let is_waited_for = entry.has_waiters();
                    entry.race.next_step(&pool.race_context(is_waited_for), now)
                }
                true => match self.fetches.get(at).map(Fetch::due) {
                    Some(due) if due > now => Step::WaitUntil(due),
                    Some(_) if self.on_fetch_due(at, now) => continue,
                    Some(_) | None => return,
                },
            };
            match step {
                Step::Ask { attempt, backend, kind, edns } => {
                    if self.ask(at, attempt, backend, edns, now) {
                        pool_at(&mut self.pools, place).counters(backend).attempts[number(kind)].increment();
                    }
                }
                // RFC 8767 section 5: the client response timer. The race goes on.
                Step::WaitUntil(_) if entry.stale_due().is_some_and(|due| due <= now) => self.respond_stale(at, now),
                Step::WaitUntil(until) => {
                    let until = entry.stale_due().map_or(until, |due| until.min(due));
                    if entry.armed().is_none_or(|armed| until < armed) {
                        self.timers.push(entry.arm(until), at);
                    }
                    return;
                }
                Step::Finished(outcome) => return self.finish(at, outcome, at_hand, now),
            }
        }
    }

    /// Makes an attempt: queues the query for a backend. Returns whether that could be done.
    fn ask(&mut self, at: RaceRef, attempt: AttemptId, backend: BackendIndex, edns: bool, now: Instant) -> bool {
        let Some(entry) = self.in_flight.get(at) else { return false };
        let place = entry.pool;
        if !pool_at(&mut self.pools, place).has_place(backend) {
            self.on_unsent(at, attempt, Want::InFlight, now);
            return false;
        }
        let sent = self.send(at, attempt, backend, edns, Proof::NONE, now);
        match sent {
            Ok(()) => pool_at(&mut self.pools, place).asked(backend, now),
            Err(Refusal::Unreachable) => {
                if let Some(entry) = self.in_flight.get_mut(at) {
                    entry.race.on_failure(attempt);
                }
            }
            Err(Refusal::Unsent(want)) => self.on_unsent(at, attempt, want, now),
        }
        sent.is_ok()
    }

    /// Queues the query of an attempt. `proof`: why it is sent, to which comes what its reply must bear.
    pub(super) fn send(
        &mut self,
        at: RaceRef,
        attempt: AttemptId,
        backend: BackendIndex,
        edns: bool,
        proof: Proof,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(entry) = self.in_flight.with_query_slot(at, attempt) else { return Ok(()) };
        let pool = pool_at(&mut self.pools, entry.pool);
        let socket_set = pool.socket_set(backend);
        if self.backend_sockets.is_full(socket_set) {
            self.backend_sockets.flush(&mut self.refused);
        }
        let with_opt = edns && !pool.is_without_opt(backend, now);
        // Of a query with a TSIG record nothing may be changed.
        let is_case_random = pool.is_case_random(backend, now) && !entry.is_signed();
        let proof = if is_case_random { proof.with(Proof::CASE) } else { proof };
        let has_cookies = pool.cookies(backend).is_some() && with_opt && !entry.is_signed();
        let proof = if has_cookies { proof.with(Proof::COOKIE) } else { proof };
        let is_test = (is_case_random || has_cookies) && pool.take_doubt(backend);
        let proof = if is_test { proof.with(Proof::LENIENT) } else { proof };
        let cookies = pool.cookies(backend).filter(|_| has_cookies);
        let (secret, hash, own_udp_size) = (&self.secret, entry.hash, self.state.edns_udp_size);
        let slot = self.backend_sockets.queue(socket_set, Outstanding::new(at, attempt, proof), now, |slot, out| {
            let opt_at = entry.write_query(with_opt, out);
            if let Some(cookies) = cookies {
                wire::add_cookie(out, opt_at, cookies, own_udp_size);
            }
            if is_case_random {
                let qname = wire::HEADER_LEN..wire::HEADER_LEN + entry.question().len().saturating_sub(QTYPE_QCLASS);
                wire::set_case(out.get_mut(qname).unwrap_or_default(), secret.case(slot, hash));
            }
        })?;
        entry.set_query_slot(attempt, Some(slot));
        Ok(())
    }

    /// An attempt could not leave for want of something of our own, which says nothing about its backend.
    pub(super) fn on_unsent(&mut self, at: RaceRef, attempt: AttemptId, want: Want, now: Instant) {
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        let Some(Attempt { backend, .. }) = entry.race.attempt(attempt) else { return };
        let pool = pool_at(&mut self.pools, entry.pool);
        self.shared.shortage.note(want, &pool.shared, backend, pool.counters(backend), now);
        entry.race.on_unsent(attempt, shortage::retry(want), pool.shared.budget());
    }

    /// Takes the datagrams that a backend socket has received.
    pub(super) fn hear_batch(&mut self, socket: u32, batch: &RecvBatch, now: Instant) {
        for index in 0..batch.len() {
            match batch.datagram(index) {
                Some(datagram) if !datagram.is_truncated => self.hear(socket, datagram.bytes, now),
                _ => self.counters.dropped(Dropped::Malformed),
            }
        }
    }

    /// Takes one reply.
    ///
    /// RFC 5452 section 9.1: ID, addresses and question must all agree. What does not is likely a forgery attempt: it is
    /// counted and the wait goes on; failing the attempt would hand the forger a cheap win.
    fn hear(&mut self, socket: u32, message: &[u8], now: Instant) {
        let Some(header) = wire::Header::read(message) else { return self.near_miss(socket, now) };
        let Some((slot, state)) = self.backend_sockets.find(socket, header.id()) else {
            return match self.backend_sockets.was_in_use(socket, header.id()) {
                true => self.counters.dropped(Dropped::Late),
                false => self.near_miss(socket, now),
            };
        };
        let Ok(reply) = wire::read_reply(message) else {
            return self.counters.dropped(Dropped::Malformed);
        };
        let outstanding = match state {
            SlotState::InFlight(outstanding) => outstanding,
            SlotState::Quarantined(quarantined) => return self.hear_late(socket, slot, &quarantined, &reply, now),
        };
        // What is in flight has a race that runs, for at its end that puts what it waits for into quarantine.
        let Some(entry) = self.in_flight.get_mut(outstanding.race) else { return };
        let Some(asked) = entry.race.attempt(outstanding.attempt()) else { return };
        if reply.is_bare_failure() {
            // It lacks the question, and so proves little: the true reply may still come.
            let has_opt = entry.has_opt() || outstanding.proof().has(Proof::COOKIE);
            if is_opt_refusal(&reply) && has_opt {
                entry.race.on_bare_opt_refused(outstanding.attempt());
            } else {
                entry.race.on_bare_failure(outstanding.attempt());
            }
            return self.drive(outstanding.race, None, now);
        }
        if !reply.answers_question(entry.question()) {
            return self.near_miss(socket, now);
        }
        let (place, proof) = (entry.pool, outstanding.proof());
        let pool = pool_at(&mut self.pools, place);
        let cookie = || pool.cookies(asked.backend).map(CookiePair::client);
        let lacking = self.secret.lacking(proof, slot, entry.hash, &reply, cookie);
        if !lacking.is_none() && !proof.has(Proof::LENIENT) {
            // Of one that was found not to give it meanwhile, nothing more is to be had.
            if pool.gives(lacking, asked.backend, now) {
                self.doubt(outstanding, slot, lacking, now);
                return self.near_miss(socket, now);
            }
        }
        let rank = rank(&reply);
        if rank == Rank::Failure && proof.has(Proof::COOKIE) && is_badcookie(&reply) {
            return self.on_badcookie(outstanding, slot, lacking, &reply, now);
        }
        if proof.has(Proof::COOKIE) {
            pool.renew_cookies(asked.backend, &reply, Urgency::CanWait, now);
        }
        self.backend_sockets.release(slot, now);
        entry.set_query_slot(outstanding.attempt(), None);
        let latency = now.saturating_duration_since(entry.sent_at(&asked, proof));
        pool.is_waited_for_no_more(asked.backend);
        let end = if rank == Rank::Failure { End::Failure(latency) } else { End::Reply(latency) };
        self.learn(place, asked.backend, false, end, now);
        if !lacking.is_none() && proof.has(Proof::LENIENT) {
            self.learn_lacking(place, asked.backend, lacking, rank, now);
        }
        self.judge(outstanding, &reply, now);
    }

    /// Takes a reply whose race is over. Nothing is learnt from one whose question is not the one that was asked: neither how
    /// long the backend takes, nor that it is up, nor that the ID is free.
    fn hear_late(&mut self, socket: u32, slot: QuerySlot, quarantined: &Quarantined, reply: &Reply<'_>, now: Instant) {
        if reply.is_bare_failure() {
            // It lacks the question, and so proves nothing.
            return self.counters.dropped(Dropped::Late);
        }
        let question = key_of_reply(reply);
        let asked = question.as_ref().and_then(|question| asked(question, quarantined.flags, quarantined.hash));
        // The question itself is gone with its race, but not its hash, which nobody outside can aim at.
        let Some(asked) = asked.filter(|asked| self.shared.hash(asked.question) == quarantined.hash) else {
            return self.near_miss(socket, now);
        };
        let pool = self.pools.get(usize::from(quarantined.pool)).and_then(Option::as_ref);
        let cookie = || pool.and_then(|pool| pool.cookies(quarantined.backend)).map(CookiePair::client);
        let lacking = self.secret.lacking(quarantined.proof, slot, quarantined.hash, reply, cookie);
        let is_to_be_had = !lacking.is_none() && pool.is_some_and(|pool| pool.gives(lacking, quarantined.backend, now));
        if is_to_be_had && !quarantined.proof.has(Proof::LENIENT) {
            return self.near_miss(socket, now);
        }
        if !self.remember_late(quarantined, asked, reply, now) {
            self.counters.dropped(Dropped::Late);
        }
        self.backend_sockets.release(slot, now);
        let end = End::Reply(now.saturating_duration_since(quarantined.sent));
        self.learn(quarantined.pool, quarantined.backend, quarantined.is_charged, end, now);
    }

    /// Lets a race judge a reply that passed every check.
    pub(super) fn judge(&mut self, outstanding: Outstanding, reply: &Reply<'_>, now: Instant) {
        let (at, attempt) = (outstanding.race, outstanding.attempt());
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        // Where the client sent none, the query may have had one for our cookie.
        let (has_opt, pool) = (entry.has_opt() || outstanding.proof().has(Proof::COOKIE), entry.pool);
        let asked = entry.race.attempt(attempt);
        if has_opt && is_opt_refusal(reply) && entry.race.on_opt_refused(attempt) == OptRefusal::AskedAgain {
            return self.drive(at, None, now);
        }
        if !is_opt_refusal(reply)
            && let Some(asked) = asked
            && !asked.edns
        {
            pool_at(&mut self.pools, pool).remember_without_opt(asked.backend, now);
        }
        // RFC 8945 section 5.3: who has signed its query takes no unsigned reply, if another backend has a signed one.
        let is_worthless = entry.is_signed() && !reply.is_signed();
        let rank = if is_worthless { Rank::Failure } else { rank(reply) };
        match entry.race.on_reply(attempt, rank, now) {
            Heard::Accepted | Heard::NotNeeded => {}
            Heard::Kept => {
                if let Some(entry) = self.in_flight.with_aside(at) {
                    entry.keep(reply.as_wire());
                }
            }
        }
        self.drive(at, Some(AtHand { attempt, reply }), now);
    }

    /// Learns from a reply: how long the backend takes, whether it works, and that it is up.
    pub(super) fn learn(&mut self, place: u16, index: BackendIndex, is_charged: bool, end: End, now: Instant) {
        let Some(pool) = self.pools.get_mut(usize::from(place)).and_then(Option::as_mut) else { return };
        pool.ended(index, end, is_charged, now);
        let backend = &pool.shared.backends[index.get()];
        // Asked before this worker knew, it may have said that before it died.
        if backend.health() != HealthState::Up && pool.knows_health(index) {
            // Any reply at all is life; a new backend may have been asked before its first probe because no other was up.
            if backend.set_health(HealthState::Up) {
                pool.shared.state.announce();
                tracing::info!(pool = pool.shared.config.name, backend = backend.name, "up: replied");
            }
            tell(&self.shared, backend, HealthSignal::Replied);
        }
    }

    /// A race is over: responds to all who wait, or has the whole answer fetched for those who came by TCP.
    fn finish(&mut self, at: RaceRef, outcome: Outcome, at_hand: Option<AtHand<'_>>, now: Instant) {
        let winning = at_hand.filter(|at_hand| outcome == Outcome::Reply(at_hand.attempt));
        let late_above = self.remember(at, outcome, winning.map(|at_hand| at_hand.reply), now);
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        let me = usize::from(self.me.0);
        let pool = pool_at(&mut self.pools, entry.pool);
        let Entry { hash, flags, pool: place, .. } = *entry;
        for (attempt, slot) in entry.take_query_slots() {
            let Some(asked) = entry.race.attempt(attempt) else { continue };
            let backend = asked.backend;
            self.backend_sockets.quarantine(slot, now, |outstanding| {
                let proof = outstanding.proof();
                let sent = entry.sent_at(&asked, proof);
                let is_charged = pool.charge(backend, sent);
                Quarantined { sent, hash, pool: place, backend, is_charged, flags, proof, above: late_above }
            });
        }
        let rules = pool.shared.rules();
        let counters = &pool.shared.state.counters[me];
        counters.hedges_denied.add(entry.race.hedges_denied().into());
        let is_wasted =
            |attempt: &Attempt| attempt.kind == Kind::Hedge && attempt.is_sent && outcome != Outcome::Reply(attempt.id);
        counters.hedges_wasted.add(entry.race.attempts().filter(is_wasted).count() as u64);
        if tracing::enabled!(tracing::Level::DEBUG) {
            tracing::debug!("{}", Explained { entry, pool, outcome, is_kept: winning.is_none(), now });
        }
        for attempt in entry.race.attempts() {
            let is_silent = attempt.open && now.saturating_duration_since(attempt.asked_at) >= rules.attempt_timeout;
            let backend = &pool.shared.backends[attempt.backend.get()];
            if is_silent {
                pool.counters(attempt.backend).timeouts.increment();
                tell(&self.shared, backend, HealthSignal::Silent);
            }
        }
        // One that waited is the best kept one.
        let won_by = winning.map(|at_hand| rank(at_hand.reply)).or_else(|| entry.race.kept().map(|(_, rank)| rank));
        if won_by.is_none_or(|rank| rank == Rank::Failure) {
            // RFC 8767 section 4: a failure is no reason to withhold an answer that was good not long ago.
            self.respond_stale(at, now);
        }
        match outcome {
            Outcome::Reply(attempt) => self.finish_won(at, attempt, winning, won_by, now),
            Outcome::Failed => self.respond_word(at, Word::FAILED, now),
            Outcome::Unsent => self.respond_word(at, Word::UNSENT, now),
            Outcome::Nothing => {
                let Some(entry) = self.in_flight.get(at) else { return };
                let shared = &pool_at(&mut self.pools, entry.pool).shared;
                let is_any_up = entry.race.attempts().any(|attempt| shared.backends[attempt.backend.get()].is_up());
                let word = Word::of_silence(shared.rules(), is_any_up);
                self.respond_word(at, word, now);
            }
        }
        if self.in_flight.get(at).is_some_and(|entry| !entry.is_fetching) {
            self.remove(at);
        }
    }

    /// A race is won: tells the policies, and gives the reply to all who wait.
    fn finish_won(
        &mut self,
        at: RaceRef,
        attempt: AttemptId,
        winning: Option<AtHand<'_>>,
        won_by: Option<Rank>,
        now: Instant,
    ) {
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        let pool = pool_at(&mut self.pools, entry.pool);
        let is_hedged = pool.shared.rules().dispatch == Dispatch::Hedge && !entry.is_refresh;
        if is_hedged && won_by.is_some_and(|rank| rank > Rank::Failure) {
            pool.shared.budget().earn(1);
        }
        let Some(won) = entry.race.attempt(attempt) else { return };
        if entry.has_waiters() {
            pool.counters(won.backend).wins[number(won.kind)].increment();
        }
        match winning {
            Some(AtHand { reply, .. }) => {
                if won_by == Some(Rank::Positive) {
                    pool.learn_place(won.backend, entry.question(), &self.shared.hasher);
                }
                self.respond_with(at, attempt, reply, now);
            }
            None => {
                // Out of the entry for the time of the borrow; its buffer goes back.
                let kept = entry.take_kept();
                if let Ok(reply) = wire::read_reply(&kept) {
                    self.respond_with(at, attempt, &reply, now);
                }
                if let Some(entry) = self.in_flight.get_mut(at) {
                    entry.put_back_kept(kept);
                }
            }
        }
    }

    /// Forgets a race that is over.
    pub(super) fn remove(&mut self, at: RaceRef) {
        let Some(entry) = self.in_flight.get(at) else { return };
        let (hash, is_claimed, place) = (entry.hash, entry.is_claimed, entry.pool);
        if is_claimed {
            self.shared.claims.release(hash);
        }
        self.in_flight.remove(at);
        let pool = pool_at(&mut self.pools, place);
        pool.in_flight -= 1;
        // If it was the last of a pool that is in no state, the end of the turn forgets that.
        pool.shared.state.counters[usize::from(self.me.0)].in_flight.subtract(1);
    }
}

/// How a reply ranks (docs/src/contract.md, Races).
pub(super) fn rank(reply: &Reply<'_>) -> Rank {
    match reply.rcode() {
        Rcode::NOERROR if reply.is_truncated() || reply.has_answers() || reply.is_referral() => Rank::Positive,
        Rcode::NOERROR if reply.header().is_authoritative() => Rank::NodataAuthoritative,
        Rcode::NOERROR => Rank::Nodata,
        Rcode::NXDOMAIN if reply.is_truncated() => Rank::Positive,
        Rcode::NXDOMAIN => Rank::Nxdomain,
        _ => Rank::Failure,
    }
}

/// Whether a reply to a query with OPT may say that its sender knows no EDNS (RFC 6891 section 7: FORMERR; older servers:
/// NOTIMP). Some put an OPT record into the very reply, so that proves nothing.
fn is_opt_refusal(reply: &Reply<'_>) -> bool {
    matches!(reply.rcode(), Rcode::FORMERR | Rcode::NOTIMP)
}

/// Whether a reply says that the cookie of the query was not good (RFC 7873 section 5.2.3).
pub(super) fn is_badcookie(reply: &Reply<'_>) -> bool {
    reply.rcode() == Rcode::BADCOOKIE
}

/// Where attempts of a kind are counted.
fn number(kind: Kind) -> usize {
    match kind {
        Kind::First => 0,
        Kind::Hedge => 1,
        Kind::Failover => 2,
    }
}
