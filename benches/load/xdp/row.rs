//! A row of the report: a server that is asked for something; and how it is started on a veth pair of its
//! own, loaded and ended.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::{Loads, Setting};
use crate::common::account::Memory;
use crate::common::client::{Plan, SOCKETS};
use crate::common::gun;
use crate::common::message::Expect;
use crate::common::process::{self, Process, Server};
use crate::common::sample::{Sample, with_interrupts};
use crate::common::veth::{BACKENDS, BACKENDS_DEVICE, End, SERVER, Veth};
use crate::common::xdp_echo;
use crate::launch::{self, Knock, LOG, Launch};
use crate::peer::Peer;
use crate::settings::Setup;
use crate::subject::{self, Dispatch, Scenario};

/// A server in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    asked: Asked,
    who: Who,
}

/// The kind of answer requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The query itself.
    Echo,
    /// The hosts of a zone, so many.
    Zone(u32),
    /// Names that are all in the cache, so many.
    Cached(u32),
    /// Names that backends know, of which one is asked.
    Forward,
    /// Forwarding in a race of two backends.
    Race,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// The bare echo by XDP.
    Echo,
    /// The release binary.
    Hedgerow(By),
    /// Knot DNS.
    Knot(By),
    /// dnsdist, by sockets; with many datagrams a call, or one.
    Dnsdist { is_batched: bool },
}

/// The I/O of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Socket,
    Xdp,
}

/// All that is asked for.
pub(super) const ASKED: [Asked; 6] =
    [Asked::Echo, Asked::Zone(10_000), Asked::Zone(1_000_000), Asked::Cached(10_000), Asked::Forward, Asked::Race];

impl Asked {
    /// The name in the report.
    pub(super) fn name(self) -> String {
        match self {
            Self::Race => "race of two".to_owned(),
            Self::Echo | Self::Zone(_) | Self::Cached(_) | Self::Forward => self.scenario().name(),
        }
    }

    /// Returns the equivalent scenario without XDP.
    pub(super) fn scenario(self) -> Scenario {
        match self {
            Self::Echo => Scenario::Echo,
            Self::Zone(hosts) => Scenario::Zone(hosts),
            Self::Cached(names) => Scenario::Cached(names),
            Self::Forward | Self::Race => Scenario::Forward,
        }
    }

    /// Returns the servers that can answer it.
    fn servers(self) -> Vec<Who> {
        let ours = [Who::Hedgerow(By::Socket), Who::Hedgerow(By::Xdp)];
        let knot = [Who::Knot(By::Socket), Who::Knot(By::Xdp)];
        let dnsdist = [false, true].map(|is_batched| Who::Dnsdist { is_batched });
        match self {
            Self::Echo => vec![Who::Echo],
            Self::Zone(_) => [ours, knot].concat(),
            Self::Cached(_) | Self::Forward => [ours, dnsdist].concat(),
            Self::Race => ours.to_vec(),
        }
    }
}

impl Who {
    /// The name in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Echo => "bare XDP echo",
            Self::Hedgerow(By::Socket) => "hedgerow by socket",
            Self::Hedgerow(By::Xdp) => "hedgerow by XDP",
            Self::Knot(By::Socket) => "Knot DNS by socket",
            Self::Knot(By::Xdp) => "Knot DNS by XDP",
            Self::Dnsdist { is_batched: false } => "dnsdist by socket",
            Self::Dnsdist { is_batched: true } => "dnsdist-batched by socket",
        }
    }

    /// Returns true if it has a program on its device.
    fn is_by_xdp(self) -> bool {
        match self {
            Self::Echo | Self::Hedgerow(By::Xdp) | Self::Knot(By::Xdp) => true,
            Self::Hedgerow(By::Socket) | Self::Knot(By::Socket) | Self::Dnsdist { .. } => false,
        }
    }

    /// The peer, if it is one.
    fn peer(self) -> Option<Peer> {
        match self {
            Self::Echo | Self::Hedgerow(_) => None,
            Self::Knot(_) => Some(Peer::Knot),
            Self::Dnsdist { is_batched: false } => Some(Peer::Dnsdist),
            Self::Dnsdist { is_batched: true } => Some(Peer::DnsdistBatched),
        }
    }
}

/// A server that answers, and what it hangs on.
struct Running {
    veth: Veth,
    server: Process,
    /// The backends, which end with the server, and their namespace.
    _backends: Option<(Server, End)>,
}

impl Row {
    /// All rows, in the order of the report.
    pub(super) fn all() -> Vec<Self> {
        ASKED.iter().flat_map(|&asked| asked.servers().into_iter().map(move |who| Self { asked, who })).collect()
    }

