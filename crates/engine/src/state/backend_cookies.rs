//! The DNS cookies between hedgerow and one backend (RFC 7873, RFC 9018).
//!
//! Workers copy this state when the epoch of the pool changes, so queries do not wait here.
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

use dns::{ClientCookie, CookieOption, CookiePair};

/// The cookie state of a backend.
#[derive(Debug, Default)]
pub struct BackendCookies(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    given: Option<LearnedCookie>,
    paused_until: Option<Instant>,
    unheard: u8,
}

#[derive(Debug)]
struct LearnedCookie {
    pair: CookiePair,
    local: IpAddr,
    drawn: Instant,
    learnt: Instant,
}

/// A cookie that a probe offers.
#[derive(Clone, Copy, Debug)]
pub struct CookieOffer {
    /// The cookies in the probe.
    pub pair: CookiePair,
    local: IpAddr,
}

/// The datagram of a probe that a reply belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepliedTo {
    /// The datagram with the offer, the only one so far.
    Offer,
    /// The datagram with the offer or one without.
    Any,
}

impl BackendCookies {
    /// Returns the cookies for a probe from this local address: those of queries, or a new client cookie.
    ///
    /// RFC 9018 section 3: each server gets a different client cookie. A change of the
    /// local address drops the cookies (privacy). Deviation: probes check the address, not each query.
    pub fn offer(&self, local: IpAddr, fresh: ClientCookie, now: Instant) -> (Option<CookieOffer>, HasChanged) {
        let mut state = self.lock();
        let is_old =
            |given: &mut LearnedCookie| given.local != local || now.saturating_duration_since(given.drawn) >= LIFETIME;
        let has_changed = state.given.take_if(is_old).is_some();
        let pair = match &state.given {
            Some(given) => Some(given.pair),
            None if state.paused_until.is_some_and(|until| now < until) => None,
            None => Some(CookiePair::new(fresh)),
        };
        (pair.map(|pair| CookieOffer { pair, local }), HasChanged(has_changed))
    }

    /// Handles the reply to an offer. Returns if the backend has just begun to give cookies, and any change.
    pub fn on_probe_reply(
        &self,
        offer: &CookieOffer,
        cookie: Option<CookieOption<'_>>,
        to: RepliedTo,
        now: Instant,
    ) -> (bool, HasChanged) {
        let mut state = self.lock();
        let own = cookie.filter(|cookie| cookie.client == offer.pair.client());
        if let Some(pair) = own.and_then(CookiePair::given) {
            state.unheard = 0;
            if let Some(given) = &mut state.given {
                return (false, given.renew(&pair, Urgency::CanWait, now));
            }
            state.given = Some(LearnedCookie { pair, local: offer.local, drawn: now, learnt: now });
            return (true, HasChanged(true));
        }
        // Only queries detect that a backend gives no more cookies, because they ask twice.
        if state.given.is_none() {
            state.unheard = if to == RepliedTo::Any { state.unheard + 1 } else { MAX_UNHEARD };
            if state.unheard >= MAX_UNHEARD {
                state.unheard = 0;
                state.paused_until = Some(now + PAUSE);
            }
        }
        (false, HasChanged(false))
    }

    /// Returns the cookies for queries, if the backend gives any.
    pub(crate) fn pair(&self) -> Option<CookiePair> {
        self.lock().given.as_ref().map(|given| given.pair)
    }

    /// Adopts the cookies from the reply to a query.
    pub(crate) fn renew(&self, pair: &CookiePair, urgency: Urgency, now: Instant) -> HasChanged {
        match &mut self.lock().given {
            Some(given) => given.renew(pair, urgency, now),
            None => HasChanged(false),
        }
    }

    /// Records that the backend no longer returns this client cookie, and pauses cookies. Without effect and
    /// `HasChanged(false)` if the current cookies are others.
    pub(crate) fn lose(&self, client: ClientCookie, now: Instant) -> HasChanged {
        let mut state = self.lock();
        let lost = state.given.take_if(|given| given.pair.client() == client).is_some();
        if lost {
            state.paused_until = Some(now + PAUSE);
        }
        HasChanged(lost)
    }

    /// Lets the next probe offer a cookie, because a backend that has come up may be a different server.
    pub fn resume(&self) {
        self.lock().paused_until = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LearnedCookie {
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

/// True if the workers must be notified by the epoch of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct HasChanged(pub bool);

/// The urgency of a new server cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// The previous cookie is still valid.
    CanWait,
    /// The previous cookie was refused.
    AtOnce,
}

/// Some servers send a new cookie each second, and each change must reach all workers. No server lets one
/// expire that soon (RFC 9018 section 4.3: after an hour, and renewed after half of that).
pub(crate) const RENEWAL: Duration = Duration::from_secs(10);

/// The example of RFC 9018 section 3.
const PAUSE: Duration = Duration::from_secs(300);

/// Far less than the year of RFC 9018 section 3, because a new cookie costs nothing.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// One datagram may be lost. A middlebox may drop all messages with OPT, which costs the probe some time.
const MAX_UNHEARD: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const OURS: ClientCookie = *b"CLIENT01";

    fn offer(cookies: &BackendCookies, now: Instant) -> Option<CookieOffer> {
        cookies.offer(LOCAL, OURS, now).0
    }

    fn option(offer: &CookieOffer, server: &'static [u8]) -> CookieOption<'static> {
        CookieOption { client: offer.pair.client(), server }
    }

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
        // RFC 9018 section 3: it never gets the same again.
        let (again, _) = cookies.offer(LOCAL, *b"ANOTHER1", start + PAUSE);
        assert_eq!(again.map(|offer| offer.pair), Some(CookiePair::new(*b"ANOTHER1")));
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
        // A probe that offers the cookies of queries renews them as queries do.
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
        // A reply without a cookie proves nothing.
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
