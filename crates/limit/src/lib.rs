//! What one client may use: access ([`Access`]), present use ([`Clients`], [`ZoneWaits`]), TCP connections
//! ([`ConnectionRules`], [`ConnectionClock`], [`HandshakeRates`]), response rate ([`ResponseRate`]) and
//! bursts ([`Pacing`]), shared places ([`DynamicThreshold`]), turns ([`FairQueue`]); and the proof of a
//! client's address ([`Cookies`]).
//!
//! This crate owns the decisions and the tables of clients, which have a fixed size. It never drops or
//! answers a query itself, and never reads a clock or a socket.

#![forbid(unsafe_code)]

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
mod sets;
mod sync {
    //! The atomics of tables. The models in `loom/` have those of loom in their place.

    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use zerocopy::FromZeros;

    /// Returns a table of zeros. The system provides its pages as they are touched.
    pub fn zeroed<T: FromZeros + Default>(len: usize) -> Box<[T]> {
        // Without memory, the second attempt ends the process.
        T::new_vec_zeroed(len).unwrap_or_else(|_| (0..len).map(|_| T::default()).collect()).into()
    }
}
mod threshold;
mod timeouts;
mod zones;

pub use access::{Access, AccessRules, OnDenied, RefusedSources};
pub use clients::{ClientConnection, ClientPlace, Clients, Holding, TooMuch, WaitRules};
pub use connections::{ConnectionRules, ConnectionUse, MIN_IDLE, TableFullness, make_room};
pub use cookies::{CookieSecret, CookieSecrets, Cookies, LIFETIME as COOKIE_LIFETIME, UnfitSecrets};
pub use fair_queue::FairQueue;
pub use handshakes::HandshakeRates;
pub use own_addresses::OwnAddresses;
pub use pacing::{Pace, Pacing};
pub use prefix::{Prefix, PrefixError};
pub use rate::{Decision, RateRules, ResponseRate};
pub use sync::zeroed;
pub use threshold::DynamicThreshold;
pub use timeouts::{ConnectionClock, Doing};
pub use zones::{ZonePlaces, ZoneWaits};
