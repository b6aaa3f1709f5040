//! Responses to clients: each in its own form, and the fallback for clients that cannot get a backend's
//! reply.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::time::Instant;

use config::{PoolRules, Silence};
use dns::{ClientForm, ExtendedError, Rcode, Reply};
use metrics::{DropReason, ResponseSource};

use super::EngineWorker;
use super::entry::Waiter;
use super::io::{ClientHandle, Io, ResponseOrigin, ResponseSummary};
use super::subnet;
use crate::cache::ResponseFor;

/// The means to respond to clients at one time.
pub(super) struct ClientResponder<'a, I> {
    io: &'a mut I,
    worker: &'a EngineWorker,
    pub(super) buffer: &'a mut Vec<u8>,
    pub(super) now: Instant,
}

impl<'a, I: Io> ClientResponder<'a, I> {
    pub(super) fn new(io: &'a mut I, worker: &'a EngineWorker, buffer: &'a mut Vec<u8>, now: Instant) -> Self {
        Self { io, worker, buffer, now }
    }

    /// Returns the form of a client's response, whole with its cookie.
    #[inline]
    pub(super) fn form<'w>(&self, waiter: &'w Waiter<I::Client>) -> Cow<'w, ClientForm> {
        let cookie = waiter.cookie.and_then(|shown| self.io.late_cookie(&waiter.client, shown));
        match cookie {
            Some(cookie) => Cow::Owned(waiter.form.with_cookie(Some(cookie))),
            None => Cow::Borrowed(&waiter.form),
        }
    }

    /// Returns the form of a client's response with its limits.
    #[inline]
    pub(super) fn receiver<'f>(&self, waiter: &Waiter<I::Client>, form: &'f ClientForm) -> ResponseFor<'f> {
        let own_udp_size = self.worker.state.edns_udp_size;
        let limit = form.limit(waiter.client.transport(), own_udp_size);
        let limit = limit - waiter.subnet.map_or(0, |subnet| subnet.wire_len());
        ResponseFor { form, own_udp_size, limit }
    }

    /// Adds the client's own subnet to the response in the buffer, with the scope of the answer.
    #[inline]
    pub(super) fn give_subnet(&mut self, waiter: &Waiter<I::Client>, scope: u8) {
        if let Some(subnet) = &waiter.subnet {
            dns::give_client_subnet(self.buffer, subnet, scope);
        }
    }

    /// Sends the response in the buffer.
    #[inline]
    pub(super) fn respond(
        &mut self,
        waiter: &Waiter<I::Client>,
        origin: &ResponseOrigin<'_>,
        summary: ResponseSummary,
    ) {
        if !origin.is_limited && !waiter.client.is_admin() {
            let wait = self.now.saturating_duration_since(waiter.since);
            self.worker.counters_of(origin.pool).duration.record(wait);
        }
        self.io.respond(waiter, origin, summary, self.buffer, self.now);
    }

    /// Passes on a reply of a backend.
    pub(super) fn relay(
        &mut self,
        waiter: &Waiter<I::Client>,
        origin: &ResponseOrigin<'_>,
        reply: &Reply<'_>,
        is_signed: bool,
    ) {
        let form = self.form(waiter);
        let ResponseFor { form, own_udp_size, limit } = self.receiver(waiter, &form);
        self.buffer.clear();
        // The backend saw the client's own UDP size.
        if is_signed && reply.as_wire().len() <= waiter.form.limit(waiter.client.transport(), u16::MAX) {
            dns::write_unchanged(reply, waiter.form.id, self.buffer);
        } else {
            dns::write_response(reply, form, own_udp_size, limit, self.buffer);
            if waiter.subnet.is_some() {
                self.give_subnet(waiter, subnet::scope(reply));
            }
        }
        self.respond(waiter, origin, ResponseSummary { source: ResponseSource::Backend, rcode: reply.rcode() });
    }
}

/// A response that hedgerow makes up because a client cannot get a backend's reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct FallbackAnswer<'t> {
    source: ResponseSource,
    pub(super) rcode: Option<Rcode>,
    error: Option<(ExtendedError, &'t str)>,
}

impl<'t> FallbackAnswer<'t> {
    pub(super) const FAILED: Self = Self { source: ResponseSource::Error, rcode: Some(Rcode::SERVFAIL), error: None };

    /// The CLIENT-SUBNET option of the query is malformed (RFC 7871 section 7.2.1).
    pub(super) const MALFORMED: Self = Self { source: ResponseSource::Error, rcode: Some(Rcode::FORMERR), error: None };

    /// Some answer exists but cannot be given whole, so NXDOMAIN would be wrong.
    pub(super) const NOT_WHOLE: Self = Self::failure(ExtendedError::NETWORK_ERROR, "");

    /// A local shortage prevented an attempt, so NXDOMAIN would be wrong.
    pub(super) const UNSENT: Self = Self::failure(ExtendedError::OTHER, "this server could not send the query on");

    pub(super) const TOO_MANY: Self = Self::failure(ExtendedError::OTHER, "too many queries of this client wait");

    pub(super) const BUSY: Self = Self::failure(ExtendedError::OTHER, "too many queries wait");

    /// Too many queries wait for names below this suffix.
    pub(super) fn zone_is_full(suffix: Option<&[u8]>, room: &'t mut TextRoom) -> Self {
        let suffix = suffix.map(dns::display_name);
        let has_room =
            suffix.is_some_and(|suffix| write!(room, "too many queries wait for names below {suffix}").is_ok());
        let text = if has_room {
            room.text().trim_end_matches('.')
        } else {
            "too many queries wait for names below one suffix"
        };
        Self::failure(ExtendedError::OTHER, text)
    }

    /// SERVFAIL for a local failure, which is never cached.
    const fn failure(error: ExtendedError, text: &'t str) -> Self {
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
        waiter: &Waiter<I::Client>,
        origin: &ResponseOrigin<'_>,
        question: &[u8],
    ) {
        let Self { source, rcode, error } = self;
        let Some(rcode) = rcode else {
            if !waiter.client.is_admin() {
                responder.worker.counters.dropped_many(DropReason::Unanswered, waiter.queries.into());
            }
            return responder.io.respond_nothing(waiter, origin, question, responder.now);
        };
        let form = responder.form(waiter);
        responder.buffer.clear();
        let own_udp_size = responder.worker.state.edns_udp_size;
        dns::write_synthesized(question, &form, rcode, error, true, own_udp_size, responder.buffer);
        responder.respond(waiter, origin, ResponseSummary { source, rcode });
    }
}

/// Room for the text of an Extended DNS Error, without an allocation.
pub(super) struct TextRoom {
    octets: [u8; dns::MAX_ERROR_TEXT],
    len: usize,
}

impl TextRoom {
    fn text(&self) -> &str {
        self.octets.get(..self.len).and_then(|octets| str::from_utf8(octets).ok()).unwrap_or_default()
    }
}

impl Default for TextRoom {
    fn default() -> Self {
        Self { octets: [0; dns::MAX_ERROR_TEXT], len: 0 }
    }
}

impl fmt::Write for TextRoom {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let place = self.octets.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}
