//! What limits leave of a response by UDP: all of it, TC=1 alone, or nothing; and when it leaves.
//!
//! Two are asked, and both count every response: the rate of responses to the client's prefix, where that is limited, and the
//! pacing of what has waited (`limit/pacing.rs`).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Client;
use crate::engine::{Client as _, Waiter};
use crate::limit::{Decision, Pace, Pacing, ResponseRate};
use crate::wire::{self, CookieState, ResponseSubject};

/// Whom a response goes to, as far as limits go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receiver {
    /// Its address.
    pub(super) client: IpAddr,
    /// What its cookie has shown, if it has one.
    pub(super) cookie: Option<CookieState>,
    /// Its query has waited, so that there may be many whose responses leave now.
    pub(super) has_waited: bool,
}

impl Receiver {
    /// Who waits for a response. Only by UDP is anybody limited: who has come by TCP is where it says.
    pub(super) fn of(waiter: &Waiter<Client>, now: Instant) -> Self {
        let Waiter { client, form, cookie, since, .. } = waiter;
        let cookie = form.cookie.map(|cookie| cookie.state).or_else(|| cookie.map(|cookie| cookie.state));
        Self { client: client.ip(), cookie, has_waited: Pacing::is_held(*since, now) }
    }

    /// Whether it has shown that it is where its address says. RFC 7873 section 5.2.5: nobody is flooded in its name.
    fn is_exempt(self) -> bool {
        self.cookie == Some(CookieState::Valid)
    }
}

/// What limits a worker's responses.
#[derive(Clone, Copy)]
pub(super) struct Allowance<'a> {
    /// How many a second.
    pub(super) rate: Option<&'a ResponseRate>,
    /// How much at once.
    pub(super) pacing: &'a Pacing,
    /// Nothing is paced any more: the process ends.
    pub(super) is_draining: bool,
    pub(super) now: Instant,
}

/// What becomes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It leaves, as it was.
    Leaves,
    /// It leaves cut, or not at all: then it is left empty.
    Limited,
    /// It asks the client for the cookie that it is given, in the place of TC.
    AsksForCookie,
    /// It leaves at this time, perhaps cut.
    Later {
        due: Instant,
        /// Whether it was cut.
        is_cut: bool,
    },
}

impl Allowance<'_> {
    /// Cuts a response as the limits want it; one that may not leave is left empty.
    pub(super) fn apply(&self, receiver: Receiver, response: &mut Vec<u8>) -> Fate {
        let Receiver { client, cookie, has_waited } = receiver;
        if receiver.is_exempt() || response.is_empty() {
            return Fate::Leaves;
        }
        if let Some(rate) = self.rate.filter(|rate| rate.limits(client)) {
            let subject = ResponseSubject::of(response);
            match rate.decide(client, subject.name, subject.category, self.now) {
                Decision::Pass => {}
                // RFC 7873 section 5.2.3: who has a cookie of its own need not come by TCP, but with ours.
                Decision::Slip if cookie.is_some() => {
                    wire::ask_for_cookie(response);
                    return Fate::AsksForCookie;
                }
                Decision::Slip => {
                    wire::shorten(response);
                    return Fate::Limited;
                }
                Decision::Drop => {
                    response.clear();
                    return Fate::Limited;
                }
            }
        }
        if !has_waited || self.is_draining {
            return Fate::Leaves;
        }
        match self.pacing.decide(client, response.len(), self.now) {
            Pace::Whole(Duration::ZERO) => Fate::Leaves,
            Pace::Whole(wait) => Fate::Later { due: self.now + wait, is_cut: false },
            Pace::Cut(wait) => {
                wire::shorten(response);
                Fate::Later { due: self.now + wait, is_cut: true }
            }
            Pace::Drop => {
                response.clear();
                Fate::Limited
            }
        }
    }
}
