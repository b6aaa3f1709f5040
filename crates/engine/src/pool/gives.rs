//! The transport of backends, and the protocol features that they are assumed to support: EDNS, the case of
//! names, cookies.

use std::time::Instant;

use config::{Case, Rank};
use dns::{CookiePair, Reply};
use hedge::race::BackendIndex;

use super::super::proof::ReplyProof;
use super::Pool;
use crate::state::backend_cookies::{HasChanged, RENEWAL, Urgency};

impl Pool {
    #[inline]
    pub(crate) fn is_by_stream(&self, backend: BackendIndex) -> bool {
        self.by_stream.get(backend.get()).is_some_and(|is| *is)
    }

    #[inline]
    pub(crate) fn is_encrypted(&self, backend: BackendIndex) -> bool {
        self.is_by_stream(backend) && self.backend(backend).is_encrypted()
    }

    /// Returns true if a query without OPT gets one for a backend: for padding, or for extended errors in
    /// replies (RFC 8914 section 2).
    #[inline]
    pub(crate) fn adds_opt(&self, backend: BackendIndex) -> bool {
        self.plan.shared.rules().believe_ede || self.is_encrypted(backend)
    }

    #[inline]
    pub(crate) fn wants_header(&self, backend: BackendIndex) -> bool {
        self.plan.shared.names_clients && self.backend(backend).wants_header
    }

    /// Returns true if a backend is asked with a randomized case (DNS 0x20).
    pub(crate) fn is_case_random(&self, backend: BackendIndex, now: Instant) -> bool {
        self.plan.shared.config.spoofing.case == Case::Random && !self.backend(backend).is_case_lost(now)
    }

    pub(crate) fn gives(&self, lacking: ReplyProof, backend: BackendIndex, now: Instant) -> bool {
        lacking.has(ReplyProof::CASE) && self.is_case_random(backend, now)
            || lacking.has(ReplyProof::COOKIE) && self.gives_cookies(backend)
    }

    /// Returns the cookies for queries to a backend, if it supports them (RFC 7873).
    pub(crate) fn cookies(&self, backend: BackendIndex) -> Option<&CookiePair> {
        self.members[usize::from(backend.0)].cookies.as_ref()
    }

    fn gives_cookies(&self, backend: BackendIndex) -> bool {
        let ours = self.cookies(backend).map(CookiePair::client);
        ours.is_some() && ours == self.backend(backend).cookies.pair().map(|pair| pair.client())
    }

    /// Takes over the server cookie of a reply that repeated ours, if it is new and due.
    pub(crate) fn renew_cookies(&mut self, backend: BackendIndex, reply: &Reply<'_>, urgency: Urgency, now: Instant) {
        let member = &mut self.members[backend.get()];
        let fresh = reply.cookie().and_then(CookiePair::given).filter(|fresh| member.cookies != Some(*fresh));
        let is_due = urgency == Urgency::AtOnce || now.saturating_duration_since(member.cookies_since) >= RENEWAL;
        if let Some(fresh) = fresh.filter(|_| is_due) {
            (member.cookies, member.cookies_since) = (Some(fresh), now);
            let backend = self.backend(backend);
            let HasChanged(has_changed) = backend.cookies.renew(&fresh, urgency, now);
            if has_changed {
                self.plan.shared.state.announce(backend);
            }
        }
    }

    pub(crate) fn remember_cookies_lost(&mut self, backend: BackendIndex, now: Instant) -> bool {
        let Some(lost) = self.members[backend.get()].cookies.take() else { return false };
        let backend = self.backend(backend);
        let HasChanged(is_news) = backend.cookies.lose(lost.client(), now);
        if is_news {
            self.plan.shared.state.announce(backend);
        }
        is_news
    }

    pub(crate) fn remember_case_lost(&mut self, backend: BackendIndex, now: Instant) -> bool {
        let is_news = self.is_case_random(backend, now);
        self.backend(backend).set_case_lost(now);
        is_news
    }

    pub(crate) fn learn_lacking(&mut self, backend: BackendIndex, lacking: ReplyProof, rank: Rank, now: Instant) {
        if lacking.has(ReplyProof::CASE) && self.remember_case_lost(backend, now) {
            let (pool, backend) = self.labels(backend);
            tracing::warn!(
                pool,
                backend,
                "the backend does not keep the case of names: queries go without DNS 0x20 for now"
            );
        }
        // A failure may lack proofs that other replies have: a backend that cannot parse a query cannot read
        // its cookie. So one malformed query does not cost the other clients their cookie protection.
        if lacking.has(ReplyProof::COOKIE) && rank > Rank::Failure && self.remember_cookies_lost(backend, now) {
            let (pool, backend) = self.labels(backend);
            tracing::warn!(
                pool,
                backend,
                "the backend no longer returns DNS cookies: queries go without cookies for now"
            );
        }
    }
}
