//! Messages from backends: the attempt that each answers, its proof, and its rank.
//!
//! For a share of the questions, each reply of a race is compared with the first one, late replies too. A
//! backend that differs is suspected, and `replicas/` asks all members again. No race depends on this. Not
//! compared: truncated replies, replies without a question, and replies to a query with a TSIG record,
//! because only the client can send that again.

use super::active_race::{ActiveRace, has_opt};
use super::attempt::{Outstanding, QuarantinedAttempt, TakenSlot};
use super::cached::{HashedQuestion, key_of_reply, split};
use super::explain::LateReport;
use super::finish::handed_at;
use super::io::{Io, SentAttempt};
use super::proof::ReplyProof;
use super::{Engine, Tick};
use crate::metrics::DropReason;
use crate::policy::Rank;
use crate::policy::backend_load::AttemptEnd;
use crate::policy::query_slots::{QuerySlot, SlotState, SocketId};
use crate::policy::race::{Attempt, BackendIndex, OptRefusal};
use crate::state::SharedPool;
use crate::state::backend_cookies::Urgency;
use crate::wire::{self, CookiePair, ExtendedError, Rcode, Reply, ReplyDigest};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyMatch {
    /// It matches, or may match.
    Plausible,
    /// It does not match or lacks proof: likely a forgery attempt.
    NearMiss,
}

