//! The end of a race: it caches the result, quarantines the slots and responds to each client.

use std::time::Instant;

use config::Rank;
use dns::{Rcode, Reply};
use hedge::latency::TimeBucket;
use hedge::race::{Attempt, AttemptId, AttemptKind, BackendIndex, RaceEnd};
use hedge::regret::BeatenAttempt;
use metrics::FetchResult;

use super::active_race::{ActiveRace, AtHand};
use super::attempt::QuarantinedAttempt;
use super::cached::{LookupReason, PoolCache, SubnetQuery, fold, is_silence_servfail, split};
use super::entry::{StaleAnswer, Waiter};
use super::explain::{RaceClients, RaceReport, RaceResult};
use super::io::{ClientHandle, FetchFrom, FetchQuery, Io, ResponseOrigin};
use super::reply::rank;
use super::responses::{ClientResponder, FallbackAnswer};
use super::signal_prober;
use crate::state::HealthSignal;

impl<I: Io> ActiveRace<'_, I> {
    /// Ends the race: responds to all waiting clients, or fetches the whole answer for those that use TCP.
    pub(super) fn finish(&mut self, end: RaceEnd, at_hand: Option<AtHand<'_>>) {
        let winning = at_hand.filter(|at_hand| end == RaceEnd::Reply(at_hand.attempt));
        // A kept reply can win, or the one at hand.
        let kept = self.entry.race.kept().filter(|(attempt, _)| end == RaceEnd::Reply(*attempt));
        let won_by = kept.map(|(_, rank)| rank).or_else(|| winning.map(|at_hand| at_hand.rank));
        let late_above = self.remember(end, won_by, winning.map(|at_hand| at_hand.reply));
        let fallback = self.fallback(end);
        let waiting = self.entry.waiter_count();
        if won_by.is_none_or(|rank| rank == Rank::Failure) {
            // RFC 8767 section 4: a failure is no reason to withhold a recently expired answer.
            self.respond_stale();
        }
        let rcode = match (winning, fallback) {
            (Some(AtHand { reply, .. }), _) => Some(reply.rcode()),
            (None, Some(fallback)) => fallback.rcode,
            (None, None) => dns::Header::read(self.entry.kept()).map(|header| header.rcode()),
        };
        // A race counts if its first reply wins: no hedge saves the time of failures or unaccepted replies.
        let first_reply = winning.filter(|_| self.entry.race.has_one_ended());
        if let Some(AtHand { attempt, .. }) = first_reply.filter(|_| waiting > 0) {
            // The first attempt was made at the start of the race.
            let took = self.took.filter(|_| attempt == AttemptId(0));
            let since_start = || self.now.saturating_duration_since(self.entry.race.started());
            self.pool.regret_tally().won(took.unwrap_or_else(|| TimeBucket::of(since_start())));
        }
        let are_late_reported = self.report(RaceResult { end, won_by, rcode }, waiting);
        self.quarantine_slots(late_above, first_reply.is_some(), are_late_reported);
        match (end, fallback) {
            (RaceEnd::Reply(attempt), _) => self.finish_won(attempt, winning, won_by),
            (RaceEnd::Failed | RaceEnd::Unsent | RaceEnd::Nothing, Some(fallback)) => self.respond_fallback(fallback),
            (RaceEnd::Failed | RaceEnd::Unsent | RaceEnd::Nothing, None) => {}
        }
        self.is_over |= !self.entry.is_fetching;
    }

    fn fallback(&self, end: RaceEnd) -> Option<FallbackAnswer<'static>> {
        match end {
            RaceEnd::Reply(_) => None,
            RaceEnd::Failed => Some(FallbackAnswer::FAILED),
            RaceEnd::Unsent => Some(FallbackAnswer::UNSENT),
            RaceEnd::Nothing => {
                let shared = &self.pool.plan.shared;
                let is_any_up = self.entry.race.attempts().any(|attempt| shared.backend(attempt.backend).is_up());
                Some(FallbackAnswer::of_silence(shared.rules(), is_any_up))
            }
        }
    }

    pub(super) fn respond_stale(&mut self) {
        let Self { entry, spills, pool, worker, io, scratch, now, .. } = self;
        if entry.is_signed() {
            return;
        }
        entry.set_stale(StaleAnswer::Unknown);
        let Some(cached) = PoolCache::of(&worker.state, &pool.plan.shared) else { return };
        let Some(folded) = fold(entry) else { return };
        let Some(question) = split(&folded, entry.query.flags, entry.hash) else { return };
        let of = SubnetQuery { pool: &pool.plan.shared, sent: entry.subnet(), hasher: &worker.shared.hasher };
        let cached = cached.found(&of, question, *now);
        let key = cached.key(question);
        let origin = ResponseOrigin::of_race(entry.hash, &pool.plan.shared, &entry.race, None);
        let waited = entry.waiter_count();
        let mut responder = ClientResponder::new(*io, worker, scratch, *now);
        entry.retain_without_stale(&worker.shared.clients, spills, |waiter| {
            !LookupReason::Need.takes(cached.give(&mut responder, &key, waiter, &origin, LookupReason::Need))
        });
        entry.note_stale_given(waited - entry.waiter_count(), spills);
        // Clients that still wait found no entry: it was evicted meanwhile.
        if !entry.has_waiters() {
            entry.set_stale(StaleAnswer::Given);
        }
    }

    /// Remembers the result of the race. Returns the rank that a late reply must exceed to be better.
    fn remember(&mut self, outcome: RaceEnd, won_by: Option<Rank>, at_hand: Option<&Reply<'_>>) -> Option<Rank> {
        let Self { entry, pool, worker, scratch, now, .. } = self;
        if entry.is_signed() {
            return None;
        }
        let (shared, now) = (&pool.plan.shared, *now);
        let cached = PoolCache::of(&worker.state, shared)?;
        let folded = fold(entry)?;
        let kept = if at_hand.is_none() { dns::read_reply(entry.kept()).ok() } else { None };
        let reply = at_hand.or(kept.as_ref()).filter(|_| matches!(outcome, RaceEnd::Reply(_)));
        let of = SubnetQuery { pool: shared, sent: entry.subnet(), hasher: &worker.shared.hasher };
        let cached = cached.for_reply(&of, reply);
        let key = cached.key(split(&folded, entry.query.flags, entry.hash)?);
        let PoolCache { cache, rules, .. } = cached;
        match outcome {
            RaceEnd::Reply(won) if entry.race.kept() == Some((won, Rank::Outdated)) => {
                // The reply does not report the zone's present version, and no other backend had a newer one.
                // A late one is better.
                cache.note_failure(&key, rules, now);
                return Some(Rank::Outdated);
            }
            RaceEnd::Reply(_) => {
                let reply = reply?;
                let rank = won_by.unwrap_or_else(|| rank(reply));
                if entry.race.is_incomplete() && !shared.rules().accept.accepts(rank) {
                    // It is the best only because other backends could not be asked.
                    return Some(rank);
                }
                return cached.keep_won(&key, reply, rank, shared.rules().accept, now, scratch);
            }
            RaceEnd::Failed => {
                // Bare failures lack the question, so the fallback answer to the client stands for them.
                let (mut query, mut failure) = (Vec::new(), Vec::new());
                entry.write_query(true, worker.state.edns_udp_size, &mut query);
                dns::write_error(&query, Rcode::SERVFAIL, None, worker.state.edns_udp_size, &mut failure);
                if let Ok(failure) = dns::read_reply(&failure) {
                    cache.keep(&key, &failure, rules, now, scratch);
                }
            }
            RaceEnd::Nothing if is_silence_servfail(shared.rules()) => cache.keep_silence(&key, rules, now, scratch),
            RaceEnd::Nothing => {
                cache.note_failure(&key, rules, now);
            }
            // A local shortage says nothing about the name or its servers.
            RaceEnd::Unsent => {}
        }
        Some(Rank::Failure)
    }

    fn remember_whole(&mut self, reply: &Reply<'_>) {
        let Self { entry, pool, worker, scratch, now, .. } = self;
        if !entry.is_signed()
            && !pool.is_outdated(reply)
            && let Some(cached) = PoolCache::of(&worker.state, &pool.plan.shared)
            && let Some(folded) = fold(entry)
            && let Some(question) = split(&folded, entry.query.flags, entry.hash)
        {
            let of = SubnetQuery { pool: &pool.plan.shared, sent: entry.subnet(), hasher: &worker.shared.hasher };
            let cached = cached.for_reply(&of, Some(reply));
            cached.cache.keep(&cached.key(question), reply, cached.rules, *now, scratch);
        }
    }

    /// Quarantines the slots of missing replies and charges their backends for the time.
    fn quarantine_slots(&mut self, above: Option<Rank>, is_won: bool, is_reported: bool) {
        let Self { entry, pool, slots, io, now, .. } = self;
        for (attempt, slot) in entry.take_query_slots() {
            let Some(asked) = entry.race.attempt(attempt) else { continue };
            let backend = asked.backend;
            let opened = if pool.is_by_stream(backend) { io.opened(slot.socket()) } else { None };
            slots.quarantine(slot, *now, |outstanding| {
                let proof = outstanding.proof();
                let sent = handed_at(entry.sent_at(&asked, proof), opened);
                let waited = now.saturating_duration_since(sent);
                QuarantinedAttempt {
                    sent,
                    hash: entry.hash,
                    pool: entry.origin.pool,
                    plan: entry.origin.plan,
                    backend,
                    beaten: match is_won {
                        true => pool.regret_tally().beaten(asked.kind, waited),
                        false => BeatenAttempt::uncounted(asked.kind),
                    },
                    is_charged: Some(pool.charge(backend, sent)),
                    flags: entry.query.flags,
                    proof,
                    above,
                    is_reported,
                    digest: entry.digest(),
                }
            });
        }
    }

    fn report(&mut self, result: RaceResult, waiting: usize) -> bool {
        let Self { at, entry, pool, worker, io, now, .. } = self;
        let (rules, now) = (pool.plan.shared.rules(), *now);
        let counters = worker.counters_of(&pool.plan.shared);
        counters.hedges_denied.add(entry.race.hedges_denied().into());
        let is_wasted = |attempt: &Attempt| {
            attempt.kind == AttemptKind::Hedge && attempt.is_sent && result.end != RaceEnd::Reply(attempt.id)
        };
        counters.hedges_wasted.add(entry.race.attempts().filter(is_wasted).count() as u64);
        let are_late_reported = io.race_over(RaceReport {
            id: *at,
            race: &entry.race,
            question: entry.question(),
            hash: entry.hash,
            pool: &pool.plan.shared,
            result,
            replies: entry.replies(),
            denied_at: entry.denied_at(),
            clients: RaceClients {
                waiting,
                given_stale: entry.stale_given(),
                is_prefetch: entry.origin.is_refresh,
                is_explained: entry.is_explained(),
            },
            now,
        });
        for attempt in entry.race.attempts() {
            let is_silent =
                attempt.open && now.saturating_duration_since(attempt.asked_at) >= rules.race.attempt_timeout.longest();
            if is_silent {
                pool.counters(attempt.backend).timeouts.increment();
                signal_prober(*io, pool.backend(attempt.backend), HealthSignal::Silent);
            }
        }
        are_late_reported
    }

    fn finish_won(&mut self, attempt: AttemptId, winning: Option<AtHand<'_>>, won_by: Option<Rank>) {
        let Self { entry, pool, worker, .. } = self;
        let is_hedged = pool.plan.shared.rules().race.dispatch.is_hedging() && !entry.origin.is_refresh;
        if is_hedged && won_by.is_some_and(|rank| rank > Rank::Failure) {
            pool.plan.shared.budget().earn(1);
        }
        let Some(won) = entry.race.attempt(attempt) else { return };
        if entry.has_clients() {
            pool.counters(won.backend).wins[super::active_race::number(won.kind)].increment();
        }
        match winning {
            Some(AtHand { reply, .. }) => {
                if won_by == Some(Rank::Positive) {
                    pool.learn_place(won.backend, entry.question(), &worker.shared.hasher);
                }
                self.respond_with(&won, won_by, reply);
            }
            None => {
                // Taken out of the entry to allow the borrow; the buffer goes back.
                let kept = entry.take_kept();
                if let Ok(reply) = dns::read_reply(&kept) {
                    self.respond_with(&won, won_by, &reply);
                }
                if self.entry.kept().is_empty() {
                    self.entry.put_back_kept(kept);
                }
            }
        }
    }

    /// Gives the winning reply to all waiting clients. A UDP client gets a TC reply and comes back. TCP
    /// clients, or the cache if no client waits and caches it all, get the whole answer fetched by TCP.
    fn respond_with(&mut self, winner: &Attempt, won_by: Option<Rank>, reply: &Reply<'_>) {
        // An encrypted backend is asked by no other transport, so its truncated replies stay truncated. A
        // decision needs no records, and no other backend is asked for them.
        let is_decision = matches!(won_by, Some(Rank::Decided | Rank::Doubtful));
        let is_truncated = reply.is_truncated() && !self.pool.is_encrypted(winner.backend) && !is_decision;
        let is_signed = self.entry.is_signed();
        let has_no_waiter = !self.entry.has_waiters();
        let Self { entry, pool, worker, io, scratch, now, .. } = self;
        let origin = ResponseOrigin::of_race(entry.hash, &pool.plan.shared, &entry.race, Some(winner));
        let mut responder = ClientResponder::new(*io, worker, scratch, *now);
        entry.retain_waiters(&worker.shared.clients, |waiter| {
            let needs_more = is_truncated && waiter.client.transport().is_stream();
            if !needs_more {
                responder.relay(waiter, &origin, reply, is_signed);
            }
            needs_more
        });
        if is_truncated && (has_no_waiter || entry.has_waiters()) {
            entry.is_fetching = true;
            // For UDP clients that ask during the fetch.
            entry.keep(reply, self.spills);
            if self.fetch(winner) {
                self.drive(None);
            } else {
                self.fail_fetch(FetchResult::Unsent);
            }
        }
    }

    /// Fetches the whole answer from the backend of the truncated reply or another, if there is room.
    fn fetch(&mut self, winner: &Attempt) -> bool {
        let Self { at, entry, pool, worker, io, now, .. } = self;
        let (shared, now) = (&pool.plan.shared, *now);
        // In a large pool, the candidates of the race are enough.
        let all =
            shared.backends.iter().map(|backend| backend.index).take(if pool.is_crowd() { 0 } else { usize::MAX });
        let candidates = entry.race.candidates().iter().filter(|_| pool.is_crowd());
        let others = all.chain(candidates);
        let others = others.filter(|other| {
            let backend = shared.backend(*other);
            *other != winner.backend && backend.takes_queries() && !backend.is_encrypted()
        });
        let others = others.map(|other| (other, !pool.backend(other).is_without_opt(now)));
        let backends =
            std::iter::once((winner.backend, winner.extended && !pool.backend(winner.backend).is_without_opt(now)));
        let address = |(index, with_opt): (BackendIndex, bool)| {
            let backend = shared.backend(index);
            let is_ad_trusted = backend.is_ad_trusted();
            FetchFrom { address: backend.address.socket, with_opt, is_ad_trusted, wants_header: backend.wants_header }
        };
        let mut message = Vec::new();
        let opt_at = entry.write_query(true, worker.state.edns_udp_size, &mut message);
        if !entry.is_signed() && pool.adds_opt(winner.backend) {
            dns::add_opt(&mut message, opt_at, worker.state.edns_udp_size);
        }
        let mut by_tcp = entry.waiters().filter(|waiter| waiter.client.transport().is_stream());
        let query = FetchQuery {
            backends: backends.chain(others).map(address).collect(),
            message,
            opt_at,
            question: entry.question().to_vec(),
            patience: shared.rules().race.attempt_timeout.longest(),
            deadline: entry.race.deadline(),
            client: by_tcp.next().map(|waiter| waiter.client.ip()),
        };
        io.fetch(*at, query, entry.asked_for(), now)
    }

    pub(super) fn finish_fetch(&mut self, reply: &Reply<'_>) {
        if !self.is_of_subnet(reply) {
            return self.fail_fetch(FetchResult::Failed);
        }
        self.count_fetch(FetchResult::Whole);
        let mut room = Vec::new();
        let filtered = self.filter(reply, &mut room);
        let reply = filtered.as_ref().unwrap_or(reply);
        self.remember_whole(reply);
        let Self { entry, pool, worker, io, scratch, now, .. } = self;
        let winner = entry.race.winner();
        let origin = ResponseOrigin::of_race(entry.hash, &pool.plan.shared, &entry.race, winner.as_ref());
        let mut responder = ClientResponder::new(*io, worker, scratch, *now);
        entry.waiters().for_each(|waiter| responder.relay(&waiter, &origin, reply, entry.is_signed()));
        self.is_over = true;
    }

    pub(super) fn fail_fetch(&mut self, result: FetchResult) {
        self.count_fetch(result);
        self.respond_stale();
        let unsent = result == FetchResult::Unsent;
        self.respond_fallback(if unsent { FallbackAnswer::UNSENT } else { FallbackAnswer::NOT_WHOLE });
        // Ends the caller's loop in `drive`.
        self.is_over = true;
    }

    fn count_fetch(&self, result: FetchResult) {
        self.worker.counters_of(&self.pool.plan.shared).fetches[result as usize].increment();
    }

    /// Gives the TC reply to a UDP client that asks during the fetch, because it can use nothing longer.
    pub(super) fn respond_meanwhile(&mut self, waiter: &Waiter<I::Client>) {
        let Self { entry, pool, worker, io, scratch, now, .. } = self;
        if let Ok(reply) = dns::read_reply(entry.kept()) {
            let winner = entry.race.winner();
            let origin = ResponseOrigin::of_race(entry.hash, &pool.plan.shared, &entry.race, winner.as_ref());
            ClientResponder::new(*io, worker, scratch, *now).relay(waiter, &origin, &reply, false);
        }
    }

    fn respond_fallback(&mut self, fallback: FallbackAnswer<'_>) {
        let Self { entry, pool, worker, io, scratch, now, .. } = self;
        let origin = ResponseOrigin::of_race(entry.hash, &pool.plan.shared, &entry.race, None);
        let mut responder = ClientResponder::new(*io, worker, scratch, *now);
        entry.waiters().for_each(|waiter| fallback.give(&mut responder, &waiter, &origin, entry.question()));
    }
}

/// Returns the later of the query's and the connection's start: a handshake is no latency.
#[inline]
pub(super) fn handed_at(sent: Instant, opened: Option<Instant>) -> Instant {
    opened.map_or(sent, |opened| sent.max(opened))
}