    /// The row of a server that is asked for something.
    pub(super) fn of(asked: Asked, who: Who) -> Self {
        Self { asked, who }
    }

    pub(super) fn asked(self) -> Asked {
        self.asked
    }

    pub(super) fn who(self) -> Who {
        self.who
    }

    /// The name in messages.
    pub(super) fn name(self) -> String {
        format!("{}: {}", self.asked.name(), self.who.name())
    }

    /// Returns true if the server is installed.
    pub(super) fn is_there(self) -> bool {
        self.who.peer().is_none_or(|peer| peer.find().is_some())
    }

    /// Returns true if it is what others are compared with.
    pub(super) fn is_echo(self) -> bool {
        self.who == Who::Echo
    }

    /// Returns true if the server is one of ours.
    pub(super) fn is_ours(self) -> bool {
        self.who.peer().is_none()
    }

    /// Starts the server afresh, puts it under all loads, and ends it.
    pub(super) fn measure(self, setting: Setting, files: &Path) -> io::Result<Loads> {
        let folder = tempfile::tempdir_in(files)?;
        let mut running = self.start(setting, files, folder.path())?;
        let loads = self.load(&running, setting, files);
        match running.server.child.try_wait()? {
            Some(status) => {
                let said = launch::last_line(&folder.path().join(LOG));
                Err(io::Error::other(format!("ended under load, with {status}: {said}")))
            }
            None => loads,
        }
    }

    /// Puts a server that runs under all loads.
    fn load(self, running: &Running, setting: Setting, files: &Path) -> io::Result<Loads> {
        let Setting { cores, secs, rates, lengths } = setting;
        let scenario = self.asked.scenario();
        let inside = running.veth.client.inside();
        let start = |turn: u32, secs, rate| {
            let plan = self.plan(turn * subject::NAMES_OF_A_LOAD, Setting { secs, ..setting }, rate);
            plan.start_under(&inside, Some(cores.rest))
        };
        let mut asked = 0;
        loop {
            let plan = self.plan(asked, Setting { secs: subject::WARM_UP, ..setting }, None);
            asked += plan.start_under(&inside, Some(cores.rest))?.finish()?.sent as u32;
            // On a busy machine it takes more than once until every hot name was asked for.
            if asked >= scenario.names_to_learn() {
                break;
            }
        }
        let processes = with_interrupts(running.server.child.id(), cores.server)?;
        let client = start(1, secs, None)?;
        let closed = Sample::take(cores, &processes, || client.finish())?;
        let rate = rates.of(scenario);
        let client = start(2, secs, Some(rate))?;
        let open = Sample::take(cores, &processes, || client.finish())?;
        let mut gun = None;
        if gun::is_there() {
            let names = if scenario.names() == 0 { GUN_NAMES } else { scenario.names() };
            let queries = subject::written(files, &format!("{names}.queries"), || gun::queries(names, lengths))?;
            let fire = || gun::fire(&running.veth.client, &queries, rate, secs, cores.rest);
            gun = Some(gun::fire_when_free(|| Sample::take(cores, &processes, fire))?);
        }
        let resident = Memory::of(running.server.child.id())?.resident;
        Ok(Loads { closed, open, gun, resident })
    }

    /// Returns the task of our client: at a rate, or in a closed loop.
    fn plan(self, first: u32, setting: Setting, rate: Option<f64>) -> Plan {
        Plan {
            server: SERVER,
            expect: match self.asked {
                Asked::Echo => Expect::Echo,
                Asked::Zone(_) | Asked::Cached(_) | Asked::Forward | Asked::Race => Expect::Answer,
            },
            secs: setting.secs,
            rate,
            burst: 1,
            first,
            names: self.asked.scenario().names(),
            lengths: setting.lengths,
            edns: false,
            timeout: subject::TIMEOUT,
            sockets: SOCKETS,
            slots: false,
        }
    }

