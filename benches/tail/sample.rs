//! One run: one policy, one fault, one round. Everything is started afresh and ended behind it.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Serialize;

use crate::common::client::{Plan, SLOT, SOCKETS, Seen};
use crate::common::encrypted::{self, Way};
use crate::common::message::{Expect, Lengths};
use crate::common::process::{Cores, Server};
use crate::common::responder::{Responder, slot_now};
use crate::fault::{Event, Fault, victim};
use crate::policy::{Policy, TIMEOUT};
use crate::relay::{self, Order};

/// How long and how fast the server is asked.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Strength {
    /// Seconds of a run.
    pub(crate) secs: f64,
    pub(crate) rate: f64,
    pub(crate) workers: u32,
}

/// The results of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) fault: Fault,
    /// The policy under test.
    pub(crate) policy: Policy,
    /// The protocol towards the backends.
    pub(crate) way: Way,
    /// The round, from 0.
    pub(crate) round: usize,
    /// The results of the client. Times are in microseconds.
    pub(crate) seen: Seen,
    /// Queries to backends for each query of the client.
    pub(crate) traffic: f64,
    /// The p99 of the worst second; `None` if the run is shorter than that.
    pub(crate) worst_second: Option<f64>,
    /// How p99 settled in the middle third; `None` if the run is too short.
    pub(crate) slow: Option<Settled>,
    /// The settling of p99 in the last third.
    pub(crate) fast: Option<Settled>,
    /// CPU time of the server for a million queries, in seconds.
    pub(crate) cpu_per_million: f64,
    /// How long after they were due replies left at most of both backends, the 99.9th percentile, in
    /// microseconds.
    pub(crate) lateness: f64,
}

/// The settling of p99 at a value.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Settled {
    /// The value, in microseconds: the median over the slots of the later half.
    pub(crate) p99: f64,
    /// Seconds until it was near that for [`SETTLED_SLOTS`] in a row; `None` if it never was.
    pub(crate) after: Option<f64>,
}

/// Slots of a second.
const SLOTS_PER_SECOND: usize = (Duration::from_secs(1).as_nanos() / SLOT.as_nanos()) as usize;
/// Slots in a row in which p99 has to be near its end value.
const SETTLED_SLOTS: usize = 5;
/// How near: at most so many times that value, or its inverse.
const SETTLED_WITHIN: f64 = 1.5;

