//! The world of one test: the server is on a host of its own, and the test, which is all of its clients and backends, at the other end of
//! one or more veth pairs.
//!
//! The namespace of the test is that of a process which runs it alone, and the host is a process too: whatever they made ends with
//! them, however a test ends.

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::support::hosts::{self, Host};
use crate::support::*;

/// How the server takes datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Socket,
    Xdp,
}

/// Makes two tests of each scenario, which is a function of its [`Way`].
macro_rules! both_ways {
    ($($scenario:ident)*) => { $(
        mod $scenario {
            use crate::world::{self, Way};

            #[test]
            fn by_socket() {
                world::run(concat!(module_path!(), "::by_socket"), Way::Socket, super::$scenario);
            }

            #[test]
            fn by_xdp() {
                world::run(concat!(module_path!(), "::by_xdp"), Way::Xdp, super::$scenario);
            }
        }
    )* };
}

/// Makes a test of each scenario that there is by XDP alone.
macro_rules! by_xdp_alone {
    ($($scenario:ident)*) => { $(
        mod $scenario {
            use crate::world::{self, Way};

            #[test]
            fn by_xdp() {
                world::run(concat!(module_path!(), "::by_xdp"), Way::Xdp, super::$scenario);
            }
        }
    )* };
}
pub(crate) use {both_ways, by_xdp_alone};

/// Runs a scenario in a namespace made for this test, whose path begins with the name of this crate.
pub(crate) fn run(test: &str, way: Way, scenario: fn(Way)) {
    let (_, test) = test.split_once("::").expect("a path below the crate");
    if let Some(why) = missing() {
        return leave_out(test, &why);
    }
    if namespace::enter(test) {
        scenario(way);
    }
}

/// What this machine lacks; `None` if all is there.
fn missing() -> Option<String> {
    if !geteuid().is_root() {
        return Some("who is not root may load no XDP program".to_owned());
    }
    if let Some(program) =
        ["ip", "nsenter", "unshare", "ethtool", "kdig"].iter().find(|name| hosts::find(name).is_none())
    {
        return Some(format!("{program} is not installed"));
    }
    let error = xdp::socket::XdpSocketBuilder::new().err()?;
    Some(format!("the kernel gives no socket of AF_XDP: {error}"))
}

/// The server's end of the first pair, and the test's.
pub(crate) const SERVER: &str = "10.77.0.1";
pub(crate) const CLIENT: &str = "10.77.0.2";
pub(crate) const SERVER_6: &str = "fd77::1";
pub(crate) const CLIENT_6: &str = "fd77::2";

/// The same of the second pair: the test's end is where backends are, two of them.
pub(crate) const NEAR_BACKENDS: &str = "10.78.0.1";
pub(crate) const BACKEND: &str = "10.78.0.2";
pub(crate) const BACKEND_2: &str = "10.78.0.3";
pub(crate) const NEAR_BACKENDS_6: &str = "fd78::1";
pub(crate) const BACKEND_6: &str = "fd78::2";

/// The devices: of the server, and of the test.
pub(crate) const DEVICE: &str = "v0";
pub(crate) const CLIENT_DEVICE: &str = "c0";
pub(crate) const BACKEND_DEVICE: &str = "v1";

/// A veth pair to be made.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    /// Queues at each end.
    pub(crate) queues: u32,
    pub(crate) mtu: u32,
}

/// One queue, as Ethernet is.
pub(crate) const PLAIN: Pair = Pair { queues: 1, mtu: 1500 };

/// A host, and what it hangs on.
pub(crate) struct World {
    pub(crate) way: Way,
    pub(crate) host: Host,
    /// The mode of `[xdp]`, if it is not that of the default.
    mode: Option<&'static str>,
    /// The devices of each pair: the server's, and the test's.
    pairs: Vec<[&'static str; 2]>,
}

impl World {
    /// With a plain pair towards clients.
    pub(crate) fn new(way: Way) -> Self {
        Self::over(way, PLAIN)
    }

