//! Scenarios on a fake clock: the server's engine among modelled backends, for `hedgerow simulate` and tests.
//!
//! [`play`] drives the [`Engine`](crate::Engine) of the forwarder, with real messages. `network`
//! replaces the sockets, `prober` those of the prober. [`Tally`] adds up the events, so that a million
//! queries take seconds. No socket, no thread and no real time, also with several workers: a scenario and a
//! seed always make the same report.
//!
//! Not modelled: the time that hedgerow and its sockets take (some 0.2 ms, which the scenario can add to the
//! delay of a backend), the network apart from delay and loss, TCP and TLS except for [`ModelConnections`],
//! and forgers.

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
mod replay;
mod script;
mod spells;
mod tally;
mod world;

pub use delay::{Delay, Empirical};
pub use event::Happening;
pub use histogram::TimeHistogram;
pub use model::{BackendModel, Capacity, FaultModel, ModelConnections, PoolModel, Scenario, SeatModel, SiteModel};
pub use names::NameDistribution;
pub use replay::ReplayedTrace;
pub use script::{ScriptEvent, ScriptResult, lead};
pub use spells::{Course, When};
pub use tally::Tally;
pub use world::play;
