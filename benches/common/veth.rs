//! Network namespaces with veth pairs between them, one queue each: their packets never leave the machine.
//!
//! A namespace lives as long as the process that holds it, and a pair as long as its namespaces; so all of
//! them end with the run, however that ends.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, geteuid};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::process::{Cores, Process};

/// The address of the server.
pub(crate) const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)), 53);
/// The address of the client.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The address from which the server forwards.
const NEAR_BACKENDS: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
/// Where it forwards to: backends, at this address and the next one.
pub(crate) const BACKENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 1, 2), Ipv4Addr::new(198, 18, 1, 3)];
/// The server's device towards these.
pub(crate) const BACKENDS_DEVICE: &str = "server1";

/// The core on which the kernel handles arriving frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// The sender's core, the default of a veth pair: the core of the echo pays for the way of its echoes up
    /// to the socket of the client, and that of the client for the way of queries up to the echo.
    Sender,
    /// The receiver's core, as interrupts of a card are set up: by receive steering (RPS), and for XDP in the
    /// driver, which runs before that, by a NAPI thread on that core.
    Receiver,
}

/// The pair between server and client.
pub(crate) struct Veth {
    /// The end of the server.
    pub(crate) server: End,
    /// The end of the client.
    pub(crate) client: End,
}

/// One end with its namespace.
pub(crate) struct End {
    /// The process that holds the namespace.
    holder: Process,
    /// The name of the device that comes first.
    pub(crate) device: &'static str,
}

impl Veth {
    /// Makes namespaces and pair.
    pub(crate) fn make() -> io::Result<Self> {
        let [server, client] = [End::make("server0")?, End::make("client0")?];
        server.connect(server.device, &[SERVER.ip().to_string()], &client, &[CLIENT.to_string()])?;
        Ok(Self { server, client })
    }

    /// Adds a pair between the server and backends, and returns their end.
    pub(crate) fn add_backends(&self) -> io::Result<End> {
        let backends = End::make("backend0")?;
        let theirs = BACKENDS.map(|address| address.to_string());
        self.server.connect(BACKENDS_DEVICE, &[NEAR_BACKENDS.to_string()], &backends, &theirs)?;
        Ok(backends)
    }

    /// Sets the core that handles arriving packets, at both ends.
    pub(crate) fn place(&self, placement: Placement, cores: Cores) -> io::Result<()> {
        for (end, core) in [(&self.server, cores.server), (&self.client, cores.rest)] {
            let mask = match placement {
                Placement::Sender => 0,
                Placement::Receiver => 1_u64 << core,
            };
            end.set("queues/rx-0/rps_cpus", &format!("{mask:x}"))?;
        }
        Ok(())
    }

    /// Has a thread on this core poll the server's end, which is polled once it runs a native program.
    pub(crate) fn place_thread(&self, core: usize) -> io::Result<()> {
        self.server.set("threaded", "1")?;
        let mut set = CpuSet::new();
        set.set(core);
        let threads = kernel_threads(&format!("napi/{}-", self.server.device))?;
        if threads.is_empty() {
            return Err(io::Error::other(format!("{} has no NAPI thread", self.server.device)));
        }
        threads.into_iter().try_for_each(|thread| Ok(sched_setaffinity(Some(thread), &set)?))
    }
}

impl End {
    /// A namespace for a device of that name.
    fn make(device: &'static str) -> io::Result<Self> {
        let unshare = ["unshare", "--net", "--mount"].map(str::to_owned);
        let (holder, _) = Process::role_under(&unshare, &["namespace".to_owned()], None)?;
        let end = Self { holder, device };
        // What is mounted shows the devices of the namespace in which it was.
        end.run(&["mount", "-t", "sysfs", "sysfs", "/sys"])?;
        // Knot DNS and kxdpgun pin what they load there.
        end.run(&["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"])?;
        Ok(end)
    }

