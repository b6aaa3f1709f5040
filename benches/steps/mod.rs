//! The steps of one query in the small, each what a worker does once, without sockets and clock: `hot_path`
//! times them, `instructions` counts what they execute.
//!
//! A step is set up once and then run as often as one likes. What differs from run to run (names, latencies,
//! turns) goes round in a fixed order, and seeds are fixed too, so that two processes do exactly the same.

mod answers;
mod cached;
mod joins;
mod master;
mod message;
mod policy;
mod rules;
mod wire;

use dns::Rcode;
use hedge::Dispatch;
use hedge::balance::Balance;

pub(crate) struct Step {
    /// The name in reports.
    pub(crate) name: &'static str,
    /// Makes what it needs; what is returned runs it once.
    pub(crate) set_up: fn() -> Box<dyn FnMut()>,
}

/// All of them, in the order of a query's path.
pub(crate) const STEPS: &[Step] = &[
    Step { name: "wire/read_query", set_up: || Box::new(wire::read_query()) },
    Step { name: "wire/fold_question", set_up: || Box::new(wire::fold_question()) },
    Step { name: "wire/write_query", set_up: || Box::new(wire::write_query()) },
    Step { name: "wire/read_reply", set_up: || Box::new(wire::read_reply()) },
    Step { name: "wire/write_response", set_up: || Box::new(wire::write_response()) },
    Step { name: "rules/first_match", set_up: || Box::new(rules::first_match()) },
    Step { name: "rules/names_file", set_up: || Box::new(rules::names_file()) },
    Step { name: "join/met", set_up: || Box::new(joins::look_up("HOST7.example.org.", true)) },
    Step { name: "join/missed", set_up: || Box::new(joins::look_up("nobody.example.org.", false)) },
    Step { name: "cache/hit", set_up: || Box::new(cached::hits(10_000, 8 << 20)) },
    Step { name: "cache/keep", set_up: || Box::new(cached::keeps()) },
    Step { name: "candidates/round_robin", set_up: || Box::new(policy::candidates(Balance::RoundRobin, 1)) },
    Step { name: "candidates/least_load", set_up: || Box::new(policy::candidates(Balance::LeastLoad, 1)) },
    Step { name: "candidates/least_load_shared", set_up: || Box::new(policy::candidates(Balance::LeastLoad, 16)) },
    Step { name: "load/attempt", set_up: || Box::new(policy::load_attempt(1)) },
    Step { name: "load/attempt_shared", set_up: || Box::new(policy::load_attempt(16)) },
    Step { name: "race/sequential", set_up: || Box::new(policy::race(Dispatch::Sequential)) },
    Step { name: "race/hedge", set_up: || Box::new(policy::race(Dispatch::Hedge)) },
    Step { name: "race/hedge_made", set_up: || Box::new(policy::race_with_hedge()) },
    Step { name: "race/race", set_up: || Box::new(policy::race(Dispatch::Race)) },
    Step { name: "latency/record", set_up: || Box::new(policy::latency_record()) },
    Step { name: "latency/record_shared", set_up: || Box::new(policy::latency_record_shared()) },
    Step { name: "latency/hedge_delay", set_up: || Box::new(policy::latency_hedge_delay()) },
    Step { name: "latency/hedge_delay_shared", set_up: || Box::new(policy::latency_hedge_delay_shared()) },
    Step { name: "budget/earn", set_up: || Box::new(policy::budget_earn()) },
    Step { name: "budget/take_and_earn", set_up: || Box::new(policy::budget_take_and_earn()) },
    Step { name: "table/hit", set_up: || Box::new(answers::table("Host77.example.org.", Rcode::NOERROR)) },
    Step { name: "table/miss", set_up: || Box::new(answers::table("nobody.example.org.", Rcode::NXDOMAIN)) },
    Step { name: "zone/hit", set_up: || Box::new(answers::zone("Host77.example.org.", Rcode::NOERROR, 1)) },
    Step { name: "zone/referral", set_up: || Box::new(answers::zone("www.child.example.org.", Rcode::NOERROR, 0)) },
    Step { name: "zone/wildcard", set_up: || Box::new(answers::zone("any.wild.example.org.", Rcode::NOERROR, 1)) },
    Step { name: "zone/nxdomain", set_up: || Box::new(answers::zone("nobody.example.org.", Rcode::NXDOMAIN, 0)) },
];
