//! Judges replies to fetches of whole answers by TCP, for a TCP client whose backend's reply was truncated
//! (RFC 7766 section 5). A failure costs only this answer: a backend without TCP does not count as down.
//! [`super::fetches`] schedules the queries.

use std::time::Instant;

use super::Forwarder;
use super::fetches::FetchStep;
use crate::engine::{RaceRef, rank};
use crate::metrics::{DropReason, FetchResult};
use crate::net::to_backends::streams::{StreamKey, StreamMatch, StreamReport};
use crate::policy::Rank;
use crate::wire;

impl Forwarder {
    pub(super) fn on_stream(&mut self, key: StreamKey, report: StreamReport<'_>, now: Instant) {
        match report {
            StreamReport::Message(message) => self.take_fetched(key, message, now),
            StreamReport::Ended(end) => {
                for at in self.outside.fetches.lose(key, &end, now) {
                    self.pass_on(at, now);
                }
            }
        }
        self.end_tick(now);
    }

    /// Handles a reply by TCP. Skips a reply to another question, like one by UDP.
    fn take_fetched(&mut self, key: StreamKey, message: &[u8], now: Instant) {
        let counters = &self.outside.counters;
        let Some(header) = wire::Header::read(message) else { return counters.dropped(DropReason::Malformed) };
        let at = match self.outside.fetches.hear(key, header.id(), now) {
            StreamMatch::Waiting(at) => at,
            StreamMatch::Late => return counters.dropped(DropReason::Late),
            StreamMatch::Unknown => return counters.dropped(DropReason::Spoofed),
        };
        let Ok(reply) = wire::read_reply(message) else { return counters.dropped(DropReason::Malformed) };
        let Some(fetch) = self.outside.fetches.get(at) else { return };
        if !reply.answers_question(&fetch.query.question) {
            return counters.dropped(DropReason::Spoofed);
        }
        // The answer is known to exist, so another backend's negative reply has no weight.
        let least = if fetch.is_passed_on() { Rank::Positive } else { Rank::Nodata };
        let reply = if fetch.is_ad_trusted() { reply } else { reply.without_authentic() };
        self.outside.fetches.settle(at, now);
        if reply.is_truncated() || rank(&reply) < least {
            return self.pass_on(at, now);
        }
        self.outside.fetches.end(at, now);
        self.tick(now).on_fetched(at, &reply);
    }

    pub(super) fn on_fetches_due(&mut self, now: Instant) {
        while let Some(at) = self.outside.fetches.pop_due(now) {
            let next = self.outside.fetches.on_due(at, now);
            self.follow(at, next, now);
        }
    }

    fn pass_on(&mut self, at: RaceRef, now: Instant) {
        let next = self.outside.fetches.pass_on(at, now);
        self.follow(at, next, now);
    }

    fn follow(&mut self, at: RaceRef, next: FetchStep, now: Instant) {
        if let FetchStep::Over { is_unsent } = next {
            let result = if is_unsent { FetchResult::Unsent } else { FetchResult::Failed };
            self.tick(now).on_fetch_failed(at, result);
        }
    }
}