    /// Lays a pair between a device of this name here and the first device of another end, and gives both
    /// their addresses.
    fn connect(&self, device: &str, ours: &[String], other: &Self, theirs: &[String]) -> io::Result<()> {
        let queues = ["numrxqueues", "1", "numtxqueues", "1"];
        let pid = other.pid();
        let pair = [&["ip", "link", "add", device][..], &queues, &["type", "veth", "peer", "name", other.device]];
        self.run(&[&pair.concat()[..], &["netns", &pid], &queues].concat())?;
        for (end, device, addresses) in [(self, device, ours), (other, other.device, theirs)] {
            // No IPv6: the device sends no datagrams unasked.
            end.run(&["ip", "link", "set", device, "addrgenmode", "none"])?;
            for address in addresses {
                end.run(&["ip", "address", "add", &format!("{address}/24"), "dev", device])?;
            }
            end.run(&["ip", "link", "set", device, "up"])?;
        }
        Ok(())
    }

    /// The number of the process that holds the namespace.
    fn pid(&self) -> String {
        self.holder.child.id().to_string()
    }

    /// The words before a command that is to run there.
    pub(crate) fn inside(&self) -> Vec<String> {
        ["nsenter", "--target", &self.pid(), "--net", "--mount"].map(str::to_owned).to_vec()
    }

    /// Runs a command there and returns what it printed; an error says what it complained of.
    pub(crate) fn run(&self, words: &[&str]) -> io::Result<String> {
        let inside = self.inside();
        let output = Command::new(&inside[0]).args(&inside[1..]).args(words).output()?;
        let [printed, said] =
            [output.stdout, output.stderr].map(|octets| String::from_utf8_lossy(&octets).into_owned());
        if !output.status.success() {
            return Err(io::Error::other(format!("{}: {} {}", words.join(" "), said.trim(), printed.trim())));
        }
        Ok(printed + &said)
    }

    /// Sets a property of the device.
    fn set(&self, property: &str, value: &str) -> io::Result<()> {
        let script = format!("echo {value} > /sys/class/net/{}/{property}", self.device);
        self.run(&["sh", "-c", &script]).map(drop)
    }

    /// Returns true if an XDP program is on the device.
    pub(crate) fn has_program(&self) -> io::Result<bool> {
        Ok(self.run(&["ip", "link", "show", "dev", self.device])?.contains("prog/xdp"))
    }

    /// Switches GRO of the device, if the tool for that is there; `false` if it is not.
    pub(crate) fn set_gro(&self, on: bool) -> bool {
        self.run(&["ethtool", "-K", self.device, "gro", if on { "on" } else { "off" }]).is_ok()
    }
}

/// The threads of the kernel whose names begin so.
pub(crate) fn kernel_threads(prefix: &str) -> io::Result<Vec<Pid>> {
    let numbers =
        fs::read_dir("/proc")?.map_while(Result::ok).filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |number: &i32| {
        let name = fs::read_to_string(Path::new("/proc").join(number.to_string()).join("comm"));
        name.is_ok_and(|name| name.trim_end().starts_with(prefix))
    };
    Ok(numbers.filter(is_one).filter_map(Pid::from_raw).collect())
}

/// Returns the missing requirements of this machine; `None` if all are there.
pub(crate) fn missing() -> Option<String> {
    if !geteuid().is_root() {
        return Some("who is not root may load no XDP program".to_owned());
    }
    for (words, package) in
        [(["ip", "-V"], "iproute2"), (["nsenter", "-V"], "util-linux"), (["unshare", "-V"], "util-linux")]
    {
        let ran = Command::new(words[0]).arg(words[1]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !ran.is_ok_and(|status| status.success()) {
            return Some(format!("the command {} of the package {package} is not there", words[0]));
        }
    }
    let unshared = Command::new("unshare").args(["--net", "--mount", "true"]).stderr(Stdio::null()).status();
    (!unshared.is_ok_and(|status| status.success())).then(|| "no network namespace can be made".to_owned())
}

/// The role that holds a namespace: says that this process is there, and waits until stdin is closed.
pub(crate) fn hold_namespace() -> io::Result<()> {
    println!("there");
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}
