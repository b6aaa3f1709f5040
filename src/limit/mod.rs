//! Limits on what one client, or what seems to be one, may have: whether it is answered at all ([`Access`]), what it holds at a
//! time ([`Clients`]), what it may use that comes by TCP ([`ConnectionRules`], [`Patience`], [`HandshakeRates`]), how many responses it gets a second
//! ([`ResponseRate`]) and how much at once ([`Pacing`]), of places that all use ([`DynamicThreshold`]), and of turns ([`FairQueue`]);
//! and what shows that a client is no other than it seems ([`Cookies`]).

mod access;
mod clients;
mod connections;
mod cookies;
mod fair_queue;
mod handshakes;
mod own_addresses;
mod pacing;
mod prefix;
mod rate;
mod rate_table;
mod threshold;
mod timeouts;

pub use access::{Access, AccessRules, OnDenied, RefusedSources};
pub use clients::{Clients, Connected, Holding, Place, TooMuch, WaitRules};
pub use connections::{ConnectionRules, ConnectionUse, MIN_IDLE, Pressure, make_room};
pub use cookies::{CookieSecret, CookieSecrets, Cookies, LIFETIME as COOKIE_LIFETIME, UnfitSecrets};
pub use fair_queue::FairQueue;
pub use handshakes::HandshakeRates;
pub use own_addresses::OwnAddresses;
pub use pacing::{Pace, Pacing};
pub use prefix::{Prefix, PrefixError};
pub use rate::{Decision, RateRules, ResponseRate};
pub use threshold::DynamicThreshold;
pub use timeouts::{Doing, Patience};
