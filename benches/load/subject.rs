//! What is measured: a server in a scenario; and how it is started, loaded and ended within a round.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::admin;
use crate::common::client::{Plan, SOCKETS, Seen};
use crate::common::forwarder;
use crate::common::message::{self, Expect, Lengths};
use crate::common::process::{Cores, HEDGEROW, Server};
use crate::instructions;
use crate::launch::{Knocker, Launch};
use crate::peer::Peer;
use crate::replicas::Knowledge;
use crate::settings::Setup;
use crate::watched::Watch;

/// The kind of queries that a server gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// To send everything back: the price of moving datagrams on this machine.
    Echo,
    /// Names that never repeat, which two backends know.
    Forward,
    /// So many names, all of them in the cache.
    Cached(u32),
    /// The hosts of a zone in a master file, so many.
    Zone(u32),
    /// The hosts of a table, so many.
    Table(u32),
}

impl Scenario {
    /// The name in the report.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Echo => "echo".to_owned(),
            Self::Forward => "forward".to_owned(),
            Self::Cached(names) => format!("cached, {names} names"),
            Self::Zone(hosts) => format!("zone of {hosts} hosts"),
            Self::Table(hosts) => format!("table of {hosts} hosts"),
        }
    }

    /// Names before the first one comes again; 0: they never do.
    pub(crate) fn names(self) -> u32 {
        match self {
            Self::Echo | Self::Forward => 0,
            Self::Cached(names) | Self::Zone(names) | Self::Table(names) => names,
        }
    }

    /// How many names must have been asked for before what counts.
    pub(crate) fn names_to_learn(self) -> u32 {
        match self {
            Self::Echo | Self::Forward | Self::Zone(_) | Self::Table(_) => 0,
            // Some are lost when the responders are late, and are learnt when they come again.
            Self::Cached(names) => names + names / 10,
        }
    }

    /// Returns the TTL of the responders' answers, in seconds. Some peers have no option to keep nothing
    /// whatever its TTL.
    pub(crate) fn ttl(self) -> u32 {
        match self {
            Self::Echo | Self::Forward | Self::Zone(_) | Self::Table(_) => 0,
            Self::Cached(_) => 86_400,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answerer {
    /// The echo, a role of this program.
    Echo,
    /// The echo with datagrams of equal length to one client sent as one, as hedgerow does.
    CoupledEcho,
    /// The release binary. The dispatch matters where it forwards.
    Hedgerow(Dispatch),
    /// Sequential dispatch with observers.
    Watched(Watch),
    /// A dispatch with backends that are, or are not, configured as replicas.
    Replicas(Dispatch, Knowledge),
    /// A server by other people.
    Peer(Peer),
}

/// The dispatch of the LS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dispatch {
    /// One backend is asked.
    Sequential,
    /// One backend is asked, and sometimes a second.
    Hedge,
    /// Both backends are asked.
    Race,
}

impl Dispatch {
    /// The word of the config.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Hedge => "hedge",
            Self::Race => "race",
        }
    }
}

/// A server in a scenario: a row of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) scenario: Scenario,
    pub(crate) answerer: Answerer,
}

/// One subject's part of one round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) closed: Load,
    pub(crate) open: Load,
    /// Instructions of the programs themselves for each answer of a closed loop, if the machine counts them.
    pub(crate) instructions: Option<f64>,
    /// Memory after all of that, in bytes.
    pub(crate) memory: u64,
    /// Seconds from the start to the first right answer; the echo's is not taken.
    pub(crate) first_answer: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Load {
    pub(crate) seen: Seen,
    /// CPU time of the server for a million answers, in seconds.
    pub(crate) cpu_per_million: f64,
    /// The share of it that was spent outside of the kernel.
    pub(crate) user_share: f64,
    /// Share of its core that the server used. Well below 1 in a closed loop, the other core was the limit.
    pub(crate) busy: f64,
}

