//! The second after a start, after a flush of the cache, and after a reload of a large zone. Each is compared
//! with the second before it, or after a start with the following one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;

use crate::admin::{self, Admin};
use crate::common::client::{Plan, Running, SOCKETS};
use crate::common::forwarder;
use crate::common::message::{Expect, Lengths};
use crate::common::process::{Cores, Server};
use crate::launch::Knocker;
use crate::subject;

/// The p99 latency of seconds, in microseconds: the medians of [`TIMES`] each.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Seconds {
    pub(crate) steady: f64,
    /// With the event at its begin.
    pub(crate) first: f64,
}

/// The results of one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct FirstSeconds {
    /// A forwarder that has just answered its first query.
    pub(crate) start: Seconds,
    /// A forwarder whose cache becomes empty.
    pub(crate) flush: Seconds,
    /// An authority that reads a changed zone of [`HOSTS`] names, on the core of its worker.
    pub(crate) reload: Seconds,
}

const RATE: f64 = 5_000.0;
/// How often each event comes in a round.
const TIMES: u32 = 5;
/// Names in the cache.
const HOT_NAMES: u32 = 5_000;
/// Hosts of the zone.
const HOSTS: u32 = 1_000_000;
/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);

impl FirstSeconds {
    pub(crate) fn measure(cores: Option<Cores>, folder: &Path) -> io::Result<Self> {
        let start = Seconds::of(|number| {
            let forwarder = Loaded::forwarder(0, "", cores, folder)?;
            let first = forwarder.second(number, || Ok(()))?;
            Ok((forwarder.second(number + TIMES, || Ok(()))?, first))
        })?;
        let admin = Admin { address: admin::free_address()?, socket: folder.join("admin.socket") };
        let cached = Loaded::forwarder(HOT_NAMES, &format!("[cache]\n{}", admin.config()), cores, folder)?;
        cached.second(0, || Ok(()))?;
        let flush = Seconds::of(|_| {
            let steady = cached.second(0, || Ok(()))?;
            Ok((steady, cached.second(0, || admin.change("DELETE", "/api/v1/cache", ""))?))
        })?;
        drop(cached);
        let (authority, zone) = Loaded::authority(cores, folder)?;
        let reload = Seconds::of(|number| {
            let steady = authority.second(0, || Ok(()))?;
            writeln!(File::options().append(true).open(&zone)?, "more{number} A 127.0.0.1")?;
            Ok((steady, authority.second(0, || authority.server.signal(Signal::HUP))?))
        })?;
        fs::remove_file(zone)?;
        Ok(Self { start, flush, reload })
    }
}

impl Seconds {
    fn of(measure: impl FnMut(u32) -> io::Result<(f64, f64)>) -> io::Result<Self> {
        let (steady, first): (Vec<_>, Vec<_>) = (0..TIMES).map(measure).collect::<io::Result<_>>()?;
        let median = |mut seconds: Vec<f64>| {
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        };
        Ok(Self { steady: median(steady), first: median(first) })
    }
}

/// A server, and what it is asked for.
struct Loaded {
    server: Server,
    /// The backends, which end with the server.
    _backends: Vec<Server>,
    names: u32,
    cores: Option<Cores>,
}

impl Loaded {
    fn forwarder(names: u32, rules: &str, cores: Option<Cores>, folder: &Path) -> io::Result<Self> {
        let (ttl, rest) = (if names > 0 { 86_400 } else { 0 }, cores.map(|cores| cores.rest));
        let backends = [subject::responder(ttl, rest)?, subject::responder(ttl, rest)?];
        let knocker = Knocker::new(names, Lengths::Mixed)?;
        let addresses = backends.each_ref().map(|backend| backend.address);
        let config = forwarder::config(1, knocker.address, &addresses, &format!("dispatch = \"sequential\"\n{rules}"));
        let launch = subject::launch_hedgerow(&config, folder)?;
        let (server, _) = knocker.start(&launch, folder, cores.map(|cores| cores.server), START_TIMEOUT)?;
        Ok(Self { server, _backends: backends.into(), names, cores })
    }

    /// Also returns the path of the zone file.
    fn authority(cores: Option<Cores>, folder: &Path) -> io::Result<(Self, std::path::PathBuf)> {
        let zone = subject::written(folder, "first-second.zone", || subject::zone(HOSTS, Lengths::Mixed))?;
        let knocker = Knocker::new(HOSTS, Lengths::Mixed)?;
        let source = format!("{{ file = {zone:?}, origin = \"bench.test\" }}");
        let launch = subject::launch_hedgerow(&subject::authority(knocker.address, &source), folder)?;
        let (server, _) = knocker.start(&launch, folder, cores.map(|cores| cores.server), START_TIMEOUT)?;
        Ok((Self { server, _backends: Vec::new(), names: HOSTS, cores }, zone))
    }

    /// Loads the server for a second that begins with an event, and returns the p99 latency. Seconds of other
    /// numbers ask for other names, if names do not come again.
    fn second(&self, number: u32, event: impl FnOnce() -> io::Result<()>) -> io::Result<f64> {
        let plan = Plan {
            server: self.server.address,
            expect: Expect::Answer,
            secs: 1.0,
            rate: Some(RATE),
            burst: 1,
            first: number * RATE as u32,
            names: self.names,
            lengths: Lengths::Mixed,
            edns: false,
            timeout: 1.0,
            sockets: SOCKETS,
            slots: false,
        };
        let client = plan.start(self.cores.map(|cores| cores.rest))?;
        event()?;
        Running::finish(client).map(|seen| seen.p99)
    }
}
