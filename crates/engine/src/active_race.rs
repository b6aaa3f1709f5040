//! An active race: a race during one event, which carries out the steps of its policy.

use std::time::Instant;

use config::Rank;
use dns::Reply;
use hedge::latency::TimeBucket;
use hedge::race::{Attempt, AttemptId, AttemptKind, BackendIndex, ExtensionRefusal, RaceStep, ReplyValue};
use hedge::timers::Timers;
use metrics::Want;

use super::attempt::{AttemptSlots, Outstanding};
use super::entry::{RaceEntry, Spills, StaleAnswer};
use super::io::{AskedFor, ClientHandle, Destination, Io, NotSent, SentAttempt};
use super::pool::Pool;
use super::proof::ReplyProof;
use super::query_slots::QuerySlot;
use super::reply::{decision, is_opt_refusal, rank};
use super::slots::RaceRef;
use super::{EngineWorker, QTYPE_QCLASS, Race, passing, shortage};

/// A race during one event: its entry, lent once, and everything that the event may touch.
pub(super) struct ActiveRace<'e, I: Io> {
    pub(super) at: RaceRef,
    pub(super) entry: &'e mut RaceEntry<I::Client>,
    pub(super) spills: &'e mut Spills<I::Client>,
    pub(super) pool: &'e mut Pool,
    pub(super) worker: &'e EngineWorker,
    pub(super) slots: &'e mut AttemptSlots,
    pub(super) timers: &'e mut Timers<RaceRef>,
    pub(super) scratch: &'e mut Vec<u8>,
    pub(super) io: &'e mut I,
    pub(super) now: Instant,
    /// The time to the reply at hand.
    pub(super) took: Option<TimeBucket>,
    pub(super) is_over: bool,
}

#[derive(Clone, Copy)]
pub(super) struct AtHand<'a> {
    pub(super) attempt: AttemptId,
    pub(super) reply: &'a Reply<'a>,
    pub(super) rank: Rank,
}

