//! The world of one test. The server is on a separate host. The test acts as all of its clients and backends,
//! at the other end of one or more veth pairs.
//!
//! A separate process runs each test in a separate namespace, and the host is a process as well. The
//! namespaces and devices end with these processes, however a test ends.

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use rustix::process::geteuid;
use tempfile::TempDir;

use testkit::hosts::{self, Host};
use testkit::*;

/// How the server receives datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Socket,
    Xdp,
}

/// Creates two tests of each scenario, which is a function of its [`Way`].
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

/// Creates a test of each scenario that exists only for XDP.
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

/// Runs a scenario in a new namespace for this test. The path in `test` begins with the crate name.
pub(crate) fn run(test: &str, way: Way, scenario: fn(Way)) {
    let (_, test) = test.split_once("::").expect("a path below the crate");
    if let Some(why) = missing() {
        return leave_out(test, &why);
    }
    if namespace::enter(test) {
        scenario(way);
    }
}

/// Returns the first requirement that this machine lacks, or `None`.
fn missing() -> Option<String> {
    if !geteuid().is_root() {
        return Some("who is not root may load no XDP program".to_owned());
    }
    if let Some(program) =
        ["ip", "nsenter", "unshare", "ethtool", "kdig"].iter().find(|name| find_program(name).is_none())
    {
        return Some(format!("{program} is not installed"));
    }
    let error = xdp::socket::XdpSocketBuilder::new().err()?;
    Some(format!("the kernel gives no socket of AF_XDP: {error}"))
}

/// Addresses of the first pair: the server's end and the test's end.
pub(crate) const SERVER: &str = "10.77.0.1";
pub(crate) const CLIENT: &str = "10.77.0.2";
pub(crate) const SERVER_6: &str = "fd77::1";
pub(crate) const CLIENT_6: &str = "fd77::2";

/// Addresses of the second pair: the server's end, and the backends at the test's end.
pub(crate) const NEAR_BACKENDS: &str = "10.78.0.1";
pub(crate) const BACKEND: &str = "10.78.0.2";
pub(crate) const BACKEND_2: &str = "10.78.0.3";
pub(crate) const NEAR_BACKENDS_6: &str = "fd78::1";
pub(crate) const BACKEND_6: &str = "fd78::2";

/// Device names: the server's ends of both pairs, and the test's end of the first.
pub(crate) const DEVICE: &str = "v0";
pub(crate) const CLIENT_DEVICE: &str = "c0";
pub(crate) const BACKEND_DEVICE: &str = "v1";

/// Parameters of a veth pair.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    /// Number of queues at each end.
    pub(crate) queues: u32,
    pub(crate) mtu: u32,
}

/// A pair with one queue and the MTU of Ethernet.
pub(crate) const PLAIN: Pair = Pair { queues: 1, mtu: 1500 };

/// The server's host, and the pairs that connect it with the test.
pub(crate) struct World {
    pub(crate) way: Way,
    pub(crate) host: Host,
    /// The mode of `[xdp]`; `None` leaves the default.
    mode: Option<&'static str>,
    /// The devices of each pair: the server's, and the test's.
    pairs: Vec<[&'static str; 2]>,
}

impl World {
    /// Creates a world with a plain pair towards clients.
    pub(crate) fn new(way: Way) -> Self {
        Self::over(way, PLAIN)
    }

    /// Creates a world with this pair towards clients.
    pub(crate) fn over(way: Way, pair: Pair) -> Self {
        let mut world = Self::bare(way);
        world.connect(pair, [DEVICE, CLIENT_DEVICE], [&[SERVER, SERVER_6], &[CLIENT, CLIENT_6]]);
        world
    }

    /// Creates a world with a plain pair towards clients and another towards backends.
    pub(crate) fn with_backends(way: Way) -> Self {
        let mut world = Self::new(way);
        let near: &[&str] = &[NEAR_BACKENDS, NEAR_BACKENDS_6];
        world.connect(PLAIN, [BACKEND_DEVICE, "b0"], [near, &[BACKEND, BACKEND_2, BACKEND_6]]);
        world
    }

    /// Creates a world without any pair.
    pub(crate) fn bare(way: Way) -> Self {
        Self { way, host: Host::apart(), mode: None, pairs: Vec::new() }
    }

    /// Sets the mode of `[xdp]`.
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

    /// Returns the section `[xdp]` for the end of the config, empty in a run with sockets.
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

    /// Starts a server with this config, and with the section `[xdp]` in a run with XDP.
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

    /// Starts a server with this config as it is, without waiting until it is ready.
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

    /// Asserts that XDP took at least this many frames from a device and sent this many to it. In a run with
    /// sockets, asserts that no metric about frames exists.
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

    /// Repeats `ask` until a query leaves by this device by XDP. The first query makes the kernel look up the
    /// backend. Returns at once in a run with sockets.
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

    /// Returns the config of an authority that serves `hosts.txt` at these addresses.
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
        // Otherwise the devices and their names would remain until the kernel has time to remove the host.
        for [_, theirs] in &self.pairs {
            drop(Command::new("ip").args(["link", "del", theirs]).stderr(Stdio::null()).status());
        }
    }
}

/// Disables every rate limit of the authority.
pub(crate) const UNLIMITED: &str =
    "[authorities.ts.rate_limit]\nanswers = 0\nreferrals = 0\nnxdomains = 0\nerrors = 0\ntotal = 0\n";

/// Returns a forwarder at these addresses, without rate limits.
pub(crate) fn forwarder(listen: &[&str], backends: &[&dyn Asked], keys: &str) -> Forwarder {
    let listen: Vec<_> = listen.iter().map(|address| format!("'{}'", at(address, 53))).collect();
    let rates = "rate_limit = { answers = 0, referrals = 0, nxdomains = 0, errors = 0, total = 0 }";
    Forwarder::to(backends, keys).listen(&format!("[{}]", listen.join(", "))).keys(rates).admin()
}

/// Gives a device its addresses, by this `ip`. No other host is on the pair, so an address needs no duplicate
/// detection, and the kernel must not generate addresses.
fn set_up(device: &str, addresses: &[&str], run: impl Fn(&str)) {
    run(&format!("link set {device} addrgenmode none"));
    for address in addresses {
        run(&format!("address add {} dev {device}", with_prefix(address)));
    }
    run(&format!("link set {device} up"));
}

pub(crate) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}

/// Adds the prefix length to an address, and disables duplicate detection for IPv6.
fn with_prefix(address: &str) -> String {
    if address.contains(':') { format!("{address}/64 nodad") } else { format!("{address}/24") }
}

/// Reads the current metrics of a server. Its Unix socket does not depend on a network namespace.
pub(crate) fn metrics(server: &Server) -> Metrics {
    Metrics(server.admin().send_over_socket("GET", "/metrics", "").body)
}

/// Waits until the metrics of a server meet the condition.
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

/// Returns the number of frames with this device, direction and fate.
pub(crate) fn frames(metrics: &Metrics, device: &str, direction: &str, fate: &str) -> u64 {
    metrics.sum(FRAMES, &[("interface", device), ("direction", direction), ("fate", fate)])
}

/// Returns all metric lines about frames.
fn all_frames(metrics: &Metrics) -> Vec<String> {
    metrics.0.lines().filter(|line| line.starts_with(FRAMES)).map(str::to_owned).collect()
}

const FRAMES: &str = "hedgerow_xdp_frames_total";
