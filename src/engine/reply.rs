//! What comes from backends: which attempt it answers, whether it is to be believed, and what it is worth.

use std::time::Instant;

use super::Engine;
use super::active_race::{ActiveRace, has_opt};
use super::attempt::{Outstanding, Quarantined, TakenSlot};
use super::cached::{key_of_reply, split};
use super::explain::LateReport;
use super::finish::handed_at;
use super::io::{Client, Io, SentAttempt};
use super::proof::Proof;
use crate::metrics::Dropped;
use crate::policy::Rank;
use crate::policy::backend_load::End;
use crate::policy::query_slots::{QuerySlot, SlotState, SocketId};
use crate::policy::race::{Attempt, AttemptId, OptRefusal};
use crate::state::backend_cookies::Urgency;
use crate::wire::{self, CookiePair, ExtendedError, Rcode, Reply};

/// Whether a datagram answers what was asked from its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// It does, or may.
    Plausible,
    /// It does not, or lacks what the reply must bear: likely a forgery attempt.
    NearMiss,
}

impl<C: Client> Engine<C> {
    /// Takes one datagram that a backend socket has received.
    ///
    /// RFC 5452 section 9.1: ID, addresses and question must all agree. What does not is likely a forgery attempt: it is
    /// counted and the wait goes on; failing the attempt would hand the forger a cheap win.
    pub fn on_reply<I: Io<Client = C>>(&mut self, io: &mut I, socket: SocketId, message: &[u8], now: Instant) {
        let Some(header) = wire::Header::read(message) else { return self.on_near_miss(io, socket, now) };
        let Some((slot, taken_by)) = io.find(socket, header.id()) else {
            return match io.was_in_use(socket, header.id()) {
                true => self.worker.counters.dropped(Dropped::Late),
                false => self.on_near_miss(io, socket, now),
            };
        };
        let Ok(reply) = wire::read_reply(message) else {
            self.worker.counters.dropped(Dropped::Malformed);
            return self.on_malformed(io, slot, taken_by, now);
        };
        let found = match taken_by {
            // What waits has a race that runs, for at its end that quarantines its slots.
            SlotState::InFlight(outstanding) => {
                self.with_race(io, outstanding.race, now, |race| race.on_reply(outstanding, slot, &reply))
            }
            SlotState::Quarantined(quarantined) => Some(self.on_late_reply(io, slot, &quarantined, &reply, now)),
        };
        if found == Some(Match::NearMiss) {
            self.on_near_miss(io, socket, now);
        }
    }

    /// What came to an attempt cannot be read. By UDP it may be forged, and the wait goes on; by stream the attempt has failed.
    #[cold]
    fn on_malformed<I: Io<Client = C>>(&mut self, io: &mut I, slot: QuerySlot, taken_by: TakenSlot, now: Instant) {
        match taken_by {
            SlotState::InFlight(outstanding) => {
                self.with_race(io, outstanding.race, now, |race| {
                    let asked = race.entry.race.attempt(outstanding.attempt());
                    if asked.is_some_and(|asked| race.pool.is_by_stream(asked.backend)) {
                        race.end_failed(outstanding, slot);
                    }
                });
            }
            SlotState::Quarantined(_) => {}
        }
    }

