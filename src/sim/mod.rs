//! Scenarios on a fake clock: the server's own engine among modelled backends, for `hedgerow simulate` and for the tests.
//!
//! [`play`] drives the [`Engine`](crate::engine::Engine) that the forwarder drives: races, balance, hedge budget, suspicion,
//! charging of losers, joining, `sticky`, the cache, quarantine of IDs and reloads are the server's. In place of sockets there is
//! `network`, in place of the prober's sockets `prober`. Messages are real: what the engine sends is read, and what backends
//! reply is written. Nothing is kept of a query that is over: [`Tally`] adds up what happens, so that a million queries are a
//! matter of seconds; [`run`] writes it down for tests that look at each. No socket, no thread, and no time of its own: a scenario and a seed make the same report each
//! time.
//!
//! What is not modelled: the time that hedgerow itself and its sockets take (some 0.2 ms: it is for the scenario to put that
//! into the delay of a backend), the network apart from a backend's delay and loss, TCP and TLS but for what
//! [`Connections`] says, forgers, and more than one worker.

mod backend;
mod connections;
mod delay;
mod event;
mod histogram;
mod links;
mod message;
mod model;
mod names;
mod network;
mod prober;
mod record;
mod script;
mod spells;
mod tally;
mod world;

pub use delay::{Delay, Empirical};
pub use event::Happening;
pub use model::{Capacity, Connections, Model, PoolModel, Scenario};
pub use names::Names;
pub use record::{Asked, Record, Reply, Report, run};
pub use script::{Led, Move, lead};
pub use spells::{Course, When};
pub use tally::Tally;
pub use world::play;
