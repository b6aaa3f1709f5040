//! What limits leave of a response by UDP: all of it, TC=1 alone, or nothing.
//!
//! Two are asked, and both count every response: the rate of responses to the client's prefix, where that is limited, and the
//! pacing of what has waited (`limit/pacing.rs`).

use std::net::IpAddr;
use std::time::Instant;

use super::entry::Waiter;
use crate::limit::{Decision, Outcome, Pacing, ResponseRate};
use crate::wire::{self, Rcode, Subject};

/// Whom a response goes to, as far as limits go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receiver {
    /// Its address.
    pub(super) client: IpAddr,
    /// It has shown that it is where that says, and nobody is flooded in its name.
    pub(super) is_exempt: bool,
    /// Its query has waited, so that there may be many whose responses leave now.
    pub(super) has_waited: bool,
}

impl Receiver {
    /// Who waits for a response. Only by UDP is anybody limited: who has come by TCP is where it says.
    pub(super) fn of(waiter: &Waiter, now: Instant) -> Self {
        Self { client: waiter.client.ip(), is_exempt: false, has_waited: Pacing::is_held(waiter.since, now) }
    }
}

/// What limits a worker's responses.
#[derive(Clone, Copy)]
pub(super) struct Allowance<'a> {
    /// How many a second.
    pub(super) rate: Option<&'a ResponseRate>,
    /// How much at once.
    pub(super) pacing: &'a Pacing,
    /// Now.
    pub(super) now: Instant,
}

impl Allowance<'_> {
    /// Cuts a response as the limits want it; one that may not go out is left empty. Returns whether it is as it was.
    pub(super) fn apply(&self, receiver: Receiver, response: &mut Vec<u8>) -> bool {
        let Receiver { client, is_exempt, has_waited } = receiver;
        if is_exempt || response.is_empty() {
            return true;
        }
        let mut decision = match self.rate.filter(|rate| rate.limits(client)) {
            Some(rate) => {
                let subject = Subject::of(response);
                rate.decide(client, subject.name, outcome_of(&subject), self.now)
            }
            None => Decision::Pass,
        };
        if decision == Decision::Pass && has_waited {
            decision = self.pacing.decide(client, response.len(), self.now);
        }
        match decision {
            Decision::Pass => return true,
            Decision::Slip => wire::truncate(response),
            Decision::Drop => response.clear(),
        }
        false
    }
}

/// What kind of response this is, to limits.
fn outcome_of(subject: &Subject<'_>) -> Outcome {
    match subject.rcode {
        Rcode::NOERROR if subject.is_referral => Outcome::Referral,
        Rcode::NOERROR => Outcome::Answer,
        Rcode::NXDOMAIN => Outcome::Nxdomain,
        _ => Outcome::Error,
    }
}
