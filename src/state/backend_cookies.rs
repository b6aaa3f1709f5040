//! DNS cookies between us and one backend (RFC 7873, RFC 9018): whether it gives them, ours for it, and the last of its own.
//!
//! Probes find out, at no client's cost: now and then one offers a cookie of ours, and a reply that gives it back with one of the
//! server's makes the backend one that gives cookies. From then on its replies must bear ours. Each worker has a copy of what is
//! known, which it renews when the epoch of its pool says that something has changed; so nothing here is on the way of a query.
//!
//! ```text
//!            on_probe_reply, with a cookie
//!   unknown ──────────────────────────────▶ given ◀──┐ renew: another server cookie
//!     ▲ │ without                            │ │ └────┘
//!     │ ▼                                    │ │
//!   paused ◀─────────────────────────────────┘ └──▶ unknown: our address is another, or ours is old
//!              lose: replies come without
//! ```

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::wire::{ClientCookie, CookieOption, CookiePair};

/// What is known of a backend's cookies.
#[derive(Debug, Default)]
pub struct BackendCookies(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What queries bear, if it gives cookies.
    given: Option<Given>,
    /// None is offered before then: it has replied without.
    paused_until: Option<Instant>,
    /// How many offers in a row only came to nothing: the reply was to a repetition without one.
    unheard: u8,
}

/// The cookies of a backend that gives them.
#[derive(Debug)]
struct Given {
    /// What queries bear.
    pair: CookiePair,
    /// Our address towards the backend.
    local: IpAddr,
    /// When ours was drawn.
    drawn: Instant,
    /// When the server's was learnt.
    learnt: Instant,
}

/// A cookie that a probe offers.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// What the probe bears.
    pub pair: CookiePair,
    /// Our address towards the backend.
    local: IpAddr,
}

/// Which of a probe's datagrams a reply came after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepliedTo {
    /// The one that offered a cookie: no other had been sent.
    Offer,
    /// That, or one of those without.
    Any,
}

impl BackendCookies {
    /// What a probe that is sent from this address is to offer, if anything: what queries bear, so that the server's does not
    /// run out while nobody asks; or a new one, `fresh`.
    ///
    /// RFC 9018 section 3: each server gets another cookie of ours, of 64 random bits. Who does not know cookies is not offered
    /// one for some minutes, and the same one never again. Once our address is another, cookies of before are not used any more,
    /// for they would tell who we were. Deviation: that is looked at by probes, and not for each query.
    pub fn offer(&self, local: IpAddr, fresh: ClientCookie, now: Instant) -> (Option<Offer>, HasChanged) {
        let mut state = self.lock();
        let is_old = |given: &mut Given| given.local != local || now.saturating_duration_since(given.drawn) >= LIFETIME;
        let has_changed = state.given.take_if(is_old).is_some();
        let pair = match &state.given {
            Some(given) => Some(given.pair),
            None if state.paused_until.is_some_and(|until| now < until) => None,
            None => Some(CookiePair::new(fresh)),
        };
        (pair.map(|pair| Offer { pair, local }), HasChanged(has_changed))
    }

    /// A probe that offered a cookie was replied to, with this cookie or without. Returns whether it was news that the backend
    /// gives cookies, and whether anything has changed.
    pub fn on_probe_reply(
        &self,
        offer: &Offer,
        cookie: Option<CookieOption<'_>>,
        to: RepliedTo,
        now: Instant,
    ) -> (bool, HasChanged) {
        let mut state = self.lock();
        let own = cookie.filter(|cookie| cookie.client == offer.pair.client());
        if let Some(pair) = own.and_then(CookiePair::given) {
            state.unheard = 0;
            if let Some(given) = &mut state.given {
                // A reply that a query has had may have come first.
                return (false, given.renew(&pair, Urgency::CanWait, now));
            }
            state.given = Some(Given { pair, local: offer.local, drawn: now, learnt: now });
            return (true, HasChanged(true));
        }
        // Only queries find out that what was given is given no more: they ask twice.
        if state.given.is_none() {
            state.unheard = if to == RepliedTo::Any { state.unheard + 1 } else { MAX_UNHEARD };
            if state.unheard >= MAX_UNHEARD {
                state.unheard = 0;
                state.paused_until = Some(now + PAUSE);
            }
        }
        (false, HasChanged(false))
    }

