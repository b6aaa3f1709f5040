//! Subjects by turns under one load after the other, and what each cost.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::account::{core_busy, run_time};
use crate::common::client::{Plan, SOCKETS, Seen};
use crate::common::message::{Expect, Lengths};
use crate::common::process::{Cores, Process};
use crate::gun;
use crate::veth::{Placement, SERVER, Veth, kernel_threads};

/// How it is measured.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    /// Where echo and client run.
    pub(crate) cores: Cores,
    /// Seconds of each load.
    pub(crate) secs: f64,
    /// How long names are.
    pub(crate) lengths: Lengths,
}

/// An echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// By a UDP socket, each datagram by itself: what all others are compared with.
    Socket,
    /// The same with GRO and GSO.
    CoupledSocket,
    /// By XDP in the driver.
    Native,
    /// By XDP behind the driver.
    Generic,
}

/// All of them, in the order of the report.
pub(crate) const SUBJECTS: [Subject; 4] = [Subject::Socket, Subject::CoupledSocket, Subject::Native, Subject::Generic];

/// Both placements.
pub(crate) const PLACEMENTS: [Placement; 2] = [Placement::Sender, Placement::Receiver];

/// Queries a second of open loops, as shares of what the socket echo does in a closed one.
pub(crate) const SHARES: [f64; 3] = [0.2, 0.6, 1.0];

/// One round.
pub(crate) struct Round {
    /// How busy both cores were at most while nothing was sent, which is looked at before each subject.
    pub(crate) noise: [f64; 2],
    /// By [`PLACEMENTS`] and [`SUBJECTS`].
    pub(crate) placements: Vec<Vec<Loads>>,
}

/// What one subject did in one round.
pub(crate) struct Loads {
    /// As fast as it can.
    pub(crate) closed: Sample,
    /// By [`SHARES`].
    pub(crate) open: Vec<Sample>,
    /// The same from kxdpgun, if that is there.
    pub(crate) gun: Vec<Sample>,
}

/// One load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Replies a second.
    pub(crate) rate: f64,
    /// CPU time of the echo's core for a million replies, in seconds.
    pub(crate) server_cpu: f64,
    /// That of its process, and of the thread there to which the kernel leaves interrupts. Where the sender pays for what arrives
    /// this is all that an echo costs, and other work on the machine is not in it.
    pub(crate) process_cpu: f64,
    /// That of both cores.
    pub(crate) both_cpu: f64,
    /// How busy the client's core was.
    pub(crate) client_busy: f64,
    /// The share of queries without a reply.
    pub(crate) lost: f64,
    /// Median of the time to a reply, in microseconds; none from kxdpgun.
    pub(crate) p50: f64,
}

/// How often kxdpgun is started again, and after how long.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);
/// Seconds of load before anything is measured.
const WARM_UP: f64 = 0.3;
/// Silence after which a query is lost, in seconds.
const TIMEOUT: f64 = 0.3;
/// How long it is looked whether the machine is quiet.
const QUIET: Duration = Duration::from_millis(500);

impl Setting {
    /// Runs all rounds.
    pub(crate) fn measure(self, rounds: u32) -> io::Result<Vec<Round>> {
        let mut rates: [Option<f64>; PLACEMENTS.len()] = [None; PLACEMENTS.len()];
        (0..rounds)
            .map(|round| {
                let mut noise = [0.0, 0.0];
                let mut placements = Vec::new();
                for (placement, rate) in PLACEMENTS.into_iter().zip(&mut rates) {
                    let mut done = Vec::new();
                    // Each round begins with another subject; the first of all is the socket, which says how fast open loops are.
                    for turn in 0..SUBJECTS.len() {
                        let place = (round as usize + turn) % SUBJECTS.len();
                        let [server, client] = self.noise()?;
                        noise = [server.max(noise[0]), client.max(noise[1])];
                        let loads = self.load(SUBJECTS[place], placement, rate)?;
                        let (cpu, fast) = (loads.closed.process_cpu, loads.closed.rate);
                        eprintln!(
                            "round {}: {placement:?}, {:?}: {cpu:.2} s per million, {fast:.0} replies/s",
                            round + 1,
                            SUBJECTS[place]
                        );
                        done.push((place, loads));
                    }
                    done.sort_by_key(|(place, _)| *place);
                    placements.push(done.into_iter().map(|(_, loads)| loads).collect());
                }
                Ok(Round { noise, placements })
            })
            .collect()
    }

    /// How busy both cores are with nothing of ours.
    fn noise(self) -> io::Result<[f64; 2]> {
        let before = Spent::now(self.cores, &[])?;
        thread::sleep(QUIET);
        let spent = Spent::now(self.cores, &[])?.since(&before);
        Ok([spent.server / spent.secs, spent.client / spent.secs])
    }