/// Runs a policy against a fault of backends that are reached so.
pub(crate) fn run(
    (policy, fault, way, round): (Policy, Fault, Way, usize),
    asked_for: Strength,
    cores: Option<Cores>,
    folder: &Path,
) -> io::Result<Sample> {
    let (core, rest) = (cores.map(|cores| cores.server), cores.map(|cores| cores.rest));
    let behaviors = fault.behaviors(round);
    let mut responders = Vec::new();
    for behavior in &behaviors {
        responders.push(Responder::start(behavior, rest)?);
    }
    let mut addresses: Vec<_> = responders.iter().map(Responder::address).collect();
    let mut fronts = Vec::new();
    let mut relays = Vec::new();
    if way != Way::Bare {
        for address in &mut addresses {
            let front = encrypted::front(way, *address, folder, rest)?;
            *address = front.address;
            fronts.push(front);
        }
    }
    if let Event::OnTheWay(_) = fault.event() {
        for address in &mut addresses {
            let relay = relay::start(*address, way, rest)?;
            *address = relay.address;
            relays.push(relay);
        }
    }
    let config = folder.join("config.toml");
    let backends: Vec<_> = addresses.iter().map(|&address| way.backend(address, folder)).collect();
    fs::write(&config, policy.config(asked_for.workers, &backends))?;
    let server = Server::hedgerow(&config, "forwarder", core)?;

    let Strength { secs, rate, .. } = fault.strength(asked_for);
    let plan = Plan {
        server: server.address,
        expect: Expect::Answer,
        secs,
        rate: Some(rate),
        burst: 1,
        first: 0,
        names: 0,
        lengths: Lengths::Mixed,
        edns: false,
        timeout: f64::from(TIMEOUT),
        sockets: SOCKETS * asked_for.workers as usize,
        slots: true,
    };
    let cpu_before = server.cpu_time()?;
    let client = plan.start(rest)?;
    let (begin, first_slot) = (Instant::now(), slot_now() + 1);
    let part = |share: f64| sleep_until(begin + Duration::from_secs_f64(secs * share));
    let third = |number: f64| part(number / 3.0);
    let normal = Duration::from_micros(behaviors[0].delay);
    // The backend that the policy prefers, if it prefers one.
    let place = if policy == Policy::First { 0 } else { victim(round) };
    match fault.event() {
        Event::None => {}
        Event::Stop => {
            third(1.0);
            match fronts.get(place) {
                Some(front) => front.signal(Signal::STOP)?,
                None => responders[place].signal(Signal::STOP)?,
            }
        }
        Event::Kill => {
            third(1.0);
            // The counts at the moment of its end: it never saw later queries.
            responders[place].counts()?;
            match fronts.get(place) {
                Some(front) => front.signal(Signal::KILL)?,
                None => responders[place].signal(Signal::KILL)?,
            }
        }
        Event::OnTheWay(order) => {
            part(3.0 / 8.0);
            relay::order(&mut relays[place], order)?;
            if let Order::Stall(_) = order {
                part(5.0 / 8.0);
                relay::order(&mut relays[1 - place], order)?;
            }
        }
        Event::Shift(delay) => {
            third(1.0);
            responders.iter_mut().try_for_each(|responder| responder.set_delay(delay))?;
            third(2.0);
            responders.iter_mut().try_for_each(|responder| responder.set_delay(normal))?;
        }
    }
    let seen = client.finish()?;
    let cpu = (server.cpu_time()? - cpu_before).total();
    drop(server);

    let is_befallen = |event, other| fronts.is_empty() && fault.event() == event && other == place;
    for (other, responder) in responders.iter_mut().enumerate().filter(|&(other, _)| !is_befallen(Event::Kill, other)) {
        if is_befallen(Event::Stop, other) {
            responder.signal(Signal::CONT)?;
        }
        responder.counts()?;
    }
    let counts = || responders.iter().map(Responder::last_counts);
    let last_slot = first_slot + (secs / SLOT.as_secs_f64()) as u64 - 1;
    let by_slot: Vec<u64> =
        (first_slot..last_slot).map(|slot| counts().filter_map(|counts| counts.slots.get(&slot)).sum()).collect();
    let sent = seen.sent.max(1) as f64;
    Ok(Sample {
        fault,
        policy,
        way,
        round,
        traffic: counts().map(|counts| counts.queries).sum::<u64>() as f64 / sent,
        worst_second: worst_second(&by_slot, rate),
        slow: settled(&seen.slots, 1),
        fast: settled(&seen.slots, 2),
        cpu_per_million: cpu.as_secs_f64() * 1e6 / sent,
        lateness: counts().map(|counts| counts.lateness).fold(0.0, f64::max),
        seen,
    })
}

/// Sleeps until a time.
fn sleep_until(time: Instant) {
    thread::sleep(time.saturating_duration_since(Instant::now()));
}

/// The most traffic over any second within the run, for each query of the client.
fn worst_second(by_slot: &[u64], rate: f64) -> Option<f64> {
    by_slot.windows(SLOTS_PER_SECOND).map(|second| second.iter().sum::<u64>() as f64 / rate).max_by(f64::total_cmp)
}

/// How p99 settled in a third of the run.
fn settled(slots: &[f64], third: usize) -> Option<Settled> {
    let (start, end) = (slots.len() * third / 3, slots.len() * (third + 1) / 3);
    let mut later_half = slots.get(usize::midpoint(start, end)..end)?.to_vec();
    later_half.sort_by(f64::total_cmp);
    let p99 = *later_half.get(later_half.len() / 2)?;
    let is_near = |slot: &f64| *slot <= p99 * SETTLED_WITHIN && *slot >= p99 / SETTLED_WITHIN;
    let first = slots[start..end].windows(SETTLED_SLOTS).position(|slots| slots.iter().all(is_near));
    Some(Settled { p99, after: first.map(|slot| slot as f64 * SLOT.as_secs_f64()) })
}