/// How long and how fast a subject is loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strength {
    /// Seconds of each load.
    pub(crate) secs: f64,
    /// The open loop; `None` until the echo has shown what the machine can do.
    pub(crate) rates: Option<Rates>,
    pub(crate) lengths: Lengths,
    /// True if queries have an OPT record, which backends answer with one.
    pub(crate) edns: bool,
    /// True if instructions are counted.
    pub(crate) counts_instructions: bool,
}

/// Queries a second of open loops.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Rates {
    /// The rate of forwarded queries.
    pub(crate) forward: f64,
    /// The rate of queries that the server answers by itself.
    pub(crate) others: f64,
}

impl Rates {
    /// A tenth of what the server could do. To forward costs about three times what the echo costs.
    pub(crate) fn of_echo(rate: f64) -> Self {
        let hundreds = |rate: f64| (rate / 100.0).ceil() * 100.0;
        Self { forward: hundreds(rate / 30.0), others: hundreds(rate / 10.0) }
    }

    /// The rate for a scenario.
    pub(crate) fn of(self, scenario: Scenario) -> f64 {
        match scenario {
            Scenario::Forward => self.forward,
            Scenario::Echo | Scenario::Cached(_) | Scenario::Zone(_) | Scenario::Table(_) => self.others,
        }
    }
}

/// Silence after which a query is lost, in seconds.
pub(crate) const TIMEOUT: f64 = 1.0;
/// Seconds of load before what counts: sockets, buffers and estimates warm up.
pub(crate) const WARM_UP: f64 = 0.3;
/// Names of two loads of one process lie so far apart that none comes twice.
pub(crate) const NAMES_OF_A_LOAD: u32 = 1 << 29;
/// How long a server may take until it answers.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to read a hundred thousand hosts, besides.
pub(crate) const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

impl Subject {
    /// The name in messages.
    pub(crate) fn name(self) -> String {
        format!("{}: {}", self.scenario.name(), self.answerer())
    }

    /// The name of the server in the report.
    pub(crate) fn answerer(self) -> String {
        match self.answerer {
            Answerer::Echo => "bare batched UDP echo".to_owned(),
            Answerer::CoupledEcho => "the same with UDP_SEGMENT".to_owned(),
            Answerer::Hedgerow(dispatch) if self.scenario == Scenario::Forward => {
                format!("hedgerow {}", dispatch.word())
            }
            Answerer::Hedgerow(_) => "hedgerow".to_owned(),
            Answerer::Watched(watch) => format!("hedgerow {}", watch.name()),
            Answerer::Replicas(dispatch, knowledge) => format!("hedgerow {}{}", dispatch.word(), knowledge.name()),
            Answerer::Peer(peer) => peer.name(),
        }
    }

    /// Starts the subject afresh, loads it, and ends it.
    pub(crate) fn measure(self, strength: Strength, cores: Option<Cores>, files: &Path) -> io::Result<Sample> {
        let folder = tempfile::tempdir_in(files)?;
        let running = self.start(strength, cores, files, folder.path())?;
        let mut asked = 0;
        loop {
            let warm_up = self.plan(&running, asked, Strength { secs: WARM_UP, ..strength }, None);
            asked += warm_up.start(cores.map(|cores| cores.rest))?.finish()?.sent as u32;
            // On a busy machine it takes more than once until every hot name was asked for.
            if asked >= self.scenario.names_to_learn() {
                break;
            }
        }
        let load = |turn: u32, rate| {
            let plan = self.plan(&running, turn * NAMES_OF_A_LOAD, strength, rate);
            Load::run(&plan, &running.server, cores)
        };
        let closed = load(1, None)?;
        let rates = strength.rates.unwrap_or_else(|| Rates::of_echo(closed.seen.rate));
        let open = load(2, Some(rates.of(self.scenario)))?;
        let instructions = match strength.counts_instructions {
            true => {
                let plan = self.plan(&running, 3 * NAMES_OF_A_LOAD, strength, None);
                Some(instructions::per_answer(&plan, &running.server, cores, folder.path())?)
            }
            false => None,
        };
        let memory = running.server.memory()?.proportional;
        let first_answer = running.first_answer.map(|time| time.as_secs_f64());
        Ok(Sample { closed, open, instructions, memory, first_answer })
    }