    /// Takes a reply whose race is over. Nothing is learnt from one whose question is not the one that was asked: neither how
    /// long the backend takes, nor that it is up, nor that the ID is free.
    fn on_late_reply<I: Io<Client = C>>(
        &mut self,
        io: &mut I,
        slot: QuerySlot,
        late: &Quarantined,
        reply: &Reply<'_>,
        now: Instant,
    ) -> Match {
        if reply.is_bare_failure() {
            // It lacks the question, and so proves nothing.
            self.worker.counters.dropped(Dropped::Late);
            return Match::Plausible;
        }
        let key = key_of_reply(reply);
        let question = key.as_ref().and_then(|key| split(key, late.flags, late.hash));
        // The question itself is gone with its race, but not its hash, which nobody outside can aim at.
        let Some(question) = question.filter(|asked| self.worker.shared.hash(asked.octets) == late.hash) else {
            return Match::NearMiss;
        };
        let pool = self.pools.get(late.pool);
        let cookie = || pool.and_then(|pool| pool.cookies(late.backend)).map(CookiePair::client);
        let lacking = self.worker.secret.lacking(late.proof, slot, late.hash, reply, cookie);
        let is_to_be_had = !lacking.is_none() && pool.is_some_and(|pool| pool.gives(lacking, late.backend, now));
        if is_to_be_had && !late.proof.has(Proof::LENIENT) {
            return Match::NearMiss;
        }
        if let Some(pool) = pool.and_then(|pool| pool.shared_of(late.plan, late.backend)) {
            let (hash, backend, kind) = (late.hash, late.backend, late.kind);
            let report = SentAttempt { hash, pool, backend, kind, since: late.sent };
            io.heard(&report, late.sent, reply, now);
        }
        self.compare_late(late, question, reply);
        let shared = self.pools.get(late.pool).and_then(|pool| pool.shared_of(late.plan, late.backend));
        let is_ad_trusted = shared.is_some_and(|pool| pool.backend(late.backend).is_ad_trusted());
        let reply = &if is_ad_trusted { *reply } else { reply.without_authentic() };
        let hasher = &self.worker.shared.hasher;
        let newer = self.pools.get_mut(late.pool).and_then(|pool| pool.hear_version(late.backend, reply, hasher, now));
        if newer.is_some() || !self.remember_late(late, question, reply, now) {
            self.worker.counters.dropped(Dropped::Late);
        }
        io.release(slot, now);
        let shared = self.pools.get(late.pool).and_then(|pool| pool.shared_of(late.plan, late.backend));
        if let Some(pool) = shared.filter(|_| late.is_told) {
            let backend = late.backend;
            io.late_reply(LateReport { hash: late.hash, pool, backend, sent: late.sent, rank: rank(reply), now });
        }
        let latency = now.saturating_duration_since(late.sent);
        // One that has lost its uplink fails late, and is not up for that. BADCOOKIE is no failure.
        let believes = shared.is_none_or(|pool| pool.rules().believe_ede);
        let is_failed =
            is_failed(rank(reply), reply, believes) && !(late.proof.has(Proof::COOKIE) && is_badcookie(reply));
        let end = if is_failed { End::Failure(latency) } else { End::Reply(latency) };
        if let Some(pool) = self.pools.get_mut(late.pool).filter(|_| !late.is_silent) {
            pool.learn(io, late.backend, late.is_charged, end, now);
        }
        Match::Plausible
    }

    /// Takes the reply to an attempt that was made by TCP, or that there is none: then there is another try by UDP, which a
    /// forger may have tired of.
    pub fn on_reply_by_tcp<I: Io<Client = C>>(
        &mut self,
        io: &mut I,
        outstanding: Outstanding,
        reply: Option<&Reply<'_>>,
        now: Instant,
    ) {
        self.with_race(io, outstanding.race, now, |race| {
            let is_open = |race: &ActiveRace<'_, I>| {
                race.entry.race.attempt(outstanding.attempt()).is_some_and(|asked| asked.open)
            };
            if race.entry.is_fetching || !is_open(race) {
                return;
            }
            match reply {
                // No word for a race nor for a client, neither of which knows of cookies to backends.
                Some(reply) if is_badcookie(reply) && outstanding.proof().has(Proof::COOKIE) => {
                    race.ask_elsewhere_or_fail(outstanding);
                }
                Some(reply) => race.judge(outstanding, reply),
                None => race.ask_elsewhere_or_fail(outstanding),
            }
        });
    }
}

