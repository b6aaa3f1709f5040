//! What a client is told when no backend's reply can be given to it.

use std::time::Instant;

use super::entry::Waiter;
use super::io::{Client, Io, Resolution, Said};
use crate::cache::ResponseFor;
use crate::metrics::{Counters, Dropped, Source};
use crate::policy::{Rules, Silence};
use crate::wire::{self, ExtendedError, Rcode};

/// A response without records, made up here.
#[derive(Clone, Copy, Debug)]
pub(super) struct FallbackAnswer {
    /// What it counts as.
    source: Source,
    /// Its response code; `None`: nothing is said.
    pub(super) rcode: Option<Rcode>,
    /// Why, for clients that speak EDNS.
    error: Option<(ExtendedError, &'static str)>,
}

impl FallbackAnswer {
    /// All that came said nothing but that something had failed.
    pub(super) const FAILED: Self = Self { source: Source::Error, rcode: Some(Rcode::SERVFAIL), error: None };

    /// Some answer exists, but not one that can be given whole: no time to claim that the name does not exist.
    pub(super) const NOT_WHOLE: Self = Self::failure(ExtendedError::NETWORK_ERROR, "");

    /// Somebody who was to be asked could not be, for want of something of our own: no time to claim anything of the name.
    pub(super) const UNSENT: Self = Self::failure(ExtendedError::OTHER, "this server could not send the query on");

    /// The client has as many queries that wait as it may (`limits.waiting`).
    pub(super) const TOO_MANY: Self = Self::failure(ExtendedError::OTHER, "too many queries of this client wait");

    /// All clients together have (`limits.in_flight`).
    pub(super) const BUSY: Self = Self::failure(ExtendedError::OTHER, "too many queries wait");

    /// SERVFAIL, and why: a failure of our own, which is never kept.
    const fn failure(error: ExtendedError, text: &'static str) -> Self {
        Self { source: Source::Error, rcode: Some(Rcode::SERVFAIL), error: Some((error, text)) }
    }

    /// Nobody has replied.
    pub(super) fn of_silence(rules: &Rules, is_any_up: bool) -> Self {
        // RFC 8914 section 4.23 has the error for death. The one for silence was registered later (RFC 8914 section 5.2).
        let (silence, error) = match is_any_up {
            true => (rules.on_timeout, ExtendedError::SYNTHESIZED),
            false => (rules.on_all_down, ExtendedError::NO_REACHABLE_AUTHORITY),
        };
        let rcode = match silence {
            Silence::Nxdomain => Some(Rcode::NXDOMAIN),
            Silence::Servfail => Some(Rcode::SERVFAIL),
            Silence::Refused => Some(Rcode::REFUSED),
            Silence::Drop => None,
        };
        Self { source: Source::Synthesized, rcode, error: Some((error, "")) }
    }

    /// Gives it to one client.
    pub(super) fn give<I: Io>(
        self,
        io: &mut I,
        counters: &Counters,
        waiter: &Waiter<I::Client>,
        resolution: &Resolution<'_>,
        question: &[u8],
        now: Instant,
    ) {
        let Self { source, rcode, error } = self;
        let Some(rcode) = rcode else {
            if !waiter.client.is_admin() {
                counters.dropped_many(Dropped::Unanswered, waiter.queries.into());
            }
            return io.respond_nothing(waiter, resolution, question, now);
        };
        io.respond(waiter, resolution, now, |receiver, out| {
            let ResponseFor { form, own_udp_size, .. } = *receiver;
            wire::write_synthesized(question, form, rcode, error, true, own_udp_size, out);
            Some(Said { source, rcode })
        });
    }
}
