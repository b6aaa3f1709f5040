//! A race during one event: what it says is done.

use std::time::Instant;

use super::attempt::Outstanding;
use super::entry::{Entry, Spills, StaleAnswer};
use super::io::{AskedFor, Client, Destination, Io, NotSent, SentAttempt};
use super::pool::Pool;
use super::proof::Proof;
use super::slots::RaceRef;
use super::{QTYPE_QCLASS, Worker, shortage};
use crate::metrics::Want;
use crate::policy::Rank;
use crate::policy::race::{Attempt, AttemptId, BackendIndex, Heard, Kind, OptRefusal, Step};
use crate::policy::timers::Timers;
use crate::wire::{self, Reply};

use super::reply::{decision, is_opt_refusal, rank};

/// A race during one event: its entry, lent once, and all that the event may touch.
pub(super) struct ActiveRace<'e, I: Io> {
    pub(super) at: RaceRef,
    /// The query in flight.
    pub(super) entry: &'e mut Entry<I::Client>,
    /// Where it finds room for what few need.
    pub(super) spills: &'e mut Spills<I::Client>,
    pub(super) pool: &'e mut Pool,
    /// What all races look at.
    pub(super) worker: &'e Worker,
    /// When races have to be looked at.
    pub(super) timers: &'e mut Timers<RaceRef>,
    /// Where messages are written that nobody is sent.
    pub(super) scratch: &'e mut Vec<u8>,
    /// Who does what it wants done.
    pub(super) io: &'e mut I,
    /// When the event happens.
    pub(super) now: Instant,
    /// All who waited have been responded to: the entry is to be removed.
    pub(super) is_over: bool,
}

/// A reply at hand, which the race may let win.
#[derive(Clone, Copy)]
pub(super) struct AtHand<'a> {
    /// The attempt that it answers.
    pub(super) attempt: AttemptId,
    pub(super) reply: &'a Reply<'a>,
    /// How it ranks.
    pub(super) rank: Rank,
}