impl<I: Io> ActiveRace<'_, I> {
    /// Takes a reply to an attempt that waits for it in this slot.
    fn on_reply(&mut self, outstanding: Outstanding, slot: QuerySlot, reply: &Reply<'_>) -> Match {
        let Self { entry, pool, now, .. } = self;
        let (attempt, proof, now) = (outstanding.attempt(), outstanding.proof(), *now);
        let Some(asked) = entry.race.attempt(attempt) else { return Match::Plausible };
        if pool.is_by_stream(asked.backend) && (reply.is_bare_failure() || !reply.answers_question(entry.question())) {
            self.on_bad_reply_by_stream(outstanding, slot, reply);
            return Match::Plausible;
        }
        if reply.is_bare_failure() {
            self.tell_heard(&asked, proof, reply);
            let entry = &mut self.entry;
            // It lacks the question, and so proves little: the true reply may still come.
            if is_opt_refusal(reply) && has_opt(entry, self.pool, asked.backend, proof) {
                entry.race.on_bare_opt_refused(attempt);
            } else {
                entry.race.on_bare_failure(attempt);
            }
            self.drive(None);
            return Match::Plausible;
        }
        if !reply.answers_question(entry.question()) {
            return Match::NearMiss;
        }
        let cookie = || pool.cookies(asked.backend).map(CookiePair::client);
        let lacking = self.worker.secret.lacking(proof, slot, entry.hash, reply, cookie);
        // Of one that was found not to give it meanwhile, nothing more is to be had.
        if !lacking.is_none() && !proof.has(Proof::LENIENT) && pool.gives(lacking, asked.backend, now) {
            self.doubt(outstanding, slot, lacking);
            return Match::NearMiss;
        }
        self.tell_heard(&asked, proof, reply);
        let Self { pool, entry, .. } = self;
        let rank = rank(reply);
        if rank == Rank::Failure && proof.has(Proof::COOKIE) && is_badcookie(reply) {
            self.on_badcookie(outstanding, slot, lacking, reply);
            return Match::Plausible;
        }
        if proof.has(Proof::COOKIE) {
            pool.renew_cookies(asked.backend, reply, Urgency::CanWait, now);
        }
        let opened = if pool.is_by_stream(asked.backend) { self.io.opened(slot.socket()) } else { None };
        let latency = now.saturating_duration_since(handed_at(entry.sent_at(&asked, proof), opened));
        let believes = pool.shared.rules().believe_ede;
        let end = if is_failed(rank, reply, believes) { End::Failure(latency) } else { End::Reply(latency) };
        self.settle(outstanding, slot, end);
        if !lacking.is_none() && proof.has(Proof::LENIENT) {
            self.pool.learn_lacking(asked.backend, lacking, rank, now);
        }
        self.judge(outstanding, reply);
        Match::Plausible
    }

    /// A reply by stream is a bare failure, or answers another question than was asked. It is from the backend all the same, for nobody
    /// else can write there: the attempt has failed.
    #[cold]
    fn on_bad_reply_by_stream(&mut self, outstanding: Outstanding, slot: QuerySlot, reply: &Reply<'_>) {
        let Self { entry, pool, .. } = self;
        let attempt = outstanding.attempt();
        let Some(asked) = entry.race.attempt(attempt) else { return };
        if reply.is_bare_failure() {
            let has_opt = has_opt(entry, pool, asked.backend, outstanding.proof());
            self.tell_heard(&asked, outstanding.proof(), reply);
            if has_opt && is_opt_refusal(reply) && self.entry.race.on_opt_refused(attempt) == OptRefusal::AskedAgain {
                let handed = handed_at(asked.asked_at, self.io.opened(slot.socket()));
                self.settle(outstanding, slot, End::Failure(self.now.saturating_duration_since(handed)));
                return self.drive(None);
            }
            // If nobody does better, the client is told of a failure, not of silence.
            self.entry.race.on_bare_failure(attempt);
        }
        self.end_failed(outstanding, slot);
    }

    /// An attempt by stream has failed by what came to it.
    fn end_failed(&mut self, outstanding: Outstanding, slot: QuerySlot) {
        let attempt = outstanding.attempt();
        let Some(asked) = self.entry.race.attempt(attempt) else { return };
        let handed = handed_at(asked.asked_at, self.io.opened(slot.socket()));
        self.settle(outstanding, slot, End::Failure(self.now.saturating_duration_since(handed)));
        self.entry.race.on_failure(attempt);
        self.drive(None);
    }

    /// An attempt by stream was answered by an error of its transport, and waits in no slot any more.
    pub(super) fn reject(&mut self, attempt: AttemptId) {
        if self.entry.is_fetching {
            return;
        }
        self.clear_slot(attempt);
        // If nobody does better, the client is told of a failure, not of silence.
        self.entry.race.on_bare_failure(attempt);
        self.entry.race.on_failure(attempt);
        self.drive(None);
    }

    /// Tells who observes of a reply.
    fn tell_heard(&mut self, asked: &Attempt, proof: Proof, reply: &Reply<'_>) {
        let Self { entry, pool, io, now, .. } = self;
        let (hash, since, sent) = (entry.hash, entry.race.started(), entry.sent_at(asked, proof));
        let report = SentAttempt { hash, pool: &pool.shared, backend: asked.backend, kind: asked.kind, since };
        io.heard(&report, sent, reply, *now);
    }

    /// The reply to an attempt came: its slot is free, and something is learnt of its backend.
    pub(super) fn settle(&mut self, outstanding: Outstanding, slot: QuerySlot, end: End) {
        self.io.release(slot, self.now);
        self.clear_slot(outstanding.attempt());
        if let Some(asked) = self.entry.race.attempt(outstanding.attempt()) {
            self.pool.is_waited_for_no_more(asked.backend);
            self.pool.learn(self.io, asked.backend, false, end, self.now);
        }
    }
}