impl<I: Io> Tick<'_, I> {
    /// Takes one datagram from a backend socket.
    ///
    /// RFC 5452 section 9.1: ID, addresses and question must all agree. Other datagrams are likely forgeries:
    /// they are counted and the wait goes on, because a failed attempt would be a cheap win for an attacker.
    pub fn on_reply(&mut self, socket: SocketId, message: &[u8]) {
        let Some(header) = wire::Header::read(message) else { return self.on_near_miss(socket) };
        let Some((slot, taken_by)) = self.io.find(socket, header.id()) else {
            return match self.io.was_in_use(socket, header.id()) {
                true => self.engine.worker.counters.dropped(DropReason::Late),
                false => self.on_near_miss(socket),
            };
        };
        let Ok(reply) = wire::read_reply(message) else {
            self.engine.worker.counters.dropped(DropReason::Malformed);
            return self.on_malformed(slot, taken_by);
        };
        let found = match taken_by {
            // A query that waits has a running race, because the end of a race quarantines its slots.
            SlotState::InFlight(outstanding) => {
                self.with_race(outstanding.race, |race| race.on_reply(outstanding, slot, &reply))
            }
            SlotState::Quarantined(quarantined) => Some(self.on_late_reply(slot, &quarantined, &reply)),
        };
        if found == Some(ReplyMatch::NearMiss) {
            self.on_near_miss(socket);
        }
    }

    /// Handles an unreadable message. By UDP (maybe forged) the wait goes on; by stream the attempt fails.
    #[cold]
    fn on_malformed(&mut self, slot: QuerySlot, taken_by: TakenSlot) {
        let SlotState::InFlight(outstanding) = taken_by else { return };
        self.with_race(outstanding.race, |race| {
            let asked = race.entry.race.attempt(outstanding.attempt());
            if asked.is_some_and(|asked| race.pool.is_by_stream(asked.backend)) {
                race.end_failed(outstanding, slot);
            }
        });
    }

    /// Takes a reply whose race is over. A reply to another question teaches nothing.
    fn on_late_reply(&mut self, slot: QuerySlot, late: &QuarantinedAttempt, reply: &Reply<'_>) -> ReplyMatch {
        let (Engine { worker, pools, scratch, .. }, now) = (&mut *self.engine, self.now);
        if reply.is_bare_failure() {
            // It lacks the question and so proves nothing.
            worker.counters.dropped(DropReason::Late);
            return ReplyMatch::Plausible;
        }
        let key = key_of_reply(reply);
        let question = key.as_ref().and_then(|key| split(key, late.flags, late.hash));
        // The question is gone with its race, but an attacker cannot aim at its hash.
        let Some(question) = question.filter(|asked| worker.shared.hash(asked.octets) == late.hash) else {
            return ReplyMatch::NearMiss;
        };
        let backend = late.backend;
        let mut pool = pools.get_mut(late.pool);
        let cookie = || pool.as_ref().and_then(|pool| pool.cookies(backend)).map(CookiePair::client);
        let lacking = worker.secret.lacking(late.proof, slot, late.hash, reply, cookie);
        let is_to_be_had = !lacking.is_none() && pool.as_ref().is_some_and(|pool| pool.gives(lacking, backend, now));
        if is_to_be_had && !late.proof.has(ReplyProof::LENIENT) {
            return ReplyMatch::NearMiss;
        }
        let shared = pool.as_ref().and_then(|pool| pool.shared_of(late.plan, backend));
        if let Some(pool) = shared {
            let report = SentAttempt { hash: late.hash, pool, backend, kind: late.kind, since: late.sent };
            self.io.heard(&report, late.sent, reply, now);
            compare_late(late, question, reply, pool);
        }
        let is_ad_trusted = shared.is_some_and(|pool| pool.backend(backend).is_ad_trusted());
        let reply = &if is_ad_trusted { *reply } else { reply.without_authentic() };
        let newer = pool.as_mut().and_then(|pool| pool.hear_version(backend, reply, &worker.shared.hasher, now));
        let shared = pool.as_ref().and_then(|pool| pool.shared_of(late.plan, backend));
        let is_remembered = newer.is_none()
            && shared.is_some_and(|pool| worker.remember_late(pool, late, question, reply, scratch, now));
        if !is_remembered {
            worker.counters.dropped(DropReason::Late);
        }
        self.io.release(slot, now);
        let rank = rank(reply);
        if let Some(pool) = shared.filter(|_| late.is_reported) {
            self.io.late_reply(LateReport { hash: late.hash, pool, backend, sent: late.sent, rank, now });
        }
        let latency = now.saturating_duration_since(late.sent);
        // A backend without uplink fails late, which does not mean up. BADCOOKIE is no failure.
        let believes = shared.is_none_or(|pool| pool.rules().believe_ede);
        let is_failed =
            is_failed(rank, reply, believes) && !(late.proof.has(ReplyProof::COOKIE) && is_badcookie(reply));
        let end = if is_failed { AttemptEnd::Failure(latency) } else { AttemptEnd::Reply(latency) };
        if let Some((pool, is_charged)) = pool.zip(late.is_charged) {
            pool.learn(self.io, backend, is_charged, end, now);
        }
        ReplyMatch::Plausible
    }

    /// Takes the reply to an attempt by TCP, or `None`: then UDP is tried again.
    pub fn on_reply_by_tcp(&mut self, outstanding: Outstanding, reply: Option<&Reply<'_>>) {
        self.with_race(outstanding.race, |race| {
            let asked = race.entry.race.attempt(outstanding.attempt());
            if race.entry.is_fetching || !asked.is_some_and(|asked| asked.open) {
                return;
            }
            // Races and clients do not see the cookies of backends.
            let is_refused = |reply: &&Reply<'_>| is_badcookie(reply) && outstanding.proof().has(ReplyProof::COOKIE);
            match reply.filter(|reply| !is_refused(reply)) {
                Some(reply) => race.judge(outstanding, reply),
                None => race.ask_elsewhere_or_fail(outstanding),
            }
        });
    }
}

/// Compares a late reply with the first one of its race.
fn compare_late(late: &QuarantinedAttempt, question: HashedQuestion<'_>, reply: &Reply<'_>, pool: &SharedPool) {
    if let Some((first, digest)) = late.digest.zip(ReplyDigest::of(reply))
        && first != digest
    {
        pool.state.compared.suspect(question.octets, late.flags, late.backend);
    }
}