    /// What queries are to bear, if the backend gives cookies.
    pub fn pair(&self) -> Option<CookiePair> {
        self.lock().given.as_ref().map(|given| given.pair)
    }

    /// A reply to a query has brought these.
    pub fn renew(&self, pair: &CookiePair, urgency: Urgency, now: Instant) -> HasChanged {
        match &mut self.lock().given {
            Some(given) => given.renew(pair, urgency, now),
            None => HasChanged(false),
        }
    }

    /// The backend does not give this cookie of ours back any more. Returns whether that is news.
    pub fn lose(&self, client: ClientCookie, now: Instant) -> HasChanged {
        let mut state = self.lock();
        let lost = state.given.take_if(|given| given.pair.client() == client).is_some();
        if lost {
            state.paused_until = Some(now + PAUSE);
        }
        HasChanged(lost)
    }

    /// The backend has come up, and may be another than before: the next probe finds out.
    pub fn resume(&self) {
        self.lock().paused_until = None;
    }

    /// The state. What is written at once is sound after a panic too.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Given {
    /// Takes what came in a reply, if it is for our present cookie.
    fn renew(&mut self, pair: &CookiePair, urgency: Urgency, now: Instant) -> HasChanged {
        let is_due = urgency == Urgency::AtOnce || now.saturating_duration_since(self.learnt) >= RENEWAL;
        let has_changed = is_due && self.pair.client() == pair.client() && self.pair != *pair;
        if has_changed {
            self.pair = *pair;
            self.learnt = now;
        }
        HasChanged(has_changed)
    }
}

/// Whether the workers have to be told, by the epoch of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct HasChanged(pub bool);

/// How soon another server cookie is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Now and then, for the one before is good still.
    CanWait,
    /// At once: the one before was refused.
    AtOnce,
}

/// How long a server cookie is used at least, unless it is refused. Some servers make another each second, and each change has
/// to be told to all workers; none lets one run out so soon (RFC 9018 section 4.3: after an hour, and renewed after half of that).
pub const RENEWAL: Duration = Duration::from_secs(10);

/// How long a backend that gives no cookies is not offered one (RFC 9018 section 3 has this as an example).
const PAUSE: Duration = Duration::from_secs(300);