    /// A load on a server that runs.
    fn plan(self, running: &Running, first: u32, strength: Strength, rate: Option<f64>) -> Plan {
        let expect = match self.scenario {
            Scenario::Echo => Expect::Echo,
            Scenario::Forward | Scenario::Cached(_) | Scenario::Zone(_) | Scenario::Table(_) => Expect::Answer,
        };
        Plan {
            server: running.server.address,
            expect,
            secs: strength.secs,
            rate,
            burst: 1,
            first,
            names: self.scenario.names(),
            lengths: strength.lengths,
            edns: strength.edns,
            timeout: TIMEOUT,
            sockets: SOCKETS,
            slots: false,
        }
    }

    /// Starts the server and, if it is a forwarder, its backends.
    fn start(self, strength: Strength, cores: Option<Cores>, files: &Path, folder: &Path) -> io::Result<Running> {
        let Strength { lengths, edns, .. } = strength;
        let (core, rest) = (cores.map(|cores| cores.server), cores.map(|cores| cores.rest));
        let scenario = self.scenario;
        let (hosts, responders) = match scenario {
            Scenario::Echo => (PathBuf::new(), Vec::new()),
            Scenario::Forward | Scenario::Cached(_) => {
                let responder = || responders(1, scenario.ttl(), edns, rest);
                (PathBuf::new(), vec![responder()?, responder()?])
            }
            Scenario::Zone(hosts) => (written(files, &format!("{hosts}.zone"), || zone(hosts, lengths))?, Vec::new()),
            Scenario::Table(hosts) => (written(files, &format!("{hosts}.txt"), || table(hosts, lengths))?, Vec::new()),
        };
        let backends: Vec<_> = responders.iter().map(|responder| responder.address).collect();
        let knocker = Knocker::new(scenario.names(), lengths)?;
        let setup = Setup { scenario, listen: knocker.address, backends: &backends, hosts: &hosts, folder };
        let admin = admin::free_address()?;
        let launch = match self.answerer {
            Answerer::Echo => return Running::echo(&["echo"], core),
            Answerer::CoupledEcho => return Running::echo(&["echo", "--coupled"], core),
            Answerer::Hedgerow(dispatch) => hedgerow(&setup, dispatch, "")?,
            Answerer::Watched(watch) => hedgerow(&setup, Dispatch::Sequential, &watch.config(admin))?,
            Answerer::Replicas(dispatch, knowledge) => hedgerow(&setup, dispatch, knowledge.config())?,
            Answerer::Peer(peer) => peer.launch(&setup, "")?,
        };
        let longest = START_TIMEOUT + LOAD_TIMEOUT * (scenario.names() / 100_000);
        let (server, first_answer) = knocker.start(&launch, folder, core, longest)?;
        if let Answerer::Watched(watch) = self.answerer {
            watch.open(admin)?;
        }
        Ok(Running { server, _responders: responders, first_answer: Some(first_answer) })
    }
}

impl Load {
    /// Loads a server from a client process.
    pub(crate) fn run(plan: &Plan, server: &Server, cores: Option<Cores>) -> io::Result<Self> {
        let before = server.cpu_time()?;
        let seen = plan.start(cores.map(|cores| cores.rest))?.finish()?;
        let used = server.cpu_time()? - before;
        let cpu_per_million = used.total().as_secs_f64() * 1e6 / (seen.answered.max(1) as f64);
        let user_share = used.user.as_secs_f64() / used.total().as_secs_f64().max(f64::MIN_POSITIVE);
        Ok(Self { busy: cpu_per_million * seen.rate / 1e6, seen, cpu_per_million, user_share })
    }
}