impl<I: Io> ActiveRace<'_, I> {
    /// Takes a reply to an attempt that waits for it in this slot.
    fn on_reply(&mut self, outstanding: Outstanding, slot: QuerySlot, reply: &Reply<'_>) -> ReplyMatch {
        let Self { entry, pool, now, .. } = self;
        let (attempt, proof, now) = (outstanding.attempt(), outstanding.proof(), *now);
        let Some(asked) = entry.race.attempt(attempt) else { return ReplyMatch::Plausible };
        if pool.is_by_stream(asked.backend) && (reply.is_bare_failure() || !reply.answers_question(entry.question())) {
            self.on_bad_reply_by_stream(outstanding, slot, reply);
            return ReplyMatch::Plausible;
        }
        if reply.is_bare_failure() {
            self.report_reply(&asked, proof, reply);
            let entry = &mut self.entry;
            // It lacks the question and so proves little: the true reply may still come.
            if is_opt_refusal(reply) && has_opt(entry, self.pool, asked.backend, proof) {
                entry.race.on_bare_opt_refused(attempt);
            } else {
                entry.race.on_bare_failure(attempt);
            }
            self.drive(None);
            return ReplyMatch::Plausible;
        }
        if !reply.answers_question(entry.question()) {
            return ReplyMatch::NearMiss;
        }
        let cookie = || pool.cookies(asked.backend).map(CookiePair::client);
        let lacking = self.worker.secret.lacking(proof, slot, entry.hash, reply, cookie);
        // A backend that meanwhile is known not to give the proof cannot do better.
        if !lacking.is_none() && !proof.has(ReplyProof::LENIENT) && pool.gives(lacking, asked.backend, now) {
            self.doubt(outstanding, slot, lacking);
            return ReplyMatch::NearMiss;
        }
        self.report_reply(&asked, proof, reply);
        let Self { pool, entry, .. } = self;
        let rank = rank(reply);
        if rank == Rank::Failure && proof.has(ReplyProof::COOKIE) && is_badcookie(reply) {
            self.on_badcookie(outstanding, slot, lacking, reply);
            return ReplyMatch::Plausible;
        }
        if proof.has(ReplyProof::COOKIE) {
            pool.renew_cookies(asked.backend, reply, Urgency::CanWait, now);
        }
        let opened = if pool.is_by_stream(asked.backend) { self.io.opened(slot.socket()) } else { None };
        let latency = now.saturating_duration_since(handed_at(entry.sent_at(&asked, proof), opened));
        let believes = pool.plan.shared.rules().believe_ede;
        let end =
            if is_failed(rank, reply, believes) { AttemptEnd::Failure(latency) } else { AttemptEnd::Reply(latency) };
        self.settle(outstanding, slot, end);
        if !lacking.is_none() && proof.has(ReplyProof::LENIENT) {
            self.pool.learn_lacking(asked.backend, lacking, rank, now);
        }
        self.judge(outstanding, reply);
        ReplyMatch::Plausible
    }

    /// Handles a stream reply that is a bare failure or answers another question. Only the backend can write
    /// to the stream, so the attempt fails.
    #[cold]
    fn on_bad_reply_by_stream(&mut self, outstanding: Outstanding, slot: QuerySlot, reply: &Reply<'_>) {
        let Self { entry, pool, .. } = self;
        let attempt = outstanding.attempt();
        let Some(asked) = entry.race.attempt(attempt) else { return };
        if reply.is_bare_failure() {
            let has_opt = has_opt(entry, pool, asked.backend, outstanding.proof());
            self.report_reply(&asked, outstanding.proof(), reply);
            if has_opt && is_opt_refusal(reply) && self.entry.race.on_opt_refused(attempt) == OptRefusal::AskedAgain {
                let handed = handed_at(asked.asked_at, self.io.opened(slot.socket()));
                self.settle(outstanding, slot, AttemptEnd::Failure(self.now.saturating_duration_since(handed)));
                return self.drive(None);
            }
            // Without a better reply, the client gets a failure and not silence.
            self.entry.race.on_bare_failure(attempt);
        }
        self.end_failed(outstanding, slot);
    }

    fn end_failed(&mut self, outstanding: Outstanding, slot: QuerySlot) {
        let attempt = outstanding.attempt();
        let Some(asked) = self.entry.race.attempt(attempt) else { return };
        let handed = handed_at(asked.asked_at, self.io.opened(slot.socket()));
        self.settle(outstanding, slot, AttemptEnd::Failure(self.now.saturating_duration_since(handed)));
        self.entry.race.on_failure(attempt);
        self.drive(None);
    }

    /// Suspects a backend whose reply differs from the first one of the race.
    pub(super) fn compare(&mut self, backend: BackendIndex, reply: &Reply<'_>) {
        let Self { entry, spills, pool, .. } = self;
        let Some(digest) = ReplyDigest::of(reply).filter(|_| !entry.is_signed()) else { return };
        if entry.differs(digest, spills) {
            pool.plan.shared.state.compared.suspect(entry.question(), entry.flags, backend);
        }
    }

    fn report_reply(&mut self, asked: &Attempt, proof: ReplyProof, reply: &Reply<'_>) {
        let Self { entry, pool, io, now, .. } = self;
        let (hash, since, sent) = (entry.hash, entry.race.started(), entry.sent_at(asked, proof));
        let report = SentAttempt { hash, pool: &pool.plan.shared, backend: asked.backend, kind: asked.kind, since };
        io.heard(&report, sent, reply, *now);
    }

    pub(super) fn settle(&mut self, outstanding: Outstanding, slot: QuerySlot, end: AttemptEnd) {
        self.io.release(slot, self.now);
        self.clear_slot(outstanding.attempt());
        if let Some(asked) = self.entry.race.attempt(outstanding.attempt()) {
            self.pool.is_waited_for_no_more(asked.backend);
            self.pool.learn(self.io, asked.backend, false, end, self.now);
        }
    }
}

