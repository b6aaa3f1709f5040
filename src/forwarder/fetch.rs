//! Fetching a whole answer by TCP, for a client that came by TCP and whose backend's reply was truncated (RFC 7766
//! section 5). What fails here costs only this answer: a backend without TCP is not taken for dead.
//!
//! Here is what a reply is worth; who is asked when, over which connection, [`super::fetches`] says.

use std::time::Instant;

use super::Forwarder;
use super::fetches::Next;
use crate::engine::{RaceRef, rank};
use crate::metrics::{Dropped, Fetched};
use crate::net::streams::{Heard, Report, StreamKey};
use crate::policy::Rank;
use crate::wire;

impl Forwarder {
    /// Takes what a connection to a backend reports.
    pub(super) fn on_stream(&mut self, key: StreamKey, report: Report<'_>, now: Instant) {
        match report {
            Report::Message(message) => self.take_fetched(key, message, now),
            Report::Ended(end) => {
                for at in self.outside.fetches.lose(key, &end, now) {
                    self.pass_on(at, now);
                }
            }
        }
        self.end_tick(now);
    }

    /// Takes a reply by TCP. One to anything else than was asked is read past, as one by UDP is.
    fn take_fetched(&mut self, key: StreamKey, message: &[u8], now: Instant) {
        let counters = &self.outside.counters;
        let Some(header) = wire::Header::read(message) else { return counters.dropped(Dropped::Malformed) };
        let at = match self.outside.fetches.hear(key, header.id(), now) {
            Heard::Waiting(at) => at,
            Heard::Late => return counters.dropped(Dropped::Late),
            Heard::Unknown => return counters.dropped(Dropped::Spoofed),
        };
        let Ok(reply) = wire::read_reply(message) else { return counters.dropped(Dropped::Malformed) };
        let Some(fetch) = self.outside.fetches.get(at) else { return };
        if !reply.answers_question(&fetch.query.question) {
            return counters.dropped(Dropped::Spoofed);
        }
        // What is to be fetched is known to exist, so another's word that it does not is worth nothing.
        let least = if fetch.is_passed_on() { Rank::Positive } else { Rank::Nodata };
        let reply = if fetch.is_ad_trusted() { reply } else { reply.without_authentic() };
        self.outside.fetches.settle(at, now);
        if reply.is_truncated() || rank(&reply) < least {
            return self.pass_on(at, now);
        }
        self.outside.fetches.end(at, now);
        self.engine.on_fetched(&mut self.outside, at, &reply, now);
    }

    /// Looks at the fetches whose time has come.
    pub(super) fn on_fetches_due(&mut self, now: Instant) {
        while let Some(at) = self.outside.fetches.pop_due(now) {
            let next = self.outside.fetches.on_due(at, now);
            self.follow(at, next, now);
        }
    }

    /// The backend that was asked does not give the whole answer.
    fn pass_on(&mut self, at: RaceRef, now: Instant) {
        let next = self.outside.fetches.pass_on(at, now);
        self.follow(at, next, now);
    }

    /// Does what follows for a fetch.
    fn follow(&mut self, at: RaceRef, next: Next, now: Instant) {
        if let Next::Over { is_unsent } = next {
            let result = if is_unsent { Fetched::Unsent } else { Fetched::Failed };
            self.engine.on_fetch_failed(&mut self.outside, at, result, now);
        }
    }
}