/// How long a cookie of ours is used: far less than the year of RFC 9018 section 3, for a new one costs nothing.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many offers that were not replied to are enough. One datagram may be lost; and what is in the way may swallow all that
/// bear an OPT record, which then costs the probe a little time.
const MAX_UNHEARD: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const OURS: ClientCookie = *b"CLIENT01";

    /// What a probe offers now.
    fn offer(cookies: &BackendCookies, now: Instant) -> Option<Offer> {
        cookies.offer(LOCAL, OURS, now).0
    }

    /// The cookies of an offer with this server cookie.
    fn option(offer: &Offer, server: &'static [u8]) -> CookieOption<'static> {
        CookieOption { client: offer.pair.client(), server }
    }

    /// A backend that gives cookies since `now`.
    fn giving(now: Instant) -> BackendCookies {
        let cookies = BackendCookies::default();
        let offer = offer(&cookies, now).expect("the first probe offers one");
        let reply = Some(option(&offer, b"SERVER01"));
        assert_eq!(cookies.on_probe_reply(&offer, reply, RepliedTo::Offer, now), (true, HasChanged(true)));
        cookies
    }

    #[test]
    fn who_gives_our_cookie_back_with_one_of_its_own_gives_cookies() {
        let now = Instant::now();
        let check = |reply: Option<CookieOption<'_>>, expected: bool| {
            let cookies = BackendCookies::default();
            let offer = offer(&cookies, now).expect("the first probe offers one");
            let (is_news, HasChanged(has_changed)) = cookies.on_probe_reply(&offer, reply, RepliedTo::Offer, now);
            assert_eq!((is_news, has_changed), (expected, expected));
            assert_eq!(cookies.pair(), reply.filter(|_| expected).and_then(CookiePair::given));
        };
        check(Some(CookieOption { client: OURS, server: b"SERVER01" }), true);
        check(Some(CookieOption { client: OURS, server: b"" }), false);
        check(Some(CookieOption { client: *b"ANOTHER1", server: b"SERVER01" }), false);
        check(None, false);
    }

    #[test]
    fn who_gives_none_is_not_offered_one_for_a_while() {
        let start = Instant::now();
        let cookies = BackendCookies::default();
        let check = |now: Instant, expected: bool| assert_eq!(offer(&cookies, now).is_some(), expected);
        let reply = |to: RepliedTo, now: Instant| {
            let offer = offer(&cookies, now).expect("an offer");
            assert_eq!(cookies.on_probe_reply(&offer, None, to, now), (false, HasChanged(false)));
        };
        reply(RepliedTo::Offer, start);
        check(start + PAUSE - Duration::from_secs(1), false);
        check(start + PAUSE, true);
        // A datagram may be lost, but not three in a row.
        reply(RepliedTo::Any, start + PAUSE);
        reply(RepliedTo::Any, start + PAUSE);
        check(start + PAUSE, true);
        reply(RepliedTo::Any, start + PAUSE);
        check(start + PAUSE, false);
        cookies.resume();
        check(start + PAUSE, true);
    }

    #[test]
    fn a_server_cookie_is_renewed_now_and_then_or_when_it_is_refused() {
        let start = Instant::now();
        let cookies = giving(start);
        let check = |client: ClientCookie, server: &'static [u8], urgency: Urgency, after: u64, expected: bool| {
            let pair = CookiePair::given(CookieOption { client, server }).expect("a pair");
            let HasChanged(has_changed) = cookies.renew(&pair, urgency, start + Duration::from_secs(after));
            assert_eq!((has_changed, cookies.pair() == Some(pair)), (expected, expected), "{server:?} after {after} s");
        };
        check(OURS, b"SERVER02", Urgency::CanWait, 9, false);
        check(OURS, b"SERVER02", Urgency::CanWait, 10, true);
        check(OURS, b"SERVER03", Urgency::CanWait, 19, false);
        check(OURS, b"SERVER03", Urgency::AtOnce, 19, true);
        check(*b"ANOTHER1", b"SERVER04", Urgency::AtOnce, 40, false);
        // A probe that offers what queries bear renews as they do.
        let offer = offer(&cookies, start).expect("an offer");
        let reply = Some(option(&offer, b"SERVER05"));
        let at = start + Duration::from_secs(29);
        assert_eq!(cookies.on_probe_reply(&offer, reply, RepliedTo::Any, at), (false, HasChanged(true)));
        assert_eq!(cookies.pair(), reply.and_then(CookiePair::given));
    }

    #[test]
    fn who_ceases_to_give_them_is_asked_without() {
        let now = Instant::now();
        let cookies = giving(now);
        // A probe that is replied to without proves nothing.
        let probe = offer(&cookies, now).expect("an offer");
        assert_eq!(cookies.on_probe_reply(&probe, None, RepliedTo::Offer, now), (false, HasChanged(false)));
        assert_eq!(cookies.lose(*b"ANOTHER1", now), HasChanged(false));
        assert_eq!(cookies.lose(OURS, now), HasChanged(true));
        assert_eq!(cookies.lose(OURS, now), HasChanged(false));
        assert_eq!((cookies.pair(), offer(&cookies, now).is_some()), (None, false));
        assert!(offer(&cookies, now + PAUSE).is_some());
    }

    #[test]
    fn cookies_are_not_used_from_another_address_nor_for_ever() {
        let now = Instant::now();
        for (local, after) in [("192.0.2.1", Duration::ZERO), ("127.0.0.1", LIFETIME)] {
            let cookies = giving(now);
            let local = local.parse().expect("an address");
            let (offer, has_changed) = cookies.offer(local, *b"ANOTHER1", now + after);
            assert_eq!((has_changed, cookies.pair()), (HasChanged(true), None));
            assert_eq!(offer.map(|offer| offer.pair), Some(CookiePair::new(*b"ANOTHER1")));
        }
    }
}