    /// With this pair towards clients.
    pub(crate) fn over(way: Way, pair: Pair) -> Self {
        let mut world = Self::bare(way);
        world.connect(pair, [DEVICE, CLIENT_DEVICE], [&[SERVER, SERVER_6], &[CLIENT, CLIENT_6]]);
        world
    }

    /// With a plain pair towards clients, and another towards backends.
    pub(crate) fn with_backends(way: Way) -> Self {
        let mut world = Self::new(way);
        let near: &[&str] = &[NEAR_BACKENDS, NEAR_BACKENDS_6];
        world.connect(PLAIN, [BACKEND_DEVICE, "b0"], [near, &[BACKEND, BACKEND_2, BACKEND_6]]);
        world
    }

    /// Without any pair.
    pub(crate) fn bare(way: Way) -> Self {
        Self { way, host: Host::apart(), mode: None, pairs: Vec::new() }
    }

    /// With this mode of `[xdp]`.
    pub(crate) fn mode(mut self, mode: &'static str) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Adds a pair: the server's device and the test's, and the addresses of both.
    pub(crate) fn connect(&mut self, pair: Pair, [ours, theirs]: [&'static str; 2], addresses: [&[&str]; 2]) {
        let Pair { queues, mtu } = pair;
        let options = format!("mtu {mtu} numrxqueues {queues} numtxqueues {queues}");
        let holder = self.host.id();
        hosts::run("ip", &format!("link add {theirs} {options} type veth peer name {ours} {options} netns {holder}"));
        let [near, far] = addresses;
        set_up(ours, near, |words| drop(self.host.run("ip", words)));
        set_up(theirs, far, |words| drop(hosts::run("ip", words)));
        self.pairs.retain(|pair| *pair != [ours, theirs]);
        self.pairs.push([ours, theirs]);
    }

    /// Runs `ip` on the server's host.
    pub(crate) fn ip(&self, words: &str) -> String {
        self.host.run("ip", words)
    }

    /// What stands at the end of the config.
    pub(crate) fn section(&self) -> String {
        match self.way {
            Way::Socket => String::new(),
            Way::Xdp => {
                let mode = self.mode.map(|mode| format!(", mode = '{mode}'")).unwrap_or_default();
                let device = |[device, _]: &[&str; 2]| format!("{{ name = '{device}'{mode} }}");
                let devices: Vec<_> = self.pairs.iter().map(device).collect();
                format!("[xdp]\ninterfaces = [{}]\nfallback = false\n", devices.join(", "))
            }
        }
    }

    /// Starts a server with this config, which gets the section `[xdp]` if that is the way.
    pub(crate) fn start(&self, config: &str, files: &[(&str, &str)]) -> Server {
        self.start_exactly(&format!("{config}{}", self.section()), files, |_| {})
    }

    /// Starts a server with this config as it is.
    pub(crate) fn start_exactly(
        &self,
        config: &str,
        files: &[(&str, &str)],
        set_up: impl FnOnce(&mut Command),
    ) -> Server {
        let (process, folder) = self.launch(config, files, set_up);
        Server::ready(process, folder)
    }

    /// The same, ready or not.
    pub(crate) fn launch(
        &self,
        config: &str,
        files: &[(&str, &str)],
        set_up: impl FnOnce(&mut Command),
    ) -> (Process, TempDir) {
        let folder = TempDir::new().expect("a temporary folder");
        for (name, content) in files.iter().chain(&[("config.toml", config)]) {
            std::fs::write(folder.path().join(name), content).expect("our own folder");
        }
        let mut command = self.host.command(env!("CARGO_BIN_EXE_hedgerow"));
        command.args(["serve", "-c"]).arg(folder.path().join("config.toml"));
        (Process::run_by(command, set_up), folder)
    }

    /// Asserts that so many frames at least were taken from a device and sent to it by XDP; or, by sockets, that nothing tells of such.
    pub(crate) fn check_served(&self, server: &Server, device: &str, [taken, sent]: [u64; 2]) {
        match self.way {
            Way::Socket => {
                assert_eq!(all_frames(&metrics(server)), Vec::<String>::new(), "no series without the section")
            }
            Way::Xdp => {
                wait_for(server, &format!("{taken} taken from {device} and {sent} sent"), |metrics| {
                    frames(metrics, device, "in", "taken") >= taken && frames(metrics, device, "out", "sent") >= sent
                });
            }
        }
    }

    /// By XDP: repeats `ask` until a query leaves by this device so. Where a backend is, the kernel finds out by the first query.
    pub(crate) fn ask_until_sent(&self, server: &Server, device: &str, mut ask: impl FnMut()) {
        if self.way == Way::Xdp {
            let sent = || frames(&metrics(server), device, "out", "sent");
            let before = sent();
            until(&format!("a query leaves by {device} by XDP"), || {
                ask();
                (sent() > before).then_some(())
            });
        }
    }

    /// A config of an authority with this table, at these addresses.
    pub(crate) fn authority(listen: &[&str]) -> String {
        let listen: Vec<_> = listen.iter().map(|address| format!("'{}'", at(address, 53))).collect();
        format!(
            "workers = 1\n[authorities.ts]\nlisten = [{}]\nzones = ['hosts.txt']\n{UNLIMITED}[admin]\nlisten = '127.0.0.1:0'\n",
            listen.join(", ")
        )
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Else they would be there until the kernel has time to take the host away, and so would their names.
        for [_, theirs] in &self.pairs {
            drop(Command::new("ip").args(["link", "del", theirs]).stderr(Stdio::null()).status());
        }
    }
}

/// No limit to rates, of the authority.
pub(crate) const UNLIMITED: &str =
    "[authorities.ts.rate_limit]\nanswers = 0\nreferrals = 0\nnxdomains = 0\nerrors = 0\ntotal = 0\n";

/// A forwarder at these addresses, which limits nobody.
pub(crate) fn forwarder(listen: &[&str], backends: &[&dyn Asked], keys: &str) -> Forwarder {
    let listen: Vec<_> = listen.iter().map(|address| format!("'{}'", at(address, 53))).collect();
    let rates = "rate_limit = { answers = 0, referrals = 0, nxdomains = 0, errors = 0, total = 0 }";
    Forwarder::to(backends, keys).listen(&format!("[{}]", listen.join(", "))).keys(rates).admin()
}

/// Gives a device its addresses, by this `ip`. Nobody else is there: no address needs to be tried, and none makes itself.
fn set_up(device: &str, addresses: &[&str], run: impl Fn(&str)) {
    run(&format!("link set {device} addrgenmode none"));
    for address in addresses {
        run(&format!("address add {} dev {device}", with_prefix(address)));
    }
    run(&format!("link set {device} up"));
}

/// An address with its port.
pub(crate) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}

/// An address with the length of its prefix, which needs no trial if it is of IPv6.
fn with_prefix(address: &str) -> String {
    if address.contains(':') { format!("{address}/64 nodad") } else { format!("{address}/24") }
}

/// What a server counts as of now. Its unix socket is in no namespace of a network.
pub(crate) fn metrics(server: &Server) -> Metrics {
    Metrics(server.admin().send_over_socket("GET", "/metrics", "").body)
}

/// Waits until what a server counts is as it should be.
pub(crate) fn wait_for(server: &Server, what: &str, is_so: impl Fn(&Metrics) -> bool) -> Metrics {
    let mut last = String::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    while std::time::Instant::now() < deadline {
        let metrics = metrics(server);
        if is_so(&metrics) {
            return metrics;
        }
        last = all_frames(&metrics).join("\n");
        std::thread::yield_now();
    }
    panic!("waited in vain: {what}\n{last}");
}

/// Frames of one device, one direction, one fate.
pub(crate) fn frames(metrics: &Metrics, device: &str, direction: &str, fate: &str) -> u64 {
    metrics.sum(FRAMES, &[("interface", device), ("direction", direction), ("fate", fate)])
}

/// All that is told of frames.
fn all_frames(metrics: &Metrics) -> Vec<String> {
    metrics.0.lines().filter(|line| line.starts_with(FRAMES)).map(str::to_owned).collect()
}

/// Counts frames.
const FRAMES: &str = "hedgerow_xdp_frames_total";
