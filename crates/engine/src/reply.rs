//! Replies to a race that runs: their proof and their rank.
//!
//! An attempt is asked again at the same backend, from another socket with another ID, if its first reply may
//! be forged. For the race it remains the same attempt. A suspect reply changes neither the latency nor the
//! error share of the backend, because the backend may not have sent it.
//!
//! For a share of the questions, each reply of a race is compared with the first one, late replies too. A
//! backend that differs is suspected, and `replicas/` asks all members again. No race depends on this. Not
//! compared: truncated replies, replies without a question, and replies to a query with a TSIG record,
//! because only the client can send that again.

use config::Rank;
use dns::{CookiePair, ExtendedError, Rcode, Reply, ReplyDigest};
use hedge::backend_load::AttemptEnd;
use hedge::race::{Attempt, BackendIndex, ExtensionRefusal, Retry};
use metrics::{Cause, DropReason};

use super::active_race::{ActiveRace, has_opt};
use super::attempt::Outstanding;
use super::finish::handed_at;
use super::io::{AskedFor, Io, SentAttempt, TcpQuery};
use super::proof::ReplyProof;
use crate::query_slots::QuerySlot;
use crate::state::backend_cookies::Urgency;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyMatch {
    /// It matches, or may match.
    Plausible,
    /// It does not match or lacks proof: likely a forgery attempt.
    NearMiss,
}

impl<I: Io> ActiveRace<'_, I> {
    /// Takes a reply to an attempt that waits for it in this slot.
    pub(super) fn on_reply(&mut self, outstanding: Outstanding, slot: QuerySlot, reply: &Reply<'_>) -> ReplyMatch {
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
                entry.race.on_bare_extension_refused(attempt);
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
        if !self.is_of_subnet(reply) {
            if self.pool.is_by_stream(asked.backend) {
                self.end_failed(outstanding, slot);
            }
            return ReplyMatch::Plausible;
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
            if has_opt
                && is_opt_refusal(reply)
                && self.entry.race.on_extension_refused(attempt) == ExtensionRefusal::AskedAgain
            {
                let handed = handed_at(asked.asked_at, self.io.opened(slot.socket()));
                self.settle(outstanding, slot, AttemptEnd::Failure(self.now.saturating_duration_since(handed)));
                return self.drive(None);
            }
            // Without a better reply, the client gets a failure and not silence.
            self.entry.race.on_bare_failure(attempt);
        }
        self.end_failed(outstanding, slot);
    }

    /// Returns true if a reply may answer a query with the race's client subnet. RFC 7871 section 7.3: any
    /// other is counted and dropped, because it may be forged, and the wait continues.
    pub(super) fn is_of_subnet(&self, reply: &Reply<'_>) -> bool {
        let is_of = self.entry.subnet().is_none_or(|sent| sent.is_of(reply));
        if !is_of {
            self.worker.counters.dropped(DropReason::ClientSubnet);
        }
        is_of
    }

    pub(super) fn end_failed(&mut self, outstanding: Outstanding, slot: QuerySlot) {
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
            pool.plan.shared.state.compared.suspect(entry.question(), entry.query.flags, backend);
        }
    }

    fn report_reply(&mut self, asked: &Attempt, proof: ReplyProof, reply: &Reply<'_>) {
        let Self { entry, pool, io, now, .. } = self;
        let (hash, since, sent) = (entry.hash, entry.race.started(), entry.sent_at(asked, proof));
        let report = SentAttempt { hash, pool: &pool.plan.shared, backend: asked.backend, kind: asked.kind, since };
        io.heard(&report, sent, reply, *now);
    }

    fn settle(&mut self, outstanding: Outstanding, slot: QuerySlot, end: AttemptEnd) {
        self.free(slot);
        self.clear_slot(outstanding.attempt());
        if let Some(asked) = self.entry.race.attempt(outstanding.attempt()) {
            self.pool.is_waited_for_no_more(asked.backend);
            self.took = self.pool.learn(self.io, asked.backend, false, end, self.now);
            if let (Some(took), AttemptEnd::Reply(_)) = (self.took, end) {
                self.pool.regret_tally().replied(asked.kind, took);
            }
        }
    }
}

