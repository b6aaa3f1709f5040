//! What the benchmarks over sockets share: the messages, the client that sends them and the backend that holds replies
//! back, the processes of a run and what they use, the config of the forwarder under load, what is encrypted and by whom, veth pairs with what cores
//! do for what goes over them, another client and a bare echo there, and how figures of several rounds are put together.

#![allow(dead_code)] // No benchmark uses all of it.

pub(crate) mod account;
pub(crate) mod client;
pub(crate) mod encrypted;
pub(crate) mod forwarder;
pub(crate) mod gun;
pub(crate) mod message;
pub(crate) mod process;
pub(crate) mod responder;
pub(crate) mod sample;
pub(crate) mod spread;
pub(crate) mod veth;
pub(crate) mod xdp_echo;

/// A number that a time or rate can be.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|&number: &f64| number > 0.0 && number < 1e6);
    number.ok_or_else(|| "expected a number above 0 and below a million".to_owned())
}
