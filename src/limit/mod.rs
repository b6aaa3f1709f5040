//! Limits on what one client, or what seems to be one, may take: what it holds at a time ([`Clients`]), what it may use that
//! comes by TCP ([`ConnectionRules`], [`Patience`]), how many responses it gets a second ([`ResponseRate`]), of places that all
//! use ([`DynamicThreshold`]), and of turns ([`Turns`]); and what shows that a client is no other than it seems ([`Cookies`]).

mod clients;
mod connections;
mod cookies;
mod patience;
mod rate;
mod threshold;
mod turns;

pub use clients::{Clients, Connected, Holding, Place};
pub use connections::{ConnectionRules, LEAST_IDLE, Pressure, Standing, make_room};
pub use cookies::{CookieSecret, CookieSecrets, Cookies, LIFETIME as COOKIE_LIFETIME, UnfitSecrets};
pub use patience::{Doing, Patience};
pub use rate::{Decision, Outcome, RateRules, ResponseRate};
pub use threshold::DynamicThreshold;
pub use turns::Turns;