impl<I: Io> ActiveRace<'_, I> {
    pub(super) fn drive(&mut self, at_hand: Option<AtHand<'_>>) {
        while !self.entry.is_fetching {
            let context = self.pool.race_context(self.entry.has_waiters());
            match self.entry.race.poll(&context, self.now) {
                RaceStep::Ask { attempt, backend, kind, extended } => {
                    if self.ask(attempt, backend, extended) {
                        self.pool.counters(backend).attempts[number(kind)].increment();
                    }
                }
                // RFC 8767 section 5: the client response timer. The race goes on.
                RaceStep::WaitUntil(_) if self.is_stale_due() => self.respond_stale(),
                RaceStep::WaitUntil(until) => {
                    if self.entry.race.hedges_denied() > 0 {
                        self.entry.note_denied(self.now, self.spills);
                    }
                    return self.wake_at(until);
                }
                RaceStep::Finished(outcome) => return self.finish(outcome, at_hand),
            }
        }
        // The fetch has its own timeout; until then the waiting clients can only get a stale answer.
        if self.is_stale_due() {
            self.respond_stale();
        }
        if let Some(due) = self.entry.stale_due() {
            self.wake_at(due);
        }
    }

    fn is_stale_due(&self) -> bool {
        self.entry.stale_due().is_some_and(|due| due <= self.now)
    }

    fn wake_at(&mut self, until: Instant) {
        let until = self.entry.stale_due().map_or(until, |due| until.min(due));
        if self.entry.armed().is_none_or(|armed| until < armed) {
            self.timers.push(self.entry.arm(until), self.at);
        }
    }

    fn ask(&mut self, attempt: AttemptId, backend: BackendIndex, edns: bool) -> bool {
        if !self.pool.has_place(backend) {
            self.on_unsent(attempt, Want::InFlight);
            return false;
        }
        let sent = self.send(attempt, backend, edns, ReplyProof::NONE);
        match sent {
            Ok(()) => self.pool.asked(backend, self.now),
            Err(why) => self.on_not_sent(attempt, why),
        }
        sent.is_ok()
    }

    /// Handles an attempt that could not be sent. If no connection to a backend that is up has room, the
    /// limit is a local one and no failure of the backend.
    #[cold]
    pub(super) fn on_not_sent(&mut self, attempt: AttemptId, why: NotSent) {
        let asked = self.entry.race.attempt(attempt);
        match why {
            NotSent::Want(want) => self.on_unsent(attempt, want),
            NotSent::Full if asked.is_some_and(|asked| self.pool.backend(asked.backend).is_up()) => {
                self.on_unsent(attempt, Want::Connections);
            }
            NotSent::Unreachable | NotSent::Full => self.entry.race.on_failure(attempt),
        }
    }

    /// Queues the query of an attempt. `proof` gives the reason for sending; `send` adds the proof.
    pub(super) fn send(
        &mut self,
        attempt: AttemptId,
        backend: BackendIndex,
        edns: bool,
        proof: ReplyProof,
    ) -> Result<(), NotSent> {
        let with_opt = edns && !self.pool.backend(backend).is_without_opt(self.now);
        let proof = self.with_proofs(proof, backend, with_opt);
        let Self { at, entry, pool, worker, slots, io, now, .. } = self;
        let (now, entry) = (*now, &**entry);
        let sockets = pool.sockets(*io, backend);
        let is_by_stream = pool.is_by_stream(backend);
        let is_case_random = proof.has(ReplyProof::CASE);
        let cookies = pool.cookies(backend).filter(|_| proof.has(ReplyProof::COOKIE));
        let (secret, own_udp_size) = (&worker.secret, worker.state.edns_udp_size);
        let asks_version = pool.asks_versions() && !entry.is_signed();
        let outstanding = Outstanding::new(*at, attempt, proof);
        let (hash, since) = (entry.hash, entry.race.started());
        let kind = entry.race.attempt(attempt).map_or(AttemptKind::First, |attempt| attempt.kind);
        let report = SentAttempt { hash, pool: &pool.plan.shared, backend, kind, since };
        let avoid = if is_by_stream { entry.waits_at(attempt, backend) } else { None };
        let adds_opt = with_opt && !entry.is_signed() && pool.adds_opt(backend);
        let is_padded = adds_opt && pool.is_encrypted(backend) && pool.plan.shared.config.connections.padding;
        let asked_for = if pool.wants_header(backend) { entry.asked_for() } else { AskedFor::Hidden };
        let to = Destination { sockets, avoid, asked_for };
        let slot = slots.draw(io.choose(&to, now)?, outstanding, |slot| io.permits(slot));
        let sent = io.send(slot, &to, outstanding, &report, now, |out| {
            let opt_at = entry.write_query(with_opt, own_udp_size, out);
            if entry.needs_authentic() {
                dns::ask_authentic(out);
            }
            if let Some(cookies) = cookies {
                dns::add_cookie(out, opt_at, cookies, own_udp_size);
            }
            if adds_opt {
                dns::add_opt(out, opt_at, own_udp_size);
            }
            if asks_version {
                dns::ask_zone_version(out, opt_at, own_udp_size);
            }
            if is_case_random {
                let qname = dns::HEADER_LEN..dns::HEADER_LEN + entry.question().len().saturating_sub(QTYPE_QCLASS);
                dns::set_case(out.get_mut(qname).unwrap_or_default(), secret.case(slot, entry.hash));
            }
            if is_padded {
                dns::pad_query(out, opt_at, dns::QUERY_BLOCK);
            }
        });
        match sent {
            Ok(()) => self.entry.set_query_slot(attempt, Some(slot), self.spills),
            Err(_) => drop(slots.take_back(slot)),
        }
        sent
    }

    /// Adds the proofs that the reply of a backend must carry.
    #[inline]
    fn with_proofs(&mut self, mut proof: ReplyProof, backend: BackendIndex, with_opt: bool) -> ReplyProof {
        let Self { entry, pool, now, .. } = self;
        // A query with a TSIG record must not be changed. An attacker who does not see a connection cannot
        // join it, so a reply over it needs no further proof.
        if pool.is_by_stream(backend) || entry.is_signed() {
            return proof;
        }
        let (has_case, has_cookies) = (pool.is_case_random(backend, *now), with_opt && pool.cookies(backend).is_some());
        if has_case {
            proof = proof.with(ReplyProof::CASE);
        }
        if has_cookies {
            proof = proof.with(ReplyProof::COOKIE);
        }
        if (has_case || has_cookies) && std::mem::take(&mut pool.members[backend.get()].is_doubted) {
            proof = proof.with(ReplyProof::LENIENT);
        }
        proof
    }

    fn on_unsent(&mut self, attempt: AttemptId, want: Want) {
        let Some(Attempt { backend, .. }) = self.entry.race.attempt(attempt) else { return };
        let pool = &self.pool;
        self.worker.shared.shortage.note(want, &pool.plan.shared, backend, pool.counters(backend), self.now);
        self.entry.race.on_unsent(attempt, shortage::retry(want), pool.plan.shared.budget());
    }

    /// Ends an attempt whose slot is free already. The race moves on as `event` requires.
    pub(super) fn end(&mut self, attempt: AttemptId, event: impl FnOnce(&mut Race, AttemptId)) {
        if !self.entry.is_fetching {
            self.clear_slot(attempt);
            event(&mut self.entry.race, attempt);
            self.drive(None);
        }
    }

    /// Frees the slot of a query whose reply came or is no longer needed.
    pub(super) fn free(&mut self, slot: QuerySlot) {
        if self.slots.release(slot) {
            self.io.free(slot, self.now);
        }
    }

    pub(super) fn clear_slot(&mut self, attempt: AttemptId) {
        self.entry.set_query_slot(attempt, None, self.spills);
    }

    /// Returns the rank of a reply in this race, and the member that has a newer version of the zone, if any.
    #[inline]
    fn rank_in_race(&mut self, asked: Option<&Attempt>, reply: &Reply<'_>) -> (Rank, Option<BackendIndex>) {
        let Self { entry, pool, .. } = self;
        // RFC 8945 section 5.3: a signed query accepts no unsigned reply if another backend has a signed one.
        let is_worthless = entry.is_signed() && !reply.is_signed();
        let plain = rank(reply);
        let decision = asked.filter(|_| plain < Rank::Positive && !is_worthless).and_then(|asked| {
            let believes =
                |_: &Rank| pool.plan.shared.rules().believe_ede && pool.plan.shared.backend(asked.backend).is_up();
            // If no other backend is trusted with AD, no reply can replace a doubtful decision.
            let is_final = |rank: Rank| rank == Rank::Doubtful && !may_validate(entry, pool, asked.backend);
            let decision = decision(reply).filter(believes);
            decision.map(|rank| if is_final(rank) { Rank::Decided } else { rank })
        });
        let newer = asked.filter(|_| !is_worthless && decision.is_none()).and_then(|asked| {
            let newer = pool.hear_version(asked.backend, reply, &self.worker.shared.hasher, self.now);
            newer.filter(|_| !entry.race.is_final(asked.backend))
        });
        let rank = match newer {
            Some(_) => Rank::Outdated,
            None if is_worthless => Rank::Failure,
            None => decision.unwrap_or(plain),
        };
        (rank, newer)
    }

    /// Takes a reply that proves its origin, as far as its content may pass.
    pub(super) fn judge(&mut self, outstanding: Outstanding, reply: &Reply<'_>) {
        let mut room = Vec::new();
        let filtered = self.filter(reply, &mut room);
        self.judge_filtered(outstanding, filtered.as_ref().unwrap_or(reply));
    }

    /// Returns the part of a reply that the rules of the pool let pass; `None` if that is all of it.
    /// RFC 8945 section 5.5: a signed reply goes to its client as it came.
    pub(super) fn filter<'m>(&self, reply: &Reply<'_>, room: &'m mut Vec<u8>) -> Option<Reply<'m>> {
        let rules = &self.pool.plan.shared.rules().passing;
        if self.entry.is_signed() { None } else { passing::filter(rules, reply, room) }
    }

    fn judge_filtered(&mut self, outstanding: Outstanding, reply: &Reply<'_>) {
        let Self { entry, pool, .. } = self;
        let attempt = outstanding.attempt();
        let asked = entry.race.attempt(attempt);
        let is_ad_trusted = asked.is_some_and(|asked| pool.plan.shared.backend(asked.backend).is_ad_trusted());
        let is_authentic = is_ad_trusted && reply.is_authentic();
        // Only the race asked for AD here, so clients do not get it.
        let is_for_clients = is_ad_trusted && (entry.asks_authentic() || !entry.race.is_doubted());
        // RFC 8945 section 5.5: a signed reply goes to its client as it came.
        let reply = &if is_for_clients || entry.is_signed() { *reply } else { reply.without_authentic() };
        let has_opt = asked.is_some_and(|asked| has_opt(entry, pool, asked.backend, outstanding.proof()));
        if has_opt && is_opt_refusal(reply) && entry.race.on_extension_refused(attempt) == ExtensionRefusal::AskedAgain
        {
            return self.drive(None);
        }
        if !is_opt_refusal(reply)
            && let Some(asked) = asked
            && !asked.extended
        {
            pool.backend(asked.backend).set_without_opt(self.now);
        }
        if let Some(asked) = asked
            && pool.plan.shared.compares(entry.hash)
        {
            self.compare(asked.backend, reply);
        }
        let (rank, newer) = self.rank_in_race(asked.as_ref(), reply);
        let Self { entry, pool, .. } = self;
        let is_validated = rank == Rank::Positive && is_authentic;
        let heard = match newer {
            Some(newest) => {
                self.worker.counters_of(&pool.plan.shared).stale_replies.increment();
                entry.race.on_outdated(attempt, rank, newest)
            }
            None if entry.race.is_doubted() && is_validated => entry.race.on_validated(attempt),
            None => entry.race.on_reply(attempt, rank, self.now),
        };
        if let Some(asked) = asked
            && rank > Rank::Positive
            && heard != ReplyValue::NotNeeded
        {
            pool.counters(asked.backend).decisions.increment();
        }
        match heard {
            ReplyValue::Accepted => {}
            ReplyValue::NotNeeded => entry.note_reply(attempt, rank, self.now, self.spills),
            ReplyValue::Kept => {
                entry.keep(reply, self.spills);
                if rank == Rank::Doubtful {
                    // A stale answer does not replace a decision.
                    entry.set_stale(StaleAnswer::Unknown);
                }
                entry.note_reply(attempt, rank, self.now, self.spills);
            }
        }
        self.drive(Some(AtHand { attempt, reply, rank }));
    }
}

/// Returns true if the query of an attempt with OPT has an OPT record. If the client sent none, hedgerow adds
/// one for its cookie, for the extended errors of the reply, or for padding.
pub(super) fn has_opt<C: ClientHandle>(
    entry: &RaceEntry<C>,
    pool: &Pool,
    backend: BackendIndex,
    proof: ReplyProof,
) -> bool {
    entry.has_opt() || proof.has(ReplyProof::COOKIE) || !entry.is_signed() && pool.adds_opt(backend)
}

#[cold]
fn may_validate<C: ClientHandle>(entry: &RaceEntry<C>, pool: &Pool, doubtful: BackendIndex) -> bool {
    entry.race.candidates().iter().any(|other| other != doubtful && pool.plan.shared.backend(other).is_ad_trusted())
}

pub(super) fn number(kind: AttemptKind) -> usize {
    match kind {
        AttemptKind::First => 0,
        AttemptKind::Hedge => 1,
        AttemptKind::Failover => 2,
    }
}
