//! Events other than queries: replies, timers, changes of backends, ICMP errors, failures to send, and the
//! ends of connections.
//!
//! The end of a connection does not count against its backend, which may have closed it in good order. Its
//! attempts are *lost*: no backend is charged, and each race at once asks the next backend, and this one
//! again by another connection.

use dns::{CookiePair, Reply, ReplyDigest};
use hedge::backend_load::AttemptEnd;
use hedge::health::HealthState;
use hedge::race::{AttemptId, BackendIndex};
use metrics::{DropReason, FetchResult};

use super::active_race::ActiveRace;
use super::attempt::{Outstanding, QuarantinedAttempt, TakenSlot};
use super::cached::{HashedQuestion, key_of_reply, split};
use super::explain::LateReport;
use super::io::{Io, NotSent, SentAttempt};
use super::pools::PoolSlot;
use super::proof::ReplyProof;
use super::query_slots::{QuerySlot, SlotState, SocketId, SocketSetId};
use super::reply::{ReplyMatch, is_badcookie, is_failed, rank};
use super::slots::RaceRef;
use super::{Engine, Race, Tick, passing, signal_prober};
use crate::state::{HealthSignal, SharedPool};

impl<I: Io> Tick<'_, I> {
    /// Takes one datagram from a backend socket.
    ///
    /// RFC 5452 section 9.1: ID, addresses and question must all agree. Other datagrams are likely forgeries:
    /// they are counted and the wait goes on, because a failed attempt would be a cheap win for an attacker.
    pub fn on_reply(&mut self, socket: SocketId, message: &[u8]) {
        let Some(header) = dns::Header::read(message) else { return self.on_near_miss(socket) };
        let Some(slot) = QuerySlot::new(socket, header.id()) else { return };
        let Some(taken_by) = self.engine.slots.find(slot) else {
            return match self.engine.slots.was_released(slot) {
                true => self.engine.worker.counters.dropped(DropReason::Late),
                false => self.on_near_miss(socket),
            };
        };
        let Ok(reply) = dns::read_reply(message) else {
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
        let (Engine { worker, pools, slots, scratch, .. }, now) = (&mut *self.engine, self.now);
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
            let report = SentAttempt { hash: late.hash, pool, backend, kind: late.beaten.kind, since: late.sent };
            self.io.heard(&report, late.sent, reply, now);
            compare_late(late, question, reply, pool);
        }
        let is_ad_trusted = shared.is_some_and(|pool| pool.backend(backend).is_ad_trusted());
        let reply = &if is_ad_trusted { *reply } else { reply.without_authentic() };
        let mut room = Vec::new();
        let rules = shared.map(|pool| &pool.rules().passing).filter(|_| !late.flags.is_signed());
        let filtered = rules.and_then(|rules| passing::filter(rules, reply, &mut room));
        let reply = filtered.as_ref().unwrap_or(reply);
        let newer = pool.as_mut().and_then(|pool| pool.hear_version(backend, reply, &worker.shared.hasher, now));
        let shared = pool.as_ref().and_then(|pool| pool.shared_of(late.plan, backend));
        let is_remembered = newer.is_none()
            && shared.is_some_and(|pool| worker.remember_late(pool, late, question, reply, scratch, now));
        if !is_remembered {
            worker.counters.dropped(DropReason::Late);
        }
        slots.release(slot);
        self.io.free(slot, now);
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
            let took = pool.learn(self.io, backend, is_charged, end, now);
            if let Some(took) = took.filter(|_| !is_failed) {
                pool.regret_tally().replied_late(late.beaten, took);
            }
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
            match reply.filter(|reply| !is_refused(reply) && race.is_of_subnet(reply)) {
                Some(reply) => race.judge(outstanding, reply),
                None => race.ask_elsewhere_or_fail(outstanding),
            }
        });
    }

    /// Counts a datagram from a backend's address that answers no query of this socket. After too many of
    /// them the socket is void and its attempts are asked again (RFC 5452 section 9.3 leaves that open).
    fn on_near_miss(&mut self, socket: SocketId) {
        self.engine.worker.counters.dropped(DropReason::Spoofed);
        if self.io.count_near_miss(socket) < MAX_NEAR_MISSES {
            return;
        }
        let mut lost = Vec::new();
        self.io.void(socket, self.now, &mut lost);
        let taken = self.take_back(&lost);
        for slot in &taken {
            if let SlotState::Quarantined(late) = slot
                && let Some((pool, is_charged)) = self.engine.pools.get_mut(late.pool).zip(late.is_charged)
            {
                pool.ended(late.backend, AttemptEnd::Void, is_charged, self.now);
            }
        }
        self.for_races_of(taken, |race, outstanding| race.move_on(outstanding));
    }

    /// Runs the due races and reads the state of all backends.
    pub fn on_time(&mut self) {
        while let Some((due, at)) = self.engine.timers.pop_due(self.now) {
            self.with_race(at, |race| {
                if race.entry.armed() == Some(due) {
                    race.entry.disarm();
                    race.drive(None);
                }
            });
        }
        self.refresh_pools();
    }

    /// Reads the state of all backends.
    pub fn refresh_pools(&mut self) {
        for slot in self.engine.pools.slots() {
            self.refresh(slot);
        }
    }

    pub(super) fn refresh(&mut self, slot: PoolSlot) {
        let Some(pool) = self.engine.pools.get_mut(slot) else { return };
        let mut dead = Vec::new();
        pool.refresh(self.now, |backend| dead.push(backend));
        for backend in dead {
            let Some(sockets) = self.engine.pools.at(slot).known_sockets(backend) else { continue };
            let mut lost = Vec::new();
            self.io.take_back(sockets, &mut lost);
            self.fail_all((slot, backend), &lost);
        }
    }

    /// Handles an ICMP error from a backend, with the queries that it concerns, each reported once. It may be
    /// forged, because it carries no ID: the races of its attempts move on and a probe finds out. If probes
    /// have found the backend down, the attempts fail.
    pub fn on_unreachable(&mut self, sockets: SocketSetId, struck: &[QuerySlot]) {
        let Some((slot, index)) = self.engine.owner(sockets) else { return };
        let pool = self.engine.pools.at(slot);
        pool.counters(index).unreachable.increment();
        let backend = pool.backend(index);
        if backend.health() != HealthState::Up {
            // If the failure is new to this worker, all queries to the backend fail.
            self.refresh(slot);
            struck.iter().for_each(|slot| self.io.free(*slot, self.now));
            return self.fail_all((slot, index), struck);
        }
        signal_prober(self.io, backend, HealthSignal::Unreachable);
        for slot in struck {
            let Some(SlotState::InFlight(outstanding)) = self.engine.slots.find(*slot) else { continue };
            self.with_race(outstanding.race, |race| {
                if !race.entry.is_fetching {
                    race.entry.race.on_unreachable(outstanding.attempt());
                    race.drive(None);
                }
            });
        }
    }

    /// Handles a queued query that could not be sent.
    pub fn on_unsent(&mut self, sockets: SocketSetId, slot: QuerySlot, why: NotSent) {
        let Some(taken_by) = self.engine.slots.take_back(slot) else { return };
        let end = match why {
            NotSent::Unreachable => AttemptEnd::Unreachable,
            NotSent::Want(_) | NotSent::Full => AttemptEnd::Unsent,
        };
        if let Some((slot, index)) = self.engine.owner(sockets) {
            let pool = self.engine.pools.at(slot);
            pool.end_without_reply(index, &taken_by, end, self.now);
            if why == NotSent::Unreachable {
                signal_prober(self.io, pool.backend(index), HealthSignal::Unreachable);
            }
        }
        let SlotState::InFlight(outstanding) = taken_by else { return };
        self.with_race(outstanding.race, |race| {
            race.clear_slot(outstanding.attempt());
            race.on_not_sent(outstanding.attempt(), why);
            race.drive(None);
        });
    }

    /// Handles the end of a connection, with the queries that waited there. It is already closed.
    pub fn on_connection_lost(&mut self, sockets: SocketSetId, lost: &[QuerySlot]) {
        let taken = self.take_back(lost);
        let Some((slot, index)) = self.engine.owner(sockets) else { return };
        let lost = taken.iter().filter(|taken_by| matches!(taken_by, SlotState::InFlight(_))).count();
        self.engine.pools.at(slot).counters(index).lost_attempts.add(lost as u64);
        self.end_all((slot, index), taken, |_, _| AttemptEnd::Void, Race::on_lost);
    }

    /// Handles queries that a backend answered by errors of its transport, which are not replies: the
    /// attempts fail, and the backend is up.
    pub fn on_rejected(&mut self, sockets: SocketSetId, rejected: &[QuerySlot]) {
        let taken = self.take_back(rejected);
        let Some(owner) = self.engine.owner(sockets) else { return };
        let now = self.now;
        let end = |engine: &Engine<I::Client>, taken_by: &TakenSlot| {
            let asked_at = match taken_by {
                // A race may already be over because of another reply of the same tick.
                SlotState::InFlight(outstanding) => {
                    let entry = engine.in_flight.get(outstanding.race);
                    entry.and_then(|entry| entry.race.attempt(outstanding.attempt())).map(|asked| asked.asked_at)
                }
                SlotState::Quarantined(late) => Some(late.sent),
            };
            asked_at.map_or(AttemptEnd::Void, |at| AttemptEnd::Failure(now.saturating_duration_since(at)))
        };
        self.end_all(owner, taken, end, |race, attempt| {
            race.on_bare_failure(attempt);
            race.on_failure(attempt);
        });
    }

    /// Handles a connection that could not be opened, with the queries that waited for it. `is_refused`
    /// means that the machine refused it or the peer is not the expected one. A backend that is up is then
    /// probed at once, or as soon as its last probe is 50 ms old.
    pub fn on_connection_failed(&mut self, sockets: SocketSetId, lost: &[QuerySlot], is_refused: bool) {
        if is_refused && let Some((slot, index)) = self.engine.owner(sockets) {
            signal_prober(self.io, self.engine.pools.at(slot).backend(index), HealthSignal::Unreachable);
        }
        self.on_connection_lost(sockets, lost);
    }

    /// Handles a whole answer that was fetched for a race.
    pub fn on_fetched(&mut self, race: RaceRef, reply: &Reply<'_>) {
        self.with_race(race, |race| race.finish_fetch(reply));
    }

    /// Handles a failed fetch of a whole answer.
    pub fn on_fetch_failed(&mut self, race: RaceRef, result: FetchResult) {
        self.with_race(race, |race| race.fail_fetch(result));
    }

    fn take_back(&mut self, lost: &[QuerySlot]) -> Vec<TakenSlot> {
        lost.iter().filter_map(|slot| self.engine.slots.take_back(*slot)).collect()
    }

    fn fail_all(&mut self, owner: (PoolSlot, BackendIndex), lost: &[QuerySlot]) {
        let taken = self.take_back(lost);
        self.end_all(owner, taken, |_, _| AttemptEnd::Unreachable, Race::on_failure);
    }

    /// Ends all attempts in slots that were taken back from one backend.
    fn end_all(
        &mut self,
        (slot, backend): (PoolSlot, BackendIndex),
        taken: Vec<TakenSlot>,
        end: impl Fn(&Engine<I::Client>, &TakenSlot) -> AttemptEnd,
        event: impl Fn(&mut Race, AttemptId),
    ) {
        // Before any race asks again, so that no backend looks busier than it is.
        for taken_by in &taken {
            let end = end(self.engine, taken_by);
            self.engine.pools.at(slot).end_without_reply(backend, taken_by, end, self.now);
        }
        self.for_races_of(taken, |race, outstanding| race.end(outstanding.attempt(), &event));
    }

    /// Passes each attempt that waited in these slots to its race.
    fn for_races_of(&mut self, taken: Vec<TakenSlot>, event: impl Fn(&mut ActiveRace<'_, I>, Outstanding)) {
        for taken_by in taken {
            if let SlotState::InFlight(outstanding) = taken_by {
                self.with_race(outstanding.race, |race| event(race, outstanding));
            }
        }
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

/// Near misses that make a socket void. A forger who knows the port has this many guesses at an ID: one in
/// four thousand succeeds. By chance near misses hardly occur.
const MAX_NEAR_MISSES: u8 = 16;

#[cfg(test)]
mod tests;
