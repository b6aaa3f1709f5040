//! Limits on UDP responses: whole, truncated (TC=1), delayed or dropped. Two limits count every response: the
//! response rate of the client's prefix, if configured, and the pacing of delayed responses
//! (`limit/pacing.rs`).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use dns::{CookieState, ResponseSubject};
use engine::{ClientHandle as _, Waiter};
use limit::{Decision, Pace, Pacing, ResponseRate};

use super::ReplyChannel;

#[derive(Clone, Copy, Debug)]
pub(super) struct Receiver {
    pub(super) client: IpAddr,
    /// The result of the cookie check, if the query had a cookie.
    pub(super) cookie: Option<CookieState>,
    pub(super) has_waited: bool,
}

impl Receiver {
    /// Returns the receiver of a response. Only UDP is limited: a TCP client has proved its address.
    pub(super) fn of(waiter: &Waiter<ReplyChannel>, now: Instant) -> Self {
        let Waiter { client, form, cookie, since, .. } = waiter;
        let cookie = form.cookie.map(|cookie| cookie.state).or_else(|| cookie.map(|cookie| cookie.state));
        Self { client: client.ip(), cookie, has_waited: Pacing::is_held(*since, now) }
    }

    /// Returns true if the client has proved its address (RFC 7873 section 5.2.5), so no flood is forged.
    fn is_exempt(self) -> bool {
        self.cookie == Some(CookieState::Valid)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Allowance<'a> {
    pub(super) rate: Option<&'a ResponseRate>,
    pub(super) pacing: &'a Pacing,
    /// True if the process is draining: no more pacing.
    pub(super) is_draining: bool,
    pub(super) now: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseFate {
    Leaves,
    /// Sent truncated, or dropped if empty.
    Limited,
    /// Sent as a BADCOOKIE response with a cookie, instead of TC.
    AsksForCookie,
    Later {
        due: Instant,
        is_cut: bool,
    },
}

impl Allowance<'_> {
    /// Returns true if a limit may drop a response to this receiver.
    pub(super) fn may_drop(&self, receiver: Receiver) -> bool {
        !receiver.is_exempt() && (self.rate.is_some() || receiver.has_waited && !self.is_draining)
    }

    /// Applies the limits to a response. A response that must not be sent is left empty.
    pub(super) fn apply(&self, receiver: Receiver, response: &mut Vec<u8>) -> ResponseFate {
        let Receiver { client, cookie, has_waited } = receiver;
        if receiver.is_exempt() || response.is_empty() {
            return ResponseFate::Leaves;
        }
        if let Some(rate) = self.rate.filter(|rate| rate.limits(client)) {
            let subject = ResponseSubject::of(response);
            match rate.decide(client, subject.name, subject.category, self.now) {
                Decision::Pass => {}
                // RFC 7873 section 5.2.3: a client cookie suffices to retry by UDP with a server cookie.
                Decision::Slip if cookie.is_some() => {
                    dns::ask_for_cookie(response);
                    return ResponseFate::AsksForCookie;
                }
                Decision::Slip => {
                    dns::shorten(response);
                    return ResponseFate::Limited;
                }
                Decision::Drop => {
                    response.clear();
                    return ResponseFate::Limited;
                }
            }
        }
        if !has_waited || self.is_draining {
            return ResponseFate::Leaves;
        }
        match self.pacing.decide(client, response.len(), self.now) {
            Pace::Whole(Duration::ZERO) => ResponseFate::Leaves,
            Pace::Whole(wait) => ResponseFate::Later { due: self.now + wait, is_cut: false },
            Pace::Cut(wait) => {
                dns::shorten(response);
                ResponseFate::Later { due: self.now + wait, is_cut: true }
            }
            Pace::Drop => {
                response.clear();
                ResponseFate::Limited
            }
        }
    }
}
