//! Limits on what one client, or what seems to be one, may take: what it holds at a time ([`Clients`]), and how many responses
//! it gets a second ([`ResponseRate`]); and what shows that a client is no other than it seems ([`Cookies`]).

mod clients;
mod cookies;
mod rate;

pub use clients::{Clients, Connected, Holding, Place};
pub use cookies::{CookieSecret, CookieSecrets, Cookies, LIFETIME as COOKIE_LIFETIME, UnfitSecrets};
pub use rate::{Decision, Outcome, RateRules, ResponseRate};
