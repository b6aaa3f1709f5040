//! Limits on what one client, or what seems to be one, may have: whether it is answered at all ([`Access`]), what it holds at a
//! time ([`Clients`]), how many responses it gets a second ([`ResponseRate`]), and how much at once ([`Pacing`]); of places that
//! all use ([`DynamicThreshold`]), and of turns ([`Turns`]).

mod access;
mod accounts;
mod clients;
mod own;
mod pacing;
mod prefix;
mod rate;
mod threshold;
mod turns;

pub use access::{Access, AccessRules, OnDenied};
pub use clients::{Clients, Connected, Holding, Place, TooMuch, WaitRules};
pub use own::OwnAddresses;
pub use pacing::{Pace, Pacing};
pub use prefix::{Prefix, PrefixError};
pub use rate::{Decision, Outcome, RateRules, ResponseRate};
pub use threshold::DynamicThreshold;
pub use turns::Turns;