    /// Starts the server and, if it is a forwarder, its backends, and waits until it answers.
    fn start(self, setting: Setting, files: &Path, folder: &Path) -> io::Result<Running> {
        let Setting { cores, lengths, .. } = setting;
        let scenario = self.asked.scenario();
        let veth = Veth::make()?;
        let (mut backends, mut hosts) = (None, PathBuf::new());
        match self.asked {
            Asked::Echo => {}
            Asked::Zone(names) => {
                hosts = subject::written(files, &format!("{names}.zone"), || subject::zone(names, lengths))?;
            }
            Asked::Cached(_) | Asked::Forward | Asked::Race => {
                let (at, addresses) = (SocketAddrV4::new(BACKENDS[0], PORT), BACKENDS.len());
                let words = format!("fast-responder --ttl {} --at {at} --addresses {addresses}", scenario.ttl());
                let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
                let end = veth.add_backends()?;
                let responder = Server::role_under(&end.inside(), &words, Some(cores.rest))?;
                backends = Some((responder, end));
            }
        }
        let addresses = BACKENDS.map(|address| SocketAddr::from((address, PORT)));
        let setup = Setup { scenario, listen: SERVER, backends: &addresses, hosts: &hosts, folder };
        let launch = match self.who {
            Who::Echo => {
                let arguments = xdp_echo::arguments(veth.server.device, SERVER.port(), "native");
                let (server, line) = Process::role_under(&veth.server.inside(), &arguments, Some(cores.server))?;
                if line.is_empty() {
                    return Err(io::Error::other("the echo has ended"));
                }
                return Ok(Running { veth, server, _backends: None });
            }
            Who::Hedgerow(by) => {
                let dispatch = if self.asked == Asked::Race { Dispatch::Race } else { Dispatch::Sequential };
                subject::hedgerow(&setup, dispatch, &self.sections(by, &veth))?
            }
            Who::Knot(By::Socket) => Peer::Knot.launch(&setup, "")?,
            Who::Knot(By::Xdp) => {
                let listen = format!("{}@{}", veth.server.device, SERVER.port());
                Peer::Knot.launch(&setup, &format!("xdp:\n  listen: {listen}\n"))?
            }
            Who::Dnsdist { is_batched: false } => Peer::Dnsdist.launch(&setup, "")?,
            Who::Dnsdist { is_batched: true } => Peer::DnsdistBatched.launch(&setup, "")?,
        };
        let knock = Knock { server: SERVER, names: scenario.names(), lengths };
        let server = launch_inside(&launch, &veth, setting, folder, &knock)?;
        if self.who.is_by_xdp() && !veth.server.has_program()? {
            return Err(io::Error::other("answers, but not by XDP"));
        }
        Ok(Running { veth, server, _backends: backends })
    }

    /// The sections of hedgerow's config: no client is limited, as none is on loopback; and its interfaces,
    /// if it is by XDP.
    fn sections(self, by: By, veth: &Veth) -> String {
        let (who, interfaces) = match self.asked {
            Asked::Echo | Asked::Zone(_) => ("authorities.bench", format!("[\"{}\"]", veth.server.device)),
            Asked::Cached(_) | Asked::Forward | Asked::Race => {
                ("forwarder", format!("[\"{}\", \"{BACKENDS_DEVICE}\"]", veth.server.device))
            }
        };
        let kinds = ["answers", "referrals", "nxdomains", "errors", "total"];
        let rates: String = kinds.iter().map(|kind| format!("{kind} = 0\n")).collect();
        let xdp = match by {
            By::Socket => String::new(),
            By::Xdp => format!("[xdp]\ninterfaces = {interfaces}\nfallback = false\n"),
        };
        format!("[{who}.rate_limit]\n{rates}{xdp}")
    }
}

/// Starts a server at its end of a pair, in a folder that holds its config, and waits until it answers.
fn launch_inside(launch: &Launch, veth: &Veth, setting: Setting, folder: &Path, knock: &Knock) -> io::Result<Process> {
    let log = folder.join(LOG);
    // A command that enters a namespace with its mounts starts at the root folder.
    let inside = [veth.server.inside(), vec!["env".to_owned(), "-C".to_owned(), folder.to_string_lossy().into_owned()]];
    let words = inside.concat().into_iter().map(Into::into);
    let words: Vec<_> = words.chain([launch.program.clone().into()]).chain(launch.arguments.iter().cloned()).collect();
    let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("no command"))?;
    let stderr = Stdio::from(File::create(&log)?);
    let until = process::now() + subject::START_TIMEOUT + subject::LOAD_TIMEOUT * (knock.names / 100_000);
    let mut server = Process::program(Path::new(program), arguments, folder, Some(setting.cores.server), stderr)?;
    while !knock.ask_inside(&veth.client.inside(), setting.cores.rest)? {
        if server.child.try_wait()?.is_some() || process::now() > until {
            return Err(io::Error::other(format!("did not start: {}", launch::last_line(&log))));
        }
    }
    Ok(server)
}

/// The port of backends.
const PORT: u16 = 53;
/// The number of names that kxdpgun asks for in cases where our own client never repeats a name.
const GUN_NAMES: u32 = 100_000;