/// How a reply ranks (docs/src/contract.md, Races).
pub fn rank(reply: &Reply<'_>) -> Rank {
    match reply.rcode() {
        Rcode::NOERROR if reply.is_truncated() || reply.has_answers() || reply.is_referral() => Rank::Positive,
        Rcode::NOERROR if reply.header().is_authoritative() => Rank::NodataAuthoritative,
        Rcode::NOERROR => Rank::Nodata,
        Rcode::NXDOMAIN if reply.is_truncated() => Rank::Positive,
        Rcode::NXDOMAIN => Rank::Nxdomain,
        _ => Rank::Failure,
    }
}

/// True if a backend fails by this reply. A decision on the name is its work, if it is believed. That keys or signatures are missing
/// decides for clients, but is a failure here: a resolver that reaches no authority reports the same.
fn is_failed(rank: Rank, reply: &Reply<'_>, believes: bool) -> bool {
    let is_missing = |error: &_| matches!(*error, ExtendedError::DNSKEY_MISSING | ExtendedError::RRSIGS_MISSING);
    let is_work = || decision_of(reply.extended_errors().filter(|error| !is_missing(error)), reply.rcode()).is_some();
    rank == Rank::Failure && !(believes && is_work())
}

/// The rank of a failure or negative reply whose extended error is a decision of its backend (docs/src/contract.md, Races), if it
/// is one. A reply without OPT costs one check.
pub(super) fn decision(reply: &Reply<'_>) -> Option<Rank> {
    let mut errors = reply.extended_errors();
    errors.next().and_then(|first| decision_of(std::iter::once(first).chain(errors), reply.rcode()))
}

/// The same of the codes of extended errors. Those of DNSSEC count with SERVFAIL alone (RFC 8914 section 4.7 and those that follow).
#[cold]
fn decision_of(errors: impl Iterator<Item = ExtendedError>, rcode: Rcode) -> Option<Rank> {
    let is_servfail = rcode == Rcode::SERVFAIL;
    errors.fold(None, |found, error| match error {
        ExtendedError::SIGNATURE_EXPIRED | ExtendedError::SIGNATURE_NOT_YET_VALID if is_servfail => {
            Some(Rank::Doubtful)
        }
        ExtendedError(6..=12) if is_servfail => found.or(Some(Rank::Decided)),
        ExtendedError::BLOCKED | ExtendedError::CENSORED | ExtendedError::FILTERED => found.or(Some(Rank::Decided)),
        _ => found,
    })
}

/// Whether a reply to a query with OPT may say that its sender knows no EDNS (RFC 6891 section 7: FORMERR; older servers:
/// NOTIMP). Some put an OPT record into the very reply, so that proves nothing.
pub(super) fn is_opt_refusal(reply: &Reply<'_>) -> bool {
    matches!(reply.rcode(), Rcode::FORMERR | Rcode::NOTIMP)
}

/// Whether a reply says that the cookie of the query was not good (RFC 7873 section 5.2.3).
pub(super) fn is_badcookie(reply: &Reply<'_>) -> bool {
    reply.rcode() == Rcode::BADCOOKIE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_errors_decide_by_rcode() {
        let check = |rcode: Rcode, codes: &[u16], expected: Option<Rank>| {
            let count = codes.len() as u8;
            let mut octets = vec![0, 7, 0x84, rcode.0 as u8, 0, 1, 0, 0, 0, 0, 0, 1, 1, b'a', 0, 0, 1, 0, 1];
            octets.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 6 * count]);
            codes.iter().for_each(|code| octets.extend([0, 15, 0, 2, 0, *code as u8]));
            let reply = wire::read_reply(&octets).expect("a sound reply");
            assert_eq!(decision(&reply), expected, "{rcode} {codes:?}");
        };
        let (decided, doubtful) = (Some(Rank::Decided), Some(Rank::Doubtful));
        for code in 0..=30 {
            let (of_servfail, of_others) = match code {
                7 | 8 => (doubtful, None),
                6 | 9..=12 => (decided, None),
                15..=17 => (decided, decided),
                _ => (None, None),
            };
            check(Rcode::SERVFAIL, &[code], of_servfail);
            for rcode in [Rcode::REFUSED, Rcode::NXDOMAIN, Rcode::NOERROR] {
                check(rcode, &[code], of_others);
            }
        }
        check(Rcode::SERVFAIL, &[], None);
        check(Rcode::SERVFAIL, &[22, 6], decided);
        check(Rcode::SERVFAIL, &[6, 7], doubtful);
        check(Rcode::SERVFAIL, &[8, 9], doubtful);
        check(Rcode::NXDOMAIN, &[7, 15], decided);
    }
}