/// A server that answers.
struct Running {
    server: Server,
    /// The backends, which end with the server.
    _responders: Vec<Server>,
    /// The time until the first answer.
    first_answer: Option<Duration>,
}

impl Running {
    fn echo(role: &[&str], core: Option<usize>) -> io::Result<Self> {
        let role: Vec<_> = role.iter().map(|&word| word.to_owned()).collect();
        Ok(Self { server: Server::role(&role, core)?, _responders: Vec::new(), first_answer: None })
    }
}

/// Starts a backend that is always fast.
pub(crate) fn responder(ttl: u32, core: Option<usize>) -> io::Result<Server> {
    responders(1, ttl, false, core)
}

/// Starts so many of them, at [addresses that follow each other](crate::tool::nth_address), with OPT records
/// or without.
pub(crate) fn responders(addresses: u32, ttl: u32, edns: bool, core: Option<usize>) -> io::Result<Server> {
    let mut arguments = format!("fast-responder --ttl {ttl} --addresses {addresses}");
    if edns {
        arguments.push_str(" --edns");
    }
    Server::role(&arguments.split(' ').map(str::to_owned).collect::<Vec<_>>(), core)
}

/// Writes the config of the release binary, with these additional lines, and returns its start command.
pub(crate) fn hedgerow(setup: &Setup<'_>, dispatch: Dispatch, besides: &str) -> io::Result<Launch> {
    let Setup { scenario, listen, backends, hosts, folder } = *setup;
    let config = match scenario {
        Scenario::Echo | Scenario::Forward => {
            forwarder::config(1, listen, backends, &format!("dispatch = \"{}\"", dispatch.word()))
        }
        // Room for a million names.
        Scenario::Cached(_) => forwarder::config(1, listen, backends, "[cache]\nsize = \"256MiB\""),
        Scenario::Zone(_) => authority(listen, &format!("{{ file = {hosts:?}, origin = \"bench.test\" }}")),
        Scenario::Table(_) => authority(listen, &format!("{hosts:?}")),
    };
    launch_hedgerow(&format!("{config}\n{besides}"), folder)
}

/// Returns the command that starts the release binary with a config.
pub(crate) fn launch_hedgerow(config: &str, folder: &Path) -> io::Result<Launch> {
    fs::write(folder.join("config.toml"), config)?;
    let arguments = ["--log", "warn", "serve", "-c", "config.toml"].map(Into::into);
    Ok(Launch { program: HEDGEROW.into(), arguments: arguments.to_vec() })
}

/// The config of one TS. A miss shows as a wrong answer, not as a loss.
pub(crate) fn authority(listen: SocketAddr, zone: &str) -> String {
    format!("workers = 1\n[authorities.bench]\nlisten = [\"{listen}\"]\nzones = [{zone}]\nmiss = \"nxdomain\"\n")
}

/// The path of a file that is written when it is first needed.
pub(crate) fn written(folder: &Path, name: &str, text: impl FnOnce() -> String) -> io::Result<PathBuf> {
    let path = folder.join(name);
    if !path.exists() {
        fs::write(&path, text())?;
    }
    Ok(path)
}

/// A table with a host for each number.
pub(crate) fn table(hosts: u32, lengths: Lengths) -> String {
    let host = |number| format!("{}.bench.test {} A\n", message::label(number, lengths), message::address(number));
    (0..hosts).map(host).collect()
}

/// Returns the zone as a master file.
pub(crate) fn zone(hosts: u32, lengths: Lengths) -> String {
    let apex = "$ORIGIN bench.test.\n$TTL 3600\n@ SOA ns hostmaster 1 3600 600 604800 60\n@ NS ns\nns A 127.0.0.1\n";
    let host = |number| format!("{} A {}\n", message::label(number, lengths), message::address(number));
    [apex.to_owned()].into_iter().chain((0..hosts).map(host)).collect()
}
