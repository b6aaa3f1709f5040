//! Fallback responses, for clients that cannot get a backend's reply.

use super::entry::Waiter;
use super::io::{ClientHandle, Io, ResponseOrigin, ResponseSummary};
use super::responder::ClientResponder;
use crate::cache::ResponseFor;
use crate::metrics::{Counters, DropReason, ResponseSource};
use crate::policy::{PoolRules, Silence};
use crate::wire::{self, ExtendedError, Rcode};

#[derive(Clone, Copy, Debug)]
pub(super) struct FallbackAnswer {
    source: ResponseSource,
    pub(super) rcode: Option<Rcode>,
    error: Option<(ExtendedError, &'static str)>,
}

impl FallbackAnswer {
    pub(super) const FAILED: Self = Self { source: ResponseSource::Error, rcode: Some(Rcode::SERVFAIL), error: None };

    /// Some answer exists but cannot be given whole, so NXDOMAIN would be wrong.
    pub(super) const NOT_WHOLE: Self = Self::failure(ExtendedError::NETWORK_ERROR, "");

    /// A local shortage prevented an attempt, so NXDOMAIN would be wrong.
    pub(super) const UNSENT: Self = Self::failure(ExtendedError::OTHER, "this server could not send the query on");

    pub(super) const TOO_MANY: Self = Self::failure(ExtendedError::OTHER, "too many queries of this client wait");

    pub(super) const BUSY: Self = Self::failure(ExtendedError::OTHER, "too many queries wait");

    /// SERVFAIL for a local failure, which is never cached.
    const fn failure(error: ExtendedError, text: &'static str) -> Self {
        Self { source: ResponseSource::Error, rcode: Some(Rcode::SERVFAIL), error: Some((error, text)) }
    }

    pub(super) fn of_silence(rules: &PoolRules, is_any_up: bool) -> Self {
        // RFC 8914 section 4.23 has the error for backends that are down. The one for silence was registered
        // later (RFC 8914 section 5.2).
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
        Self { source: ResponseSource::Synthesized, rcode, error: Some((error, "")) }
    }

    pub(super) fn give<I: Io>(
        self,
        responder: &mut ClientResponder<'_, I>,
        counters: &Counters,
        waiter: &Waiter<I::Client>,
        resolution: &ResponseOrigin<'_>,
        question: &[u8],
    ) {
        let Self { source, rcode, error } = self;
        let Some(rcode) = rcode else {
            if !waiter.client.is_admin() {
                counters.dropped_many(DropReason::Unanswered, waiter.queries.into());
            }
            return responder.io.respond_nothing(waiter, resolution, question, responder.now);
        };
        responder.respond(waiter, resolution, |receiver, out| {
            let ResponseFor { form, own_udp_size, .. } = *receiver;
            wire::write_synthesized(question, form, rcode, error, true, own_udp_size, out);
            Some(ResponseSummary { source, rcode })
        });
    }
}
