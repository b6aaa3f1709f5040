//! Modules shared by the benchmarks over sockets: messages, the client and the delaying backend, processes of
//! a run and their usage, configs of the forwarder, encryption, veth pairs and the use of cores there,
//! another client and a bare echo, and the summary of several rounds.

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