/// Returns the rank of a reply (docs/src/contract.md, Races).
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

/// Returns true if the reply counts as a failure of its backend. A believed decision does not. Missing keys
/// or signatures do, though they decide for clients: a resolver that reaches no authority reports the same.
fn is_failed(rank: Rank, reply: &Reply<'_>, believes: bool) -> bool {
    let is_missing = |error: &_| matches!(*error, ExtendedError::DNSKEY_MISSING | ExtendedError::RRSIGS_MISSING);
    let is_work = || decision_of(reply.extended_errors().filter(|error| !is_missing(error)), reply.rcode()).is_some();
    rank == Rank::Failure && !(believes && is_work())
}

/// Returns the rank of a failure or negative reply whose extended error is a decision of its backend
/// (docs/src/contract.md, Races). A reply without OPT costs one check.
pub(super) fn decision(reply: &Reply<'_>) -> Option<Rank> {
    let mut errors = reply.extended_errors();
    errors.next().and_then(|first| decision_of(std::iter::once(first).chain(errors), reply.rcode()))
}

/// Returns the rank by extended errors alone. Errors of time are doubtful: its clock may be wrong.
#[cold]
fn decision_of(errors: impl Iterator<Item = ExtendedError>, rcode: Rcode) -> Option<Rank> {
    errors.filter(|error| error.decides(rcode)).fold(None, |found, error| match error {
        ExtendedError::SIGNATURE_EXPIRED | ExtendedError::SIGNATURE_NOT_YET_VALID => Some(Rank::Doubtful),
        _ => found.or(Some(Rank::Decided)),
    })
}

/// Returns true if a reply to a query with OPT may mean that its sender has no EDNS (RFC 6891 section 7:
/// FORMERR; older servers: NOTIMP). Some servers put an OPT record even into that reply.
pub(super) fn is_opt_refusal(reply: &Reply<'_>) -> bool {
    matches!(reply.rcode(), Rcode::FORMERR | Rcode::NOTIMP)
}

/// Returns true if a reply rejects the cookie of the query (RFC 7873 section 5.2.3).
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
