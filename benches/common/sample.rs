//! What a load over a veth pair costs: the time of whole cores, since the kernel does much of the work in
//! interrupts that no process is charged for.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::account::{core_busy, run_time};
use super::client::Seen;
use super::process::Cores;
use super::veth::kernel_threads;

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// Queries that were sent.
    pub(crate) sent: u64,
    /// Right replies a second.
    pub(crate) rate: f64,
    /// CPU time of the server's core for a million replies, in seconds.
    pub(crate) server_cpu: f64,
    /// The time of the server's process, and of the kernel's interrupt thread on its core. Where the sender
    /// pays for arriving packets this is the whole cost of a server, without other work on the machine.
    pub(crate) process_cpu: f64,
    /// The time of both cores.
    pub(crate) both_cpu: f64,
    /// The busy share of the client's core.
    pub(crate) client_busy: f64,
    /// The share of queries without a right reply.
    pub(crate) lost: f64,
    /// Median of the time to a reply, in microseconds; none from kxdpgun.
    pub(crate) p50: f64,
}

impl Sample {
    /// Counts what both cores, and these processes, do until the end of a load that has begun.
    pub(crate) fn take(cores: Cores, processes: &[u32], finish: impl FnOnce() -> io::Result<Seen>) -> io::Result<Self> {
        let before = Spent::now(cores, processes)?;
        let seen = finish()?;
        let spent = Spent::now(cores, processes)?.since(&before);
        if seen.answered == 0 {
            return Err(io::Error::other("no query was answered"));
        }
        let million = seen.answered as f64 / 1e6;
        Ok(Self {
            sent: seen.sent,
            rate: seen.rate,
            server_cpu: spent.server / million,
            process_cpu: spent.process / million,
            both_cpu: (spent.server + spent.client) / million,
            client_busy: spent.client / spent.secs,
            lost: (seen.lost + seen.wrong) as f64 / seen.sent.max(1) as f64,
            p50: seen.answered_p50,
        })
    }
}

/// A process, and the thread of the kernel to which that leaves interrupts on its core.
pub(crate) fn with_interrupts(process: u32, core: usize) -> io::Result<Vec<u32>> {
    let softirq = kernel_threads(&format!("ksoftirqd/{core}"))?;
    let softirq = softirq.first().map(|thread| thread.as_raw_nonzero().get().unsigned_abs());
    Ok(softirq.into_iter().chain([process]).collect())
}

/// How busy both cores, the server's and the client's, are with nothing of ours.
pub(crate) fn noise(cores: Cores) -> io::Result<[f64; 2]> {
    let before = Spent::now(cores, &[])?;
    thread::sleep(QUIET);
    let spent = Spent::now(cores, &[])?.since(&before);
    Ok([spent.server / spent.secs, spent.client / spent.secs])
}

/// How long it is looked whether the machine is quiet.
const QUIET: Duration = Duration::from_millis(500);

/// How busy a core may be with other things where the figures of cores are to mean something.
pub(crate) const MAX_NOISE: f64 = 0.03;

/// How long cores have been busy and processes have run by a time, or since another; in seconds.
struct Spent {
    at: Instant,
    secs: f64,
    server: f64,
    client: f64,
    process: f64,
}

impl Spent {
    /// Since the system started.
    fn now(cores: Cores, processes: &[u32]) -> io::Result<Self> {
        let [server, client] = [core_busy(cores.server)?, core_busy(cores.rest)?].map(|busy| busy.as_secs_f64());
        let process = processes.iter().map(|&process| run_time(process)).sum::<io::Result<Duration>>()?.as_secs_f64();
        Ok(Self { at: Instant::now(), secs: 0.0, server, client, process })
    }

    /// From an earlier time to this one.
    fn since(&self, earlier: &Self) -> Self {
        Self {
            at: self.at,
            secs: (self.at - earlier.at).as_secs_f64(),
            server: self.server - earlier.server,
            client: self.client - earlier.client,
            process: self.process - earlier.process,
        }
    }
}
