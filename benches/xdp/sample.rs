//! Subjects by turns under one load after the other, and what each cost.

use std::io::{self, Write};

use crate::common::client::{Plan, SOCKETS};
use crate::common::message::{Expect, Lengths};
use crate::common::process::{Cores, Process};
use crate::common::sample::{Sample, noise, with_interrupts};
use crate::common::veth::{Placement, SERVER, Veth};
use crate::common::{gun, xdp_echo};

/// The parameters of the measurement.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) cores: Cores,
    /// Seconds of each load.
    pub(crate) secs: f64,
    pub(crate) lengths: Lengths,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// By a UDP socket, each datagram by itself: what all others are compared with.
    Socket,
    /// A socket with GRO and GSO.
    CoupledSocket,
    /// By XDP in the driver.
    Native,
    /// By XDP behind the driver.
    Generic,
}

/// All of them, in the order of the report.
pub(crate) const SUBJECTS: [Subject; 4] = [Subject::Socket, Subject::CoupledSocket, Subject::Native, Subject::Generic];

pub(crate) const PLACEMENTS: [Placement; 2] = [Placement::Sender, Placement::Receiver];

/// Queries a second of open loops, as shares of what the socket echo does in a closed one.
pub(crate) const SHARES: [f64; 3] = [0.2, 0.6, 1.0];

pub(crate) struct Round {
    /// How busy both cores were at most while nothing was sent, which is looked at before each subject.
    pub(crate) noise: [f64; 2],
    /// By [`PLACEMENTS`] and [`SUBJECTS`].
    pub(crate) placements: Vec<Vec<Loads>>,
}

/// The results of one subject in one round.
pub(crate) struct Loads {
    /// As fast as it can.
    pub(crate) closed: Sample,
    pub(crate) open: Vec<Sample>,
    /// The samples of kxdpgun, if that is installed.
    pub(crate) gun: Vec<Sample>,
}

/// Seconds of load before anything is measured.
const WARM_UP: f64 = 0.3;
/// Silence after which a query is lost, in seconds.
const TIMEOUT: f64 = 0.3;
/// Names that kxdpgun asks for.
const GUN_NAMES: u32 = 1000;

impl Setting {
    pub(crate) fn measure(self, rounds: u32) -> io::Result<Vec<Round>> {
        let mut rates: [Option<f64>; PLACEMENTS.len()] = [None; PLACEMENTS.len()];
        (0..rounds)
            .map(|round| {
                let mut busiest = [0.0, 0.0];
                let mut placements = Vec::new();
                for (placement, rate) in PLACEMENTS.into_iter().zip(&mut rates) {
                    let mut done = Vec::new();
                    // Each round begins with another subject; the first of all is the socket, which says how
                    // fast open loops are.
                    for turn in 0..SUBJECTS.len() {
                        let place = (round as usize + turn) % SUBJECTS.len();
                        let [server, client] = noise(self.cores)?;
                        busiest = [server.max(busiest[0]), client.max(busiest[1])];
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
                Ok(Round { noise: busiest, placements })
            })
            .collect()
    }

    /// Puts one subject under all loads, on a new pair.
    fn load(self, subject: Subject, placement: Placement, rate: &mut Option<f64>) -> io::Result<Loads> {
        let veth = Veth::make()?;
        veth.place(placement, self.cores)?;
        if subject == Subject::CoupledSocket {
            veth.server.set_gro(true);
        }
        let echo = subject.start(&veth, self.cores.server)?;
        let processes = with_interrupts(echo.child.id(), self.cores.server)?;
        if subject == Subject::Native && placement == Placement::Receiver {
            veth.place_thread(self.cores.server)?;
        }
        self.plan(None, WARM_UP).start_under(&veth.client.inside(), Some(self.cores.rest))?.finish()?;
        let closed = self.run(&veth, &processes, None, self.secs)?;
        let rate = *rate.get_or_insert(closed.rate);
        let open = SHARES.map(|share| self.run(&veth, &processes, Some(rate * share), self.secs));
        let open = open.into_iter().collect::<io::Result<_>>()?;
        let mut gun = Vec::new();
        // The gun attaches its own XDP program to its device, so the steering of the client's end cannot be
        // there.
        if placement == Placement::Sender && gun::is_there() {
            for share in SHARES {
                gun.push(self.fire(&veth, &processes, rate * share)?);
            }
        }
        Ok(Loads { closed, open, gun })
    }

    /// One load of our client.
    fn run(self, veth: &Veth, processes: &[u32], rate: Option<f64>, secs: f64) -> io::Result<Sample> {
        let client = self.plan(rate, secs).start_under(&veth.client.inside(), Some(self.cores.rest))?;
        Sample::take(self.cores, processes, || client.finish())
    }

    /// Returns the task of our client: at a rate, or in a closed loop.
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

    /// One load of kxdpgun.
    fn fire(self, veth: &Veth, processes: &[u32], rate: f64) -> io::Result<Sample> {
        let mut queries = tempfile::NamedTempFile::new()?;
        queries.write_all(gun::queries(GUN_NAMES, Lengths::Equal).as_bytes())?;
        let fire = || gun::fire(&veth.client, queries.path(), rate, self.secs, self.cores.rest);
        gun::fire_when_free(|| Sample::take(self.cores, processes, fire))
    }
}

impl Subject {
    /// Starts it, and returns when it listens.
    fn start(self, veth: &Veth, core: usize) -> io::Result<Process> {
        let socket = |more: &[&str]| {
            [&["socket-echo", "--address", &SERVER.to_string()], more].concat().into_iter().map(str::to_owned).collect()
        };
        let xdp = |mode| xdp_echo::arguments(veth.server.device, SERVER.port(), mode);
        let arguments = match self {
            Self::Socket => socket(&[]),
            Self::CoupledSocket => socket(&["--coupled"]),
            Self::Native => xdp("native"),
            Self::Generic => xdp("generic"),
        };
        let (echo, line) = Process::role_under(&veth.server.inside(), &arguments, Some(core))?;
        if line.is_empty() {
            return Err(io::Error::other(format!("{arguments:?} has ended")));
        }
        Ok(echo)
    }

    /// Returns the name in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::CoupledSocket => "socket, GRO and GSO",
            Self::Native => "XDP, native",
            Self::Generic => "XDP, generic",
        }
    }

    /// Returns true if it is by XDP.
    pub(crate) fn is_xdp(self) -> bool {
        match self {
            Self::Socket | Self::CoupledSocket => false,
            Self::Native | Self::Generic => true,
        }
    }
}
