//! Limits on what one client, or what seems to be one, may have: whether it is answered at all ([`Access`]), what it holds at a
//! time ([`Clients`]), what it may use that comes by TCP ([`ConnectionRules`], [`Patience`]), how many responses it gets a second
//! ([`ResponseRate`]) and how much at once ([`Pacing`]), of places that all use ([`DynamicThreshold`]), and of turns ([`Turns`]);
//! and what shows that a client is no other than it seems ([`Cookies`]).

mod access;
mod accounts;
mod clients;
mod connections;
mod cookies;
mod own;
mod pacing;
mod patience;
mod prefix;
mod rate;
mod threshold;
mod turns;

pub use access::{Access, AccessRules, OnDenied};
pub use clients::{Clients, Connected, Holding, Place, TooMuch, WaitRules};
pub use connections::{ConnectionRules, ConnectionUse, MIN_IDLE, Pressure, make_room};
pub use cookies::{CookieSecret, CookieSecrets, Cookies, LIFETIME as COOKIE_LIFETIME, UnfitSecrets};
pub use own::OwnAddresses;
pub use pacing::{Pace, Pacing};
pub use patience::{Doing, Patience};
pub use prefix::{Prefix, PrefixError};
pub use rate::{Decision, RateRules, ResponseRate};
pub use threshold::DynamicThreshold;
pub use turns::Turns;
