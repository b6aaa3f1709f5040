//! Other servers that are measured beside ours, if they are installed: how each is found, what it is called,
//! and how it is started with one worker. Their configs are in `settings`.

use std::env;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use clap::ValueEnum;

use crate::launch::Launch;
use crate::settings::{self, Setup};
use crate::subject::Scenario;

/// A server by other people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// PowerDNS dnsdist.
    Dnsdist,
    /// dnsdist, set to receive and send many datagrams by one call.
    DnsdistBatched,
    /// Unbound.
    Unbound,
    /// Dnsmasq.
    Dnsmasq,
    /// SmartDNS.
    Smartdns,
    /// Knot Resolver.
    Kresd,
    /// PowerDNS Recursor.
    PdnsRecursor,
    /// BIND.
    Bind,
    /// NSD.
    Nsd,
    /// Knot DNS.
    Knot,
}

impl Peer {
    /// The name by which it is chosen and reported.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Returns true if the peer supports the scenario.
    pub(crate) fn fits(self, scenario: Scenario) -> bool {
        let (forwards, has_zones) = match self {
            Self::Bind => (true, true),
            Self::Nsd | Self::Knot => (false, true),
            Self::Dnsdist
            | Self::DnsdistBatched
            | Self::Unbound
            | Self::Dnsmasq
            | Self::Smartdns
            | Self::Kresd
            | Self::PdnsRecursor => (true, false),
        };
        match scenario {
            Scenario::Forward | Scenario::Cached(_) => forwards,
            Scenario::Zone(_) => has_zones,
            Scenario::Echo | Scenario::Table(_) => false,
        }
    }

    /// The name of its program.
    fn program(self) -> &'static str {
        match self {
            Self::Dnsdist | Self::DnsdistBatched => "dnsdist",
            Self::Unbound => "unbound",
            Self::Dnsmasq => "dnsmasq",
            Self::Smartdns => "smartdns",
            Self::Kresd => "kresd",
            Self::PdnsRecursor => "pdns_recursor",
            Self::Bind => "named",
            Self::Nsd => "nsd",
            Self::Knot => "knotd",
        }
    }

    /// Where its program is, if it is installed.
    pub(crate) fn find(self) -> Option<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&path).chain(SERVER_FOLDERS.map(PathBuf::from));
        folders.map(|folder| folder.join(self.program())).find(|program| program.is_file())
    }

    /// Returns the version that the peer prints; empty if that cannot be parsed.
    pub(crate) fn version(self) -> String {
        let option = match self {
            Self::Unbound => "-V",
            Self::Smartdns | Self::Bind | Self::Nsd => "-v",
            Self::Dnsdist | Self::DnsdistBatched | Self::Dnsmasq | Self::Kresd | Self::PdnsRecursor | Self::Knot => {
                "--version"
            }
        };
        let output = self.find().and_then(|program| Command::new(program).arg(option).output().ok());
        let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        // A number with something more behind it, neither the day nor the time of a line in a log.
        let is_version = |word: &&str| {
            word.starts_with(|first: char| first.is_ascii_digit())
                && !word.contains(':')
                && word.contains(|other: char| !other.is_ascii_digit())
        };
        said.split_whitespace().find(is_version).unwrap_or_default().trim_end_matches(',').to_owned()
    }

    /// Writes the peer's config, with these additional lines, and returns its start command: in the
    /// foreground, with one worker.
    pub(crate) fn launch(self, setup: &Setup<'_>, besides: &str) -> io::Result<Launch> {
        let (file, config, arguments): (_, _, &[&str]) = match self {
            Self::Dnsdist => ("config", settings::dnsdist(setup, false), DNSDIST_ARGUMENTS),
            Self::DnsdistBatched => ("config", settings::dnsdist(setup, true), DNSDIST_ARGUMENTS),
            Self::Unbound => ("config", settings::unbound(setup), &["-d", "-c", "config"]),
            Self::Dnsmasq => ("config", settings::dnsmasq(setup), &["--no-daemon", "--conf-file=config"]),
            Self::Smartdns => ("config", settings::smartdns(setup), &["-f", "-x", "-c", "config", "-p", "pid"]),
            Self::Kresd => ("config", settings::kresd(setup), &["-n", "-q", "-c", "config", "."]),
            Self::PdnsRecursor => ("recursor.conf", settings::pdns_recursor(setup), &["--config-dir=."]),
            Self::Bind => ("config", settings::bind(setup), &["-g", "-n", "1", "-c", "config"]),
            Self::Nsd => ("config", settings::nsd(setup), &["-d", "-c", "config"]),
            Self::Knot => ("config", settings::knot(setup), &["-c", "config"]),
        };
        fs::write(setup.folder.join(file), config + besides)?;
        let program = self.find().ok_or_else(|| io::Error::other("it is not installed"))?;
        Ok(Launch { program, arguments: arguments.iter().map(Into::into).collect() })
    }
}

/// The arguments of both forms of dnsdist.
const DNSDIST_ARGUMENTS: &[&str] = &["-C", "config", "--supervised", "--disable-syslog"];

/// Where servers are installed, though not every user's PATH says so.
const SERVER_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The peers of a run.
#[derive(Clone, Debug)]
pub(crate) struct Peers(pub(crate) Vec<Peer>);

impl Peers {
    /// All that are installed.
    pub(crate) fn installed() -> Self {
        Self(Peer::value_variants().iter().copied().filter(|peer| peer.find().is_some()).collect())
    }
}

impl FromStr for Peers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |name: &str| {
            let peer = Peer::from_str(name, false).map_err(|_| {
                let names: Vec<String> = Peer::value_variants().iter().map(|peer| peer.name()).collect();
                format!("no peer is called {name:?}, expected all, none, or some of {}", names.join(","))
            })?;
            peer.find().map(|_| peer).ok_or_else(|| format!("{} is not installed", peer.program()))
        };
        match text {
            "all" => Ok(Self::installed()),
            "none" => Ok(Self(Vec::new())),
            names => names.split(',').map(named).collect::<Result<_, _>>().map(Self),
        }
    }
}
