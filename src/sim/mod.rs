//! Races on a fake clock, among modelled backends: for `hedgerow simulate` and for the tests.
//!
//! [`play`] drives the very values that the forwarder drives, [`Race`](crate::policy::race::Race),
//! [`Balancer`](crate::policy::balance::Balancer), [`Latency`](crate::policy::latency::Latency),
//! [`Load`](crate::policy::backend_load::Load), [`Budget`](crate::policy::budget::Budget) and
//! [`Health`](crate::policy::health::Health), through a [`Scenario`] and tells what happens. It keeps nothing of a query
//! that is over: [`Tally`] adds up what it tells, so that a million queries are a matter of seconds; [`run`] writes it
//! down for tests that look at each query. No socket, no thread, and no time of its own: a scenario and a seed make the same
//! report each time.
//!
//! What is not modelled: the time that hedgerow itself and its sockets take (some 0.2 ms: it is for the scenario to put that
//! into the delay of a backend), the network apart from a backend's delay and loss, names that are asked twice (so there is
//! nothing to join, to cache, or to be sticky about), and more than one worker.

mod backend;
mod delay;
mod event;
mod histogram;
mod model;
mod pool;
mod prober;
mod record;
mod slab;
mod spells;
mod tally;
mod world;

pub use delay::{Delay, Empirical};
pub use event::Happening;
pub use model::{Capacity, Model, Scenario};
pub use record::{Asked, Record, Reply, Report, run};
pub use spells::{Course, When};
pub use tally::Tally;
pub use world::play;