    /// Puts one subject under all loads, on a pair of its own.
    fn load(self, subject: Subject, placement: Placement, rate: &mut Option<f64>) -> io::Result<Loads> {
        let veth = Veth::make()?;
        veth.place(placement, self.cores)?;
        if subject == Subject::CoupledSocket {
            veth.server.set_gro(true);
        }
        let echo = subject.start(&veth, self.cores.server)?;
        let softirq = kernel_threads(&format!("ksoftirqd/{}", self.cores.server))?;
        let softirq = softirq.first().map(|thread| thread.as_raw_nonzero().get().unsigned_abs());
        let threads: Vec<u32> = softirq.into_iter().chain([echo.child.id()]).collect();
        if subject == Subject::Native && placement == Placement::Receiver {
            veth.place_thread(self.cores.server)?;
        }
        self.plan(None, WARM_UP).start_under(&veth.client.inside(), Some(self.cores.rest))?.finish()?;
        let closed = self.run(&veth, &threads, None, self.secs)?;
        let rate = *rate.get_or_insert(closed.rate);
        let open = SHARES.map(|share| self.run(&veth, &threads, Some(rate * share), self.secs));
        let open = open.into_iter().collect::<io::Result<_>>()?;
        let mut gun = Vec::new();
        // The gun has a program of its own on its device, and there the steering of the client's end has no place.
        if placement == Placement::Sender && gun::is_there() {
            for share in SHARES {
                gun.push(self.fire(&veth, &threads, rate * share)?);
            }
        }
        Ok(Loads { closed, open, gun })
    }

    /// One load of our client.
    fn run(self, veth: &Veth, threads: &[u32], rate: Option<f64>, secs: f64) -> io::Result<Sample> {
        let client = self.plan(rate, secs).start_under(&veth.client.inside(), Some(self.cores.rest))?;
        self.account(threads, || client.finish())
    }

    /// What our client is told to do: at a rate, or in a closed loop.
    fn plan(self, rate: Option<f64>, secs: f64) -> Plan {
        Plan {
            server: SERVER,
            expect: Expect::Echo,
            secs,
            rate,
            burst: 1,
            first: 0,
            names: 0,
            lengths: self.lengths,
            edns: false,
            timeout: TIMEOUT,
            sockets: SOCKETS,
            slots: false,
        }
    }

    /// One load of kxdpgun. The socket of the run before may still be there: the kernel takes it away when it has time.
    fn fire(self, veth: &Veth, threads: &[u32], rate: f64) -> io::Result<Sample> {
        let mut tries = 0;
        loop {
            match self.account(threads, || gun::fire(&veth.client, rate, self.secs, self.cores.rest)) {
                Err(error) if tries < TRIES && error.to_string().contains("busy") => {
                    tries += 1;
                    thread::sleep(PAUSE);
                }
                done => return done,
            }
        }
    }

    /// Counts what both cores, and these threads, did until the end of a load that has begun.
    fn account(self, threads: &[u32], finish: impl FnOnce() -> io::Result<Seen>) -> io::Result<Sample> {
        let before = Spent::now(self.cores, threads)?;
        let seen = finish()?;
        let spent = Spent::now(self.cores, threads)?.since(&before);
        if seen.answered == 0 {
            return Err(io::Error::other("no query was answered"));
        }
        let million = seen.answered as f64 / 1e6;
        Ok(Sample {
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

impl Subject {
    /// Starts it, and returns when it listens.
    fn start(self, veth: &Veth, core: usize) -> io::Result<Process> {
        let (device, port) = (veth.server.device, SERVER.port());
        let mode = |mode| format!("xdp-echo --device {device} --port {port} --mode {mode}");
        let arguments = match self {
            Self::Socket => format!("socket-echo --address {SERVER}"),
            Self::CoupledSocket => format!("socket-echo --address {SERVER} --coupled"),
            Self::Native => mode("native"),
            Self::Generic => mode("generic"),
        };
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        let (echo, line) = Process::role_under(&veth.server.inside(), &arguments, Some(core))?;
        if line.is_empty() {
            return Err(io::Error::other(format!("{arguments:?} has ended")));
        }
        Ok(echo)
    }

    /// Its name in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::CoupledSocket => "socket, GRO and GSO",
            Self::Native => "XDP, native",
            Self::Generic => "XDP, generic",
        }
    }

    /// Whether it is by XDP.
    pub(crate) fn is_xdp(self) -> bool {
        match self {
            Self::Socket | Self::CoupledSocket => false,
            Self::Native | Self::Generic => true,
        }
    }
}

/// How long cores have been busy and threads have run by a time, or since another; in seconds.
struct Spent {
    at: Instant,
    secs: f64,
    server: f64,
    client: f64,
    process: f64,
}

impl Spent {
    /// Since the system started.
    fn now(cores: Cores, threads: &[u32]) -> io::Result<Self> {
        let [server, client] = [core_busy(cores.server)?, core_busy(cores.rest)?].map(|busy| busy.as_secs_f64());
        let process = threads.iter().map(|&thread| run_time(thread)).sum::<io::Result<Duration>>()?.as_secs_f64();
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
