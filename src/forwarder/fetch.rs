//! Fetching a whole answer by TCP, for a client that came by TCP and whose backend's reply was truncated (RFC 7766
//! section 5). What fails here costs only this answer: a backend without TCP is not taken for dead.
//!
//! Here is what is worth fetching and what a reply is worth; who is asked when, over which connection, [`super::fetches`] says.

use std::time::Instant;

use super::Forwarder;
use super::client::Client;
use super::fetches::{FetchQuery, NOBODY, Next, party_of};
use super::pool::pool_at;
use super::races::rank;
use super::responses::Word;
use super::slots::RaceRef;
use crate::metrics::{Dropped, Fetched};
use crate::net::streams::{Heard, Report, StreamKey};
use crate::policy::Rank;
use crate::policy::race::{AttemptId, BackendIndex};
use crate::wire;

impl Forwarder {
    /// Starts to fetch the whole answer of a race, from the backend whose reply was truncated or else from another. Returns
    /// whether there is room for that.
    pub(super) fn fetch(&mut self, at: RaceRef, winner: AttemptId, now: Instant) -> bool {
        let Some(entry) = self.in_flight.get(at) else { return false };
        let Some(winner) = entry.race.attempt(winner) else { return false };
        let pool = pool_at(&mut self.pools, entry.pool);
        let shared = &pool.shared;
        let others = (0..shared.backends.len() as u16).map(BackendIndex);
        let others = others.filter(|other| *other != winner.backend && shared.backends[other.get()].takes_queries());
        let others = others.map(|other| (other, !pool.is_without_opt(other, now)));
        let backends = std::iter::once((winner.backend, winner.edns && !pool.is_without_opt(winner.backend, now)));
        let address = |(backend, edns): (BackendIndex, bool)| (shared.backends[backend.get()].address, edns);
        let mut message = Vec::new();
        let opt_at = entry.write_query(true, &mut message);
        let query = FetchQuery {
            backends: backends.chain(others).map(address).collect(),
            message,
            opt_at,
            question: entry.question().to_vec(),
            patience: shared.rules().attempt_timeout,
        };
        let party = entry.waiters().find_map(|waiter| match waiter.client {
            Client::Tcp(responder) => Some(party_of(responder.peer().ip())),
            Client::Udp { .. } => None,
        });
        self.fetches.add(at, party.unwrap_or(NOBODY), query, entry.race.deadline(), now)
    }

    /// Takes what a connection to a backend reports.
    pub(super) fn hear_stream(&mut self, key: StreamKey, report: Report<'_>, now: Instant) {
        match report {
            Report::Message(message) => self.hear_fetched(key, message, now),
            Report::Ended(end) => {
                for at in self.fetches.lose(key, &end, now) {
                    self.pass_on(at, now);
                }
            }
        }
        self.end_turn(now);
    }

    /// Takes a reply by TCP. One to anything else than was asked is read past, as one by UDP is.
    fn hear_fetched(&mut self, key: StreamKey, message: &[u8], now: Instant) {
        let Some(header) = wire::Header::read(message) else { return self.counters.dropped(Dropped::Malformed) };
        let at = match self.fetches.hear(key, header.id(), now) {
            Heard::Waiting(at) => at,
            Heard::Late => return self.counters.dropped(Dropped::Late),
            Heard::Unknown => return self.counters.dropped(Dropped::Spoofed),
        };
        let Ok(reply) = wire::read_reply(message) else { return self.counters.dropped(Dropped::Malformed) };
        let Some(fetch) = self.fetches.get(at) else { return };
        if !reply.answers_question(&fetch.query.question) {
            return self.counters.dropped(Dropped::Spoofed);
        }
        // What is to be fetched is known to exist, so another's word that it does not is worth nothing.
        let least = if fetch.is_passed_on() { Rank::Positive } else { Rank::Nodata };
        self.fetches.settle(at, now);
        if reply.is_truncated() || rank(&reply) < least {
            return self.pass_on(at, now);
        }
        self.fetches.end(at, now);
        self.count_fetch(at, Fetched::Whole);
        self.remember_whole(at, &reply, now);
        self.respond_whole(at, &reply, now);
        self.remove(at);
    }

    /// The time of a fetch has come. Returns whether it goes on.
    pub(super) fn on_fetch_due(&mut self, at: RaceRef, now: Instant) -> bool {
        let next = self.fetches.on_due(at, now);
        self.follow(at, next, now)
    }

    /// The backend that was asked does not give the whole answer.
    fn pass_on(&mut self, at: RaceRef, now: Instant) {
        let next = self.fetches.pass_on(at, now);
        self.follow(at, next, now);
    }

    /// Does what follows for a fetch. Returns whether it goes on.
    fn follow(&mut self, at: RaceRef, next: Next, now: Instant) -> bool {
        match next {
            Next::Waits => true,
            Next::Over { is_unsent } => {
                self.fail_fetch(at, if is_unsent { Fetched::Unsent } else { Fetched::Failed }, now);
                false
            }
        }
    }

    /// Ends a race whose answer could not be fetched.
    pub(super) fn fail_fetch(&mut self, at: RaceRef, result: Fetched, now: Instant) {
        self.count_fetch(at, result);
        let word = if result == Fetched::Unsent { Word::UNSENT } else { Word::NOT_WHOLE };
        self.respond_stale(at, now);
        self.respond_word(at, word, now);
        self.remove(at);
    }

    /// Counts what became of a fetch.
    fn count_fetch(&mut self, at: RaceRef, result: Fetched) {
        let Some(entry) = self.in_flight.get(at) else { return };
        let pool = pool_at(&mut self.pools, entry.pool);
        pool.shared.state.counters[usize::from(self.me.0)].fetches[result as usize].increment();
    }
}