impl<I: Io> ActiveRace<'_, I> {
    /// Ignores a correct reply that lacks part of its proof, and asks the backend once more.
    fn doubt(&mut self, outstanding: Outstanding, slot: QuerySlot, lacking: ReplyProof) {
        let cause = if lacking.has(ReplyProof::COOKIE) { Cause::Cookie } else { Cause::Case };
        if self.ask_again(outstanding, Some(slot), ReplyProof::LENIENT, cause) || self.entry.is_fetching {
            return;
        }
        let Some(asked) = self.entry.race.attempt(outstanding.attempt()) else { return };
        // The attempt has used its share of datagrams: accept its reply by TCP.
        self.pool.members[asked.backend.get()].is_doubted = true;
        if self.ask_by_tcp(outstanding, cause) {
            self.free(slot);
            self.pool.lost(asked.backend, self.now);
            self.clear_slot(outstanding.attempt());
        }
    }

    /// Handles BADCOOKIE. If the reply proves its origin, the worker asks once more at once with the cookie
    /// that came with it, and after a second refusal by TCP (RFC 7873 section 5.3).
    fn on_badcookie(&mut self, outstanding: Outstanding, slot: QuerySlot, lacking: ReplyProof, reply: &Reply<'_>) {
        let (proof, now) = (outstanding.proof(), self.now);
        let is_proved = proof.has(ReplyProof::COOKIE) && !lacking.has(ReplyProof::COOKIE);
        let Some(asked) = self.entry.race.attempt(outstanding.attempt()) else { return };
        let sent = self.entry.sent_at(&asked, proof);
        if is_proved && !proof.has(ReplyProof::FRESH) {
            self.pool.renew_cookies(asked.backend, reply, Urgency::AtOnce, now);
            if self.ask_again(outstanding, Some(slot), ReplyProof::FRESH, Cause::Badcookie) {
                return;
            }
        } else if is_proved && self.pool.remember_cookies_lost(asked.backend, now) {
            let (pool, backend) = self.pool.labels(asked.backend);
            tracing::warn!(
                pool,
                backend,
                "the backend rejects its own DNS cookies: queries go without cookies for now"
            );
        }
        self.settle(outstanding, slot, AttemptEnd::Reply(now.saturating_duration_since(sent)));
        if !self.ask_by_tcp(outstanding, Cause::Badcookie) {
            self.give_up(outstanding, false);
        }
    }

    /// Asks an attempt again after its socket was lost: a few times from other sockets, which an attacker
    /// must find first, then by TCP. With a cookie it keeps to UDP as long as it may, because finding a port
    /// is not enough then.
    pub(super) fn move_on(&mut self, outstanding: Outstanding) {
        self.clear_slot(outstanding.attempt());
        let proof = outstanding.proof();
        let has_cookie = proof.has(ReplyProof::COOKIE) && !proof.has(ReplyProof::LENIENT);
        let is_by_udp = has_cookie || self.entry.race.times_asked_again() < MAX_BY_UDP;
        if is_by_udp && self.ask_elsewhere(outstanding) {
            return;
        }
        if self.ask_by_tcp(outstanding, Cause::NearMisses) {
            if let Some(asked) = self.entry.race.attempt(outstanding.attempt()) {
                self.pool.lost(asked.backend, self.now);
            }
            return;
        }
        if !is_by_udp && self.ask_elsewhere(outstanding) {
            return;
        }
        self.give_up(outstanding, true);
    }

    /// Asks once more by UDP if TCP failed. If that is not allowed either, the attempt fails.
    pub(super) fn ask_elsewhere_or_fail(&mut self, outstanding: Outstanding) {
        if self.ask_elsewhere(outstanding) {
            if let Some(asked) = self.entry.race.attempt(outstanding.attempt()) {
                self.pool.asked(asked.backend, self.now);
            }
            return;
        }
        self.give_up(outstanding, false);
    }

    fn ask_elsewhere(&mut self, outstanding: Outstanding) -> bool {
        let proof = outstanding.proof().and(ReplyProof::LENIENT.with(ReplyProof::FRESH));
        self.ask_again(outstanding, None, proof, Cause::NearMisses)
    }

    fn give_up(&mut self, outstanding: Outstanding, is_out: bool) {
        if self.entry.is_fetching {
            return;
        }
        let attempt = outstanding.attempt();
        if let Some(asked) = self.entry.race.attempt(attempt).filter(|_| is_out) {
            self.pool.lost(asked.backend, self.now);
        }
        self.entry.race.on_unsent(attempt, Retry::Never, self.pool.plan.shared.budget());
        self.drive(None);
    }

    /// Asks the backend of an attempt again. Returns false if that was not possible; the attempt then waits
    /// on.
    fn ask_again(
        &mut self,
        outstanding: Outstanding,
        slot: Option<QuerySlot>,
        proof: ReplyProof,
        cause: Cause,
    ) -> bool {
        let attempt = outstanding.attempt();
        if self.entry.is_fetching {
            return false;
        }
        let Some(asked) = self.entry.race.attempt(attempt) else { return false };
        if !self.entry.race.ask_again(attempt) {
            return false;
        }
        if let Some(slot) = slot {
            self.io.shun(slot.socket());
        }
        let proof = proof.with(ReplyProof::AGAIN);
        if self.send(attempt, asked.backend, asked.extended, proof).is_err() {
            return false;
        }
        if let Some(slot) = slot {
            self.free(slot);
        }
        self.entry.asked_again(self.now, self.spills);
        self.pool.counters(asked.backend).again[cause as usize].increment();
        true
    }

    /// Asks the backend of an attempt by TCP, after forged replies by UDP or a refused cookie. An attacker
    /// cannot join a connection that it does not see, so TCP needs no cookie.
    fn ask_by_tcp(&mut self, outstanding: Outstanding, cause: Cause) -> bool {
        let Self { entry, pool, worker, io, now, .. } = self;
        if entry.is_fetching {
            return false;
        }
        let Some(asked) = entry.race.attempt(outstanding.attempt()).filter(|asked| asked.open) else { return false };
        if pool.is_by_stream(asked.backend) {
            return false;
        }
        let edns = asked.extended && !pool.backend(asked.backend).is_without_opt(*now);
        let mut message = Vec::new();
        let opt_at = entry.write_query(edns, worker.state.edns_udp_size, &mut message);
        if entry.needs_authentic() {
            dns::ask_authentic(&mut message);
        }
        if edns && !entry.is_signed() && pool.adds_opt(asked.backend) {
            dns::add_opt(&mut message, opt_at, worker.state.edns_udp_size);
        }
        let query = TcpQuery {
            address: pool.backend(asked.backend).address.socket,
            message,
            question: entry.question().to_vec(),
            patience: pool.plan.shared.rules().race.attempt_timeout.longest(),
            deadline: entry.race.deadline(),
        };
        let asked_for = if pool.wants_header(asked.backend) { entry.asked_for() } else { AskedFor::Hidden };
        let may = io.ask_by_tcp(outstanding, query, asked_for);
        if may {
            pool.counters(asked.backend).again[cause as usize].increment();
        }
        may
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
pub(super) fn is_failed(rank: Rank, reply: &Reply<'_>, believes: bool) -> bool {
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

/// The number of times that one race repeats attempts by UDP before it uses TCP. This limits an attacker that
/// finds every port at once to so many times the guesses that void a socket.
const MAX_BY_UDP: u8 = 2;

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
            let reply = dns::read_reply(&octets).expect("a sound reply");
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