impl<I: Io> ActiveRace<'_, I> {
    /// Does what the race says until it waits or is over.
    pub(super) fn drive(&mut self, at_hand: Option<AtHand<'_>>) {
        while !self.entry.is_fetching {
            let context = self.pool.race_context(self.entry.has_waiters());
            match self.entry.race.next_step(&context, self.now) {
                Step::Ask { attempt, backend, kind, edns } => {
                    if self.ask(attempt, backend, edns) {
                        self.pool.counters(backend).attempts[number(kind)].increment();
                    }
                }
                // RFC 8767 section 5: the client response timer. The race goes on.
                Step::WaitUntil(_) if self.is_stale_due() => self.respond_stale(),
                Step::WaitUntil(until) => {
                    if self.entry.race.hedges_denied() > 0 {
                        self.entry.note_denied(self.now, self.spills);
                    }
                    return self.wake_at(until);
                }
                Step::Finished(outcome) => return self.finish(outcome, at_hand),
            }
        }
        // The fetch has its own time; only those who wait for it may be given a stale answer meanwhile.
        if self.is_stale_due() {
            self.respond_stale();
        }
        if let Some(due) = self.entry.stale_due() {
            self.wake_at(due);
        }
    }

    /// Whether it is time for a stale answer.
    fn is_stale_due(&self) -> bool {
        self.entry.stale_due().is_some_and(|due| due <= self.now)
    }

    /// Sees to it that the race is looked at by then, or when it is time for a stale answer.
    fn wake_at(&mut self, until: Instant) {
        let until = self.entry.stale_due().map_or(until, |due| until.min(due));
        if self.entry.armed().is_none_or(|armed| until < armed) {
            self.timers.push(self.entry.arm(until), self.at);
        }
    }

    /// Makes an attempt: queues the query for a backend. Returns whether that could be done.
    fn ask(&mut self, attempt: AttemptId, backend: BackendIndex, edns: bool) -> bool {
        if !self.pool.has_place(backend) {
            self.on_unsent(attempt, Want::InFlight);
            return false;
        }
        let sent = self.send(attempt, backend, edns, Proof::NONE);
        match sent {
            Ok(()) => self.pool.asked(backend, self.now),
            Err(NotSent::Unreachable) => self.entry.race.on_failure(attempt),
            Err(NotSent::Want(want)) => self.on_unsent(attempt, want),
            Err(NotSent::Full) => self.on_full(attempt),
        }
        sent.is_ok()
    }

    /// Queues the query of an attempt. `proof`: why it is sent, to which comes what its reply must bear.
    pub(super) fn send(
        &mut self,
        attempt: AttemptId,
        backend: BackendIndex,
        edns: bool,
        proof: Proof,
    ) -> Result<(), NotSent> {
        let Self { at, entry, pool, worker, io, now, .. } = self;
        let (now, entry) = (*now, &**entry);
        let sockets = pool.sockets(*io, backend);
        let with_opt = edns && !pool.is_without_opt(backend, now);
        // Of a query with a TSIG record nothing may be changed.
        // Nobody can join a connection who does not see it: what comes by one needs no further proof.
        let is_by_stream = pool.is_by_stream(backend);
        let is_case_random = !is_by_stream && pool.is_case_random(backend, now) && !entry.is_signed();
        let proof = if is_case_random { proof.with(Proof::CASE) } else { proof };
        let has_cookies = !is_by_stream && pool.cookies(backend).is_some() && with_opt && !entry.is_signed();
        let proof = if has_cookies { proof.with(Proof::COOKIE) } else { proof };
        let is_test = (is_case_random || has_cookies) && pool.take_doubt(backend);
        let proof = if is_test { proof.with(Proof::LENIENT) } else { proof };
        let cookies = pool.cookies(backend).filter(|_| has_cookies);
        let (secret, own_udp_size) = (&worker.secret, worker.state.edns_udp_size);
        let asks_version = pool.asks_versions() && !entry.is_signed();
        let outstanding = Outstanding::new(*at, attempt, proof);
        let (hash, since) = (entry.hash, entry.race.started());
        let kind = entry.race.attempt(attempt).map_or(Kind::First, |attempt| attempt.kind);
        let report = SentAttempt { hash, pool: &pool.shared, backend, kind, since };
        let avoid = if is_by_stream { entry.waits_at(attempt, backend) } else { None };
        let adds_opt = with_opt && !entry.is_signed() && pool.adds_opt(backend);
        let is_padded = adds_opt && pool.is_encrypted(backend) && pool.shared.config.connections.padding;
        let asked_for = if pool.wants_header(backend) { entry.asked_for() } else { AskedFor::Untold };
        let to = Destination { sockets, avoid, asked_for };
        let slot = io.send(to, outstanding, &report, now, |slot, out| {
            let opt_at = entry.write_query(with_opt, out);
            if entry.needs_authentic() {
                wire::ask_authentic(out);
            }
            if let Some(cookies) = cookies {
                wire::add_cookie(out, opt_at, cookies, own_udp_size);
            }
            if adds_opt {
                wire::add_opt(out, opt_at, own_udp_size);
            }
            if asks_version {
                wire::ask_zone_version(out, opt_at, own_udp_size);
            }
            if is_case_random {
                let qname = wire::HEADER_LEN..wire::HEADER_LEN + entry.question().len().saturating_sub(QTYPE_QCLASS);
                wire::set_case(out.get_mut(qname).unwrap_or_default(), secret.case(slot, entry.hash));
            }
            if is_padded {
                wire::pad_query(out, opt_at, wire::QUERY_BLOCK);
            }
        })?;
        self.entry.set_query_slot(attempt, Some(slot), self.spills);
        Ok(())
    }

    /// An attempt could not leave for want of something of our own, which says nothing about its backend.
    pub(super) fn on_unsent(&mut self, attempt: AttemptId, want: Want) {
        let Some(Attempt { backend, .. }) = self.entry.race.attempt(attempt) else { return };
        let pool = &self.pool;
        self.worker.shared.shortage.note(want, &pool.shared, backend, pool.counters(backend), self.now);
        self.entry.race.on_unsent(attempt, shortage::retry(want), pool.shared.budget());
    }

    /// No connection to the backend of an attempt has room. If it is up, that is a bound of our own, and no failure of it.
    #[cold]
    pub(super) fn on_full(&mut self, attempt: AttemptId) {
        let Some(Attempt { backend, .. }) = self.entry.race.attempt(attempt) else { return };
        if self.pool.backend(backend).is_up() {
            self.on_unsent(attempt, Want::Connections);
        } else {
            self.entry.race.on_failure(attempt);
        }
    }

    /// An attempt was lost with its connection.
    pub(super) fn lose(&mut self, attempt: AttemptId) {
        if !self.entry.is_fetching {
            self.clear_slot(attempt);
            self.entry.race.on_lost(attempt);
            self.drive(None);
        }
    }

    /// Nothing waits for the reply to an attempt any more.
    pub(super) fn clear_slot(&mut self, attempt: AttemptId) {
        self.entry.set_query_slot(attempt, None, self.spills);
    }

    /// An attempt has failed: there is no way to its backend, or that is down.
    pub(super) fn fail(&mut self, attempt: AttemptId) {
        if !self.entry.is_fetching {
            self.clear_slot(attempt);
            self.entry.race.on_failure(attempt);
            self.drive(None);
        }
    }

    /// Lets the race judge a reply that passed every check.
    pub(super) fn judge(&mut self, outstanding: Outstanding, reply: &Reply<'_>) {
        let Self { entry, pool, .. } = self;
        let attempt = outstanding.attempt();
        let asked = entry.race.attempt(attempt);
        let is_ad_trusted = asked.is_some_and(|asked| pool.shared.backend(asked.backend).is_ad_trusted());
        let is_authentic = is_ad_trusted && reply.is_authentic();
        // AD that the race alone has asked for is not for clients.
        let is_for_clients = is_ad_trusted && (entry.asks_authentic() || !entry.race.is_doubted());
        // RFC 8945 section 5.5: a signed reply goes to its client as it came.
        let reply = &if is_for_clients || entry.is_signed() { *reply } else { reply.without_authentic() };
        let has_opt = asked.is_some_and(|asked| has_opt(entry, pool, asked.backend, outstanding.proof()));
        if has_opt && is_opt_refusal(reply) && entry.race.on_opt_refused(attempt) == OptRefusal::AskedAgain {
            return self.drive(None);
        }
        if !is_opt_refusal(reply)
            && let Some(asked) = asked
            && !asked.edns
        {
            pool.remember_without_opt(asked.backend, self.now);
        }
        if let Some(asked) = asked
            && pool.shared.compares(entry.hash)
        {
            self.compare(asked.backend, reply);
        }
        let Self { entry, pool, .. } = self;
        // RFC 8945 section 5.3: who has signed its query takes no unsigned reply, if another backend has a signed one.
        let is_worthless = entry.is_signed() && !reply.is_signed();
        let plain = rank(reply);
        let decision = asked.filter(|_| plain < Rank::Positive && !is_worthless).and_then(|asked| {
            let believes = |_: &Rank| pool.shared.rules().believe_ede && pool.shared.backend(asked.backend).is_up();
            // Where no other backend is trusted with AD, no reply can replace a doubtful decision.
            let is_final = |rank: Rank| rank == Rank::Doubtful && !may_validate(entry, pool, asked.backend);
            let decision = decision(reply).filter(believes);
            decision.map(|rank| if is_final(rank) { Rank::Decided } else { rank })
        });
        // A decision is no word of a version of the zone.
        let newer = asked.filter(|_| !is_worthless && decision.is_none()).and_then(|asked| {
            let newer = pool.hear_version(asked.backend, reply, &self.worker.shared.hasher, self.now);
            newer.filter(|_| !entry.race.is_final(asked.backend))
        });
        let rank = match newer {
            Some(_) => Rank::Outdated,
            None if is_worthless => Rank::Failure,
            None => decision.unwrap_or(plain),
        };
        let is_validated = rank == Rank::Positive && is_authentic;
        let heard = match newer {
            Some(newest) => {
                self.worker.counters_of(&pool.shared).stale_replies.increment();
                entry.race.on_outdated(attempt, newest)
            }
            None if entry.race.is_doubted() && is_validated => entry.race.on_validated(attempt),
            None => entry.race.on_reply(attempt, rank, self.now),
        };
        if let Some(asked) = asked
            && rank > Rank::Positive
            && heard != Heard::NotNeeded
        {
            pool.counters(asked.backend).decisions.increment();
        }
        match heard {
            Heard::Accepted => {}
            Heard::NotNeeded => entry.note_reply(attempt, rank, self.now, self.spills),
            Heard::Kept => {
                entry.keep(reply, self.spills);
                if rank == Rank::Doubtful {
                    // What is stale does not replace it.
                    entry.set_stale(StaleAnswer::Unknown);
                }
                entry.note_reply(attempt, rank, self.now, self.spills);
            }
        }
        self.drive(Some(AtHand { attempt, reply, rank }));
    }
}

/// True if the query of an attempt with OPT has one. Where the client sent none, it has one for our cookie, for the extended errors
/// of the reply, or for its padding.
pub(super) fn has_opt<C: Client>(entry: &Entry<C>, pool: &Pool, backend: BackendIndex, proof: Proof) -> bool {
    entry.has_opt() || proof.has(Proof::COOKIE) || !entry.is_signed() && pool.adds_opt(backend)
}

/// True if AD of a candidate other than this is trusted.
#[cold]
fn may_validate<C: Client>(entry: &Entry<C>, pool: &Pool, doubtful: BackendIndex) -> bool {
    entry.race.candidates().iter().any(|other| other != doubtful && pool.shared.backend(other).is_ad_trusted())
}

/// Where attempts of a kind are counted.
pub(super) fn number(kind: Kind) -> usize {
    match kind {
        Kind::First => 0,
        Kind::Hedge => 1,
        Kind::Failover => 2,
    }
}
