//! What is measured: the bare echo, the authority, and the forwarder from its cache and in each dispatch; and how one of them is
//! started, loaded and ended within a round.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::common::client::{Plan, Seen};
use crate::common::forwarder;
use crate::common::message::{self, Expect};
use crate::common::process::{Cores, Server};

/// Something that answers queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A batched UDP echo: the price of moving datagrams on this machine.
    Echo,
    /// A TS with a table of so many hosts.
    Authority(u32),
    /// The LS, which has all that is asked, so many names, in its cache once it is warm.
    Cached(u32),
    /// The LS before two fixed responders.
    Forward(Dispatch),
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
    fn word(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Hedge => "hedge",
            Self::Race => "race",
        }
    }
}

/// One subject's part of one round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// Closed loop.
    pub(crate) closed: Load,
    /// Open loop.
    pub(crate) open: Load,
}

/// One load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Load {
    /// What the client saw.
    pub(crate) seen: Seen,
    /// CPU time of the server for a million answers, in seconds.
    pub(crate) cpu_per_million: f64,
    /// Share of its core that the server used. Well below 1 in a closed loop, the other core was the limit.
    pub(crate) busy: f64,
}

/// How long and how fast a subject is loaded.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Strength {
    /// Seconds of each load.
    pub(crate) secs: f64,
    /// Queries a second of the open loop.
    pub(crate) rate: f64,
}

/// The subjects of every run, the one that the others are compared with first.
pub(crate) const SUBJECTS: [Subject; 7] = [
    Subject::Echo,
    Subject::Authority(10_000),
    Subject::Authority(1_000_000),
    Subject::Cached(10_000),
    Subject::Forward(Dispatch::Sequential),
    Subject::Forward(Dispatch::Hedge),
    Subject::Forward(Dispatch::Race),
];

/// Subjects that show what the size of the cache costs.
pub(crate) const LARGE_SUBJECTS: [Subject; 3] = [Subject::Echo, Subject::Cached(10_000), Subject::Cached(1_000_000)];

/// Silence after which a query is lost, in seconds.
const TIMEOUT: f64 = 1.0;
/// Seconds of load before what counts: sockets, buffers and estimates warm up.
const WARM_UP: f64 = 0.3;
/// Names of two loads of one process lie so far apart that none comes twice.
const NAMES_OF_A_LOAD: u32 = 1 << 30;

impl Subject {
    /// The name in the report.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Echo => "echo".to_owned(),
            Self::Authority(hosts) => format!("authority {hosts}"),
            Self::Cached(names) => format!("cached {names}"),
            Self::Forward(dispatch) => format!("forward {}", dispatch.word()),
        }
    }

    /// Starts the subject afresh, loads it, and ends it.
    pub(crate) fn measure(self, strength: Strength, cores: Option<Cores>, folder: &Path) -> io::Result<Sample> {
        let (server, _responders) = self.start(cores, folder)?;
        let load = |turn: u32, secs, rate| self.load(&server, cores, turn * NAMES_OF_A_LOAD, secs, rate);
        let mut asked = 0;
        loop {
            asked += self.load(&server, cores, asked, WARM_UP, None)?.seen.sent as u32;
            // On a busy machine it takes more than once until every hot name was asked for.
            if asked >= self.names_to_learn() {
                break;
            }
        }
        Ok(Sample { closed: load(1, strength.secs, None)?, open: load(2, strength.secs, Some(strength.rate))? })
    }

    /// How many names must have been asked for before what counts.
    fn names_to_learn(self) -> u32 {
        match self {
            Self::Echo | Self::Authority(_) | Self::Forward(_) => 0,
            // Some are lost when the responders are late, and are learnt when they come again.
            Self::Cached(names) => names + names / 10,
        }
    }

    /// Starts the server and, if it is a forwarder, its backends.
    fn start(self, cores: Option<Cores>, folder: &Path) -> io::Result<(Server, Vec<Server>)> {
        let (core, rest) = (cores.map(|cores| cores.server), cores.map(|cores| cores.rest));
        let config = folder.join("config.toml");
        match self {
            Self::Echo => Ok((tool("echo", core)?, Vec::new())),
            Self::Authority(hosts) => {
                fs::write(folder.join("hosts.txt"), table(hosts))?;
                fs::write(&config, AUTHORITY_CONFIG)?;
                Ok((Server::hedgerow(&config, "bench", core)?, Vec::new()))
            }
            Self::Cached(_) | Self::Forward(_) => {
                let responders = vec![tool("responder", rest)?, tool("responder", rest)?];
                let backends: Vec<_> = responders.iter().map(|responder| responder.address).collect();
                fs::write(&config, forwarder::config(&backends, &self.rules()))?;
                Ok((Server::hedgerow(&config, "forwarder", core)?, responders))
            }
        }
    }

    /// The rules of the pool, if it is a forwarder, and the sections behind them.
    fn rules(self) -> String {
        match self {
            Self::Echo | Self::Authority(_) => String::new(),
            // Room for a million names; and an hour: whatever the responders say, no name is asked for again.
            Self::Cached(_) => "[cache]\nsize = \"256MiB\"\nmin_ttl = \"1h\"".to_owned(),
            Self::Forward(dispatch) => format!("dispatch = \"{}\"", dispatch.word()),
        }
    }

    /// Loads the server from a client process.
    fn load(self, server: &Server, cores: Option<Cores>, first: u32, secs: f64, rate: Option<f64>) -> io::Result<Load> {
        let (expect, names) = match self {
            Self::Echo => (Expect::Echo, 0),
            Self::Authority(names) | Self::Cached(names) => (Expect::Answer, names),
            Self::Forward(_) => (Expect::Answer, 0),
        };
        let plan = Plan { server: server.address, expect, secs, rate, first, names, timeout: TIMEOUT, slots: false };
        let (began, cpu_before) = (Instant::now(), server.cpu_time()?);
        let seen = plan.start(cores.map(|cores| cores.rest))?.finish()?;
        let cpu = (server.cpu_time()? - cpu_before).as_secs_f64();
        let cpu_per_million = cpu * 1e6 / (seen.answered.max(1) as f64);
        Ok(Load { seen, cpu_per_million, busy: cpu / began.elapsed().as_secs_f64() })
    }
}

/// Starts a tool that takes no options.
fn tool(role: &str, core: Option<usize>) -> io::Result<Server> {
    Server::role(&[role.to_owned()], core)
}

/// The table of the authority: a host for each number.
fn table(hosts: u32) -> String {
    let line = |number| format!("h{number:08x}.bench.test {} A\n", message::address(number));
    (0..hosts).map(line).collect()
}

/// One TS on a port of the kernel's choice. A miss shows as a wrong answer, not as a loss.
const AUTHORITY_CONFIG: &str = r#"
workers = 1
[authorities.bench]
listen = ["127.0.0.1:0"]
zones = ["hosts.txt"]
miss = "nxdomain"
"#;
